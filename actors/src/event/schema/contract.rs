//! Contract tests: an application's own proof that its current schemas read its old events.
//!
//! Keep a payload of every version that was ever written beside the code, and check all of them in
//! a test:
//!
//! ```no_run
//! use mister_smith_actors::event::schema::{Schema, contract::Contract};
//!
//! # fn current() -> Schema { unreachable!() }
//! // #[test]
//! fn old_orders_can_be_read() {
//!     Contract::new().schema("order.placed", 3, current()).assert_directory("tests/events");
//! }
//! ```
//!
//! A directory has one directory for each subject, and in it files whose names begin with the
//! version: `order.placed/1.small.json`.
//!
//! | file | what |
//! |---|---|
//! | `<version>.schema.json`, `<version>.avsc`, `<version>.protoset` | the version's schema; for Avro it has to be there. It is compared with the current one, too |
//! | `<version>….json`, `<version>….msgpack` | a payload for a JSON Schema |
//! | `<version>….avro` | an Avro datum without a header |
//! | `<version>….binpb` | a Protobuf message |

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::compatibility::{self, CompatibilityMode, Incompatibility};
use super::{Schema, SchemaKind, SchemaVersion};
use crate::error::ErrorClass;
use crate::event::ContentType;
use crate::event::typed::payload_value;
use crate::event::upcast::Upcasters;

/// The current schemas of an application, and what was written under earlier ones.
#[derive(Debug, Clone, Default)]
pub struct Contract {
    current: BTreeMap<Arc<str>, (SchemaVersion, Schema)>,
    earlier: BTreeMap<(Arc<str>, SchemaVersion), Schema>,
    payloads: Vec<Payload>,
    upcasters: Option<Upcasters>,
}

#[derive(Debug, Clone)]
struct Payload {
    name: String,
    subject: Arc<str>,
    version: SchemaVersion,
    codec: ContentType,
    data: Vec<u8>,
}

/// How much a contract checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Payloads that can be read.
    pub payloads: usize,
    /// Earlier schemas that were compared.
    pub schemas: usize,
}

impl Contract {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The schema that the application reads a subject with, and its version.
    #[must_use]
    pub fn schema(
        mut self,
        subject: impl Into<Arc<str>>,
        version: SchemaVersion,
        schema: Schema,
    ) -> Self {
        self.current.insert(subject.into(), (version, schema));
        self
    }

    /// An earlier version's schema. The current one has to be backward compatible with it.
    #[must_use]
    pub fn earlier(
        mut self,
        subject: impl Into<Arc<str>>,
        version: SchemaVersion,
        schema: Schema,
    ) -> Self {
        self.earlier.insert((subject.into(), version), schema);
        self
    }

    /// The steps that payloads for JSON Schemas go through before they are checked, as in
    /// [`Event::upcasters`](crate::event::Event::upcasters). Earlier JSON Schemas are not compared
    /// then: a step may turn anything into anything.
    #[must_use]
    pub fn upcasters(mut self, upcasters: Upcasters) -> Self {
        self.upcasters = Some(upcasters);
        self
    }

    /// A payload that was written under a version. `name` is what a failure calls it; `codec`
    /// matters for JSON Schemas only.
    #[must_use]
    pub fn payload(
        mut self,
        name: impl Into<String>,
        subject: impl Into<Arc<str>>,
        version: SchemaVersion,
        codec: ContentType,
        data: impl Into<Vec<u8>>,
    ) -> Self {
        let (name, subject, data) = (name.into(), subject.into(), data.into());
        self.payloads.push(Payload { name, subject, version, codec, data });
        self
    }

    /// The payloads and earlier schemas of a directory; see the [module](self) for its files. The
    /// schemas of the application have to be given before.
    ///
    /// # Errors
    /// A file cannot be read, or its name does not say what it is.
    pub fn directory(mut self, directory: impl AsRef<Path>) -> Result<Self, ContractError> {
        for subject in entries(directory.as_ref())? {
            for file in entries(&subject)? {
                self = self.file(&subject, &file)?;
            }
        }
        Ok(self)
    }

    fn file(self, subject: &Path, file: &Path) -> Result<Self, ContractError> {
        let unclear = || ContractError::FileName { path: file.to_owned() };
        let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let subject: Arc<str> = name(subject).ok_or_else(unclear)?.into();
        let file_name = name(file).ok_or_else(unclear)?;
        let (version, kind) = file_name.split_once('.').ok_or_else(unclear)?;
        let version = version.trim_start_matches('v').parse().map_err(|_| unclear())?;
        let data = fs::read(file)
            .map_err(|source| ContractError::Unreadable { path: file.to_owned(), source })?;
        let no_schema = |reason: String| ContractError::Schema { path: file.to_owned(), reason };
        let text = || String::from_utf8(data.clone()).map_err(|error| no_schema(error.to_string()));
        let schema = match kind {
            "schema.json" => Schema::json(text()?),
            "avsc" => Schema::avro(text()?),
            "protoset" => {
                let current = self.current.get(&subject).and_then(|(_, schema)| schema.message());
                Schema::protobuf(data.clone(), current.unwrap_or_default())
            }
            payload => {
                let codec = match payload.rsplit('.').next() {
                    Some("json") => ContentType::Json,
                    Some("msgpack") => ContentType::MessagePack,
                    Some("avro") => ContentType::Avro,
                    Some("binpb") => ContentType::Protobuf,
                    _ => return Err(unclear()),
                };
                return Ok(self.payload(file.display().to_string(), subject, version, codec, data));
            }
        };
        let schema = schema.map_err(|error| no_schema(error.to_string()))?;
        Ok(self.earlier(subject, version, schema))
    }

    /// Checks that each payload can be read with the current schema of its subject, and that each
    /// earlier schema is compatible with it.
    ///
    /// # Errors
    /// [`ContractError::Broken`] with everything that would break, or
    /// [`ContractError::Nothing`] if there is nothing to check: an empty directory is more likely
    /// a wrong path than a kept promise.
    pub fn check(&self) -> Result<Checked, ContractError> {
        let mut breaches = Vec::new();
        let mut schemas = 0;
        for ((subject, version), earlier) in &self.earlier {
            match self.current.get(subject) {
                None => breaches.push(missing(subject, &format!("schema version {version}"))),
                Some((_, current)) => {
                    schemas += 1;
                    let upcast =
                        self.upcasters.is_some() && current.kind() == SchemaKind::JsonSchema;
                    let found = match upcast {
                        true => Vec::new(),
                        false => compatibility::check(
                            CompatibilityMode::Backward,
                            current,
                            [(*version, earlier)],
                        ),
                    };
                    let told = |found: Incompatibility| format!("{subject}: {found}");
                    breaches.extend(found.into_iter().map(told));
                }
            }
        }
        for payload in &self.payloads {
            let Payload { name, subject, version, .. } = payload;
            match self.current.get(subject) {
                None => breaches.push(missing(subject, name)),
                Some((last, current)) => {
                    if let Err(reason) = self.read(payload, *last, current) {
                        breaches.push(format!(
                            "{name}: {subject} version {version} cannot be read with version \
                             {last}: {reason}"
                        ));
                    }
                }
            }
        }
        match (breaches.is_empty(), self.payloads.len() + schemas) {
            (false, _) => Err(ContractError::Broken { breaches }),
            (true, 0) => Err(ContractError::Nothing),
            (true, _) => Ok(Checked { payloads: self.payloads.len(), schemas }),
        }
    }

    fn read(&self, payload: &Payload, last: SchemaVersion, current: &Schema) -> Result<(), String> {
        let Payload { subject, version, codec, data, .. } = payload;
        let earlier = self.earlier.get(&(Arc::clone(subject), *version));
        let told = |error: super::PayloadError| error.to_string();
        match current.kind() {
            SchemaKind::JsonSchema => {
                let mut value =
                    payload_value(subject, *codec, data).map_err(|error| error.to_string())?;
                if let Some(upcasters) = &self.upcasters {
                    let upcast = upcasters.upcast(subject, *version, last, value);
                    value = upcast.map_err(|error| error.to_string())?.1;
                }
                current.validate(value.to_string().as_bytes()).map_err(told)
            }
            SchemaKind::Avro => {
                let writer = match (earlier, *version == last) {
                    (Some(earlier), _) => earlier,
                    (None, true) => current,
                    (None, false) => {
                        return Err(format!(
                            "Avro needs the schema that it was written with; add {version}.avsc"
                        ));
                    }
                };
                current.read(writer, data).map_err(told)
            }
            SchemaKind::Protobuf => current.validate(data).map_err(told),
        }
    }

    /// For tests: [`check`](Self::check) of what was given and of a directory.
    ///
    /// # Panics
    /// The contract is broken or cannot be checked; the message says what would break.
    #[track_caller]
    pub fn assert_directory(self, directory: impl AsRef<Path>) -> Checked {
        match self.directory(directory).and_then(|contract| contract.check()) {
            Ok(checked) => checked,
            Err(error) => panic!("{error}"),
        }
    }

    /// For tests: [`check`](Self::check) of what was given.
    ///
    /// # Panics
    /// The contract is broken or checks nothing; the message says what would break.
    #[track_caller]
    pub fn assert(&self) -> Checked {
        match self.check() {
            Ok(checked) => checked,
            Err(error) => panic!("{error}"),
        }
    }
}

fn missing(subject: &str, what: &str) -> String {
    format!(
        "{what}: the application has no schema of {subject}; the log still has such events, so \
         keep one"
    )
}

/// What is in a directory, in the order of names.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, ContractError> {
    let unreadable = |source| ContractError::Unreadable { path: directory.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        found.push(entry.map_err(unreadable)?.path());
    }
    found.sort();
    Ok(found)
}

/// Why a contract does not hold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContractError {
    /// Old events could not be read.
    #[error("old events would become unreadable:{}", breaches.iter().map(|one| format!("\n- {one}")).collect::<String>())]
    Broken {
        /// Each of them, with the reason and the cure.
        breaches: Vec<String>,
    },
    /// Nothing was given.
    #[error("the contract has no payloads and no earlier schemas; is the directory right?")]
    Nothing,
    /// A file or directory cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file's name does not say what it is.
    #[error(
        "{} is named neither <version>.schema.json, .avsc or .protoset nor <version>….json, \
         .msgpack, .avro or .binpb; rename it",
        path.display()
    )]
    FileName {
        /// Which.
        path: PathBuf,
    },
    /// A file is no schema.
    #[error("{} is no schema: {reason}", path.display())]
    Schema {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl ContractError {
    /// How to react.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Broken { .. } => ErrorClass::Permanent,
            Self::Nothing | Self::FileName { .. } | Self::Schema { .. } => ErrorClass::User,
            Self::Unreadable { .. } => ErrorClass::System,
        }
    }
}
