//! Messages on their way into a queue and out of it: the one place where they are checked and
//! compressed.

use std::borrow::Cow;

use super::{QueueError, QueueOptions, Receipt, Received, SendError, SentAll};
use crate::bus::wire::WireMessage;
use crate::event::Timestamp;
use crate::event::compression::Encoding;

/// Messages as they are put into a queue, up to the first that cannot be.
pub(super) struct Outgoing<'a> {
    pub(super) messages: Cow<'a, [WireMessage]>,
    refused: Option<QueueError>,
}

impl Outgoing<'_> {
    /// The result for all of them, once those that can be sent were.
    pub(super) fn end(self, sent: Result<SentAll, SendError>) -> Result<SentAll, SendError> {
        match (sent, self.refused) {
            (Ok(SentAll { last, duplicates }), Some(source)) => {
                Err(SendError { sent: self.messages.len(), last, duplicates, source })
            }
            (sent, _) => sent,
        }
    }
}

impl QueueOptions {
    /// Checks messages, and makes them as they are put into the queue.
    pub(super) fn outgoing<'a>(&self, messages: &'a [WireMessage]) -> Outgoing<'a> {
        let queue = || self.name.clone();
        let refusal = |message: &WireMessage| match (message.check(), message.size()) {
            (Err(source), _) => Some(QueueError::Message { queue: queue(), source }),
            (_, bytes) if bytes as u64 > self.max_bytes => {
                Some(QueueError::TooLarge { queue: queue(), bytes })
            }
            _ => None,
        };
        let mut refused = None;
        let good = messages.iter().position(|message| {
            refused = refusal(message);
            refused.is_some()
        });
        let messages = &messages[..good.unwrap_or(messages.len())];
        Outgoing { messages: self.packed(messages), refused }
    }

    fn packed<'a>(&self, messages: &'a [WireMessage]) -> Cow<'a, [WireMessage]> {
        let compression = &self.compression;
        let large = |message: &WireMessage| message.payload.len() >= compression.threshold;
        if compression.encoding == Encoding::Identity || !messages.iter().any(large) {
            return Cow::Borrowed(messages);
        }
        messages.iter().map(|message| message.clone().compress(compression)).collect()
    }

    /// A message out of the queue, as it was sent.
    pub(super) fn unpacked(
        &self,
        message: WireMessage,
        delivered: u64,
        at: Option<Timestamp>,
        receipt: Receipt,
    ) -> Received {
        let (message, unreadable) = match message.encoding() {
            // What says nothing of compression is not touched, whatever its size.
            Ok(Encoding::Identity) => (message, None),
            Ok(_) => match message.clone().decompress(self.read_limit) {
                Ok(plain) => (plain, None),
                Err(error) => (message, Some(error)),
            },
            Err(error) => (message, Some(error)),
        };
        Received { message, delivered, at, receipt, unreadable }
    }
}
