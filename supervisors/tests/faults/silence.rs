//! What cannot be delivered, started or stopped in order is heard of.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use mister_smith_supervisors::*;
use ractor::{ActorProcessingErr, ActorRef};

use crate::kit::*;
use crate::workers::*;

/// A message that keeps its life busy this long.
fn sleeps(long: std::time::Duration) -> Job {
    job(move |_| {
        Box::pin(async move {
            tokio::time::sleep(long).await;
            Ok(())
        })
    })
}

/// A timer whose message found the mailbox full for too long, or closed, dropped it without a word.
#[tokio::test(start_paused = true)]
async fn a_timer_that_finds_the_mailbox_full_leaves_a_dead_letter() {
    for overflow in [Overflow::Fail, Overflow::Wait(secs(2)), Overflow::DropNewest] {
        let log = Log::default();
        let a = worker("a", &log).mailbox(1, overflow);
        let Heard { system, graves, .. } = heard(root().child(a)).await;
        let a = to(&system, "/a");
        let told = log.clone();
        a.try_tell(job(move |cx| {
            let timer = cx.tell_after(secs(1), call(move |_| told.note("told")));
            Box::pin(async move {
                tokio::time::sleep(secs(10)).await;
                drop(timer);
                Ok(())
            })
        }))
        .unwrap();
        settle().await;
        a.try_tell(call(|_| {})).unwrap();
        tokio::time::sleep(secs(60)).await;
        assert!(!log.all().contains(&"told".to_owned()), "there was no room: {overflow:?}");
        assert_eq!(graves.all().len(), 1, "{overflow:?}: {:?}", graves.all());
        assert_eq!(system.tree().dead_letters, 1);
    }
}

/// A future that an actor had spawned to be told its result panicked, and nobody heard of it: the
/// actor was up and waited for a message that could not come.
#[tokio::test(start_paused = true)]
async fn a_panic_of_a_helper_fails_its_life() {
    let log = Log::default();
    let kept = Arc::new(Mutex::new(None));
    let Heard { system, events, .. } = heard(root().child(worker("a", &log))).await;
    let keep = Arc::clone(&kept);
    let helped = call(move |cx| {
        let guard = cx.spawn_tell(async { panic!("a helper panics") });
        *keep.lock().unwrap() = Some(guard);
    });
    to(&system, "/a").try_tell(helped).unwrap();
    settle().await;
    settle().await;
    assert_eq!(seen(&system, "/a"), (SlotState::Up, 2));
    let last = system.tree().find("/a").unwrap().last_failure.clone().expect("a failure");
    assert!(last.reason.to_string().contains("a helper panics"), "{}", last.reason);
    assert!(events.all().contains(&"/a#1 failed".to_owned()), "{:?}", events.all());
}

/// Control: a helper whose guard is dropped, or whose life has ended, fails nothing.
#[tokio::test(start_paused = true)]
async fn a_helper_that_is_let_go_fails_nothing() {
    let log = Log::default();
    let kept = Arc::new(Mutex::new(None));
    let system = start(root().child(worker("a", &log))).await;
    let panics_later = || async {
        tokio::time::sleep(secs(1)).await;
        panic!("a helper panics")
    };
    let a = to(&system, "/a");
    a.try_tell(call(move |cx| drop(cx.spawn_tell(panics_later())))).unwrap();
    settle().await;
    let keep = Arc::clone(&kept);
    a.try_tell(call(move |cx| *keep.lock().unwrap() = Some(cx.spawn_tell(panics_later()))))
        .unwrap();
    a.try_tell(failure()).unwrap();
    tokio::time::sleep(secs(10)).await;
    assert_eq!(seen(&system, "/a"), (SlotState::Up, 2), "its own failure only");
}

/// Events were numbered in one order and told in another, when two supervisors reported at the same
/// time.
#[test]
fn observers_hear_events_in_the_order_of_their_numbers() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&told);
    let last = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&last);
    real(2, async move {
        let log = Log::default();
        let s = |id: &'static str| {
            let child = worker("a", &log);
            SupervisorSpec::new(id).intensity(u32::MAX, secs(1)).child(child)
        };
        let system = ActorSystem::builder(root().child(s("one")).child(s("two")))
            .observer(move |event: &LifecycleEvent| written.lock().unwrap().push(event.seq))
            .history(16)
            .start()
            .await
            .unwrap();
        let children = ["/one/a", "/two/a"].map(|path| to(&system, path));
        let mut done = Vec::new();
        for child in children {
            let (message, handled) = crate::workers::last();
            done.push(tokio::spawn(async move {
                for _ in 0..15_000 {
                    child.tell(failure()).await.unwrap();
                }
                child.tell(message).await.unwrap();
                handled.await;
            }));
        }
        for done in done {
            tokio::time::timeout(secs(100), done).await.expect("in time").unwrap();
        }
        soon("the shutdown", system.shutdown(secs(10))).await;
        counted.store(usize::try_from(system.timeline().last()).unwrap(), Ordering::SeqCst);
    });
    let told = told.lock().unwrap();
    let late = told.windows(2).filter(|pair| pair[1] <= pair[0]).count();
    assert_eq!(late, 0, "{late} of {} events came after a later one", told.len());
    assert_eq!(told.len(), last.load(Ordering::SeqCst), "all of them, when shutdown has returned");
}

/// A shutdown said that everything had stopped in order although a child had to be killed.
#[tokio::test(start_paused = true)]
async fn a_shutdown_in_which_a_child_had_to_be_killed_was_not_in_order() {
    for nested in [false, true] {
        let log = Log::default();
        let hangs = plan("a", &log).on_stop(|_| Box::pin(std::future::pending()));
        let hangs = hangs.spec().shutdown(Shutdown::After(secs(1)));
        let spec = match nested {
            true => root().child(SupervisorSpec::new("s").child(hangs)),
            false => root().child(hangs),
        };
        let system = start(spec).await;
        let (in_order, took) = timed("the shutdown", system.shutdown(secs(60))).await;
        assert!(!in_order, "nested {nested}: it was killed");
        assert!(took < secs(3), "{took:?}");
    }
}

/// Control: a child that its spec says to kill, one that is down and one that failed long before do not
/// make a shutdown less orderly.
#[tokio::test(start_paused = true)]
async fn a_shutdown_in_which_all_stop_as_they_are_meant_to_was_in_order() {
    let log = Log::default();
    let brutal = puppet("brutal", &log).shutdown(Shutdown::BrutalKill);
    let d = SupervisorSpec::dynamic("d").child(puppet("x", &log));
    let system = start(
        root()
            .child(puppet("a", &log))
            .child(brutal)
            .child(puppet("down", &log))
            .child(SupervisorSpec::new("s").child(puppet("b", &log)))
            .child(d),
    )
    .await;
    system.stop("/down").await.unwrap();
    system.kill("/s/b").unwrap();
    at(&system, "/a").try_tell(Do::Fail).unwrap();
    settle().await;
    assert!(answered("the shutdown", system.shutdown(secs(60))).await);
}

/// A shutdown waited without end for a life that was stuck; where it did return, it said that everything
/// had stopped in order.
#[test]
fn a_shutdown_that_leaves_a_stuck_life_behind_was_not_in_order() {
    real(2, async {
        let (log, gate) = (Log::default(), Gate::default());
        let a = worker("a", &log).shutdown(Shutdown::After(ms(50)));
        let system = start(root().child(a).child(worker("b", &log))).await;
        to(&system, "/a").try_tell(blocks("a", &log, &gate)).unwrap();
        gate.reached().await;
        let in_order = soon("the shutdown", system.shutdown(secs(10))).await;
        assert!(!in_order, "a holds on");
        gate.open();
    });
}

/// A child that was given up as stuck when its operator stopped it was shown as stuck for good, also
/// when its life had let go long ago.
#[test]
fn a_stuck_child_is_down_when_its_life_lets_go() {
    real(2, async {
        let (log, gate) = (Log::default(), Gate::default());
        let a = worker("a", &log).shutdown(Shutdown::After(ms(50)));
        let system = start(root().child(a)).await;
        to(&system, "/a").try_tell(blocks("a", &log, &gate)).unwrap();
        gate.reached().await;
        let stopping = {
            let system = system.clone();
            tokio::spawn(async move { system.stop("/a").await })
        };
        until("a is stuck", || seen(&system, "/a").0 == SlotState::Stuck).await;
        gate.open();
        until("a is down", || seen(&system, "/a").0 == SlotState::Down).await;
        let _ = soon("the stop", stopping).await;
        // And it can be started again.
        soon("the start", system.restart("/a")).await.unwrap();
        assert_eq!(seen(&system, "/a"), (SlotState::Up, 2));
    });
}

/// A life that was killed while its handler blocked was shown as up until the handler returned.
#[test]
fn a_killed_life_that_does_not_let_go_is_not_shown_as_up() {
    real(2, async {
        let (log, gate) = (Log::default(), Gate::default());
        let Heard { system, events, .. } = heard(root().child(worker("a", &log))).await;
        to(&system, "/a").try_tell(blocks("a", &log, &gate)).unwrap();
        gate.reached().await;
        assert_eq!(system.kill("/a").unwrap(), Some(1));
        until("it is shown as stuck", || seen(&system, "/a").0 == SlotState::Stuck).await;
        gate.open();
        until("the next life is up", || seen(&system, "/a") == (SlotState::Up, 2)).await;
        soon("the shutdown", system.shutdown(secs(10))).await;
        assert!(events.all().contains(&"/a#1 stuck".to_owned()), "{:?}", events.all());
    });
}

/// When the root had given up and nobody waited for its end, mailboxes stayed open: messages were
/// taken that nobody would handle, and questions ran into their deadline.
#[tokio::test(start_paused = true)]
async fn mailboxes_are_closed_when_the_root_has_given_up() {
    let log = Log::default();
    let spec = root().intensity(0, secs(1)).child(worker("a", &log)).child(worker("b", &log));
    let nested = SupervisorSpec::new("s").child(worker("c", &log));
    let Heard { system, graves, .. } = heard(spec.child(nested)).await;
    let (b, c) = (to(&system, "/b"), to(&system, "/s/c"));
    system.suspend("/s/c").await.unwrap();
    c.try_tell(call(|_| {})).unwrap();
    to(&system, "/a").try_tell(failure()).unwrap();
    settle().await;
    for address in [&b, &c] {
        let told = address.tell(call(|_| {})).await;
        assert!(matches!(told, Err(TellError::Stopped { .. })), "{told:?}");
        let (asked, took) = timed("the question", address.ask(ping)).await;
        assert!(matches!(asked, Err(AskError::Stopped { .. })), "{asked:?}");
        assert!(took < ms(10), "{took:?}");
    }
    settle().await;
    assert_eq!(graves.all().len(), 2, "in hand and waiting: {:?}", graves.all());
    assert!(matches!(system.ended().await, ExitReason::Escalated { .. }));
}

/// A mailbox said that it was full at half of its capacity, while a sender waited for room.
#[tokio::test(start_paused = true)]
async fn a_mailbox_is_full_only_when_it_is_full() {
    let log = Log::default();
    let a = worker("a", &log).mailbox(10, Overflow::Wait(secs(3_600)));
    let system = start(root().child(a)).await;
    let a = to(&system, "/a");
    a.try_tell(sleeps(secs(1))).unwrap();
    settle().await;
    for n in 0..10 {
        let message = if n == 3 { sleeps(secs(1_000)) } else { call(|_| {}) };
        a.try_tell(message).unwrap();
    }
    assert!(a.try_tell(call(|_| {})).is_err(), "ten wait");
    let waiting = {
        let (a, log) = (a.clone(), log.clone());
        tokio::spawn(async move { a.tell(call(move |_| log.note("waited"))).await.is_ok() })
    };
    settle().await;
    tokio::time::sleep(secs(2)).await;
    // Three were handled, the fourth is in hand, six wait, and there is room for who waited.
    assert!(waiting.is_finished(), "{} of 10 wait", a.depth());
    for n in a.depth()..10 {
        let later = log.clone();
        let told = a.try_tell(call(move |_| later.note("later")));
        assert!(told.is_ok(), "message {n} of 10: {told:?}");
    }
    assert!(a.try_tell(call(|_| {})).is_err(), "ten wait again");
    tokio::time::sleep(secs(2_000)).await;
    let order = log.all();
    assert_eq!(order[..3], ["start a", "waited", "later"], "first come, first served");
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

/// Settings of one kind of child or supervisor were accepted on another kind, where they do nothing.
#[test]
fn settings_that_do_nothing_are_refused() {
    let log = Log::default();
    let inner = || SupervisorSpec::new("inner").child(puppet("a", &log));
    let wrong = [
        ("keep_children", root().keep_children()),
        ("max_children", root().max_children(3)),
        ("nested keep_children", root().child(inner().keep_children())),
        (
            "a supervisor's mailbox",
            root().child(ChildSpec::from(inner()).mailbox(10, Overflow::Fail)),
        ),
        (
            "a raw child's mailbox",
            root().child(ChildSpec::raw("raw", || (Raw, ())).mailbox(10, Overflow::Fail)),
        ),
    ];
    for (what, spec) in wrong {
        assert!(check(&spec, &Policies::new()).is_err(), "{what}");
    }
    let right = root()
        .child(SupervisorSpec::dynamic("d").keep_children().max_children(3))
        .child(inner())
        .child(puppet("b", &log).mailbox(10, Overflow::Fail))
        .child(ChildSpec::raw("raw", || (Raw, ())));
    assert_eq!(check(&right, &Policies::new()), Ok(()));
}

/// A redelivery for another type of message was accepted, and nothing was delivered again.
#[tokio::test(start_paused = true)]
async fn a_redelivery_of_the_wrong_type_is_refused() {
    let log = Log::default();
    let spec = |on_crash| root().child(puppet("a", &log).on_crash(on_crash));
    assert!(check(&spec(OnCrash::redeliver::<String>(2)), &Policies::new()).is_err());
    assert!(check(&spec(OnCrash::dead_letter_with_copy::<u64>()), &Policies::new()).is_err());
    assert_eq!(check(&spec(OnCrash::redeliver::<Do>(2)), &Policies::new()), Ok(()));
    let system = start(root().child(SupervisorSpec::dynamic("d"))).await;
    let wrong = puppet("a", &log).on_crash(OnCrash::redeliver::<String>(2));
    let answer = system.supervisor("/d").unwrap().start_child(wrong).await;
    assert!(matches!(answer, Err(SupervisorError::Spec(_))), "{answer:?}");
}

/// Answers with what it is made of.
struct Gen<T>(std::marker::PhantomData<T>);

impl<T: Send + 'static> Actor for Gen<T> {
    type Message = (ReplyPort<&'static str>, Option<T>);
    type Args = ();

    async fn start((): &(), _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self(std::marker::PhantomData))
    }

    async fn handle(
        &mut self,
        (port, _): Self::Message,
        _: &mut Context<Self>,
    ) -> Result<(), Failure> {
        port.send(std::any::type_name::<T>());
        Ok(())
    }
}

/// Types were told apart by a short name without generics: a declared child that had been replaced by
/// one of another type of that name made every restart of its supervisor panic, until the whole
/// system gave up.
#[tokio::test(start_paused = true)]
async fn a_slot_is_reused_only_for_the_same_type() {
    let d = SupervisorSpec::dynamic("d").child(ChildSpec::actor::<Gen<u32>>("x", ()));
    let system = start(root().child(d)).await;
    let d = system.supervisor("/d").unwrap();
    d.terminate_child("x").await.unwrap();
    d.start_child(ChildSpec::actor::<Gen<String>>("x", ())).await.unwrap();
    system.kill("/d").unwrap();
    settle().await;
    assert_eq!(seen(&system, "/"), (SlotState::Up, 1), "the system");
    assert_eq!(seen(&system, "/d"), (SlotState::Up, 2));
    let x = system.find::<(ReplyPort<&'static str>, Option<u32>)>("/d/x").unwrap();
    assert_eq!(x.ask(|port| (port, None)).await.unwrap(), "u32");
}

/// The buckets of handling times were 32 bits wide: full after minutes at full speed, and quantiles
/// wrong from then on.
#[tokio::test(start_paused = true)]
async fn handling_times_are_counted_in_64_bits() {
    let log = Log::default();
    let system = start(root().child(puppet("a", &log))).await;
    let latency = system.tree().find("/a").unwrap().mailbox.as_ref().unwrap().latency;
    assert_eq!(std::any::type_name_of_val(&latency), "[u64; 12]");
}

/// A dead-letter hook was called under a lock of the supervisor whose children went: one that looked
/// for an actor below it never came back, and whoever looked at the tree hung with it.
#[test]
fn a_dead_letter_hook_may_look_at_the_tree() {
    real(2, async {
        let log = Log::default();
        let known: Arc<OnceLock<ActorSystem>> = Arc::default();
        let (looked, asked) = (Log::default(), Arc::clone(&known));
        let written = looked.clone();
        let hook = move |_: DeadLetter| {
            let system = asked.get().expect("set before anything dies");
            let _ = system.find::<Do>("/d/other");
            let _ = system.tree();
            written.note("looked");
        };
        let spec = root().child(SupervisorSpec::dynamic("d"));
        let system = ActorSystem::builder(spec).dead_letters(hook).start().await.unwrap();
        known.set(system.clone()).unwrap();
        system.supervisor("/d").unwrap().start_child(puppet("a", &log)).await.unwrap();
        system.suspend("/d/a").await.unwrap();
        at(&system, "/d/a").try_tell(Do::Note(1)).unwrap();
        system.kill("/d").unwrap();
        until("the hook has looked", || looked.all().len() == 1).await;
        let tree = tokio::task::spawn_blocking(move || system.tree());
        assert_eq!(soon("a look", tree).await.unwrap().dead_letters, 1);
    });
}

/// A panic that user code had caught itself was shown as the reason of a later failure.
#[tokio::test(start_paused = true)]
async fn a_failure_names_its_own_panic() {
    let log = Log::default();
    let system = start(root().child(worker("a", &log))).await;
    let a = to(&system, "/a");
    a.try_tell(call(|_| {
        let caught = catch_unwind(AssertUnwindSafe(|| panic!("caught by the user")));
        assert!(caught.is_err());
    }))
    .unwrap();
    a.try_tell(call(|_| resume_unwind(Box::new("resumed")))).unwrap();
    settle().await;
    let reason = system.tree().find("/a").unwrap().last_failure.clone().unwrap().reason.to_string();
    assert!(reason.contains("resumed"), "{reason}");
}

/// While an actor that had ended itself said goodbye, the tree showed its last message as in hand.
#[tokio::test(start_paused = true)]
async fn nothing_is_in_hand_while_an_actor_stops() {
    let log = Log::default();
    let slow = plan("a", &log).on_stop(|_| Box::pin(tokio::time::sleep(secs(60))));
    let a = slow.spec().shutdown(Shutdown::Infinity).restart(RestartPolicy::Transient);
    let system = start(root().child(a)).await;
    to(&system, "/a").try_tell(call(|cx| cx.stop())).unwrap();
    tokio::time::sleep(secs(40)).await;
    assert!(log.all().contains(&"stop a".to_owned()));
    let tree = system.tree();
    assert_eq!(tree.find("/a").unwrap().mailbox.as_ref().unwrap().in_hand, None);
}

/// A kill of a supervisor that waited for its next start said that it had killed a life.
#[tokio::test(start_paused = true)]
async fn a_kill_says_none_when_there_is_no_life() {
    let log = Log::default();
    let a = ChildSpec::actor::<Puppet>("a", Role::new("a", &log).starts(&["ok", "fail"]));
    let s = SupervisorSpec::new("s").child(a);
    let s = ChildSpec::from(s).backoff(slow_backoff()).give_up_after(100);
    let system = start(root().child(s)).await;
    for _ in 0..100 {
        if seen(&system, "/s").1 >= 2 && seen(&system, "/s").0 == SlotState::Backoff {
            break;
        }
        if seen(&system, "/s").0 == SlotState::Up {
            system.kill("/s").unwrap();
        }
        tokio::time::sleep(ms(1)).await;
        if seen(&system, "/s").0 == SlotState::Backoff && seen(&system, "/s").1 == 1 {
            assert_eq!(system.kill("/s").unwrap(), None, "after a kill");
            tokio::time::sleep(secs(11)).await;
        }
    }
    assert_eq!(seen(&system, "/s"), (SlotState::Backoff, 2), "its second start failed");
    assert_eq!(system.kill("/s").unwrap(), None);
    let act = system.act("/s", Act::new(Action::Kill)).await;
    assert!(act.is_err(), "{act:?}");
}

fn slow_backoff() -> Backoff {
    Backoff::exponential(secs(10), secs(10)).reset_after(secs(1_000))
}

/// The same of a life that waits for one before it that is stuck.
#[test]
fn a_kill_of_a_life_that_waits_for_a_stuck_one_is_true() {
    real(2, async {
        let (log, gate) = (Log::default(), Gate::default());
        let system = start(root().child(worker("a", &log).shutdown(Shutdown::After(ms(50))))).await;
        to(&system, "/a").try_tell(blocks("a", &log, &gate)).unwrap();
        gate.reached().await;
        let restarting = {
            let system = system.clone();
            tokio::spawn(async move { system.restart("/a").await })
        };
        until("life 2 waits", || seen(&system, "/a") == (SlotState::Stuck, 2)).await;
        let killed = system.kill("/a").unwrap();
        gate.open();
        let _ = soon("the restart", restarting).await;
        until("a is up", || seen(&system, "/a").0 == SlotState::Up).await;
        match killed {
            None => assert_eq!(seen(&system, "/a").1, 2, "nothing was killed"),
            Some(life) => assert!(seen(&system, "/a").1 > life, "life {life} was killed and is up"),
        }
    });
}

/// Counts how many of its kind have started and stopped.
#[derive(Clone, Default)]
struct Turns {
    starts: Arc<AtomicUsize>,
    stops: Arc<AtomicUsize>,
}

struct One(Turns);

impl Actor for One {
    type Message = ();
    type Args = Turns;

    async fn start(turns: &Turns, _: &mut Context<Self>) -> Result<Self, StartError> {
        turns.starts.fetch_add(1, Ordering::Relaxed);
        Ok(Self(turns.clone()))
    }

    async fn handle(&mut self, (): (), _: &mut Context<Self>) -> Result<(), Failure> {
        Ok(())
    }

    async fn stop(&mut self, _: &ExitReason, _: &mut Context<Self>) {
        self.0.stops.fetch_add(1, Ordering::Relaxed);
    }
}

/// The most that `count` grows between two turns of a task on the same thread, until it is `whole`.
async fn longest_turn(count: &AtomicUsize, whole: usize) -> usize {
    let (mut before, mut most) = (count.load(Ordering::Relaxed), 0);
    while before < whole {
        tokio::task::yield_now().await;
        let now = count.load(Ordering::Relaxed);
        most = most.max(now - before);
        before = now;
    }
    most
}

/// A supervisor started all that it had kept, and stopped all that it had, in one turn: everybody
/// else on that thread waited 0.6 s for 20,000 children. They are counted here instead of measured:
/// 1,000 children are some 10 ms.
#[test]
fn a_crowd_that_starts_and_stops_lets_others_have_their_turn() {
    const CROWD: usize = 20_000;
    real(0, async {
        let turns = Turns::default();
        let system = start(root().child(SupervisorSpec::dynamic("d").keep_children())).await;
        let d = system.supervisor("/d").unwrap();
        for n in 0..CROWD {
            d.spawn::<One>(n.to_string(), turns.clone()).await.unwrap();
        }
        system.kill("/d").unwrap();
        let most = longest_turn(&turns.starts, 2 * CROWD).await;
        assert!(most <= 1_000, "{most} started in one turn");
        let stopping = tokio::spawn(async move { system.shutdown(secs(100)).await });
        let most = longest_turn(&turns.stops, CROWD).await;
        assert!(most <= 1_000, "{most} stopped in one turn");
        assert!(stopping.await.unwrap());
    });
}
