//! Payloads on their way into a queue and out of it: the one place where they are compressed.

use std::borrow::Cow;

use super::{QueueOptions, Receipt, Received};
use crate::bus::wire::WireMessage;
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
        receipt: Receipt,
    ) -> Received {
        let plain = match message.encoding() {
            // What says nothing of compression is not touched, whatever its size.
            Ok(Encoding::Identity) => return Received::new(message, delivered, receipt),
            Ok(_) => message.clone().decompress(self.read_limit),
            Err(error) => Err(error),
        };
        match plain {
            Ok(plain) => Received::new(plain, delivered, receipt),
            Err(error) => {
                let received = Received::new(message, delivered, receipt);
                Received { unreadable: Some(error), ..received }
            }
        }
    }
}

impl Received {
    fn new(message: WireMessage, delivered: u64, receipt: Receipt) -> Self {
        Self { message, delivered, receipt, unreadable: None }
    }
}
