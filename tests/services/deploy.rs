//! A rolling deploy of a new version of a program on one PostgreSQL, with real processes that are
//! killed, under a steady load of commands.
//!
//! | file | what |
//! |---|---|
//! | this one | the deploys, the load |
//! | `deploy/program.rs` | the program, in two versions and a broken one |
//! | `deploy/process.rs` | a process that runs it |
//! | `deploy/ledger.rs` | what was answered, read and done, held against the log |
//!
//! As in `tests/chaos`, each round prints its seed, `MISTER_SMITH_CHAOS_SEED` replays it, and
//! `MISTER_SMITH_CHAOS_EVENTS=200000` is the long form: a round for every 20,000.

mod ledger;
mod process;
mod program;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mister_smith::actors::event::{Position, RecordedEvent, StreamId};
use mister_smith::actors::store::EventStore as _;
use mister_smith::actors::store::postgres::PgStore;
use mister_smith::actors::store::read_model::documents::Documents as _;
use mister_smith::actors::store::read_model::documents::postgres::PgDocuments;
use mister_smith_testkit::{Postgres, eventually};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::ledger::{Log, Read, Said, What};
use self::process::Process;
use self::program::{Answer, Order, Request, Turn, Version};
use crate::server::{DEADLINE, database, name_of, open};

const LAMPS: u64 = 12;
const SENDERS: u64 = 4;
const READERS: u64 = 2;

/// The new version is rolled out over two nodes, and any of them is killed at any moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_deploy_with_kills_loses_and_contradicts_nothing() {
    rounds(async |storm, rng| {
        for slot in [0, 1] {
            storm.start(slot, Version::One).await;
        }
        let tasks = storm.rises(rng);
        storm.moment(rng).await;
        storm.some_are_killed(rng).await;

        storm.moment(rng).await;
        storm.is_replaced(1, Version::Two).await;
        for _ in 0..2 {
            storm.moment(rng).await;
            storm.some_are_killed(rng).await;
        }
        storm.moment(rng).await;
        storm.is_replaced(0, Version::Two).await;
        storm.moment(rng).await;
        storm.some_are_killed(rng).await;
        storm.moment(rng).await;

        storm.ends(tasks, 2).await;
        assert_eq!(*storm.active.lock().await, [1, 2], "once, and never back");
    })
    .await;
}

/// A version that cannot make any document is rolled out on one of two nodes, and taken back.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_version_is_taken_back_and_nothing_has_happened() {
    rounds(async |storm, rng| {
        for slot in [0, 1] {
            storm.start(slot, Version::One).await;
        }
        let tasks = storm.rises(rng);
        storm.moment(rng).await;
        storm.is_replaced(1, Version::TwoBroken).await;
        for slot in [1, 0] {
            storm.moment(rng).await;
            storm.are_killed(&[slot]).await;
        }
        let broken = storm.slots.borrow()[1].clone().unwrap();
        eventually(DEADLINE, async || match broken.ask(&Request::Tree).await {
            Some(Answer::Tree(tree)) if tree.contains("version 2 is not switched in: ") => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        drop(broken);
        storm.moment(rng).await;
        storm.is_replaced(1, Version::One).await;
        storm.moment(rng).await;

        storm.ends(tasks, 1).await;
        assert_eq!(*storm.active.lock().await, [1], "nothing else was ever shown");
    })
    .await;
}

fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

async fn rounds(round: impl AsyncFn(&Arc<Storm>, &mut StdRng)) {
    let seed = from_env("MISTER_SMITH_CHAOS_SEED", 20_261_127);
    let server = Arc::new(Postgres::start().await);
    for n in 0..(from_env("MISTER_SMITH_CHAOS_EVENTS", 20_000) / 20_000).max(1) {
        eprintln!("seed {}", seed + n);
        let mut rng = StdRng::seed_from_u64(seed + n);
        round(&Storm::over(&server).await, &mut rng).await;
    }
}

/// A load on two nodes, and everything that they have said.
struct Storm {
    server: Arc<Postgres>,
    url: String,
    home: TempDir,
    store: PgStore,
    documents: PgDocuments,
    slots: watch::Sender<[Option<Arc<Process>>; 2]>,
    started: AtomicU64,
    orders: AtomicU64,
    over: AtomicBool,
    /// How often the first version met events that it does not know.
    unreadable: AtomicU64,
    acknowledged: watch::Sender<u64>,
    said: Mutex<Vec<Said>>,
    reads: Mutex<Vec<(Version, Read)>>,
    /// Which version's documents are read, one after the other.
    active: tokio::sync::Mutex<Vec<u32>>,
    /// Lamp, version and position of orders that were done.
    done: Mutex<Vec<(String, u64, u64)>>,
}

impl Storm {
    async fn over(server: &Arc<Postgres>) -> Arc<Self> {
        let url = database(server).await;
        let home = TempDir::new().unwrap();
        std::fs::write(home.path().join("diary"), "").unwrap();
        let store = open(&url).await;
        let documents = PgDocuments::new(Arc::clone(store.database()));
        Arc::new(Self {
            server: Arc::clone(server),
            url,
            home,
            store,
            documents,
            slots: watch::Sender::default(),
            started: AtomicU64::new(0),
            orders: AtomicU64::new(0),
            over: AtomicBool::new(false),
            unreadable: AtomicU64::new(0),
            acknowledged: watch::Sender::new(0),
            said: Mutex::default(),
            reads: Mutex::default(),
            active: tokio::sync::Mutex::default(),
            done: Mutex::default(),
        })
    }

    // --- the deploy ------------------------------------------------------------------------------

    async fn start(&self, slot: usize, version: Version) {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", version.name());
        let process = Process::start(self.home.path(), &self.url, &name, version).await;
        self.slots.send_modify(|slots| slots[slot] = Some(process));
    }

    fn take(&self, slot: usize) -> Arc<Process> {
        self.slots.borrow()[slot].clone().unwrap()
    }

    /// One of the two, or now and then both at once, in the middle of their work.
    async fn some_are_killed(&self, rng: &mut StdRng) {
        let first = rng.random_range(0..2);
        let killed = if rng.random_ratio(1, 4) { 2 } else { 1 };
        self.are_killed(&[first, 1 - first][..killed]).await;
    }

    /// They are killed, and started again.
    async fn are_killed(&self, slots: &[usize]) {
        let killed: Vec<_> = slots.iter().map(|slot| (*slot, self.take(*slot))).collect();
        for (slot, process) in &killed {
            process.kill9().await;
            eprintln!("{} was killed after {} answers", process.name, *self.acknowledged.borrow());
            self.slots.send_modify(|slots| slots[*slot] = None);
        }
        for (slot, process) in killed {
            self.start(slot, process.version).await;
        }
    }

    /// Stopped in order, under load: it holds nothing afterwards, and the other node has it all.
    async fn is_replaced(&self, slot: usize, version: Version) {
        let process = self.take(slot);
        process.stop().await;
        eprintln!("{} was stopped after {} answers", process.name, *self.acknowledged.borrow());
        self.slots.send_modify(|slots| slots[slot] = None);
        self.gave_back(&process.name).await;
        let all = "select string_agg(name, ' ') from ms_framework.followers \
                   where owner = '' or lease_until < clock_timestamp()";
        eventually(DEADLINE, async || match &*self.sql(all).await {
            "" => Ok(()),
            held_by_nobody => Err(held_by_nobody.to_owned()),
        })
        .await;
        self.start(slot, version).await;
    }

    async fn gave_back(&self, name: &str) {
        let held = format!(
            "select string_agg(name, ' ') from (select name, owner from ms_framework.followers \
             union all select name, owner from ms_framework.checkpoints) claims \
             where owner like '{name} %'"
        );
        assert_eq!(self.sql(&held).await, "", "{name} has gone, and holds it");
    }

    async fn sql(&self, sql: &str) -> String {
        self.server.sql(name_of(&self.url), sql).await.trim().to_owned()
    }

    /// Waits for some more answers.
    async fn moment(&self, rng: &mut StdRng) {
        let mut acknowledged = self.acknowledged.subscribe();
        let until = *acknowledged.borrow() + rng.random_range(40..200);
        let reached = acknowledged.wait_for(|answers| *answers >= until);
        tokio::time::timeout(DEADLINE, reached).await.expect("the load goes on").unwrap();
    }

    /// The load goes down, and everything that has to be in the end is.
    async fn ends(&self, mut tasks: JoinSet<()>, version: u32) {
        self.over.store(true, Ordering::Relaxed);
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
        let log = eventually(DEADLINE, async || {
            let log = Log::of(&self.log().await);
            let diary = std::fs::read_to_string(self.home.path().join("diary")).unwrap();
            log.all_have_rung().and_then(|()| log.all_are_in_the_diary(&diary)).map(|()| log)
        })
        .await;
        let head = self.store.head().await.unwrap().get();
        let processes = self.slots.borrow().clone();
        for process in processes.into_iter().flatten() {
            for (lamp, events) in log.lamps() {
                let request = Request::Read { lamp: lamp.to_owned(), after: head };
                let answer = process.ask(&request).await;
                let Some(Answer::Card(Some(card))) = answer else { panic!("{answer:?}") };
                assert_eq!((card.made_by, card.events), (version, events), "{}", process.name);
                log.agrees_with_card(&Read { lamp: lamp.to_owned(), at_least: events, card });
            }
        }
        let (said, reads) = (self.said.lock().unwrap(), self.reads.lock().unwrap());
        log.agrees_with(&said);
        let mut read_by_one = 0;
        for (by, read) in &*reads {
            log.agrees_with_card(read);
            read_by_one += usize::from(*by == Version::One);
        }
        eprintln!(
            "{} answers, {} events of lamps, {} reads, {read_by_one} of them by version 1, \
             which was asked for what it cannot read {} times",
            said.len(),
            log.events_of_lamps(),
            reads.len(),
            self.unreadable.load(Ordering::Relaxed),
        );
        assert!(read_by_one > 20);
    }

    /// All of it, which may grow meanwhile.
    async fn log(&self) -> Vec<RecordedEvent> {
        let mut log: Vec<RecordedEvent> = Vec::new();
        loop {
            let after = log.last().map_or(Position::ZERO, |event| event.position);
            let page = self.store.read_all(after, 1_000).await.unwrap();
            if page.is_empty() {
                return log;
            }
            log.extend(page);
        }
    }

    // --- the load --------------------------------------------------------------------------------

    fn rises(self: &Arc<Self>, rng: &mut StdRng) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for n in 0..SENDERS + READERS {
            let (storm, mut rng) = (Arc::clone(self), StdRng::seed_from_u64(rng.random()));
            tasks.spawn(async move {
                while !storm.over.load(Ordering::Relaxed) {
                    match n < SENDERS {
                        true => storm.one_is_sent(&mut rng).await,
                        false => storm.one_is_read(&mut rng).await,
                    }
                }
            });
        }
        tasks
    }

    /// One of the processes that run now.
    async fn any(&self, rng: &mut StdRng, may: impl Fn(Version) -> bool) -> Arc<Process> {
        let mut slots = self.slots.subscribe();
        loop {
            let mut running: Vec<_> = slots.borrow_and_update().iter().flatten().cloned().collect();
            running.retain(|process| may(process.version));
            if !running.is_empty() {
                return running.swap_remove(rng.random_range(0..running.len()));
            }
            slots.changed().await.unwrap();
        }
    }

    async fn version(&self, lamp: &str) -> u64 {
        let stream = StreamId::new(format!("lamp-{lamp}")).unwrap();
        self.store.stream_version(&stream).await.unwrap().get()
    }

    /// One order, on whichever node, until it is answered.
    async fn one_is_sent(&self, rng: &mut StdRng) {
        let n = self.orders.fetch_add(1, Ordering::Relaxed);
        let number = rng.random_range(0..LAMPS);
        let lamp = number.to_string();
        let turns = [Turn::On, Turn::Off, Turn::BeOn, Turn::BeOff];
        let mut turn = turns.get(rng.random_range(0..=turns.len())).copied();
        let is_two = |version| version == Version::Two;
        let has_two = self.slots.borrow().iter().flatten().any(|process| is_two(process.version));
        // Some lamps come to have events that the first version cannot read.
        if has_two && number < 3 && rng.random_ratio(1, 8) {
            turn = Some(Turn::Mark);
        }
        let request = match turn {
            Some(turn) => Request::Order { lamp: lamp.clone(), order: Order { n, turn } },
            None => Request::Look { lamp: lamp.clone() },
        };
        let before = self.version(&lamp).await;
        let (what, by) = loop {
            let may = |version| turn != Some(Turn::Mark) || is_two(version);
            let process = self.any(rng, may).await;
            let what = match process.ask(&request).await {
                Some(Answer::Done { version, events, position }) => {
                    if let Some(position) = position {
                        self.done.lock().unwrap().push((lamp.clone(), version, position));
                    }
                    What::Done { version, events }
                }
                Some(Answer::Refused(state)) => What::Refused(state),
                Some(Answer::Looked { state, version }) => What::Looked { state, version },
                Some(Answer::Transient(_)) | None => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Some(Answer::Unreadable(_)) if process.version == Version::One => {
                    self.unreadable.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                other => panic!("{}: {request:?}: {other:?}", process.name),
            };
            break (what, process.name.clone());
        };
        let after = self.version(&lamp).await;
        self.said.lock().unwrap().push(Said { n, lamp, before, after, turn, what, by });
        self.acknowledged.send_modify(|answers| *answers += 1);
    }

    /// What was done is on the board, on whichever node.
    async fn one_is_read(&self, rng: &mut StdRng) {
        let recent = {
            let done = self.done.lock().unwrap();
            let back = rng.random_range(1..20);
            done.len().checked_sub(back).map(|at| done[at].clone())
        };
        let Some((lamp, at_least, after)) = recent else {
            self.acknowledged.subscribe().changed().await.unwrap();
            return;
        };
        self.look_at_builds().await;
        let process = self.any(rng, |_| true).await;
        match process.ask(&Request::Read { lamp: lamp.clone(), after }).await {
            Some(Answer::Card(Some(card))) => {
                let read = Read { lamp, at_least, card };
                self.reads.lock().unwrap().push((process.version, read));
            }
            Some(Answer::Transient(_)) | None => tokio::task::yield_now().await,
            other => panic!("{} {lamp} after {after}: {other:?}", process.name),
        }
        self.look_at_builds().await;
    }

    /// Some version's documents are always read.
    async fn look_at_builds(&self) {
        // One at a time: what was seen first is noted first.
        let mut active = self.active.lock().await;
        let found = self.documents.look("board").await.unwrap();
        let version = found.active.expect("documents that are read").version;
        if active.last() != Some(&version) {
            active.push(version);
        }
    }
}
