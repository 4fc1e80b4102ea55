//! The soak of messaging: a node on PostgreSQL, NATS and Redis, which are killed one after the other
//! while messages of every kind go through, and poison with them.
//!
//! | file | what |
//! |---|---|
//! | this one | the storm, by seed |
//! | `messages/items.rs` | what is sent, good and bad |
//! | `messages/program.rs` | the node, as a process of its own |
//! | `messages/handlers.rs` | what handles them, and has effects |
//! | `messages/books.rs` | what was acknowledged, and what is to come of it |
//!
//! The law: what was acknowledged to its sender has its effect once with each who handles it, or is
//! a dead letter with its reason; nothing is both. In the end no queue has anything left, no actor
//! is left behind and all of them are well. What is published on the bus lives in memory, and is
//! held to that: once at most, and once if the node has lived on.
//!
//! `SMITH_SOAK=600` is the long form: rounds for as many seconds, by a seed of the clock.

mod books;
mod handlers;
mod items;
mod program;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::{self, Debug};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use mister_smith::actors::bus::queue::{Queue, Sender, connect};
use mister_smith::actors::event::{Position, RecordedEvent};
use mister_smith::actors::store::EventStore as _;
use mister_smith::actors::store::messages::postgres::put;
use mister_smith::actors::store::postgres::{PgOptions, PgStore};
use mister_smith_testkit::{Broker, Postgres, Program, eventually};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::sync::{RwLock, Semaphore, watch};
use tokio::task::JoinSet;

use self::books::{Books, Found};
use self::items::{Item, Kind, Way};
use self::program::{Answer, Request, queue_options};
use crate::storm::from_env;

/// Long enough for a busy machine; a test that works never waits for it.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long a broker is away, if nothing else happens meanwhile.
const AWAY: Duration = Duration::from_secs(2);

/// How many take commands to the node at once.
const SENDERS: usize = 4;

/// Processes that ended before they answered once, one after the other, before it is a fault.
const STILLBORN: u32 = 40;

/// Lines of the node's log that a failure shows.
const SHOWN: usize = 100;

/// What is done to the node, and how often in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    Actor,
    Process,
    Nats,
    Redis,
    Postgres,
    /// NATS comes back without its data.
    Wipe,
}

const BLOWS: [(Blow, usize); 6] = [
    (Blow::Actor, 16),
    (Blow::Process, 1),
    (Blow::Nats, 1),
    (Blow::Redis, 1),
    (Blow::Postgres, 1),
    (Blow::Wipe, 1),
];

/// The groups of each queue, which all are empty in the end.
const GROUPS: [(&str, &[&str]); 2] = [("shop", &["audit", "bill"]), ("jet", &["jet"])];
const REDIS_GROUPS: [(&str, &[&str]); 3] =
    [("bills", &["pay"]), ("redis", &["redis"]), ("later", &["later"])];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_has_its_effect_once_or_is_a_dead_letter_whatever_is_killed() {
    let long = std::env::var("SMITH_SOAK").ok().map(|text| text.parse().expect("seconds"));
    let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let seed = match long {
        None => 20_261_128,
        Some(_) => clock().as_secs(),
    };
    let seed = from_env("MISTER_SMITH_CHAOS_SEED", seed);
    eprintln!("seed {seed}, {}", if long.is_some() { "long" } else { "short" });
    let mut rng = StdRng::seed_from_u64(seed);
    let end = long.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    Box::pin(soak(&mut rng, end)).await;
}

async fn soak(rng: &mut StdRng, end: Option<Instant>) {
    let storm = Storm::begin().await;
    let host = tokio::spawn(Arc::clone(&storm).keep());
    let fresh = storm.healthy(None).await;
    let (mut rounds, mut blows) = (0, BTreeMap::new());
    let mut next = 1;
    loop {
        let items = items::round(rng, next);
        next += items.len() as u64;
        storm.round(items, rng, rounds, &mut blows).await;
        rounds += 1;
        if end.is_none_or(|end| Instant::now() >= end) {
            break;
        }
    }
    let (acknowledged, refused, published) = storm.books.lock().unwrap().counts();
    eprintln!(
        "{rounds} rounds: {acknowledged} acknowledged, {refused} refused, {published} published; \
         {} lives of the node, {} repeats by senders, {blows:?}",
        storm.lives.load(Ordering::SeqCst),
        storm.repeats.load(Ordering::Relaxed),
    );
    // Nothing is killed any more, and no poison is left that ends the process.
    storm.comes_to_rest(&fresh).await;
    for n in next..next + 10 {
        storm.publish(Item { way: Way::Bus, kind: Kind::Plain, n }).await;
    }
    storm.comes_to_rest(&fresh).await;
    let lives = storm.lives.load(Ordering::SeqCst);
    storm.over.store(true, Ordering::SeqCst);
    assert_eq!(storm.ask(Request::Stop).await, Answer::Stopped(true), "all stop in order");
    host.await.expect("the node has ended");
    let found = storm.found().await;
    let wrong = storm.books.lock().unwrap().wrong(&found, lives);
    assert!(wrong.is_empty(), "{} are against the law: {wrong:#?}", wrong.len());
}

/// A text that is shown as it is.
struct Plain(String);

impl Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

struct Storm {
    postgres: Postgres,
    nats: Broker,
    redis: Broker,
    url: String,
    home: TempDir,
    store: PgStore,
    queues: BTreeMap<&'static str, Arc<dyn Queue>>,
    /// The process that runs, and the number of its life.
    node: watch::Sender<Option<(u64, Arc<Program>)>>,
    lives: AtomicU64,
    over: AtomicBool,
    books: Mutex<Books>,
    /// Commands that were acknowledged.
    commands: watch::Sender<usize>,
    repeats: AtomicU64,
    /// How many more commands may be sent now.
    turns: Semaphore,
    /// What is sent to JetStream by others than the outbox is lost with the data of NATS, so that
    /// nothing may be there then.
    jet: RwLock<()>,
}

impl Storm {
    async fn begin() -> Arc<Self> {
        let (postgres, nats, redis) =
            tokio::join!(Postgres::start(), Broker::nats(), Broker::redis());
        let url = postgres.create_database().await;
        mister_smith::migrate::up(&url).await.expect("a new database");
        let effects = "create schema soak; \
                       create table soak.effects (handler text not null, what text not null)";
        postgres.sql("db0", effects).await;
        let options = PgOptions::default().reconnect_for(DEADLINE);
        let store = PgStore::open(&url, options).await.expect("it is up");
        let mut queues = BTreeMap::new();
        let on = [(&nats, &GROUPS[..]), (&redis, &REDIS_GROUPS[..])];
        for (broker, names) in on {
            for (name, _) in names {
                let queue = connect(&broker.url(), queue_options(name)).await.expect("an address");
                queues.insert(*name, queue);
            }
        }
        Arc::new(Self {
            postgres,
            nats,
            redis,
            url,
            home: TempDir::with_prefix("soak-").expect("a temporary directory"),
            store,
            queues,
            node: watch::Sender::new(None),
            lives: AtomicU64::new(0),
            over: AtomicBool::new(false),
            books: Mutex::default(),
            commands: watch::Sender::new(0),
            repeats: AtomicU64::new(0),
            turns: Semaphore::new(0),
            jet: RwLock::new(()),
        })
    }

    // --- the node --------------------------------------------------------------------------------

    /// Starts the node, and again whenever it has ended, until it is over.
    async fn keep(self: Arc<Self>) {
        let home = self.home.path().display().to_string();
        let log: PathBuf = self.home.path().join("log");
        let (nats, redis) = (self.nats.url(), self.redis.url());
        let env = [
            (program::STORE, &*self.url),
            (program::NATS, &*nats),
            (program::REDIS, &*redis),
            (program::HOME, &*home),
        ];
        let mut stillborn = 0;
        loop {
            let process = Program::start("messages::program::runs", env, &log);
            let tree = serde_json::to_string(&Request::Tree).expect("it is JSON");
            let answered = tokio::time::timeout(DEADLINE, process.ask(&tree)).await;
            match answered.expect("it answers or ends") {
                Some(_) => {
                    stillborn = 0;
                    let life = self.lives.fetch_add(1, Ordering::SeqCst) + 1;
                    self.node.send_replace(Some((life, Arc::clone(&process))));
                    process.gone().await;
                    self.node.send_replace(None);
                }
                // PostgreSQL may be away just now.
                None => {
                    stillborn += 1;
                    assert!(stillborn < STILLBORN, "the node does not start");
                    process.gone().await;
                }
            }
            if self.over.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// What the node answers, whichever life; a request may be done more than once.
    async fn ask(&self, request: Request) -> Answer {
        self.asked(request).await.1
    }

    async fn asked(&self, request: Request) -> (u64, Answer) {
        let text = serde_json::to_string(&request).expect("it is JSON");
        let mut node = self.node.subscribe();
        loop {
            let (life, process) = {
                let up = node.wait_for(Option::is_some);
                let up = tokio::time::timeout(DEADLINE, up).await.expect("a node that is up");
                up.expect("it is kept").clone().expect("it is some")
            };
            let answer = tokio::time::timeout(DEADLINE, process.ask(&text)).await;
            let answer = answer.unwrap_or_else(|_| panic!("no answer to {request:?}"));
            if let Some(answer) = answer {
                // A line that was cut off by a kill is no answer.
                if let Ok(answer) = serde_json::from_str(&answer) {
                    return (life, answer);
                }
            }
            let gone = |now: &Option<(u64, _)>| !matches!(now, Some((other, _)) if *other == life);
            node.wait_for(gone).await.expect("it is kept");
        }
    }

    /// Waits until every actor runs and is well, and no other than at the start; answers their paths.
    async fn healthy(&self, fresh: Option<&BTreeSet<String>>) -> BTreeSet<String> {
        eventually(DEADLINE, async || {
            let Answer::Tree(tree) = self.ask(Request::Tree).await else { panic!("a tree") };
            let wrong: Vec<_> = tree.iter().filter(|(_, wrong)| !wrong.is_empty()).collect();
            if !wrong.is_empty() {
                return Err(format!("{wrong:?}"));
            }
            // Aggregates go to sleep by themselves.
            let paths = tree.into_iter().map(|(path, _)| path);
            let paths: BTreeSet<_> =
                paths.filter(|path| !path.contains("/domain/aggregates/")).collect();
            match fresh {
                Some(fresh) if *fresh != paths => {
                    Err(format!("not as before: {:?}", fresh.symmetric_difference(&paths)))
                }
                _ => Ok(paths),
            }
        })
        .await
    }

    // --- senders ---------------------------------------------------------------------------------

    /// Sends all of a round, with blows between.
    async fn round(
        self: &Arc<Self>,
        items: Vec<Item>,
        rng: &mut StdRng,
        number: u64,
        blows: &mut BTreeMap<String, u64>,
    ) {
        let mut by_way: BTreeMap<Option<Way>, VecDeque<Item>> = BTreeMap::new();
        for item in items {
            let elsewhere = matches!(item.way, Way::Redis | Way::Jet | Way::Table);
            by_way.entry(elsewhere.then_some(item.way)).or_default().push_back(item);
        }
        let orders = by_way.remove(&None).unwrap_or_default();
        let (before, total) = (*self.commands.borrow(), orders.len());
        let orders = Arc::new(Mutex::new(orders));
        let mut senders = JoinSet::new();
        for _ in 0..SENDERS {
            let (storm, orders) = (Arc::clone(self), Arc::clone(&orders));
            senders.spawn(async move {
                loop {
                    let turn = storm.turns.acquire().await.expect("it is never closed");
                    turn.forget();
                    let Some(item) = orders.lock().unwrap().pop_front() else { return };
                    storm.command(item).await;
                    storm.commands.send_modify(|count| *count += 1);
                }
            });
        }
        for (way, items) in by_way {
            let storm = Arc::clone(self);
            senders.spawn(async move {
                for item in items {
                    match way {
                        Some(Way::Table) => storm.insert(item).await,
                        _ => storm.send(item).await,
                    }
                }
            });
        }
        // One wipe is enough for the short form; every fourth round has one in the long form.
        let wanted =
            BLOWS.iter().filter(|(blow, _)| *blow != Blow::Wipe || number.is_multiple_of(4));
        let mut all: Vec<_> = wanted.flat_map(|(blow, count)| vec![*blow; *count]).collect();
        all.shuffle(rng);
        // Between two blows some commands go in, and some effects come out.
        let step = (total / (all.len() + 1)).max(1);
        for (n, blow) in (1..).zip(all) {
            let head = self.head().await;
            self.turns.add_permits(step);
            self.reaches(before + (n * step).min(total)).await;
            if n * step <= total {
                self.grows(head + 2 * step as u64).await;
            }
            self.strike(blow, rng).await;
            *blows.entry(format!("{blow:?}")).or_default() += 1;
        }
        self.turns.add_permits(total + SENDERS);
        while let Some(sender) = senders.join_next().await {
            sender.expect("a sender ends when all is sent");
        }
        self.turns.forget_permits(usize::MAX);
    }

    async fn head(&self) -> u64 {
        self.store.head().await.expect("the server is up").get()
    }

    async fn grows(&self, until: u64) {
        eventually(DEADLINE, async || match self.head().await {
            head if head >= until => Ok(()),
            head => Err(self.state_of(&head).await),
        })
        .await;
    }

    async fn reaches(&self, count: usize) {
        let mut commands = self.commands.subscribe();
        let reached = commands.wait_for(|now| *now >= count);
        let reached = tokio::time::timeout(DEADLINE, reached).await;
        reached.expect("commands go on").expect("it is kept");
    }

    /// One that the node takes in.
    async fn command(&self, item: Item) {
        if item.way == Way::Bus {
            return self.publish(item).await;
        }
        loop {
            match self.ask(Request::Take(item)).await {
                Answer::Done => return self.books.lock().unwrap().acknowledged(item),
                Answer::Transient(_) => self.again().await,
                other => panic!("{item}: {other:?}"),
            }
        }
    }

    /// It is never published twice: who gets no answer does not know.
    async fn publish(&self, item: Item) {
        let (life, answer) = self.asked(Request::Take(item)).await;
        // One that was not answered may have been published, too.
        let life = if answer == Answer::Done { life } else { 0 };
        self.books.lock().unwrap().published(item, life);
    }

    /// What is tried again waits a little, so that it is not tried a thousand times.
    async fn again(&self) {
        self.repeats.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    async fn send(&self, item: Item) {
        let name = if item.way == Way::Redis { "redis" } else { "jet" };
        let message = item.wire(name);
        let queue: Arc<dyn Sender> = self.queues[name].sender();
        loop {
            let turn = self.jet.read().await;
            let sent = queue.send(std::slice::from_ref(&message)).await;
            drop(turn);
            match sent {
                Ok(_) => return self.books.lock().unwrap().acknowledged(item),
                Err(error) if error.source.is_of_the_message() => {
                    return self.books.lock().unwrap().refused(item);
                }
                Err(_) => self.again().await,
            }
        }
    }

    /// Into the outbox table, as an application does.
    async fn insert(&self, item: Item) {
        let message = item.wire("jet");
        loop {
            let turn = self.jet.read().await;
            let inserted = async {
                let mut connection = PgConnection::connect(&self.url).await?;
                let mut transaction = connection.begin().await?;
                put(&mut transaction, &message).await?;
                transaction.commit().await
            };
            let inserted: Result<(), sqlx::Error> = inserted.await;
            drop(turn);
            match inserted {
                Ok(()) => return self.books.lock().unwrap().acknowledged(item),
                Err(_) => self.again().await,
            }
        }
    }

    // --- blows -----------------------------------------------------------------------------------

    async fn strike(&self, blow: Blow, rng: &mut StdRng) {
        let number = rng.random::<u32>().into();
        // While a broker is away some more go in, if there are any.
        let moment = async || {
            let head = self.head().await;
            self.turns.add_permits(5);
            let _ = tokio::time::timeout(AWAY, self.grows(head + 5)).await;
        };
        match blow {
            Blow::Actor => {
                let Answer::Killed(path) = self.ask(Request::Kill(number)).await else {
                    panic!("an actor was killed")
                };
                eprintln!("killed {}", path.as_deref().unwrap_or("nobody"));
            }
            Blow::Process => {
                let process = self.node.borrow().clone();
                if let Some((life, process)) = process {
                    eprintln!("kill -9 of life {life}");
                    process.kill9().await;
                }
            }
            Blow::Nats | Blow::Redis => {
                eprintln!("{blow:?} is lost");
                let broker = if blow == Blow::Nats { &self.nats } else { &self.redis };
                broker.kill9();
                moment().await;
                broker.restart().await;
            }
            Blow::Postgres => {
                eprintln!("PostgreSQL is killed");
                self.postgres.kill9().await;
                self.postgres.restart().await;
            }
            Blow::Wipe => {
                let _turn = self.jet.write().await;
                self.drained("jet", &["jet"]).await;
                eprintln!("NATS loses its data");
                self.nats.kill9();
                self.nats.forget();
                moment().await;
                self.nats.restart().await;
            }
        }
    }

    // --- the end ---------------------------------------------------------------------------------

    /// Waits until nothing is left in the queue, and in the table in front of it.
    async fn drained(&self, name: &str, groups: &[&str]) {
        eventually(DEADLINE, async || {
            let rows = "select count(*) from ms_messaging.outbox";
            if name == "jet" {
                let rows = self.postgres.sql("db0", rows).await;
                if rows != "0" {
                    return Err(format!("{rows} rows in the outbox"));
                }
            }
            let now = self.queues[name].groups().await.map_err(|error| error.to_string())?;
            let names: Vec<_> = now.iter().map(|group| &*group.name).collect();
            if names != groups || now.iter().any(|group| group.waiting > 0) {
                return Err(format!("{name}: {now:?}"));
            }
            Ok(())
        })
        .await;
    }

    async fn found(&self) -> Found {
        let audited = self.postgres.sql("db0", "select what from soak.effects").await;
        let mut log: Vec<RecordedEvent> = Vec::new();
        let mut after = Position::ZERO;
        loop {
            let page = self.store.read_all(after, 1_000).await.expect("the server is up");
            let Some(last) = page.last() else { return Found::in_log(&log, &audited) };
            after = last.position;
            // What is large is of no use here.
            log.extend(page.into_iter().filter(|event| &*event.event_type != "order.placed"));
        }
    }

    /// Everything that may say why something is missing.
    async fn state_of(&self, missing: &impl Debug) -> Plain {
        let mut text = format!("missing: {missing:#?}\n");
        for (name, _) in GROUPS.iter().chain(&REDIS_GROUPS) {
            text += &format!("{name}: {:?}\n", self.queues[name].groups().await);
        }
        match self.ask(Request::Show).await {
            Answer::Shown(tree) => text += &tree,
            other => text += &format!("{other:?}"),
        }
        let log = std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        text += &lines[lines.len().saturating_sub(SHOWN)..].join("\n");
        Plain(text)
    }

    async fn comes_to_rest(&self, fresh: &BTreeSet<String>) {
        // As long as there is less and less that is missing, it goes on.
        let mut before = usize::MAX;
        while before > 0 {
            before = eventually(DEADLINE, async || {
                let (life, found) = (self.lives.load(Ordering::SeqCst), self.found().await);
                let missing = self.books.lock().unwrap().missing(&found, life);
                match missing.len() {
                    fewer if fewer < before => Ok(fewer),
                    _ => Err(self.state_of(&missing).await),
                }
            })
            .await;
        }
        for (name, groups) in GROUPS.iter().chain(&REDIS_GROUPS) {
            self.drained(name, groups).await;
        }
        eventually(DEADLINE, async || match self.ask(Request::Open).await {
            Answer::Open(open) if open.is_empty() => Ok(()),
            other => Err(other),
        })
        .await;
        self.healthy(Some(fresh)).await;
    }
}
