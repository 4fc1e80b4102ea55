//! The address of an actor: what everybody else holds.

use std::fmt;
use std::future::{Future, poll_fn};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::actor::ask::{Question, SWEPT_FROM, blocked};
use crate::actor::cell::SlotCell;
use crate::actor::current;
use crate::actor::dead_letter::DeadLetterCause;
use crate::actor::mailbox::{Refused, Taken};
use crate::actor::recipient::Recipient;
use crate::actor::reply::{AskCell, AskOutcome, ReplyPort, Settled};
use crate::actor::slot::{AnySlot, Call, Entry, Extra, Overflow, Slot};
use crate::actor::state::SlotState;
use crate::actor::watch::{Ended, ended};
use crate::error::{AskError, ExitReason, TellError};
use crate::inspect::picture::Picture;
use crate::inspect::recorder::Sent;
use crate::path::Path;

/// How long an ask waits for its answer when it does not say.
pub const DEFAULT_ASK_DEADLINE: Duration = Duration::from_secs(5);

/// What a mailbox did with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It is in the mailbox.
    Queued,
    /// It is in the mailbox, and the oldest one is a dead letter.
    DroppedOldest,
    /// It is a dead letter itself.
    DroppedNewest,
}

/// Where to send messages of type `M`: a handle to the slot, so it survives every restart.
///
/// Cheap to clone; needs no look-up. Two addresses are equal if they lead to the same slot.
pub struct Address<M: Send + 'static> {
    slot: Arc<Slot<M>>,
}

impl<M: Send + 'static> Address<M> {
    pub(crate) fn new(slot: Arc<Slot<M>>) -> Self {
        Self { slot }
    }

    pub(crate) fn any_slot(&self) -> Arc<dyn AnySlot> {
        Arc::clone(&self.slot) as Arc<dyn AnySlot>
    }

    fn cell(&self) -> &SlotCell {
        &self.slot.cell
    }

    /// Where the actor stands in the tree.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.cell().path
    }

    /// What its slot is doing.
    #[must_use]
    pub fn state(&self) -> SlotState {
        self.cell().state()
    }

    /// The number of its current life, or of the last one.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.cell().life()
    }

    /// Messages that wait.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.slot.mailbox.depth()
    }

    // --- tell ----------------------------------------------------------------------------------

    /// Sends a message, waiting for room if the mailbox's policy says so.
    ///
    /// `Ok` means that the message is in the mailbox, where it survives a crash or a kill of the
    /// actor; it does not mean that it was handled.
    ///
    /// # Errors
    /// The message comes back when the mailbox stays full or the actor has stopped for good.
    ///
    /// # Cancel safety
    /// A dropped `tell` either has put the message into the mailbox or drops it.
    pub async fn tell(&self, message: M) -> Result<(), TellError<M>> {
        match self.push(self.entry(message)) {
            Ok(_) => Ok(()),
            Err(refused) => self.wait(refused).await.map_err(|refused| self.refusal(refused)),
        }
    }

    /// Sends a message if there is room for it now.
    ///
    /// # Errors
    /// The message comes back when the mailbox is full or the actor has stopped for good.
    pub fn try_tell(&self, message: M) -> Result<(), TellError<M>> {
        self.offer(message).map(|_| ())
    }

    /// Like [`try_tell`](Self::try_tell), and says what the overflow policy did.
    ///
    /// # Errors
    /// The message comes back when the mailbox is full or the actor has stopped for good.
    pub fn offer(&self, message: M) -> Result<Offered, TellError<M>> {
        self.push(self.entry(message)).map_err(|refused| self.refusal(refused))
    }

    /// Sends a message that overtakes all that wait: for control, not for work. At most
    /// [`URGENT_CAPACITY`](crate::URGENT_CAPACITY) wait at a time, beside the mailbox's capacity;
    /// they keep their order among each other.
    ///
    /// # Errors
    /// The message comes back when too many are there already, or the actor has stopped for good.
    pub fn tell_urgent(&self, message: M) -> Result<(), TellError<M>> {
        self.slot.push_urgent(self.entry(message)).map_err(|(stopped, entry)| {
            let path = self.path().clone();
            let message = entry.message;
            if stopped {
                TellError::Stopped { path, message }
            } else {
                TellError::Full { path, capacity: crate::actor::URGENT_CAPACITY, message }
            }
        })
    }

    /// [`tell`](Self::tell) for threads outside of any runtime: the thread waits.
    ///
    /// # Errors
    /// As `tell`.
    ///
    /// # Panics
    /// On a thread of a tokio runtime, which must never wait so.
    pub fn blocking_tell(&self, message: M) -> Result<(), TellError<M>> {
        match self.push(self.entry(message)) {
            Ok(_) => Ok(()),
            Err(refused) => {
                let waited = self.cell().env.runtime.block_on(self.wait(refused));
                waited.map_err(|refused| self.refusal(refused))
            }
        }
    }

    /// [`ask`](Self::ask) for threads outside of any runtime: the thread waits.
    ///
    /// # Errors
    /// As `ask`.
    ///
    /// # Panics
    /// On a thread of a tokio runtime, which must never wait so.
    pub fn blocking_ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(ReplyPort<T>) -> M,
    ) -> Result<T, AskError> {
        self.cell().env.runtime.block_on(self.ask(question))
    }

    // --- ask -----------------------------------------------------------------------------------

    /// Asks a question and waits up to 5 s for the answer.
    ///
    /// # Errors
    /// See [`ask_within`](Self::ask_within).
    pub fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(ReplyPort<T>) -> M,
    ) -> impl Future<Output = Result<T, AskError>> {
        self.ask_within(DEFAULT_ASK_DEADLINE, question)
    }

    /// Asks a question and waits up to `deadline` for the answer, room in the mailbox and a
    /// restart of the actor included.
    ///
    /// # Errors
    /// `Timeout`, `Crashed` (the actor ended with the question in flight), `Stopped`, `Full`,
    /// `NoReply`, and `Blocked`: the asker's supervisor waits for the asker, which it stops or
    /// starts, and would have to start the actor that is asked. After `Timeout` and `Crashed` the
    /// question may have had its effect.
    ///
    /// # Cancel safety
    /// A dropped `ask` may still be handled; its answer goes nowhere.
    pub async fn ask_within<T: Send + 'static>(
        &self,
        deadline: Duration,
        question: impl FnOnce(ReplyPort<T>) -> M,
    ) -> Result<T, AskError> {
        if self.cell().refuses_asks() {
            return Err(self.stopped());
        }
        let (cell, port) = AskCell::new();
        let life = self.life();
        let began = self.cell().env.clock.ticks_ns();
        let message = question(port);
        let asker = current::slot();
        let named = asker.as_ref().map(|_| (self.slot.name_of)(&message));
        let env = &self.cell().env;
        let mut unread = Unread(Some(&*cell));
        let answered = async {
            if let Err(refused) = self.push(self.entry(message)) {
                // The wait for room counts, and is seen.
                let outcome: Arc<dyn AskOutcome> = Arc::clone(&cell) as Arc<dyn AskOutcome>;
                let question = self.question(outcome, (began, deadline), asker.clone(), named);
                let _asked = env.asks.begin(question);
                if matches!(refused, Refused::Full(_)) && self.cannot_be_answered(asker.as_ref()) {
                    return Err(self.unanswered(Settled::Blocked, life, deadline));
                }
                let room = self.wait(refused);
                let mut room = std::pin::pin!(room);
                let in_time = poll_fn(|cx| match room.as_mut().poll(cx) {
                    Poll::Ready(done) => Poll::Ready(Ok(done)),
                    // Let in and answered since that look, its answer waits until the next one.
                    Poll::Pending => cell.poll_failed(cx).map(Err),
                });
                match in_time.await {
                    Ok(Ok(())) => {}
                    Ok(Err(Refused::Full(_))) => return Err(self.full()),
                    Ok(Err(Refused::Closed(_))) => return Err(self.stopped()),
                    Err(settled) => return Err(self.unanswered(settled, life, deadline)),
                }
            }
            let mut asked = None;
            let answer = poll_fn(|cx| {
                let polled = cell.poll(cx);
                if polled.is_pending() && asked.is_none() {
                    let outcome: Arc<dyn AskOutcome> = Arc::clone(&cell) as Arc<dyn AskOutcome>;
                    let question = self.question(outcome, (began, deadline), asker.clone(), named);
                    asked = Some(env.asks.begin(question));
                    if self.cannot_be_answered(asker.as_ref()) {
                        return Poll::Ready(Err(Settled::Blocked));
                    }
                }
                polled
            });
            answer.await.map_err(|settled| self.unanswered(settled, life, deadline))
        };
        let answer = if deadline >= SWEPT_FROM {
            answered.await
        } else {
            // In a box, so that those with longer deadlines do not carry the timer.
            match Box::pin(tokio::time::timeout(deadline, answered)).await {
                Ok(answer) => answer,
                Err(_) => Err(self.unanswered(Settled::Late, life, deadline)),
            }
        };
        if answer.is_ok() {
            unread.0 = None;
        }
        answer
    }

    fn question(
        &self,
        outcome: Arc<dyn AskOutcome>,
        (since, deadline): (u64, Duration),
        asker: Option<Arc<dyn AnySlot>>,
        message: Option<&'static str>,
    ) -> Question {
        let after = || u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX);
        let deadline = (deadline >= SWEPT_FROM).then(|| since.saturating_add(after()));
        let message = message.map_or("", crate::actor::shown_name::<M>);
        Question { outcome, deadline, asker, asked: self.any_slot(), message, since }
    }

    /// Asked once the question is in the table, where whoever ends a life looks after it.
    fn cannot_be_answered(&self, asker: Option<&Arc<dyn AnySlot>>) -> bool {
        if self.state() == SlotState::Up {
            return false;
        }
        let (Some(asker), Some(root)) = (asker, self.cell().env.root()) else { return false };
        blocked(root, asker, &self.any_slot())
    }

    fn unanswered(&self, settled: Settled, life: u64, deadline: Duration) -> AskError {
        let path = self.path().clone();
        match settled {
            Settled::NoReply => AskError::NoReply { path },
            Settled::Ended(reason) => AskError::Crashed { path, reason },
            Settled::Stopped => AskError::Stopped { path },
            Settled::Full => self.full(),
            Settled::Late => AskError::Timeout { path, after: deadline },
            Settled::Blocked => AskError::Blocked { path },
            // The port was given away and dropped: with a task of its life, or by a fault.
            Settled::Dropped => match self.cell().end_of_life(life) {
                Some(reason) => AskError::Crashed { path, reason },
                None if self.life() != life || !self.cell().is_running() => {
                    AskError::Crashed { path, reason: ExitReason::Shutdown }
                }
                None => AskError::NoReply { path },
            },
        }
    }

    // --- the actor itself ----------------------------------------------------------------------

    /// A handle that kills the life that runs now, and never a later one.
    #[must_use]
    pub fn kill_handle(&self) -> KillHandle<M> {
        KillHandle { address: self.clone(), life: self.life() }
    }

    /// Ends the life that runs now, in order, once it has handled what waits for it at this moment;
    /// its reason is `Normal`. What comes later waits for the next life, if its restart policy
    /// brings one, and else is a dead letter. A life that fails before takes the order with it.
    /// `false`: no life is up.
    ///
    /// To stop an actor for good, whatever its restart policy says, ask its supervisor
    /// ([`SupervisorRef::terminate_child`](crate::SupervisorRef::terminate_child)).
    #[must_use]
    pub fn stop(&self) -> bool {
        self.stop_after(self.depth())
    }

    /// Like [`stop`](Self::stop), and leaves what waits to the next life: only the message in
    /// flight is handled.
    #[must_use]
    pub fn stop_now(&self) -> bool {
        self.stop_after(0)
    }

    fn stop_after(&self, waiting: usize) -> bool {
        self.cell().call(Call::StopAfter(waiting))
    }

    /// Waits until the actor has ended: it has no life, and none will follow. At once, if it has.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn ended(&self) -> Ended {
        ended(self.any_slot()).await
    }

    /// A picture of the actor's state, made between two messages. `None`: it shows none.
    ///
    /// # Errors
    /// It has no life now, or does not come to it before the deadline.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn inspect(&self, deadline: Duration) -> Result<Option<Picture>, AskError> {
        crate::inspect::picture::ask(&self.any_slot(), deadline).await
    }

    /// The same actor, for those who hold actors of different types by what they accept.
    #[must_use]
    pub fn recipient<N: Send + 'static>(&self) -> Recipient<N>
    where
        M: From<N>,
    {
        self.map(M::from)
    }

    /// The same actor for senders of `N`: each message goes through `map`, on the sender's task.
    #[must_use]
    pub fn map<N: Send + 'static>(
        &self,
        map: impl Fn(N) -> M + Send + Sync + 'static,
    ) -> Recipient<N> {
        Recipient::new(self.clone(), map)
    }

    // --- inside --------------------------------------------------------------------------------

    /// A message on its way, with when and by whom it was sent if its receiver records that.
    #[inline]
    pub(crate) fn entry(&self, message: M) -> Entry<M> {
        let extra = if self.slot.is_recording() { self.sent() } else { None };
        Entry { message, extra }
    }

    #[cold]
    fn sent(&self) -> Option<Box<Extra>> {
        let at_ns = self.cell().env.clock.ticks_ns();
        let sent = Some(Sent { at_ns, from: current::path() });
        Some(Box::new(Extra { sent, ..Extra::default() }))
    }

    fn push(&self, entry: Entry<M>) -> Result<Offered, Refused<Entry<M>>> {
        self.slot.mailbox.push(entry).map(|taken| self.report(taken))
    }

    /// Waits for room as the policy says.
    async fn wait(&self, refused: Refused<Entry<M>>) -> Result<(), Refused<Entry<M>>> {
        let (entry, deadline) = match (refused, self.slot.overflow) {
            (Refused::Full(entry), Overflow::Wait(deadline)) => (entry, deadline),
            (refused, _) => return Err(refused),
        };
        let mut room = self.slot.mailbox.wait(entry);
        match tokio::time::timeout(deadline, &mut room).await {
            Ok(Ok(taken)) => {
                self.report(taken);
                Ok(())
            }
            Ok(Err(refused)) => Err(refused),
            // It may have been let in at the last moment.
            Err(_) => room.take_back().map_or(Ok(()), |entry| Err(Refused::Full(entry))),
        }
    }

    /// Waits for room for as long as it takes.
    pub(crate) async fn tell_patiently(&self, message: M) -> Result<(), TellError<M>> {
        let mut message = message;
        loop {
            match self.tell(message).await {
                Err(TellError::Full { message: back, .. }) => {
                    message = back;
                    // A mailbox that refuses at once must not make this spin.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                done => return done,
            }
        }
    }

    /// Sends what nobody is there to get back: what the mailbox does not take is a dead letter.
    pub(crate) async fn deliver(&self, entry: Entry<M>) {
        let refused = match self.push(entry) {
            Ok(_) => return,
            Err(refused) => match self.wait(refused).await {
                Ok(()) => return,
                Err(refused) => refused,
            },
        };
        let (full, mut entry) = match refused {
            Refused::Full(entry) => (true, entry),
            Refused::Closed(entry) => (false, entry),
        };
        if let Some(armed) = entry.extra.as_mut().and_then(|extra| extra.armed.take()) {
            armed.left();
            if !full {
                // The actor is gone, and its timers with it.
                self.cell().env.dispose(entry.message);
                return;
            }
        }
        self.slot.bury(entry, &DeadLetterCause::Undeliverable { full });
    }

    fn report(&self, taken: Taken<Entry<M>>) -> Offered {
        match taken {
            Taken::Queued => Offered::Queued,
            Taken::DroppedOldest(entry) => {
                self.slot.bury(entry, &DeadLetterCause::DroppedOldest);
                Offered::DroppedOldest
            }
            Taken::DroppedNewest(entry) => {
                self.slot.bury(entry, &DeadLetterCause::DroppedNewest);
                Offered::DroppedNewest
            }
        }
    }

    fn refusal(&self, refused: Refused<Entry<M>>) -> TellError<M> {
        let path = self.path().clone();
        match refused {
            Refused::Full(entry) => TellError::Full {
                path,
                capacity: self.slot.mailbox.capacity(),
                message: entry.message,
            },
            Refused::Closed(entry) => TellError::Stopped { path, message: entry.message },
        }
    }

    fn full(&self) -> AskError {
        AskError::Full { path: self.path().clone(), capacity: self.slot.mailbox.capacity() }
    }

    fn stopped(&self) -> AskError {
        AskError::Stopped { path: self.path().clone() }
    }
}

impl<M: Send + 'static> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { slot: Arc::clone(&self.slot) }
    }
}

impl<M: Send + 'static> PartialEq for Address<M> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.slot, &other.slot)
    }
}

impl<M: Send + 'static> Eq for Address<M> {}

impl<M: Send + 'static> Hash for Address<M> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.slot).hash(state);
    }
}

impl<M: Send + 'static> fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.path())
    }
}

/// An asker that goes away drops the answer that it has not taken.
struct Unread<'a, T: Send + 'static>(Option<&'a AskCell<T>>);

impl<T: Send + 'static> Drop for Unread<'_, T> {
    fn drop(&mut self) {
        if let Some(cell) = self.0 {
            cell.abandon();
        }
    }
}

/// Kills one particular life of an actor.
#[derive(Clone)]
pub struct KillHandle<M: Send + 'static> {
    address: Address<M>,
    life: u64,
}

impl<M: Send + 'static> KillHandle<M> {
    /// Kills that life. `false` when it has ended already: the life after it is left alone.
    #[must_use]
    pub fn kill(&self) -> bool {
        self.address.cell().kill_life(self.life)
    }

    /// Which life it kills.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life
    }
}

impl<M: Send + 'static> fmt::Debug for KillHandle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KillHandle({}#{})", self.address.path(), self.life)
    }
}
