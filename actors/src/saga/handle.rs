//! What can be done with sagas from outside: begin, see, wait for, retry, abort.

use std::fmt;
use std::sync::Arc;

use mister_smith_supervisors::{AskError, Clock};
use serde::Serialize;

use super::events::SagaEvent;
use super::state::{SagaState, SagaStatus, StepStatus};
use super::summary::SagaSummary;
use super::{CATEGORY, Definitions, stream_of};
use crate::event::{
    Decoder, Event, EventCodecError, EventId, InvalidStreamId, Metadata, NewEvent, Position,
    RecordedEvent, StreamId, Timestamp, Version,
};
use crate::pool::PoolHandle;
use crate::projection::handle::{ProjectionRef, RequestError};
use crate::projection::{Compare, ListQuery};
use crate::store::committer::{CommitError, CommitterHandle};
use crate::store::{Append, AppendError, EventFilter, ExpectedVersion, IdempotencyKey, StoreError};

/// How often a decision of a person is written again, because the saga went on meanwhile.
const TRIES: usize = 16;

const PAGE: usize = 500;

/// What somebody waits for.
const ENDS: [&str; 3] = ["saga.completed", "saga.compensated", "saga.parked"];

/// The sagas of a node. Cheap to clone.
#[derive(Clone)]
pub struct Sagas(Arc<Inner>);

struct Inner {
    definitions: Definitions,
    committer: CommitterHandle,
    pool: PoolHandle,
    summaries: ProjectionRef,
    clock: Clock,
    random: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// A saga that is in the log, and will go on by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Started {
    /// Its stream.
    pub stream: StreamId,
    /// Where it begins in the log.
    pub position: Position,
    /// There was one of that name and id already; nothing was begun.
    pub duplicate: bool,
}

/// Why nothing came of a request about a saga.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SagaError {
    /// The node has no such definition.
    #[error("there is no saga {name}; this node has {known}")]
    UnknownKind {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// There is no such saga.
    #[error("there is no saga {name} {id}; see `smith sagas list`")]
    Unknown {
        /// Its kind.
        name: String,
        /// Its id.
        id: String,
    },
    /// The data is not of the saga's type.
    #[error("saga {name} does not work on that: {reason}")]
    Data {
        /// The saga.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The id cannot be part of a stream's name.
    #[error("the saga's id is no name: {0}")]
    Id(#[from] InvalidStreamId),
    /// Its state does not allow it.
    #[error("saga {name} {id} cannot be {action}: it is {status:?}")]
    State {
        /// Its kind.
        name: String,
        /// Its id.
        id: String,
        /// What was asked for.
        action: &'static str,
        /// Where it stands.
        status: SagaStatus,
    },
    /// It went on faster than the decision could be written.
    #[error("saga {name} {id} is busy; try again")]
    Busy {
        /// Its kind.
        name: String,
        /// Its id.
        id: String,
    },
    /// It could not be written; the same request is safe to repeat.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// It could not be written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The pool did not answer.
    #[error(transparent)]
    Pool(#[from] AskError),
    /// The list could not be read.
    #[error(transparent)]
    List(#[from] RequestError),
    /// An event cannot be read or written.
    #[error(transparent)]
    Event(#[from] EventCodecError),
}

impl Sagas {
    /// The sagas of a node, with what they need of it.
    #[must_use]
    pub fn new(
        definitions: Definitions,
        committer: CommitterHandle,
        pool: PoolHandle,
        summaries: ProjectionRef,
        clock: Clock,
        random: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        let random = Box::new(random);
        Self(Arc::new(Inner { definitions, committer, pool, summaries, clock, random }))
    }

    /// Begins a saga. When this returns it is in the log, and whatever crashes, it will be done or
    /// undone. The same name and id again begin nothing.
    ///
    /// # Errors
    /// There is no such definition, the data is not of its type, or it could not be written; a
    /// repeat after a fault of the store is right and doubles nothing.
    ///
    /// # Cancel safety
    /// A dropped call may have begun it.
    pub async fn start(
        &self,
        name: &str,
        id: &str,
        data: &(impl Serialize + Sync),
        metadata: Metadata,
    ) -> Result<Started, SagaError> {
        let definitions = &self.0.definitions;
        let definition = definitions.newest(name).ok_or_else(|| SagaError::UnknownKind {
            name: name.to_owned(),
            known: match definitions.is_empty() {
                true => "none".to_owned(),
                false => definitions.names().join(", "),
            },
        })?;
        let stream = stream_of(name, id)?;
        let wrong = |reason| SagaError::Data { name: name.to_owned(), reason };
        let data = serde_json::to_value(data).map_err(|error| wrong(error.to_string()))?;
        definition.check(&data).map_err(wrong)?;
        let now = self.now();
        let deadline = definition.deadline().map(|within| {
            let micros = i64::try_from(within.as_micros()).unwrap_or(i64::MAX);
            Timestamp::from_micros(now.as_micros().saturating_add(micros))
        });
        let event = SagaEvent::Started {
            name: name.to_owned(),
            version: definition.version(),
            data,
            deadline,
        };
        let event = self.event(&event, metadata)?;
        let mut append = Append::new(stream.clone(), ExpectedVersion::NoStream, vec![event]);
        append.key = Some(IdempotencyKey::of(["saga", stream.as_str(), "start"]));
        let outcomes = self.0.committer.submit(vec![append]).await?.durable().await?;
        match outcomes.into_iter().next() {
            Some(Ok(done)) => {
                Ok(Started { stream, position: done.first_position, duplicate: done.duplicate })
            }
            Some(Err(error)) => Err(error.into()),
            None => Err(CommitError::Interrupted.into()),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.clock.wall_us())
    }

    fn event(&self, event: &SagaEvent, metadata: Metadata) -> Result<NewEvent, EventCodecError> {
        let encoded = event.encode()?;
        let at = self.now();
        let id = EventId::at(at, (self.0.random)(), (self.0.random)());
        let mut new = NewEvent::new(id, encoded.event_type, encoded.codec, encoded.data, at);
        new.meta = metadata.to_bytes();
        Ok(new)
    }

    /// What happened to a saga, in order.
    ///
    /// # Errors
    /// There is none, or it could not be read.
    pub async fn history(
        &self,
        name: &str,
        id: &str,
    ) -> Result<Vec<(RecordedEvent, SagaEvent)>, SagaError> {
        let stream = stream_of(name, id)?;
        let store = self.0.pool.lease().await?.store;
        let decoder = Decoder::<SagaEvent>::new();
        let mut all = Vec::new();
        let mut at = Version::ZERO;
        loop {
            let page = store.read_stream(&stream, at, PAGE).await?;
            let Some(last) = page.last() else { break };
            at = last.version;
            for recorded in page {
                let event = decoder.decode(&recorded)?;
                all.push((recorded, event));
            }
        }
        match all.is_empty() {
            true => Err(SagaError::Unknown { name: name.to_owned(), id: id.to_owned() }),
            false => Ok(all),
        }
    }

    /// A saga's state, as it is in the log.
    ///
    /// # Errors
    /// There is none, or it could not be read.
    pub async fn state(&self, name: &str, id: &str) -> Result<SagaState, SagaError> {
        Ok(self.load(name, id).await?.0)
    }

    async fn load(&self, name: &str, id: &str) -> Result<(SagaState, Version), SagaError> {
        let (mut state, mut version) = (SagaState::default(), Version::ZERO);
        self.read(&stream_of(name, id)?, &mut state, &mut version).await?;
        match version == Version::ZERO {
            true => Err(SagaError::Unknown { name: name.to_owned(), id: id.to_owned() }),
            false => Ok((state, version)),
        }
    }

    /// Waits until a saga is completed, undone, or parked.
    ///
    /// # Errors
    /// There is none, or it could not be read.
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing.
    pub async fn wait(&self, name: &str, id: &str) -> Result<SagaState, SagaError> {
        let stream = stream_of(name, id)?;
        let ends = EventFilter::ALL.categories([CATEGORY]).types(ENDS);
        let mut at = self.0.pool.lease().await?.store.head().await?;
        let (mut state, mut version) = self.load(name, id).await?;
        while !(state.status.is_final() || state.status == SagaStatus::Parked) {
            let store = self.0.pool.lease().await?.store;
            // Of what is committed meanwhile only the ends of sagas are looked at, in memory.
            let page = store.read_matching(&ends, at, PAGE).await?;
            let ended = page.events.iter().any(|event| event.stream == stream);
            let behind = page.scanned_to > at;
            at = at.max(page.scanned_to);
            match ended {
                true => self.read(&stream, &mut state, &mut version).await?,
                false if behind => {}
                false => match store.changed(at).await {
                    // The pool was restarted: the next lease is good.
                    Ok(_) | Err(StoreError::Closed { .. }) => {}
                    Err(error) => return Err(error.into()),
                },
            }
        }
        Ok(state)
    }

    /// Takes in what is new in a stream.
    async fn read(
        &self,
        stream: &StreamId,
        state: &mut SagaState,
        version: &mut Version,
    ) -> Result<(), SagaError> {
        let store = self.0.pool.lease().await?.store;
        let decoder = Decoder::<SagaEvent>::new();
        loop {
            let page = store.read_stream(stream, *version, PAGE).await?;
            for recorded in &page {
                state.evolve(decoder.decode(recorded)?);
                *version = recorded.version;
            }
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// A page of sagas, by the name of their stream; only open ones, or only those of one kind or
    /// in one state, if asked for.
    ///
    /// # Errors
    /// They could not be read.
    pub async fn list(
        &self,
        filter: &SagaFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(Arc<str>, SagaSummary)>, SagaError> {
        let mut query = ListQuery::first(limit);
        if filter.open {
            query = query.filter("open", Compare::Eq, true);
        }
        if let Some(name) = &filter.name {
            query = query.filter("name", Compare::Eq, name.as_str());
        }
        if let Some(status) = &filter.status {
            query = query.filter("status", Compare::Eq, status.as_str());
        }
        if let Some(after) = after {
            query = query.after(after);
        }
        Ok(self.0.summaries.list(&query).await?)
    }

    /// Lets a parked saga go on, and one that waits for its next try go on at once; all tries are
    /// there again.
    ///
    /// # Errors
    /// There is none, or it neither is parked nor waits.
    pub async fn retry(&self, name: &str, id: &str, by: &str) -> Result<Position, SagaError> {
        self.decide(name, id, "retried", |state| {
            let waits = state.steps.iter().any(|step| {
                matches!(step.status, StepStatus::Waiting(_) | StepStatus::UndoWaiting(_))
            });
            let allowed = state.status == SagaStatus::Parked || (!state.status.is_final() && waits);
            allowed.then(|| SagaEvent::Resumed { by: by.to_owned() })
        })
        .await
    }

    /// Wants a saga undone. A step that runs is given up; it may have had its effect and is undone
    /// too.
    ///
    /// # Errors
    /// There is none, or it is completed, undone, or on its way back already.
    pub async fn abort(
        &self,
        name: &str,
        id: &str,
        by: &str,
        reason: &str,
    ) -> Result<Position, SagaError> {
        self.decide(name, id, "aborted", |state| {
            let allowed =
                matches!(state.status, SagaStatus::Running | SagaStatus::Parked) && !state.undoing;
            allowed
                .then(|| SagaEvent::AbortRequested { by: by.to_owned(), reason: reason.to_owned() })
        })
        .await
    }

    async fn decide(
        &self,
        name: &str,
        id: &str,
        action: &'static str,
        decide: impl Fn(&SagaState) -> Option<SagaEvent>,
    ) -> Result<Position, SagaError> {
        let stream = stream_of(name, id)?;
        for _ in 0..TRIES {
            let (state, version) = self.load(name, id).await?;
            let event = decide(&state).ok_or_else(|| SagaError::State {
                name: name.to_owned(),
                id: id.to_owned(),
                action,
                status: state.status,
            })?;
            let event = self.event(&event, Metadata::default())?;
            let append = Append::new(stream.clone(), ExpectedVersion::Exact(version), vec![event]);
            let outcomes = self.0.committer.submit(vec![append]).await?.durable().await?;
            match outcomes.into_iter().next() {
                Some(Ok(done)) => return Ok(done.last_position),
                Some(Err(AppendError::Conflict { .. })) | None => {}
                Some(Err(error)) => return Err(error.into()),
            }
        }
        Err(SagaError::Busy { name: name.to_owned(), id: id.to_owned() })
    }
}

/// Which sagas are listed.
#[derive(Debug, Clone, Default)]
pub struct SagaFilter {
    /// Only those that are neither completed nor undone.
    pub open: bool,
    /// Only those of this kind.
    pub name: Option<String>,
    /// Only those in this state, as it is written: `running`, `compensating`, `parked` ….
    pub status: Option<String>,
}

impl fmt::Debug for Sagas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sagas").field("definitions", &self.0.definitions).finish_non_exhaustive()
    }
}
