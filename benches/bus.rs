//! The bus, the queues, the outbox and the sagas, against what they are made of.
//!
//! `cargo bench --bench bus --all-features`; a word after `--` runs only the parts that have it in
//! their name: `bus`, `latency`, `nats`, `request`, `outbox`, `saga`, `timer`, `flow`. Only when it is
//! asked for: `open`, 20,000 open sagas (or `SMITH_BENCH_OPEN`) whose node ends while two others
//! stand by.
//!
//! Rates of a shared machine swing; the ratios are taken pair by pair in one run, and their median
//! is printed. The driver runs on a thread beside the two workers.

#![allow(clippy::expect_used, missing_docs, reason = "a benchmark may panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mister_smith::SystemCore;
use mister_smith::actors::bus::queue::nats::Connection;
use mister_smith::actors::bus::queue::{Queue, QueueOptions, in_process};
use mister_smith::actors::bus::remote::Remote;
use mister_smith::actors::bus::wire::WireMessage;
use mister_smith::actors::event::flow::{Freshness, Link, ReplayWindow, check_chain};
use mister_smith::actors::event::{ContentType, EventId, Timestamp};
use mister_smith::actors::ingest::Incoming;
use mister_smith::actors::store::{EventFilter, IdempotencyKey};
use mister_smith::prelude::*;
use mister_smith_testkit::Broker;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};

#[path = "bus/sagas.rs"]
mod sagas;
#[path = "bus/timers.rs"]
mod timers;

const ROUNDS: usize = 5;

/// About 300 bytes, as the events of the other benchmarks.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Happened {
    #[serde(rename = "order.placed")]
    Placed { text: String },
}

impl Event for Happened {}

fn happened() -> Happened {
    Happened::Placed { text: "x".repeat(270) }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

async fn node(dir: &tempfile::TempDir) -> SystemCore {
    let store = format!("sqlite://{}", dir.path().join("smith.db").display());
    SystemCore::embedded().store(store).start().await.expect("a node")
}

/// Counts what comes, and wakes who waits for the last one.
#[derive(Default)]
struct Count {
    seen: AtomicU64,
    wanted: AtomicU64,
    done: Notify,
}

impl Count {
    fn one(&self) {
        if self.seen.fetch_add(1, Ordering::Relaxed) + 1 == self.wanted.load(Ordering::Relaxed) {
            self.done.notify_one();
        }
    }

    async fn all(&self) {
        while self.seen.load(Ordering::Relaxed) < self.wanted.load(Ordering::Relaxed) {
            let _ = tokio::time::timeout(Duration::from_millis(100), self.done.notified()).await;
        }
    }
}

/// One publisher to so many subscribers: deliveries a second through the bus.
async fn through_the_bus(bus: &EventBus, subscribers: usize, events: usize) -> f64 {
    let count = Arc::new(Count::default());
    count.wanted.store((subscribers * events) as u64, Ordering::Relaxed);
    for n in 0..subscribers {
        let count = Arc::clone(&count);
        let wait = Overflow::Wait(Duration::from_secs(30));
        let subscription = Subscription::new(format!("s{n}"), "bench.*").expect("a pattern");
        bus.subscribe(subscription.buffer(1_024, wait), move || {
            let count = Arc::clone(&count);
            move |_: Delivery| {
                count.one();
                async { Outcome::Ack }
            }
        })
        .await
        .expect("a subscription");
    }
    let (subject, event) = (Subject::new("bench.x").expect("a subject"), happened());
    let began = Instant::now();
    let mut publisher = bus.publisher(subject);
    for _ in 0..events {
        publisher.publish(event.clone()).await.expect("room");
    }
    count.all().await;
    let rate = rate(subscribers * events, began.elapsed());
    for n in 0..subscribers {
        bus.unsubscribe(&format!("s{n}")).await.expect("it is there");
    }
    rate
}

/// The same through bare tokio channels: one `Arc` an event, a bounded channel a subscriber.
async fn through_channels(subscribers: usize, events: usize) -> f64 {
    let count = Arc::new(Count::default());
    count.wanted.store((subscribers * events) as u64, Ordering::Relaxed);
    let mut senders = Vec::new();
    for _ in 0..subscribers {
        let (sender, mut receiver) = mpsc::channel::<Arc<Happened>>(1_024);
        let count = Arc::clone(&count);
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while receiver.recv_many(&mut batch, 256).await > 0 {
                for event in batch.drain(..) {
                    std::hint::black_box(&event);
                    count.one();
                }
            }
        });
        senders.push(sender);
    }
    let event = happened();
    let began = Instant::now();
    for _ in 0..events {
        let event = Arc::new(event.clone());
        for sender in &senders {
            if let Err(mpsc::error::TrySendError::Full(event)) = sender.try_send(Arc::clone(&event))
            {
                sender.send(event).await.expect("a receiver");
            }
        }
    }
    count.all().await;
    rate(subscribers * events, began.elapsed())
}

async fn fan_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let core = node(&dir).await;
    for (subscribers, events) in [(1, 1_000_000), (4, 500_000), (64, 40_000)] {
        let (mut ours, mut ratios) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let bus = through_the_bus(core.bus(), subscribers, events).await;
            let channels = through_channels(subscribers, events).await;
            ours.push(bus);
            ratios.push(bus / channels);
        }
        let (ours, ratio) = (median(ours), median(ratios));
        println!(
            "bus       1 -> {subscribers:<3} {:>8.2} M deliveries/s  {:>8.2} M events/s  {ratio:.2} x tokio mpsc",
            ours / 1e6,
            ours / subscribers as f64 / 1e6
        );
    }
    core.stop(Duration::from_secs(10)).await;
}

/// How long a publish to four subscribers takes at a given rate, and until it is handled.
async fn latency() {
    let dir = tempfile::tempdir().expect("a directory");
    let core = node(&dir).await;
    let (times, mut handled) = mpsc::unbounded_channel::<Duration>();
    let epoch = Instant::now();
    for n in 0..4 {
        let times = (n == 0).then(|| times.clone());
        let subscription = Subscription::new(format!("s{n}"), "bench.*").expect("a pattern");
        core.bus()
            .subscribe(subscription.buffer(65_536, Overflow::default()), move || {
                let times = times.clone();
                move |delivery: Delivery| {
                    if let (Some(times), Ok(event)) = (&times, delivery.message.event::<Happened>())
                    {
                        let Happened::Placed { text } = &*event;
                        if let Ok(sent) = text.parse::<u64>() {
                            let sent = Duration::from_nanos(sent);
                            let _ = times.send(epoch.elapsed().saturating_sub(sent));
                        }
                    }
                    async { Outcome::Ack }
                }
            })
            .await
            .expect("a subscription");
    }
    let subject = Subject::new("bench.x").expect("a subject");
    for rate in [100_000_u64, 500_000] {
        let mut publishes = Vec::new();
        let began = Instant::now();
        let events = rate * 2;
        let plain = happened();
        for n in 0..events {
            // In bursts of a millisecond, as events come.
            if n % (rate / 1_000) == 0 {
                let due = began + Duration::from_millis(n / (rate / 1_000));
                tokio::time::sleep_until(due.into()).await;
            }
            let sampled = n % 64 == 0;
            let event = match sampled {
                true => Happened::Placed { text: epoch.elapsed().as_nanos().to_string() },
                false => plain.clone(),
            };
            let at = sampled.then(Instant::now);
            core.bus().publish_event(subject.clone(), event).await.expect("room");
            if let Some(at) = at {
                publishes.push(at.elapsed());
            }
        }
        let took = began.elapsed();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut deliveries = Vec::new();
        while let Ok(one) = handled.try_recv() {
            deliveries.push(one);
        }
        publishes.sort();
        deliveries.sort();
        let at = |all: &[Duration], part: f64| all[((all.len() - 1) as f64 * part) as usize];
        println!(
            "latency   {:>3} k/s to 4 (kept {:.0} k/s)  publish p50 {:?} p99 {:?}  delivered p50 {:?} p99 {:?}",
            rate / 1_000,
            events as f64 / took.as_secs_f64() / 1_000.0,
            at(&publishes, 0.5),
            at(&publishes, 0.99),
            at(&deliveries, 0.5),
            at(&deliveries, 0.99)
        );
    }
    core.stop(Duration::from_secs(10)).await;
}

fn wire(name: &str, n: usize) -> WireMessage {
    let subject = Subject::of([name, "x"]);
    WireMessage::new(&subject, format!("{name}-{n}"), vec![b'x'; 300])
}

/// Through the queue, and through the bare client with the same window and ids.
async fn nats() {
    const EVENTS: usize = 20_000;
    let server = Broker::nats().await;
    let connection = Connection::open(&server.url()).await.expect("a connection");
    while !connection.is_connected() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (mut ours, mut ratios, mut consumed, mut consume_ratios) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let name = format!("ours{round}");
        let queue = connection.queue(QueueOptions::new(&name));
        let (sender, queue) = (queue.sender(), queue.receiver("g").expect("a name"));
        let messages: Vec<_> = (0..EVENTS).map(|n| wire(&name, n)).collect();
        queue.waiting().await.expect("it is reachable");
        let began = Instant::now();
        sender.send(&messages).await.expect("they are sent");
        let sent = rate(EVENTS, began.elapsed());
        let began = Instant::now();
        let mut got = 0;
        while got < EVENTS {
            let page = queue.receive(500, Duration::from_secs(1)).await.expect("it is reachable");
            got += page.len();
            let acks = page.iter().map(|one| queue.ack(&one.receipt));
            for ack in futures_util::future::join_all(acks).await {
                ack.expect("it is acknowledged");
            }
        }
        let received = rate(EVENTS, began.elapsed());

        let (bare_sent, bare_received) = bare_nats(&connection, round, EVENTS).await;
        ours.push(sent);
        ratios.push(sent / bare_sent);
        consumed.push(received);
        consume_ratios.push(received / bare_received);
    }
    println!(
        "nats      publish {:.1} k/s  {:.2} x async-nats   consume and ack {:.1} k/s  {:.2} x async-nats",
        median(ours) / 1e3,
        median(ratios),
        median(consumed) / 1e3,
        median(consume_ratios)
    );
}

async fn bare_nats(connection: &Connection, round: usize, events: usize) -> (f64, f64) {
    use async_nats::jetstream::consumer::pull;
    use async_nats::jetstream::message::PublishMessage;
    use async_nats::jetstream::stream::Config;
    use futures_util::StreamExt;
    let context = connection.jetstream();
    let name = format!("bare{round}");
    let config =
        Config { name: name.clone(), subjects: vec![format!("{name}.>")], ..Config::default() };
    let stream = context.create_stream(config).await.expect("a stream");
    let subject = format!("{name}.x");
    let payload = bytes::Bytes::from(vec![b'x'; 300]);
    let began = Instant::now();
    for window in 0..events / 250 {
        let mut acks = Vec::new();
        for n in 0..250 {
            let publish = PublishMessage::build()
                .payload(payload.clone())
                .message_id(format!("{name}-{window}-{n}"));
            acks.push(context.send_publish(subject.clone(), publish).await.expect("it is sent"));
        }
        for ack in acks {
            ack.await.expect("it is acknowledged");
        }
    }
    let sent = rate(events, began.elapsed());
    let config = pull::Config { durable_name: Some("g".to_owned()), ..pull::Config::default() };
    let consumer = stream.create_consumer(config).await.expect("a consumer");
    let began = Instant::now();
    let mut got = 0;
    while got < events {
        let mut batch =
            consumer.fetch().max_messages(500).messages().await.expect("it is reachable");
        let mut page = Vec::new();
        while let Some(message) = batch.next().await {
            page.push(message.expect("a message"));
        }
        got += page.len();
        let acks = page.iter().map(|message| message.double_ack());
        for ack in futures_util::future::join_all(acks).await {
            ack.expect("it is acknowledged");
        }
    }
    (sent, rate(events, began.elapsed()))
}

/// `times` calls, so many at once; calls a second.
async fn asked<F: Future<Output = ()>>(times: usize, at_once: usize, ask: impl Fn() -> F) -> f64 {
    let began = Instant::now();
    let one = || async {
        for _ in 0..times / at_once {
            ask().await;
        }
    };
    futures_util::future::join_all((0..at_once).map(|_| one())).await;
    rate(times / at_once * at_once, began.elapsed())
}

/// A request of 300 bytes and its answer, through the port and through the bare client; who answers
/// has a connection of its own.
async fn request() {
    use futures_util::StreamExt;
    use mister_smith::actors::bus::remote::Asked;
    const EVENTS: usize = 20_000;
    const WAIT: Duration = Duration::from_secs(10);
    let server = Broker::nats().await;
    let open = async || {
        let connection = Connection::open(&server.url()).await.expect("a connection");
        while !connection.is_connected() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        connection
    };
    let (asker, answerer) = (open().await, open().await);
    let mut requests =
        answerer.serve(&Pattern::new("ours.x").expect("one"), "g").await.expect("it serves");
    let ours = tokio::spawn(async move {
        while let Some(asked) = requests.next().await {
            let Asked { message, .. } = &asked;
            let answer = WireMessage::answer(message.payload.clone());
            asked.answer(answer).await.expect("it is sent");
        }
    });
    let client = answerer.client().clone();
    let mut subscriber = client.queue_subscribe("bare.x", "g".to_owned()).await.expect("it serves");
    client.flush().await.expect("it is sent");
    let bare = tokio::spawn(async move {
        while let Some(message) = subscriber.next().await {
            let to = message.reply.expect("it wants an answer");
            client.publish(to, message.payload).await.expect("it is sent");
        }
    });
    let (message, payload) = (wire("ours", 0), bytes::Bytes::from(vec![b'x'; 300]));
    for at_once in [1, 64] {
        let (mut rates, mut ratios) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let through = asked(EVENTS, at_once, || async {
                asker.request(&message, WAIT).await.expect("it is answered");
            })
            .await;
            let client = asker.client();
            let without = asked(EVENTS, at_once, || async {
                client.request("bare.x", payload.clone()).await.expect("it is answered");
            })
            .await;
            rates.push(through);
            ratios.push(through / without);
        }
        println!(
            "request   {at_once:>2} at once: {:.1} k/s  {:.2} x async-nats",
            median(rates) / 1e3,
            median(ratios)
        );
    }
    ours.abort();
    bare.abort();
}

/// From the acknowledgement of an event until it is received from the queue.
async fn outbox() {
    const EVENTS: usize = 500;
    let dir = tempfile::tempdir().expect("a directory");
    let broker = in_process::Broker::default();
    let options = || QueueOptions::new("out");
    let store = format!("sqlite://{}", dir.path().join("smith.db").display());
    let core = SystemCore::embedded()
        .store(store)
        .outbox("out", broker.queue(options()).sender(), EventFilter::ALL)
        .start()
        .await
        .expect("a node");
    let queue = broker.queue(options()).receiver("g").expect("a name");
    let streams = core.ingest();
    let stream = StreamId::new("order-1").expect("a name");
    let mut lags = Vec::new();
    for n in 0..EVENTS {
        let event = Incoming {
            event_type: "order.placed".into(),
            codec: ContentType::Json,
            data: bytes::Bytes::from(vec![b'1'; 300]),
            meta: bytes::Bytes::new(),
            key: IdempotencyKey::of([n.to_le_bytes()]),
        };
        streams.ingest(&stream, vec![event]).await.expect("it is durable");
        let acknowledged = Instant::now();
        let page = queue.receive(1, Duration::from_secs(5)).await.expect("a queue");
        lags.push(acknowledged.elapsed());
        for one in page {
            queue.ack(&one.receipt).await.expect("a queue");
        }
    }
    lags.sort();
    println!(
        "outbox    acknowledged -> received from a queue in process, SQLite: p50 {:?} p99 {:?}",
        lags[EVENTS / 2],
        lags[EVENTS * 99 / 100]
    );
    core.stop(Duration::from_secs(10)).await;
}

/// What the checks on a flow cost for each event, and of one core at 50,000 events a second. The
/// latency of deliveries is in all other numbers: it is always measured.
fn flow() {
    let events = 1_000_000_u64;
    let share = |what: &str, took: Duration| {
        let ns = took.as_nanos() as f64 / events as f64;
        println!("flow: {what:<44} {ns:6.0} ns an event, {:.2} % of a core at 50 k/s", ns * 5e-3);
    };
    let id = |n: u64| *EventId::at(Timestamp::from_micros(n.cast_signed()), n, n).as_uuid();
    let ids: Vec<_> = (0..events).map(id).collect();

    // Each message is caused by the one before it, in conversations of four.
    let begin = Instant::now();
    let mut metadata = Metadata::default();
    for (n, id) in ids.iter().enumerate() {
        metadata = if n % 4 == 0 { Metadata::default() } else { metadata.caused_by(*id) };
        std::hint::black_box(&metadata);
    }
    share("cause and conversation, handed on", begin.elapsed());

    let links = ids.chunks(4).flat_map(|four| {
        four.iter().enumerate().map(|(n, id)| Link {
            id: *id,
            correlation: Some(four[0]),
            causation: (n > 0).then(|| four[n - 1]),
        })
    });
    let links: Vec<_> = links.collect();
    let begin = Instant::now();
    let faults: usize =
        links.chunks(50_000).map(|page| check_chain(page.iter().copied()).len()).sum();
    share("conversations checked, pages of 50,000", begin.elapsed());
    assert_eq!(faults, 0);

    // A second's worth of a window, at 50,000 a second.
    let (width, skew) = (Duration::from_secs(1), Duration::from_secs(1));
    let mut window = ReplayWindow::new(width, skew, 100_000);
    let begin = Instant::now();
    for (n, id) in ids.iter().enumerate() {
        let at = Timestamp::from_micros(n as i64 * 20);
        assert_eq!(window.check(*id, at, at), Freshness::Fresh);
    }
    share("replay window, 50,000 remembered", begin.elapsed());
}

fn main() {
    let words: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(&**word));
    if wanted("flow") {
        flow();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let run = async |name: &str, part: std::pin::Pin<Box<dyn Future<Output = ()>>>| {
            if wanted(name) {
                part.await;
            }
        };
        run("bus", Box::pin(fan_out())).await;
        run("latency", Box::pin(latency())).await;
        run("nats", Box::pin(nats())).await;
        run("request", Box::pin(request())).await;
        run("outbox", Box::pin(outbox())).await;
        run("saga", Box::pin(sagas::sagas())).await;
        run("timer", Box::pin(timers::timers())).await;
        if words.iter().any(|word| word == "open") {
            let count = std::env::var("SMITH_BENCH_OPEN").ok().and_then(|count| count.parse().ok());
            sagas::open(count.unwrap_or(20_000)).await;
        }
    });
}
