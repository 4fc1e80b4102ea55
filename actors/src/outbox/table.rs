//! The relay of the outbox table: sends what applications put in with their own transactions, and
//! forgets in time what was handled.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mister_smith_supervisors::{
    Actor, Context, ErrorClass, Failure, Health, StartError, SupervisedComponent,
    SupervisionMetadata, TaskGuard,
};
use tokio::sync::Notify;

use crate::bus::queue::MessageQueue;
use crate::component;
use crate::event::{Position, Timestamp};
use crate::pool::{Lease, lease_at_start, store_failure};
use crate::projection::ProjectionError;
use crate::store::read_model::Epoch;
use crate::store::read_model::documents::{Claimed, Commit, Part, Wanted, Writer};

/// Messages that are sent at a time.
const PAGE: usize = 500;

/// How often the table is looked at when nobody has said that there is something.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How often what was handled long ago is forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// How long the claim is good without a sign of life.
const LEASE: Duration = Duration::from_secs(5);

const CLAIM: &str = "$outbox";

/// The longest pause after a failure.
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// What the relay can be told.
#[derive(Debug)]
pub enum TableMessage {
    /// There may be something to send. Sent by the relay to itself.
    Continue,
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
    pub queue: Arc<dyn MessageQueue>,
    /// Who says that there is something.
    pub nudge: Nudge,
    /// How long what was handled is known. At least as long as the sender can repeat.
    pub remember: Duration,
}

/// The actor.
pub struct TableRelay {
    args: TableArgs,
    lease: Lease,
    claim: Option<(Part, Epoch)>,
    claimed_at: Duration,
    forgot_at: Option<Duration>,
    failures: u32,
    waiting: Option<TaskGuard>,
    shown: Arc<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    sent: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl Actor for TableRelay {
    type Message = TableMessage;
    type Args = TableArgs;

    async fn start(args: &TableArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let lease = lease_at_start(cx, &args.pool).await?;
        let shown = Arc::new(Shown::default());
        let status = Arc::clone(&shown);
        cx.describe(move || {
            let sent = status.sent.load(Ordering::Relaxed);
            let trouble = status.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            match &*trouble {
                Some(trouble) => format!("{sent} sent   {trouble}"),
                None => format!("{sent} sent"),
            }
        });
        Ok(Self {
            args: args.clone(),
            lease,
            claim: None,
            claimed_at: Duration::ZERO,
            forgot_at: None,
            failures: 0,
            waiting: Some(cx.tell_after(Duration::ZERO, TableMessage::Continue)),
            shown,
        })
    }

    async fn handle(&mut self, _: TableMessage, cx: &mut Context<Self>) -> Result<(), Failure> {
        let now = cx.clock().elapsed();
        if !self.keep_claim(now).await.map_err(failure)? {
            self.wait(LEASE / 3, cx);
            return Ok(());
        }
        if self.forgot_at.is_none_or(|at| now - at >= FORGET_EVERY) {
            self.forgot_at = Some(now);
            let remember = i64::try_from(self.args.remember.as_micros()).unwrap_or(i64::MAX);
            let before = cx.clock().wall_us().saturating_sub(remember);
            let before = Timestamp::from_micros(before);
            self.lease.messages.forget(before).await.map_err(store_failure)?;
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

    fn message_name(_: &TableMessage) -> &'static str {
        "Continue"
    }
}

impl TableRelay {
    /// Sends all that there is; answers what stands in the way.
    async fn send(&mut self) -> Result<Option<String>, Failure> {
        loop {
            let page = self.lease.messages.outgoing(PAGE).await.map_err(store_failure)?;
            if page.is_empty() {
                return Ok(None);
            }
            let (ids, messages): (Vec<_>, Vec<_>) =
                page.into_iter().map(|one| (one.id, one.message)).unzip();
            let (sent, trouble) = match self.args.queue.send(&messages).await {
                Ok(_) => (ids.len(), None),
                Err(error) => (error.sent, Some(error.source.to_string())),
            };
            if sent > 0 {
                self.lease.messages.sent(&ids[..sent]).await.map_err(store_failure)?;
                self.shown.sent.fetch_add(sent as u64, Ordering::Relaxed);
            }
            if trouble.is_some() {
                return Ok(trouble);
            }
        }
    }

    /// Of several nodes on one store one sends.
    async fn keep_claim(&mut self, now: Duration) -> Result<bool, ProjectionError> {
        if !self.lease.shared {
            return Ok(true);
        }
        let documents = &self.lease.documents;
        let Some((part, epoch)) = self.claim else {
            let build = documents.builds(CLAIM, Wanted { version: 1, partitions: 1 }).await?.active;
            let part = Part { build: build.id, partition: 0 };
            return Ok(match documents.claim(part, &self.args.owner, LEASE).await? {
                Claimed::Held { .. } => false,
                Claimed::Yes(claim) => {
                    self.claim = Some((part, claim.epoch));
                    self.claimed_at = now;
                    true
                }
            });
        };
        if now - self.claimed_at >= LEASE / 3 {
            let commit = Commit {
                writer: Writer { part, owner: Arc::clone(&self.args.owner), epoch },
                lease: LEASE,
                from: None,
                to: Position::ZERO,
                changes: Vec::new(),
                park: Vec::new(),
                unpark: Vec::new(),
            };
            documents.commit(commit).await?;
            self.claimed_at = now;
        }
        Ok(true)
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

fn failure(error: ProjectionError) -> Failure {
    match error {
        ProjectionError::Store(error) => store_failure(error),
        other => Failure::wrap(ErrorClass::Transient, other),
    }
}
