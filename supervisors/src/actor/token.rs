//! The right to be a slot's current life, and what becomes of its messages when it ends.

use std::any::Any;
use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use crate::actor::dead_letter::{DeadLetter, DeadLetterCause};
use crate::actor::mailbox::{Entry, Extra, InHand, Mailbox, Receiver};
use crate::actor::recorder::Handled;
use crate::actor::reply::Settled;
use crate::actor::slot::Slot;
use crate::error::ExitReason;

/// The right to be the slot's current life. Dropped when the life's state goes, however it ends:
/// by itself, by an error, a panic, a kill, or with its supervisor.
pub(crate) struct LifeToken<M: Send + 'static> {
    pub(crate) slot: Arc<Slot<M>>,
    pub(crate) receiver: OwnedMutexGuard<Receiver<M>>,
    pub(crate) life: u64,
}

impl<M: Send + 'static> Drop for LifeToken<M> {
    fn drop(&mut self) {
        let slot = Arc::clone(&self.slot);
        // No reason was written down: only a kill ends a life without a word.
        let reason = slot.cell.exit_of(self.life).unwrap_or(ExitReason::Killed);
        let in_hand = self.receiver.in_hand.take();
        let began = slot.cell.stats.in_hand_since_ns();
        slot.cell.life_ended(self.life, in_hand.is_some());
        if let Some(in_hand) = in_hand {
            if slot.mailbox.is_recording() {
                let now = slot.cell.env.clock.elapsed_ns();
                let (name, extra) = (in_hand.name, in_hand.extra.as_deref());
                let times = (began.unwrap_or(now), now);
                slot.cell.record(name, self.life, extra, times, Handled::of(&reason));
            }
            self.settle_in_hand(in_hand, reason.clone());
        }
        for entry in slot.mailbox.detach(&mut self.receiver) {
            slot.bury(entry, &DeadLetterCause::Stopped(reason.clone()));
        }
    }
}

impl<M: Send + 'static> LifeToken<M> {
    /// The message that its life had in hand: redelivered if the spec says so, else a dead letter.
    fn settle_in_hand(&mut self, in_hand: InHand<M>, reason: ExitReason) {
        let slot = &self.slot;
        let attempts = Extra::attempts(in_hand.extra.as_deref()) + 1;
        match in_hand.copy {
            Some(message) if attempts < slot.on_crash.max_attempts => {
                let extra = Some(Box::new(Extra { attempts, sent: None }));
                let entry = Entry { message, ask: in_hand.ask, extra };
                Mailbox::put_back(&mut self.receiver, entry);
            }
            copy => {
                if let Some(ask) = in_hand.ask {
                    ask.settle(Settled::InHand(reason.clone()));
                }
                slot.cell.env.dead_letter(DeadLetter {
                    path: slot.cell.path.clone(),
                    life: self.life,
                    message_type: in_hand.name,
                    cause: DeadLetterCause::InHand(reason),
                    attempts,
                    message: copy.map(|message| Box::new(message) as Box<dyn Any + Send>),
                });
            }
        }
    }
}
