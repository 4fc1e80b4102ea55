//! Timers on nodes that share a table in memory, under time that the test moves.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use futures_util::future::ready;
use mister_smith_supervisors::TaskGuard;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::{advance, sleep};

use super::actor::claim_of;
use super::run::Run;
use super::*;
use crate::bus::{FailureCause, OfficeError, Undelivered};
use crate::store::claims::ClaimError;
use crate::store::claims::memory::MemoryClaims;
use crate::store::follow::{Follow, Follower, LEASE, Source};
use crate::store::memory::MemoryStore;
use crate::store::timers::memory::MemoryTimers;
use crate::store::timers::{Due, TimerTable, conformance};

const LONG: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn the_table_in_memory_keeps_every_law() {
    struct Both(Arc<MemoryClaims>, MemoryTimers);
    let make = || {
        let claims = Arc::new(MemoryClaims::new());
        Both(Arc::clone(&claims), MemoryTimers::new(claims))
    };
    let both = async || {
        let Both(claims, timers) = make();
        (timers, claims)
    };
    conformance::run(both).await;
}

/// Keeps letters, or refuses them.
#[derive(Debug, Default)]
struct Office {
    refuses: AtomicBool,
    letters: Mutex<Vec<Undelivered>>,
}

impl DeadLetterOffice for Office {
    fn keep(&self, letter: Undelivered) -> BoxFuture<'_, Result<(), OfficeError>> {
        if self.refuses.load(std::sync::atomic::Ordering::Relaxed) {
            return ready(Err(OfficeError::new(ErrorClass::Permanent, "closed"))).boxed();
        }
        self.letters.lock().unwrap().push(letter);
        ready(Ok(())).boxed()
    }

    fn settle(&self, _: uuid::Uuid) -> BoxFuture<'_, Result<(), OfficeError>> {
        ready(Ok(())).boxed()
    }
}

/// One store, and whatever nodes there are on it.
struct Town {
    source: Source,
    table: Arc<MemoryTimers>,
    clock: Clock,
    office: Arc<Office>,
}

/// A node: one task has the claim, another fires.
struct Node {
    notice: Arc<Notify>,
    counted: Arc<Counted>,
    ended: mpsc::UnboundedReceiver<ClaimError>,
    keeping: Option<TaskGuard>,
    _running: TaskGuard,
}

impl Town {
    fn new() -> Self {
        let claims = Arc::new(MemoryClaims::new());
        let table = Arc::new(MemoryTimers::new(Arc::clone(&claims)));
        let store = Arc::new(MemoryStore::new());
        Self {
            source: Source { store, claims, shared: true },
            table,
            clock: Clock::starting_at(1_000_000),
            office: Arc::default(),
        }
    }

    fn after(&self, wait: Duration) -> Timestamp {
        Timestamp::from_micros(self.clock.wall_us() + i64::try_from(wait.as_micros()).unwrap())
    }

    async fn set(&self, name: &str, wait: Duration) {
        let timer = NewTimer::new("k", name, self.after(wait), name.as_bytes().to_vec());
        self.table.set(vec![timer]).await.unwrap();
    }

    async fn row(&self, name: &str) -> Option<TimerRow> {
        self.table.get("k", name).await.unwrap()
    }

    /// Waits until a timer is gone.
    async fn gone(&self, name: &str) {
        let gone = async {
            while self.row(name).await.is_some() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LONG, gone).await.expect("it goes");
    }

    fn node(&self, owner: &str, options: TimerOptions, handler: impl TimerHandler) -> Node {
        let head = watch::Sender::default().subscribe();
        let follow = Follow::new(claim_of("k"), owner);
        let follower = Follower::new(follow, self.source.clone(), head, self.clock, Arc::default());
        let (notice, counted) = (Arc::<Notify>::default(), Arc::<Counted>::default());
        let run = Run {
            kind: "k".into(),
            options,
            handler: Arc::new(handler),
            table: Arc::clone(&self.table) as _,
            follower: follower.clone(),
            bus: EventBus::new(self.clock, 1),
            office: Arc::clone(&self.office) as _,
            clock: self.clock,
            notice: Arc::clone(&notice),
            shared: true,
            counted: Arc::clone(&counted),
            seed: 1,
        };
        let (end, ended) = mpsc::unbounded_channel();
        let lost = end.clone();
        let keeping = TaskGuard::spawn(async move { drop(lost.send(follower.keep().await)) });
        let running = TaskGuard::spawn(async move { drop(end.send(run.run().await)) });
        Node { notice, counted, ended, keeping: Some(keeping), _running: running }
    }
}

impl Node {
    /// Its claim is not renewed any more; what it does goes on.
    fn pauses(&mut self) {
        self.keeping = None;
    }
}

/// What was fired, in order, with the time of day in milliseconds.
type Log = Arc<Mutex<Vec<(String, i64)>>>;

fn log_of(log: &Log) -> Vec<String> {
    log.lock().unwrap().iter().map(|(name, _)| name.clone()).collect()
}

/// Notes what fires, and answers what `answer` does.
fn noting(
    clock: Clock,
    log: &Log,
    answer: impl Fn(&Timer) -> Fired + Send + Sync + 'static,
) -> impl TimerHandler {
    let log = Arc::clone(log);
    move |timer: Timer| {
        let answer = answer(&timer);
        log.lock().unwrap().push((timer.name.to_string(), clock.wall_us() / 1_000));
        async move { answer }
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn timers_fire_at_their_times_and_are_gone() {
    let (town, log) = (Town::new(), Log::default());
    town.set("late", secs(20)).await;
    town.set("early", secs(10)).await;
    town.set("never", secs(15)).await;
    let _node =
        town.node("one", TimerOptions::default(), noting(town.clock, &log, |_| Fired::Done));
    sleep(secs(5)).await;
    assert!(town.table.cancel("k", "never").await.unwrap());
    town.gone("late").await;
    let log = log.lock().unwrap().clone();
    assert_eq!(log, [("early".to_owned(), 11_000), ("late".to_owned(), 21_000)]);
    assert_eq!(town.row("early").await, None);
}

/// One that is set while the owner sleeps until a later one: by this node at once, by another one
/// within the time of a look.
#[tokio::test(start_paused = true)]
async fn what_is_set_meanwhile_is_heard() {
    let (town, log) = (Town::new(), Log::default());
    town.set("far", LONG).await;
    let node = town.node("one", TimerOptions::default(), noting(town.clock, &log, |_| Fired::Done));
    sleep(secs(1)).await;
    town.set("told", Duration::ZERO).await;
    node.notice.notify_one();
    sleep(Duration::from_millis(2)).await;
    assert_eq!(log_of(&log), ["told"]);
    town.set("found", Duration::ZERO).await;
    sleep(LOOK_EVERY + Duration::from_millis(2)).await;
    assert_eq!(log_of(&log), ["told", "found"]);
}

/// Those that fail, hang or panic hold up none behind them, and come again.
#[tokio::test(start_paused = true)]
async fn what_fails_comes_again_and_holds_up_nobody() {
    let (town, log) = (Town::new(), Log::default());
    let tries = Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));
    let counting = Arc::clone(&tries);
    let handler = move |timer: Timer| {
        let attempt = {
            let mut tries = counting.lock().unwrap();
            let count = tries.entry(timer.name.to_string()).or_default();
            *count += 1;
            *count
        };
        // Before there is a future, and in it.
        assert!(&*timer.name != "a-panics-1" || attempt > 1, "in the call");
        async move {
            assert!(&*timer.name != "a-panics-2" || attempt > 1, "in the future");
            match &*timer.name {
                "a-fails" if attempt < 4 => Fired::retry("not yet"),
                "a-hangs" if attempt < 2 => std::future::pending().await,
                _ => Fired::Done,
            }
        }
    };
    let names = ["a-fails", "a-hangs", "a-panics-1", "a-panics-2", "b"];
    for (n, name) in names.iter().enumerate() {
        town.set(name, Duration::from_millis(n as u64)).await;
    }
    let options = TimerOptions::default().at_once(4);
    let node = town.node("one", options, handler);
    town.gone("b").await;
    assert!(town.clock.elapsed() < secs(5), "nothing waited for the one that hangs");
    let hanging = town.row("a-hangs").await.expect("it hangs");
    assert_eq!((hanging.attempts, &*hanging.reason), (0, ""));
    town.set("c", secs(1)).await;
    town.gone("c").await;
    assert!(town.clock.elapsed() < secs(8), "a later one is seen while it hangs");
    for name in names {
        town.gone(name).await;
    }
    let tries = tries.lock().unwrap().clone();
    assert_eq!(tries.into_values().collect::<Vec<_>>(), [4, 2, 2, 2, 1, 1]);
    assert_eq!(node.counted.fired(), 6);
    assert_eq!(node.counted.retried(), 6);
    assert_eq!(node.counted.trouble(), None);
    assert!(town.office.letters.lock().unwrap().is_empty());
    let _ = log;
}

/// H11: one that this program does not know was removed. It waits, everybody sees it, and another
/// program that takes over fires it at once.
#[tokio::test(start_paused = true)]
async fn what_this_program_does_not_know_waits_for_one_that_does() {
    let (town, log) = (Town::new(), Log::default());
    town.set("new", secs(1)).await;
    town.set("old", secs(2)).await;
    let unknown = |timer: &Timer| match &*timer.name {
        "new" => Fired::unknown("the event is of a newer program"),
        _ => Fired::Done,
    };
    let old = town.node("old", TimerOptions::default(), noting(town.clock, &log, unknown));
    town.gone("old").await;
    sleep(secs(3_600)).await;
    let row = town.row("new").await.expect("it waits");
    assert_eq!(row.state, TimerState::Unknown);
    assert_eq!(row.reason, "the event is of a newer program");
    assert_eq!(old.counted.unknown(), 1);
    assert!(log.lock().unwrap().len() < 40, "with growing pauses: {log:?}");
    drop(old);
    let before = town.clock.elapsed();
    let _new = town.node("new", TimerOptions::default(), noting(town.clock, &log, |_| Fired::Done));
    town.gone("new").await;
    assert!(town.clock.elapsed() - before < LEASE + secs(2), "at once, not after a pause");
    assert!(town.office.letters.lock().unwrap().is_empty());
}

/// H5c, H11: one that fails for good was removed with a log line, and one that panics stopped all.
#[tokio::test(start_paused = true)]
async fn what_fails_for_good_is_a_dead_letter_with_its_class() {
    let (town, log) = (Town::new(), Log::default());
    for name in ["denied", "panics", "tried"] {
        town.set(name, Duration::ZERO).await;
    }
    let answer = |timer: &Timer| match &*timer.name {
        "denied" => Fired::fail(ErrorClass::User, "not allowed"),
        "panics" => panic!("always"),
        _ => Fired::retry("busy"),
    };
    let options = TimerOptions::default().retry(RetryPolicy::attempts(3));
    town.office.refuses.store(true, std::sync::atomic::Ordering::Relaxed);
    let _node = town.node("one", options, noting(town.clock, &log, answer));
    sleep(secs(60)).await;
    let row = town.row("denied").await.expect("its letter is refused");
    assert_eq!(
        row.reason,
        "its dead letter is not kept: the dead letter was not kept (permanent): closed; \
         it failed: user: not allowed"
    );
    town.set("behind", Duration::ZERO).await;
    town.office.refuses.store(false, std::sync::atomic::Ordering::Relaxed);
    for name in ["denied", "panics", "tried", "behind"] {
        town.gone(name).await;
    }
    let letters = town.office.letters.lock().unwrap();
    let said: BTreeMap<String, (FailureCause, String)> = letters
        .iter()
        .map(|letter| {
            let timer = letter::timer_of(&letter.message).unwrap();
            assert_eq!(&*letter.subscription, "timer.k");
            assert_eq!(timer.payload, timer.name.as_bytes(), "the way back");
            (timer.name.to_string(), (letter.cause, letter.reason.clone()))
        })
        .collect();
    assert_eq!(said["denied"], (FailureCause::Failed, "user: not allowed".to_owned()));
    assert_eq!(said["panics"].1, "its handler crashed: panic: always");
    assert_eq!(said["tried"], (FailureCause::Exhausted, "busy".to_owned()));
}

/// A node that slept past its lease in the middle of a handler: what another one has fired
/// meanwhile it fires under the same key, and neither removes nor changes what is there now.
#[tokio::test(start_paused = true)]
async fn a_node_that_wakes_removes_nothing() {
    let town = Town::new();
    let (keys, gate) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Semaphore::new(0)));
    let handler = |gate: Option<Arc<Semaphore>>| {
        let keys = Arc::clone(&keys);
        move |timer: Timer| {
            keys.lock().unwrap().push(timer.key());
            let gate = gate.clone();
            async move {
                if let Some(gate) = gate {
                    gate.acquire().await.unwrap().forget();
                }
                Fired::Done
            }
        }
    };
    town.set("a", Duration::ZERO).await;
    let options = TimerOptions::default().deadline(LONG);
    let mut one = town.node("one", options.clone(), handler(Some(Arc::clone(&gate))));
    sleep(secs(1)).await;
    assert_eq!(keys.lock().unwrap().len(), 1, "it is in the hands of the first");
    one.pauses();
    let two = town.node("two", options, handler(None));
    town.gone("a").await;
    assert_eq!(two.counted.fired(), 1);
    // Set again for another time, under the same name.
    town.set("a", secs(30)).await;
    let again = town.row("a").await.unwrap();
    gate.add_permits(1);
    let lost = one.ended.recv().await.unwrap();
    assert!(matches!(lost, ClaimError::Lost { .. }), "{lost:?}");
    assert_eq!(town.row("a").await.unwrap(), again, "it is not its own any more");
    let keys = keys.lock().unwrap().clone();
    assert_eq!(keys[0], keys[1], "the same key each time");
    assert_eq!(keys.len(), 2);
}

/// It had read what was due before it slept: it asks for the claim before it fires.
#[tokio::test(start_paused = true)]
async fn a_node_that_slept_asks_before_it_fires() {
    let (town, log) = (Town::new(), Log::default());
    town.set("a", secs(10)).await;
    let mut one =
        town.node("one", TimerOptions::default(), noting(town.clock, &log, |_| Fired::Done));
    sleep(secs(1)).await;
    one.pauses();
    let other = town.source.claims.clone();
    sleep(LEASE).await;
    // Somebody else has it, and fires nothing.
    other.claim(&claim_of("k"), "two", LONG).await.unwrap();
    sleep(secs(60)).await;
    assert!(log.lock().unwrap().is_empty());
    assert!(town.row("a").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn one_that_repeats_itself_stays_in_the_table() {
    let (town, log) = (Town::new(), Log::default());
    town.set("a", secs(1)).await;
    let again =
        |timer: &Timer| Fired::Again(Timestamp::from_micros(timer.due.as_micros() + 10_000_000));
    let _node = town.node("one", TimerOptions::default(), noting(town.clock, &log, again));
    sleep(secs(25)).await;
    let at: Vec<_> = log.lock().unwrap().iter().map(|(_, at)| *at).collect();
    assert_eq!(at, [2_000, 12_000, 22_000]);
    assert!(town.table.cancel("k", "a").await.unwrap());
    sleep(LONG).await;
    assert_eq!(log.lock().unwrap().len(), 3);
}

/// One that kills its process is found out by its deaths, and no other with it.
#[tokio::test(start_paused = true)]
async fn a_timer_that_kills_processes_is_a_dead_letter() {
    let (town, log) = (Town::new(), Log::default());
    for (n, name) in ["a", "deadly", "z"].into_iter().enumerate() {
        town.set(name, Duration::from_millis(n as u64)).await;
    }
    let mut lives = 0;
    while town.row("deadly").await.is_some() {
        lives += 1;
        assert!(lives < 12, "it goes on for ever");
        // Nobody hears of an end: the whole process is gone, with all that it had in hand.
        let (died, dying) = (Arc::new(Notify::new()), Arc::clone(&log));
        let tell = Arc::clone(&died);
        let handler = move |timer: Timer| {
            let deadly = &*timer.name == "deadly";
            dying.lock().unwrap().push((timer.name.to_string(), 0));
            if deadly {
                tell.notify_one();
            }
            async move {
                match deadly {
                    true => std::future::pending().await,
                    false => Fired::Done,
                }
            }
        };
        let node = town.node(&format!("life {lives}"), TimerOptions::default().at_once(1), handler);
        tokio::select! {
            biased;
            () = died.notified() => {}
            () = town.gone("deadly") => {}
        }
        drop(node);
        advance(LEASE).await;
    }
    let letters = town.office.letters.lock().unwrap().len();
    assert_eq!(letters, 1);
    assert_eq!(town.row("a").await, None);
    let deadly = log_of(&log).iter().filter(|name| *name == "deadly").count();
    assert_eq!(deadly, lives - 1, "the last life found out without firing it");
    let _node =
        town.node("last", TimerOptions::default(), noting(town.clock, &log, |_| Fired::Done));
    town.gone("z").await;
}

/// Ten thousand at one moment: each once, and no more in memory than are fired at once.
#[tokio::test(start_paused = true)]
async fn so_many_at_once_and_no_more() {
    let town = Town::new();
    let due = town.after(secs(1));
    let timers = (0..10_000).map(|n| NewTimer::new("k", format!("{n:05}"), due, Bytes::new()));
    town.table.set(timers.collect()).await.unwrap();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let fired = Arc::new(Mutex::new(BTreeMap::<Arc<str>, u32>::new()));
    let (counting, seen, noted) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&fired));
    let handler = move |timer: Timer| {
        let (counting, seen) = (Arc::clone(&counting), Arc::clone(&seen));
        *noted.lock().unwrap().entry(timer.name).or_default() += 1;
        async move {
            use std::sync::atomic::Ordering::Relaxed;
            let now = counting.fetch_add(1, Relaxed) + 1;
            seen.fetch_max(now, Relaxed);
            tokio::task::yield_now().await;
            counting.fetch_sub(1, Relaxed);
            Fired::Done
        }
    };
    let node = town.node("one", TimerOptions::default().at_once(50), handler);
    let all = async {
        while town.table.due("k", due, 1).await.unwrap() != Due::default() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, all).await.expect("all are fired");
    assert!(most.load(std::sync::atomic::Ordering::Relaxed) <= 50);
    let fired = fired.lock().unwrap();
    assert_eq!(fired.len(), 10_000);
    assert!(fired.values().all(|times| *times == 1));
    assert_eq!(node.counted.fired(), 10_000);
}

#[test]
fn names_that_no_store_takes_are_refused() {
    let timer = |kind: &str, name: &str| NewTimer::new(kind, name, Timestamp::default(), "");
    assert!(check(&timer("process.order-x_1", "any / name")).is_ok());
    for (kind, name) in [("", "a"), ("a..b", "a"), ("a b", "a"), ("a", ""), ("a", "x\0y")] {
        assert!(check(&timer(kind, name)).is_err(), "{kind:?} {name:?}");
    }
    let long = "x".repeat(MAX_NAME + 1);
    assert!(matches!(check(&timer("a", &long)), Err(TimerError::Name { .. })));
    let large = NewTimer::new("a", "b", Timestamp::default(), vec![0; MAX_PAYLOAD + 1]);
    assert!(matches!(check(&large), Err(TimerError::TooLarge { .. })));
}
