//! Queues on real brokers.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use mister_smith::SystemCore;
use mister_smith::actors::bus::Subject;
use mister_smith::actors::bus::queue::nats::Connection;
use mister_smith::actors::bus::queue::{
    Queue, QueueError, QueueOptions, Receiver, Retention, Sender, conformance, connect,
};
use mister_smith::actors::bus::wire::WireMessage;
use mister_smith::actors::bus::{Pattern, queue};
use mister_smith::actors::event::{ContentType, StreamId};
use mister_smith::actors::ingest::Incoming;
use mister_smith::actors::store::{EventFilter, IdempotencyKey};
use mister_smith_testkit::{Broker, eventually};

use crate::server::DEADLINE;

mod faults;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_keeps_every_law_of_queues() {
    let server = Broker::nats().await;
    let connection = Connection::open(&server.url()).await.unwrap();
    ready(&connection).await;
    Box::pin(conformance::run(&move |options| {
        let queue = connection.queue(options);
        async move { Arc::new(queue) as Arc<dyn Queue> }.boxed()
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_every_law_of_queues() {
    let server = Broker::redis().await;
    let url = server.url();
    Box::pin(conformance::run(&move |options| {
        let url = url.clone();
        async move { connect(&url, options).await.unwrap() }.boxed()
    }))
    .await;
}

async fn ready(connection: &Connection) {
    eventually(DEADLINE, async || match connection.is_connected() {
        true => Ok(()),
        false => Err("not connected".to_owned()),
    })
    .await;
}

fn message(n: usize) -> WireMessage {
    WireMessage::new(&Subject::of(["load", "n"]), format!("m{n}"), n.to_string().into_bytes())
}

/// Sends what is not sent yet, as often as it takes; as a sender must that wants it there.
async fn send_all(queue: &dyn Sender, messages: &[WireMessage]) {
    let mut rest = messages;
    while !rest.is_empty() {
        match queue.send(rest).await {
            Ok(_) => return,
            Err(error) => {
                rest = &rest[error.sent..];
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Receives until `count` different messages were acknowledged; in the order of their first
/// coming.
async fn receive_all(queue: &dyn Receiver, count: usize, order: &Mutex<Vec<String>>) {
    let mut seen = BTreeSet::new();
    while seen.len() < count {
        let Ok(page) = queue.receive(100, Duration::from_millis(200)).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        for one in page {
            if seen.insert(one.message.id.clone()) {
                order.lock().unwrap().push(one.message.id.clone());
            }
            // One that cannot be acknowledged comes again.
            let _ = queue.ack(&one.receipt).await;
        }
    }
}

async fn received(queue: &dyn Receiver, count: usize) -> Vec<String> {
    let order = Mutex::default();
    receive_all(queue, count, &order).await;
    order.into_inner().unwrap()
}

/// The broker is killed again and again while messages go through it.
async fn killed_under_load(server: Broker) {
    const COUNT: usize = 2_000;
    let options = || QueueOptions::new("load").ack_within(Duration::from_secs(2)).sole_sender();
    let sender = connect(&server.url(), options()).await.unwrap().sender();
    let receiver = connect(&server.url(), options()).await.unwrap().receiver("g").unwrap();
    eventually(DEADLINE, async || receiver.waiting().await.map_err(|error| error.to_string()))
        .await;
    let sending = tokio::spawn(async move {
        let all: Vec<_> = (0..COUNT).map(message).collect();
        for part in all.chunks(20) {
            send_all(&*sender, part).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let (watched, seen) = (Arc::clone(&receiver), Arc::new(Mutex::new(Vec::new())));
    let order = Arc::clone(&seen);
    let receiving = tokio::spawn(async move { receive_all(&*receiver, COUNT, &order).await });
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.kill9();
        tokio::time::sleep(Duration::from_millis(200)).await;
        server.restart().await;
    }
    let deadline = Duration::from_secs(40);
    tokio::time::timeout(deadline, sending).await.expect("all were sent").unwrap();
    let came = tokio::time::timeout(deadline, receiving).await;
    let sent: Vec<_> = (0..COUNT).map(|n| format!("m{n}")).collect();
    let order = seen.lock().unwrap().clone();
    let missing: Vec<_> = sent.iter().filter(|id| !order.contains(id)).collect();
    if came.is_err() {
        let waiting = watched.waiting().await;
        panic!("missing {missing:?}, waiting {waiting:?}\n{}", server.log());
    }
    assert!(order == sent, "they changed places");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_killed_under_load_loses_nothing() {
    killed_under_load(Broker::nats().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_under_load_loses_nothing() {
    killed_under_load(Broker::redis().await).await;
}

/// Redis's client did not try again after its first try.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_down_at_the_start_is_used_when_it_comes() {
    for server in [Broker::nats_that_is_down(), Broker::redis_that_is_down()] {
        let queue = connect(&server.url(), QueueOptions::new("late")).await.unwrap();
        let error = queue.sender().send(&[message(1)]).await.unwrap_err();
        assert!(matches!(error.source, QueueError::Unreachable { .. }), "{error}");
        server.restart().await;
        let subject = Subject::of(["late", "n"]);
        let sent = [WireMessage::new(&subject, "m1", b"1".as_slice())];
        let receiver = queue.receiver("g").unwrap();
        let came = async {
            send_all(&*queue.sender(), &sent).await;
            received(&*receiver, 1).await
        };
        let came = tokio::time::timeout(DEADLINE, came).await;
        assert_eq!(came.expect("it is used"), ["m1"], "{}", server.url());
    }
}

/// A server that comes back without its data shows it: the last number is lower.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_forgot_everything_is_noticed() {
    for server in [Broker::nats().await, Broker::redis().await] {
        let queue = connect(&server.url(), QueueOptions::new("load")).await.unwrap();
        let sender = queue.sender();
        send_all(&*sender, &(0..10).map(message).collect::<Vec<_>>()).await;
        let before = sender.tail().await.unwrap();
        server.kill9();
        server.forget();
        server.restart().await;
        let after =
            eventually(DEADLINE, async || sender.tail().await.map_err(|error| error.to_string()))
                .await;
        assert!(after < before, "{after} {before}");
        send_all(&*sender, &[message(7)]).await;
        assert_eq!(
            received(&*queue.receiver("g").unwrap(), 1).await,
            ["m7"],
            "what was known before is not any more"
        );
    }
}

/// Our patterns and nats-server's agree on random subjects.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wildcards_are_those_of_the_server() {
    use futures_util::StreamExt;
    let server = Broker::nats().await;
    let connection = Connection::open(&server.url()).await.unwrap();
    ready(&connection).await;
    let client = connection.client();
    let patterns = ["a", "a.*", "a.>", "*.b", "*.*.c", "a.*.c", "*.b.>", "b.>"];
    let subjects = ["a", "b", "a.b", "b.b", "a.b.c", "a.c.c", "b.b.c.d", "c", "b.a"];
    let mut streams = Vec::new();
    for pattern in patterns {
        streams.push(client.subscribe(pattern).await.unwrap());
    }
    client.flush().await.unwrap();
    for subject in subjects {
        client.publish(subject, "x".into()).await.unwrap();
    }
    for pattern in patterns {
        // Each stream ends with this one.
        let last = pattern.replace(['>', '*'], "end");
        client.publish(last, "end".into()).await.unwrap();
    }
    for (pattern, stream) in patterns.iter().zip(&mut streams) {
        let ours = Pattern::new(*pattern).unwrap();
        let wanted: Vec<_> = subjects
            .iter()
            .filter(|subject| ours.matches(&Subject::new(**subject).unwrap()))
            .map(|subject| (*subject).to_owned())
            .collect();
        let mut got = Vec::new();
        while got.len() < wanted.len() {
            let message = stream.next().await.unwrap();
            assert_eq!(&message.payload[..], b"x", "{pattern}: {got:?} {wanted:?}");
            got.push(message.subject.to_string());
        }
        assert_eq!(got, wanted, "{pattern}");
        let next = stream.next().await.unwrap();
        assert_eq!(&next.payload[..], b"end", "{pattern}: {}", next.subject);
    }
}

#[tokio::test]
async fn an_address_that_is_none_is_refused() {
    let error = connect("kafka://x", QueueOptions::new("q")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "kafka://x is not the address of a queue; give memory:, nats://HOST:PORT or \
         redis://HOST:PORT"
    );
    let error = queue::connect("memory:", QueueOptions::new("a b")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        r#""a b" is not a name of a queue or a group; use letters, digits, - and _"#
    );
}

/// A node whose broker is down takes events all the same, and the broker gets them when it comes;
/// one that comes back without its data gets them again. Each event arrives, in the order of the
/// log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_sends_what_is_in_its_log_whatever_happens_to_the_broker() {
    const NAME: &str = "shop";
    let server = Broker::nats_that_is_down();
    let url = server.url();
    let dir = tempfile::tempdir().unwrap();
    let options = || QueueOptions::new(NAME).retention(Retention::Log).sole_sender();
    let queue = connect(&url, options()).await.unwrap();
    let core = SystemCore::embedded()
        .store(format!("sqlite://{}", dir.path().join("smith.db").display()))
        .outbox(NAME, queue.sender(), EventFilter::ALL)
        .start()
        .await
        .unwrap();
    let streams = core.ingest();
    let ingest = async |from: usize, to: usize| {
        for n in from..to {
            let event = Incoming {
                event_type: "order.placed".into(),
                codec: ContentType::Json,
                data: n.to_string().into_bytes().into(),
                meta: Default::default(),
                key: IdempotencyKey::of([n.to_string()]),
            };
            let stream = StreamId::new(format!("order-{}", n % 3)).unwrap();
            streams.ingest(&stream, vec![event]).await.unwrap();
        }
    };
    ingest(0, 100).await;
    server.restart().await;
    let reader = connect(&url, options()).await.unwrap().receiver("readers").unwrap();
    // What was acknowledged may come again: a server that is killed forgets some of that.
    let positions = async |seen: &mut BTreeSet<u64>, count: usize| {
        let mut order = Vec::new();
        while order.len() < count {
            let page = reader.receive(100, Duration::from_millis(200)).await;
            let Ok(page) = page else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            for one in page {
                let position: u64 = one.message.headers["Smith-Position"].parse().unwrap();
                if seen.insert(position) {
                    order.push(position);
                }
                let _ = reader.ack(&one.receipt).await;
            }
        }
        order
    };
    let wait = Duration::from_secs(60);
    let mut seen = BTreeSet::new();
    let got = tokio::time::timeout(wait, positions(&mut seen, 100)).await.expect("all came");
    assert_eq!(got, (1..=100).collect::<Vec<_>>());

    server.kill9();
    ingest(100, 150).await;
    server.restart().await;
    let got = tokio::time::timeout(wait, positions(&mut seen, 50)).await.expect("all came");
    assert_eq!(got, (101..=150).collect::<Vec<_>>());

    // Power loss, as far as the broker is concerned.
    server.kill9();
    server.forget();
    server.restart().await;
    ingest(150, 160).await;
    // Whoever comes first makes the stream again, and the last ten may be in it before the rest is
    // sent again.
    let mut again = BTreeSet::new();
    let wait = Duration::from_secs(20);
    let came = tokio::time::timeout(wait, positions(&mut again, 160)).await;
    assert!(came.is_ok(), "only {again:?}\n{}", core.tree());
    assert_eq!(again, (1..=160).collect::<BTreeSet<_>>());
    assert!(core.stop(wait).await);
}
