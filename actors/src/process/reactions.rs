//! From an event of others to an event of the process.

use std::marker::PhantomData;

use super::{Process, outcome_of};
use crate::bus::{Delivery, Handled, Handler, Outcome};
use crate::command::{CommandBus, CommandEnvelope};
use crate::event::RecordedEvent;
use crate::pool::PoolHandle;
use crate::store::IdempotencyKey;
use crate::timer::Timers;

/// The category of the streams in which earlier programs noted which events led to nothing.
const PASSED: &str = "process_passed";

/// Hands events to the processes that they concern.
pub(super) struct Reactions<P> {
    pub(super) commands: CommandBus,
    pub(super) timers: Timers,
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
        if redelivered {
            match self.has_passed(event).await {
                Ok(false) => {}
                Ok(true) => return Outcome::Ack,
                Err(reason) => return Outcome::retry(reason),
            }
        }
        let key = format!("process/{}/on/{}", P::CATEGORY, event.position);
        let envelope = CommandEnvelope::new(command).key(key).caused_by(event);
        match self.commands.send::<P>(&id, envelope).await {
            Ok(done) if done.events == 0 => self.pass(event).await,
            Ok(_) => Outcome::Ack,
            Err(error) => outcome_of(&error),
        }
    }

    async fn has_passed(&self, event: &RecordedEvent) -> Result<bool, String> {
        let lease = self.pool.lease().await.map_err(|error| error.to_string())?;
        let position = event.position.to_string();
        let known = lease.messages.was_handled(&consumer_of::<P>(), &position).await;
        if known.map_err(|error| error.to_string())? {
            return Ok(true);
        }
        // Earlier programs appended an event to a stream of its own.
        let key = IdempotencyKey::of([PASSED, P::CATEGORY, &position]);
        let answer = lease.store.answer(key).await.map_err(|error| error.to_string())?;
        Ok(answer.is_some())
    }

    /// Notes that an event led to nothing. What leads to events is known by its key; a decision
    /// for nothing leaves no trace, and could be another one when the event comes again later. It
    /// is known for as long as messages of the inbox are
    /// ([`INBOX_REMEMBERS`](crate::pool::INBOX_REMEMBERS)).
    async fn pass(&self, event: &RecordedEvent) -> Outcome {
        let noted = async {
            let lease = self.pool.lease().await.map_err(|error| error.to_string())?;
            let (of, id) = (consumer_of::<P>(), event.position.to_string());
            let noted = lease.messages.handled(&of, &id, self.timers.now()).await;
            noted.map_err(|error| error.to_string())
        };
        Outcome::from(noted.await.map(drop))
    }
}

/// Under which name the inbox knows what led to nothing.
fn consumer_of<P: Process>() -> String {
    format!("process/{}/nothing", P::CATEGORY)
}
