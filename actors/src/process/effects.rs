//! From an event of the process to what others do.
//!
//! An effect's name is the process, the event and the effect's own name. Programs before that named
//! it by its place in the list: those effects keep their old names, or they would happen twice. Up
//! to which event that goes is noted once, by the first node of this program that has the claim on
//! the process's deadlines; until then all names are old ones, so that nodes of both programs
//! agree.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::time::Duration;

use super::timers::named_from;
use super::{Effect, EffectContext, Kind, Process, id_of, key_of, outcome_of};
use crate::bus::{Delivery, Handled, Handler, Outcome};
use crate::command::{CommandBus, CommandEnvelope};
use crate::error::ErrorClass;
use crate::event::{Decoder, EventCodecError, Position, RecordedEvent};
use crate::guarded::guarded_within;
use crate::pool::PoolHandle;

/// Has the effects that follow from a process's events.
pub(super) struct Effects<P: Process> {
    pub(super) commands: CommandBus,
    pub(super) pool: PoolHandle,
    /// How long a try of one of them may take.
    pub(super) deadline: Duration,
    /// Tries of an event.
    pub(super) attempts: u32,
    /// Effects of later events go by their names.
    pub(super) named_from: OnceLock<Position>,
    pub(super) process: PhantomData<fn() -> P>,
}

impl<P: Process> Handler for Effects<P> {
    /// All effects of an event, one after the other. When one has to be tried again, those before
    /// it are too, under their names, and those behind it wait. One that is given up is named in
    /// the dead letter; those behind it have their turn all the same.
    async fn handle(&self, delivery: Delivery) -> Handled {
        match delivery.recorded() {
            Some(event) => self.have_all(event, delivery.attempt).await.into(),
            None => Outcome::fail("effects follow from events of the log").into(),
        }
    }
}

/// What follows from an event of a process.
pub(super) fn effects_of<P: Process>(
    event: &RecordedEvent,
) -> Result<Vec<Effect<P>>, EventCodecError> {
    let decoded = Decoder::<P::Event>::new().decode(event)?;
    Ok(P::then(id_of(event), &decoded))
}

/// A name that two effects have; deadlines have names of their own.
fn twice<P: Process>(effects: &[Effect<P>]) -> Option<&str> {
    let mut seen = BTreeSet::new();
    let names = effects.iter().map(|effect| match effect.kind {
        Kind::Send { .. } | Kind::Call(_) => (0, &*effect.name),
        Kind::Later { .. } => (1, &*effect.name),
        Kind::Cancel => (2, &*effect.name),
    });
    names.into_iter().find(|name| !seen.insert(*name)).map(|(_, name)| name)
}

impl<P: Process> Effects<P> {
    async fn have_all(&self, event: &RecordedEvent, attempt: u32) -> Outcome {
        let effects = match effects_of::<P>(event) {
            Ok(effects) => effects,
            Err(error) => return Outcome::fail(error),
        };
        if let Some(name) = twice(&effects) {
            return Outcome::fail(format!(
                "two effects of {} are named {name:?}; give each a name of its own",
                event.event_type
            ));
        }
        let named = match self.goes_by_name(event).await {
            Ok(named) => named,
            Err(reason) => return Outcome::retry(reason),
        };
        let mut given_up = Vec::new();
        for (place, effect) in effects.into_iter().enumerate() {
            let key = match named {
                true => key_of::<P>(event, format!("do/{}", effect.name)),
                false => key_of::<P>(event, place),
            };
            let name = effect.name;
            let have = || self.have(key, effect.kind, event);
            let had = guarded_within(self.deadline, have, || ()).await;
            let outcome = had.unwrap_or_else(Outcome::retry);
            match outcome {
                Outcome::Ack => {}
                Outcome::Fail { reason } => given_up.push(format!("{name}: {reason}")),
                Outcome::Retry { after, reason } if attempt < self.attempts => {
                    return Outcome::Retry { after, reason: format!("{name}: {reason}") };
                }
                Outcome::Retry { reason, .. } => given_up.push(format!("{name}: {reason}")),
            }
        }
        match given_up.is_empty() {
            true => Outcome::Ack,
            false => Outcome::fail(given_up.join("; ")),
        }
    }

    async fn goes_by_name(&self, event: &RecordedEvent) -> Result<bool, String> {
        let from = match self.named_from.get() {
            Some(from) => Some(*from),
            None => {
                let lease = self.pool.lease().await.map_err(|error| error.to_string())?;
                let from = named_from::<P>(&lease).await.map_err(|error| error.to_string())?;
                from.inspect(|from| _ = self.named_from.set(*from))
            }
        };
        Ok(from.is_some_and(|from| event.position > from))
    }

    async fn have(&self, key: String, kind: Kind<P>, event: &RecordedEvent) -> Outcome {
        let cx = EffectContext { key: key.clone(), event: event.clone() };
        let heard = match kind {
            Kind::Send { dispatch, refused } => {
                match (dispatch(self.commands.clone(), cx).await, refused) {
                    (Ok(_), _) => None,
                    (Err(error), Some(refused)) if error.class() == ErrorClass::User => {
                        Some(refused(&error))
                    }
                    (Err(error), _) => return outcome_of(&error),
                }
            }
            Kind::Call(call) => match call(cx).await {
                Ok(heard) => heard,
                Err(error) if error.is_worth_a_retry() => return Outcome::retry(error),
                Err(error) => return Outcome::fail(error),
            },
            // See `timers`.
            Kind::Later { .. } | Kind::Cancel => None,
        };
        let Some(heard) = heard else { return Outcome::Ack };
        let envelope = CommandEnvelope::new(heard).key(format!("{key}/heard")).caused_by(event);
        match self.commands.send::<P>(id_of(event), envelope).await {
            Ok(_) => Outcome::Ack,
            Err(error) => outcome_of(&error),
        }
    }
}
