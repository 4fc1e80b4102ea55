//! A node inside the test, on a directory of its own.

use std::net::SocketAddr;
use std::time::Duration;

use mister_smith::http::Limits;
use mister_smith::prelude::*;
use mister_smith::{SystemBuilder, SystemCore};
use mister_smith_testkit::{Client, Reply};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Long enough for a busy machine; a test that works never waits for it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const INGEST: &str = "/api/v1/data/ingest";
pub(crate) const ONE: &str = "application/cloudevents+json";
pub(crate) const BATCH: &str = "application/cloudevents-batch+json";
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// A node, and a client that talks to it.
pub(crate) struct Node {
    pub(crate) core: SystemCore,
    pub(crate) client: Client,
    _dir: TempDir,
}

impl Node {
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        Self::made(limits, |builder| builder).await
    }

    /// A node of an application.
    pub(crate) async fn made(
        limits: Limits,
        make: impl FnOnce(SystemBuilder) -> SystemBuilder,
    ) -> Self {
        let dir = TempDir::with_prefix("smith-").unwrap();
        let store = format!("sqlite://{}", dir.path().join("smith.db").display());
        let core = make(SystemCore::embedded().store(store).limits(limits));
        let core = core.listen("127.0.0.1:0".parse().unwrap()).start().await.unwrap();
        let client = Client::new(core.addr().unwrap());
        Self { core, client, _dir: dir }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.client.addr()
    }

    /// What `GET path` answers with 200.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.client.get(path).await.unwrap();
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    /// The text of what `GET path` answers with 200.
    pub(crate) async fn text(&self, path: &str) -> String {
        let reply = self.send("GET", path).await;
        assert_eq!(reply.status, 200, "GET {path}: {}", reply.text());
        reply.text()
    }

    /// Any request without a body.
    pub(crate) async fn send(&self, method: &str, path: &str) -> Reply {
        self.client.send(method.parse().unwrap(), path, &[], "").await.unwrap()
    }

    /// What `POST path` answers, without a body.
    pub(crate) async fn post(&self, path: &str) -> (u16, Value) {
        let reply = self.send("POST", path).await;
        (reply.status, reply.json())
    }

    /// What an ingest request answers.
    pub(crate) async fn ingest(&self, content_type: &str, body: impl ToString) -> (u16, Value) {
        self.client.post_ingest(content_type, body.to_string()).await.unwrap()
    }

    /// Hands events in and waits until they are in the read model.
    pub(crate) async fn fill(&self, events: &[Value]) -> Value {
        let (status, answer) = self.ingest(NDJSON, ndjson(events)).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["rejected"], 0, "{answer}");
        self.projected().await;
        answer
    }

    /// Lets orders come to life under `aggregates`, each with one event more.
    pub(crate) async fn live<T: ToString>(&self, ids: impl IntoIterator<Item = T>) {
        for id in ids {
            self.core.commands().send::<Order>(&id.to_string(), 1).await.unwrap();
        }
        self.projected().await;
    }

    pub(crate) async fn projected(&self) {
        let all = self.core.wait_for(self.core.head());
        timeout(DEADLINE, all).await.expect("the projection follows").unwrap();
    }
}

/// An aggregate: an order, and how many pieces of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Order {
    pieces: u64,
}

/// What happens to an order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ordered {
    /// So many pieces more.
    #[serde(rename = "order.placed")]
    Placed(u64),
}

impl Event for Ordered {}

impl Aggregate for Order {
    type Command = u64;
    type Event = Ordered;
    type Rejection = std::convert::Infallible;

    const CATEGORY: &'static str = "order";

    fn decide(&self, pieces: &u64) -> Result<Vec<Ordered>, Self::Rejection> {
        Ok(vec![Ordered::Placed(*pieces)])
    }

    fn evolve(&mut self, Ordered::Placed(pieces): Ordered) {
        self.pieces += pieces;
    }
}

/// An event of the stream `subject`.
pub(crate) fn event(id: &str, subject: &str) -> Value {
    json!({
        "specversion": "1.0",
        "id": id,
        "source": "/shop",
        "type": "order.placed",
        "subject": subject,
        "data": { "eur": 1 },
    })
}

pub(crate) fn ndjson(events: &[Value]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

/// The 165 webhooks of `tests/data`, one CloudEvent a line.
pub(crate) fn webhooks() -> String {
    use std::io::Read as _;
    let packed = include_bytes!("../data/github-webhooks.cloudevents.ndjson.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
    text
}

/// A part of a path, with everything escaped that could be.
pub(crate) fn escaped(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// A connection whose bytes the test chooses.
pub(crate) struct Raw(TcpStream);

impl Raw {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self(TcpStream::connect(addr).await.unwrap())
    }

    /// Begins an ingest request of `body`, sends its first byte, and returns when the node has
    /// admitted it: a server says `100 Continue` when it begins to read the body.
    pub(crate) async fn begin_ingest(addr: SocketAddr, body: &str) -> Self {
        let mut raw = Self::connect(addr).await;
        let length = body.len();
        raw.send(&format!(
            "POST {INGEST} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
             Expect: 100-continue\r\nContent-Type: {ONE}\r\nContent-Length: {length}\r\n\r\n"
        ))
        .await;
        raw.wait_for("100 Continue\r\n\r\n").await;
        raw.send(&body[..1]).await;
        raw
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until `text` has come.
    pub(crate) async fn wait_for(&mut self, text: &str) {
        let mut bytes = Vec::new();
        while !String::from_utf8_lossy(&bytes).contains(text) {
            let read = timeout(DEADLINE, self.0.read_buf(&mut bytes)).await;
            assert!(read.expect("an answer").unwrap() > 0, "closed before {text:?} came");
        }
    }

    /// The status of the answer and all of its text, once the server has closed the connection.
    pub(crate) async fn answer(mut self) -> (u16, String) {
        let mut bytes = Vec::new();
        let read = timeout(DEADLINE, self.0.read_to_end(&mut bytes)).await;
        read.expect("the server closes the connection").unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
        (status.unwrap_or_else(|| panic!("no answer: {text:?}")), text)
    }
}
