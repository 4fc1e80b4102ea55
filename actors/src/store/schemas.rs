//! Schemas in the event store: each subject is a stream, and so is registered by one node at a
//! time.

use std::fmt;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};

use super::{Append, AppendError, EventStore, ExpectedVersion, MAX_PAGE, StoreError};
use crate::error::ErrorClass;
use crate::event::schema::SchemaStorage;
use crate::event::schema::storage::{SchemaRecord, SchemaStorageError};
use crate::event::{ContentType, EventId, NewEvent, RecordedEvent, StreamId, Timestamp, Version};

/// The stream of a subject is called `schema-<subject>`.
const PREFIX: &str = "schema-";

/// Lists the subjects, so that nobody has to look through the log for them.
const INDEX: &str = "schemas";

const REGISTERED: &str = "schema.registered";
const COMPATIBILITY_SET: &str = "schema.compatibility_set";
const SUBJECT_ADDED: &str = "schema.subject_added";

/// Says when something is recorded.
type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A [`SchemaStorage`] in an event store.
///
/// Each append expects the version that was read, so of two nodes that register at once one has to
/// look again. The same batch that begins a subject's stream adds it to the list of subjects.
#[derive(Clone)]
pub struct EventStoreSchemas {
    store: Arc<dyn EventStore>,
    clock: Clock,
}

impl EventStoreSchemas {
    /// Schemas in `store`, with times from `clock`.
    #[must_use]
    pub fn new(
        store: Arc<dyn EventStore>,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        Self { store, clock: Arc::new(clock) }
    }

    fn append_to(
        &self,
        stream: StreamId,
        expected: ExpectedVersion,
        event_type: &str,
        data: Vec<u8>,
    ) -> Append {
        let at = (self.clock)();
        // Drawn from what is written and where, so that the same attempt has the same id, and
        // nothing has to be drawn at random.
        let mut hash = Sha256::new();
        for part in [stream.as_str().as_bytes(), expected.to_string().as_bytes(), &data] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        let number = |at: usize| {
            digest[at..at + 8].iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))
        };
        let id = EventId::at(at, number(0), number(8));
        let event = NewEvent::new(id, event_type, ContentType::MessagePack, data, at);
        Append::new(stream, expected, vec![event])
    }
}

impl fmt::Debug for EventStoreSchemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStoreSchemas").field("store", &self.store).finish_non_exhaustive()
    }
}

impl SchemaStorage for EventStoreSchemas {
    fn load<'a>(
        &'a self,
        subject: &'a str,
        after: u64,
    ) -> BoxFuture<'a, Result<Vec<SchemaRecord>, SchemaStorageError>> {
        async move {
            let stream = stream_of(subject)?;
            let events = self.store.read_stream(&stream, Version::new(after), MAX_PAGE).await;
            events.map_err(backend)?.iter().map(|event| decode(subject, event)).collect()
        }
        .boxed()
    }

    fn append<'a>(
        &'a self,
        subject: &'a str,
        after: u64,
        record: SchemaRecord,
    ) -> BoxFuture<'a, Result<(), SchemaStorageError>> {
        async move {
            let stream = stream_of(subject)?;
            let event_type = match &record {
                SchemaRecord::CompatibilitySet { .. } => COMPATIBILITY_SET,
                _ => REGISTERED,
            };
            let expected = ExpectedVersion::Exact(Version::new(after));
            let data = encode(&record)?;
            let mut batch = vec![self.append_to(stream, expected, event_type, data)];
            if after == 0 {
                let index = stream_named(INDEX, subject)?;
                let data = encode(&subject)?;
                let mut added = self.append_to(index, ExpectedVersion::Any, SUBJECT_ADDED, data);
                added.linked = true;
                batch.push(added);
            }
            let outcomes = self.store.append_batch(batch.into()).await.map_err(backend)?;
            match outcomes.into_iter().next() {
                Some(Err(AppendError::Conflict { .. })) => {
                    Err(SchemaStorageError::Conflict { subject: subject.to_owned() })
                }
                Some(Err(error)) => Err(SchemaStorageError::Backend {
                    class: error.class(),
                    source: Box::new(error),
                }),
                Some(Ok(_)) | None => Ok(()),
            }
        }
        .boxed()
    }

    fn subjects(&self) -> BoxFuture<'_, Result<Vec<Arc<str>>, SchemaStorageError>> {
        async move {
            let index = stream_named(INDEX, INDEX)?;
            let mut subjects = Vec::new();
            let mut after = Version::ZERO;
            loop {
                let page = self.store.read_stream(&index, after, MAX_PAGE).await;
                let page = page.map_err(backend)?;
                let Some(last) = page.last() else { break };
                after = last.version;
                for event in &page {
                    let subject: Arc<str> = read(INDEX, event)?;
                    subjects.push(subject);
                }
            }
            subjects.sort();
            Ok(subjects)
        }
        .boxed()
    }
}

fn stream_of(subject: &str) -> Result<StreamId, SchemaStorageError> {
    if subject.is_empty() {
        let reason = "it is empty; name it after an event type".to_owned();
        return Err(SchemaStorageError::Subject { subject: String::new(), reason });
    }
    stream_named(&format!("{PREFIX}{subject}"), subject)
}

fn stream_named(name: &str, subject: &str) -> Result<StreamId, SchemaStorageError> {
    StreamId::new(name).map_err(|error| SchemaStorageError::Subject {
        subject: subject.to_owned(),
        reason: error.to_string(),
    })
}

fn encode(value: &impl serde::Serialize) -> Result<Vec<u8>, SchemaStorageError> {
    rmp_serde::to_vec_named(value).map_err(|error| SchemaStorageError::Backend {
        class: ErrorClass::Permanent,
        source: Box::new(error),
    })
}

fn decode(subject: &str, event: &RecordedEvent) -> Result<SchemaRecord, SchemaStorageError> {
    match &*event.event_type {
        REGISTERED | COMPATIBILITY_SET => read(subject, event),
        other => Err(corrupt(subject, event, format!("it is a {other}"))),
    }
}

fn read<T: serde::de::DeserializeOwned>(
    subject: &str,
    event: &RecordedEvent,
) -> Result<T, SchemaStorageError> {
    rmp_serde::from_slice(&event.data).map_err(|error| corrupt(subject, event, error.to_string()))
}

fn corrupt(subject: &str, event: &RecordedEvent, reason: String) -> SchemaStorageError {
    let at = event.version.get();
    SchemaStorageError::Corrupt { subject: subject.to_owned(), at, reason }
}

fn backend(error: StoreError) -> SchemaStorageError {
    SchemaStorageError::Backend { class: error.class(), source: Box::new(error) }
}
