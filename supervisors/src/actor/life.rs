//! One life of a slot: a task that starts an actor, hands it its messages, and ends with it.
//!
//! ```text
//! run                       owns the life and the guard that reports its end
//!  ├─ wait for the life before, start, recover      under a guard
//!  ├─ serve: message after message                  under a guard
//!  ├─ stop                                          under a guard
//!  └─ drop the actor, let go of the slot            under a guard
//! ```
//!
//! Between any two messages the life looks at its [`Gate`](crate::actor::gate::Gate); a kill ends it
//! at the next poll. Its supervisor learns of the start and of the end by messages that carry the
//! life's number, whatever happens in between.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ractor::ActorRef;
use tokio::task::coop::consume_budget;

use crate::actor::cell::Running;
use crate::actor::gate::Sign;
use crate::actor::guard::{Guard, Outcome};
use crate::actor::in_flight::{InFlight, LifeToken};
use crate::actor::kinds::KnownKinds;
use crate::actor::panic::{Theirs, report_of};
use crate::actor::reply::{Settled, unanswered};
use crate::actor::slot::{AnySlot, Call, Entry, Slot};
use crate::actor::state::SlotState;
use crate::actor::{Actor, Context};
use crate::component::Hooks;
use crate::error::{ExitReason, Failure, StartError};
use crate::inspect::recorder::Handled;
use crate::supervisor::SupervisorMessage;
use crate::supervisor::arrivals::Arrival;
use crate::supervisor::child::{StartContext, StartResult};
use crate::supervisor::orders::Key;

/// How long a life may keep its worker before it lets others run: shorter than anybody notices, and
/// long enough that the switch does not show (measured: 100 µs cost nothing, tokio's own budget of
/// 128 units alone made others 13 ms late).
const SLICE_NS: u64 = 100_000;

/// Messages per unit of tokio's cooperative budget. Each message would cost a fifth of its handling;
/// none would let actors that feed each other short batches keep the timers waiting.
const MESSAGES_PER_UNIT: u32 = 16;

/// How long a new life waits for the one before it, before its slot is shown as stuck. A life
/// that was killed lets go within microseconds; only code that never yields holds on.
const LETTING_GO: Duration = Duration::from_millis(100);

/// What the supervisor hears of a life. The end is told by its drop, so that it is told whatever
/// happens.
pub(crate) struct Report {
    to: ActorRef<SupervisorMessage>,
    key: Key,
    life: u64,
    started: bool,
    end: Option<ExitReason>,
    arrival: Option<Box<Arrival>>,
}

impl Report {
    pub(crate) fn new(to: ActorRef<SupervisorMessage>, key: Key, life: u64) -> Self {
        Self { to, key, life, started: false, end: None, arrival: None }
    }

    fn send(&self, message: SupervisorMessage) {
        // A supervisor that is gone has told its lives to end, and asks for no report.
        let _ = self.to.send_message(message);
    }

    fn start_done(&mut self, result: StartResult) {
        self.started = true;
        let (key, life) = (self.key, self.life);
        self.send(SupervisorMessage::StartDone { key, life, result });
    }

    /// The life is up.
    pub(crate) fn up(&mut self) {
        let arrival = self.arrival.take();
        if arrival.is_some_and(|arrival| arrival.come_up(self.key, self.life)) {
            self.started = true;
        } else {
            self.start_done(StartResult::Started);
        }
    }

    /// It ends with this reason once the report is dropped.
    pub(crate) fn end(&mut self, reason: ExitReason) {
        self.end = Some(reason);
    }

    /// There will be no life, and that is fine.
    pub(crate) fn ignored(mut self) {
        self.start_done(StartResult::Ignored);
        self.started = false;
        self.end = None;
        self.key = Key::MAX;
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if self.key == Key::MAX {
            return;
        }
        let (key, life) = (self.key, self.life);
        let reason = self.end.take().unwrap_or(ExitReason::Killed);
        if self.started {
            self.send(SupervisorMessage::Ended { key, life, reason });
        } else {
            self.start_done(StartResult::Failed(reason));
        }
    }
}

/// Runs one life. See the module's page.
///
/// Not an `async fn`: that would keep its arguments beside what it makes of them, in the memory of
/// every actor.
pub(crate) fn run<A: Actor, H: Hooks<A>>(
    args: Arc<Theirs<A::Args>>,
    slot: Arc<Slot<A::Message>>,
    at: StartContext,
) -> impl Future<Output = ()> + Send {
    let StartContext { parent, key, supervisor, root, life, deadline, arrival, .. } = at;
    // Dropped last: when the supervisor hears of the end, nothing of this life is left.
    let mut report = Report::new(parent, key, life);
    report.arrival = arrival;
    async move {
        let began = slot.cell.env.clock.ticks_ns();
        poll_fn(|cx| {
            slot.cell.register(life, cx.waker());
            Poll::Ready(())
        })
        .await;
        let mut guard = Guard::new(Arc::clone(&slot) as Arc<dyn AnySlot>, life);
        let Some(token) = acquire(&slot, life, &mut guard).await else { return };
        let mut living = Living::<A> {
            actor: None,
            cx: Context::new(token, root, supervisor, life),
            kinds: KnownKinds::default(),
        };
        let started = guard.run(living.start::<H>(&args, life)).await;
        drop(args);
        let took = slot.cell.env.clock.ticks_ns().saturating_sub(began);
        match refusal(&slot, life, started, deadline, took) {
            Ok(()) => {}
            Err(None) => {
                living.let_go(&mut guard, None, &ExitReason::Normal);
                return report.ignored();
            }
            Err(Some(reason)) => {
                slot.cell.record_exit(life, reason.clone());
                living.keep_handover();
                living.let_go(&mut guard, None, &reason);
                return report.end(reason);
            }
        }
        slot.cell.up(life, Running::Life);
        poll_fn(|cx| {
            slot.mailbox.attach(cx.waker().clone());
            Poll::Ready(())
        })
        .await;
        report.up();
        let served = guard.run(living.serve::<H>(&slot, life)).await;
        let reason = match served {
            Outcome::Done(Ok(reason)) => {
                slot.cell.stats.idle();
                slot.cell.record_exit(life, reason.clone());
                let planned = slot.cell.planned_stop();
                match guard.run(living.stop::<H>(&reason, planned)).await {
                    Outcome::Done(()) => reason,
                    Outcome::Panicked(panic) => ExitReason::Panic(panic),
                    Outcome::Killed => ExitReason::Killed,
                }
            }
            Outcome::Done(Err(failure)) => ExitReason::Error(failure),
            Outcome::Panicked(panic) => ExitReason::Panic(panic),
            Outcome::Killed => slot.cell.exit_of(life).unwrap_or(ExitReason::Killed),
        };
        slot.cell.correct_exit(life, reason.clone());
        guard.settle(&Settled::Ended(reason.clone()));
        let reason = living.let_go(&mut guard, Some(&slot), &reason).unwrap_or(reason);
        report.end(reason);
    }
}

/// Why there will be no life after this start: `None` if the actor asked for it.
fn refusal<M: Send + 'static>(
    slot: &Slot<M>,
    life: u64,
    started: Outcome<Result<(), StartError>>,
    deadline: Option<Duration>,
    took_ns: u64,
) -> Result<(), Option<ExitReason>> {
    Err(Some(match started {
        Outcome::Done(Ok(())) => match deadline {
            // A start that blocked its thread could not be cut off.
            Some(after) if u128::from(took_ns) > after.as_nanos() => {
                ExitReason::StartTimeout { after }
            }
            _ => return Ok(()),
        },
        Outcome::Done(Err(StartError::Ignore)) => return Err(None),
        Outcome::Done(Err(StartError::Failed(failure))) => ExitReason::Error(failure),
        Outcome::Panicked(panic) => ExitReason::Panic(panic),
        Outcome::Killed => slot.cell.exit_of(life).unwrap_or(ExitReason::Killed),
    }))
}

/// The slot's receiver, once the life before has let go of it. `None`: killed meanwhile.
pub(crate) async fn acquire<M: Send + 'static>(
    slot: &Arc<Slot<M>>,
    life: u64,
    guard: &mut Guard,
) -> Option<LifeToken<M>> {
    if let Some(token) = slot.try_acquire(life) {
        return Some(token);
    }
    // In a box: nearly no life waits, and all would carry it.
    let waits = Box::pin(async {
        if let Ok(token) = tokio::time::timeout(LETTING_GO, slot.acquire(life)).await {
            return token;
        }
        slot.cell.set_state_of(life, SlotState::Stuck);
        slot.acquire(life).await
    });
    match guard.run(waits).await {
        Outcome::Done(token) => {
            slot.cell.set_state_of(life, SlotState::Starting);
            Some(token)
        }
        _ => None,
    }
}

/// An actor and what it lives with.
struct Living<A: Actor> {
    actor: Option<A>,
    cx: Context<A>,
    kinds: KnownKinds,
}

impl<A: Actor> Living<A> {
    async fn start<H: Hooks<A>>(&mut self, args: &A::Args, life: u64) -> Result<(), StartError> {
        let actor = self.actor.insert(A::start(args, &mut self.cx).await?);
        if life > 1 {
            H::post_restart_recovery(actor, &mut self.cx).await.map_err(StartError::Failed)?;
        }
        Ok(())
    }

    /// Handles what comes, until the actor or its supervisor wants it to end. Returns the reason.
    async fn serve<H: Hooks<A>>(
        &mut self,
        slot: &Arc<Slot<A::Message>>,
        life: u64,
    ) -> Result<ExitReason, Failure> {
        let Self { actor, cx, kinds } = self;
        let actor = actor.as_mut().expect("a life that serves has started");
        let cell = &slot.cell;
        let clock = cell.env.clock;
        let mut began = clock.ticks_ns();
        let mut slice = began;
        let mut units = 0;
        // Since when no message has come, while that is awaited.
        let mut quiet = None;
        // The kind of the last message: most come many times in a row.
        let (mut named, mut kind, mut name) = ("", 0, "");
        // What overtakes and came before this life was up called nobody.
        put_in_front(slot, cx);
        if let Some(reason) = cx.ending.take() {
            return Ok(reason);
        }
        loop {
            match cell.gate.sign(life) {
                Sign::Go => {}
                // What waits is for the next life.
                Sign::Stop => return Ok(ExitReason::Shutdown),
                // The guard ends it at the next poll, for the reason that whoever killed it gave.
                Sign::Kill => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Sign::Call => {
                    // In a box: it is rare, and all would carry it.
                    Box::pin(answer::<A, H>(actor, cx, slot)).await?;
                    if let Some(reason) = cx.ending.take() {
                        return Ok(reason);
                    }
                    began = clock.ticks_ns();
                    continue;
                }
                Sign::Hold => {
                    cell.stats.idle();
                    park().await;
                    began = clock.ticks_ns();
                    slice = began;
                    quiet = None;
                    continue;
                }
            }
            let token = cx.token.get_mut();
            let Some(Entry { message, extra }) = slot.mailbox.next(&mut token.receiver) else {
                if token.stops_when_empty() {
                    return Ok(ExitReason::Normal);
                }
                cell.stats.idle();
                match cx.receive_timeout() {
                    None => park().await,
                    // In a box, so that those who never wait so do not carry the timer.
                    Some(after) => {
                        // What the life is asked beside its mailbox wakes it, and is no message.
                        let now = clock.elapsed();
                        let since = *quiet.get_or_insert(now);
                        let wait = since.saturating_add(after).saturating_sub(now);
                        if !Box::pin(park_for(wait)).await {
                            cx.receive_timed_out();
                        }
                    }
                }
                began = clock.ticks_ns();
                slice = began;
                continue;
            };
            if let Some(extra) = &extra
                && extra.armed.as_ref().is_some_and(|armed| !armed.take(life))
            {
                // From a timer that was cancelled, or of an earlier life.
                drop(message);
                if token.handled_batch() {
                    return Ok(ExitReason::Normal);
                }
                continue;
            }
            quiet = None;
            // In flight before any code of the actor sees it: from here on it cannot get lost.
            token.in_flight = Some(InFlight { copy: None, extra, name });
            let called = A::message_name(&message);
            if !std::ptr::eq(called, named) {
                (kind, name) = kinds.find::<A::Message>(cell, called);
                cell.stats.set_kind(kind);
                named = called;
            }
            if let Some(in_flight) = &mut token.in_flight {
                in_flight.name = name;
                if let Some(copy) = slot.on_crash.copy {
                    in_flight.copy = Some(copy(&message));
                }
            }
            cell.stats.begin(began);
            actor.handle(message, cx).await?;
            let ended = clock.ticks_ns();
            kinds.row(kind, &cell.stats).handled(ended.saturating_sub(began));
            let token = cx.token.get_mut();
            let done = token.in_flight.take();
            if slot.is_recording() {
                let extra = done.as_ref().and_then(|done| done.extra.as_deref());
                cell.record(name, life, extra, (began, ended), Handled::Ok);
            }
            drop(done);
            if token.handled_batch() {
                cx.ending.get_or_insert(ExitReason::Normal);
            }
            unanswered::settle_here(|| Settled::NoReply);
            if let Some(reason) = cx.ending.take() {
                return Ok(reason);
            }
            began = ended;
            units += 1;
            if units % MESSAGES_PER_UNIT == 0 {
                if slot.mailbox.has_waiting() {
                    slot.mailbox.let_in();
                }
                consume_budget().await;
            }
            if ended.saturating_sub(slice) >= SLICE_NS {
                if slot.mailbox.has_waiting() {
                    slot.mailbox.let_in();
                }
                tokio::task::yield_now().await;
                // The pause is not handling time.
                began = clock.ticks_ns();
                slice = began;
            }
        }
    }

    async fn stop<H: Hooks<A>>(&mut self, why: &ExitReason, planned: bool) {
        let Some(actor) = &mut self.actor else { return };
        if planned && let Some(handover) = H::prepare_for_restart(actor, &mut self.cx).await {
            self.cx.cell().keep_handover(handover);
        }
        actor.stop(why, &mut self.cx).await;
    }

    /// What the life before left goes to the next one: this one did not come to use it.
    fn keep_handover(&mut self) {
        if let Some(handover) = self.cx.untaken_handover() {
            self.cx.cell().keep_handover(handover);
        }
    }

    /// Drops the actor and everything it owns, and then lets go of the slot. A panic in that drop is
    /// the reason of a life that would else have ended well.
    fn let_go(
        self,
        guard: &mut Guard,
        slot: Option<&Arc<Slot<A::Message>>>,
        reason: &ExitReason,
    ) -> Option<ExitReason> {
        let Self { actor, cx, .. } = self;
        let (token, owned) = cx.into_parts();
        let mut panicked = guard.within(|| drop(actor)).err();
        if let Err(panic) = guard.within(|| drop(owned)) {
            panicked.get_or_insert(panic);
        }
        let last = panicked.filter(|_| reason.is_normal()).map(ExitReason::Panic);
        if let (Some(slot), Some(last)) = (slot, &last) {
            slot.cell.correct_exit(token.life, last.clone());
        }
        guard.settle(&Settled::Ended(last.as_ref().unwrap_or(reason).clone()));
        // Messages that go to the dead letters are dropped here.
        if let Err(panic) = guard.within(|| drop(token)) {
            tracing::error!(%panic, "dropping an actor's messages panicked");
        }
        guard.settle(&Settled::Dropped);
        last
    }
}

/// Answers what the life was asked beside its mailbox.
async fn answer<A: Actor, H: Hooks<A>>(
    actor: &mut A,
    cx: &mut Context<A>,
    slot: &Arc<Slot<A::Message>>,
) -> Result<(), Failure> {
    for call in slot.cell.take_calls() {
        match call {
            Call::Health(reply) => {
                let health = H::health_check(actor, cx).await;
                let _ = reply.send(health);
            }
            Call::Inspect(reply) => {
                // Who only looks must not end it.
                match catch_unwind(AssertUnwindSafe(|| actor.inspect())) {
                    Ok(picture) => drop(reply.send(picture)),
                    Err(payload) => {
                        let panic = report_of(payload);
                        tracing::error!(path = %slot.cell.path, %panic, "`inspect` panicked");
                    }
                }
            }
            Call::Urgent => put_in_front(slot, cx),
            // Those that it has handled since it was told are not waited for again.
            Call::StopAfter(waiting) => {
                if cx.token.get_mut().stop_after(waiting.min(slot.mailbox.depth())) {
                    cx.stop();
                }
            }
        }
        unanswered::settle_here(|| Settled::NoReply);
        if cx.ending.is_some() {
            break;
        }
    }
    Ok(())
}

/// Urgent messages go in front of what waits.
fn put_in_front<A: Actor>(slot: &Arc<Slot<A::Message>>, cx: &mut Context<A>) {
    let urgent = slot.take_urgent();
    if !urgent.is_empty() {
        cx.token.get_mut().put_in_front(urgent);
    }
}

/// Waits until the task is woken: by the mailbox, or to look at the gate.
async fn park() {
    let mut waited = false;
    poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending })
        .await;
}

/// The same, for a limited time. `false`: it is over.
async fn park_for(limit: Duration) -> bool {
    let mut alarm = pin!(tokio::time::sleep(limit));
    let mut waited = false;
    poll_fn(|cx| {
        // The alarm wakes the task as well, so it is looked at first.
        if alarm.as_mut().poll(cx).is_ready() {
            return Poll::Ready(false);
        }
        if std::mem::replace(&mut waited, true) { Poll::Ready(true) } else { Poll::Pending }
    })
    .await
}
