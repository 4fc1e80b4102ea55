//! The registry: versions of schemas under subjects, and who may add one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::compatibility::{self, Incompatibility};
use super::storage::{SchemaRecord, SchemaStorage, SchemaStorageError};
use super::{CompatibilityMode, IncompatibleSchema, Schema, SchemaVersion};
use crate::error::ErrorClass;
use crate::guarded::blocking;

/// How often a registration is tried again after somebody else's. Each of them made progress, so
/// this many in a row means a program that registers in a loop.
const MAX_TRIES: usize = 32;

/// Keeps the schemas of subjects, and lets a new version in only if it is compatible.
///
/// Cheap to clone; clones share what they have read. Versions never change, so they are read from
/// the storage once. What may have been added by another node ([`latest`](Self::latest),
/// [`list`](Self::list), [`compatibility`](Self::compatibility)) is asked for every time.
///
/// ```
/// use std::sync::Arc;
/// use mister_smith_actors::event::schema::{MemorySchemaStorage, Schema, SchemaRegistry};
///
/// # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = SchemaRegistry::new(Arc::new(MemorySchemaStorage::new()));
/// let v1 = Schema::json(r#"{"type": "object", "properties": {"cents": {"type": "integer"}}}"#)?;
/// assert_eq!(registry.register("order.placed", &v1).await?, 1);
/// assert_eq!(registry.register("order.placed", &v1).await?, 1, "it is there already");
///
/// let v2 = Schema::json(r#"{"type": "object", "properties": {"cents": {"type": "string"}}}"#)?;
/// let refused = registry.register("order.placed", &v2).await.unwrap_err();
/// assert!(refused.to_string().contains("cents: it is written as integer and read as string"));
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(doc()).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct SchemaRegistry {
    storage: Arc<dyn SchemaStorage>,
    default_mode: CompatibilityMode,
    cache: Arc<Mutex<BTreeMap<Arc<str>, Arc<Subject>>>>,
}

/// What is known of a subject.
#[derive(Debug, Clone, Default)]
struct Subject {
    /// Records that were read.
    records: u64,
    /// Version `n` is at index `n - 1`.
    schemas: Vec<Schema>,
    mode: Option<CompatibilityMode>,
}

/// A schema with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredSchema {
    /// The number in its subject.
    pub version: SchemaVersion,
    /// The schema.
    pub schema: Schema,
}

impl SchemaRegistry {
    /// A registry of what is in a storage. Subjects without a mode of their own have
    /// [`BackwardTransitive`](CompatibilityMode::BackwardTransitive): events of every version stay
    /// in the log.
    #[must_use]
    pub fn new(storage: Arc<dyn SchemaStorage>) -> Self {
        Self { storage, default_mode: CompatibilityMode::default(), cache: Arc::default() }
    }

    /// With another mode for subjects that have none of their own. Give all nodes the same.
    #[must_use]
    pub fn with_default_mode(mut self, mode: CompatibilityMode) -> Self {
        self.default_mode = mode;
        self
    }

    /// Adds a version and answers its number; the number that it has, if the subject has this
    /// schema already.
    ///
    /// # Errors
    /// It is incompatible ([`RegistryError::Incompatible`] says with what), the subject is full, or
    /// the storage failed.
    ///
    /// # Cancel safety
    /// A dropped call added the version or did not. Calling again answers the same number.
    pub async fn register(
        &self,
        subject: &str,
        schema: &Schema,
    ) -> Result<SchemaVersion, RegistryError> {
        if let Some(version) = self.cached(subject).version_of(schema) {
            return Ok(version);
        }
        for _ in 0..MAX_TRIES {
            let known = self.refresh(subject).await?;
            if let Some(version) = known.version_of(schema) {
                return Ok(version);
            }
            let mode = known.mode.unwrap_or(self.default_mode);
            let incompatibilities = compare(mode, schema, &known).await;
            if !incompatibilities.is_empty() {
                let subject = subject.to_owned();
                return Err(IncompatibleSchema { subject, mode, incompatibilities }.into());
            }
            let version = SchemaVersion::try_from(known.schemas.len() + 1)
                .map_err(|_| RegistryError::Full { subject: subject.to_owned() })?;
            let record = SchemaRecord::Registered { version, schema: schema.clone() };
            if self.append(subject, &known, record).await? {
                return Ok(version);
            }
        }
        Err(RegistryError::Contended { subject: subject.to_owned() })
    }

    /// Everything that [`register`](Self::register) would refuse the schema for; nothing if it
    /// would take it. Changes nothing.
    ///
    /// # Errors
    /// The storage failed.
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing.
    pub async fn check(
        &self,
        subject: &str,
        schema: &Schema,
    ) -> Result<Vec<Incompatibility>, RegistryError> {
        let known = self.refresh(subject).await?;
        if known.version_of(schema).is_some() {
            return Ok(Vec::new());
        }
        let mode = known.mode.unwrap_or(self.default_mode);
        Ok(compare(mode, schema, &known).await)
    }

    /// A version's schema.
    ///
    /// # Errors
    /// There is no such version, or the storage failed.
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing.
    pub async fn get(
        &self,
        subject: &str,
        version: SchemaVersion,
    ) -> Result<Schema, RegistryError> {
        if let Some(schema) = self.cached(subject).get(version) {
            return Ok(schema);
        }
        let known = self.refresh(subject).await?;
        known.get(version).ok_or_else(|| match known.schemas.len() {
            0 => RegistryError::UnknownSubject { subject: subject.to_owned() },
            last => RegistryError::UnknownVersion { subject: subject.to_owned(), version, last },
        })
    }

    /// The last version.
    ///
    /// # Errors
    /// There is no version, or the storage failed.
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing.
    pub async fn latest(&self, subject: &str) -> Result<RegisteredSchema, RegistryError> {
        let last = self.list(subject).await?.pop();
        last.ok_or_else(|| RegistryError::UnknownSubject { subject: subject.to_owned() })
    }

    /// All versions, oldest first; none if there is no such subject.
    ///
    /// # Errors
    /// The storage failed.
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing.
    pub async fn list(&self, subject: &str) -> Result<Vec<RegisteredSchema>, RegistryError> {
        let known = self.refresh(subject).await?;
        let registered =
            |(version, schema): (_, &Schema)| RegisteredSchema { version, schema: schema.clone() };
        Ok(known.numbered().map(registered).collect())
    }

    /// All subjects, in order.
    ///
    /// # Errors
    /// The storage failed.
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing.
    pub async fn subjects(&self) -> Result<Vec<Arc<str>>, RegistryError> {
        Ok(self.storage.subjects().await?)
    }

    /// The mode in which the subject's next version is checked.
    ///
    /// # Errors
    /// The storage failed.
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing.
    pub async fn compatibility(&self, subject: &str) -> Result<CompatibilityMode, RegistryError> {
        Ok(self.refresh(subject).await?.mode.unwrap_or(self.default_mode))
    }

    /// Sets the mode in which the subject's next versions are checked. The versions that are there
    /// are not checked again.
    ///
    /// # Errors
    /// The storage failed.
    ///
    /// # Cancel safety
    /// A dropped call set the mode or did not. Calling again is right.
    pub async fn set_compatibility(
        &self,
        subject: &str,
        mode: CompatibilityMode,
    ) -> Result<(), RegistryError> {
        for _ in 0..MAX_TRIES {
            let known = self.refresh(subject).await?;
            let record = SchemaRecord::CompatibilitySet { mode };
            if known.mode == Some(mode) || self.append(subject, &known, record).await? {
                return Ok(());
            }
        }
        Err(RegistryError::Contended { subject: subject.to_owned() })
    }

    /// Whether the record was written; it was not if the subject had changed.
    async fn append(
        &self,
        subject: &str,
        known: &Subject,
        record: SchemaRecord,
    ) -> Result<bool, RegistryError> {
        match self.storage.append(subject, known.records, record.clone()).await {
            Ok(()) => {
                let mut known = known.clone();
                known.apply(subject, record)?;
                self.keep(subject, known);
                Ok(true)
            }
            Err(SchemaStorageError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What the storage has of a subject now.
    async fn refresh(&self, subject: &str) -> Result<Arc<Subject>, RegistryError> {
        let mut known = self.cached(subject);
        loop {
            let records = self.storage.load(subject, known.records).await?;
            if records.is_empty() {
                return Ok(known);
            }
            let mut changed = Subject::clone(&known);
            for record in records {
                changed.apply(subject, record)?;
            }
            known = self.keep(subject, changed);
        }
    }

    fn cached(&self, subject: &str) -> Arc<Subject> {
        self.cache().get(subject).cloned().unwrap_or_default()
    }

    /// Keeps what was read, unless another call read more.
    fn keep(&self, subject: &str, known: Subject) -> Arc<Subject> {
        let mut cache = self.cache();
        let kept = cache.entry(subject.into()).or_default();
        if kept.records < known.records {
            *kept = Arc::new(known);
        }
        Arc::clone(kept)
    }

    fn cache(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<Subject>>> {
        // Entries are replaced as a whole, so they are whole after a panic, too.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compares with every version that counts. Each comparison is bounded, and yet too long for a
/// thread that others wait for.
async fn compare(
    mode: CompatibilityMode,
    schema: &Schema,
    known: &Arc<Subject>,
) -> Vec<Incompatibility> {
    let (schema, known) = (schema.clone(), Arc::clone(known));
    let check = move || compatibility::check(mode, &schema, known.numbered());
    blocking(check).await
}

impl Subject {
    fn apply(&mut self, subject: &str, record: SchemaRecord) -> Result<(), SchemaStorageError> {
        self.records += 1;
        match record {
            SchemaRecord::Registered { version, schema } => {
                if usize::from(version) != self.schemas.len() + 1 {
                    return Err(SchemaStorageError::Corrupt {
                        subject: subject.to_owned(),
                        at: self.records,
                        reason: format!("version {version} follows {}", self.schemas.len()),
                    });
                }
                self.schemas.push(schema);
            }
            SchemaRecord::CompatibilitySet { mode } => self.mode = Some(mode),
        }
        Ok(())
    }

    fn numbered(&self) -> impl Iterator<Item = (SchemaVersion, &Schema)> {
        (1..=SchemaVersion::MAX).zip(&self.schemas)
    }

    fn version_of(&self, schema: &Schema) -> Option<SchemaVersion> {
        self.numbered().find(|(_, known)| *known == schema).map(|(version, _)| version)
    }

    fn get(&self, version: SchemaVersion) -> Option<Schema> {
        self.schemas.get(usize::from(version).checked_sub(1)?).cloned()
    }
}

/// Why a registry could not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The schema breaks a reader.
    #[error(transparent)]
    Incompatible(#[from] IncompatibleSchema),
    /// The subject has no schemas.
    #[error("there is no schema of {subject}; register one")]
    UnknownSubject {
        /// The subject.
        subject: String,
    },
    /// The subject has no such version.
    #[error("{subject} has no schema version {version}, the last is {last}; register it first")]
    UnknownVersion {
        /// The subject.
        subject: String,
        /// What was asked for.
        version: SchemaVersion,
        /// The last one there is.
        last: usize,
    },
    /// Others registered without a pause.
    #[error("{subject} was changed by others {MAX_TRIES} times in a row; try again later")]
    Contended {
        /// The subject.
        subject: String,
    },
    /// There are no numbers left.
    #[error(
        "{subject} has {} versions, which is all there are; use a new subject",
        SchemaVersion::MAX
    )]
    Full {
        /// The subject.
        subject: String,
    },
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] SchemaStorageError),
}

impl RegistryError {
    /// How to react.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Incompatible(error) => error.class(),
            Self::UnknownSubject { .. } | Self::UnknownVersion { .. } => ErrorClass::User,
            Self::Contended { .. } => ErrorClass::Transient,
            Self::Full { .. } => ErrorClass::Permanent,
            Self::Storage(error) => error.class(),
        }
    }
}
