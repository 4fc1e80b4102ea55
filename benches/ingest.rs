//! Events over HTTP into a node on SQLite: until they are durable, and until they are projected.
//!
//! `cargo bench --bench ingest`. Ratios are to the store alone (`append_batch` of the same events,
//! in batches of 500 over 12 streams, on the same disk, in the same run): what HTTP, parsing, the
//! actors and the projection beside it cost. The driver runs in the same process on a runtime of
//! its own, so both share the cores. `-- --short` takes a second.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test may panic")]

use std::collections::VecDeque;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mister_smith::SystemCore;
use mister_smith::actors::event::{ContentType, EventId, NewEvent, StreamId, Timestamp};
use mister_smith::actors::store::sqlite::{SqliteOptions, SqliteStore};
use mister_smith::actors::store::{Append, EventStore, ExpectedVersion, IdempotencyKey};
use tokio::net::TcpStream;

/// One run: which events, how many a request, how many requests at once.
struct Case {
    name: &'static str,
    events: Vec<String>,
    per_request: usize,
    connections: usize,
}

struct Outcome {
    durable: Duration,
    projected: Duration,
    latencies: Vec<Duration>,
}

fn main() {
    let short = std::env::args().any(|arg| arg == "--short" || arg == "--test");
    let scale = if short { 20 } else { 1 };
    println!(
        "{:<34} {:>9} {:>8} {:>9} {:>9} {:>11} {:>9}",
        "ingest over HTTP", "events/s", "MB/s", "p50 ms", "p95 ms", "projected/s", "x store"
    );
    for case in [
        Case {
            name: "300 B, 100 a request, 12 at once",
            events: small(200_000 / scale),
            per_request: 100,
            connections: 12,
        },
        Case {
            name: "300 B, 1 a request, 64 at once",
            events: small(40_000 / scale),
            per_request: 1,
            connections: 64,
        },
        Case {
            name: "webhooks 10 kB, 20 a request, 8",
            events: webhooks(16_500 / scale),
            per_request: 20,
            connections: 8,
        },
    ] {
        let bytes: usize = case.events.iter().map(String::len).sum();
        // Paired: the store alone before and after, so that a drift of the machine shows.
        let before = store_alone(&case.events);
        let outcome = through_http(&case);
        let after = store_alone(&case.events);
        let store = (before + after) / 2.0;
        let events = case.events.len() as f64;
        let rate = events / outcome.durable.as_secs_f64();
        let mut latencies = outcome.latencies;
        latencies.sort_unstable();
        let at = |share: f64| {
            let index = ((latencies.len() - 1) as f64 * share) as usize;
            latencies[index].as_secs_f64() * 1e3
        };
        println!(
            "{:<34} {:>9.0} {:>8.1} {:>9.2} {:>9.2} {:>11.0} {:>9.2}",
            case.name,
            rate,
            bytes as f64 / 1e6 / outcome.durable.as_secs_f64(),
            at(0.5),
            at(0.95),
            events / outcome.projected.as_secs_f64(),
            rate / store,
        );
    }
}

/// Events of about 300 bytes over 12 streams.
fn small(count: usize) -> Vec<String> {
    let filler = "x".repeat(110);
    (0..count)
        .map(|i| {
            format!(
                r#"{{"specversion":"1.0","id":"small-{i:09}","source":"/bench/sensors","subject":"sensor-{:02}","type":"com.example.reading","datacontenttype":"application/json","data":{{"n":"{i:09}","text":"{filler}"}}}}"#,
                i % 12
            )
        })
        .collect()
}

/// The recorded webhooks (`tests/data/README.md`), with new ids.
fn webhooks(count: usize) -> Vec<String> {
    let gz = include_bytes!("../tests/data/github-webhooks.cloudevents.ndjson.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&gz[..]).read_to_string(&mut text).expect("the data is gzip");
    let lines: Vec<&str> = text.lines().collect();
    (0..count)
        .map(|i| lines[i % lines.len()].replacen(r#""id":""#, &format!(r#""id":"{i}-"#), 1))
        .collect()
}

fn runtime() -> tokio::runtime::Runtime {
    mister_smith::runtime::build().expect("a runtime")
}

/// Events a second of the store alone.
fn store_alone(events: &[String]) -> f64 {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store.db");
    runtime().block_on(async {
        mister_smith::migrate::up(&path).await.expect("migrated");
        let store = SqliteStore::open(&path, SqliteOptions::default()).await.expect("open");
        let streams: Vec<StreamId> =
            (0..12).map(|i| StreamId::new(format!("s{i}")).expect("a name")).collect();
        let batches: Vec<Vec<Append>> = events
            .chunks(500)
            .enumerate()
            .map(|(b, chunk)| {
                let append = |(i, text): (usize, &String)| Append {
                    stream: streams[i % 12].clone(),
                    expected: ExpectedVersion::Any,
                    events: vec![NewEvent::new(
                        EventId::new(uuid::Uuid::from_u128((b * 500 + i) as u128)),
                        "com.example.reading",
                        ContentType::Json,
                        Bytes::copy_from_slice(text.as_bytes()),
                        Timestamp::from_micros(0),
                    )],
                    key: Some(IdempotencyKey::of([b.to_le_bytes(), i.to_le_bytes()])),
                    linked: false,
                    outside: true,
                };
                chunk.iter().enumerate().map(append).collect()
            })
            .collect();
        let began = Instant::now();
        for batch in batches {
            store.append_batch(batch.into()).await.expect("appended");
            store.checkpoint_passive().await.expect("tidied");
        }
        let rate = events.len() as f64 / began.elapsed().as_secs_f64();
        store.close().await;
        rate
    })
}

fn through_http(case: &Case) -> Outcome {
    let directory = tempfile::tempdir().expect("a directory");
    let serving = runtime();
    let node = serving.block_on(start(directory.path()));
    let addr = node.addr().expect("it listens");
    let requests: VecDeque<Bytes> =
        case.events.chunks(case.per_request).map(|chunk| Bytes::from(chunk.join("\n"))).collect();
    let requests = Arc::new(Mutex::new(requests));
    let driving = runtime();
    let began = Instant::now();
    let latencies = driving.block_on(async {
        let drivers: Vec<_> = (0..case.connections)
            .map(|_| tokio::spawn(drive(addr, Arc::clone(&requests))))
            .collect();
        let mut all = Vec::new();
        for driver in drivers {
            all.extend(driver.await.expect("a driver ends"));
        }
        all
    });
    let durable = began.elapsed();
    serving.block_on(node.wait_for(node.head())).unwrap();
    let projected = began.elapsed();
    assert_eq!(node.head().get(), case.events.len() as u64, "all events are in the log");
    serving.block_on(node.stop(Duration::from_secs(10)));
    Outcome { durable, projected, latencies }
}

async fn start(directory: &Path) -> SystemCore {
    let store = directory.join("smith.db");
    let listen = "127.0.0.1:0".parse().expect("an address");
    SystemCore::embedded()
        .store(store.to_string_lossy())
        .listen(listen)
        .start()
        .await
        .expect("the node starts")
}

/// One connection that sends request after request and says how long each took.
async fn drive(addr: SocketAddr, requests: Arc<Mutex<VecDeque<Bytes>>>) -> Vec<Duration> {
    let stream = TcpStream::connect(addr).await.expect("connected");
    stream.set_nodelay(true).expect("set");
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    let connection = tokio::spawn(connection);
    let mut latencies = Vec::new();
    loop {
        let body = requests.lock().expect("no driver panics").pop_front();
        let Some(body) = body else { break };
        let request = hyper::Request::post("/api/v1/data/ingest")
            .header("host", addr.to_string())
            .header("content-type", "application/x-ndjson")
            .body(Full::new(body))
            .expect("a request");
        let began = Instant::now();
        let response = sender.send_request(request).await.expect("an answer");
        let status = response.status();
        let answer = response.into_body().collect().await.expect("a whole answer").to_bytes();
        latencies.push(began.elapsed());
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    }
    drop(sender);
    let _ = connection.await;
    latencies
}
