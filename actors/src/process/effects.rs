//! From an event of the process to what others do.

use std::marker::PhantomData;

use super::{EffectContext, Kind, Process, id_of, key_of, outcome_of};
use crate::bus::{Delivery, Handled, Handler, Outcome};
use crate::command::{CommandBus, CommandEnvelope};
use crate::error::ErrorClass;
use crate::event::{Decoder, EventCodecError, RecordedEvent};

/// Has the effects that follow from a process's events.
pub(super) struct Effects<P: Process> {
    pub(super) commands: CommandBus,
    pub(super) process: PhantomData<fn() -> P>,
}

impl<P: Process> Handler for Effects<P> {
    /// All effects of an event, one after the other. When one has to be tried again, those before
    /// it are too, under their names.
    async fn handle(&self, delivery: Delivery) -> Handled {
        match delivery.recorded() {
            Some(event) => self.have_all(event).await.into(),
            None => Outcome::fail("effects follow from events of the log").into(),
        }
    }
}

/// What follows from an event of a process.
pub(super) fn effects_of<P: Process>(
    event: &RecordedEvent,
) -> Result<Vec<Kind<P>>, EventCodecError> {
    let decoded = Decoder::<P::Event>::new().decode(event)?;
    Ok(P::then(id_of(event), &decoded).into_iter().map(|effect| effect.0).collect())
}

impl<P: Process> Effects<P> {
    async fn have_all(&self, event: &RecordedEvent) -> Outcome {
        let effects = match effects_of::<P>(event) {
            Ok(effects) => effects,
            Err(error) => return Outcome::fail(error),
        };
        for (index, kind) in effects.into_iter().enumerate() {
            let outcome = self.have(index, kind, event).await;
            if outcome != Outcome::Ack {
                return outcome;
            }
        }
        Outcome::Ack
    }

    async fn have(&self, index: usize, kind: Kind<P>, event: &RecordedEvent) -> Outcome {
        let key = key_of::<P>(event, index);
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
            Kind::Later { .. } => None,
        };
        let Some(heard) = heard else { return Outcome::Ack };
        let envelope = CommandEnvelope::new(heard).key(format!("{key}/heard")).caused_by(event);
        match self.commands.send::<P>(id_of(event), envelope).await {
            Ok(_) => Outcome::Ack,
            Err(error) => outcome_of(&error),
        }
    }
}
