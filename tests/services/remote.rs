//! Requests and commands between nodes, over a NATS server that is killed and started again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use mister_smith::SystemCore;
use mister_smith::actors::bus::broker::Broker as SmithBroker;
use mister_smith::actors::bus::key_value::{BucketOptions, From};
use mister_smith::actors::bus::queue::nats::Connection;
use mister_smith::actors::bus::remote::{Remote, RemoteError, conformance};
use mister_smith::actors::bus::wire::WireMessage;
use mister_smith::actors::command::remote::server::{ServeOptions, Served};
use mister_smith::actors::command::remote::{RemoteCommandError, RemoteCommands, RemoteOptions};
use mister_smith::actors::event::{Decoder, Position, Version};
use mister_smith::prelude::*;
use mister_smith_testkit::{Broker, Postgres, eventually};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::server::{DEADLINE, database};

/// Commands of a test.
const COUNT: u64 = 300;

pub(crate) async fn connected(url: &str) -> Connection {
    let connection = Connection::open(url).await.unwrap();
    let connecting = async {
        while !connection.is_connected() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, connecting).await.expect("it connects");
    connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_keeps_every_law_of_requests() {
    let server = Broker::nats().await;
    let url = server.url();
    Box::pin(conformance::run(&move || {
        let url = url.clone();
        async move { Arc::new(connected(&url).await) as Arc<dyn Remote> }.boxed()
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_connection_nothing_is_sent() {
    let server = Broker::nats_that_is_down();
    let connection = Connection::open(&server.url()).await.unwrap();
    let message = WireMessage::new(&Subject::new("x").unwrap(), "", "");
    let error = connection.request(&message, DEADLINE).await.unwrap_err();
    assert!(matches!(error, RemoteError::Unreachable { .. }), "{error}");
}

/// Each command is one tick, and none is ever refused: what is doubled is one tick too many.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Clock;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Tick {
    number: u64,
}

#[derive(Debug, Serialize, Deserialize)]
enum Ticked {
    #[serde(rename = "clock.ticked")]
    Ticked { number: u64 },
}

impl Event for Ticked {}

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

impl Aggregate for Clock {
    type Command = Tick;
    type Event = Ticked;
    type Rejection = Never;
    const CATEGORY: &'static str = "clock";

    fn decide(&self, tick: &Tick) -> Result<Vec<Ticked>, Never> {
        Ok(vec![Ticked::Ticked { number: tick.number }])
    }

    fn evolve(&mut self, _: Ticked) {}
}

/// A node that serves clocks.
async fn node(name: &str, store: &str, remote: &Connection) -> SystemCore {
    let core = SystemCore::embedded().name(name).store(store);
    let served = [Served::of::<Clock>()];
    core.serve_commands(Arc::new(remote.clone()), ServeOptions::default(), served)
        .start()
        .await
        .unwrap()
}

/// A sender on no node: its keys are the numbers of the ticks.
fn client(remote: &Connection) -> RemoteCommands {
    let options = RemoteOptions::default()
        .deadline(Duration::from_secs(60))
        .repeat_after(Duration::from_millis(500))
        .absent_for(Duration::from_secs(60));
    RemoteCommands::new(Arc::new(remote.clone()), options, || unreachable!("each has a key"))
}

/// Sends ticks one after the other, and notes which were acknowledged, and how far it is.
async fn tick_all(client: &RemoteCommands, done: &AtomicU64) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    for number in 0..COUNT {
        let tick = CommandEnvelope::new(Tick { number }).key(number.to_string());
        match client.send::<Clock>(&format!("{}", number % 3), tick).await {
            Ok(executed) => {
                assert_eq!(executed.events, 1);
                acknowledged.push(number);
            }
            Err(error) => panic!("tick {number}: {error}"),
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    acknowledged
}

async fn reached(done: &AtomicU64, count: u64) {
    eventually(DEADLINE, async || match done.load(Ordering::Relaxed) {
        now if now >= count => Ok(()),
        now => Err(format!("{now} of {count}")),
    })
    .await;
}

/// The numbers of all ticks in the log, sorted.
async fn ticks(core: &SystemCore) -> Vec<u64> {
    let store = core.pool().lease().await.unwrap().store;
    let log = store.read_all(Position::ZERO, 2_000).await.unwrap();
    let decoder = Decoder::<Ticked>::new();
    let mut numbers: Vec<u64> = log
        .iter()
        .filter(|event| &*event.event_type == "clock.ticked")
        .map(|event| {
            let Ticked::Ticked { number } = decoder.decode(event).unwrap();
            number
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

/// The broker is killed and started again while commands are sent: each is executed once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_loses_and_doubles_no_command() {
    let server = Broker::nats().await;
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite://{}", dir.path().join("smith.db").display());
    let core = node("node", &store, &connected(&server.url()).await).await;
    let sender = client(&connected(&server.url()).await);
    let done = AtomicU64::new(0);
    let killing = async {
        for round in 1..=3 {
            reached(&done, round * 60).await;
            server.kill9();
            server.restart().await;
        }
    };
    let (acknowledged, ()) = tokio::join!(tick_all(&sender, &done), killing);
    assert_eq!(acknowledged, (0..COUNT).collect::<Vec<_>>());
    assert_eq!(ticks(&core).await, acknowledged, "each is in the log once");
    assert!(core.stop(Duration::from_secs(20)).await);
}

/// Two nodes on one database serve the same commands; one of them is stopped, and the broker is
/// killed besides: nothing acknowledged is lost, and nothing is doubled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_share_commands_and_one_of_them_goes() {
    let (server, postgres) = (Broker::nats().await, Postgres::start().await);
    let url = database(&postgres).await;
    let leaves = node("leaves", &url, &connected(&server.url()).await).await;
    let stays = node("stays", &url, &connected(&server.url()).await).await;
    let sender = client(&connected(&server.url()).await);
    let done = AtomicU64::new(0);
    let disturbing = async {
        reached(&done, 80).await;
        let both = [&leaves, &stays].map(|core| core.tree().to_string());
        for tree in both {
            assert!(!tree.contains(" 0 answered"), "both work:\n{tree}");
        }
        assert!(leaves.stop(Duration::from_secs(20)).await);
        reached(&done, 160).await;
        server.kill9();
        server.restart().await;
    };
    let (acknowledged, ()) = tokio::join!(tick_all(&sender, &done), disturbing);
    assert_eq!(acknowledged, (0..COUNT).collect::<Vec<_>>());
    assert_eq!(ticks(&stays).await, acknowledged, "each is in the log once");
    assert!(stays.stop(Duration::from_secs(20)).await);
}

/// Between a node and its broker: cuts the connection at the first answer, once it is told to.
struct Scissors {
    port: u16,
    armed: Arc<AtomicBool>,
    cut: Arc<Semaphore>,
}

impl Scissors {
    /// A way to the server that can be cut. What the node sends is looked at for an answer of the
    /// command server.
    async fn to(url: &str) -> Self {
        let server = url.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (armed, cut) = (Arc::new(AtomicBool::new(false)), Arc::new(Semaphore::new(0)));
        let (arms, cuts) = (Arc::clone(&armed), Arc::clone(&cut));
        tokio::spawn(async move {
            loop {
                let Ok((node, _)) = listener.accept().await else { return };
                let Ok(broker) = TcpStream::connect(&server).await else { continue };
                let (armed, cut) = (Arc::clone(&arms), Arc::clone(&cuts));
                tokio::spawn(async move {
                    let ((mut from_node, mut to_node), (mut from_broker, mut to_broker)) =
                        (node.into_split(), broker.into_split());
                    let down = async {
                        let _ = tokio::io::copy(&mut from_broker, &mut to_node).await;
                    };
                    let up = async {
                        let mut buffer = vec![0; 64 << 10];
                        while let Ok(read @ 1..) = from_node.read(&mut buffer).await {
                            let sent = &buffer[..read];
                            let answers = sent.windows(12).any(|part| part == b"Smith-Status");
                            if answers && armed.swap(false, Ordering::SeqCst) {
                                cut.add_permits(1);
                                return;
                            }
                            if to_broker.write_all(sent).await.is_err() {
                                return;
                            }
                        }
                    };
                    tokio::select! {
                        biased;
                        () = up => {}
                        () = down => {}
                    }
                });
            }
        });
        Self { port, armed, cut }
    }
}

/// The connection is cut between the commit and the answer: the event is in the log, nobody knows,
/// the sender repeats, and the event is there once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_cut_off_doubles_nothing() {
    let server = Broker::nats().await;
    let scissors = Scissors::to(&server.url()).await;
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite://{}", dir.path().join("smith.db").display());
    let way = connected(&format!("nats://127.0.0.1:{}", scissors.port)).await;
    let core = node("node", &store, &way).await;
    let sender = client(&connected(&server.url()).await);
    for number in 0..3 {
        scissors.armed.store(true, Ordering::SeqCst);
        let tick = CommandEnvelope::new(Tick { number }).key(number.to_string());
        let executed = sender.send::<Clock>("1", tick).await.unwrap();
        scissors.cut.acquire().await.unwrap().forget();
        assert!(executed.duplicate, "the first try has done it");
        assert_eq!(executed.version, Version::new(number + 1));
    }
    assert_eq!(ticks(&core).await, [0, 1, 2]);
    assert!(core.stop(Duration::from_secs(20)).await);
}

/// A node goes between the commit and the answer, and another on the same database gets the repeat:
/// it knows the key from the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_goes_before_its_answer_has_done_it_once() {
    let (server, postgres) = (Broker::nats().await, Postgres::start().await);
    let url = database(&postgres).await;
    let scissors = Scissors::to(&server.url()).await;
    let way = connected(&format!("nats://127.0.0.1:{}", scissors.port)).await;
    let first = node("first", &url, &way).await;
    let remote = connected(&server.url()).await;
    let sender = client(&remote);
    scissors.armed.store(true, Ordering::SeqCst);
    let sending = {
        let sender = sender.clone();
        tokio::spawn(async move {
            let tick = CommandEnvelope::new(Tick { number: 7 }).key("seven");
            sender.send::<Clock>("1", tick).await
        })
    };
    scissors.cut.acquire().await.unwrap().forget();
    // Its answer is lost, and it serves no more.
    first.actors().suspend("/edge/commands").await.unwrap();
    let second = node("second", &url, &remote).await;
    let executed = sending.await.unwrap().unwrap();
    assert!(executed.duplicate, "{executed:?}");
    assert_eq!(ticks(&second).await, [7]);
    for core in [first, second] {
        core.stop(Duration::from_secs(20)).await;
    }
}

/// Nobody is there, and the sender is told, not left to wait for its deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_who_serves_is_not_a_timeout() {
    let server = Broker::nats().await;
    let options = RemoteOptions::default().deadline(DEADLINE * 10).absent_for(Duration::ZERO);
    let remote = Arc::new(connected(&server.url()).await);
    let sender = RemoteCommands::new(remote, options, || "key".to_owned());
    let error = sender.send::<Clock>("1", Tick { number: 1 }).await.unwrap_err();
    assert!(matches!(error, RemoteCommandError::NobodyServes { .. }), "{error}");
    assert!(!error.is_unknown());
}

/// One connection for all of a node, owned by an actor that is killed again and again, and a
/// broker that is killed besides: commands, a queue, a bucket and a watch go on, and nothing is
/// doubled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_s_connection_is_supervised() {
    let server = Broker::nats().await;
    let dir = tempfile::tempdir().unwrap();
    let broker = SmithBroker::new(&server.url()).unwrap();
    let core = SystemCore::embedded()
        .store(format!("sqlite://{}", dir.path().join("smith.db").display()))
        .broker(&broker)
        .serve_commands(broker.remote(), ServeOptions::default(), [Served::of::<Clock>()])
        .start()
        .await
        .unwrap();
    eventually(DEADLINE, async || match broker.status() {
        status if status.round_trip_us.is_some() => Ok(()),
        status => Err(format!("{status:?}")),
    })
    .await;
    let status = broker.status();
    assert!(status.jetstream && status.server_version.is_some(), "{status:?}");

    let bucket = broker.bucket(BucketOptions::new("progress").history(64)).unwrap();
    let mut watch = bucket.watch("done", From::Current).await.unwrap();
    let sender = client(&connected(&server.url()).await);
    let done = AtomicU64::new(0);
    let disturbing = async {
        for round in 1..=4 {
            reached(&done, round * 50).await;
            core.actors().kill("/resources/broker.nats").unwrap();
            if round == 3 {
                server.kill9();
                server.restart().await;
            }
        }
        // All that the broker gives works over its last life.
        eventually(DEADLINE, async || {
            let put = bucket.put("done", "yes".into()).await;
            put.map_err(|error| error.to_string())
        })
        .await;
    };
    let watching = async {
        loop {
            if let Some(Ok(entry)) = watch.changes.next().await {
                return entry.value;
            }
        }
    };
    let all = async { tokio::join!(tick_all(&sender, &done), disturbing, watching) };
    let (acknowledged, (), seen) = tokio::time::timeout(DEADLINE, all).await.expect("all goes on");
    assert_eq!(&seen[..], b"yes");
    assert_eq!(acknowledged, (0..COUNT).collect::<Vec<_>>());
    assert_eq!(ticks(&core).await, acknowledged, "each is in the log once");
    assert!(core.stop(Duration::from_secs(20)).await);
    assert!(!broker.status().connected);
}
