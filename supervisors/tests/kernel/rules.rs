//! OTP's rules, a test each. (All of them together: 1,800 recorded scenarios, beside the code.)

use mister_smith_supervisors::*;

use crate::kit::*;

#[tokio::test(start_paused = true)]
async fn children_start_in_order_and_stop_in_reverse() {
    let log = Log::default();
    let system =
        start(root().child(puppet("a", &log)).child(puppet("b", &log)).child(puppet("c", &log)))
            .await;
    assert!(system.shutdown(secs(60)).await);
    assert_eq!(
        log.take(),
        ["start a", "start b", "start c", "stop c shutdown", "stop b shutdown", "stop a shutdown"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_stops_those_already_started_in_reverse() {
    let log = Log::default();
    let bad = ChildSpec::actor::<Puppet>("c", Role::new("c", &log).starts(&["fail"]));
    let spec = root().child(puppet("a", &log)).child(puppet("b", &log)).child(bad);
    let error = ActorSystem::builder(spec).start().await.unwrap_err();
    assert_eq!(error.to_string(), "/c did not start: permanent: told to");
    assert_eq!(
        log.take(),
        ["start a", "start b", "refuse c", "stop b shutdown", "stop a shutdown"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_start_is_a_failed_start() {
    let log = Log::default();
    let bad = ChildSpec::actor::<Puppet>("a", Role::new("a", &log).starts(&["panic"]));
    let error = ActorSystem::builder(root().child(bad)).start().await.unwrap_err();
    assert!(error.to_string().contains("panic: told to panic while it starts at "), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_ignored_start_leaves_the_slot_without_a_life() {
    let log = Log::default();
    let child = ChildSpec::actor::<Puppet>("a", Role::new("a", &log).starts(&["ignore"]));
    let system = start(root().child(child).child(puppet("b", &log))).await;
    assert_eq!(state(&system, "/a"), SlotState::Down);
    assert!(matches!(at(&system, "/a").try_tell(Do::Note(1)), Err(TellError::Stopped { .. })));
    system.supervisor("/").unwrap().restart_child("a").await.unwrap();
    assert_eq!(state(&system, "/a"), SlotState::Up);
}

#[tokio::test(start_paused = true)]
async fn permanent_always_transient_after_failures_temporary_never() {
    for (policy, back_after) in [
        (RestartPolicy::Permanent, [true, true, true, true]),
        (RestartPolicy::Transient, [false, true, true, true]),
        (RestartPolicy::Temporary, [false, false, false, false]),
    ] {
        for (how, back) in ["end", "fail", "panic", "kill"].into_iter().zip(back_after) {
            let log = Log::default();
            let system = start(root().child(puppet("a", &log).restart(policy))).await;
            let a = at(&system, "/a");
            match how {
                "end" => a.try_tell(Do::End).unwrap(),
                "fail" => a.try_tell(Do::Fail).unwrap(),
                "panic" => a.try_tell(Do::Panic).unwrap(),
                _ => drop(system.kill("/a").unwrap()),
            }
            settle().await;
            assert_eq!(a.state() == SlotState::Up, back, "{policy:?} after {how}");
            let kept = system.supervisor("/").unwrap().count() == 1;
            assert_eq!(kept, policy != RestartPolicy::Temporary, "its spec goes with it");
        }
    }
}

async fn group(strategy: Strategy) -> Vec<String> {
    let log = Log::default();
    let system = start(
        root()
            .strategy(strategy)
            .child(puppet("a", &log))
            .child(puppet("b", &log))
            .child(puppet("c", &log).restart(RestartPolicy::Temporary))
            .child(puppet("d", &log)),
    )
    .await;
    log.take();
    at(&system, "/b").try_tell(Do::Fail).unwrap();
    settle().await;
    assert_eq!(
        system.supervisor("/").unwrap().which_children().len(),
        match strategy {
            Strategy::OneForOne => 4,
            // A temporary sibling goes with its group and does not come back.
            _ => 3,
        }
    );
    log.take()
}

#[tokio::test(start_paused = true)]
async fn each_strategy_stops_in_reverse_and_starts_in_order() {
    assert_eq!(group(Strategy::OneForOne).await, ["start b"]);
    assert_eq!(
        group(Strategy::RestForOne).await,
        ["stop d shutdown", "stop c shutdown", "start b", "start d"]
    );
    assert_eq!(
        group(Strategy::OneForAll).await,
        ["stop d shutdown", "stop c shutdown", "stop a shutdown", "start a", "start b", "start d"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_child_that_fails_to_start_again_is_the_next_target_and_every_attempt_counts() {
    let log = Log::default();
    let b = ChildSpec::actor::<Puppet>("b", Role::new("b", &log).starts(&["ok", "fail", "fail"]));
    let system = start(
        root()
            .strategy(Strategy::RestForOne)
            .intensity(3, secs(9))
            .child(puppet("a", &log))
            .child(b)
            .child(puppet("c", &log)),
    )
    .await;
    log.take();
    at(&system, "/a").try_tell(Do::Fail).unwrap();
    settle().await;
    // Those that started before it in the same attempt stay up.
    assert_eq!(
        log.take(),
        [
            "stop c shutdown",
            "stop b shutdown",
            "start a",
            "refuse b",
            "refuse b",
            "start b",
            "start c"
        ]
    );
    assert_eq!(system.supervisor("/").unwrap().restarts_left().await.unwrap(), 0);
    at(&system, "/c").try_tell(Do::Fail).unwrap();
    assert!(matches!(system.ended().await, ExitReason::Escalated { .. }));
    assert_eq!(log.take(), ["stop b shutdown", "stop a shutdown"]);
}

#[tokio::test(start_paused = true)]
async fn failures_escalate_up_the_tree_and_a_transient_supervisor_is_restarted() {
    let log = Log::default();
    let low = SupervisorSpec::new("low").intensity(1, secs(5)).child(puppet("a", &log));
    let middle = SupervisorSpec::new("middle").intensity(0, secs(5)).child(low);
    let middle = ChildSpec::from(middle).restart(RestartPolicy::Transient);
    let (observer, seen) = events();
    let system =
        ActorSystem::builder(root().child(middle)).observer(observer).start().await.unwrap();
    for _ in 0..2 {
        at(&system, "/middle/low/a").try_tell(Do::Fail).unwrap();
        settle().await;
    }
    assert_eq!(at(&system, "/middle/low/a").ask(Do::Life).await.unwrap(), 3);
    let seen = seen.take();
    for event in ["/middle/low#1 escalated", "/middle#1 escalated", "/middle#2 restarted"] {
        assert!(seen.iter().any(|line| line == event), "{event} in {seen:?}");
    }
    let tree = system.tree();
    let reason = &tree.find("/middle").unwrap().last_failure.as_ref().unwrap().reason;
    assert_eq!(
        reason.to_string(),
        "gave up on /middle/low: gave up on /middle/low/a: permanent: told to"
    );
}

#[tokio::test(start_paused = true)]
async fn significant_children_end_their_supervisor() {
    for (auto, ends_after) in [(AutoShutdown::AnySignificant, 1), (AutoShutdown::AllSignificant, 2)]
    {
        let log = Log::default();
        let significant = |id| puppet(id, &log).restart(RestartPolicy::Transient).significant();
        let system = start(
            root()
                .auto_shutdown(auto)
                .child(significant("a"))
                .child(significant("b"))
                .child(puppet("c", &log)),
        )
        .await;
        at(&system, "/a").try_tell(Do::End).unwrap();
        settle().await;
        assert_eq!(end_of(&system).await.is_some(), ends_after == 1, "{auto:?}");
        if ends_after == 2 {
            // Terminated by its supervisor is not its own end.
            system.stop("/b").await.unwrap();
            assert!(end_of(&system).await.is_none());
            system.supervisor("/").unwrap().restart_child("b").await.unwrap();
            at(&system, "/b").try_tell(Do::End).unwrap();
            assert!(matches!(system.ended().await, ExitReason::Shutdown));
        }
    }
    let log = Log::default();
    let permanent = root().auto_shutdown(AutoShutdown::AnySignificant);
    let error = start_error(permanent.child(puppet("a", &log).significant())).await;
    assert!(error.contains("needs a restart policy other than permanent"), "{error}");
    let never = root().child(puppet("a", &log).restart(RestartPolicy::Transient).significant());
    assert!(start_error(never).await.contains("needs a supervisor with auto_shutdown"));
}

pub(crate) async fn start_error(root: SupervisorSpec) -> String {
    ActorSystem::builder(root).start().await.unwrap_err().to_string()
}

#[tokio::test(start_paused = true)]
async fn commands_answer_as_otp_does() {
    let log = Log::default();
    let system = start(root().child(puppet("a", &log))).await;
    let root = system.supervisor("/").unwrap();
    assert!(matches!(root.restart_child("a").await, Err(SupervisorError::Running { .. })));
    assert!(matches!(root.delete_child("a").await, Err(SupervisorError::Running { .. })));
    assert!(matches!(root.terminate_child("x").await, Err(SupervisorError::NotFound { .. })));
    let again = root.start_child(puppet("a", &log)).await;
    assert!(matches!(again, Err(SupervisorError::AlreadyStarted { .. })));
    root.terminate_child("a").await.unwrap();
    let again = root.start_child(puppet("a", &log)).await;
    assert!(matches!(again, Err(SupervisorError::AlreadyPresent { .. })));
    root.restart_child("a").await.unwrap();
    assert_eq!(state(&system, "/a"), SlotState::Up, "the refused spec changed nothing");
    root.terminate_child("a").await.unwrap();
    root.delete_child("a").await.unwrap();
    assert_eq!(root.count(), 0);
    assert!(system.look("/a", Depth::ALL).is_none());
    root.start_child(puppet("a", &log)).await.unwrap();
    let bad = ChildSpec::actor::<Puppet>("b", Role::new("b", &log).starts(&["fail"]));
    assert!(matches!(root.start_child(bad).await, Err(SupervisorError::StartFailed { .. })));
    assert_eq!(root.which_children(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_child_is_stopped_brutally_in_time_or_with_all_the_time_it_needs() {
    for (shutdown, took, stopped) in [
        (Shutdown::BrutalKill, secs(0), false),
        (Shutdown::After(secs(3)), secs(3), false),
        (Shutdown::After(secs(20)), secs(10), true),
        (Shutdown::Infinity, secs(10), true),
    ] {
        let log = Log::default();
        let slow = Role { stop_takes: secs(10), ..Role::new("a", &log) };
        let system =
            start(root().child(ChildSpec::actor::<Puppet>("a", slow).shutdown(shutdown))).await;
        let before = tokio::time::Instant::now();
        system.stop("/a").await.unwrap();
        assert_eq!(before.elapsed().as_secs(), took.as_secs(), "{shutdown:?}");
        assert_eq!(log.all().contains(&"stop a shutdown".to_owned()), stopped, "{shutdown:?}");
        assert_eq!(state(&system, "/a"), SlotState::Down);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sibling_that_dies_while_its_group_stops_is_no_second_failure() {
    let log = Log::default();
    let slow = Role { stop_takes: secs(5), ..Role::new("c", &log) };
    let system = start(
        root()
            .strategy(Strategy::OneForAll)
            .intensity(1, secs(1_000))
            .child(puppet("a", &log))
            .child(puppet("b", &log))
            .child(ChildSpec::actor::<Puppet>("c", slow).shutdown(Shutdown::Infinity)),
    )
    .await;
    at(&system, "/b").try_tell(Do::Fail).unwrap();
    settle().await;
    // While c takes its time to stop.
    at(&system, "/a").try_tell(Do::Panic).unwrap();
    tokio::time::sleep(secs(10)).await;
    for path in ["/a", "/b", "/c"] {
        assert_eq!(at(&system, path).life(), 2, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_restart_starts_what_had_ended_or_was_terminated() {
    let log = Log::default();
    let system = start(
        root()
            .strategy(Strategy::OneForAll)
            .child(puppet("a", &log))
            .child(puppet("b", &log).restart(RestartPolicy::Transient))
            .child(puppet("c", &log)),
    )
    .await;
    at(&system, "/b").try_tell(Do::End).unwrap();
    system.stop("/c").await.unwrap();
    settle().await;
    at(&system, "/a").try_tell(Do::Fail).unwrap();
    settle().await;
    assert_eq!((state(&system, "/b"), state(&system, "/c")), (SlotState::Up, SlotState::Up));
    assert_eq!(at(&system, "/b").ask(Do::Life).await.unwrap(), 2, "and its mailbox is open");
}
