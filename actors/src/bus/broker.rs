//! Brokers: one connection for the queues, requests and buckets of a system, owned by an actor.
//!
//! | you want | look at |
//! |---|---|
//! | a connection that the node supervises | [`Broker::new`], and the node's builder |
//! | queues, requests, buckets on it | [`Broker::queue`], [`Broker::remote`], [`Broker::bucket`] |
//! | to know how it stands | [`Broker::status`], without asking anybody |
//! | a connection without a system | [`connector`], [`Connect::connect`] |
//!
//! What a [`Broker`] gives works over the lives of its actor: when that is restarted, the next
//! call goes over the new connection, who serves is told that its requests have ended, and a watch
//! goes on behind what it has seen. While there is none, calls fail at once as if the server could
//! not be reached.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use mister_smith_supervisors::{
    Actor, Clock, Context, ErrorClass, ExitReason, Failure, Health, StartError,
    SupervisedComponent, SupervisionMetadata, TaskGuard,
};
use serde::Serialize;
use tokio::sync::watch;

use super::key_value::{BucketOptions, KeyValue, KeyValueError};
use super::queue::{Queue, QueueError, QueueOptions};
use super::remote::Remote;
use crate::component;

pub mod in_process;
#[cfg(feature = "nats")]
pub mod nats;
mod shared;

/// How often it is looked how the connection stands.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// Makes connections to one broker.
pub trait Connect: Send + Sync + fmt::Debug {
    /// Begins to connect, and returns at once: a server that is down may come later.
    ///
    /// # Errors
    /// The address is none.
    fn connect(&self, clock: Clock) -> BoxFuture<'_, Result<Arc<dyn Connected>, BrokerError>>;
    /// The address, without a password.
    fn url(&self) -> &str;
}

/// A connection to a broker, which may be away just now.
pub trait Connected: Send + Sync + fmt::Debug {
    /// A queue.
    ///
    /// # Errors
    /// The options are wrong.
    fn queue(&self, options: QueueOptions) -> Result<Arc<dyn Queue>, QueueError>;
    /// Requests and answers.
    fn remote(&self) -> Arc<dyn Remote>;
    /// A bucket of keys and values.
    ///
    /// # Errors
    /// The options are wrong.
    fn bucket(&self, options: BucketOptions) -> Result<Arc<dyn KeyValue>, KeyValueError>;
    /// What is known of it without asking.
    fn glance(&self) -> Glance;
    /// How long a message to the server and back takes.
    ///
    /// # Errors
    /// It does not come back, and why.
    fn round_trip(&self) -> BoxFuture<'_, Result<Duration, String>>;
    /// Ends it.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// What is known of a connection without asking.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Glance {
    /// Whether there is one now.
    pub connected: bool,
    /// The version of the server, if it was ever reached.
    pub version: Option<String>,
    /// Whether it keeps messages: without that there are no queues and no buckets.
    pub keeps: bool,
    /// How often it was made.
    pub made: u64,
}

/// How a broker stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BrokerStatus {
    /// Its address, without a password.
    pub url: String,
    /// Whether there is a connection now.
    pub connected: bool,
    /// The server's version, if it was ever reached.
    pub server_version: Option<String>,
    /// Whether it keeps messages (NATS: JetStream): without that there are no queues and buckets.
    pub jetstream: bool,
    /// How often the connection was made, in this life of its actor.
    pub connections: u64,
    /// How long a message to the server and back took the last time, in microseconds.
    pub round_trip_us: Option<u64>,
    /// Why the last one did not come back.
    pub trouble: Option<String>,
}

/// Why there is no connection to a broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The address names no broker that this program knows.
    #[error("{url} is not the address of a broker; give memory: or nats://HOST:PORT")]
    Unknown {
        /// The address.
        url: String,
    },
    /// The adapter was left out of this program.
    #[error("built without feature `{feature}`; rebuild with `--features {feature}`")]
    NotBuilt {
        /// What brings it.
        feature: &'static str,
    },
    /// The address is none.
    #[error("{url} is not the address of a server: {reason}")]
    Address {
        /// The address, without a password.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl BrokerError {
    /// How to react.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        ErrorClass::User
    }
}

/// The adapter for an address, by its scheme.
///
/// # Errors
/// No adapter for that scheme, or not in this program.
pub fn connector(url: &str) -> Result<Arc<dyn Connect>, BrokerError> {
    match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("memory") => Ok(Arc::new(in_process::Memory::default())),
        Some("nats") => nats_connector(url),
        _ => Err(BrokerError::Unknown { url: url.to_owned() }),
    }
}

#[cfg(feature = "nats")]
fn nats_connector(url: &str) -> Result<Arc<dyn Connect>, BrokerError> {
    Ok(Arc::new(nats::NatsConnect::new(url)))
}

#[cfg(not(feature = "nats"))]
fn nats_connector(_: &str) -> Result<Arc<dyn Connect>, BrokerError> {
    Err(BrokerError::NotBuilt { feature: "nats" })
}

/// A broker of a system. Cheap to clone; all clones are one connection.
#[derive(Clone)]
pub struct Broker(Arc<Inner>);

struct Inner {
    connect: Arc<dyn Connect>,
    /// The connection of the life that runs.
    live: watch::Sender<Option<Live>>,
    /// Connections so far, to tell them apart.
    lives: AtomicU64,
    probed: Mutex<Result<Duration, String>>,
}

#[derive(Debug, Clone)]
struct Live {
    number: u64,
    connection: Arc<dyn Connected>,
}

impl Broker {
    /// The broker at an address. It is connected when its actor runs.
    ///
    /// # Errors
    /// No adapter for that address, or not in this program.
    pub fn new(url: &str) -> Result<Self, BrokerError> {
        connector(url).map(Self::of)
    }

    /// A broker whose connections are made by `connect`.
    #[must_use]
    pub fn of(connect: Arc<dyn Connect>) -> Self {
        Self(Arc::new(Inner {
            connect,
            live: watch::Sender::new(None),
            lives: AtomicU64::new(0),
            probed: Mutex::new(Err("not connected yet".to_owned())),
        }))
    }

    /// Its address, without a password.
    #[must_use]
    pub fn url(&self) -> &str {
        self.0.connect.url()
    }

    /// A queue.
    ///
    /// # Errors
    /// The options are wrong.
    pub fn queue(&self, options: QueueOptions) -> Result<Arc<dyn Queue>, QueueError> {
        options.check()?;
        Ok(Arc::new(shared::Queue::new(self.clone(), options)))
    }

    /// Requests and answers.
    #[must_use]
    pub fn remote(&self) -> Arc<dyn Remote> {
        Arc::new(self.clone())
    }

    /// A bucket of keys and values.
    ///
    /// # Errors
    /// The options are wrong.
    pub fn bucket(&self, options: BucketOptions) -> Result<Arc<dyn KeyValue>, KeyValueError> {
        options.check()?;
        Ok(Arc::new(shared::Bucket::new(self.clone(), options)))
    }

    /// How it stands. Asks nobody.
    #[must_use]
    pub fn status(&self) -> BrokerStatus {
        let glance = self.live().map(|live| live.connection.glance()).unwrap_or_default();
        let probed = self.0.probed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        BrokerStatus {
            url: self.url().to_owned(),
            connected: glance.connected,
            server_version: glance.version,
            jetstream: glance.keeps,
            connections: glance.made,
            round_trip_us: probed.as_ref().ok().copied().map(micros),
            trouble: probed.err(),
        }
    }

    fn live(&self) -> Option<Live> {
        self.0.live.borrow().clone()
    }

    fn note(&self, probed: Result<Duration, String>) {
        *self.0.probed.lock().unwrap_or_else(PoisonError::into_inner) = probed;
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("url", &self.url()).finish_non_exhaustive()
    }
}

/// What the broker's actor can be told.
#[derive(Debug)]
pub enum BrokerMessage {
    /// It was looked how the connection stands. Sent by the actor to itself.
    Probed(Result<Duration, String>),
}

/// The actor: owns the connection, and looks how it stands.
pub struct BrokerActor {
    broker: Broker,
    live: Live,
    probing: Option<TaskGuard>,
}

impl Actor for BrokerActor {
    type Message = BrokerMessage;
    type Args = Broker;

    async fn start(broker: &Broker, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let connecting = broker.0.connect.connect(cx.clock());
        let connection = connecting.await.map_err(|error| Failure::wrap(error.class(), error))?;
        let number = broker.0.lives.fetch_add(1, Ordering::Relaxed) + 1;
        let live = Live { number, connection };
        broker.0.live.send_replace(Some(live.clone()));
        let shown = broker.clone();
        cx.describe(move || {
            let status = shown.status();
            let version = status.server_version.unwrap_or_default();
            let state = if status.connected { "connected" } else { "no connection" };
            match (status.round_trip_us, status.trouble) {
                (Some(micros), _) => format!("{state}   {version}   {micros} µs"),
                (None, trouble) => format!("{state}   {version}   {}", trouble.unwrap_or_default()),
            }
        });
        let mut actor = Self { broker: broker.clone(), live, probing: None };
        actor.probe(Duration::ZERO, cx);
        Ok(actor)
    }

    async fn handle(
        &mut self,
        BrokerMessage::Probed(probed): BrokerMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        self.broker.note(probed);
        self.probe(PROBE_EVERY, cx);
        Ok(())
    }

    async fn stop(&mut self, _: &ExitReason, _: &mut Context<Self>) {
        self.live.connection.close().await;
    }

    fn message_name(_: &BrokerMessage) -> &'static str {
        "Probed"
    }
}

impl BrokerActor {
    fn probe(&mut self, after: Duration, cx: &Context<Self>) {
        let connection = Arc::clone(&self.live.connection);
        self.probing = Some(cx.spawn_tell(async move {
            tokio::time::sleep(after).await;
            BrokerMessage::Probed(connection.round_trip().await)
        }));
    }
}

impl SupervisedComponent for BrokerActor {
    type Handover = ();

    /// A server that is away is no reason to restart: the connection is made again by itself.
    async fn health_check(&mut self, _: &mut Context<Self>) -> Health {
        let status = self.broker.status();
        match (status.connected, status.trouble) {
            (false, _) => Health::degraded(format!("no connection to {}", status.url)),
            (true, Some(trouble)) => Health::degraded(trouble),
            (true, None) if !status.jetstream => {
                Health::degraded(format!("{} keeps no messages: no JetStream", status.url))
            }
            (true, None) => Health::Healthy,
        }
    }

    fn supervision_metadata(_: &Broker) -> SupervisionMetadata {
        SupervisionMetadata::of(component::RESOURCE)
    }
}

impl Drop for BrokerActor {
    /// However it ends: nobody goes on working with what it owned.
    fn drop(&mut self) {
        self.broker.note(Err("the connection's actor has ended".to_owned()));
        self.broker.0.live.send_if_modified(|live| {
            let own = live.as_ref().is_some_and(|live| live.number == self.live.number);
            if own {
                *live = None;
            }
            own
        });
    }
}

impl fmt::Debug for BrokerActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerActor").field("connection", &self.live.connection).finish()
    }
}
