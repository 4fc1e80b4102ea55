//! Timers: what is to happen at a time, kept in the store until it has happened.
//!
//! One durable service under everything that waits: deadlines of [processes](crate::process),
//! delayed and scheduled [messages](schedule), and what an application adds.
//!
//! ```text
//!  any node: set, cancel ─▶ table ─▶ [`run`], of the node that has the claim on the kind
//!                             ▲        │ due ─▶ handler ─▶ done: it goes, or comes again (cron)
//!                             │        │        retry, not known here: it stays, with the reason
//!                             └────────┘        failed for good: a dead letter, then it goes
//! ```
//!
//! - A timer has a *kind*, which says who handles it, and a *name* in its kind. To set it again
//!   with the same time and payload changes nothing; with others it is replaced.
//! - The kind is the shard: one node at a time has the claim on it, and only nodes that handle it
//!   claim it. A node without the application leaves its timers alone.
//! - A timer goes only when its effect is durable, and what is written shows the fence of the
//!   claim. So it fires at least once, each time under the same [key](Timer::key); a node that
//!   slept past its lease asks for the claim before it fires, and removes nothing.
//! - One that cannot be handled now stays in the table, where everybody sees it, and holds up none
//!   behind it: it is tried again with growing pauses, and at once by another program that takes
//!   the claim over. One that failed for good is a [dead letter](crate::dead_letter); sent again,
//!   it is set again.
//! - In memory are those that are being fired, [`DEFAULT_AT_ONCE`] of a kind at most, and the time
//!   of the next one.
//!
//! A timer that another node sets is seen within [`LOOK_EVERY`], one of this node at once.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mister_smith_supervisors::{
    Address, AskError, Backoff, ChildSpec, Clock, HealthSpec, SupervisorError, SupervisorRef,
};

use crate::bus::{
    DEFAULT_HANDLE_DEADLINE, DeadLetterOffice, EventBus, Pattern, RetryPolicy, TIMERS,
};
use crate::error::ErrorClass;
use crate::event::Timestamp;
use crate::pool::PoolHandle;
use crate::store::StoreError;
pub use crate::store::timers::{NewTimer, TimerFilter, TimerRow, TimerState};

pub mod actor;
pub(crate) mod letter;
mod run;
pub mod schedule;

use actor::{TimerActor, TimerArgs, TimerMessage};
pub use run::Counted;

#[cfg(test)]
mod tests;

/// Timers of a kind that are fired at once.
pub const DEFAULT_AT_ONCE: usize = 128;

/// How soon a timer is seen that another node has set.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The longest name, in bytes.
pub const MAX_NAME: usize = 1_024;

/// The largest payload, in bytes.
pub const MAX_PAYLOAD: usize = 1 << 20;

/// A timer whose time has come.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Timer {
    /// Who handles it.
    pub kind: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// When it was to fire.
    pub due: Timestamp,
    /// What it was set with.
    pub payload: Bytes,
    /// Which try this is; the first is 1. What another life tried and could not write down is not
    /// counted.
    pub attempt: u32,
}

impl Timer {
    /// Names this firing permanently: the same for every try, on every node. A timer that is set
    /// again for another time has another.
    #[must_use]
    pub fn key(&self) -> String {
        format!("timer/{}/{}/{}", self.kind, self.due.as_micros(), self.name)
    }
}

/// The result of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fired {
    /// Its effect is durable: it goes.
    Done,
    /// Its effect is durable, and it fires again then.
    Again(Timestamp),
    /// It did not work now: it is tried again, as the [options](TimerOptions) say.
    Retry {
        /// Why.
        reason: String,
    },
    /// This program does not know what it is for; a newer one may. It waits, and is not given up.
    Unknown {
        /// What is not known.
        reason: String,
    },
    /// It will never work: it becomes a dead letter.
    Fail {
        /// How it failed.
        class: ErrorClass,
        /// Why.
        reason: String,
    },
}

impl Fired {
    /// Try it again.
    pub fn retry(reason: impl fmt::Display) -> Self {
        Self::Retry { reason: reason.to_string() }
    }

    /// This program does not know what it is for.
    pub fn unknown(reason: impl fmt::Display) -> Self {
        Self::Unknown { reason: reason.to_string() }
    }

    /// Never try it again.
    pub fn fail(class: ErrorClass, reason: impl fmt::Display) -> Self {
        Self::Fail { class, reason: reason.to_string() }
    }

    /// By the class of an error: what goes away by itself, and what an operator may mend meanwhile,
    /// is tried again.
    pub fn failed(class: ErrorClass, reason: impl fmt::Display) -> Self {
        match class {
            ErrorClass::Transient | ErrorClass::System => Self::retry(reason),
            ErrorClass::Permanent | ErrorClass::User => Self::fail(class, reason),
        }
    }
}

/// Handles the timers of a kind, several at once.
pub trait TimerHandler: Send + Sync + 'static {
    /// Has the effect of a timer, and returns when it is durable. A panic is a try that failed.
    ///
    /// # Cancel safety
    /// The future is dropped at its deadline and when the life ends; the timer then fires again.
    fn fire(&self, timer: Timer) -> impl Future<Output = Fired> + Send;

    /// Whether this node can handle them yet. It claims the kind when it can.
    fn ready(&self) -> bool {
        true
    }
}

impl<F, R> TimerHandler for F
where
    F: Fn(Timer) -> R + Send + Sync + 'static,
    R: Future<Output = Fired> + Send,
{
    fn fire(&self, timer: Timer) -> impl Future<Output = Fired> + Send {
        self(timer)
    }
}

/// A handler without its type.
trait Fire: Send + Sync {
    fn fire(&self, timer: Timer) -> BoxFuture<'_, Fired>;
    fn ready(&self) -> bool;
}

impl<H: TimerHandler> Fire for H {
    fn fire(&self, timer: Timer) -> BoxFuture<'_, Fired> {
        TimerHandler::fire(self, timer).boxed()
    }

    fn ready(&self) -> bool {
        TimerHandler::ready(self)
    }
}

/// How the timers of a kind are fired.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TimerOptions {
    /// How many at once; [`DEFAULT_AT_ONCE`].
    pub at_once: usize,
    /// How long one try may take; default: 30 s.
    pub deadline: Duration,
    /// When one is tried again; default: without end, after at most 30 s. What panics is given up
    /// after [`PANICS`](Self::PANICS) tries in any case.
    pub retry: RetryPolicy,
}

impl TimerOptions {
    /// Tries of a timer whose handler panics, before it is a dead letter.
    pub const PANICS: u32 = 5;

    /// Sets how many are fired at once.
    #[must_use]
    pub fn at_once(mut self, timers: usize) -> Self {
        self.at_once = timers.max(1);
        self
    }

    /// Sets how long one try may take.
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets when one is tried again.
    #[must_use]
    pub const fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }
}

impl Default for TimerOptions {
    fn default() -> Self {
        let pauses = Backoff::exponential(Duration::from_millis(200), Duration::from_secs(30));
        Self {
            at_once: DEFAULT_AT_ONCE,
            deadline: DEFAULT_HANDLE_DEADLINE,
            retry: RetryPolicy::attempts(u32::MAX).backoff(pauses),
        }
    }
}

/// Why a timer was not set, found or handled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TimerError {
    /// The name of the kind is not valid.
    #[error("{kind:?} is not the name of a kind; use up to 100 letters, digits, '-', '_' and '.'")]
    Kind {
        /// The name.
        kind: String,
    },
    /// The name is not valid.
    #[error("{name:?} is not the name of a timer; use 1 to {MAX_NAME} bytes without NUL")]
    Name {
        /// The name.
        name: String,
    },
    /// The payload is too large.
    #[error("the payload has {bytes} bytes, at most {MAX_PAYLOAD} are taken; keep it elsewhere")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// This node handles the kind already.
    #[error("this node handles timers of kind {kind} already")]
    Exists {
        /// The kind.
        kind: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The pool did not answer.
    #[error(transparent)]
    Pool(#[from] AskError),
    /// The actor of the kind could not be started.
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
}

impl TimerError {
    /// How to react.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Kind { .. } | Self::Name { .. } | Self::TooLarge { .. } | Self::Exists { .. } => {
                ErrorClass::User
            }
            Self::Store(error) => error.class(),
            Self::Pool(_) | Self::Supervisor(_) => ErrorClass::Transient,
        }
    }
}

/// The timers of a node's store. Cheap to clone.
#[derive(Clone)]
pub struct Timers(Arc<Inner>);

struct Inner {
    supervisor: SupervisorRef,
    pool: PoolHandle,
    /// The pool's path.
    pool_path: Arc<str>,
    owner: Arc<str>,
    bus: EventBus,
    office: Arc<dyn DeadLetterOffice>,
    clock: Clock,
    health: HealthSpec,
    kinds: Mutex<BTreeMap<Arc<str>, Handled>>,
}

/// A kind that this node handles.
#[derive(Clone)]
struct Handled {
    notice: Arc<tokio::sync::Notify>,
    counted: Arc<Counted>,
}

impl Timers {
    /// Timers whose actors live under a dynamic supervisor, with what they need of their node.
    #[must_use]
    pub fn new(
        supervisor: SupervisorRef,
        (pool_path, pool): (impl Into<Arc<str>>, PoolHandle),
        owner: impl Into<Arc<str>>,
        bus: EventBus,
        office: Arc<dyn DeadLetterOffice>,
        clock: Clock,
        health: HealthSpec,
    ) -> Self {
        Self(Arc::new(Inner {
            supervisor,
            pool,
            pool_path: pool_path.into(),
            owner: owner.into(),
            bus,
            office,
            clock,
            health,
            kinds: Mutex::default(),
        }))
    }

    fn kinds(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Handled>> {
        // Nothing below panics while it holds the lock.
        self.0.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self, kind: &str) {
        if let Some(handled) = self.kinds().get(kind) {
            handled.notice.notify_one();
        }
    }

    /// Sets a timer; it is durable when this returns. One of this name with the same time and
    /// payload stays as it is, with another it is replaced.
    ///
    /// # Errors
    /// Its name is not valid, or the store failed.
    ///
    /// # Cancel safety
    /// A dropped call has set it or not.
    pub async fn set(&self, timer: NewTimer) -> Result<(), TimerError> {
        self.set_all(vec![timer]).await
    }

    /// Sets several, all or none.
    ///
    /// # Errors
    /// A name is not valid, or the store failed.
    ///
    /// # Cancel safety
    /// A dropped call has set all or none.
    pub async fn set_all(&self, timers: Vec<NewTimer>) -> Result<(), TimerError> {
        timers.iter().try_for_each(check)?;
        let kinds: std::collections::BTreeSet<_> =
            timers.iter().map(|timer| Arc::clone(&timer.kind)).collect();
        self.0.pool.lease().await?.timers.set(timers).await?;
        for kind in kinds {
            self.notify(&kind);
        }
        Ok(())
    }

    /// Takes a timer back; answers whether it was there. One that is being fired at this moment
    /// may still have its effect.
    ///
    /// # Errors
    /// The store failed.
    ///
    /// # Cancel safety
    /// A dropped call has removed it or not.
    pub async fn cancel(&self, kind: &str, name: &str) -> Result<bool, TimerError> {
        Ok(self.0.pool.lease().await?.timers.cancel(kind, name).await?)
    }

    /// Takes those back whose names are at or after `from` and before `to`.
    pub(crate) async fn cancel_between(
        &self,
        kind: &str,
        from: &str,
        to: &str,
    ) -> Result<u64, TimerError> {
        Ok(self.0.pool.lease().await?.timers.cancel_between(kind, from, to).await?)
    }

    /// The time of day of the node.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.clock.wall_us())
    }

    /// A page of the timers of the store, by kind and name, those after `after`.
    ///
    /// # Errors
    /// The store failed.
    pub async fn list(
        &self,
        filter: &TimerFilter,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<TimerRow>, TimerError> {
        Ok(self.0.pool.lease().await?.timers.list(filter, after, limit).await?)
    }

    /// One of them.
    ///
    /// # Errors
    /// The store failed.
    pub async fn get(&self, kind: &str, name: &str) -> Result<Option<TimerRow>, TimerError> {
        Ok(self.0.pool.lease().await?.timers.get(kind, name).await?)
    }

    /// The kinds that this node handles, with what was counted.
    #[must_use]
    pub fn handled(&self) -> Vec<(Arc<str>, Arc<Counted>)> {
        let kinds = self.kinds();
        kinds.iter().map(|(kind, one)| (Arc::clone(kind), Arc::clone(&one.counted))).collect()
    }

    /// Handles the timers of a kind from now on: an actor of that name claims the kind, or stands
    /// by while another node has it. Give a kind to the nodes that can handle it.
    ///
    /// # Errors
    /// This node handles the kind already, its name is not valid, or the actor did not start.
    ///
    /// # Cancel safety
    /// A dropped call may have started the actor.
    pub async fn handle(
        &self,
        kind: impl Into<Arc<str>>,
        options: TimerOptions,
        handler: impl TimerHandler,
    ) -> Result<(), TimerError> {
        let (kind, inner) = (kind.into(), &self.0);
        check_kind(&kind)?;
        let exists = || TimerError::Exists { kind: kind.to_string() };
        let handled = Handled { notice: Arc::default(), counted: Arc::default() };
        let args = TimerArgs {
            kind: Arc::clone(&kind),
            options,
            handler: Arc::new(handler),
            pool: Arc::clone(&inner.pool_path),
            owner: Arc::clone(&inner.owner),
            bus: inner.bus.clone(),
            office: Arc::clone(&inner.office),
            notice: Arc::clone(&handled.notice),
            counted: Arc::clone(&handled.counted),
            shown: Arc::default(),
        };
        let spec = ChildSpec::component::<TimerActor>(Arc::clone(&kind), args);
        let started: Result<Address<TimerMessage>, _> =
            inner.supervisor.spawn_spec(spec.health(inner.health)).await;
        let address = match started {
            Ok(address) => address,
            Err(SupervisorError::AlreadyStarted { .. }) => return Err(exists()),
            Err(error) => return Err(error.into()),
        };
        self.kinds().insert(Arc::clone(&kind), handled);
        // Dead letters are sent again to whoever has their name; nothing is published there.
        let nothing = Pattern::new(format!("{TIMERS}{kind}")).map_err(|_| exists())?;
        let name = letter::origin(&kind);
        if inner.bus.connect(name, nothing, address, TimerMessage::Again).is_err() {
            tracing::debug!(kind = &*kind, "its dead letters find the way back already");
        }
        Ok(())
    }
}

fn check_kind(kind: &str) -> Result<(), TimerError> {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let words = |kind: &str| kind.split('.').all(|part| !part.is_empty() && part.chars().all(word));
    match kind.len() <= 100 && words(kind) {
        true => Ok(()),
        false => Err(TimerError::Kind { kind: kind.to_owned() }),
    }
}

fn check(timer: &NewTimer) -> Result<(), TimerError> {
    check_kind(&timer.kind)?;
    // PostgreSQL takes no NUL.
    if timer.name.is_empty() || timer.name.len() > MAX_NAME || timer.name.contains('\0') {
        return Err(TimerError::Name { name: timer.name.to_string() });
    }
    match timer.payload.len() {
        bytes if bytes > MAX_PAYLOAD => Err(TimerError::TooLarge { bytes }),
        _ => Ok(()),
    }
}

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<_> = self.kinds().keys().cloned().collect();
        f.debug_struct("Timers").field("kinds", &kinds).finish_non_exhaustive()
    }
}
