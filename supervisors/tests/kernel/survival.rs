//! What peers got wrong: each test opens with the fault that it guards against.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use mister_smith_supervisors::*;

use crate::kit::*;

/// kameo #335: messages behind a crash were lost with the life.
#[tokio::test(start_paused = true)]
async fn messages_behind_a_crash_are_handled_once_by_the_next_life() {
    for crash in [Do::Fail, Do::Panic] {
        let log = Log::default();
        let system = start(root().child(puppet("a", &log))).await;
        let a = at(&system, "/a");
        a.try_tell(Do::Note(0)).unwrap();
        a.try_tell(crash).unwrap();
        for n in 1..=500 {
            a.try_tell(Do::Note(n)).unwrap();
        }
        settle().await;
        assert_eq!(log.notes("a"), (0..=500).collect::<Vec<_>>());
        assert_eq!(a.life(), 2);
    }
}

/// The same behind a kill, which drops the handler at its next `await`.
#[tokio::test(start_paused = true)]
async fn messages_behind_a_kill_are_handled_once_by_the_next_life() {
    let log = Log::default();
    let system = start(root().child(puppet("a", &log))).await;
    let a = at(&system, "/a");
    a.try_tell(Do::Sleep(secs(60), 1)).unwrap();
    for n in 2..=300 {
        a.try_tell(Do::Note(n)).unwrap();
    }
    settle().await;
    assert_eq!(system.kill("/a").unwrap(), Some(1));
    settle().await;
    assert_eq!(log.notes("a"), (2..=300).collect::<Vec<_>>(), "all but the one in hand");
}

/// And behind a supervisor that was killed, or that gave up and was restarted.
#[tokio::test(start_paused = true)]
async fn messages_and_addresses_survive_the_death_of_a_supervisor() {
    let log = Log::default();
    let inner = SupervisorSpec::new("inner")
        .intensity(0, secs(1))
        .child(puppet("a", &log))
        .child(puppet("b", &log));
    let system = start(root().child(inner)).await;
    let a = at(&system, "/inner/a");
    a.try_tell(Do::Sleep(secs(60), 0)).unwrap();
    a.try_tell(Do::Note(1)).unwrap();
    settle().await;
    system.kill("/inner").unwrap();
    settle().await;
    assert_eq!(log.notes("a"), [1], "killed: the address is the same");
    a.try_tell(Do::Fail).unwrap();
    a.try_tell(Do::Note(2)).unwrap();
    settle().await;
    assert_eq!(log.notes("a"), [1, 2], "gave up: the address is the same");
    assert_eq!(at(&system, "/inner/b").life(), 3);
}

/// fastrepl/anarlog #6870: a child stopped during its backoff was resurrected by the timer.
#[tokio::test(start_paused = true)]
async fn a_stop_during_backoff_stays() {
    let log = Log::default();
    let spec = puppet("a", &log).backoff(Backoff::exponential(secs(10), secs(10))).give_up_after(9);
    let system = start(root().child(spec)).await;
    at(&system, "/a").try_tell(Do::Fail).unwrap();
    settle().await;
    assert_eq!(state(&system, "/a"), SlotState::Backoff);
    system.stop("/a").await.unwrap();
    tokio::time::sleep(secs(100)).await;
    assert_eq!(state(&system, "/a"), SlotState::Down);
    assert_eq!(log.take(), ["start a"]);
    system.supervisor("/").unwrap().restart_child("a").await.unwrap();
    assert_eq!(state(&system, "/a"), SlotState::Up);
}

/// The same for a suspension: it holds until `resume`, which then starts the child.
#[tokio::test(start_paused = true)]
async fn a_suspension_during_backoff_stays_until_resume() {
    let log = Log::default();
    let spec = puppet("a", &log).backoff(Backoff::exponential(secs(10), secs(10))).give_up_after(9);
    let system = start(root().child(spec)).await;
    at(&system, "/a").try_tell(Do::Fail).unwrap();
    settle().await;
    system.suspend("/a").await.unwrap();
    tokio::time::sleep(secs(100)).await;
    assert_eq!(state(&system, "/a"), SlotState::Suspended);
    assert_eq!(log.take(), ["start a"]);
    system.resume("/a").await.unwrap();
    settle().await;
    assert_eq!(state(&system, "/a"), SlotState::Up);
}

/// kameo #392: a handle from before a restart aborted the new life.
#[tokio::test(start_paused = true)]
async fn a_kill_handle_does_not_hit_the_next_life() {
    let log = Log::default();
    let system = start(root().child(puppet("a", &log))).await;
    let a = at(&system, "/a");
    let old = a.kill_handle();
    a.try_tell(Do::Fail).unwrap();
    settle().await;
    assert_eq!(a.life(), 2);
    assert!(!old.kill());
    assert!(!system.kill_life("/a", 1).unwrap());
    settle().await;
    assert_eq!((a.life(), a.state()), (2, SlotState::Up));
    assert!(a.kill_handle().kill());
    settle().await;
    assert_eq!(a.life(), 3);
}

/// kameo #351: a child that asked its supervisor while it was stopped by it waited for ever.
#[tokio::test(start_paused = true)]
async fn a_stopping_child_that_asks_its_supervisor_does_not_deadlock() {
    let log = Log::default();
    let role = Role { asks_in_stop: Some("b".into()), ..Role::new("a", &log) };
    let spec = ChildSpec::actor::<Puppet>("a", role).shutdown(Shutdown::Infinity);
    let system = start(root().child(spec).child(puppet("b", &log))).await;
    // Stopped alone, with its group, and with everything.
    let root = system.supervisor("/").unwrap();
    root.terminate_child("a").await.unwrap();
    root.restart_child("a").await.unwrap();
    root.planned_restart("a").await.unwrap();
    assert!(system.shutdown(secs(3600)).await);
    let refused = log.all().iter().filter(|line| *line == "refused true").count();
    assert_eq!(refused, 3, "{:?}", log.all());
}

/// The same for a question that was asked before the stop began and still waits.
#[tokio::test(start_paused = true)]
async fn a_question_to_the_supervisor_that_waits_is_refused_when_its_asker_is_stopped() {
    let log = Log::default();
    let slow = Role { stop_takes: secs(2), ..Role::new("slow", &log) };
    let root = root()
        .strategy(Strategy::OneForAll)
        .child(puppet("a", &log).shutdown(Shutdown::Infinity))
        .child(ChildSpec::actor::<Puppet>("slow", slow));
    let system = start(root).await;
    // The group restarts: `slow` is stopped first, and `a` asks meanwhile.
    let restarting = tokio::spawn({
        let system = system.clone();
        async move { system.restart("/a").await }
    });
    settle().await;
    at(&system, "/a").try_tell(Do::AskSupervisor("slow".into())).unwrap();
    restarting.await.unwrap().unwrap();
    assert_eq!(log.notes("a"), [1], "refused, not forgotten: {:?}", log.all());
}

/// A handler that blocks its thread cannot be killed. No second life may run beside it.
#[test]
fn a_life_that_does_not_let_go_is_stuck_and_never_overlaps_the_next() {
    type Gate = Arc<Mutex<mpsc::Receiver<()>>>;
    struct Blocker(mpsc::SyncSender<&'static str>, Gate);
    impl Actor for Blocker {
        type Message = ();
        type Args = (mpsc::SyncSender<&'static str>, Gate);
        async fn start(args: &Self::Args, _: &mut Context<Self>) -> Result<Self, StartError> {
            args.0.send("start").unwrap();
            Ok(Self(args.0.clone(), args.1.clone()))
        }
        async fn handle(&mut self, (): (), _: &mut Context<Self>) -> Result<(), Failure> {
            self.0.send("handle").unwrap();
            self.1.lock().unwrap().recv().unwrap();
            self.0.send("done").unwrap();
            Ok(())
        }
    }
    let (open, gate) = mpsc::channel();
    let gate = Gate::new(Mutex::new(gate));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let (said, says) = mpsc::sync_channel(100);
    let next = || says.recv_timeout(Duration::from_secs(30)).unwrap();
    runtime.block_on(async {
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let spec = ChildSpec::actor::<Blocker>("b", (said, gate)).shutdown(Shutdown::After(ms(10)));
        let system = ActorSystem::builder(root().child(spec))
            .observer(move |event: &LifecycleEvent| {
                let _ = tell.send(event.kind.name());
            })
            .start()
            .await
            .unwrap();
        system.find::<()>("/b").unwrap().try_tell(()).unwrap();
        assert_eq!(tokio::task::block_in_place(next), "start");
        assert_eq!(tokio::task::block_in_place(next), "handle");
        let restart = tokio::spawn({
            let system = system.clone();
            async move { system.restart("/b").await }
        });
        while told.recv().await.unwrap() != "stuck" {}
        assert_eq!(state(&system, "/b"), SlotState::Stuck);
        assert!(says.try_recv().is_err(), "nothing started beside it");
        open.send(()).unwrap();
        assert_eq!(tokio::task::block_in_place(next), "done");
        assert_eq!(tokio::task::block_in_place(next), "start");
        restart.await.unwrap().unwrap();
        assert_eq!(state(&system, "/b"), SlotState::Up);
        system.shutdown(secs(5)).await;
    });
}

/// Agents that were spawned at run time come back with their supervisor, if it keeps them.
#[tokio::test(start_paused = true)]
async fn kept_children_survive_their_dynamic_supervisor() {
    let log = Log::default();
    let agents = SupervisorSpec::dynamic("agents").keep_children();
    let system =
        start(root().strategy(Strategy::RestForOne).child(puppet("first", &log)).child(agents))
            .await;
    let agents = system.supervisor("/agents").unwrap();
    let a = agents.spawn::<Puppet>("a", Role::new("a", &log)).await.unwrap();
    let b = agents.spawn::<Puppet>("b", Role::new("b", &log)).await.unwrap();
    agents.terminate_child("b").await.unwrap();
    a.try_tell(Do::Sleep(secs(9), 1)).unwrap();
    a.try_tell(Do::Note(2)).unwrap();
    settle().await;
    system.kill("/agents").unwrap();
    settle().await;
    assert_eq!(log.notes("a"), [2], "killed");
    at(&system, "/first").try_tell(Do::Fail).unwrap();
    settle().await;
    a.try_tell(Do::Note(3)).unwrap();
    settle().await;
    assert_eq!(log.notes("a"), [2, 3], "restarted with its group");
    assert_eq!(a.life(), 3);
    assert!(
        matches!(b.try_tell(Do::Note(1)), Err(TellError::Stopped { .. })),
        "terminated stays so"
    );
    assert_eq!(agents.count(), 1);
    system.shutdown(secs(5)).await;
    assert!(matches!(a.try_tell(Do::Note(4)), Err(TellError::Stopped { .. })));
}

/// It was forgotten before the others were kept, and its messages were lost.
#[tokio::test(start_paused = true)]
async fn the_child_that_a_supervisor_gave_up_for_comes_back_with_the_others() {
    let log = Log::default();
    let d = SupervisorSpec::dynamic("d").keep_children().intensity(0, secs(1));
    let system = start(root().child(d)).await;
    let d = system.supervisor("/d").unwrap();
    for id in ["a", "b"] {
        d.start_child(puppet(id, &log)).await.unwrap();
    }
    let a = at(&system, "/d/a");
    a.try_tell(Do::Fail).unwrap();
    a.try_tell(Do::Note(7)).unwrap();
    settle().await;
    assert_eq!((state(&system, "/d/a"), state(&system, "/d/b")), (SlotState::Up, SlotState::Up));
    assert_eq!(log.notes("a"), [7]);
}

/// The half-started supervisor was killed: `a` had no `stop`, and `first` went beside it.
#[tokio::test(start_paused = true)]
async fn a_supervisor_that_is_still_starting_stops_its_children_in_order() {
    for deadline in [None, Some(ms(100))] {
        let log = Log::default();
        let hangs = Role::new("b", &log).starts(&["ok", "hang"]);
        let s = SupervisorSpec::new("s")
            .child(puppet("a", &log))
            .child(ChildSpec::actor::<Puppet>("b", hangs));
        let mut s = ChildSpec::from(s);
        if let Some(deadline) = deadline {
            s = s.start_deadline(deadline);
        }
        let system = start(root().child(puppet("first", &log)).child(s)).await;
        system.kill("/s").unwrap();
        settle().await;
        log.take();
        if deadline.is_some() {
            tokio::time::sleep(ms(200)).await;
            // It runs out of time, is stopped in order, and is tried again.
            assert_eq!(log.take(), ["stop a shutdown", "start a", "start b"]);
        } else {
            assert!(system.shutdown(secs(60)).await);
            assert_eq!(log.take(), ["stop a shutdown", "stop first shutdown"]);
        }
    }
}

/// It waited for its own stop, and was killed when its time was up.
#[tokio::test(start_paused = true)]
async fn who_asks_its_supervisor_to_stop_it_is_answered_and_stops_in_order() {
    for dynamic in [false, true] {
        let log = Log::default();
        let s = if dynamic { SupervisorSpec::dynamic("s") } else { SupervisorSpec::new("s") };
        let system = start(root().child(s.child(puppet("me", &log)))).await;
        let before = tokio::time::Instant::now();
        at(&system, "/s/me").try_tell(Do::AskSupervisor("me".to_owned())).unwrap();
        settle().await;
        assert_eq!(log.take(), ["start me", "me 1", "stop me shutdown"], "dynamic: {dynamic}");
        assert!(before.elapsed() < secs(1));
    }
}
