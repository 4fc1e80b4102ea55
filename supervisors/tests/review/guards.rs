//! User code that is dropped or shown by a supervisor hurts nobody.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use mister_smith_supervisors::*;
use ractor::{ActorProcessingErr, ActorRef};

use crate::kit::*;
use crate::workers::*;

/// Panics when its last copy is dropped.
#[derive(Clone)]
struct Mine(#[allow(dead_code, reason = "dropped")] Arc<Bomb>);

struct Bomb(Arc<AtomicU32>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        if !std::thread::panicking() {
            panic!("told to panic when it is dropped");
        }
    }
}

/// Counts how many have gone off.
fn mine() -> (Mine, Arc<AtomicU32>) {
    let gone = Arc::new(AtomicU32::new(0));
    (Mine(Arc::new(Bomb(Arc::clone(&gone)))), gone)
}

struct Holder;

impl Actor for Holder {
    type Message = ();
    type Args = Mine;

    async fn start(_: &Mine, _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(&mut self, (): (), _: &mut Context<Self>) -> Result<(), Failure> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn the_arguments_of_a_refused_child_hurt_nobody() {
    let log = Log::default();
    for kind in [SupervisorSpec::new("s"), SupervisorSpec::dynamic("s")] {
        let system = start(root().child(kind.child(puppet("a", &log)))).await;
        let s = system.supervisor("/s").unwrap();
        let (args, gone) = mine();
        let twice = answered("start", s.start_child(ChildSpec::actor::<Holder>("a", args))).await;
        assert!(twice.is_err(), "{twice:?}");
        settle().await;
        assert_eq!(gone.load(Ordering::SeqCst), 1, "nobody needs them any more");
        assert_eq!(seen(&system, "/s"), (SlotState::Up, 1));
        assert_eq!(seen(&system, "/s/a"), (SlotState::Up, 1));
        let (args, _) = mine();
        let odd = ChildSpec::actor::<Holder>("", args);
        assert!(answered("start", s.start_child(odd)).await.is_err(), "no such id");
        settle().await;
        assert_eq!(seen(&system, "/s"), (SlotState::Up, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn the_arguments_below_a_supervisor_that_is_forgotten_hurt_nobody() {
    let log = Log::default();
    for keep in [false, true] {
        let system =
            start(root().child(SupervisorSpec::dynamic("s").child(puppet("b", &log)))).await;
        let s = system.supervisor("/s").unwrap();
        let (args, gone) = mine();
        let inner = if keep {
            SupervisorSpec::dynamic("t").keep_children()
        } else {
            SupervisorSpec::new("t")
        };
        let inner = inner.child(ChildSpec::actor::<Holder>("a", args));
        s.start_child(inner).await.unwrap();
        answered("terminate", s.terminate_child("t")).await.unwrap();
        settle().await;
        settle().await;
        assert_eq!(gone.load(Ordering::SeqCst), 1, "nobody needs them any more");
        assert_eq!(seen(&system, "/s"), (SlotState::Up, 1));
        assert_eq!(seen(&system, "/s/b"), (SlotState::Up, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn the_arguments_of_a_child_that_was_forgotten_do_not_hide_how_a_system_ended() {
    let (args, gone) = mine();
    let root = SupervisorSpec::dynamic("root").child(ChildSpec::actor::<Holder>("a", args));
    let system = start(root).await;
    system.supervisor("/").unwrap().terminate_child("a").await.unwrap();
    assert!(system.shutdown(secs(10)).await);
    assert!(matches!(system.ended().await, ExitReason::Shutdown));
    drop(system);
    settle().await;
    assert_eq!(gone.load(Ordering::SeqCst), 1);
}

/// An error that panics when it is shown.
#[derive(Debug)]
struct Unspeakable;

impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("told to panic when it is shown")
    }
}

impl std::error::Error for Unspeakable {}

struct Raw {
    in_start: bool,
}

impl ractor::Actor for Raw {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        if self.in_start { Err(Box::new(Unspeakable)) } else { Ok(()) }
    }

    async fn post_start(&self, _: ActorRef<()>, (): &mut ()) -> Result<(), ActorProcessingErr> {
        Err(Box::new(Unspeakable))
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_a_raw_actor_that_cannot_be_shown_hurts_nobody_else() {
    let log = Log::default();
    let s = SupervisorSpec::new("s").child(puppet("b", &log));
    let system = start(root().child(s)).await;
    let s = system.supervisor("/s").unwrap();
    let raw =
        ChildSpec::raw("a", || (Raw { in_start: false }, ())).restart(RestartPolicy::Temporary);
    answered("start", s.start_child(raw)).await.unwrap();
    settle().await;
    assert_eq!(seen(&system, "/s"), (SlotState::Up, 1), "its supervisor goes on");
    assert!(system.look("/s/a", Depth::FOLDED).is_none(), "it has failed");
    let raw = ChildSpec::raw("a", || (Raw { in_start: true }, ()));
    let (failed, took) = timed("start", s.start_child(raw)).await;
    assert!(matches!(failed, Err(SupervisorError::StartFailed { .. })), "{failed:?}");
    assert_eq!(took, secs(0), "it is told at once");
    assert_eq!(seen(&system, "/s"), (SlotState::Up, 1));
    assert_eq!(seen(&system, "/s/b"), (SlotState::Up, 1));
}

struct Slow(Shut);

struct Heavy(Shut);

impl Drop for Heavy {
    fn drop(&mut self) {
        self.0.block();
    }
}

impl ractor::Actor for Slow {
    type Msg = ();
    type State = Heavy;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<Heavy, ActorProcessingErr> {
        Ok(Heavy(self.0.clone()))
    }

    async fn post_start(
        &self,
        myself: ActorRef<()>,
        _: &mut Heavy,
    ) -> Result<(), ActorProcessingErr> {
        myself.stop(None);
        Ok(())
    }
}

#[test]
fn what_a_raw_actor_leaves_delays_nobody() {
    real(3, async {
        let log = Log::default();
        let system = start(root().child(SupervisorSpec::new("s").child(puppet("b", &log)))).await;
        let s = system.supervisor("/s").unwrap();
        let gate = Gate::default();
        let shut = gate.shut();
        let raw = ChildSpec::raw("a", move || (Slow(shut.clone()), ()));
        s.start_child(raw.restart(RestartPolicy::Temporary)).await.unwrap();
        gate.reached().await;
        soon("the supervisor answers", s.restarts_left()).await.unwrap();
        gate.open();
    });
}

/// Panics when it is dropped, unless it is part of a panic.
struct Fuse;

impl Drop for Fuse {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("told to panic when it is dropped");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_description_that_panics_when_it_is_dropped_does_not_change_how_a_task_ended() {
    let task = ChildSpec::task("t", |cx: TaskContext| async move {
        let fuse = Fuse;
        cx.describe(move || {
            let _ = &fuse;
            String::new()
        });
        Ok(())
    });
    let system = start(root().child(task.restart(RestartPolicy::Transient))).await;
    settle().await;
    let page = system.timeline().since(0, 100);
    let told: Vec<_> = page.events.iter().filter(|e| e.path.to_string() == "/t").collect();
    let last = told.last().unwrap();
    assert!(
        matches!(&last.kind, LifecycleKind::Stopped { reason: ExitReason::Normal }),
        "{:?}",
        last.kind
    );
}

/// An error that panics when it is dropped.
#[derive(Debug)]
struct Volatile(#[allow(dead_code, reason = "dropped")] Option<Arc<AtomicBool>>);

impl fmt::Display for Volatile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("volatile")
    }
}

impl std::error::Error for Volatile {}

impl Drop for Volatile {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("told to panic when it is dropped");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_panics_when_it_is_dropped_hurts_nobody() {
    let log = Log::default();
    let s = SupervisorSpec::new("s")
        .intensity(1_000, secs(1))
        .child(worker("a", &log))
        .child(worker("b", &log));
    let system = ActorSystem::builder(root().child(s)).history(2).start().await.unwrap();
    for _ in 0..100 {
        let fails =
            job(|_| Box::pin(async { Err(Failure::wrap(ErrorClass::Transient, Volatile(None))) }));
        to(&system, "/s/a").tell(fails).await.unwrap();
        settle().await;
    }
    assert_eq!(seen(&system, "/s"), (SlotState::Up, 1));
    assert_eq!(seen(&system, "/s/a"), (SlotState::Up, 101));
    assert_eq!(seen(&system, "/s/b"), (SlotState::Up, 1));
}

/// An error that looks at the events when it is dropped.
struct Curious(Timeline);

impl fmt::Debug for Curious {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Curious")
    }
}

impl fmt::Display for Curious {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("curious")
    }
}

impl std::error::Error for Curious {}

impl Drop for Curious {
    fn drop(&mut self) {
        let _ = self.0.first();
    }
}

#[test]
fn an_error_may_look_at_the_events_when_it_is_dropped() {
    real(2, async {
        let log = Log::default();
        let root = SupervisorSpec::new("root").intensity(1_000, secs(1)).child(worker("a", &log));
        let system = ActorSystem::builder(root).history(64).start().await.unwrap();
        for n in 0..100 {
            let timeline = system.timeline();
            let fails = job(|_| {
                Box::pin(async { Err(Failure::wrap(ErrorClass::Transient, Curious(timeline))) })
            });
            to(&system, "/a").tell(fails).await.unwrap();
            until("the next life", || seen(&system, "/a") == (SlotState::Up, n + 2)).await;
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_helper_that_is_cut_off_is_dropped_as_its_actors_code() {
    let log = Log::default();
    let system = start(root().child(worker("a", &log))).await;
    let address = to(&system, "/a");
    let (port, cut) = tokio::sync::oneshot::channel::<ReplyPort<u64>>();
    let asked = tokio::spawn({
        let address = address.clone();
        async move {
            address
                .ask(|port| {
                    call(move |cx| {
                        let helper = cx.spawn_guard(async move {
                            let _port = port;
                            let _fuse = Fuse;
                            std::future::pending::<()>().await;
                        });
                        cx.keep(helper);
                    })
                })
                .await
        }
    });
    drop(port);
    drop(cut);
    settle().await;
    address.tell(failure()).await.unwrap();
    let answer: Result<u64, AskError> = answered("the ask", asked).await.unwrap();
    assert!(
        matches!(&answer, Err(AskError::Crashed { reason: ExitReason::Error(_), .. })),
        "{answer:?}"
    );
}

/// What work on a thread pool panics with may itself panic when it is dropped.
#[tokio::test]
async fn what_work_on_a_thread_pool_panics_with_hurts_nobody() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a payload panics");
        }
    }
    let system = start(root()).await;
    let ran = system.run_on(Work::Compute, || std::panic::panic_any(Bomb)).await;
    assert!(matches!(ran, Err::<(), _>(ComputeError::Panicked { .. })), "{ran:?}");
    assert_eq!(system.run_on(Work::Compute, || 7).await, Ok(7));
}
