//! One connection to a NATS server, for queues, requests and buckets.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::{Client, ConnectOptions, Event, HeaderMap};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use mister_smith_supervisors::Clock;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::{BrokerError, Connect, Connected, Glance};
use crate::bus::key_value::{BucketOptions, KeyValue, KeyValueError};
use crate::bus::queue::{Queue, QueueError, QueueOptions};
use crate::bus::remote::Remote;
use crate::bus::wire::WireMessage;

/// Messages that wait for the stream's acknowledgement at once.
const UNACKED: usize = 1_024;

/// How long the stream may take to acknowledge a message.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the server may take to answer anything else.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A dead connection is noticed after two of these.
const PING: Duration = Duration::from_secs(10);

/// How long a message to oneself may take.
const ROUND_TRIP: Duration = Duration::from_secs(2);

/// The header that the server tells repeats by.
pub(in crate::bus) const MESSAGE_ID: &str = "Nats-Msg-Id";

/// A connection to NATS. Cheap to clone. It is made again for ever when it breaks, with growing
/// pauses; while there is none, calls fail at once.
#[derive(Clone)]
pub struct Connection {
    pub(in crate::bus) client: Client,
    pub(in crate::bus) context: Context,
    pub(in crate::bus) url: Arc<str>,
    /// How often it was made. With each time the server may be another, or have lost something.
    pub(in crate::bus) made: watch::Receiver<u64>,
}

impl Connection {
    /// Begins to connect, and returns at once: a server that is down may come later.
    ///
    /// # Errors
    /// The address is none.
    pub async fn open(url: &str) -> Result<Self, BrokerError> {
        let shown: Arc<str> = without_password(url).into();
        let name = Arc::clone(&shown);
        let (making, made) = watch::channel(0);
        let options = ConnectOptions::new()
            .retry_on_initial_connect()
            .ping_interval(PING)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .reconnect_delay_callback(|attempt| {
                // Up to two seconds: a broker that comes back is used soon.
                let exponent = u32::try_from(attempt.min(8)).unwrap_or(8);
                Duration::from_millis(8 * 2_u64.pow(exponent))
            })
            .event_callback(move |event| {
                if event == Event::Connected {
                    making.send_modify(|made| *made += 1);
                }
                let url = Arc::clone(&name);
                async move { tracing::info!(url = &*url, "nats: {event}") }
            });
        let client = options.connect(url).await.map_err(|error| BrokerError::Address {
            url: shown.to_string(),
            reason: error.to_string(),
        })?;
        let context = ContextBuilder::new()
            .timeout(REQUEST_TIMEOUT)
            .ack_timeout(ACK_TIMEOUT)
            .max_ack_inflight(UNACKED)
            .build(client.clone());
        Ok(Self { client, context, url: shown, made })
    }

    /// The version of the server, `None` while there is no connection.
    #[must_use]
    pub fn server_version(&self) -> Option<String> {
        let version = self.client.server_info().version;
        (!version.is_empty()).then_some(version)
    }

    /// Whether there is a connection now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// The client, for what is neither a queue, a request nor a bucket.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// JetStream, for what is neither a queue nor a bucket.
    #[must_use]
    pub fn jetstream(&self) -> &Context {
        &self.context
    }

    /// A message to oneself: when it comes back, the server knows all that was told before it.
    pub(in crate::bus) async fn round_trip(&self) -> Result<Duration, String> {
        if !self.is_connected() {
            return Err(format!("no connection to {}", self.url));
        }
        let trip = async {
            let inbox = self.client.new_inbox();
            let mut back = self.client.subscribe(inbox.clone()).await.map_err(text)?;
            let began = Instant::now();
            self.client.publish(inbox, Bytes::new()).await.map_err(text)?;
            back.next().await.ok_or("the connection was closed")?;
            Ok(began.elapsed())
        };
        timeout(ROUND_TRIP, trip).await.unwrap_or_else(|_| Err("the server is silent".to_owned()))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("url", &self.url)
            .field("connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

/// The headers of a message, without its id.
pub(in crate::bus) fn headers(message: &WireMessage) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &message.headers {
        headers.insert(name.as_str(), value.as_str());
    }
    headers
}

/// What came over the wire.
pub(in crate::bus) fn wire(message: async_nats::Message) -> WireMessage {
    let mut wire = WireMessage {
        subject: message.subject.to_string(),
        payload: message.payload,
        ..WireMessage::default()
    };
    for (name, values) in message.headers.iter().flat_map(|headers| headers.iter()) {
        let Some(value) = values.first() else { continue };
        let (name, value): (&str, &str) = (name.as_ref(), value.as_str());
        match name {
            MESSAGE_ID => value.clone_into(&mut wire.id),
            _ if name.starts_with("Nats-") => {}
            _ => drop(wire.headers.insert(name.to_owned(), value.to_owned())),
        }
    }
    wire
}

/// Makes connections to one server.
#[derive(Clone)]
pub(super) struct NatsConnect {
    /// With a password, if there is one.
    address: String,
    url: String,
}

impl NatsConnect {
    pub(super) fn new(url: &str) -> Self {
        Self { address: url.to_owned(), url: without_password(url) }
    }
}

impl Connect for NatsConnect {
    fn connect(&self, _: Clock) -> BoxFuture<'_, Result<Arc<dyn Connected>, BrokerError>> {
        async { Ok(Arc::new(Connection::open(&self.address).await?) as Arc<dyn Connected>) }.boxed()
    }

    fn url(&self) -> &str {
        &self.url
    }
}

impl fmt::Debug for NatsConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsConnect").field("url", &self.url).finish()
    }
}

impl Connected for Connection {
    fn queue(&self, options: QueueOptions) -> Result<Arc<dyn Queue>, QueueError> {
        options.check()?;
        Ok(Arc::new(Self::queue(self, options)))
    }

    fn remote(&self) -> Arc<dyn Remote> {
        Arc::new(self.clone())
    }

    fn bucket(&self, options: BucketOptions) -> Result<Arc<dyn KeyValue>, KeyValueError> {
        Ok(Arc::new(Self::bucket(self, options)?))
    }

    fn glance(&self) -> Glance {
        Glance {
            connected: self.is_connected(),
            version: self.server_version(),
            keeps: self.client.server_info().jetstream,
            made: *self.made.borrow(),
        }
    }

    fn round_trip(&self) -> BoxFuture<'_, Result<Duration, String>> {
        Self::round_trip(self).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            // One that has no connection cannot tell the server; the server has noticed.
            let _ = timeout(ROUND_TRIP, self.client.drain()).await;
        }
        .boxed()
    }
}
