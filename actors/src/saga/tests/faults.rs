use std::sync::atomic::AtomicUsize;

use super::*;
use crate::aggregate::tests::faulty::{Fault, When};

/// What the participants must have seen and hold in the end.
pub(super) fn check(agency: &Agency, id: &str, state: &SagaState, place: &str) {
    match state.status {
        SagaStatus::Completed => assert_eq!(agency.booked(), keys(id, &STEPS), "{place}"),
        SagaStatus::Compensated => {
            assert_eq!(agency.booked(), [] as [&str; 0], "{place}: something was forgotten");
        }
        other => panic!("{place}: {other:?} {state:?}"),
    }
}

/// No step begins again after the log has it as confirmed, and undoing goes backwards.
pub(super) async fn check_history(world: &World, id: &str, place: &str) {
    let mut confirmed = Vec::new();
    let mut undone: Vec<String> = Vec::new();
    for (_, event) in world.sagas.history("trip", id).await.unwrap() {
        match event {
            super::super::SagaEvent::StepStarted { step, .. } => {
                assert!(!confirmed.contains(&step), "{place}: {step} ran after it was confirmed");
                assert!(undone.is_empty(), "{place}: {step} ran on the way back");
            }
            super::super::SagaEvent::StepCompleted { step, .. } => confirmed.push(step),
            super::super::SagaEvent::CompensationCompleted { step } => {
                assert!(!undone.contains(&step), "{place}: {step} was undone twice");
                undone.push(step);
            }
            _ => {}
        }
    }
    let place_of = |step: &String| STEPS.iter().position(|one| one == step).unwrap();
    let order: Vec<_> = undone.iter().map(place_of).collect();
    assert!(order.is_sorted_by(|a, b| a > b), "{place}: {undone:?}");
}

/// Whom a fault hits.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Saga,
    Manager,
    Committer,
}

impl Victim {
    fn path(self) -> &'static str {
        match self {
            Self::Saga => "/sagas/running/saga-trip-1",
            Self::Manager => "/sagas/manager",
            Self::Committer => crate::tests::world::COMMITTER,
        }
    }
}

/// Kills the victim at point number `at` of a saga: before and after each commit, before and after
/// each effect. Answers how many points there were.
async fn killed_at(at: usize, victim: Victim, refused: bool) -> usize {
    let agency = Arc::new(Agency::default());
    if refused {
        agency.plan("car", &[Answer::Refuse]);
    }
    let world = started(&agency).await;
    let points = Arc::new(AtomicUsize::new(0));
    let (system, counted) = (world.system.clone(), Arc::clone(&points));
    let kill = Arc::new(move || {
        if counted.fetch_add(1, Ordering::SeqCst) == at {
            let _ = system.kill(victim.path());
        }
    });
    let on_commit = Arc::clone(&kill);
    world.faults.hook(Arc::new(move |_: When| on_commit()));
    *agency.hook.lock().unwrap() = Some(Arc::new(move |_: &str| kill()));
    begin(&world, "1").await;
    let state = end(&world, "1").await;
    let place = format!("{victim:?} at {at}, refused: {refused}");
    let wanted = if refused { SagaStatus::Compensated } else { SagaStatus::Completed };
    assert_eq!(state.status, wanted, "{place}: {state:?}");
    check(&agency, "1", &state, &place);
    check_history(&world, "1", &place).await;
    let seen = points.load(Ordering::SeqCst);
    world.system.shutdown(Duration::from_secs(5)).await;
    seen
}

async fn killed_at_every_point(victim: Victim) {
    for refused in [false, true] {
        let mut at = 0;
        loop {
            let points = killed_at(at, victim, refused).await;
            if at >= points {
                break;
            }
            at += 1;
        }
        assert!(at > 15, "only {at} points");
    }
}

#[tokio::test]
async fn a_saga_that_is_killed_at_any_point_comes_to_its_end() {
    killed_at_every_point(Victim::Saga).await;
}

#[tokio::test]
async fn the_death_of_the_manager_at_any_point_changes_nothing() {
    killed_at_every_point(Victim::Manager).await;
}

#[tokio::test]
async fn the_death_of_the_committer_at_any_point_changes_nothing() {
    killed_at_every_point(Victim::Committer).await;
}

/// Each commit in turn fails in each way.
#[tokio::test]
async fn a_commit_that_fails_at_any_point_changes_nothing() {
    for fault in [Fault::AnswerLost, Fault::NotWritten, Fault::Late] {
        for at in 0..12 {
            // Shown if it does not come to an end.
            println!("{fault:?} at {at}");
            let agency = Arc::new(Agency::default());
            agency.plan("car", &[Answer::Refuse]);
            let world = started(&agency).await;
            for _ in 0..at {
                world.faults.then(Fault::None);
            }
            world.faults.then(fault.clone());
            begin(&world, "1").await;
            let state = end(&world, "1").await;
            let place = format!("{fault:?} at {at}");
            assert_eq!(state.status, SagaStatus::Compensated, "{place}");
            check(&agency, "1", &state, &place);
            check_history(&world, "1", &place).await;
            world.system.shutdown(Duration::from_secs(5)).await;
        }
    }
}

#[tokio::test]
async fn a_node_that_ends_anywhere_goes_on_where_it_was() {
    for calls in 1..=5 {
        let agency = Arc::new(Agency::default());
        agency.plan("car", &[Answer::Refuse]);
        let world = started(&agency).await;
        let (reached, mut wait) = tokio::sync::mpsc::unbounded_channel();
        let count = AtomicUsize::new(0);
        *agency.hook.lock().unwrap() = Some(Arc::new(move |point: &str| {
            if point == "before" && count.fetch_add(1, Ordering::SeqCst) + 1 == calls {
                let _ = reached.send(());
            }
        }));
        begin(&world, "1").await;
        wait.recv().await.unwrap();
        *agency.hook.lock().unwrap() = None;
        let world = world.again(one(saga(&agency))).await;
        let state = end(&world, "1").await;
        check(&agency, "1", &state, &format!("call {calls}"));
        check_history(&world, "1", &format!("call {calls}")).await;
    }
}
