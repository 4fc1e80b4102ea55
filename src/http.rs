//! The HTTP edge: events in, read models and the tree out.
//!
//! | path | what | where |
//! |---|---|---|
//! | `POST /api/v1/data/ingest` | CloudEvents in, answered when they are durable | `http/ingest.rs` |
//! | `GET /api/v1/streams…`, `/api/v1/events` | what was projected, what is in the log | `http/query.rs` |
//! | `GET /api/v1/projections…`, `POST …` | read models: how they stand, pause, rebuild, parked events | `http/projections.rs` |
//! | `GET /api/v1/bus` | the bus, its subscriptions, the brokers | `http/bus.rs` |
//! | `GET /api/v1/dead-letters…`, `POST …` | messages that could not be handled: requeue, purge | `http/dead_letters.rs` |
//! | `GET /api/v1/sagas…`, `POST …` | sagas: how they stand, retry, abort | `http/sagas.rs` |
//! | `GET /api/v1/timers…`, `POST …` | timers of the store: when they fire, cancel | `http/timers.rs` |
//! | `GET /debug/tree`, `POST /debug/actors/…` | the live tree | [`crate::debug`] |
//! | `GET /healthz`, `/readyz` | is it alive, is it ready | [`crate::debug`] |
//!
//! [`body`] and [`cloudevents`] are pure: they neither wait nor keep state. `http/server.rs` is the
//! actor that accepts connections.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use mister_smith_actors::bus::EventBus;
use mister_smith_actors::bus::broker::Broker;
use mister_smith_actors::consumer::Consumers;
use mister_smith_actors::dead_letter::DeadLetters;
use mister_smith_actors::event::Position;
use mister_smith_actors::ingest::Ingest;
use mister_smith_actors::pool::PoolHandle;
use mister_smith_actors::projection::handle::ProjectionRef;
use mister_smith_actors::saga::Sagas;
use mister_smith_actors::timer::Timers;
use mister_smith_supervisors::ActorSystem;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::debug;

use access::Access;

pub mod access;
pub mod body;
mod bus;
pub mod cloudevents;
mod consumers;
mod dead_letters;
mod guard;
mod ingest;
mod problem;
mod projections;
mod query;
mod sagas;
mod server;
mod timers;
#[cfg(feature = "tls")]
pub mod tls;

pub(crate) use guard::too_little;
pub(crate) use problem::Problem;
pub(crate) use query::{decode, raw_path};
pub(crate) use server::HttpServer;

/// What the edge takes at most.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of one request body, before and after decompression. 16 MiB.
    pub body_bytes: usize,
    /// Ingest requests at once. 256.
    pub requests: usize,
    /// Bytes of all ingest bodies at once, in MiB. 256.
    pub in_flight_mib: usize,
    /// Connections at once; more wait to be accepted. 1,024.
    pub connections: usize,
    /// How long a request may take to send its body. 30 s.
    pub body_deadline: Duration,
    /// What one event and one request may hold.
    pub events: cloudevents::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 16 << 20,
            requests: 256,
            in_flight_mib: 256,
            connections: 1_024,
            body_deadline: Duration::from_secs(30),
            events: cloudevents::Limits::default(),
        }
    }
}

impl Limits {
    /// Sets how many bytes a body may have.
    #[must_use]
    pub fn body_bytes(mut self, bytes: usize) -> Self {
        self.body_bytes = bytes;
        self
    }

    /// Sets how many ingest requests may be under way at once.
    #[must_use]
    pub fn requests(mut self, requests: usize) -> Self {
        self.requests = requests;
        self
    }
}

/// What the HTTP actor serves. It belongs to the node and not to one life of the actor: the socket
/// and the connections live through a crash of the actor that accepts them.
#[derive(Clone)]
pub(crate) struct Edge(Arc<EdgeInner>);

struct EdgeInner {
    listener: Arc<TcpListener>,
    addr: SocketAddr,
    limits: Limits,
    door: Door,
    node: OnceLock<Node>,
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    serving: Mutex<JoinSet<()>>,
    desk: debug::v1::Desk,
    /// The node is being stopped: requests under way are the last.
    closing: watch::Sender<bool>,
}

/// Who is let in, and how.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    pub(crate) access: Access,
    /// Names that the node answers to, besides those of loopback.
    pub(crate) hosts: Vec<String>,
    /// Callers see `https`: from this node, or from the proxy in front of it.
    pub(crate) https: bool,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<tls::Tls>,
}

/// The address that a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// The parts of a running node that requests need.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) actors: ActorSystem,
    pub(crate) pool: PoolHandle,
    pub(crate) ingest: Ingest,
    pub(crate) projections: Vec<ProjectionRef>,
    pub(crate) bus: EventBus,
    pub(crate) letters: DeadLetters,
    pub(crate) sagas: Sagas,
    pub(crate) consumers: Consumers,
    pub(crate) timers: Timers,
    pub(crate) facts: Arc<Facts>,
    pub(crate) brokers: Vec<Broker>,
}

/// What a node was started with, for those who look.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) production: bool,
    /// The kind of store, by its scheme.
    pub(crate) kind: &'static str,
    /// Where the store is, without a password.
    pub(crate) store: String,
    /// The end of the log.
    pub(crate) head: watch::Receiver<Position>,
    /// Settings by name, without secrets.
    pub(crate) settings: Vec<(&'static str, String)>,
}

impl Node {
    /// A projection by its name.
    pub(crate) fn projection(&self, name: &str) -> Result<&ProjectionRef, Problem> {
        let found = self.projections.iter().find(|projection| projection.name() == name);
        found.ok_or_else(|| Problem::missing(format!("there is no projection {name}")))
    }
}

impl Edge {
    pub(crate) fn new(
        listener: Arc<TcpListener>,
        addr: SocketAddr,
        limits: Limits,
        door: Door,
    ) -> Self {
        Self(Arc::new(EdgeInner {
            listener,
            addr,
            door,
            node: OnceLock::new(),
            requests: Arc::new(Semaphore::new(limits.requests)),
            bytes: Arc::new(Semaphore::new(limits.in_flight_mib << 10)),
            connections: Arc::new(Semaphore::new(limits.connections)),
            limits,
            serving: Mutex::new(JoinSet::new()),
            desk: debug::v1::Desk::default(),
            closing: watch::Sender::new(false),
        }))
    }

    /// From now on requests are answered; until then they are told to try again.
    pub(crate) fn open(&self, node: Node) {
        let _ = self.0.node.set(node);
    }

    /// The node is being stopped: every connection ends with the request that it is at.
    pub(crate) fn close(&self) {
        self.0.closing.send_replace(true);
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.0.addr
    }

    pub(crate) fn desk(&self) -> &debug::v1::Desk {
        &self.0.desk
    }

    /// Turns true when the node is being stopped.
    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.0.closing.subscribe()
    }

    pub(crate) fn access(&self) -> &Access {
        &self.0.door.access
    }

    fn hosts(&self) -> &[String] {
        &self.0.door.hosts
    }

    /// Callers see `https`.
    pub(crate) fn is_tls(&self) -> bool {
        self.0.door.https
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub(crate) fn node(&self) -> Result<&Node, Problem> {
        self.0.node.get().ok_or_else(|| Problem::unavailable("the node is starting"))
    }

    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/api/v1/data/ingest", post(ingest::ingest))
            .route("/api/v1/events", get(query::events))
            .route("/api/v1/streams", get(query::streams))
            .route("/api/v1/streams/{*rest}", get(query::stream))
            .route("/api/v1/projections", get(projections::list))
            .route("/api/v1/projections/{*rest}", get(projections::get).post(projections::act))
            .route("/api/v1/bus", get(bus::show))
            .route("/api/v1/dead-letters", get(dead_letters::list))
            .route("/api/v1/dead-letters/requeue", post(dead_letters::requeue_all))
            .route("/api/v1/dead-letters/{id}", get(dead_letters::show))
            .route("/api/v1/dead-letters/{id}/{action}", post(dead_letters::act))
            .route("/api/v1/consumers", get(consumers::list))
            .route("/api/v1/consumers/{name}/{action}", post(consumers::act))
            .route("/api/v1/sagas", get(sagas::list))
            .route("/api/v1/sagas/{name}/{*rest}", get(sagas::show).post(sagas::act))
            .route("/api/v1/timers", get(timers::list))
            .route("/api/v1/timers/{kind}/{*rest}", post(timers::act))
            .merge(debug::v1::router())
            .route("/", get(debug::page::index))
            .route("/assets/{*path}", get(debug::page::asset))
            .route("/debug/tree", get(debug::tree))
            .route("/debug/actors/{*rest}", post(debug::act))
            .route("/healthz", get(debug::healthz))
            .route("/readyz", get(debug::readyz))
            .fallback(problem::not_found)
            .method_not_allowed_fallback(problem::method_not_allowed)
            // The ingest handler reads its body itself, under its own limits.
            .layer(DefaultBodyLimit::disable())
            .layer(axum::middleware::from_fn_with_state(self.clone(), guard::watch))
            .with_state(self.clone())
    }
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").field("addr", &self.0.addr).finish_non_exhaustive()
    }
}
