//! The node that is killed: with everything that handles messages, and what each of them has an
//! effect with.
//!
//! | what | gets | effect |
//! |---|---|---|
//! | processor `bill` | orders, by JetStream, in lanes | a command; a result for `pay` |
//! | processor `audit` | orders, by JetStream, in batches | a row, with the inbox |
//! | processor `pay` | results of `bill`, by Redis | a command |
//! | processors `redis`, `jet`, `later` | what is sent to their queues | a command |
//! | consumer `scribe` | orders, from the log | a command |
//! | subscription `ear` | what is published on the bus | a command |
//! | saga `trip` | begun by name | commands |
//! | process `Watch` | every fourth order | a deadline, then a command |

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mister_smith::SystemCore;
use mister_smith::actors::bus::broker::Broker;
use mister_smith::actors::bus::queue::processor::ProcessorOptions;
use mister_smith::actors::bus::queue::{Queue, QueueOptions, connect};
use mister_smith::actors::bus::wire::WireMessage;
use mister_smith::actors::event::codec::{Avro, Codec, Protobuf};
use mister_smith::actors::event::{ContentType, EventCodecError, RecordedEvent};
use mister_smith::actors::ingest::Incoming;
use mister_smith::actors::saga::{SagaError, SagaFilter};
use mister_smith::actors::store::messages::postgres::first_time;
use mister_smith::actors::store::timers::TimerFilter;
use mister_smith::actors::store::{EventFilter, IdempotencyKey};
use mister_smith::prelude::*;
use mister_smith::supervisors::Depth;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio::sync::{mpsc, watch};

use super::items::{BAD_HEADER, Item, Kind, LARGE, NAME, Way, kind_of, number_of};

/// What a process is told.
pub(super) const STORE: &str = "SOAK_STORE";
pub(super) const NATS: &str = "SOAK_NATS";
pub(super) const REDIS: &str = "SOAK_REDIS";
pub(super) const HOME: &str = "SOAK_HOME";

/// How long a message may be with somebody who says nothing.
const ACK_WITHIN: Duration = Duration::from_secs(2);

/// How large a payload may become.
const READ_LIMIT: usize = 4 << 20;

/// What is asked of a process, one JSON text a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// To take an item in.
    Take(Item),
    /// To kill an actor, of all that there are.
    Kill(u64),
    /// All actors.
    Tree,
    /// The same, to be read.
    Show,
    /// What is not done yet.
    Open,
    Stop,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    Done,
    Transient(String),
    Wrong(String),
    Killed(Option<String>),
    /// Path, and what is wrong with it.
    Tree(Vec<(String, String)>),
    Shown(String),
    Open(Vec<String>),
    Stopped(bool),
}

/// The options of a queue, for all who open it.
pub(super) fn queue_options(name: &str) -> QueueOptions {
    QueueOptions::new(name).ack_within(ACK_WITHIN).read_limit(READ_LIMIT)
}

// --- what has effects ----------------------------------------------------------------------------

/// An effect of a handler: it is in the log once for each key.
#[derive(Debug, Clone)]
pub(super) struct Note {
    handler: String,
    what: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Noted {
    #[serde(rename = "tally.noted")]
    Noted { handler: String, what: String },
}

impl Event for Noted {}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Tally {}

impl Aggregate for Tally {
    type Command = Note;
    type Event = Noted;
    type Rejection = std::convert::Infallible;
    const CATEGORY: &'static str = "tally";

    fn decide(&self, note: &Note) -> Result<Vec<Noted>, Self::Rejection> {
        let Note { handler, what } = note.clone();
        Ok(vec![Noted::Noted { handler, what }])
    }

    fn evolve(&mut self, _: Noted) {}
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Placed {
    #[serde(rename = "order.placed")]
    Placed { what: String, blob: String },
}

impl Event for Placed {}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Order {}

impl Aggregate for Order {
    type Command = Item;
    type Event = Placed;
    type Rejection = std::convert::Infallible;
    const CATEGORY: &'static str = "order";

    fn decide(&self, item: &Item) -> Result<Vec<Placed>, Self::Rejection> {
        let bytes = if item.kind == Kind::Large { LARGE } else { 0 };
        Ok(vec![Placed::Placed { what: item.to_string(), blob: "x".repeat(bytes) }])
    }

    fn evolve(&mut self, _: Placed) {}
}

/// Waits for a moment, for every fourth order that is good, and then rings.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Watch {}

enum Hears {
    Order,
    Time(String),
}

#[derive(Debug, Serialize, Deserialize)]
enum Watched {
    #[serde(rename = "watch.set")]
    Set {},
    #[serde(rename = "watch.rang")]
    Rang { what: String },
}

impl Event for Watched {}

impl Aggregate for Watch {
    type Command = Hears;
    type Event = Watched;
    type Rejection = std::convert::Infallible;
    const CATEGORY: &'static str = "watch";

    fn decide(&self, heard: &Hears) -> Result<Vec<Watched>, Self::Rejection> {
        Ok(vec![match heard {
            Hears::Order => Watched::Set {},
            Hears::Time(what) => Watched::Rang { what: what.clone() },
        }])
    }

    fn evolve(&mut self, _: Watched) {}
}

/// Whether a watch is set for an order of this name.
pub(super) fn is_watched(name: &str) -> bool {
    number_of(name).is_multiple_of(4)
}

impl Process for Watch {
    fn reacts_to() -> EventFilter {
        EventFilter::ALL.types(["order.placed"])
    }

    fn on(event: &RecordedEvent) -> Result<Option<(String, Hears)>, EventCodecError> {
        let name = Metadata::from_bytes(&event.meta).headers.remove(NAME).unwrap_or_default();
        Ok(is_watched(&name).then_some((name, Hears::Order)))
    }

    fn then(id: &str, event: &Watched) -> Vec<Effect<Self>> {
        match event {
            Watched::Set {} => {
                let wait = Duration::from_millis(number_of(id) * 37 % 3_000);
                let what = id.to_owned();
                vec![Effect::after("time", wait, move || Hears::Time(what))]
            }
            Watched::Rang { what } => {
                let note = Note { handler: "bell".into(), what: what.clone() };
                vec![Effect::send::<Tally>("ring", "bell", note)]
            }
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Trip {
    what: String,
}

/// The node, for handlers that are made before it is up.
type Node = watch::Receiver<Option<SystemCore>>;

async fn up(node: &Node) -> SystemCore {
    let mut node = node.clone();
    let up = node.wait_for(Option::is_some).await.expect("it is kept");
    up.clone().expect("it is some")
}

/// Has an effect, once for a key, as often as it is tried.
async fn effect(core: &SystemCore, handler: &str, what: &str, key: &str) -> Outcome {
    loop {
        let note = Note { handler: handler.to_owned(), what: what.to_owned() };
        let command = CommandEnvelope::new(note).key(key);
        match core.commands().send::<Tally>(handler, command).await {
            Ok(_) => return Outcome::Ack,
            Err(error) => match error.class() {
                // Tries are for poison; what a kill takes away is waited for, up to the deadline.
                ErrorClass::Transient | ErrorClass::System => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                _ => return Outcome::fail(error),
            },
        }
    }
}

fn trip(node: &Node) -> Saga<Trip> {
    let step = |name: &'static str, last: bool| {
        let node = node.clone();
        Step::new(name, move |cx: StepContext<Trip>| {
            let node = node.clone();
            async move {
                if last && kind_of(&cx.data.what) == "fail" {
                    return Err(StepError::refused("no seats"));
                }
                match effect(&up(&node).await, name, &cx.data.what, &cx.key).await {
                    Outcome::Ack => Ok(cx.data),
                    other => Err(StepError::retry(format!("{other:?}"))),
                }
            }
        })
    };
    let undo = node.clone();
    let reserve = step("reserve", false).undo(move |cx: StepContext<Trip>| {
        let node = undo.clone();
        async move {
            match effect(&up(&node).await, "undo", &cx.data.what, &cx.key).await {
                Outcome::Ack => Ok(()),
                other => Err(StepError::retry(format!("{other:?}"))),
            }
        }
    });
    Saga::new("trip").step(reserve).step(step("pay.trip", true))
}

// --- handlers ------------------------------------------------------------------------------------

fn name_of(delivery: &Delivery) -> String {
    delivery.headers().get(NAME).cloned().unwrap_or_default()
}

#[derive(Clone, PartialEq, prost::Message)]
struct Small {
    #[prost(string, tag = "1")]
    name: String,
}

/// What the handlers do about poison; `None` if it is none.
fn poison(delivery: &Delivery, home: &std::path::Path) -> Option<Outcome> {
    let name = name_of(delivery);
    let payload = || delivery.message.encoded().map(|encoded| encoded.data.clone());
    match kind_of(&name) {
        "panic" => panic!("{name} is poison"),
        "fail" => match &*delivery.message.encoded().ok()?.event_type {
            "foreign.odd" => Some(Outcome::fail(delivery.message.event::<Placed>().unwrap_err())),
            _ => Some(Outcome::fail("it is meant to fail")),
        },
        "avro" => {
            let codec = Avro::new(r#"{"type": "array", "items": "null"}"#).ok()?;
            let read: Result<Vec<()>, _> = codec.decode(&payload().ok()?);
            Some(Outcome::fail(read.map(|all| all.len()).expect_err("a bomb is no array")))
        }
        "protobuf" => {
            let read: Result<Small, _> = Protobuf::new().decode(&payload().ok()?);
            Some(Outcome::fail(read.expect_err("a bomb is no message")))
        }
        "exit" => {
            let mark = home.join(format!("exit {} {name}", delivery.handler));
            if !mark.exists() {
                std::fs::write(&mark, "").expect("the directory can be written");
                std::process::abort();
            }
            None
        }
        _ => None,
    }
}

fn tries() -> RetryPolicy {
    let backoff = Backoff::exponential(Duration::from_millis(20), Duration::from_millis(300));
    RetryPolicy::attempts(15).backoff(backoff)
}

/// A handler that has its effect by a command.
fn by_command(core: &SystemCore, home: &std::path::Path) -> impl Handler + Clone {
    let (core, home) = (core.clone(), home.to_owned());
    move |delivery: Delivery| {
        let (core, home) = (core.clone(), home.clone());
        async move {
            if let Some(outcome) = poison(&delivery, &home) {
                return Handled::from(outcome);
            }
            let (name, key) = (name_of(&delivery), delivery.key());
            let outcome = effect(&core, &delivery.handler, &name, &key).await;
            if outcome == Outcome::Ack && &*delivery.handler == "bill" {
                let subject = Subject::of(["bills", "n"]);
                return Handled::with(vec![WireMessage::new(&subject, key, "").header(NAME, name)]);
            }
            outcome.into()
        }
    }
}

/// A handler that has the effects of a batch in one transaction, with the inbox.
fn by_inbox(pool: &PgPool, home: &std::path::Path) -> impl Handler {
    let (pool, home) = (pool.clone(), home.to_owned());
    Batch::new(20, Duration::from_millis(10), move |batch: Vec<Delivery>| {
        let (pool, home) = (pool.clone(), home.clone());
        async move {
            let judged: Vec<_> = batch.iter().map(|one| poison(one, &home)).collect();
            let good = batch.iter().zip(&judged).filter(|(_, poison)| poison.is_none());
            let good: Vec<_> = good.map(|(one, _)| (one.key(), name_of(one))).collect();
            while let Err(error) = together(&pool, &good).await {
                tracing::debug!(%error, "the batch is tried again");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            judged.into_iter().map(|poison| poison.unwrap_or(Outcome::Ack)).collect::<Vec<_>>()
        }
    })
}

async fn together(pool: &PgPool, good: &[(String, String)]) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    for (key, name) in good {
        if first_time(&mut transaction, "audit", key).await? {
            sqlx::query("insert into soak.effects (handler, what) values ('audit', $1)")
                .bind(name.clone())
                .execute(&mut *transaction)
                .await?;
        }
    }
    transaction.commit().await
}

// --- the process ---------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a process of other tests"]
async fn runs() {
    let Ok(store) = std::env::var(STORE) else { return };
    tracing_subscriber::fmt()
        .with_env_filter(std::env::var("SOAK_LOG").unwrap_or_else(|_| "error".to_owned()))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let setting = |name| std::env::var(name).unwrap();
    let home = PathBuf::from(setting(HOME));
    let (node, core) = Box::pin(start(&store, &setting(NATS), &setting(REDIS), &home)).await;
    answer_all(node, core).await;
}

async fn start(
    store: &str,
    nats: &str,
    redis: &str,
    home: &std::path::Path,
) -> (watch::Sender<Option<SystemCore>>, SystemCore) {
    let node = watch::Sender::new(None);
    let broker = Broker::new(nats).unwrap();
    let shop = broker.queue(queue_options("shop")).unwrap();
    let jet = broker.queue(queue_options("jet")).unwrap();
    let on_redis = async |name: &str| connect(redis, queue_options(name)).await.unwrap();
    let bills = on_redis("bills").await;
    let core = SystemCore::embedded()
        .name("soak")
        .store(store)
        .broker(&broker)
        .aggregate::<Tally>()
        .aggregate::<Order>()
        .saga(trip(&node.subscribe()))
        .outbox("shop", shop.sender(), EventFilter::ALL.categories(["order", "foreign"]))
        .outbox_table(jet.sender())
        .publish_events(EventFilter::ALL.categories(["order"]))
        .start()
        .await
        .unwrap();
    node.send_replace(Some(core.clone()));

    let bus = core.bus();
    let options = || ProcessorOptions::default().retry(tries());
    let by_stream = |delivery: &Delivery| -> Arc<str> {
        delivery.message.stream().map_or("".into(), |stream| stream.as_str().into())
    };
    let group = |queue: &Arc<dyn Queue>, name: &str| queue.receiver(name).unwrap();
    let handler = by_command(&core, home);
    let billing = options().lanes_by(by_stream).results(bills.sender());
    bus.process("bill", group(&shop, "bill"), billing, handler.clone()).await.unwrap();
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(4).connect_lazy(store).unwrap();
    let batches = options().concurrency(20);
    bus.process("audit", group(&shop, "audit"), batches, by_inbox(&pool, home)).await.unwrap();
    bus.process("pay", group(&bills, "pay"), options(), handler.clone()).await.unwrap();
    bus.process("jet", group(&jet, "jet"), options(), handler.clone()).await.unwrap();
    for name in ["redis", "later"] {
        let queue = on_redis(name).await;
        bus.process(name, group(&queue, name), options(), handler.clone()).await.unwrap();
    }
    core.schedule().queue("later", on_redis("later").await.sender()).await.unwrap();

    let ear = Subscription::new("ear", "ear.>").unwrap().retry(tries());
    let hears = handler.clone();
    bus.subscribe(ear, move || hears.clone()).await.unwrap();
    let scribe = Consumer::new("scribe", handler).retry(tries()).lanes_by_stream(4);
    let scribe = scribe.filter(EventFilter::ALL.categories(["order", "foreign"]));
    core.consumers().start(scribe).await.unwrap();
    core.processes().start::<Watch>(ProcessOptions::default()).await.unwrap();
    (node, core)
}

async fn answer_all(node: watch::Sender<Option<SystemCore>>, core: SystemCore) {
    let (lines, mut read) = mpsc::unbounded_channel();
    // A thread that nobody waits for, as it is in a read for as long as there is somebody to ask.
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { return };
            let _ = lines.send(line);
        }
    });
    loop {
        let line = tokio::select! {
            biased;
            reason = core.ended() => {
                eprintln!("the node has ended by itself: {reason:?}");
                std::process::exit(3);
            }
            line = read.recv() => line,
        };
        // Nobody asks any more.
        let Some(line) = line else { std::process::exit(1) };
        let (number, text) = line.split_once(' ').unwrap();
        let (number, request) = (number.to_owned(), serde_json::from_str(text).unwrap());
        let (core, node) = (core.clone(), node.clone());
        tokio::spawn(async move {
            if request == Request::Stop {
                // Nobody is told that it has ended by itself.
                let stopped = Answer::Stopped(core.stop(Duration::from_secs(20)).await);
                println!("answer {number} {}", serde_json::to_string(&stopped).unwrap());
                drop(node);
                std::process::exit(0);
            }
            let answer = answer(&core, request).await;
            println!("answer {number} {}", serde_json::to_string(&answer).unwrap());
        });
        if request == Request::Stop {
            std::future::pending::<()>().await;
        }
    }
}

async fn answer(core: &SystemCore, request: Request) -> Answer {
    match request {
        Request::Take(item) => match take(core, item).await {
            Ok(()) => Answer::Done,
            Err((ErrorClass::Transient | ErrorClass::System, error)) => Answer::Transient(error),
            Err((class, error)) => Answer::Wrong(format!("{class:?}: {error}")),
        },
        Request::Kill(number) => {
            let tree = core.actors().look("/", Depth::ALL).expect("the root is there");
            let all = tree.walk().skip(1).map(|one| one.path.to_string());
            // There are more aggregates than anything else, and most of them sleep.
            let (sleepers, others): (Vec<_>, Vec<_>) =
                all.partition(|path| path.starts_with("/domain/aggregates/"));
            let all = if number % 8 == 0 && !sleepers.is_empty() { sleepers } else { others };
            let path = &all[usize::try_from(number / 8).unwrap() % all.len()];
            // It may have ended meanwhile.
            let killed = core.actors().kill(path).ok().flatten();
            Answer::Killed(killed.map(|_| path.clone()))
        }
        Request::Tree => {
            let tree = core.actors().look("/", Depth::ALL).expect("the root is there");
            let wrong = |one: &mister_smith::supervisors::NodeView| {
                let health = match &one.health {
                    None | Some(Health::Healthy) => String::new(),
                    Some(other) => format!("{other:?}"),
                };
                match one.state {
                    SlotState::Up => health,
                    state => format!("{state:?} {health}"),
                }
            };
            Answer::Tree(tree.walk().map(|one| (one.path.to_string(), wrong(one))).collect())
        }
        Request::Show => {
            let subscriptions = core.bus().subscriptions();
            Answer::Shown(format!("{}\n{subscriptions:#?}", core.tree()))
        }
        Request::Open => Answer::Open(open(core).await.unwrap_or_else(|error| vec![error])),
        Request::Stop => unreachable!("it is answered elsewhere"),
    }
}

fn failed(class: ErrorClass, error: impl ToString) -> (ErrorClass, String) {
    (class, error.to_string())
}

async fn take(core: &SystemCore, item: Item) -> Result<(), (ErrorClass, String)> {
    let name = item.to_string();
    let mut metadata = Metadata::default();
    metadata.headers.insert(NAME.to_owned(), name.clone());
    if item.kind == Kind::Header {
        metadata.headers.insert(BAD_HEADER.to_owned(), "c".to_owned());
    }
    let message = |subject: &str| {
        let message = NewMessage::bytes(subject, "soak", ContentType::Json, "{}").unwrap();
        message.metadata(metadata.clone())
    };
    match item.way {
        Way::Order => {
            let command = CommandEnvelope::new(item).key(&*name).metadata(metadata);
            let id = (item.n % 20).to_string();
            let sent = core.commands().send::<Order>(&id, command).await;
            sent.map(drop).map_err(|error| failed(error.class(), error))
        }
        Way::Foreign => {
            let event = Incoming {
                event_type: "foreign.odd".into(),
                codec: ContentType::Json,
                data: "{}".into(),
                meta: metadata.to_bytes(),
                key: IdempotencyKey::of([&*name]),
            };
            let stream = StreamId::new(format!("foreign-{}", item.n % 5)).unwrap();
            let taken = core.ingest().ingest(&stream, [event]).await;
            let taken = taken.map_err(|error| failed(error.class(), error))?;
            match taken.into_iter().next() {
                Some(Ok(_)) => Ok(()),
                other => Err(failed(ErrorClass::Transient, format!("{other:?}"))),
            }
        }
        Way::Saga => {
            let data = Trip { what: name.clone() };
            let begun = core.sagas().start("trip", &name, &data, metadata).await;
            begun.map(drop).map_err(|error| match error {
                SagaError::Commit(error) => failed(error.class(), error),
                SagaError::Append(error) => failed(error.class(), error),
                SagaError::Store(error) => failed(error.class(), error),
                SagaError::Pool(error) => failed(error.class(), error),
                other => failed(ErrorClass::User, other),
            })
        }
        Way::Later => {
            let wait = Duration::from_millis(item.n * 53 % 3_000);
            let later = core.schedule().to_queue("later");
            let planned = later.after(&name, wait, message("later.n")).await;
            planned.map_err(|error| failed(error.class(), error))
        }
        Way::Bus => {
            let published = core.bus().publish(message("ear.n")).await;
            published.map(drop).map_err(|error| failed(ErrorClass::Transient, error))
        }
        Way::Redis | Way::Jet | Way::Table => unreachable!("it is sent from elsewhere"),
    }
}

/// What is not done yet.
async fn open(core: &SystemCore) -> Result<Vec<String>, String> {
    let mut open = Vec::new();
    for one in core.consumers().list() {
        if one.pending > 0 || one.trouble.is_some() {
            open.push(format!("{one:?}"));
        }
    }
    let timers = core.timers().list(&TimerFilter::default(), None, 10).await;
    let timers = timers.map_err(|error| error.to_string())?;
    open.extend(timers.into_iter().map(|timer| format!("{timer:?}")));
    core.wait_for(core.head()).await.map_err(|error| error.to_string())?;
    let filter = SagaFilter { open: true, ..SagaFilter::default() };
    let sagas = core.sagas().list(&filter, None, 10).await.map_err(|error| error.to_string())?;
    open.extend(sagas.into_iter().map(|saga| format!("{saga:?}")));
    Ok(open)
}
