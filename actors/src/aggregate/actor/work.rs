//! A command on its way through an aggregate, and what it led to.

use crate::aggregate::Aggregate;
use crate::command::{CommandError, Executed, Request};
use crate::event::{EventId, NewEvent, Version};
use crate::store::{Append, Appended, ExpectedVersion, IdempotencyKey};

/// The answer to a command.
pub(super) type Answer = Result<Executed, CommandError>;

/// A command, and what was tried.
pub(super) struct Work<A: Aggregate> {
    /// It, and who waits.
    pub(super) request: Request<A>,
    /// How often it was decided and not written.
    pub(super) failures: u32,
    /// Appends of it of which nobody knows whether they are in the log, or will be.
    pub(super) doubtful: Vec<Sent>,
    /// What to answer when it must not be tried again.
    pub(super) error: Option<CommandError>,
}

impl<A: Aggregate> Work<A> {
    pub(super) const fn new(request: Request<A>) -> Self {
        Self { request, failures: 0, doubtful: Vec::new(), error: None }
    }
}

/// What a command led to.
pub(super) enum What {
    /// Events, to be appended.
    Append(Append),
    /// Events that are with the committer.
    Sent(Sent),
    /// Nothing: it was refused, there was nothing to do, or it cannot be written.
    Verdict(Verdict),
}

/// What is kept of an append that was handed over: enough to find it in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    /// The version that it expected.
    pub(super) expected: Version,
    /// The id of its first event.
    pub(super) first: EventId,
    /// How many events it has.
    pub(super) events: u64,
    /// Payload and metadata.
    pub(super) bytes: usize,
}

impl Sent {
    pub(super) fn of(append: &Append) -> Self {
        let expected = match append.expected {
            ExpectedVersion::Exact(version) => version,
            // An aggregate always knows what it was decided on.
            _ => Version::ZERO,
        };
        Self {
            expected,
            first: append.events.first().map_or_else(EventId::default, |event| event.id),
            events: append.events.len() as u64,
            bytes: append.events.iter().map(NewEvent::size).sum(),
        }
    }
}

/// An answer without events, and what has to be known before it is given.
pub(super) struct Verdict {
    pub(super) answer: Answer,
    /// The log may hold events of another node that were there before the command: the answer
    /// holds only if the stream's version, read after the command came, is the one that it was
    /// decided on. An append that succeeds there shows the same.
    pub(super) unproven: bool,
    /// It may be a repeat of a command that did lead to events.
    pub(super) lookup: Option<Lookup>,
}

impl Verdict {
    pub(super) const fn is_ready(&self) -> bool {
        !self.unproven && self.lookup.is_none()
    }
}

/// A key to be looked up, and what its command was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lookup {
    pub(super) key: IdempotencyKey,
    pub(super) fingerprint: Option<u64>,
}

/// A command that waits for its answer.
pub(super) struct Item<A: Aggregate> {
    pub(super) work: Work<A>,
    pub(super) what: What,
}

impl<A: Aggregate> Item<A> {
    pub(super) const fn append(&self) -> Option<&Append> {
        match &self.what {
            What::Append(append) => Some(append),
            What::Sent(_) | What::Verdict(_) => None,
        }
    }
}

/// What a caller gets for one append.
pub(super) fn executed(appended: Appended) -> Executed {
    Executed {
        stream: appended.stream,
        events: appended.last_version.get() - appended.first_version.get() + 1,
        version: appended.last_version,
        position: Some(appended.last_position),
        duplicate: appended.duplicate,
    }
}

/// Whether a key names two different commands, as far as their senders have said what they are.
pub(super) fn differ(first: Option<u64>, second: Option<u64>) -> bool {
    matches!((first, second), (Some(first), Some(second)) if first != second)
}
