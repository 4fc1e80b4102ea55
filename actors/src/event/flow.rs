//! Checks on messages that flow through many hands: are they one conversation, has one been seen
//! before, has one been altered on its way.
//!
//! | question | look at |
//! |---|---|
//! | does each message name a cause that is there, in its own conversation? | [`check_chain`] |
//! | is this one sent again by somebody who has overheard it? | [`ReplayWindow`] |
//! | who has changed the payload, and into what? | [`Trail`] |
//!
//! All of it is pure: times come in as arguments.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Metadata, RecordedEvent, Timestamp};

#[cfg(test)]
mod tests;

// --- conversations -------------------------------------------------------------------------------

/// A message as the chain of causes sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The message.
    pub id: Uuid,
    /// Its conversation.
    pub correlation: Option<Uuid>,
    /// What caused it.
    pub causation: Option<Uuid>,
}

impl From<&RecordedEvent> for Link {
    fn from(event: &RecordedEvent) -> Self {
        let meta = Metadata::from_bytes(&event.meta);
        Self {
            id: *event.id.as_uuid(),
            correlation: meta.correlation_id,
            causation: meta.causation_id,
        }
    }
}

/// What is wrong with a message's place in its conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainFault {
    /// Its cause is none of the messages before it.
    #[error("message {id} names {cause} as its cause, which is not among the messages before it")]
    UnknownCause {
        /// The message.
        id: Uuid,
        /// What it names.
        cause: Uuid,
    },
    /// Its cause belongs to another conversation.
    #[error("message {id} is of conversation {is:?}, and its cause {cause} of {wanted}")]
    OtherConversation {
        /// The message.
        id: Uuid,
        /// Its cause.
        cause: Uuid,
        /// Its conversation.
        is: Option<Uuid>,
        /// The cause's.
        wanted: Uuid,
    },
}

/// Checks messages in the order in which they came: each cause is a message before it, and of the
/// same conversation. A message without a cause begins one; a conversation without an id has the
/// id of its first message.
#[must_use]
pub fn check_chain(messages: impl IntoIterator<Item = Link>) -> Vec<ChainFault> {
    let mut conversations: IndexMap<Uuid, Uuid> = IndexMap::new();
    let mut faults = Vec::new();
    for Link { id, correlation, causation } in messages {
        let conversation = match causation {
            None => correlation.unwrap_or(id),
            Some(cause) => match conversations.get(&cause) {
                None => {
                    faults.push(ChainFault::UnknownCause { id, cause });
                    correlation.unwrap_or(id)
                }
                Some(&wanted) => {
                    if correlation != Some(wanted) {
                        let is = correlation;
                        faults.push(ChainFault::OtherConversation { id, cause, is, wanted });
                    }
                    wanted
                }
            },
        };
        conversations.insert(id, conversation);
    }
    faults
}

// --- replays -------------------------------------------------------------------------------------

/// What a [`ReplayWindow`] says of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It was not seen before.
    Fresh,
    /// It was.
    Repeat,
    /// It is older than the window remembers: nobody can say whether it was seen.
    TooOld,
    /// It comes from the future, by more than clocks differ.
    TooNew,
}

/// Tells messages that are sent again from those that are new, with bounded memory.
///
/// It never takes a repeat for a new one, as long as its time was not altered: a message's id and
/// time have to be under its signature. When more messages come in a window than it may remember,
/// it forgets the oldest and refuses what is as old: then a message may be refused that was never
/// seen.
#[derive(Debug)]
pub struct ReplayWindow {
    width: Duration,
    skew: Duration,
    capacity: usize,
    seen: IndexMap<Uuid, Timestamp>,
    by_time: BTreeSet<(Timestamp, Uuid)>,
    /// What is not newer than this has been forgotten.
    floor: Option<Timestamp>,
}

impl ReplayWindow {
    /// A window of a width, for clocks that differ by at most `skew`, which remembers at most so
    /// many messages (some 100 bytes each).
    #[must_use]
    pub fn new(width: Duration, skew: Duration, capacity: usize) -> Self {
        Self {
            width,
            skew,
            capacity: capacity.max(1),
            seen: IndexMap::new(),
            by_time: BTreeSet::new(),
            floor: None,
        }
    }

    /// Looks at a message of a time, and remembers it if it is fresh.
    pub fn check(&mut self, id: Uuid, at: Timestamp, now: Timestamp) -> Freshness {
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let oldest = now.as_micros().saturating_sub(micros(self.width));
        if at.as_micros() > now.as_micros().saturating_add(micros(self.skew)) {
            return Freshness::TooNew;
        }
        while let Some(&(first, gone)) = self.by_time.first()
            && first.as_micros() < oldest
        {
            self.by_time.pop_first();
            self.seen.swap_remove(&gone);
        }
        if self.seen.contains_key(&id) {
            return Freshness::Repeat;
        }
        if at.as_micros() < oldest || self.floor.is_some_and(|floor| at <= floor) {
            return Freshness::TooOld;
        }
        self.seen.insert(id, at);
        self.by_time.insert((at, id));
        if self.seen.len() > self.capacity
            && let Some((first, gone)) = self.by_time.pop_first()
        {
            self.seen.swap_remove(&gone);
            self.floor = self.floor.max(Some(first));
        }
        Freshness::Fresh
    }

    /// Forgets a message, as if it had not come.
    pub fn forget(&mut self, id: Uuid) {
        if let Some(at) = self.seen.swap_remove(&id) {
            self.by_time.remove(&(at, id));
        }
    }

    /// How many messages it remembers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether it remembers none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }
}

// --- transformations -----------------------------------------------------------------------------

/// A SHA-256 digest, written as hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Checksum([u8; 32]);

impl Checksum {
    /// Of bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checksum({self})")
    }
}

impl From<Checksum> for String {
    fn from(checksum: Checksum) -> Self {
        checksum.to_string()
    }
}

impl TryFrom<String> for Checksum {
    type Error = TrailFault;

    fn try_from(text: String) -> Result<Self, TrailFault> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(TrailFault::Checksum { text });
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16)
                .map_err(|_| TrailFault::Checksum { text: text.clone() })?;
        }
        Ok(Self(bytes))
    }
}

/// What was done to a payload, step by step.
///
/// Each step holds the checksum of what came out of it and a seal over everything before it, so a
/// step that is altered, left out or moved shows. It is no signature: who can write the whole
/// trail can write another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trail {
    origin: Checksum,
    steps: Vec<TrailStep>,
}

/// One step of a [`Trail`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TrailStep {
    /// Who did something.
    pub name: String,
    /// When.
    pub at: Timestamp,
    /// The payload after it.
    pub output: Checksum,
    /// Over this step and all before it.
    seal: Checksum,
}

/// What is wrong with a trail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrailFault {
    /// A step is not as it was written, or not in its place.
    #[error("step {number} ({name}) of the trail is not as it was written, or not in its place")]
    Step {
        /// Which, from 1.
        number: usize,
        /// Its name.
        name: String,
    },
    /// The payload is not what came out of the last step.
    #[error("the payload is {is}, and {wanted} came out of the last step")]
    Payload {
        /// What it is.
        is: Checksum,
        /// What it should be.
        wanted: Checksum,
    },
    /// A text is no checksum.
    #[error("{text:?} is no checksum; it has 64 hexadecimal digits")]
    Checksum {
        /// The text.
        text: String,
    },
}

impl Trail {
    /// The trail of a payload to which nothing was done yet.
    #[must_use]
    pub fn of(payload: &[u8]) -> Self {
        Self { origin: Checksum::of(payload), steps: Vec::new() }
    }

    /// Notes what somebody made of the payload.
    pub fn step(&mut self, name: impl Into<String>, at: Timestamp, output: &[u8]) {
        let (name, output) = (name.into(), Checksum::of(output));
        let seal = seal(self.last_seal(), &name, at, output);
        self.steps.push(TrailStep { name, at, output, seal });
    }

    fn last_seal(&self) -> Checksum {
        self.steps.last().map_or(self.origin, |step| step.seal)
    }

    /// The steps, the first one first.
    #[must_use]
    pub fn steps(&self) -> &[TrailStep] {
        &self.steps
    }

    /// The checksum of the payload before the first step.
    #[must_use]
    pub fn origin(&self) -> Checksum {
        self.origin
    }

    /// Checks the trail, and that it ends with this payload.
    ///
    /// # Errors
    /// The first step that is wrong, or the payload.
    pub fn verify(&self, payload: &[u8]) -> Result<(), TrailFault> {
        let mut before = self.origin;
        for (at, step) in self.steps.iter().enumerate() {
            if step.seal != seal(before, &step.name, step.at, step.output) {
                return Err(TrailFault::Step { number: at + 1, name: step.name.clone() });
            }
            before = step.seal;
        }
        let wanted = self.steps.last().map_or(self.origin, |step| step.output);
        let is = Checksum::of(payload);
        match is == wanted {
            true => Ok(()),
            false => Err(TrailFault::Payload { is, wanted }),
        }
    }
}

fn seal(before: Checksum, name: &str, at: Timestamp, output: Checksum) -> Checksum {
    let mut hash = Sha256::new();
    hash.update(before.0);
    // Its length keeps the name apart from what follows it.
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name);
    hash.update(at.as_micros().to_le_bytes());
    hash.update(output.0);
    Checksum(hash.finalize().into())
}
