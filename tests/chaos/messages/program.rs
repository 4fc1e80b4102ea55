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
use mister_smith::actors::event::ContentType;
use mister_smith::actors::ingest::Incoming;
use mister_smith::actors::saga::{SagaError, SagaFilter};
use mister_smith::actors::store::timers::TimerFilter;
use mister_smith::actors::store::{EventFilter, IdempotencyKey};
use mister_smith::prelude::*;
use mister_smith::supervisors::Depth;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use super::handlers::{Order, Tally, Trip, Watch, by_command, by_inbox, tries, trip};
use super::items::{BAD_HEADER, Item, Kind, NAME, Way};

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
