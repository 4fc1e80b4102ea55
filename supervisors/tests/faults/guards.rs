//! User code that panics or blocks hurts its own life and nobody else.
//!
//! A supervisor `/s` has the children `a`, whose code misbehaves, and `b`, which must not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use mister_smith_supervisors::*;
use ractor::{ActorProcessingErr, ActorRef};

use crate::kit::*;
use crate::workers::*;

type Hook = Arc<dyn Fn() + Send + Sync>;

/// A value whose copies, name and end run code of the test.
struct Touchy {
    on_clone: Hook,
    on_name: Hook,
    on_drop: Hook,
    fails: bool,
}

fn nothing() -> Hook {
    Arc::new(|| {})
}

/// Panics when it is called for the `n`th time, once.
fn panics_at(n: u32, what: &'static str) -> Hook {
    let calls = AtomicU32::new(0);
    Arc::new(move || {
        if calls.fetch_add(1, Ordering::SeqCst) + 1 == n {
            panic!("{what}");
        }
    })
}

/// Panics at its first call after it was armed, once.
fn panics_when(armed: &Arc<AtomicBool>, what: &'static str) -> Hook {
    let armed = Arc::clone(armed);
    Arc::new(move || {
        if armed.swap(false, Ordering::SeqCst) {
            panic!("{what}");
        }
    })
}

impl Touchy {
    fn new() -> Self {
        Self { on_clone: nothing(), on_name: nothing(), on_drop: nothing(), fails: false }
    }

    /// Fails the life that handles it.
    fn failing() -> Self {
        Self { on_clone: nothing(), on_name: nothing(), on_drop: nothing(), fails: true }
    }

    fn on_clone(mut self, hook: Hook) -> Self {
        self.on_clone = hook;
        self
    }

    fn on_name(mut self, hook: Hook) -> Self {
        self.on_name = hook;
        self
    }

    fn on_drop(mut self, hook: Hook) -> Self {
        self.on_drop = hook;
        self
    }
}

impl Clone for Touchy {
    fn clone(&self) -> Self {
        (self.on_clone)();
        Self {
            on_clone: Arc::clone(&self.on_clone),
            on_name: Arc::clone(&self.on_name),
            on_drop: Arc::clone(&self.on_drop),
            fails: self.fails,
        }
    }
}

impl Drop for Touchy {
    fn drop(&mut self) {
        // A panic on top of a panic would end the process.
        if !std::thread::panicking() {
            (self.on_drop)();
        }
    }
}

/// Takes such values as arguments and as messages.
struct Holder;

impl Actor for Holder {
    type Message = Touchy;
    type Args = Touchy;

    async fn start(_: &Touchy, _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(&mut self, message: Touchy, _: &mut Context<Self>) -> Result<(), Failure> {
        if message.fails { Err(Failure::permanent("told to")) } else { Ok(()) }
    }

    fn message_name(message: &Touchy) -> &'static str {
        (message.on_name)();
        "Touchy"
    }
}

fn s(a: ChildSpec, log: &Log) -> SupervisorSpec {
    let s = SupervisorSpec::new("s").intensity(1_000, secs(1));
    root().child(s.child(a).child(puppet("b", log)))
}

/// `/s` and `/s/b` have not noticed anything.
fn unharmed(system: &ActorSystem) {
    assert_eq!(seen(system, "/s"), (SlotState::Up, 1), "the supervisor");
    assert_eq!(seen(system, "/s/b"), (SlotState::Up, 1), "the sibling");
}

fn unharmed_but(system: &ActorSystem, life: u64) {
    unharmed(system);
    assert_eq!(seen(system, "/s/a"), (SlotState::Up, life), "the actor itself");
}

/// The answer of `/s` while user code of `/s/a` blocks.
async fn answers_meanwhile(system: &ActorSystem) {
    let s = system.supervisor("/s").unwrap();
    let answer = tokio::time::timeout(secs(5), s.restarts_left()).await;
    assert!(answer.is_ok(), "the supervisor does not answer within 5 s");
    answer.unwrap().unwrap();
}

/// A panic in the `Drop` of an actor that was stopped in order ran on its supervisor's task: the
/// supervisor died, its other children with it, and the stopped child came back.
#[tokio::test(start_paused = true)]
async fn a_panic_in_an_actors_drop_hurts_nobody_else() {
    for policy in [RestartPolicy::Permanent, RestartPolicy::Temporary] {
        let log = Log::default();
        let a = plan("a", &log).on_drop(|_| panic!("while it is dropped")).spec();
        let system = start(s(a.restart(policy), &log)).await;
        let stopped = answered("the stop", system.stop("/s/a")).await;
        settle().await;
        unharmed(&system);
        assert!(stopped.is_ok(), "{stopped:?}");
        match policy {
            RestartPolicy::Temporary => assert!(system.look("/s/a", Depth::ALL).is_none()),
            _ => assert_eq!(seen(&system, "/s/a"), (SlotState::Down, 1), "it stays down"),
        }
    }
}

/// The same under a dynamic supervisor, and when the life ends by itself, by a failure, by a kill or
/// with the whole system.
#[tokio::test(start_paused = true)]
async fn a_panic_in_an_actors_drop_hurts_nobody_else_however_it_ends() {
    let log = Log::default();
    let system = start(root().child(SupervisorSpec::dynamic("s").intensity(99, secs(1)))).await;
    let dynamic = system.supervisor("/s").unwrap();
    dynamic.start_child(puppet("b", &log)).await.unwrap();
    let ends: [fn(&ActorSystem); 4] = [
        |system| to(system, "/s/a").try_tell(failure()).unwrap(),
        |system| to(system, "/s/a").try_tell(call(|cx| cx.stop())).unwrap(),
        |system| assert_eq!(system.kill("/s/a").unwrap(), Some(1)),
        |_| {},
    ];
    for end in ends {
        let a = plan("a", &log).on_drop(|_| panic!("while it is dropped")).spec();
        dynamic.start_child(a.restart(RestartPolicy::Temporary)).await.unwrap();
        end(&system);
        settle().await;
        unharmed(&system);
    }
    answered("the shutdown", system.shutdown(secs(60))).await;
    assert_eq!(seen(&system, "/").0, SlotState::Down);
    assert!(log.all().contains(&"stop b shutdown".to_owned()), "in order: {:?}", log.all());
}

/// An actor's `Drop` ran on its supervisor's task: while it closed a file, the supervisor answered
/// nobody and restarted nobody.
#[test]
fn a_slow_drop_of_an_actor_delays_nobody_else() {
    real(2, async {
        let (log, gate) = (Log::default(), Gate::default());
        let shut = gate.shut();
        let a = plan("a", &log).on_drop(move |_| shut.block()).spec();
        let system = start(s(a, &log)).await;
        let stopping = {
            let system = system.clone();
            tokio::spawn(async move { system.stop("/s/a").await })
        };
        gate.reached().await;
        answers_meanwhile(&system).await;
        gate.open();
        soon("the stop", stopping).await.unwrap().unwrap();
        unharmed(&system);
    });
}

/// A start that blocks its thread was polled on the supervisor's task, which answered nobody
/// meanwhile.
#[test]
fn a_start_that_blocks_delays_nobody_else() {
    real(2, async {
        let (log, gate) = (Log::default(), Gate::default());
        let shut = gate.shut();
        let blocking = plan("a", &log).on_start(move |cx| {
            if cx.life() > 1 {
                shut.block();
            }
            Box::pin(async { Ok(()) })
        });
        let system = start(s(blocking.spec(), &log)).await;
        to(&system, "/s/a").try_tell(failure()).unwrap();
        gate.reached().await;
        answers_meanwhile(&system).await;
        gate.open();
        until("a is up", || seen(&system, "/s/a").0 == SlotState::Up).await;
        unharmed(&system);
    });
}

/// A start that blocked its thread for longer than its deadline was accepted, because the start was
/// looked at before the time.
#[test]
fn a_start_that_blocks_past_its_deadline_has_failed() {
    real(2, async {
        let log = Log::default();
        let slow = plan("a", &log).on_start(|cx| {
            let life = cx.life();
            Box::pin(async move {
                if life == 2 {
                    std::thread::sleep(ms(600));
                }
                Ok(())
            })
        });
        let a = slow.spec().start_deadline(ms(100));
        let Heard { system, events, .. } = heard(s(a, &log)).await;
        to(&system, "/s/a").try_tell(failure()).unwrap();
        until("a is up again", || {
            let (state, life) = seen(&system, "/s/a");
            state == SlotState::Up && life > 1
        })
        .await;
        // Lives that wait for the one that blocks may run out of time, too.
        assert!(seen(&system, "/s/a").1 > 2, "the start of life 2 took too long");
        system.shutdown(secs(10)).await;
        let failed = "/s/a#2 start_failed".to_owned();
        assert!(events.all().contains(&failed), "{:?}", events.all());
    });
}

/// Control: a start that panics is a failed start.
#[tokio::test(start_paused = true)]
async fn a_start_that_panics_has_failed() {
    let log = Log::default();
    let a = ChildSpec::actor::<Puppet>("a", Role::new("a", &log).starts(&["ok", "panic"]));
    let system = start(s(a, &log)).await;
    at(&system, "/s/a").try_tell(Do::Fail).unwrap();
    settle().await;
    unharmed_but(&system, 3);
}

/// The copy of the arguments for a restart was made on the supervisor's task, unguarded: a panic in
/// it killed the supervisor and all its children. No copy is made any more.
#[tokio::test(start_paused = true)]
async fn the_arguments_are_not_copied_for_a_restart() {
    let log = Log::default();
    let armed = Arc::new(AtomicBool::new(false));
    let args = Touchy::new().on_clone(panics_when(&armed, "while it is copied"));
    let Heard { system, events, .. } = heard(s(ChildSpec::actor::<Holder>("a", args), &log)).await;
    armed.store(true, Ordering::SeqCst);
    let a = system.find::<Touchy>("/s/a").unwrap();
    a.try_tell(Touchy::failing()).unwrap();
    settle().await;
    unharmed_but(&system, 2);
    assert!(!events.all().contains(&"/s/a#2 start_failed".to_owned()), "{:?}", events.all());
}

/// The arguments of a child that is forgotten were dropped on the supervisor's task.
#[tokio::test(start_paused = true)]
async fn a_panic_in_the_drop_of_the_arguments_hurts_nobody_else() {
    for dynamic in [false, true] {
        let log = Log::default();
        let armed = Arc::new(AtomicBool::new(false));
        let spec = if dynamic { SupervisorSpec::dynamic("s") } else { SupervisorSpec::new("s") };
        let system = start(root().child(spec)).await;
        let supervisor = system.supervisor("/s").unwrap();
        supervisor.start_child(puppet("b", &log)).await.unwrap();
        let args = Touchy::new().on_drop(panics_when(&armed, "arguments dropped"));
        let a = ChildSpec::actor::<Holder>("a", args).restart(RestartPolicy::Temporary);
        supervisor.start_child(a).await.unwrap();
        settle().await;
        armed.store(true, Ordering::SeqCst);
        let stopped = answered("the stop", system.stop("/s/a")).await;
        settle().await;
        unharmed(&system);
        assert!(stopped.is_ok(), "{stopped:?}");
        assert!(!armed.load(Ordering::SeqCst), "they were dropped");
        assert!(system.look("/s/a", Depth::ALL).is_none(), "dynamic: {dynamic}");
    }
}

/// Messages left in the mailbox of a stopped actor were dropped on the supervisor's task.
#[tokio::test(start_paused = true)]
async fn a_panic_in_the_drop_of_a_waiting_message_hurts_nobody_else() {
    let log = Log::default();
    let a = ChildSpec::actor::<Holder>("a", Touchy::new());
    let system = start(s(a, &log)).await;
    let a = system.find::<Touchy>("/s/a").unwrap();
    system.suspend("/s/a").await.unwrap();
    for _ in 0..2 {
        let on_drop = panics_at(1, "while the message is dropped");
        a.try_tell(Touchy::new().on_drop(on_drop)).unwrap();
    }
    let stopped = answered("the stop", system.stop("/s/a")).await;
    settle().await;
    unharmed(&system);
    assert!(stopped.is_ok(), "{stopped:?}");
    assert_eq!(system.tree().dead_letters, 2);
}

/// Control: a message that panics when its handler drops it fails that life only.
#[tokio::test(start_paused = true)]
async fn a_panic_in_the_drop_of_a_handled_message_is_the_lifes() {
    let log = Log::default();
    let system = start(s(ChildSpec::actor::<Holder>("a", Touchy::new()), &log)).await;
    let a = system.find::<Touchy>("/s/a").unwrap();
    let on_drop = panics_at(1, "while the message is dropped");
    a.try_tell(Touchy::new().on_drop(on_drop)).unwrap();
    a.try_tell(Touchy::new()).unwrap();
    settle().await;
    unharmed_but(&system, 2);
}

/// An observer was called on the supervisor's task: one that panicked once killed the supervisor
/// whose event it was told.
#[tokio::test(start_paused = true)]
async fn a_panic_of_an_observer_hurts_nobody() {
    let log = Log::default();
    let heard = Log::default();
    let written = heard.clone();
    let panics = AtomicBool::new(true);
    let observer = move |event: &LifecycleEvent| {
        if event.kind.name() == "failed" && panics.swap(false, Ordering::SeqCst) {
            panic!("an observer panics");
        }
        written.note(format!("{}#{} {}", event.path, event.life, event.kind.name()));
    };
    let (second, all) = events();
    let builder = ActorSystem::builder(s(puppet("a", &log), &log));
    let system = builder.observer(observer).observer(second).start().await.unwrap();
    at(&system, "/s/a").try_tell(Do::Fail).unwrap();
    settle().await;
    unharmed_but(&system, 2);
    answered("the shutdown", system.shutdown(secs(60))).await;
    assert!(heard.all().contains(&"/s/a#2 restarted".to_owned()), "it goes on: {:?}", heard.all());
    assert!(all.all().contains(&"/s/a#1 failed".to_owned()), "the other one: {:?}", all.all());
}

/// An observer that blocks stopped the supervisor whose event it was told.
#[test]
fn a_slow_observer_delays_nobody() {
    real(2, async {
        let (log, gate) = (Log::default(), Gate::default());
        let shut = gate.shut();
        let observer = move |event: &LifecycleEvent| {
            if event.kind.name() == "failed" {
                shut.block();
            }
        };
        let builder = ActorSystem::builder(s(puppet("a", &log), &log));
        let system = builder.observer(observer).start().await.unwrap();
        at(&system, "/s/a").try_tell(Do::Fail).unwrap();
        gate.reached().await;
        answers_meanwhile(&system).await;
        until("a is up again", || seen(&system, "/s/a") == (SlotState::Up, 2)).await;
        gate.open();
        unharmed(&system);
    });
}

/// A dead-letter hook that panicked once killed the supervisor that stopped the actor, and the
/// actor, which was to go for good, came back.
#[tokio::test(start_paused = true)]
async fn a_panic_of_the_dead_letter_hook_hurts_nobody() {
    let log = Log::default();
    let buried = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&buried);
    let hook = move |_: DeadLetter| {
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            panic!("the dead-letter hook panics");
        }
    };
    let a = puppet("a", &log).restart(RestartPolicy::Temporary);
    let system = ActorSystem::builder(s(a, &log)).dead_letters(hook).start().await.unwrap();
    let a = at(&system, "/s/a");
    system.suspend("/s/a").await.unwrap();
    a.try_tell(Do::Note(1)).unwrap();
    a.try_tell(Do::Note(2)).unwrap();
    let stopped = answered("the stop", system.stop("/s/a")).await;
    settle().await;
    unharmed(&system);
    assert!(stopped.is_ok(), "{stopped:?}");
    assert_eq!(buried.load(Ordering::SeqCst), 2, "it hears of the second one too");
    assert!(system.look("/s/a", Depth::ALL).is_none(), "it does not come back");
}

/// A dead-letter hook that blocks stopped the supervisor that closed the mailbox.
#[test]
fn a_slow_dead_letter_hook_delays_no_supervisor() {
    real(2, async {
        let (log, gate) = (Log::default(), Gate::default());
        let shut = gate.shut();
        let hook = move |_: DeadLetter| shut.block();
        let builder = ActorSystem::builder(s(puppet("a", &log), &log));
        let system = builder.dead_letters(hook).start().await.unwrap();
        system.suspend("/s/a").await.unwrap();
        at(&system, "/s/a").try_tell(Do::Note(1)).unwrap();
        let stopping = {
            let system = system.clone();
            tokio::spawn(async move { system.stop("/s/a").await })
        };
        gate.reached().await;
        answers_meanwhile(&system).await;
        gate.open();
        soon("the stop", stopping).await.unwrap().unwrap();
        unharmed(&system);
    });
}

/// A message whose name could not be told, or of which no copy could be made, was gone without a
/// word when that panicked: it was neither handled nor a dead letter.
#[tokio::test(start_paused = true)]
async fn a_message_that_panics_before_it_is_handled_is_a_dead_letter() {
    for copied in [false, true] {
        let log = Log::default();
        let mut a = ChildSpec::actor::<Holder>("a", Touchy::new());
        let mut bad = Touchy::new();
        if copied {
            a = a.on_crash(OnCrash::dead_letter_with_copy::<Touchy>());
            bad = bad.on_clone(panics_at(1, "while the message is copied"));
        } else {
            bad = bad.on_name(panics_at(1, "while the message is named"));
        }
        let Heard { system, graves, .. } = heard(s(a, &log)).await;
        let a = system.find::<Touchy>("/s/a").unwrap();
        a.try_tell(bad).unwrap();
        a.try_tell(Touchy::new()).unwrap();
        settle().await;
        unharmed_but(&system, 2);
        assert_eq!(a.depth(), 0, "the next message was handled");
        assert_eq!(graves.all().len(), 1, "copied {copied}: {:?}", graves.all());
    }
}

/// What an actor says about itself is run for whoever looks: a panic in it was the looker's, who saw
/// nothing of the tree.
#[tokio::test(start_paused = true)]
async fn a_panic_in_a_description_does_not_hide_the_tree() {
    let log = Log::default();
    let system = start(s(worker("a", &log), &log)).await;
    let describe = call(|cx| cx.describe(|| panic!("while it describes itself")));
    to(&system, "/s/a").try_tell(describe).unwrap();
    settle().await;
    let tree = system.tree();
    assert_eq!(tree.find("/s/b").unwrap().state, SlotState::Up);
    assert!(tree.to_string().contains('b'));
    unharmed_but(&system, 1);
}

struct Raw;

impl ractor::Actor for Raw {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

/// The closure that makes a raw actor was called on the supervisor's task, unguarded.
#[tokio::test(start_paused = true)]
async fn a_panic_in_the_making_of_a_raw_actor_is_a_failed_start() {
    let log = Log::default();
    let makes = AtomicU32::new(0);
    let a = ChildSpec::raw("a", move || {
        assert_ne!(makes.fetch_add(1, Ordering::SeqCst), 1, "the second one cannot be made");
        (Raw, ())
    });
    let Heard { system, events, .. } = heard(s(a, &log)).await;
    system.kill("/s/a").unwrap();
    settle().await;
    unharmed_but(&system, 3);
    assert!(events.all().contains(&"/s/a#2 start_failed".to_owned()), "{:?}", events.all());
}

/// The closure that makes a raw actor delayed its supervisor when it took long.
#[test]
fn a_slow_making_of_a_raw_actor_delays_nobody_else() {
    real(2, async {
        let (log, gate) = (Log::default(), Gate::default());
        let (makes, shut) = (AtomicU32::new(0), gate.shut());
        let a = ChildSpec::raw("a", move || {
            if makes.fetch_add(1, Ordering::SeqCst) == 1 {
                shut.block();
            }
            (Raw, ())
        });
        let system = start(s(a, &log)).await;
        system.kill("/s/a").unwrap();
        gate.reached().await;
        answers_meanwhile(&system).await;
        gate.open();
        until("a is up", || seen(&system, "/s/a") == (SlotState::Up, 2)).await;
        unharmed(&system);
    });
}

/// Control: a `stop` that panics, and one that never returns, end with their life. Siblings stop in
/// order, and the life's last event names the panic.
#[tokio::test(start_paused = true)]
async fn a_stop_that_panics_or_hangs_hurts_nobody_else() {
    for hangs in [false, true] {
        for by in ["operator", "group", "shutdown"] {
            let log = Log::default();
            let a = plan("a", &log).on_stop(move |_| {
                Box::pin(async move {
                    if hangs {
                        std::future::pending().await
                    }
                    panic!("while it stops")
                })
            });
            let a = a.spec().shutdown(Shutdown::After(ms(500)));
            let system = start(
                root()
                    .strategy(Strategy::OneForAll)
                    .child(puppet("first", &log))
                    .child(a)
                    .child(puppet("last", &log)),
            )
            .await;
            log.take();
            let began = tokio::time::Instant::now();
            match by {
                "operator" => answered("the stop", system.stop("/a")).await.unwrap(),
                "group" => at(&system, "/last").try_tell(Do::Fail).unwrap(),
                _ => drop(answered("the shutdown", system.shutdown(secs(60))).await),
            }
            tokio::time::sleep(ms(900)).await;
            assert!(began.elapsed() < secs(2), "{by}, hangs {hangs}: {:?}", began.elapsed());
            let lives = |path: &str| seen(&system, path).1;
            match by {
                "operator" => {
                    assert_eq!(log.take(), ["stop a"]);
                    assert_eq!(seen(&system, "/a"), (SlotState::Down, 1));
                    assert_eq!((lives("/first"), lives("/last")), (1, 1));
                }
                "group" => {
                    let restarted = ["start first", "start a", "start last"];
                    let order = ["stop a", "stop first shutdown"].into_iter().chain(restarted);
                    assert_eq!(log.take(), order.collect::<Vec<_>>());
                    assert_eq!((lives("/first"), lives("/a"), lives("/last")), (2, 2, 2));
                }
                _ => {
                    assert_eq!(log.take(), ["stop last shutdown", "stop a", "stop first shutdown"])
                }
            }
        }
    }
}
