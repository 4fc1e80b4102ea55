//! The actor of a kind: it has the claim, or stands by, and sends dead letters back into the table.
//!
//! What it does is done by two tasks beside its mailbox: one keeps the claim, the other is
//! `timer/run.rs`. Both end with this life; what was being fired fires again in the next.

use std::fmt;
use std::sync::Arc;

use mister_smith_supervisors::{
    Actor, Context, ExitReason, Failure, Health, StartError, SupervisedComponent,
    SupervisionMetadata, TaskGuard,
};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::run::Run;
use super::{Counted, Fire, TimerOptions, letter};
use crate::bus::{DeadLetterOffice, EventBus, FailureCause, Message, Undelivered};
use crate::component;
use crate::pool::{Lease, lease_at_start};
use crate::store::StoreError;
use crate::store::claims::{ClaimError, TIMERS};
use crate::store::follow::{Follow, Follower, LOOK_EVERY, Shown, failure};

/// What the actor can be told.
#[derive(Debug)]
pub enum TimerMessage {
    /// Another node has taken over, or the store is gone. Sent by a life of the actor to itself.
    Lost(u64, ClaimError),
    /// A dead letter is sent again: its timer is set again.
    Again(Arc<Message>),
    /// It is set again, or not. Sent by the actor to itself.
    SetAgain(Arc<Message>, Result<(), String>),
}

/// What a fresh start needs.
#[derive(Clone)]
pub struct TimerArgs {
    pub(super) kind: Arc<str>,
    pub(super) options: TimerOptions,
    pub(super) handler: Arc<dyn Fire>,
    pub(super) pool: Arc<str>,
    pub(super) owner: Arc<str>,
    pub(super) bus: EventBus,
    pub(super) office: Arc<dyn DeadLetterOffice>,
    pub(super) notice: Arc<Notify>,
    pub(super) counted: Arc<Counted>,
    /// Whether it stands by, for those who look.
    pub(super) shown: Arc<Shown>,
}

/// The actor.
pub struct TimerActor {
    args: TimerArgs,
    lease: Lease,
    follower: Follower,
    _keeping: TaskGuard,
    running: Option<TaskGuard>,
}

/// The name that is claimed for a kind.
pub(super) fn claim_of(kind: &str) -> String {
    format!("{TIMERS}{kind}")
}

impl Actor for TimerActor {
    type Message = TimerMessage;
    type Args = TimerArgs;

    async fn start(args: &TimerArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let lease = lease_at_start(cx, &args.pool).await?;
        let (shown, counted) = (Arc::clone(&args.shown), Arc::clone(&args.counted));
        cx.describe(move || line(&shown, &counted));
        let follow = Follow::new(claim_of(&args.kind), Arc::clone(&args.owner));
        // The log is none of its business.
        let head = watch::Sender::default().subscribe();
        let follower = Follower::new(follow, &lease, head, cx.clock(), Arc::clone(&args.shown));
        let life = cx.life();
        let (kept, handler) = (follower.clone(), Arc::clone(&args.handler));
        let keeping = cx.spawn_tell(async move {
            while !handler.ready() {
                sleep(LOOK_EVERY).await;
            }
            TimerMessage::Lost(life, kept.keep().await)
        });
        let run = Run {
            kind: Arc::clone(&args.kind),
            options: args.options.clone(),
            handler: Arc::clone(&args.handler),
            table: Arc::clone(&lease.timers),
            follower: follower.clone(),
            bus: args.bus.clone(),
            office: Arc::clone(&args.office),
            clock: cx.clock(),
            notice: Arc::clone(&args.notice),
            shared: lease.shared,
            counted: Arc::clone(&args.counted),
            seed: cx.random_u64(),
        };
        let running = cx.spawn_tell(async move { TimerMessage::Lost(life, run.run().await) });
        let (args, running) = (args.clone(), Some(running));
        Ok(Self { args, lease, follower, _keeping: keeping, running })
    }

    async fn handle(
        &mut self,
        message: TimerMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        match message {
            // Both tasks may say it; the second time it is of a life that is over.
            TimerMessage::Lost(life, _) if life != cx.life() => {}
            TimerMessage::Lost(_, error) => return Err(failure(error)),
            TimerMessage::Again(message) => {
                let table = Arc::clone(&self.lease.timers);
                let task = cx.spawn_tell(async move {
                    let set = async {
                        let timer = letter::timer_of(&message)?;
                        let set = table.set(vec![timer]).await;
                        set.map_err(|error: StoreError| error.to_string())
                    };
                    let set = set.await;
                    TimerMessage::SetAgain(message, set)
                });
                cx.keep(task);
            }
            TimerMessage::SetAgain(message, set) => self.set_again(message, set, cx),
        }
        Ok(())
    }

    async fn stop(&mut self, _: &ExitReason, _: &mut Context<Self>) {
        // What is fired is fired by a task of this life, which ends with it.
        self.running = None;
        self.follower.release().await;
    }

    fn message_name(message: &TimerMessage) -> &'static str {
        match message {
            TimerMessage::Lost(..) => "Lost",
            TimerMessage::Again(_) => "Again",
            TimerMessage::SetAgain(..) => "SetAgain",
        }
    }
}

impl TimerActor {
    /// The letter is settled, its timer is in the table; or it is open as before.
    fn set_again(&self, message: Arc<Message>, set: Result<(), String>, cx: &mut Context<Self>) {
        self.args.notice.notify_one();
        let Some(id) = message.dead_letter() else { return };
        let (office, origin) = (Arc::clone(&self.args.office), letter::origin(&self.args.kind));
        let task = cx.spawn_guard(async move {
            let told = match set {
                Ok(()) => office.settle(id).await,
                Err(reason) => {
                    let (subscription, cause) = (origin, FailureCause::Exhausted);
                    let letter = Undelivered { subscription, message, cause, reason, attempts: 1 };
                    office.keep(letter).await
                }
            };
            if let Err(error) = told {
                tracing::warn!(%error, letter = %id, "it stays requeued; send it again");
            }
        });
        cx.keep(task);
    }
}

fn line(shown: &Shown, counted: &Counted) -> String {
    let standing = shown.standing();
    if standing.standby {
        return "standby: another node has them".to_owned();
    }
    let mut line = if standing.paused { "paused   ".to_owned() } else { String::new() };
    line.push_str(&format!("{} fired", counted.fired()));
    if let Some(next) = counted.next() {
        line.push_str(&format!("   next {next}"));
    }
    if counted.unknown() > 0 {
        line.push_str(&format!("   {} not known here", counted.unknown()));
    }
    if let Some((name, reason)) = counted.trouble() {
        line.push_str(&format!("   {name}: {reason}"));
    }
    line
}

impl SupervisedComponent for TimerActor {
    type Handover = ();

    async fn health_check(&mut self, _: &mut Context<Self>) -> Health {
        let counted = &self.args.counted;
        match (counted.trouble(), counted.unknown()) {
            (Some((name, reason)), _) => Health::degraded(format!("{name}: {reason}")),
            (None, 0) => Health::Healthy,
            (None, unknown) => Health::degraded(format!(
                "{unknown} timers are not known to this program; see `smith timers list`"
            )),
        }
    }

    fn supervision_metadata(_: &TimerArgs) -> SupervisionMetadata {
        SupervisionMetadata::of(component::SAGA)
    }
}

impl fmt::Debug for TimerActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimerActor").field("kind", &self.args.kind).finish_non_exhaustive()
    }
}

impl fmt::Debug for TimerArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimerArgs").field("kind", &self.kind).finish_non_exhaustive()
    }
}
