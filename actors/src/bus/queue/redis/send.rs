//! Into the stream.

use std::fmt;
use std::sync::Arc;

use fred::types::Value;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};

use super::{Opened, millis, scripts};
use crate::bus::queue::{QueueError, Retention, SendError, Sender, SentAll};
use crate::bus::wire::WireMessage;

/// Messages that are on their way at once.
const WINDOW: usize = 256;

pub(super) struct RedisSender(Arc<Opened>);

impl RedisSender {
    pub(super) const fn new(queue: Arc<Opened>) -> Self {
        Self(queue)
    }

    async fn put(
        &self,
        message: &WireMessage,
        before: Option<&WireMessage>,
    ) -> Result<(u64, bool), QueueError> {
        let options = &self.0.options;
        let headers = serde_json::to_string(&message.headers).unwrap_or_default();
        let most = i64::try_from(options.max_messages).unwrap_or(i64::MAX);
        let notes = vec![
            self.0.key("count"),
            self.0.key("last"),
            self.0.key(&format!("id:{}", message.id)),
        ];
        // A message whose predecessor got lost on the way is refused: it does not overtake.
        let before = before.filter(|_| options.sole_sender).map_or("", |before| &before.id);
        let args: Vec<Value> = vec![
            most.into(),
            millis(options.dedupe_within).max(1).into(),
            message.id.as_str().into(),
            message.subject.as_str().into(),
            headers.into(),
            Value::Bytes(message.payload.clone()),
            before.into(),
            i64::from(options.retention == Retention::Log).into(),
        ];
        let queue = options.name.clone();
        match self.0.run::<(i64, i64)>(scripts::PUT, notes, args).await? {
            (-1, _) => Err(QueueError::Full { queue, detail: format!("{most} messages") }),
            (-2, _) => Err(QueueError::Unreachable {
                queue,
                reason: "the message before was lost on the way".to_owned(),
            }),
            (number, known) => Ok((u64::try_from(number).unwrap_or(0), known == 1)),
        }
    }

    async fn put_all(&self, messages: &[WireMessage]) -> Result<SentAll, SendError> {
        let (mut sent, mut done) = (0, SentAll::default());
        for window in messages.chunks(WINDOW) {
            let begun = sent;
            // One connection keeps their order.
            let puts = window.iter().enumerate().map(|(n, message)| {
                self.put(message, (begun + n).checked_sub(1).map(|before| &messages[before]))
            });
            for put in join_all(puts).await {
                match put {
                    Ok((number, known)) => {
                        sent += 1;
                        done.last = done.last.max(number);
                        done.duplicates += u64::from(known);
                    }
                    Err(source) => {
                        let SentAll { last, duplicates } = done;
                        return Err(SendError { sent, last, duplicates, source });
                    }
                }
            }
        }
        Ok(done)
    }
}

impl Sender for RedisSender {
    fn send<'a>(
        &'a self,
        messages: &'a [WireMessage],
    ) -> BoxFuture<'a, Result<SentAll, SendError>> {
        async move {
            let outgoing = self.0.options.outgoing(messages);
            let sent = match self.put_all(&outgoing.messages).await {
                // It may be full of what is handled already.
                Err(error) if matches!(error.source, QueueError::Full { .. }) => {
                    self.0.trim().await;
                    error.go_on(self.put_all(&outgoing.messages[error.sent..]).await)
                }
                done => done,
            };
            outgoing.end(sent)
        }
        .boxed()
    }

    fn tail(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        self.0.run(scripts::TAIL, vec![self.0.key("count")], Vec::new()).boxed()
    }
}

impl fmt::Debug for RedisSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisSender").field(&self.0).finish()
    }
}
