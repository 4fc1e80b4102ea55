//! What an actor knows about where and when it lives, and what it can do there.

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_core::Stream;

use crate::actor::cell::SlotCell;
use crate::actor::in_flight::{InFlight, LifeToken};
use crate::actor::slot::{AnySlot, Entry, Slot};
use crate::actor::timers::{self, TaskGuard};
use crate::actor::watch::{Ended, ended};
use crate::actor::{Actor, Address};
use crate::clock::ClockAnchor;
use crate::environment::Clock;
use crate::error::{ExitReason, LookupError};
use crate::path::Path;
use crate::supervisor::SupervisorRef;
use crate::sync::lock;
use crate::thread_pool::{ComputeError, Work};
use crate::tree::TreeRoot;

/// What its owner alone uses. In a mutex only so that a context can be shared across an `await`: it
/// is locked only by [`Context::spawn`].
pub(crate) struct Own<T>(Mutex<T>);

impl<T> Own<T> {
    fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    #[inline]
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an actor knows about where and when it lives.
///
/// Everything that it begins here (tasks, timers, watches, streams) belongs to this life and ends
/// with it.
pub struct Context<A: Actor> {
    slot: Arc<Slot<A::Message>>,
    pub(crate) token: Own<LifeToken<A::Message>>,
    root: TreeRoot,
    supervisor: SupervisorRef,
    life: u64,
    pub(crate) ending: Option<ExitReason>,
    owned: Own<Option<Box<Owned<A::Message>>>>,
}

type OwnedBox<M> = Option<Box<Owned<M>>>;

/// What few actors need: the others pay a pointer for it.
pub(crate) struct Owned<M> {
    handover: Option<Box<dyn Any + Send>>,
    timers: BTreeMap<Cow<'static, str>, TaskGuard>,
    kept: Vec<TaskGuard>,
    watches: BTreeMap<usize, TaskGuard>,
    receive_timeout: Option<(Duration, Box<dyn FnMut() -> M + Send>)>,
}

impl<M> Default for Owned<M> {
    fn default() -> Self {
        Self {
            handover: None,
            timers: BTreeMap::new(),
            kept: Vec::new(),
            watches: BTreeMap::new(),
            receive_timeout: None,
        }
    }
}

impl<M> Owned<M> {
    /// Those that have ended are swept out whenever the list is full.
    fn keep(&mut self, task: TaskGuard) {
        if self.kept.len() == self.kept.capacity() {
            self.kept.retain(|task| !task.is_finished());
        }
        self.kept.push(task);
    }
}

impl<A: Actor> Context<A> {
    pub(crate) fn new(
        token: LifeToken<A::Message>,
        root: TreeRoot,
        supervisor: SupervisorRef,
        life: u64,
    ) -> Self {
        let slot = Arc::clone(&token.slot);
        let owned = slot
            .cell
            .take_handover()
            .map(|handover| Box::new(Owned { handover: Some(handover), ..Owned::default() }));
        let (token, owned) = (Own::new(token), Own::new(owned));
        Self { slot, token, root, supervisor, life, ending: None, owned }
    }

    pub(crate) fn cell(&self) -> &SlotCell {
        &self.slot.cell
    }

    /// The right to the slot, and what the actor owned.
    pub(crate) fn into_parts(self) -> (LifeToken<A::Message>, OwnedBox<A::Message>) {
        (self.token.into_inner(), self.owned.into_inner())
    }

    fn owned(&mut self) -> &mut Owned<A::Message> {
        self.owned.get_mut().get_or_insert_default()
    }

    // --- where ---------------------------------------------------------------------------------

    /// This actor's own address.
    #[must_use]
    pub fn address(&self) -> Address<A::Message> {
        Address::new(Arc::clone(&self.slot))
    }

    /// Where this actor stands in the tree.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.slot.cell.path
    }

    /// Which life this is: 1, and one more for every start after it.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life
    }

    /// The supervisor of this actor. What an actor asks of the supervisor that stops it fails at
    /// once with [`SupervisorError::Stopping`](crate::SupervisorError::Stopping), also when the stop
    /// is what it asked for.
    #[must_use]
    pub fn supervisor(&self) -> &SupervisorRef {
        &self.supervisor
    }

    /// Finds another actor of this system.
    ///
    /// # Errors
    /// Nothing lives there, or it takes other messages.
    pub fn find<M: Send + 'static>(&self, path: &str) -> Result<Address<M>, LookupError> {
        self.root.address(&Path::parse(path))
    }

    /// Finds a supervisor of this system.
    ///
    /// # Errors
    /// Nothing lives there, or it is not a supervisor.
    pub fn find_supervisor(&self, path: &str) -> Result<SupervisorRef, LookupError> {
        let found = self.root.supervisor(&Path::parse(path))?;
        Ok(found.called_by(self.path()))
    }

    /// Finds another actor of this system by the name that its spec gave it
    /// ([`ChildSpec::name`](crate::ChildSpec::name)).
    ///
    /// # Errors
    /// Nobody has that name, or it takes other messages.
    pub fn named<M: Send + 'static>(&self, name: &str) -> Result<Address<M>, LookupError> {
        self.slot.cell.env.groups.named(name)
    }

    /// The actors of a group that take messages of type `M`.
    #[must_use]
    pub fn group<M: Send + 'static>(&self, group: &str) -> crate::groups::Group<M> {
        self.slot.cell.env.groups.group(group)
    }

    // --- time and chance -----------------------------------------------------------------------

    /// The system's clock.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.slot.cell.env.clock
    }

    /// When the message in flight was taken out of the mailbox: wall clock, microseconds since the
    /// Unix epoch. The actor's statistics need the moment anyway; the machine's clock is asked every
    /// millisecond, so after it was set this is wrong for as long.
    #[must_use]
    pub fn taken_at_us(&self, anchor: &mut ClockAnchor) -> i64 {
        let cell = &self.slot.cell;
        let clock = cell.env.clock;
        clock.wall_near(anchor, cell.stats.began_ns().unwrap_or_else(|| clock.ticks_ns()))
    }

    /// A random number from the system's seeded generator.
    #[must_use]
    pub fn random_u64(&self) -> u64 {
        use rand::Rng;
        self.slot.cell.env.random(|rng| rng.next_u64())
    }

    // --- this life -----------------------------------------------------------------------------

    /// What the life before this one left in
    /// [`prepare_for_restart`](crate::SupervisedComponent::prepare_for_restart), once. A life that
    /// fails to start without having taken it leaves it to the next.
    pub fn take_handover<T: 'static>(&mut self) -> Option<T> {
        let kept = &mut self.owned.get_mut().as_mut()?.handover;
        match kept.take()?.downcast::<T>() {
            Ok(value) => Some(*value),
            Err(other) => {
                *kept = Some(other);
                None
            }
        }
    }

    pub(crate) fn untaken_handover(&mut self) -> Option<Box<dyn Any + Send>> {
        self.owned.get_mut().as_mut()?.handover.take()
    }

    /// Ends this life, in order, once the message in flight is handled; from `start`, once it is up.
    pub fn stop(&mut self) {
        self.ending = Some(ExitReason::Normal);
    }

    /// Ends this life in order with the reason `Shutdown`, which counts as normal too.
    pub fn shut_down(&mut self) {
        self.ending = Some(ExitReason::Shutdown);
    }

    /// Whether this life was told to stop: what is not done by then is cut off when the shutdown
    /// time of the spec is over. Long handlers may look now and then.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.slot.cell.gate.is_ending(self.life)
    }

    /// What the tree shows beside this actor, such as `1/5 in use`. The closure runs only when
    /// somebody looks, on the thread of whoever looks: read atomics, do not block. It is forgotten
    /// with this life.
    pub fn describe(&self, status: impl Fn() -> String + Send + Sync + 'static) {
        self.slot.cell.set_status(self.life, Arc::new(status));
    }

    // --- the mailbox ---------------------------------------------------------------------------

    /// The next message, if one waits: for actors that handle many at once. It counts as in flight
    /// until the handler returns, so a crash makes a dead letter of each message taken.
    pub fn next_waiting(&mut self) -> Option<A::Message> {
        let Self { slot, token, life, .. } = self;
        let token = token.get_mut();
        loop {
            let Entry { message, extra } = slot.mailbox.next_now(&mut token.receiver)?;
            let armed = extra.as_ref().and_then(|extra| extra.armed.as_ref());
            if armed.is_some_and(|armed| !armed.take(*life)) {
                drop(message);
                continue;
            }
            let name = slot.cell.info.message_type;
            let at = token.batch().len();
            token.batch().push(InFlight { copy: None, extra, name });
            let name = crate::actor::shown_name::<A::Message>(A::message_name(&message));
            let copy = slot.on_crash.copy.map(|copy| copy(&message));
            if let Some(taken) = token.batch().get_mut(at) {
                (taken.copy, taken.name) = (copy, name);
            }
            return Some(message);
        }
    }

    /// Puts a message aside, behind those put aside before. What was put aside survives a crash: it
    /// is in front of the mailbox again when the next life begins. It has been tried as often as the
    /// message in hand, and is no timer's any more.
    ///
    /// # Errors
    /// The message, when as many are put aside as the mailbox has room for.
    pub fn stash(&mut self, message: A::Message) -> Result<(), A::Message> {
        let capacity = self.slot.mailbox.capacity();
        let token = self.token.get_mut();
        if token.stash().len() >= capacity {
            return Err(message);
        }
        token.put_aside(message);
        Ok(())
    }

    /// Puts all that was put aside in front of what waits, in its order.
    pub fn unstash_all(&mut self) {
        self.token.get_mut().unstash();
    }

    /// How many messages are put aside.
    #[must_use]
    pub fn stashed(&mut self) -> usize {
        self.token.get_mut().stash().len()
    }

    /// Tells the actor what `message` makes when no message has come for `after`; again after as
    /// long a silence behind the next one. `None` ends it.
    pub fn set_receive_timeout(
        &mut self,
        timeout: Option<Duration>,
        message: impl FnMut() -> A::Message + Send + 'static,
    ) {
        self.owned().receive_timeout = timeout.map(|after| (after, Box::new(message) as Box<_>));
    }

    pub(crate) fn receive_timeout(&mut self) -> Option<Duration> {
        Some(self.owned.get_mut().as_ref()?.receive_timeout.as_ref()?.0)
    }

    pub(crate) fn receive_timed_out(&mut self) {
        let owned = self.owned.get_mut().as_mut();
        let Some((_, make)) = owned.and_then(|owned| owned.receive_timeout.as_mut()) else {
            return;
        };
        let entry = Entry { message: make(), extra: None };
        let token = self.token.get_mut();
        self.slot.mailbox.put_back(&mut token.receiver, std::iter::once(entry));
    }

    // --- tasks and timers ----------------------------------------------------------------------

    /// Runs a task beside the actor. It belongs to this life: it ends with it at the latest, and a
    /// panic in it fails the life.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task = self.spawn_guard(task);
        let mut owned = lock(&self.owned.0);
        owned.get_or_insert_default().keep(task);
    }

    /// The same, for a task that ends with its guard, too.
    #[must_use = "the task is aborted when its guard is dropped; see `spawn`"]
    pub fn spawn_guard(&self, task: impl Future<Output = ()> + Send + 'static) -> TaskGuard {
        TaskGuard::of_life(Arc::clone(&self.slot) as Arc<dyn AnySlot>, self.life, task)
    }

    /// Keeps a task until it, or this life, has ended.
    pub fn keep(&mut self, task: TaskGuard) {
        self.owned().keep(task);
    }

    /// Runs `wait` without stopping the actor, and tells the actor what it returned.
    ///
    /// The task belongs to this life as one of [`spawn_guard`](Self::spawn_guard) does. A message that it has
    /// put into the mailbox is a message like any other, for the next life, too.
    #[must_use = "the task is aborted when its guard is dropped; see `keep`"]
    pub fn spawn_tell<F>(&self, wait: F) -> TaskGuard
    where
        F: Future<Output = A::Message> + Send + 'static,
    {
        let address = self.address();
        self.spawn_guard(async move {
            let message = wait.await;
            address.deliver(Entry { message, extra: None }).await;
        })
    }

    /// Tells the actor `message` after `delay`, unless the guard is dropped before. No life but
    /// this one gets it. A mailbox that stays full makes it a dead letter.
    #[must_use = "the timer stops when its guard is dropped; see `timer`"]
    pub fn tell_after(&self, delay: Duration, message: A::Message) -> TaskGuard {
        timers::after(
            &self.slot,
            self.life,
            async move { tokio::time::sleep(delay).await },
            message,
        )
    }

    /// Tells the actor `message` when the time of day is `wall_us` (microseconds since the Unix
    /// epoch), unless the guard is dropped. It follows the machine's clock, also when that is set:
    /// for deadlines that are written down; see [`Clock::until`].
    #[must_use = "the timer stops when its guard is dropped; see `keep`"]
    pub fn tell_at(&self, wall_us: i64, message: A::Message) -> TaskGuard {
        timers::after(&self.slot, self.life, self.clock().until(wall_us), message)
    }

    /// Tells the actor what `message` makes, every `period`, unless the guard is dropped. A tick
    /// that falls due while the one before still waits is left out.
    #[must_use = "the timer stops when its guard is dropped; see `keep`"]
    pub fn interval(
        &self,
        period: Duration,
        message: impl FnMut() -> A::Message + Send + 'static,
    ) -> TaskGuard {
        timers::every(&self.slot, self.life, period, message)
    }

    /// Sets the timer `key`: `message` after `delay`. One that was set under that key before is
    /// cancelled, its message too if it waits in the mailbox already.
    pub fn timer(
        &mut self,
        key: impl Into<Cow<'static, str>>,
        delay: Duration,
        message: A::Message,
    ) {
        let timer = self.tell_after(delay, message);
        put(&mut self.owned().timers, key.into(), timer);
    }

    /// Sets the timer `key`: what `message` makes, every `period`. Replaces one under that key.
    pub fn periodic(
        &mut self,
        key: impl Into<Cow<'static, str>>,
        period: Duration,
        message: impl FnMut() -> A::Message + Send + 'static,
    ) {
        let timer = self.interval(period, message);
        put(&mut self.owned().timers, key.into(), timer);
    }

    /// Cancels the timer `key`. `false`: no such timer, or its message has been handled.
    pub fn cancel_timer(&mut self, key: &str) -> bool {
        let owned = self.owned.get_mut().as_mut();
        let timer = owned.and_then(|owned| owned.timers.remove(key));
        timer.is_some_and(|timer| !timer.is_over())
    }

    /// Tells the actor each item of a stream, as `message` makes it, in order; a full mailbox makes
    /// the stream wait.
    #[must_use = "the stream is dropped with its guard; see `keep`"]
    pub fn attach<S>(
        &self,
        stream: S,
        mut message: impl FnMut(S::Item) -> A::Message + Send + 'static,
    ) -> TaskGuard
    where
        S: Stream + Send + 'static,
        S::Item: Send,
    {
        let address = self.address();
        self.spawn_guard(async move {
            let mut stream = pin!(stream);
            while let Some(item) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
                // Only an actor that has stopped for good takes no more.
                if address.tell_patiently(message(item)).await.is_err() {
                    return;
                }
            }
        })
    }

    /// Tells this actor when another one has ended (see [`Ended`]), exactly once, also when it has
    /// ended already. A second watch of the same actor takes the place of the first.
    pub fn watch<M: Send + 'static>(
        &mut self,
        other: &Address<M>,
        message: impl FnOnce(Ended) -> A::Message + Send + 'static,
    ) {
        let slot = other.any_slot();
        let key = Arc::as_ptr(&slot).cast::<()>() as usize;
        let watch = self.spawn_tell(async move { message(ended(slot).await) });
        put(&mut self.owned().watches, key, watch);
    }

    /// Ends a watch. `false`: the end has been told already, or there was no watch.
    pub fn unwatch<M: Send + 'static>(&mut self, other: &Address<M>) -> bool {
        let key = Arc::as_ptr(&other.any_slot()).cast::<()>() as usize;
        let owned = self.owned.get_mut().as_mut();
        let watch = owned.and_then(|owned| owned.watches.remove(&key));
        watch.is_some_and(|watch| !watch.is_finished())
    }

    /// Runs work that keeps a processor busy on the system's pool for it, and waits for the result
    /// without keeping a worker of the runtime.
    ///
    /// # Errors
    /// The pool's queue is full, or the work panicked.
    ///
    /// # Cancel safety
    /// Work that has begun runs to its end; its result goes nowhere.
    pub async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ComputeError> {
        let env = &self.slot.cell.env;
        env.thread_pools.run(env.clock, Work::Compute, work).await
    }
}

/// Puts a task in the place of the one under its key. Those that are over are swept out whenever
/// their number has doubled: an actor may set a timer for each message, under a key of its own.
fn put<K: Ord>(tasks: &mut BTreeMap<K, TaskGuard>, key: K, task: TaskGuard) {
    let known = tasks.insert(key, task).is_some();
    if !known && tasks.len() >= 16 && tasks.len().is_power_of_two() {
        tasks.retain(|_, task| !task.is_over());
    }
}

impl<A: Actor> fmt::Debug for Context<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("path", self.path()).field("life", &self.life).finish()
    }
}
