//! What is the same at every try: a stream of which no state can be made.

use std::sync::Arc;

use mister_smith_supervisors::{ErrorClass, Failure};

use crate::event::{Position, RecordedEvent, StreamId, Version};

/// Why an aggregate cannot be read from its stream, until somebody mends something. Its commands
/// are answered with it at once, as [`CommandError::Unreadable`](crate::command::CommandError).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// An event cannot be decoded, or the aggregate cannot apply it.
    #[error(
        "event {stream}/{version} (position {position}, type {event_type}) cannot be applied: \
         {reason}; mend the program, or pass the event over: smith events skip {stream} {version} \
         --reason …{}", beside(*.snapshot)
    )]
    Event {
        /// The stream.
        stream: StreamId,
        /// Which of its events.
        version: Version,
        /// Its place in the log.
        position: Position,
        /// Its type.
        event_type: Arc<str>,
        /// What the decoder said, or the panic.
        reason: String,
        /// A snapshot that is of another shape, or cannot be read. It is kept.
        snapshot: Option<Version>,
    },
    /// Its first events are not there.
    #[error(
        "stream {stream} begins with version {found} where {needed} is needed: what is missing \
         was archived, and no snapshot stands for it; restore the archive{}", beside(*.snapshot)
    )]
    Missing {
        /// The stream.
        stream: StreamId,
        /// The first version that is there.
        found: Version,
        /// The one that is needed.
        needed: Version,
        /// A snapshot that is of another shape, or cannot be read. It is kept.
        snapshot: Option<Version>,
    },
}

fn beside(snapshot: Option<Version>) -> String {
    let said = |version| {
        format!(
            " (its snapshot of version {version} is kept; it is of another shape, or cannot be \
             read)"
        )
    };
    snapshot.map(said).unwrap_or_default()
}

impl Unreadable {
    pub(super) fn event(event: &RecordedEvent, reason: String) -> Self {
        Self::Event {
            stream: event.stream.clone(),
            version: event.version,
            position: event.position,
            event_type: Arc::clone(&event.event_type),
            reason,
            snapshot: None,
        }
    }

    pub(super) const fn missing(stream: StreamId, found: Version, needed: Version) -> Self {
        Self::Missing { stream, found, needed, snapshot: None }
    }

    /// There is a snapshot that is of no use.
    pub(super) fn beside_snapshot(mut self, version: Version) -> Self {
        let (Self::Event { snapshot, .. } | Self::Missing { snapshot, .. }) = &mut self;
        *snapshot = Some(version);
        self
    }

    pub(super) fn failure(self) -> Failure {
        Failure::wrap(ErrorClass::Permanent, self)
    }

    /// What is behind a failure, if it is this.
    pub(super) fn of(failure: &Failure) -> Option<&Self> {
        failure.source().and_then(|source| source.downcast_ref())
    }
}
