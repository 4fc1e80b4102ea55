//! Why: whoever follows the causes of an event comes to its beginning.

use mister_smith_supervisors::*;
use proptest::prelude::{
    Just, ProptestConfig, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use proptest::strategy::Strategy as Generate;
use proptest::test_runner::TestCaseError;

use crate::kit::*;

/// Whoever follows the causes of an event comes to an event that nothing led to, and that is a
/// first failure, an action, or something that nobody had to do.
pub(crate) fn causes_end(system: &ActorSystem) -> Result<(), TestCaseError> {
    let timeline = system.timeline();
    for event in timeline.since(0, usize::MAX).events {
        let lineage = timeline.lineage(event.seq).expect("kept");
        prop_assert!(lineage.whole, "{}", event);
        let first = &lineage.events[0];
        let own = ended_itself(first)
            || matches!(first.kind, LifecycleKind::Action(_) | LifecycleKind::Started);
        prop_assert!(own, "{event} comes from {first}");
        // What was not done for the first time had a reason.
        if matches!(
            event.kind,
            LifecycleKind::Restarted { .. }
                | LifecycleKind::Stopped { .. }
                | LifecycleKind::Escalated { .. }
                | LifecycleKind::BackingOff { .. }
        ) || event.life > 1
        {
            prop_assert!(
                ended_itself(&event) || is_action(&event) || event.cause_seq.is_some(),
                "{}",
                event
            );
        }
        if let Some(decision) = &event.decision {
            prop_assert!(decision.get().is_some(), "undecided: {event}");
        }
    }
    Ok(())
}

fn ended_itself(event: &LifecycleEvent) -> bool {
    matches!(
        event.kind,
        LifecycleKind::Failed { .. } | LifecycleKind::Stopped { reason: ExitReason::Normal }
    )
}

fn is_action(event: &LifecycleEvent) -> bool {
    matches!(event.kind, LifecycleKind::Action(_))
}

/// What happens to one of the workers.
#[derive(Clone, Copy, Debug)]
enum Blow {
    Fail,
    Panic,
    End,
    Kill,
    By(Action),
    /// The supervisor of the workers.
    Above(Action),
    Wait(u64),
}

fn blow() -> impl Generate<Value = (usize, Blow)> {
    let action = || (0usize..6).prop_map(|n| Action::ALL[n]);
    let blow = prop_oneof![
        3 => Just(Blow::Fail),
        1 => Just(Blow::Panic),
        1 => Just(Blow::End),
        1 => Just(Blow::Kill),
        3 => action().prop_map(Blow::By),
        1 => action().prop_map(Blow::Above),
        3 => (1u64..3_000).prop_map(Blow::Wait),
    ];
    (0usize..5, blow)
}

/// Restart policy, starts that fail, backs off.
type Worker = (RestartPolicy, Vec<bool>, bool);

fn worker() -> impl Generate<Value = Worker> {
    let restart = prop_oneof![
        4 => Just(RestartPolicy::Permanent),
        1 => Just(RestartPolicy::Transient),
        1 => Just(RestartPolicy::Temporary),
    ];
    (restart, proptest::collection::vec(any::<bool>(), 0..5), any::<bool>())
}

async fn story(
    strategy: Strategy,
    intensity: u32,
    dynamic: bool,
    workers: &[Worker],
    blows: &[(usize, Blow)],
) -> Result<(), TestCaseError> {
    let log = Log::default();
    let mut inner = if dynamic {
        SupervisorSpec::dynamic("inner").keep_children()
    } else {
        SupervisorSpec::new("inner").strategy(strategy)
    };
    inner = inner.intensity(intensity, secs(5));
    for (i, (restart, starts, backs_off)) in workers.iter().enumerate() {
        let starts: Vec<_> = starts.iter().map(|ok| if *ok { "ok" } else { "fail" }).collect();
        let role = Role::new(&i.to_string(), &log).starts(&[&["ok"], &starts[..]].concat());
        let mut spec = ChildSpec::actor::<Puppet>(i.to_string(), role).restart(*restart);
        if *backs_off {
            spec = spec.backoff(Backoff::exponential(ms(5), ms(50))).give_up_after(50);
        }
        inner = inner.child(spec);
    }
    let middle = SupervisorSpec::new("middle").intensity(20, secs(5)).child(inner);
    let root = root().child(middle);
    let Ok(system) = ActorSystem::builder(root).dead_letters(|_: DeadLetter| {}).start().await
    else {
        return Ok(());
    };
    for (who, blow) in blows {
        let path = format!("/middle/inner/{}", who % workers.len());
        let by = |action| Act::new(action).by(Origin::new("test"));
        let told = |what| drop(system.find::<Do>(&path).map(|a| a.try_tell(what)));
        match blow {
            Blow::Fail => told(Do::Fail),
            Blow::Panic => told(Do::Panic),
            Blow::End => told(Do::End),
            Blow::Kill => drop(system.kill(&path)),
            Blow::By(action) => drop(system.act(&path, by(*action)).await),
            Blow::Above(action) => drop(system.act("/middle/inner", by(*action)).await),
            Blow::Wait(long) => tokio::time::sleep(ms(*long)).await,
        }
    }
    tokio::time::sleep(secs(30)).await;
    causes_end(&system)?;
    // The fold of the events is the tree.
    let timeline = system.timeline();
    let fold = timeline.at(timeline.last()).expect("kept");
    for node in system.tree().walk().filter(|node| node.state == SlotState::Up) {
        if let Some(past) = fold.get(node.path.as_str()) {
            prop_assert_eq!(past.life, node.life, "{}", node.path);
            prop_assert_eq!(past.state, node.state, "{}", node.path);
            prop_assert_eq!(past.restarts, node.restarts, "{}", node.path);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn every_event_leads_back_to_its_beginning(
        strategy in prop_oneof![
            Just(Strategy::OneForOne), Just(Strategy::RestForOne), Just(Strategy::OneForAll)
        ],
        intensity in 0u32..6,
        dynamic in any::<bool>(),
        workers in proptest::collection::vec(worker(), 1..5),
        blows in proptest::collection::vec(blow(), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(story(strategy, intensity, dynamic, &workers, &blows))?;
    }
}
