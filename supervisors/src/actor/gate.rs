//! The gate: the one word that a life looks at between any two messages.
//!
//! It holds the number of the current life and what is asked of it. A life that finds anything but
//! its own number with nothing beside it turns aside, so a stop, a kill, a call and a hold all
//! cost the same: one load per message. A life whose number is not there any more (it was given up
//! as stuck) reads every word as a kill, so it can never handle a message beside its successor.

use crate::sync::{AtomicU64, Ordering};

const STOP: u64 = 1;
const KILL: u64 = 2;
const CALL: u64 = 4;
const HOLD: u64 = 8;
const BITS: u32 = 8;

/// See the module's page.
pub(crate) struct Gate(AtomicU64);

/// What a life must do before its next message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// Take the next message.
    Go,
    /// Answer what it was asked beside the mailbox.
    Call,
    /// Take no message.
    Hold,
    /// End in order.
    Stop,
    /// End at once.
    Kill,
}

impl Gate {
    /// A gate before the first life.
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The number of the current life, or of the last one.
    pub(crate) fn life(&self) -> u64 {
        self.0.load(Ordering::Acquire) >> BITS
    }

    /// Opens the gate for the next life and returns its number. Only a hold stays.
    pub(crate) fn next_life(&self) -> u64 {
        let next = |word: u64| (((word >> BITS) + 1) << BITS) | (word & HOLD);
        (self.change(|word| Some(next(word))).unwrap_or(0) >> BITS) + 1
    }

    /// What life `life` must do now.
    #[inline]
    pub(crate) fn sign(&self, life: u64) -> Sign {
        let word = self.0.load(Ordering::Acquire);
        if word == life << BITS { Sign::Go } else { Self::read(word, life) }
    }

    fn read(word: u64, life: u64) -> Sign {
        if word >> BITS != life || word & KILL != 0 {
            Sign::Kill
        } else if word & STOP != 0 {
            Sign::Stop
        } else if word & CALL != 0 {
            Sign::Call
        } else {
            Sign::Hold
        }
    }

    /// Whether life `life` must end at once.
    #[inline]
    pub(crate) fn is_killed(&self, life: u64) -> bool {
        let word = self.0.load(Ordering::Acquire);
        word >> BITS != life || word & KILL != 0
    }

    /// Whether life `life` was told to end, in order or at once.
    pub(crate) fn is_ending(&self, life: u64) -> bool {
        matches!(self.sign(life), Sign::Stop | Sign::Kill)
    }

    /// Asks life `life` to end in order. `false`: another life is there.
    pub(crate) fn stop(&self, life: u64) -> bool {
        self.set(life, STOP)
    }

    /// Asks life `life` to end at once. `false`: another life is there.
    pub(crate) fn kill(&self, life: u64) -> bool {
        self.set(life, KILL)
    }

    fn set(&self, life: u64, bit: u64) -> bool {
        self.change(|word| (word >> BITS == life).then_some(word | bit)).is_some()
    }

    /// Something waits to be answered beside the mailbox.
    pub(crate) fn call(&self) {
        self.change(|word| Some(word | CALL));
    }

    /// The life is about to look at what waits. What comes after this sets the sign again.
    pub(crate) fn take_call(&self) {
        self.change(|word| Some(word & !CALL));
    }

    /// Holds the messages back, or lets them through.
    pub(crate) fn hold(&self, held: bool) {
        self.change(|word| Some(if held { word | HOLD } else { word & !HOLD }));
    }

    /// Whether messages are held back.
    pub(crate) fn is_held(&self) -> bool {
        self.0.load(Ordering::Acquire) & HOLD != 0
    }

    /// Changes the word and returns what it was.
    fn change(&self, to: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        let mut word = self.0.load(Ordering::Acquire);
        loop {
            let next = to(word)?;
            match self.0.compare_exchange(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(before) => return Some(before),
                Err(now) => word = now,
            }
        }
    }
}
