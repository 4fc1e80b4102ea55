//! A message in a handler's hands, wherever it came from.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bus::Message;
use crate::event::RecordedEvent;

/// A message in a handler's hands.
///
/// Bus, queues and the log hand over the same: the message with all that its sender said about it,
/// and what is known of this try.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Delivery {
    /// The message, shared with all others who receive it.
    pub message: Arc<Message>,
    /// Who handles it: the name of a subscription, a processor, or a consumer.
    pub handler: Arc<str>,
    /// Which try this is; the first is 1. Tries that ended with their node are counted where the
    /// source counts them, as brokers do.
    pub attempt: u32,
    /// An earlier try, here or elsewhere, may have had its effect.
    pub redelivered: bool,
    /// Where it came from.
    pub source: Source,
}

/// Where a message came from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Source {
    /// This node's bus, in memory.
    Bus,
    /// A queue.
    Queue {
        /// The id under which it was sent, or the queue's own name for it if it came with none.
        id: Arc<str>,
    },
    /// The log.
    Log {
        /// The event as it is there.
        event: Arc<RecordedEvent>,
    },
}

impl Delivery {
    /// Names what this handler does about this message, for ever: the same at every try, on every
    /// node. What an inbox, an idempotent service, or a command is given to tell a repeat by.
    #[must_use]
    pub fn key(&self) -> String {
        match &self.source {
            Source::Log { event } => format!("{}/{}", self.handler, event.position),
            Source::Bus | Source::Queue { .. } => format!("{}/{}", self.handler, self.message.id()),
        }
    }

    /// What the sender said besides: trace context, tenant, anything.
    #[must_use]
    pub fn headers(&self) -> &BTreeMap<String, String> {
        &self.message.metadata().headers
    }

    /// The event as it is in the log, if it came from there.
    #[must_use]
    pub fn recorded(&self) -> Option<&RecordedEvent> {
        match &self.source {
            Source::Log { event } => Some(event),
            Source::Bus | Source::Queue { .. } => None,
        }
    }
}
