//! A node: what its HTTP edge and its server of commands are sent.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mister_smith::actors::bus::broker::Broker;
use mister_smith::actors::bus::remote::Remote;
use mister_smith::actors::bus::wire::WireMessage;
use mister_smith::actors::command::remote::server::{ServeOptions, Served};
use mister_smith::actors::command::remote::{STATUS, TIMEOUT_MS};
use mister_smith::prelude::*;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::any::Any;
use super::parts;

/// Long enough for a machine that does something else; one that hangs is a finding.
const DEADLINE: Duration = Duration::from_secs(10);

/// Takes any command, and nothing comes of it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Sink;

#[derive(Debug, Serialize, Deserialize)]
enum Nothing {}

impl Event for Nothing {}

#[derive(Debug, thiserror::Error)]
#[error("it is refused")]
struct Refused;

impl Aggregate for Sink {
    type Command = Any;
    type Event = Nothing;
    type Rejection = Refused;
    const CATEGORY: &'static str = "sink";

    fn decide(&self, command: &Any) -> Result<Vec<Nothing>, Refused> {
        if matches!(command, Any::Nothing) { Err(Refused) } else { Ok(Vec::new()) }
    }

    fn evolve(&mut self, event: Nothing) {
        match event {}
    }
}

/// A node that lives as long as the program.
struct Node {
    runtime: Runtime,
    addr: SocketAddr,
    remote: Arc<dyn Remote>,
    _core: SystemCore,
    _dir: TempDir,
}

fn node() -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let dir = TempDir::with_prefix("smith-fuzz-").expect("there is room");
        let store = format!("sqlite://{}", dir.path().join("smith.db").display());
        let broker = Broker::new("memory:").expect("it is an address");
        let served = [Served::of::<Sink>()];
        let core = SystemCore::embedded()
            .store(store)
            .broker(&broker)
            .serve_commands(broker.remote(), ServeOptions::default(), served)
            .listen(SocketAddr::from(([127, 0, 0, 1], 0)));
        let core = runtime.block_on(core.start()).expect("a node starts");
        let addr = core.addr().expect("it listens");
        Node { runtime, addr, remote: broker.remote(), _core: core, _dir: dir }
    })
}

/// What is left of a text that can stand in a line of a request.
fn line(bytes: &[u8]) -> String {
    let is_plain = |byte: &&u8| byte.is_ascii_graphic();
    bytes.iter().filter(is_plain).map(|byte| char::from(*byte)).collect()
}

/// A request: whether it is a `POST`, path and query, content type and encoding, and the body, with a
/// NUL between. Whatever it is, there is an answer.
pub fn http(data: &[u8]) {
    let [path, kind, encoding, body] = parts(data);
    let (posts, path) = match path.split_first() {
        Some((b'!', path)) => (true, path),
        _ => (false, path),
    };
    let path = line(path);
    // One has no end, and the others end the node when they are asked to.
    if path.contains("stream") && path.starts_with("/debug") || posts && path.contains("debug") {
        return;
    }
    let mut request = format!(
        "{} /{} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n",
        if posts { "POST" } else { "GET" },
        path.trim_start_matches('/'),
    )
    .into_bytes();
    for (name, value) in [("Content-Type", kind), ("Content-Encoding", encoding)] {
        if !value.is_empty() {
            request.extend(format!("{name}: {}\r\n", line(value)).into_bytes());
        }
    }
    request.extend(format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes());
    request.extend(body);
    let node = node();
    let asked = async {
        let mut stream = TcpStream::connect(node.addr).await.expect("the node listens");
        // An answer may come, and the connection end, before all was sent.
        let _ = stream.write_all(&request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    };
    let answer = node.runtime.block_on(async { timeout(DEADLINE, asked).await });
    let answer = answer.expect("there is an answer");
    assert!(answer.starts_with(b"HTTP/1.1 "), "{}", String::from_utf8_lossy(&answer));
    assert!(!answer.starts_with(b"HTTP/1.1 500"), "{}", String::from_utf8_lossy(&answer));
}

/// A command from another node: what it says of its time, and its body, with a NUL between.
pub fn commands(data: &[u8]) {
    let [waits, body] = parts(data);
    let mut request = WireMessage::answer(body.to_vec());
    request.subject = "smith.command.sink".to_owned();
    let waits = String::from_utf8_lossy(waits).into_owned();
    request.headers.insert(TIMEOUT_MS.to_owned(), waits);
    let node = node();
    let asked = node.remote.request(&request, DEADLINE);
    // A time of nothing is over before there is an answer.
    if let Ok(answer) = node.runtime.block_on(asked) {
        let status = answer.headers.get(STATUS).map(String::as_str);
        let status: u16 = status.expect("it has a status").parse().expect("it is a number");
        assert!((200..600).contains(&status) && status != 500, "{answer:?}");
    }
}
