//! One life of a slot: the ractor actor that runs a user's actor.
//!
//! ractor carries only a wake-up when the mailbox goes from idle to busy. The life then drains up
//! to [`DRAIN_BUDGET`] messages and lets ractor's other ports (kill, stop) have their turn. It
//! writes its [`ExitReason`] into the slot itself, because ractor reports a panic, an error and a
//! kill in ways that cannot be told apart.

use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;

use ractor::{ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;

use crate::actor::kinds::KnownKinds;
use crate::actor::mailbox::InHand;
use crate::actor::panic::{Who, catch_panic};
use crate::actor::recorder::Handled;
use crate::actor::reply::Settled;
use crate::actor::slot::{AnySlot, Slot, SlotCell};
use crate::actor::token::LifeToken;
use crate::actor::{Actor, Context};
use crate::component::Hooks;
use crate::error::{ExitReason, Failure};
use crate::health::Health;

/// Messages handled per wake-up before kill and stop are looked at again.
const DRAIN_BUDGET: usize = 256;

/// What ractor carries for us.
#[derive(Debug)]
pub(crate) enum LifeMessage {
    /// The mailbox has something.
    Wake,
    /// How are you?
    Health(oneshot::Sender<Health>),
}

/// The ractor actor. It has no state of its own: `A` is the actor, `H` its hooks.
pub(crate) struct Life<A, H>(PhantomData<fn() -> (A, H)>);

impl<A, H> Default for Life<A, H> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// Everything a life owns. It is made before the ractor actor is spawned, so that the start runs
/// under our own deadline and panic guard.
pub(crate) struct LifeState<A: Actor> {
    cx: Context<A>,
    slot: Arc<Slot<A::Message>>,
    life: u64,
    kinds: KnownKinds,
    /// Made once; away while a message is handled.
    who: Option<Who>,
    /// Gone once the life has failed.
    alive: Option<Alive<A>>,
}

struct Alive<A: Actor> {
    actor: A,
    /// The last field: dropped after the actor, so that the next life finds nothing half alive.
    token: LifeToken<A::Message>,
}

impl<A: Actor> LifeState<A> {
    pub(crate) fn new(actor: A, cx: Context<A>, token: LifeToken<A::Message>) -> Self {
        let slot = Arc::clone(&token.slot);
        let (life, kinds) = (token.life, KnownKinds::default());
        Self { cx, slot, life, kinds, who: None, alive: Some(Alive { actor, token }) }
    }
}

enum Flow {
    Idle,
    Again,
    Stop(ExitReason),
}

impl<A: Actor, H: Hooks<A>> ractor::Actor for Life<A, H> {
    type Msg = LifeMessage;
    type State = LifeState<A>;
    type Arguments = LifeState<A>;

    async fn pre_start(
        &self,
        myself: ActorRef<LifeMessage>,
        state: LifeState<A>,
    ) -> Result<LifeState<A>, ActorProcessingErr> {
        state.slot.cell.up(myself.get_cell());
        state.slot.mailbox.attach(myself);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<LifeMessage>,
        message: LifeMessage,
        state: &mut LifeState<A>,
    ) -> Result<(), ActorProcessingErr> {
        let who = state.who();
        let (outcome, who) = match message {
            LifeMessage::Wake => {
                let mut run = pin!(catch_panic(who, state.drain()));
                (run.as_mut().await, run.into_who())
            }
            LifeMessage::Health(reply) => {
                let mut run = pin!(catch_panic(who, state.check_health::<H>(reply)));
                (run.as_mut().await, run.into_who())
            }
        };
        state.who = who;
        match outcome {
            Ok(Ok(Flow::Idle)) => Ok(()),
            Ok(Ok(Flow::Again)) => {
                let _ = myself.send_message(LifeMessage::Wake);
                Ok(())
            }
            Ok(Ok(Flow::Stop(reason))) => {
                state.cell().record_exit(state.life, reason);
                myself.stop(None);
                Ok(())
            }
            Ok(Err(failure)) => Err(state.end(ExitReason::Error(failure))),
            Err(report) => Err(state.end(ExitReason::Panic(report))),
        }
    }

    async fn post_stop(
        &self,
        _: ActorRef<LifeMessage>,
        state: &mut LifeState<A>,
    ) -> Result<(), ActorProcessingErr> {
        let life = state.life;
        // A stop that the actor did not ask for itself came from its supervisor.
        let why = state.cell().exit_of(life).unwrap_or(ExitReason::Shutdown);
        let planned = state.cell().planned_stop();
        let who = state.who();
        let goodbye = catch_panic(who, async {
            let Some(alive) = &mut state.alive else { return };
            if planned {
                let handover = H::prepare_for_restart(&mut alive.actor, &mut state.cx).await;
                if let Some(handover) = handover {
                    state.slot.cell.keep_handover(handover);
                }
            }
            alive.actor.stop(&why, &mut state.cx).await;
        })
        .await;
        match goodbye {
            Ok(()) => {
                state.cell().record_exit(life, why);
                Ok(())
            }
            Err(report) => {
                let reason = ExitReason::Panic(report);
                state.cell().record_exit(life, reason.clone());
                Err(reason.to_string().into())
            }
        }
    }

    /// A life has no ractor children; a stray event must not end it.
    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<LifeMessage>,
        _: ractor::SupervisionEvent,
        _: &mut LifeState<A>,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl<A: Actor> LifeState<A> {
    fn cell(&self) -> &SlotCell {
        &self.slot.cell
    }

    fn who(&mut self) -> Who {
        self.who.take().unwrap_or_else(|| Who::new(Arc::clone(&self.slot) as Arc<dyn AnySlot>))
    }

    /// Writes the reason down before anything of this life is dropped: whoever learns of the end
    /// reads it from the slot. Then lets go of the slot at once, so that the next life does not
    /// have to wait for ractor to drop this one.
    fn end(&mut self, reason: ExitReason) -> ActorProcessingErr {
        let text = reason.to_string();
        self.cell().record_exit(self.life, reason);
        self.alive = None;
        text.into()
    }

    /// Handles what waits, up to the budget.
    async fn drain(&mut self) -> Result<Flow, Failure> {
        let Self { cx, slot, life, kinds, who: None, alive: Some(Alive { actor, token }) } = self
        else {
            return Ok(Flow::Idle);
        };
        let clock = slot.cell.env.clock;
        let mut began = clock.elapsed_ns();
        let (mut named, mut kind) = ("", 0);
        for _ in 0..DRAIN_BUDGET {
            if slot.cell.stop_requested() {
                // ractor's stop is on its way; what waits is for the next life.
                return Ok(Flow::Idle);
            }
            let Some(entry) = slot.mailbox.next(&mut token.receiver) else {
                slot.cell.stats.idle();
                return Ok(Flow::Idle);
            };
            let name = A::message_name(&entry.message);
            if !std::ptr::eq(name, named) {
                kind = kinds.find(&slot.cell, name);
                slot.cell.stats.set_kind(kind);
                named = name;
            }
            slot.cell.stats.begin(began);
            token.receiver.in_hand = Some(InHand {
                copy: slot.on_crash.copy.map(|copy| copy(&entry.message)),
                ask: entry.ask,
                extra: entry.extra,
                name,
            });
            actor.handle(entry.message, cx).await?;
            let ended = clock.elapsed_ns();
            kinds.row(kind, &slot.cell.stats).handled(ended.saturating_sub(began));
            let in_hand = token.receiver.in_hand.take();
            if slot.mailbox.is_recording() {
                let extra = in_hand.as_ref().and_then(|in_hand| in_hand.extra.as_deref());
                slot.cell.record(name, *life, extra, (began, ended), Handled::Ok);
            }
            began = ended;
            if let Some(InHand { ask: Some(ask), .. }) = in_hand {
                ask.settle(Settled::Handled { life: *life });
            }
            if let Some(reason) = cx.ending.take() {
                return Ok(Flow::Stop(reason));
            }
        }
        Ok(Flow::Again)
    }

    async fn check_health<H: Hooks<A>>(
        &mut self,
        reply: oneshot::Sender<Health>,
    ) -> Result<Flow, Failure> {
        let Some(alive) = &mut self.alive else { return Ok(Flow::Idle) };
        let health = H::health_check(&mut alive.actor, &mut self.cx).await;
        let _ = reply.send(health);
        match self.cx.ending.take() {
            Some(reason) => Ok(Flow::Stop(reason)),
            None => Ok(Flow::Idle),
        }
    }
}
