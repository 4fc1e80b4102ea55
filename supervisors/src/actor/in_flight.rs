//! The right to be a slot's current life, and what becomes of its messages when it ends.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::actor::dead_letter::{DeadLetter, DeadLetterCause};
use crate::actor::mailbox::Receiver;
use crate::actor::slot::{Entry, Extra, Slot};
use crate::error::ExitReason;
use crate::inspect::recorder::Handled;

/// Everything about a message in flight but the message: its handler owns that.
pub(crate) struct InFlight<M> {
    pub(crate) copy: Option<M>,
    pub(crate) extra: Option<Box<Extra>>,
    pub(crate) name: &'static str,
}

/// The right to be the slot's current life. Dropped when the life's state goes, however it ends:
/// by itself, by an error, a panic, a kill, or with its runtime.
pub(crate) struct LifeToken<M: Send + 'static> {
    pub(crate) slot: Arc<Slot<M>>,
    pub(crate) receiver: Receiver<Entry<M>>,
    pub(crate) life: u64,
    /// What a crash would lose.
    pub(crate) in_flight: Option<InFlight<M>>,
    aside: Option<Box<Aside<M>>>,
}

/// What few actors do with their messages: the others pay a pointer for it.
struct Aside<M> {
    /// Taken in the same handler besides (`Context::next_waiting`), the oldest first.
    batch: Vec<InFlight<M>>,
    /// Put aside by the actor: back in front when it says so, or when its life ends.
    stash: VecDeque<Entry<M>>,
    /// The life ends once it has handled so many messages.
    stop_after: Option<usize>,
}

impl<M> Default for Aside<M> {
    fn default() -> Self {
        Self { batch: Vec::new(), stash: VecDeque::new(), stop_after: None }
    }
}

impl<M: Send + 'static> LifeToken<M> {
    pub(crate) fn new(slot: Arc<Slot<M>>, receiver: Receiver<Entry<M>>, life: u64) -> Self {
        Self { slot, receiver, life, in_flight: None, aside: None }
    }

    /// Messages that the handler took besides the one it was given.
    pub(crate) fn batch(&mut self) -> &mut Vec<InFlight<M>> {
        &mut self.aside.get_or_insert_default().batch
    }

    /// Messages that were put aside.
    pub(crate) fn stash(&mut self) -> &mut VecDeque<Entry<M>> {
        &mut self.aside.get_or_insert_default().stash
    }

    /// The handler is done with all that it took. `true`: that was the last the life was to handle.
    #[inline]
    pub(crate) fn handled_batch(&mut self) -> bool {
        let Some(aside) = &mut self.aside else { return false };
        let taken = 1 + aside.batch.len();
        aside.batch.clear();
        let Some(left) = &mut aside.stop_after else { return false };
        *left = left.saturating_sub(taken);
        *left == 0
    }

    /// The life ends once it has handled so many messages, or fewer if it was told so before.
    /// `true`: there are none.
    pub(crate) fn stop_after(&mut self, messages: usize) -> bool {
        let left = &mut self.aside.get_or_insert_default().stop_after;
        let least = left.map_or(messages, |left| left.min(messages));
        *left = Some(least);
        least == 0
    }

    /// Whether the life ends with what waits.
    pub(crate) fn stops_when_empty(&self) -> bool {
        self.aside.as_ref().is_some_and(|aside| aside.stop_after.is_some())
    }

    /// Puts messages in front of what waits.
    pub(crate) fn put_in_front(&mut self, entries: VecDeque<Entry<M>>) {
        if let Some(left) = self.aside.as_mut().and_then(|aside| aside.stop_after.as_mut()) {
            *left += entries.len();
        }
        self.slot.mailbox.put_back(&mut self.receiver, entries.into_iter());
    }

    /// Puts a message aside, as often tried as the one in hand: mostly it is that one.
    pub(crate) fn put_aside(&mut self, message: M) {
        let in_hand = self.in_flight.as_ref().and_then(|in_flight| in_flight.extra.as_deref());
        let attempts = Extra::attempts(in_hand);
        let extra = (attempts > 0).then(|| Box::new(Extra { attempts, ..Extra::default() }));
        self.stash().push_back(Entry { message, extra });
    }

    /// What was put aside goes back in front of what waits, in its order.
    pub(crate) fn unstash(&mut self) {
        if let Some(aside) = &mut self.aside {
            let entries = std::mem::take(&mut aside.stash);
            self.put_in_front(entries);
        }
    }
}

impl<M: Send + 'static> Drop for LifeToken<M> {
    fn drop(&mut self) {
        let slot = Arc::clone(&self.slot);
        // No reason was written down: only a kill ends a life without a word.
        let reason = slot.cell.exit_of(self.life).unwrap_or(ExitReason::Killed);
        let first = self.in_flight.take();
        slot.cell.life_ended(self.life, first.is_some());
        self.unstash();
        let mut again = Vec::new();
        let batch = self.aside.take().map(|aside| aside.batch).unwrap_or_default();
        for in_flight in first.into_iter().chain(batch) {
            again.extend(settle(&slot, self.life, in_flight, &reason));
        }
        if !again.is_empty() {
            slot.mailbox.put_back(&mut self.receiver, again.into_iter());
        }
        let left_over = slot.mailbox.detach(&mut self.receiver);
        slot.bury_elsewhere(left_over, &DeadLetterCause::Stopped(reason));
        slot.give_back(std::mem::take(&mut self.receiver));
    }
}

/// The message that its life had in flight: handed to the next life if the spec says so, else a
/// dead letter.
fn settle<M: Send + 'static>(
    slot: &Arc<Slot<M>>,
    life: u64,
    in_flight: InFlight<M>,
    reason: &ExitReason,
) -> Option<Entry<M>> {
    if slot.is_recording() {
        let now = slot.cell.env.clock.ticks_ns();
        let times = (slot.cell.stats.began_ns().unwrap_or(now), now);
        let extra = in_flight.extra.as_deref();
        slot.cell.record(in_flight.name, life, extra, times, Handled::of(reason));
    }
    let attempts = Extra::attempts(in_flight.extra.as_deref()) + 1;
    match in_flight.copy {
        Some(message) if attempts < slot.on_crash.max_attempts => {
            Some(Entry { message, extra: Some(Box::new(Extra { attempts, ..Extra::default() })) })
        }
        copy => {
            let letter = DeadLetter {
                path: slot.cell.path.clone(),
                life,
                message_type: in_flight.name,
                cause: DeadLetterCause::InHand(reason.clone()),
                attempts,
                message: copy.map(|message| Box::new(message) as Box<dyn Any + Send>),
            };
            slot.cell.env.dead_letter(letter);
            None
        }
    }
}
