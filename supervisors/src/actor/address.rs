//! The address of an actor: what everybody else holds.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::actor::current;
use crate::actor::dead_letter::DeadLetterCause;
use crate::actor::mailbox::{Entry, Extra, Overflow, Refused, Taken};
use crate::actor::recorder::Sent;
use crate::actor::reply::{Answer, AskCell, AskOutcome, ReplyPort, Settled};
use crate::actor::slot::{Slot, SlotState};
use crate::actor::waits::Waiting;
use crate::error::{AskError, ExitReason, TellError};
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
/// Cheap to clone; needs no look-up.
pub struct Address<M: Send + 'static> {
    slot: Arc<Slot<M>>,
}

impl<M: Send + 'static> Address<M> {
    pub(crate) fn new(slot: Arc<Slot<M>>) -> Self {
        Self { slot }
    }

    /// Where the actor stands in the tree.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.slot.cell.path
    }

    /// What its slot is doing.
    #[must_use]
    pub fn state(&self) -> SlotState {
        self.slot.cell.state()
    }

    /// The number of its current life, or of the last one.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.slot.cell.life()
    }

    /// Messages that wait.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.slot.mailbox.depth()
    }

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
        match self.push(self.entry(message, None)) {
            Ok(()) => Ok(()),
            Err(refused) => self.wait(refused).await.map_err(|refused| self.refusal(refused)),
        }
    }

    /// Sends a message if there is room for it now.
    ///
    /// # Errors
    /// The message comes back when the mailbox is full or the actor has stopped for good.
    pub fn try_tell(&self, message: M) -> Result<(), TellError<M>> {
        self.push(self.entry(message, None)).map_err(|refused| self.refusal(refused))
    }

    /// Like [`try_tell`](Self::try_tell), and says what the overflow policy did.
    ///
    /// # Errors
    /// The message comes back when the mailbox is full or the actor has stopped for good.
    pub fn offer(&self, message: M) -> Result<Offered, TellError<M>> {
        match self.slot.mailbox.push(self.entry(message, None)) {
            Ok(taken) => Ok(self.report(taken)),
            Err(refused) => Err(self.refusal(refused)),
        }
    }

    /// Asks a question and waits up to 5 s for the answer.
    ///
    /// # Errors
    /// See [`ask_within`](Self::ask_within).
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(ReplyPort<T>) -> M,
    ) -> Result<T, AskError> {
        self.ask_within(DEFAULT_ASK_DEADLINE, question).await
    }

    /// Asks a question and waits up to `deadline` for the answer, room in the mailbox and a
    /// restart of the actor included.
    ///
    /// # Errors
    /// `Timeout`, `Crashed` (the actor ended with the question in hand), `Stopped`, `Full`,
    /// `NoReply`. After `Timeout` and `Crashed` the question may have had its effect.
    ///
    /// # Cancel safety
    /// A dropped `ask` may still be handled; its answer goes nowhere.
    pub async fn ask_within<T: Send + 'static>(
        &self,
        deadline: Duration,
        question: impl FnOnce(ReplyPort<T>) -> M,
    ) -> Result<T, AskError> {
        let (cell, port) = AskCell::new();
        let message = question(port);
        // An actor that asks says so in its slot, unless it is answered at once.
        let asker = current::is_an_actor().then(|| (self.slot.name_of)(&message));
        let entry = self.entry(message, Some(Arc::clone(&cell) as Arc<dyn AskOutcome>));
        let answered = async {
            if let Err(refused) = self.push(entry) {
                self.wait(refused).await.map_err(|refused| match refused {
                    Refused::Full(_) => self.full(),
                    Refused::Closed(_) => self.stopped(),
                })?;
            }
            match poll_fn(|cx| cell.poll(cx)).await {
                Answer::Reply(answer) => Ok(answer),
                Answer::None(settled) => Err(self.unanswered(settled)),
            }
        };
        let begin_waiting = || {
            let message = asker?;
            Some(Waiting::begin(current::slot()?, self.path().clone(), message))
        };
        within(deadline, answered, begin_waiting).await.unwrap_or_else(|| {
            Err(AskError::Timeout { path: self.path().clone(), after: deadline })
        })
    }

    /// A handle that kills the life that runs now, and never a later one.
    #[must_use]
    pub fn kill_handle(&self) -> KillHandle<M> {
        KillHandle { address: self.clone(), life: self.life() }
    }

    /// A message on its way, with when and by whom it was sent if its receiver records that.
    #[inline]
    fn entry(&self, message: M, ask: Option<Arc<dyn AskOutcome>>) -> Entry<M> {
        let extra = if self.slot.mailbox.is_recording() { self.sent() } else { None };
        Entry { message, ask, extra }
    }

    #[cold]
    fn sent(&self) -> Option<Box<Extra>> {
        let at_ns = self.slot.cell.env.clock.elapsed_ns();
        let sent = Some(Sent { at_ns, from: current::path() });
        Some(Box::new(Extra { attempts: 0, sent }))
    }

    fn push(&self, entry: Entry<M>) -> Result<(), Refused<M>> {
        self.slot.mailbox.push(entry).map(|taken| {
            self.report(taken);
        })
    }

    /// Waits for room as the policy says.
    async fn wait(&self, refused: Refused<M>) -> Result<(), Refused<M>> {
        let (entry, deadline) = match (refused, self.slot.mailbox.overflow()) {
            (Refused::Full(entry), Overflow::Wait(deadline)) => (entry, deadline),
            (refused, _) => return Err(refused),
        };
        // The entry is kept out here, so that it can be handed back when the time runs out.
        let mut waiting = Some(entry);
        let pushed =
            tokio::time::timeout(deadline, self.slot.mailbox.push_when_room(&mut waiting)).await;
        match (pushed, waiting) {
            (Ok(result), _) => result.map(|taken| {
                self.report(taken);
            }),
            (Err(_), Some(entry)) => Err(Refused::Full(entry)),
            (Err(_), None) => Ok(()),
        }
    }

    fn report(&self, taken: Taken<M>) -> Offered {
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

    fn refusal(&self, refused: Refused<M>) -> TellError<M> {
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

    fn unanswered(&self, settled: Settled) -> AskError {
        let path = self.path().clone();
        match settled {
            Settled::InHand(reason) => AskError::Crashed { path, reason },
            Settled::Unhandled { stopped: true } => AskError::Stopped { path },
            Settled::Unhandled { stopped: false } => self.full(),
            // The port was kept and then dropped: with its life, or by a fault of the actor.
            Settled::Handled { life } => match self.slot.cell.end_of_life(life) {
                Some(reason) => AskError::Crashed { path, reason },
                None if self.life() != life || self.slot.cell.current().is_none() => {
                    AskError::Crashed { path, reason: ExitReason::Shutdown }
                }
                None => AskError::NoReply { path },
            },
        }
    }
}

impl<M: Send + 'static> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { slot: Arc::clone(&self.slot) }
    }
}

impl<M: Send + 'static> fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.path())
    }
}

/// Waits for a future, at most this long. `None` when the time ran out.
///
/// Most answers are there when the asker is polled a second time, and a timer costs as much as the
/// answer. So the first poll only steps back in line, behind the actor that it has woken, and the
/// second one sets the timer. That is also when `begin_waiting` is called; what it returns is held
/// until the answer is there.
async fn within<F: Future, W>(
    deadline: Duration,
    future: F,
    begin_waiting: impl FnOnce() -> W,
) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut stepped_back = false;
    let early = poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if stepped_back => Poll::Ready(None),
        Poll::Pending => {
            stepped_back = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
    match early {
        Some(output) => Some(output),
        None => {
            let _waiting = begin_waiting();
            tokio::time::timeout(deadline, future).await.ok()
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
        self.address.slot.cell.kill_life(self.life)
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
