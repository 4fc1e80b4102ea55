//! Into the stream.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Opened;
use crate::bus::broker::nats::headers;
use crate::bus::queue::{QueueError, Retention, SendError, Sender, SentAll};
use crate::bus::subject::Pattern;
use crate::bus::wire::WireMessage;

/// Messages that are on their way to the stream at once.
const WINDOW: usize = 256;

pub(super) struct NatsSender {
    queue: Arc<Opened>,
    /// What the stream takes. The server is silent about anything else.
    subjects: Vec<Pattern>,
}

impl NatsSender {
    pub(super) fn new(queue: Arc<Opened>) -> Self {
        let pattern = |subject: &String| Pattern::new(subject.as_str()).ok();
        let subjects = queue.options.subjects.iter().filter_map(pattern).collect();
        Self { queue, subjects }
    }

    fn elsewhere(&self, message: &WireMessage) -> Option<QueueError> {
        let matches = |pattern: &Pattern| pattern.matches_text(&message.subject);
        (!self.subjects.iter().any(matches)).then(|| QueueError::Elsewhere {
            queue: self.queue.options.name.clone(),
            subject: message.subject.clone(),
            subjects: self.queue.options.subjects.join(", "),
        })
    }

    fn outgoing(&self, message: &WireMessage, before: Option<&WireMessage>) -> PublishMessage {
        let mut publish = PublishMessage::build().payload(message.payload.clone());
        if !message.headers.is_empty() {
            publish = publish.headers(headers(message));
        }
        if !message.id.is_empty() {
            publish = publish.message_id(&message.id);
        }
        match before {
            // A message whose predecessor got lost on the way is refused: it does not overtake.
            Some(before) if self.queue.options.sole_sender && !before.id.is_empty() => {
                publish.expected_last_message_id(&before.id)
            }
            _ => publish,
        }
    }

    async fn publish(&self, messages: &[WireMessage]) -> Result<SentAll, SendError> {
        self.queue.stream().await.map_err(SendError::at_once)?;
        let (mut sent, mut done) = (0, SentAll::default());
        let mut acks = VecDeque::with_capacity(WINDOW.min(messages.len()));
        let mut trouble = None;
        for (n, message) in messages.iter().enumerate() {
            if acks.len() == WINDOW
                && let Some(ack) = acks.pop_front()
                && let Err(error) = self.acked(ack, &messages[sent], &mut sent, &mut done).await
            {
                trouble = Some(error);
                // What follows it is not known to be in order.
                acks.clear();
                break;
            }
            if let Some(elsewhere) = self.elsewhere(message) {
                trouble = Some(elsewhere);
                break;
            }
            let before = n.checked_sub(1).map(|before| &messages[before]);
            let publish = self.outgoing(message, before);
            let sending =
                self.queue.connection.context.send_publish(message.subject.clone(), publish);
            match sending.await {
                Ok(ack) => acks.push_back(ack),
                Err(error) => {
                    trouble = Some(self.error(message, &error));
                    break;
                }
            }
        }
        // The rest that is on its way counts up to the first that was refused.
        for ack in acks {
            if let Err(error) = self.acked(ack, &messages[sent], &mut sent, &mut done).await {
                trouble = Some(error);
                break;
            }
        }
        let SentAll { last, duplicates, .. } = done;
        match trouble {
            Some(source) => Err(SendError { sent, last, duplicates, source }),
            None => Ok(done),
        }
    }

    async fn acked(
        &self,
        ack: PublishAckFuture,
        message: &WireMessage,
        sent: &mut usize,
        done: &mut SentAll,
    ) -> Result<(), QueueError> {
        let ack = ack.await.map_err(|error| self.error(message, &error))?;
        *sent += 1;
        done.last = done.last.max(ack.sequence);
        done.duplicates += u64::from(ack.duplicate);
        Ok(())
    }

    fn error(&self, message: &WireMessage, error: &PublishError) -> QueueError {
        let queue = self.queue.options.name.clone();
        let text = error.to_string();
        match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => {
                QueueError::TooLarge { queue, bytes: message.size() }
            }
            PublishErrorKind::StreamNotFound
            | PublishErrorKind::TimedOut
            | PublishErrorKind::BrokenPipe
            | PublishErrorKind::MaxAckPending
            | PublishErrorKind::WrongLastMessageId
            | PublishErrorKind::WrongLastSequence => {
                self.queue.failed(self.queue.unreachable(text))
            }
            PublishErrorKind::Other => {
                let source = std::error::Error::source(error).map(ToString::to_string);
                let text = source.map_or(text.clone(), |source| format!("{text}: {source}"));
                // The first is a limit of the stream for one message, set by somebody else.
                if text.contains("message size exceeds") {
                    QueueError::TooLarge { queue, bytes: message.size() }
                } else if text.contains("exceeded") {
                    QueueError::Full { queue, detail: text }
                } else {
                    self.queue.failed(self.queue.unreachable(text))
                }
            }
        }
    }
}

impl Sender for NatsSender {
    fn send<'a>(
        &'a self,
        messages: &'a [WireMessage],
    ) -> BoxFuture<'a, Result<SentAll, SendError>> {
        async move {
            let outgoing = self.queue.options.outgoing(messages);
            let sent = match self.publish(&outgoing.messages).await {
                // It may be full of what is handled already.
                Err(error)
                    if matches!(error.source, QueueError::Full { .. })
                        && self.queue.options.retention == Retention::Work =>
                {
                    self.queue.tidy(true).await;
                    error.go_on(self.publish(&outgoing.messages[error.sent..]).await)
                }
                done => done,
            };
            outgoing.end(sent)
        }
        .boxed()
    }

    fn tail(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        async {
            let stream = self.queue.stream().await?;
            let info = stream.get_info().await;
            Ok(info.map_err(|error| self.queue.judge(error))?.state.last_sequence)
        }
        .boxed()
    }
}

impl fmt::Debug for NatsSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsSender").field("queue", &self.queue).finish_non_exhaustive()
    }
}
