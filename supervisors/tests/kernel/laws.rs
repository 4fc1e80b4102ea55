//! Random trees, random failures, and what holds whatever happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use mister_smith_supervisors::{
    Actor, ActorSystem, ChildSpec, Context, DeadLetter, Depth, ExitReason, Failure, RestartPolicy,
    Shutdown, SlotState, StartError, Strategy, SupervisorSpec,
};
use proptest::prelude::{
    Just, ProptestConfig, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use proptest::strategy::Strategy as Generate;
use proptest::test_runner::TestCaseError;

use crate::kit::{ms, secs, settle};

/// What a test knows of one worker.
#[derive(Default)]
struct Facts {
    /// Lives that exist now: never more than one.
    lives: AtomicI32,
    overlaps: AtomicU64,
    handled: AtomicU64,
    sent: AtomicU64,
}

#[derive(Clone)]
struct Plan {
    facts: Arc<Facts>,
    /// Bit n: what start n does, by two bits: ok, ok, fail, hang.
    starts: u32,
    attempts: Arc<AtomicU64>,
    stop_takes: Duration,
}

struct Worker(Plan);

#[derive(Clone, Copy, Debug)]
enum Order {
    Work,
    Fail,
    Panic,
    End,
    Dawdle,
}

impl Actor for Worker {
    type Message = Order;
    type Args = Plan;

    async fn start(plan: &Plan, _: &mut Context<Self>) -> Result<Self, StartError> {
        let attempt = plan.attempts.fetch_add(1, Ordering::SeqCst);
        // The first start is good; a few of the next are not, and then all are.
        let how = if attempt == 0 || attempt > 8 { 0 } else { plan.starts >> (2 * attempt) & 3 };
        match how {
            2 => return Err(Failure::transient("planned").into()),
            3 => std::future::pending().await,
            _ => {}
        }
        if plan.facts.lives.fetch_add(1, Ordering::SeqCst) != 0 {
            plan.facts.overlaps.fetch_add(1, Ordering::SeqCst);
        }
        Ok(Self(plan.clone()))
    }

    async fn handle(&mut self, order: Order, cx: &mut Context<Self>) -> Result<(), Failure> {
        self.0.facts.handled.fetch_add(1, Ordering::SeqCst);
        match order {
            Order::Work => Ok(()),
            Order::Fail => Err(Failure::transient("planned")),
            Order::Panic => panic!("planned"),
            Order::End => {
                cx.stop();
                Ok(())
            }
            Order::Dawdle => {
                tokio::time::sleep(ms(300)).await;
                Ok(())
            }
        }
    }

    async fn stop(&mut self, _: &ExitReason, _: &mut Context<Self>) {
        tokio::time::sleep(self.0.stop_takes).await;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.facts.lives.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Clone, Debug)]
struct Shape {
    strategy: Strategy,
    intensity: u32,
    workers: Vec<(RestartPolicy, u32, u64, bool)>,
}

fn shape() -> impl Generate<Value = Shape> {
    let strategy = prop_oneof![
        Just(Strategy::OneForOne),
        Just(Strategy::RestForOne),
        Just(Strategy::OneForAll)
    ];
    let restart = prop_oneof![
        3 => Just(RestartPolicy::Permanent),
        1 => Just(RestartPolicy::Transient),
        1 => Just(RestartPolicy::Temporary),
    ];
    // Restart policy, planned starts, milliseconds to stop, killed brutally.
    let worker = (restart, any::<u32>(), 0u64..400, any::<bool>());
    (strategy, 0u32..40, proptest::collection::vec(worker, 1..6))
        .prop_map(|(strategy, intensity, workers)| Shape { strategy, intensity, workers })
}

#[derive(Clone, Debug)]
enum Event {
    Tell(usize, Order),
    Kill(usize),
    KillSupervisor,
    Stop(usize),
    Start(usize),
    PlannedRestart(usize),
    Wait(u64),
}

fn event() -> impl Generate<Value = Event> {
    let order = prop_oneof![
        4 => Just(Order::Work),
        2 => Just(Order::Fail),
        1 => Just(Order::Panic),
        1 => Just(Order::End),
        1 => Just(Order::Dawdle),
    ];
    prop_oneof![
        12 => (0usize..6, order).prop_map(|(i, order)| Event::Tell(i, order)),
        3 => (0usize..6).prop_map(Event::Kill),
        1 => Just(Event::KillSupervisor),
        1 => (0usize..6).prop_map(Event::Stop),
        1 => (0usize..6).prop_map(Event::Start),
        1 => (0usize..6).prop_map(Event::PlannedRestart),
        6 => (1u64..500).prop_map(Event::Wait),
    ]
}

struct Run {
    system: ActorSystem,
    facts: Vec<Arc<Facts>>,
    dead: Arc<AtomicU64>,
}

async fn begin(shape: &Shape) -> Run {
    let facts: Vec<Arc<Facts>> = shape.workers.iter().map(|_| Arc::default()).collect();
    let mut inner = SupervisorSpec::new("inner")
        .strategy(shape.strategy)
        .intensity(shape.intensity, secs(1_000));
    for (i, (restart, starts, stop_ms, brutal)) in shape.workers.iter().enumerate() {
        let plan = Plan {
            facts: Arc::clone(&facts[i]),
            starts: *starts,
            attempts: Arc::default(),
            stop_takes: ms(*stop_ms),
        };
        let shutdown = if *brutal { Shutdown::BrutalKill } else { Shutdown::After(ms(200)) };
        inner = inner.child(
            ChildSpec::actor::<Worker>(i.to_string(), plan)
                .restart(*restart)
                .shutdown(shutdown)
                .start_deadline(ms(700)),
        );
    }
    let dead = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&dead);
    let root = SupervisorSpec::new("root").intensity(1_000_000, secs(1)).child(inner);
    let system = ActorSystem::builder(root)
        .dead_letters(move |_: DeadLetter| {
            counted.fetch_add(1, Ordering::SeqCst);
        })
        .start()
        .await
        .unwrap();
    Run { system, facts, dead }
}

async fn happen(run: &Run, event: &Event, pending: &mut Vec<tokio::task::JoinHandle<()>>) {
    let count = run.facts.len();
    let path = |i: &usize| format!("/inner/{}", i % count);
    let mut in_background = |future: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
        pending.push(tokio::spawn(future));
    };
    match event {
        Event::Tell(i, order) => {
            if let Ok(worker) = run.system.find::<Order>(&path(i))
                && worker.try_tell(*order).is_ok()
            {
                run.facts[i % count].sent.fetch_add(1, Ordering::SeqCst);
            }
        }
        Event::Kill(i) => drop(run.system.kill(&path(i))),
        Event::KillSupervisor => drop(run.system.kill("/inner")),
        Event::Stop(i) => {
            let (system, path) = (run.system.clone(), path(i));
            in_background(Box::pin(async move { drop(system.stop(&path).await) }));
        }
        Event::PlannedRestart(i) => {
            let (system, path) = (run.system.clone(), path(i));
            in_background(Box::pin(async move { drop(system.restart(&path).await) }));
        }
        Event::Start(i) => {
            let (system, id) = (run.system.clone(), (i % count).to_string());
            in_background(Box::pin(async move {
                if let Ok(inner) = system.supervisor("/inner") {
                    drop(inner.restart_child(&id).await);
                }
            }));
        }
        Event::Wait(long) => tokio::time::sleep(ms(*long)).await,
    }
}

async fn check(shape: Shape, events: Vec<Event>) -> Result<(), TestCaseError> {
    let run = begin(&shape).await;
    let mut pending = Vec::new();
    for event in &events {
        happen(&run, event, &mut pending).await;
    }
    // Time for every stop, start and deadline to run out.
    tokio::time::sleep(secs(600)).await;
    for request in pending {
        let waited = tokio::time::timeout(secs(600), request).await;
        prop_assert!(waited.is_ok(), "a request hangs");
    }
    settle().await;
    // Up again, or down because somebody said so: nothing is forgotten half way.
    let inner = run.system.look("/inner", Depth::ALL).expect("declared").root;
    prop_assert_eq!(inner.state, SlotState::Up);
    for child in &inner.children {
        prop_assert!(
            matches!(child.state, SlotState::Up | SlotState::Down),
            "{} is {:?} at the end",
            child.path,
            child.state
        );
    }
    // Some take longer to stop than they may, so that not all stop in order; but all stop.
    run.system.shutdown(secs(3_600)).await;
    for (i, facts) in run.facts.iter().enumerate() {
        prop_assert_eq!(facts.overlaps.load(Ordering::SeqCst), 0, "two lives of {} at once", i);
        prop_assert_eq!(facts.lives.load(Ordering::SeqCst), 0, "a life of {} is left", i);
    }
    let sum = |of: fn(&Facts) -> &AtomicU64| -> u64 {
        run.facts.iter().map(|facts| of(facts).load(Ordering::SeqCst)).sum()
    };
    let (sent, handled) = (sum(|f| &f.sent), sum(|f| &f.handled));
    let dead = run.dead.load(Ordering::SeqCst);
    // A message in hand at a crash was handled and is a dead letter too.
    prop_assert!(handled <= sent, "{} handled of {} sent", handled, sent);
    prop_assert!(handled + dead >= sent, "{} sent, {} handled, {} dead", sent, handled, dead);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_lives_never_overlap_and_nothing_is_left_behind(
        shape in shape(),
        events in proptest::collection::vec(event(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(check(shape, events))?;
    }
}
