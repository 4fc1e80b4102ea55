//! Rules that were wrong once, each as it was met. A machine alone, a world on paper.

use super::world::{World, child};
use crate::error::ExitReason;
use crate::supervisor::Strategy::{OneForAll, OneForOne};
use crate::supervisor::{AutoShutdown, Change, Intensity, Policy, RestartPolicy};
use std::time::Duration;

fn up(strategy: crate::supervisor::Strategy, children: &[super::world::Make]) -> World {
    let mut world = World::strategy(strategy, children);
    world.run();
    world.taken();
    world
}

/// Both were ill because the database was down; the second verdict then hit the fresh life.
#[test]
fn a_verdict_about_a_life_that_is_being_replaced_does_nothing() {
    let mut world = up(OneForAll, &[child("a"), child("b")]);
    world.unhealthy("a");
    world.unhealthy("b");
    world.run();
    let expected = ["a1 restarts", "stop b1 planned", "stop a1 planned", "start a2", "start b2"];
    assert_eq!(world.taken(), expected);
}

/// It waited for its own stop, until it was killed.
#[test]
fn who_makes_its_supervisor_stop_it_is_answered_before_it_is_stopped() {
    for change in [Change::Terminate, Change::PlannedRestart] {
        let mut world = up(OneForOne, &[child("me")]);
        world.ask_from(7, Some("me"), change, "me");
        world.ask_from(8, Some("me"), Change::Suspend, "me");
        world.orders();
        let log = world.taken();
        assert_eq!((&*log[0], &*log[2]), ("reply 7 Stopping", "reply 8 Stopping"), "{change:?}");
        assert!(log[1].starts_with("stop me1"), "{log:?}");
    }
    let mut world = up(OneForAll, &[child("me"), child("b")]);
    world.ask_from(7, Some("me"), Change::PlannedRestart, "b");
    world.run();
    let expected = ["stop b1 planned", "reply 7 Stopping", "stop me1 planned", "start me2"];
    assert_eq!(world.taken()[..4], expected);
    let mut crowd = World::crowd(super::world::PATIENT, false, &[child("me"), child("b")]);
    crowd.run();
    crowd.taken();
    crowd.ask_from(7, Some("me"), Change::Terminate, "me");
    crowd.orders();
    assert_eq!(crowd.taken(), ["reply 7 Stopping", "stop me1"]);
}

/// The asker waited for an answer that nobody had any more, and held up the shutdown.
#[test]
fn a_shutdown_answers_whoever_waits_for_what_it_replaces() {
    let mut world = up(OneForOne, &[child("asker"), child("slow")]);
    world.ask_from(7, Some("asker"), Change::PlannedRestart, "slow");
    world.ask(8, Change::Terminate, "asker");
    world.orders();
    world.input(crate::supervisor::orders::Input::ShutDown);
    world.orders();
    assert_eq!(world.taken(), ["stop slow1 planned", "reply 7 Stopping", "reply 8 Stopping"]);
}

/// Its children got no `stop`, and what they depended on was stopped beside them.
#[test]
fn a_supervisor_that_is_still_starting_stops_in_order_before_its_siblings() {
    let mut world = World::strategy(OneForOne, &[child("first"), child("s").supervisor()]);
    world.orders();
    world.up("first");
    world.orders();
    world.taken();
    world.input(crate::supervisor::orders::Input::ShutDown);
    world.orders();
    assert_eq!(world.taken(), ["stop s1"]);
    let (key, life) = world.at("s");
    let outcome = crate::supervisor::orders::StartOutcome::Failed(ExitReason::Shutdown);
    world.input(crate::supervisor::orders::Input::StartDone { key, life, outcome });
    world.run();
    assert_eq!(world.taken(), ["stop first1", "finish shutdown"]);
}

/// D came up while A was down, and was then left with a dead A.
#[test]
fn a_dependent_waits_for_all_that_it_needs() {
    let children = [child("a").backs_off(), child("e"), child("d").needs(&["a", "e"])];
    let mut world = up(OneForOne, &children);
    world.crashes("a");
    world.run();
    assert_eq!(world.taken(), ["a1 restarts", "stop d1 planned", "wait a"]);
    world.crashes("e");
    world.run();
    assert_eq!(world.taken(), ["e1 restarts", "start e2"]);
    world.delay_over("a");
    world.run();
    assert_eq!(world.taken(), ["start a2", "start d2"]);

    world.ask(1, Change::Terminate, "d");
    world.ask(2, Change::Terminate, "a");
    world.ask(3, Change::Restart, "d");
    world.ask(4, Change::PlannedRestart, "d");
    world.run();
    let log = world.taken();
    assert_eq!(log[4..], ["reply 3 needs a", "reply 4 Done"], "{log:?}");
    world.ask(5, Change::Restart, "a");
    world.run();
    assert_eq!(world.taken(), ["start a3", "reply 5 Done", "start d3"]);
}

#[test]
fn a_dependency_that_is_started_again_gives_its_dependents_a_new_beginning() {
    let mut world = up(OneForOne, &[child("a"), child("d").needs(&["a"])]);
    world.ask(1, Change::Terminate, "a");
    world.run();
    world.taken();
    world.ask(2, Change::Restart, "a");
    world.run();
    assert_eq!(world.taken(), ["stop d1 planned", "start a2", "start d2", "reply 2 Done"]);
}

#[test]
fn what_needs_something_unknown_or_down_is_not_added() {
    let mut world = up(OneForOne, &[child("a")]);
    world.ask(1, Change::Terminate, "a");
    world.add(2, &child("x").needs(&["nobody"]));
    world.add(3, &child("y").needs(&["a"]));
    world.run();
    assert_eq!(world.taken()[1..], ["reply 1 Done", "reply 2 unknown nobody", "reply 3 needs a"]);
}

/// OTP's `{restarting, Pid}` counts as alive.
#[test]
fn a_significant_child_that_backs_off_keeps_its_supervisor() {
    let transient = |id| child(id).restart(RestartPolicy::Transient).significant();
    let policy = Policy {
        strategy: OneForOne,
        intensity: super::world::PATIENT,
        auto_shutdown: AutoShutdown::AllSignificant,
    };
    let mut world = World::fixed(policy, &[transient("a").backs_off(), transient("b")]);
    world.run();
    world.crashes("a");
    world.run();
    world.taken();
    world.ends("b", ExitReason::Normal);
    world.run();
    assert_eq!(world.taken(), ["b1 stays_down"]);
}

/// The last one was stopped last.
#[test]
fn a_planned_restart_stops_all_in_reverse_order() {
    let mut world = up(OneForAll, &[child("db"), child("cache"), child("api")]);
    world.ask(1, Change::PlannedRestart, "api");
    world.run();
    let stops = ["stop api1 planned", "stop cache1 planned", "stop db1 planned"];
    assert_eq!(world.taken()[..3], stops);
}

/// Its slot was closed, and its messages were lost.
#[test]
fn the_child_that_a_crowd_gave_up_for_is_kept_with_the_others() {
    let none = Intensity::new(0, Duration::from_secs(1));
    let mut world = World::crowd(none, true, &[child("a"), child("b")]);
    world.run();
    world.taken();
    world.crashes("a");
    world.run();
    let expected = ["a1 gives_up", "keep a", "stop b1 planned", "keep b", "finish escalated"];
    assert_eq!(world.taken(), expected);
}

/// They were refused, with the wrong words; and who asked for a restart was forgotten.
#[test]
fn what_is_asked_about_a_crowds_child_on_its_way_waits() {
    let mut world = World::crowd(super::world::PATIENT, false, &[child("a")]);
    world.orders();
    world.ask(1, Change::PlannedRestart, "a");
    world.ask(2, Change::Suspend, "a");
    world.ask(3, Change::Terminate, "a");
    world.ask(4, Change::Resume, "a");
    world.orders();
    assert_eq!(world.taken(), ["start a1"]);
    world.up("a");
    world.run();
    let expected = [
        "stop a1 planned",
        "start a2",
        "reply 1 Done",
        "reply 2 Done",
        "stop a2",
        "reply 3 Done",
        "reply 4 NotFound(\"a\")",
        "forget a",
    ];
    assert_eq!(world.taken(), expected);
}

#[test]
fn a_copy_of_a_crowd_knows_the_one_child_and_decides_the_same() {
    let children: Vec<_> = (0..100).map(|i| child(&format!("c{i}"))).collect();
    let mut world = World::crowd(Intensity::new(1, Duration::from_secs(9)), false, &children);
    world.run();
    world.crashes("c5");
    world.run();
    world.taken();
    let copy = world.brain.copy_for("c7");
    assert_eq!((copy.key_of("c7").is_some(), copy.key_of("c5")), (true, None));
    world.brain = copy;
    world.crashes("c7");
    world.run();
    assert_eq!(world.taken(), ["c71 gives_up", "forget c7", "finish escalated"]);
}
