use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mister_smith_supervisors::Clock;
use tokio::time::sleep;

use super::*;
use crate::pool::Upkeep;
use crate::store::conformance::append;
use crate::store::memory::MemoryStore;
use crate::store::probe::Probe;
use crate::store::{EventStore, ExpectedVersion};

/// Upkeep that takes its time.
#[derive(Debug, Default)]
struct Tidying {
    takes: Duration,
    running: AtomicUsize,
    most: AtomicUsize,
    ended: AtomicUsize,
}

impl Upkeep for Tidying {
    fn tidy(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async {
            let now = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            sleep(self.takes).await;
            self.running.fetch_sub(1, Ordering::SeqCst);
            self.ended.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
        .boxed()
    }
}

struct Bench {
    line: Arc<Line>,
    running: Arc<Running>,
    head: Arc<watch::Sender<Position>>,
    clock: Clock,
    _driver: tokio::task::JoinHandle<Arc<StoreError>>,
}

fn bench(store: Arc<dyn EventStore>, upkeep: Arc<Tidying>) -> Bench {
    let (line, running) = (Arc::<Line>::default(), Arc::<Running>::default());
    let head = Arc::new(watch::Sender::new(Position::ZERO));
    let clock = Clock::starting_at(0);
    let driver = Driver {
        store,
        upkeep,
        head: Arc::clone(&head),
        line: Arc::clone(&line),
        running: Arc::clone(&running),
        clock,
    };
    Bench { line, running, head, clock, _driver: tokio::spawn(driver.run()) }
}

impl Bench {
    async fn commit(&self, stream: &str, seed: u64) -> Committed {
        let (answer, answered) = oneshot::channel();
        let appends = vec![append(stream, ExpectedVersion::Any, seed, 1)];
        self.line.put(Request { appends, answer });
        answered.await.unwrap()
    }
}

/// Upkeep that is slower than the commits that want it runs to its end all the same, one at a time.
#[tokio::test(start_paused = true)]
async fn slow_upkeep_is_not_given_up() {
    let upkeep = Arc::new(Tidying { takes: Duration::from_secs(2), ..Tidying::default() });
    let store = Probe::<MemoryStore>::slow(Duration::from_millis(1));
    let bench = bench(Arc::new(store), Arc::clone(&upkeep));
    for n in 0..12_000 {
        bench.commit("s", n).await.unwrap();
    }
    let ended = upkeep.ended.load(Ordering::SeqCst);
    assert!((5..=7).contains(&ended), "{ended} in twelve seconds of two each");
    assert_eq!(upkeep.most.load(Ordering::SeqCst), 1);
}

/// Those that were answered are in the next batch together.
#[tokio::test(start_paused = true)]
async fn a_batch_waits_for_those_that_were_just_answered() {
    let store = Arc::new(Probe::<MemoryStore>::slow(Duration::from_millis(1)));
    let bench = Arc::new(bench(Arc::clone(&store) as _, Arc::default()));
    let clients: Vec<_> = (0..64)
        .map(|n| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move {
                for round in 0..50 {
                    // As far as an aggregate's way is: some turns of the runtime.
                    for _ in 0..n % 4 {
                        tokio::task::yield_now().await;
                    }
                    bench.commit(&format!("s-{n}"), n * 100 + round).await.unwrap();
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let sizes = store.batches.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(sizes.iter().sum::<usize>(), 64 * 50);
    assert!(sizes.len() <= 60, "{} batches: {sizes:?}", sizes.len());
    // One alone is not held up: it is a batch at once.
    store.batches.lock().unwrap().clear();
    for n in 0..10 {
        bench.commit("alone", 10_000 + n).await.unwrap();
    }
    assert_eq!(*store.batches.lock().unwrap(), vec![1; 10]);
}

#[tokio::test(start_paused = true)]
async fn the_age_of_a_commit_shows() {
    let store = Arc::new(Probe::<MemoryStore>::slow(Duration::from_secs(70)));
    let bench = bench(store, Arc::default());
    assert_eq!(bench.running.age(bench.clock.elapsed()), None);
    let mut commit = std::pin::pin!(bench.commit("s", 1));
    tokio::select! {
        biased;
        _ = &mut commit => panic!("too early"),
        () = sleep(Duration::from_secs(61)) => {}
    }
    assert!(bench.running.age(bench.clock.elapsed()).is_some_and(|age| age >= STUCK));
    commit.await.unwrap();
    assert_eq!(bench.running.age(bench.clock.elapsed()), None);
    assert_eq!(*bench.head.borrow(), Position::new(1));
}

/// More than may wait is refused, and nothing of it is written.
#[tokio::test(start_paused = true)]
async fn too_much_is_refused() {
    let store = Arc::new(Probe::<MemoryStore>::slow(Duration::from_millis(1)));
    let bench = Arc::new(bench(Arc::clone(&store) as _, Arc::default()));
    let events = MAX_WAITING_EVENTS as u64 / 10;
    let commits = (0..12).map(|n| {
        let (answer, answered) = oneshot::channel();
        let appends = vec![append("s", ExpectedVersion::Any, n * events, events)];
        bench.line.put(Request { appends, answer });
        answered
    });
    let answers = futures_util::future::join_all(commits.collect::<Vec<_>>()).await;
    let refused = answers.iter().filter(|answer| {
        matches!(answer, Ok(Err(CommitError::Overloaded { waiting: MAX_WAITING_EVENTS })))
    });
    assert_eq!(refused.count(), 2);
    assert_eq!(store.head().await.unwrap(), Position::new(10 * events));
}

/// What is dropped with the driver is answered: nobody knows of it.
#[tokio::test(start_paused = true)]
async fn the_end_of_the_driver_answers_all() {
    let store = Probe::<MemoryStore>::slow(Duration::from_secs(1));
    let bench = bench(Arc::new(store), Arc::default());
    let asked = Mutex::new(Vec::new());
    for n in 0..3 {
        let (answer, answered) = oneshot::channel();
        bench.line.put(Request { appends: vec![append("s", ExpectedVersion::Any, n, 1)], answer });
        asked.lock().unwrap().push(Pending(answered));
        tokio::task::yield_now().await;
    }
    bench._driver.abort();
    let Bench { line, .. } = bench;
    drop(line);
    for pending in asked.into_inner().unwrap() {
        assert!(matches!(pending.durable().await, Err(CommitError::Interrupted)));
    }
}
