//! Requests and answers over core NATS: a queue subscription a member.
//!
//! The server tells an asker at once when nobody serves a subject (2.2 and later). It tells
//! nothing about a request that was lost, so that a lost one is one without an answer.

use std::fmt;
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::{Client, Request, Subject, Subscriber};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};

use super::{Asked, Remote, RemoteError, Reply, Requests};
use crate::bus::broker::nats::{Connection, headers, wire};
use crate::bus::subject::Pattern;
use crate::bus::wire::WireMessage;

fn unreachable(reason: impl ToString) -> RemoteError {
    RemoteError::Unreachable { reason: reason.to_string() }
}

impl Remote for Connection {
    fn request<'a>(
        &'a self,
        message: &'a WireMessage,
        within: Duration,
    ) -> BoxFuture<'a, Result<WireMessage, RemoteError>> {
        async move {
            // The client would keep it, and send it when there is a connection again.
            if !self.is_connected() {
                return Err(unreachable(format!("no connection to {}", self.url)));
            }
            message.check()?;
            // The deadline is ours, for all of it: the way into a client without a connection too.
            let mut request = Request::new().payload(message.payload.clone()).timeout(None);
            if !message.headers.is_empty() {
                request = request.headers(headers(message));
            }
            let asking = self.client.send_request(message.subject.clone(), request);
            let subject = message.subject.clone();
            match tokio::time::timeout(within, asking).await {
                Ok(Ok(answer)) => Ok(WireMessage { subject: String::new(), ..wire(answer) }),
                Ok(Err(error)) => Err(match error.kind() {
                    RequestErrorKind::NoResponders => RemoteError::NoResponders { subject },
                    RequestErrorKind::InvalidSubject => RemoteError::NoResponders { subject },
                    RequestErrorKind::MaxPayloadExceeded => RemoteError::TooLarge {
                        bytes: message.size(),
                        most: self.client.max_payload(),
                    },
                    RequestErrorKind::TimedOut | RequestErrorKind::Other => {
                        RemoteError::NoAnswer { subject, after: within }
                    }
                }),
                Err(_) => Err(RemoteError::NoAnswer { subject, after: within }),
            }
        }
        .boxed()
    }

    fn serve<'a>(
        &'a self,
        subjects: &'a Pattern,
        group: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Requests>, RemoteError>> {
        async move {
            let subscriber = self
                .client
                .queue_subscribe(subjects.as_str().to_owned(), group.to_owned())
                .await
                .map_err(unreachable)?;
            if self.is_connected() {
                // Another connection could be faster than the subscription.
                let _ = self.round_trip().await;
            }
            let requests = NatsRequests { connection: self.clone(), subscriber };
            Ok(Box::new(requests) as Box<dyn Requests>)
        }
        .boxed()
    }
}

struct NatsRequests {
    connection: Connection,
    subscriber: Subscriber,
}

impl Requests for NatsRequests {
    fn next(&mut self) -> BoxFuture<'_, Option<Asked>> {
        async {
            loop {
                let message = self.subscriber.next().await?;
                let Some(to) = message.reply.clone() else {
                    tracing::debug!(subject = %message.subject, "wants no answer; left out");
                    continue;
                };
                let reply = NatsReply { client: self.connection.client.clone(), to };
                return Some(Asked { message: wire(message), reply: Box::new(reply) });
            }
        }
        .boxed()
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        async {
            // What the server has sent before it knows still comes; then the stream ends.
            let _ = self.subscriber.drain().await;
        }
        .boxed()
    }
}

impl fmt::Debug for NatsRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsRequests").field("connection", &self.connection).finish_non_exhaustive()
    }
}

struct NatsReply {
    client: Client,
    to: Subject,
}

impl Reply for NatsReply {
    fn send(self: Box<Self>, answer: WireMessage) -> BoxFuture<'static, Result<(), RemoteError>> {
        async move {
            answer.check_headers()?;
            let most = self.client.max_payload();
            if answer.size() > most {
                return Err(RemoteError::TooLarge { bytes: answer.size(), most });
            }
            let sent = match answer.headers.is_empty() {
                true => self.client.publish(self.to, answer.payload).await,
                false => {
                    let headers = headers(&answer);
                    self.client.publish_with_headers(self.to, headers, answer.payload).await
                }
            };
            sent.map_err(unreachable)
        }
        .boxed()
    }
}
