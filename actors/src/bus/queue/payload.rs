//! Payloads on their way into a queue and out of it: the one place where they are compressed.

use std::borrow::Cow;

use super::{QueueOptions, Receipt, Received};
use crate::bus::wire::WireMessage;
use crate::event::Timestamp;
use crate::event::compression::Encoding;

impl QueueOptions {
    /// The messages as they are put into the queue.
    pub(super) fn packed<'a>(&self, messages: &'a [WireMessage]) -> Cow<'a, [WireMessage]> {
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
