//! Random trees and random actions: what was planned is what happens.

use std::fmt::Write as _;
use std::time::Duration;

use mister_smith_supervisors::{
    Act, Action, ActorSystem, Backoff, ChildSpec, ExitReason, LifecycleKind, Look, Origin,
    PlannedEnd, RestartPolicy, Shutdown, SlotState, Strategy, SupervisorSpec,
};
use proptest::prelude::{
    Just, ProptestConfig, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use proptest::strategy::{BoxedStrategy, Strategy as Generate};
use proptest::test_runner::TestCaseError;

use crate::causes::causes_end;
use crate::kit::*;

/// A tree on paper.
#[derive(Clone, Debug)]
enum Shape {
    Worker { restart: RestartPolicy, brutal: bool, backoff: bool, give_up_after: Option<u32> },
    Supervisor { dynamic: bool, strategy: Strategy, intensity: u32, children: Vec<Shape> },
}

fn worker() -> impl Generate<Value = Shape> {
    let restart = prop_oneof![
        4 => Just(RestartPolicy::Permanent),
        1 => Just(RestartPolicy::Transient),
        1 => Just(RestartPolicy::Temporary),
    ];
    let give_up = prop_oneof![4 => Just(None), 1 => Just(Some(1))];
    (restart, any::<bool>(), 0u8..4, give_up).prop_map(|(restart, brutal, backoff, give_up)| {
        Shape::Worker { restart, brutal, backoff: backoff == 0, give_up_after: give_up }
    })
}

fn shape(depth: u32) -> BoxedStrategy<Shape> {
    if depth == 0 {
        return worker().boxed();
    }
    let strategy = prop_oneof![
        Just(Strategy::OneForOne),
        Just(Strategy::RestForOne),
        Just(Strategy::OneForAll)
    ];
    let supervisor = (0u8..4, strategy, 0u32..5, proptest::collection::vec(shape(depth - 1), 1..4))
        .prop_map(|(kind, strategy, intensity, children)| {
            let dynamic = kind == 0;
            Shape::Supervisor { dynamic, strategy, intensity, children }
        });
    prop_oneof![2 => worker(), 3 => supervisor].boxed()
}

fn spec(shape: &Shape, id: String, log: &Log, in_dynamic: bool) -> ChildSpec {
    match shape {
        Shape::Worker { restart, brutal, backoff, give_up_after } => {
            let mut spec = ChildSpec::actor::<Puppet>(id.clone(), Role::new(&id, log));
            // A dynamic supervisor forgets them, and the order of the others changes.
            let keep = in_dynamic && *restart == RestartPolicy::Temporary;
            spec = spec.restart(if keep { RestartPolicy::Permanent } else { *restart });
            if *brutal {
                spec = spec.shutdown(Shutdown::BrutalKill);
            }
            if *backoff {
                spec = spec.backoff(Backoff::exponential(ms(5), ms(20)));
            }
            match give_up_after {
                Some(n) => spec.give_up_after(*n),
                None if *backoff => spec.give_up_after(1_000),
                None => spec,
            }
        }
        Shape::Supervisor { dynamic, strategy, intensity, children } => {
            let supervisor = if *dynamic {
                SupervisorSpec::dynamic(id.clone())
            } else {
                SupervisorSpec::new(id.clone()).strategy(*strategy)
            };
            let supervisor = supervisor.intensity(*intensity, secs(3));
            let children = children.iter().enumerate();
            children
                .fold(supervisor, |supervisor, (i, child)| {
                    supervisor.child(spec(child, format!("{id}{i}"), log, *dynamic))
                })
                .into()
        }
    }
}

/// A dynamic supervisor starts and stops its children at once, and promises no order.
fn order_is_promised(shape: &Shape) -> bool {
    match shape {
        Shape::Worker { .. } => true,
        Shape::Supervisor { dynamic, children, .. } => {
            !dynamic && children.iter().all(order_is_promised)
        }
    }
}

/// What the events after `seq` say: who stopped and how, who started, whether somebody gave up.
fn happened(system: &ActorSystem, seq: u64) -> (Vec<String>, Vec<String>, bool) {
    let (mut stops, mut starts, mut escalated) = (Vec::new(), Vec::new(), false);
    for event in system.timeline().since(seq, usize::MAX).events {
        let stop = |how: PlannedEnd| format!("{} {}", event.path, how.as_str());
        match &event.kind {
            LifecycleKind::Started | LifecycleKind::Restarted { .. } => {
                starts.push(event.path.to_string());
            }
            LifecycleKind::Failed { reason: ExitReason::Killed }
            | LifecycleKind::Stopped { reason: ExitReason::Killed } => {
                stops.push(stop(PlannedEnd::Killed));
            }
            LifecycleKind::Stopped { .. } => stops.push(stop(PlannedEnd::Stopped)),
            LifecycleKind::Failed { reason: ExitReason::Escalated { .. } } => {
                stops.push(stop(PlannedEnd::GaveUp));
            }
            LifecycleKind::Failed { .. } => stops.push(format!("{} failed", event.path)),
            LifecycleKind::Escalated { .. } => escalated = true,
            _ => {}
        }
    }
    (stops, starts, escalated)
}

fn paths(system: &ActorSystem) -> Vec<(String, SlotState)> {
    let tree = system.tree();
    tree.walk().map(|node| (node.path.to_string(), node.state)).collect()
}

async fn plans_come_true(
    root: &[Shape],
    strategy: Strategy,
    intensity: u32,
    actions: &[(usize, u8, u64)],
) -> Result<(), TestCaseError> {
    let log = Log::default();
    let mut spec_of_root =
        SupervisorSpec::new("root").strategy(strategy).intensity(intensity, secs(3));
    for (i, shape) in root.iter().enumerate() {
        spec_of_root = spec_of_root.child(spec(shape, format!("c{i}"), &log, false));
    }
    let Ok(system) = ActorSystem::builder(spec_of_root)
        .dead_letters(|_: mister_smith_supervisors::DeadLetter| {})
        .start()
        .await
    else {
        // A backoff that makes its intensity unreachable is refused.
        return Ok(());
    };
    let mut story = String::new();
    for (who, what, wait) in actions {
        let all = paths(&system);
        let (path, _) = &all[who % all.len()];
        let action = Action::ALL[usize::from(*what) % Action::ALL.len()];
        let plan = system.plan(path, action).unwrap();
        let before = system.timeline().last();
        let by = Act::new(action).by(Origin::new("test")).life(plan.life);
        let done = tokio::time::timeout(secs(60), system.act(path, by)).await;
        tokio::time::sleep(ms(100)).await;
        let (mut stops, mut starts, escalated) = happened(&system, before);
        let _ = writeln!(story, "{action:?} {path}: {plan}");
        let mut planned_stops: Vec<String> =
            plan.stops.iter().map(|stop| format!("{} {}", stop.path, stop.how.as_str())).collect();
        let mut planned_starts: Vec<String> = plan.starts.iter().map(ToString::to_string).collect();
        if !root.iter().all(order_is_promised) {
            for list in [&mut stops, &mut starts, &mut planned_stops, &mut planned_starts] {
                list.sort();
            }
        }
        if path == "/" && action == Action::Kill {
            // Nobody is above the root to tell of it.
            prop_assert!(plan.ends_system && end_of(&system).await.is_some());
            return Ok(());
        }
        prop_assert_eq!(stops, planned_stops, "stops\n{}", story);
        prop_assert_eq!(starts, planned_starts, "starts\n{}", story);
        prop_assert_eq!(escalated, plan.escalates(), "escalates\n{}", story);
        let done = done.expect("an action does not hang");
        let ended = end_of(&system).await.is_some();
        prop_assert_eq!(ended, plan.ends_system, "ends\n{}", story);
        if ended {
            return causes_end(&system);
        }
        prop_assert_eq!(done.is_err(), plan.refused.is_some(), "{:?}\n{}", done, story);
        tokio::time::sleep(ms(*wait)).await;
    }
    causes_end(&system)?;
    prop_assert!(system.shutdown(secs(60)).await);
    Ok(())
}

fn run(test: impl Future<Output = Result<(), TestCaseError>>) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(test)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn what_was_planned_is_what_happens(
        root in proptest::collection::vec(shape(2), 1..4),
        strategy in prop_oneof![
            Just(Strategy::OneForOne), Just(Strategy::RestForOne), Just(Strategy::OneForAll)
        ],
        intensity in 0u32..6,
        actions in proptest::collection::vec((0usize..64, 0u8..6, 0u64..2_000), 1..12),
    ) {
        run(plans_come_true(&root, strategy, intensity, &actions))?;
    }
}

// --- by hand -----------------------------------------------------------------------------------

fn resources(log: &Log) -> SupervisorSpec {
    root().strategy(Strategy::RestForOne).child(puppet("pool", log)).child(puppet("store", log))
}

#[tokio::test(start_paused = true)]
async fn a_plan_says_who_goes_with_whom() {
    let log = Log::default();
    let system = start(resources(&log)).await;
    let plan = system.plan("/pool", Action::Kill).unwrap();
    assert_eq!(plan.text(), "pool is killed; store ends with it; 2 are started again");
    assert_eq!((plan.life, plan.escalates(), plan.backoff()), (1, false, Duration::ZERO));
    assert_eq!(plan.intensity.unwrap().used, 1);
    let plan = system.plan("/store", Action::Suspend).unwrap();
    assert!(plan.stops.is_empty() && plan.starts.is_empty());
    assert_eq!(plan.text(), "store is held: its messages wait");
    let plan = system.plan("/store", Action::Start).unwrap();
    assert_eq!(plan.refused.as_deref(), Some("it runs"));
    let plan = system.plan("/", Action::Stop).unwrap();
    assert!(plan.refused.unwrap().contains("root"));
    // Nothing has happened.
    assert_eq!(log.take(), ["start pool", "start store"]);
    assert!(system.plan("/nobody", Action::Kill).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_plan_goes_up_with_the_escalation() {
    let log = Log::default();
    let inner = SupervisorSpec::new("inner").intensity(0, secs(1)).child(puppet("a", &log));
    let outer = SupervisorSpec::new("outer").intensity(0, secs(1)).child(inner);
    let system = start(root().child(outer)).await;
    let plan = system.plan("/outer/inner/a", Action::Kill).unwrap();
    let stops: Vec<_> = plan.stops.iter().map(|s| format!("{} {:?}", s.path, s.how)).collect();
    assert_eq!(stops, ["/outer/inner/a Killed", "/outer/inner GaveUp", "/outer GaveUp"], "{plan}");
    let starts: Vec<_> = plan.starts.iter().map(ToString::to_string).collect();
    assert_eq!(starts, ["/outer/inner/a", "/outer/inner", "/outer"]);
    let who: Vec<_> =
        plan.reactions.iter().map(|r| (r.supervisor.as_str(), r.escalates())).collect();
    assert_eq!(who, [("/outer/inner", true), ("/outer", true), ("/", false)]);
    let act = Act::new(Action::Kill).by(Origin::new("anna").because("it hangs"));
    system.act("/outer/inner/a", act).await.unwrap();
    settle().await;
    let last = system.timeline().last();
    let lineage = system.timeline().lineage(last).unwrap();
    assert_eq!(
        lineage.text,
        "outer was restarted because a was killed by anna (it hangs), and inner gave up, and outer gave up"
    );
    assert!(lineage.whole);
}

#[tokio::test(start_paused = true)]
async fn an_action_is_an_event_and_the_cause_of_what_follows() {
    let log = Log::default();
    let system = start(resources(&log)).await;
    let by = |action| Act::new(action).by(Origin::new("anna"));
    for (action, follows) in [
        (Action::Kill, 4),
        (Action::Restart, 4),
        (Action::Suspend, 1),
        (Action::Resume, 1),
        (Action::Stop, 1),
        (Action::Start, 1),
    ] {
        let acted = system.act("/pool", by(action)).await.unwrap();
        settle().await;
        let seq = acted.seq.unwrap();
        let after = system.timeline().since(seq - 1, 100).events;
        assert_eq!(after.len(), 1 + follows, "{action:?} {after:?}");
        for event in &after {
            let lineage = system.timeline().lineage(event.seq).unwrap();
            assert_eq!(lineage.events[0].seq, seq, "{action:?}: {event}");
        }
    }
    // Meant for another life.
    let refused = system.act("/pool", by(Action::Stop).life(1)).await.unwrap_err();
    assert_eq!(refused.to_string(), "/pool is in life 4, not 1; look at it again");
    let before = system.timeline().last();
    assert!(system.act("/pool", by(Action::Kill).life(3)).await.is_err());
    assert_eq!(system.timeline().last(), before, "nothing was done, and nothing is told");
}

#[tokio::test(start_paused = true)]
async fn a_failure_keeps_what_was_done_about_it() {
    let log = Log::default();
    let system = start(resources(&log).intensity(9, secs(60))).await;
    for _ in 0..10 {
        at(&system, "/pool").try_tell(Do::Fail).unwrap();
        settle().await;
        tokio::time::sleep(secs(25)).await;
    }
    let failures = system.actor("/pool").unwrap().failures;
    assert_eq!(failures.len(), mister_smith_supervisors::FAILURES_KEPT);
    let last = failures.last().unwrap();
    let reaction = last.decision.get().unwrap();
    assert_eq!(
        reaction.to_string(),
        "restarted with one other (rest_for_one); 3 of 9 restarts in 60s used"
    );
    let affected: Vec<_> = reaction.affected.iter().map(ToString::to_string).collect();
    assert_eq!(affected, ["/pool", "/store"]);
    assert_eq!((last.message_in_hand, last.life), (Some("kit::Do"), 10));
    let event = system.timeline().get(last.seq).unwrap();
    assert_eq!(event.reaction(), Some(reaction));
    assert_eq!(
        system
            .look("/", mister_smith_supervisors::Depth::ALL)
            .unwrap()
            .root
            .supervisor
            .unwrap()
            .used,
        2
    );
    let look = system.look_for(&Look::at("/").state(SlotState::Up).text("store")).unwrap();
    assert_eq!(look.root.children.len(), 1);
}
