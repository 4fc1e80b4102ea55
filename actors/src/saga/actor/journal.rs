//! The stream of one saga: read as far as it is known, and written to by this life.

use std::time::Duration;

use mister_smith_supervisors::{Address, Context, ErrorClass, Failure};

use super::SagaActor;
use crate::event::{
    Decoder, Event, EventId, Metadata, NewEvent, RecordedEvent, StreamId, Timestamp, Version,
};
use crate::pool::{Lease, PoolMessage, store_failure};
use crate::saga::board::Board;
use crate::saga::{SagaEvent, SagaState};
use crate::store::committer::{CommitError, CommitterHandle};
use crate::store::{Append, AppendError, ExpectedVersion, StoreError};

/// How often events are handed in again, when the store is out of order.
const WRITES: u32 = 8;

/// The pause before the first of them, doubled with each.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// Events of a page.
const PAGE: usize = 500;

/// The beginning of a try, as the log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beginning {
    /// Whoever wrote this event runs the step, and nobody else.
    pub(super) id: EventId,
    pub(super) version: Version,
    pub(super) at: Timestamp,
}

/// Why something is not in the log.
#[derive(Debug)]
pub(super) enum NotWritten {
    /// It can never be: it is too large, or has no form.
    Refused(String),
    /// The store does not take it now, or cannot be read.
    Failed(Failure),
}

/// See the [module](self).
pub(super) struct Journal {
    stream: StreamId,
    board: Board,
    committer: CommitterHandle,
    pool: Address<PoolMessage>,
    lease: Option<Lease>,
    pub(super) state: SagaState,
    pub(super) version: Version,
    /// What was there when this life began; `None` until that is known.
    pub(super) inherited: Option<Version>,
    /// The last try that has begun, whoever began it.
    pub(super) begun: Option<Beginning>,
    metadata: Metadata,
    /// The last event, the cause of the next one.
    last: Option<EventId>,
}

impl Journal {
    pub(super) fn new(
        stream: StreamId,
        board: Board,
        pool: Address<PoolMessage>,
        committer: CommitterHandle,
    ) -> Self {
        Self {
            stream,
            board,
            committer,
            pool,
            lease: None,
            state: SagaState::default(),
            version: Version::ZERO,
            inherited: None,
            begun: None,
            metadata: Metadata::default(),
            last: None,
        }
    }

    /// Takes in an event that is in the log.
    pub(super) fn take(&mut self, recorded: &RecordedEvent) -> Result<(), Failure> {
        let event = Decoder::<SagaEvent>::new().decode(recorded);
        let event = event.map_err(|error| Failure::wrap(ErrorClass::Permanent, error))?;
        if recorded.version.get() == 1 {
            let started = Metadata::from_bytes(&recorded.meta);
            self.metadata = started.caused_by(*recorded.id.as_uuid());
        }
        self.evolve(event, recorded.id, recorded.version, recorded.recorded_at);
        Ok(())
    }

    fn evolve(&mut self, event: SagaEvent, id: EventId, version: Version, at: Timestamp) {
        if event.begins() {
            self.begun = Some(Beginning { id, version, at });
        }
        (self.version, self.last) = (version, Some(id));
        self.state.evolve(event);
    }

    /// Reads what is new.
    pub(super) async fn reload(&mut self) -> Result<(), Failure> {
        let board = self.board.clone();
        let _turn = board.reading().await;
        loop {
            let lease = match &self.lease {
                Some(lease) => lease,
                None => {
                    let lease = self.pool.ask(PoolMessage::Lease).await;
                    let lease = lease.map_err(|error| Failure::transient(error.to_string()))?;
                    self.lease.insert(lease)
                }
            };
            let page = lease.store.read_stream(&self.stream, self.version, PAGE).await;
            if let Err(StoreError::Closed { .. }) = page {
                // The pool was restarted: the next lease is good.
                self.lease = None;
            }
            let page = page.map_err(store_failure)?;
            for recorded in &page {
                self.take(recorded)?;
            }
            if page.len() < PAGE {
                self.inherited.get_or_insert(self.version);
                return Ok(());
            }
        }
    }

    /// Writes down what `what` says in the state that the log shows, if it says anything. After a
    /// conflict, or when the result is unknown, it is asked again: it must say nothing if what it
    /// said is there. Answers the tries that this has begun; of those at most one is in the log.
    pub(super) async fn record(
        &mut self,
        cx: &Context<SagaActor>,
        what: impl Fn(&Self, Timestamp) -> Vec<SagaEvent>,
    ) -> Result<Vec<EventId>, NotWritten> {
        let (mut pause, mut tried) = (FIRST_PAUSE, Vec::new());
        let mut trouble = None;
        for _ in 0..WRITES {
            if let Some(again) = trouble.take() {
                if again {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                match self.reload().await {
                    Ok(()) => {}
                    Err(failure) if failure.class() == ErrorClass::Transient => {
                        trouble = Some(true);
                        continue;
                    }
                    Err(failure) => return Err(NotWritten::Failed(failure)),
                }
            }
            // What had no answer is there after all: it was ours, and is what was to be said.
            if self.begun.is_some_and(|begun| tried.contains(&begun.id)) {
                return Ok(tried);
            }
            let events = what(self, super::now(cx));
            if events.is_empty() {
                return Ok(tried);
            }
            match self.append(events, &mut tried, cx).await {
                Ok(()) => return Ok(tried),
                Err(WriteError::Codec(reason)) => return Err(NotWritten::Refused(reason)),
                Err(WriteError::Append(error @ AppendError::Invalid { .. })) => {
                    return Err(NotWritten::Refused(error.to_string()));
                }
                Err(error) if error.class() != ErrorClass::Transient => {
                    return Err(NotWritten::Failed(Failure::wrap(error.class(), error)));
                }
                Err(WriteError::Append(_)) => trouble = Some(false),
                Err(error) => {
                    tracing::debug!(stream = %self.stream, %error, "written again");
                    trouble = Some(true);
                }
            }
        }
        let failure = Failure::transient("the saga's events could not be written");
        Err(NotWritten::Failed(failure))
    }

    async fn append(
        &mut self,
        events: Vec<SagaEvent>,
        tried: &mut Vec<EventId>,
        cx: &Context<SagaActor>,
    ) -> Result<(), WriteError> {
        let at = super::now(cx);
        let (mut new, mut ids) = (Vec::with_capacity(events.len()), Vec::new());
        let mut last = self.last;
        for event in &events {
            let encoded = event.encode().map_err(|error| WriteError::Codec(error.to_string()))?;
            let id = EventId::at(at, cx.random_u64(), cx.random_u64());
            let mut metadata = self.metadata.clone();
            metadata.causation_id = last.map(|last| *last.as_uuid()).or(metadata.causation_id);
            last = Some(id);
            if event.begins() {
                tried.push(id);
            }
            let mut one = NewEvent::new(id, encoded.event_type, encoded.codec, encoded.data, at);
            one.meta = metadata.to_bytes();
            new.push(one);
            ids.push(id);
        }
        let expected = ExpectedVersion::Exact(self.version);
        let append = Append::new(self.stream.clone(), expected, new);
        let outcomes = self.committer.submit(vec![append]).await?.durable().await?;
        outcomes.into_iter().next().unwrap_or(Err(AppendError::Conflict {
            stream: self.stream.clone(),
            expected,
            actual: self.version,
        }))?;
        self.inherited.get_or_insert(self.version);
        for (event, id) in events.into_iter().zip(ids) {
            self.evolve(event, id, Version::new(self.version.get() + 1), at);
        }
        Ok(())
    }

    /// What a step is given to be told apart by others.
    pub(super) fn metadata(&self) -> Metadata {
        let mut metadata = self.metadata.clone();
        metadata.causation_id = self.last.map(|last| *last.as_uuid()).or(metadata.causation_id);
        metadata
    }
}

/// Why events are not in the log, or may not be.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error("an event cannot be written: {0}")]
    Codec(String),
}

impl WriteError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Append(error) => error.class(),
            Self::Commit(error) => error.class(),
            Self::Codec(_) => ErrorClass::Permanent,
        }
    }
}
