//! From an event of others to an event of the process.

use std::marker::PhantomData;

use super::{Process, outcome_of};
use crate::bus::{Delivery, Handled, Handler, Outcome};
use crate::command::{CommandBus, CommandEnvelope};
use crate::event::{ContentType, EventId, NewEvent, RecordedEvent, StreamId};
use crate::pool::PoolHandle;
use crate::store::committer::CommitterHandle;
use crate::store::{Append, ExpectedVersion, IdempotencyKey};

/// The category of the streams that say which events led to nothing.
const PASSED: &str = "process_passed";

/// Hands events to the processes that they concern.
pub(super) struct Reactions<P> {
    pub(super) commands: CommandBus,
    pub(super) committer: CommitterHandle,
    pub(super) pool: PoolHandle,
    pub(super) process: PhantomData<fn() -> P>,
}

impl<P: Process> Handler for Reactions<P> {
    async fn handle(&self, delivery: Delivery) -> Handled {
        match delivery.recorded() {
            Some(event) => self.react(event, delivery.redelivered).await.into(),
            None => Outcome::fail("processes react to events of the log").into(),
        }
    }
}

impl<P: Process> Reactions<P> {
    async fn react(&self, event: &RecordedEvent, redelivered: bool) -> Outcome {
        let (id, command) = match P::on(event) {
            Ok(Some(heard)) => heard,
            Ok(None) => return Outcome::Ack,
            Err(error) => return Outcome::fail(error),
        };
        let passed = IdempotencyKey::of([PASSED, P::CATEGORY, &event.position.to_string()]);
        if redelivered {
            match self.has_passed(passed).await {
                Ok(false) => {}
                Ok(true) => return Outcome::Ack,
                Err(reason) => return Outcome::retry(reason),
            }
        }
        let key = format!("process/{}/on/{}", P::CATEGORY, event.position);
        let envelope = CommandEnvelope::new(command).key(key).caused_by(event);
        match self.commands.send::<P>(&id, envelope).await {
            Ok(done) if done.events == 0 => self.pass(&id, event, passed).await,
            Ok(_) => Outcome::Ack,
            Err(error) => outcome_of(&error),
        }
    }

    async fn has_passed(&self, key: IdempotencyKey) -> Result<bool, String> {
        let lease = self.pool.lease().await.map_err(|error| error.to_string())?;
        let answer = lease.store.answer(key).await.map_err(|error| error.to_string())?;
        Ok(answer.is_some())
    }

    /// Notes that an event led to nothing. What leads to events is known by its key; a decision
    /// for nothing leaves no trace, and could be another one when the event comes again later.
    async fn pass(&self, id: &str, event: &RecordedEvent, key: IdempotencyKey) -> Outcome {
        let stream = match StreamId::new(format!("{PASSED}-{}-{id}", P::CATEGORY)) {
            Ok(stream) => stream,
            Err(error) => return Outcome::fail(error),
        };
        let note = NewEvent::new(
            note_id(event.id),
            "process.passed",
            ContentType::Json,
            format!("{{\"position\":{}}}", event.position),
            event.recorded_at,
        );
        let mut append = Append::new(stream, ExpectedVersion::Any, vec![note]);
        append.key = Some(key);
        let durable = async { self.committer.submit(vec![append]).await?.durable().await };
        match durable.await.map(|mut outcomes| outcomes.pop()) {
            Ok(Some(Ok(_))) => Outcome::Ack,
            Ok(Some(Err(error))) => Outcome::retry(error),
            Ok(None) => Outcome::retry("the committer did not answer"),
            Err(error) => Outcome::retry(error),
        }
    }
}

/// The same for the same event, and no other's: a hash of both, in the form of a UUID.
fn note_id(event: EventId) -> EventId {
    let key = IdempotencyKey::of([PASSED.as_bytes(), event.as_uuid().as_bytes()]);
    EventId::new(uuid::Builder::from_custom_bytes(*key.as_bytes()).into_uuid())
}
