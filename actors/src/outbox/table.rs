//! The relay of the outbox table: sends what applications put in with their own transactions. Of
//! several nodes on one store one does, under a claim as those have who follow the log.
//!
//! A message that the queue will never take becomes a dead letter (`outbox/refused.rs`), and those
//! behind it go on. One that cannot even be that stays in the table, and the health says so.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mister_smith_supervisors::{
    Actor, Context, ExitReason, Failure, Health, StartError, SupervisedComponent,
    SupervisionMetadata, TaskGuard,
};
use tokio::sync::{Notify, watch};

use super::refused::{Kept, Letters, Refused, letter_of, wire_of};
use crate::bus::Message;
use crate::bus::queue::Sender;
use crate::bus::wire::WireMessage;
use crate::component;
use crate::pool::{Lease, lease_at_start, store_failure};
use crate::store::claims::ClaimError;
use crate::store::follow::{Cursor, Follow, Follower, Shown, Step, failure};

/// Messages that are sent at a time.
const PAGE: usize = 500;

/// How often the table is looked at when nobody has said that there is something.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The name that is claimed.
const CLAIM: &str = "outbox";

/// Messages that can be neither sent nor kept as dead letters, and are passed over. With more of
/// them nothing is sent.
const MOST_STUCK: usize = 100;

/// The longest pause after a failure.
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// What the relay can be told.
#[derive(Debug)]
pub enum TableMessage {
    /// The claim is to be had, or the relay is paused or resumed. Sent by the relay to itself.
    Next(Box<Result<Step, ClaimError>>),
    /// There may be something to send. Sent by the relay to itself.
    Continue,
    /// A dead letter is to be sent again.
    Requeued(Arc<Message>),
    /// Another node has taken over, or the store is gone. Sent by the relay to itself.
    Lost(ClaimError),
}

/// Says that there is something in the table, so that nobody waits for the next look.
#[derive(Debug, Clone, Default)]
pub struct Nudge(Arc<Notify>);

impl Nudge {
    /// There is something.
    pub fn nudge(&self) {
        self.0.notify_one();
    }
}

/// What a fresh start needs.
#[derive(Debug, Clone)]
pub struct TableArgs {
    /// Path of the pool.
    pub pool: Arc<str>,
    /// Who this node is to the others on its store.
    pub owner: Arc<str>,
    /// Where it sends.
    pub queue: Arc<dyn Sender>,
    /// Who says that there is something.
    pub nudge: Nudge,
    /// Whether it stands by, for those who look.
    pub shown: Arc<Shown>,
    /// Where messages go that the queue refuses.
    pub letters: Letters,
}

/// The actor.
pub struct TableRelay {
    args: TableArgs,
    lease: Lease,
    /// Has the claim, and reads nothing.
    follower: Follower,
    cursor: Cursor,
    paused: bool,
    failures: u32,
    _keeping: TaskGuard,
    asking: Option<TaskGuard>,
    waiting: Option<TaskGuard>,
    refused: Refused,
    /// Rows that can be neither sent nor kept.
    stuck: BTreeSet<i64>,
    shown: Arc<Status>,
}

#[derive(Debug, Default)]
struct Status {
    sent: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl Actor for TableRelay {
    type Message = TableMessage;
    type Args = TableArgs;

    async fn start(args: &TableArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let lease = lease_at_start(cx, &args.pool).await?;
        let shown = Arc::new(Status::default());
        let (status, standing) = (Arc::clone(&shown), Arc::clone(&args.shown));
        cx.describe(move || {
            let standing = standing.standing();
            if standing.standby {
                return "standby: another node sends".to_owned();
            }
            let paused = if standing.paused { "paused   " } else { "" };
            let sent = status.sent.load(Ordering::Relaxed);
            let trouble = status.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            match &*trouble {
                Some(trouble) => format!("{paused}{sent} sent   {trouble}"),
                None => format!("{paused}{sent} sent"),
            }
        });
        let follow = Follow::new(CLAIM, Arc::clone(&args.owner));
        // The log is none of its business.
        let head = watch::Sender::default().subscribe();
        let follower = Follower::new(follow, &lease, head, cx.clock(), Arc::clone(&args.shown));
        let kept = follower.clone();
        let mut relay = Self {
            args: args.clone(),
            lease,
            _keeping: cx.spawn_tell(async move { TableMessage::Lost(kept.keep().await) }),
            follower,
            cursor: Cursor::default(),
            paused: false,
            failures: 0,
            asking: None,
            waiting: None,
            refused: Refused::new(CLAIM, &args.letters, cx.address(), TableMessage::Requeued),
            stuck: BTreeSet::new(),
            shown,
        };
        relay.ask(cx);
        Ok(relay)
    }

    async fn handle(
        &mut self,
        message: TableMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        match message {
            TableMessage::Lost(error) => return Err(failure(error)),
            TableMessage::Next(step) => {
                let step = (*step).map_err(failure)?;
                self.cursor = step.cursor();
                self.paused = matches!(step, Step::Paused(true, _));
                self.ask(cx);
            }
            TableMessage::Continue => {}
            TableMessage::Requeued(message) => {
                self.send_again(message, cx);
                return Ok(());
            }
        }
        if self.paused {
            self.waiting = None;
            return Ok(());
        }
        if self.cursor == Cursor::default() {
            return Ok(());
        }
        let trouble = self.send().await?;
        let pause = match &trouble {
            None => LOOK_EVERY,
            Some(trouble) => {
                if self.failures == 0 {
                    tracing::warn!(error = trouble, "outbox: not sent; it is tried again");
                }
                self.failures += 1;
                (LOOK_EVERY * 2_u32.pow(self.failures.min(8))).min(LAST_PAUSE)
            }
        };
        if trouble.is_none() {
            self.failures = 0;
        }
        *self.shown.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        self.wait(pause, cx);
        Ok(())
    }

    async fn stop(&mut self, _: &ExitReason, _: &mut Context<Self>) {
        self.follower.release().await;
    }

    fn message_name(message: &TableMessage) -> &'static str {
        match message {
            TableMessage::Next(_) => "Next",
            TableMessage::Continue => "Continue",
            TableMessage::Requeued(_) => "Requeued",
            TableMessage::Lost(_) => "Lost",
        }
    }
}

impl TableRelay {
    /// Sends all that there is; answers what stands in the way.
    async fn send(&mut self) -> Result<Option<String>, Failure> {
        loop {
            self.follower.assure().await.map_err(failure)?;
            let page = self.lease.messages.outgoing(PAGE + self.stuck.len()).await;
            let page = page.map_err(store_failure)?;
            let page = page.into_iter().filter(|one| !self.stuck.contains(&one.id));
            let (ids, messages): (Vec<_>, Vec<_>) = page.map(|one| (one.id, one.message)).unzip();
            if ids.is_empty() {
                return Ok(self.about_stuck());
            }
            let (sent, error) = match self.args.queue.send(&messages).await {
                Ok(_) => (ids.len(), None),
                Err(error) => (error.sent, Some(error.source)),
            };
            if sent > 0 {
                self.lease.messages.sent(&ids[..sent]).await.map_err(store_failure)?;
                self.shown.sent.fetch_add(sent as u64, Ordering::Relaxed);
            }
            match (error, ids.get(sent), messages.get(sent)) {
                (Some(error), Some(id), Some(message)) if error.is_of_the_message() => {
                    if let Some(trouble) = self.refuse(*id, message, error.to_string()).await? {
                        return Ok(Some(trouble));
                    }
                }
                (Some(error), ..) => return Ok(Some(error.to_string())),
                (None, ..) => {}
            }
        }
    }

    /// A message that the queue will never take becomes a dead letter; answers what stands in the
    /// way of that.
    async fn refuse(
        &mut self,
        id: i64,
        message: &WireMessage,
        reason: String,
    ) -> Result<Option<String>, Failure> {
        match self.refused.keep(letter_of(message), &reason).await {
            Kept::Letter => self.lease.messages.sent(&[id]).await.map_err(store_failure)?,
            Kept::Never if self.stuck.len() < MOST_STUCK => _ = self.stuck.insert(id),
            Kept::Never => return Ok(self.about_stuck()),
            Kept::NotYet => return Ok(Some(format!("{reason}; its dead letter is not kept yet"))),
        }
        Ok(None)
    }

    fn about_stuck(&self) -> Option<String> {
        let first = self.stuck.first()?;
        let count = self.stuck.len();
        Some(format!(
            "{count} messages can be neither sent nor kept as dead letters; look at row {first} of \
             the outbox"
        ))
    }

    /// Sends the message of a dead letter again.
    fn send_again(&self, message: Arc<Message>, cx: &mut Context<Self>) {
        let (refused, queue) = (self.refused.clone(), Arc::clone(&self.args.queue));
        let sending = cx.spawn_guard(async move {
            let sent = match wire_of(&message) {
                Ok(wire) => match queue.send(&[wire]).await {
                    Ok(_) => Ok(()),
                    Err(error) => Err(error.source.to_string()),
                },
                Err(reason) => Err(reason),
            };
            refused.sent_again(&message, sent).await;
        });
        cx.keep(sending);
    }

    fn ask(&mut self, cx: &Context<Self>) {
        let (follower, cursor) = (self.follower.clone(), self.cursor);
        self.asking = Some(cx.spawn_tell(async move {
            TableMessage::Next(Box::new(follower.next(cursor, 0).await))
        }));
    }

    fn wait(&mut self, at_most: Duration, cx: &Context<Self>) {
        let nudge = self.args.nudge.clone();
        self.waiting = Some(cx.spawn_tell(async move {
            let _ = tokio::time::timeout(at_most, nudge.0.notified()).await;
            TableMessage::Continue
        }));
    }
}

impl SupervisedComponent for TableRelay {
    type Handover = ();

    async fn health_check(&mut self, _: &mut Context<Self>) -> Health {
        let trouble = self.shown.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match trouble {
            None => Health::Healthy,
            Some(trouble) => Health::degraded(trouble),
        }
    }

    fn supervision_metadata(_: &TableArgs) -> SupervisionMetadata {
        SupervisionMetadata::of(component::EVENT_BUS)
    }
}

impl fmt::Debug for TableRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableRelay").field("queue", &self.args.queue).finish_non_exhaustive()
    }
}
