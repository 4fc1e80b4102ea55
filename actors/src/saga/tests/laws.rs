use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::event::Timestamp;
use crate::saga::{Next, SagaEvent, StepShape};

fn any_answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        5 => Just(Answer::Yes),
        1 => Just(Answer::Refuse),
        2 => Just(Answer::Busy),
        1 => Just(Answer::Lost),
        1 => Just(Answer::Panic),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever the participants answer and whatever is killed: everything is booked, or nothing
    /// is, or a person is asked.
    #[test]
    fn all_or_nothing_or_a_person(
        answers in vec(vec(any_answer(), 0..6), 6),
        kills in vec((0..12_usize, 0..3_usize), 0..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let agency = Arc::new(Agency::default());
            let names = ["flight", "hotel", "car", "undo flight", "undo hotel", "undo car"];
            for (name, answers) in names.iter().zip(&answers) {
                agency.plan(name, answers);
            }
            let world = started(&agency).await;
            let system = world.system.clone();
            let calls = std::sync::atomic::AtomicUsize::new(0);
            *agency.hook.lock().unwrap() = Some(Arc::new(move |_: &str| {
                let call = calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                for (_, victim) in kills.iter().filter(|(at, _)| *at == call) {
                    let path = match victim {
                        0 => "/sagas/running/saga-trip-1",
                        1 => "/sagas/manager",
                        _ => "/resources/pool",
                    };
                    let _ = system.kill(path);
                }
            }));
            begin(&world, "1").await;
            let state = end(&world, "1").await;
            match state.status {
                SagaStatus::Completed => assert_eq!(agency.booked(), keys("1", &STEPS)),
                SagaStatus::Compensated => assert_eq!(agency.booked(), [] as [&str; 0]),
                SagaStatus::Parked => assert!(state.reason.is_some()),
                other => panic!("{other:?}"),
            }
            // Another life of the node finds the same.
            let world = world.again(one(saga(&agency))).await;
            assert_eq!(world.sagas.state("trip", "1").await.unwrap(), state);
            world.system.shutdown(Duration::from_secs(5)).await;
        });
    }

    /// The state machine alone, driven by random answers, always comes to an end, never asks for a
    /// step that is confirmed, and undoes exactly what may have had its effect, backwards.
    #[test]
    fn the_machine_comes_to_its_end(
        undoable in vec(any::<bool>(), 1..5),
        answers in vec(0..4_u8, 200),
        abort_at in proptest::option::of(0..10_usize),
    ) {
        let shape: Vec<_> = undoable
            .iter()
            .enumerate()
            .map(|(n, undoable)| StepShape {
                name: format!("s{n}"), undoable: *undoable, attempts: 3, undo_attempts: 3,
            })
            .collect();
        let now = Timestamp::from_micros(1_000);
        let mut state = SagaState::default();
        state.evolve(SagaEvent::Started {
            name: "m".to_owned(), version: 1, data: serde_json::Value::Null, deadline: None,
        });
        let mut answers = answers.into_iter();
        let (mut done, mut undone) = (Vec::new(), Vec::new());
        for turn in 0..400 {
            if Some(turn) == abort_at && state.status == SagaStatus::Running {
                state.evolve(SagaEvent::AbortRequested { by: "p".to_owned(), reason: "r".to_owned() });
            }
            match state.next(&shape, now) {
                Next::Rest => break,
                Next::Wait(_) => prop_assert!(false, "nothing is in the future"),
                Next::Record(event) => state.evolve(event),
                Next::Run { step, attempt } => {
                    prop_assert!(!done.contains(&step) && undone.is_empty());
                    let step_name = shape[step].name.clone();
                    state.evolve(SagaEvent::StepStarted { step: step_name.clone(), attempt });
                    let failed = |unknown, retry| SagaEvent::StepFailed {
                        step: step_name.clone(), attempt, reason: String::new(), unknown,
                        retry_at: if retry { Some(now) } else { None },
                    };
                    match answers.next().unwrap_or(0) {
                        0 | 1 => {
                            done.push(step);
                            state.evolve(SagaEvent::StepCompleted {
                                step: step_name, data: serde_json::Value::Null,
                            });
                        }
                        2 => state.evolve(failed(true, true)),
                        _ => {
                            state.evolve(failed(false, false));
                            state.evolve(SagaEvent::Compensating { reason: String::new() });
                        }
                    }
                }
                Next::Undo { step, attempt } => {
                    prop_assert!(shape[step].undoable);
                    prop_assert!(undone.last().is_none_or(|last| *last > step));
                    let step_name = shape[step].name.clone();
                    state.evolve(SagaEvent::CompensationStarted { step: step_name.clone(), attempt });
                    if answers.next().unwrap_or(0) < 2 {
                        undone.push(step);
                        state.evolve(SagaEvent::CompensationCompleted { step: step_name });
                    } else {
                        state.evolve(SagaEvent::CompensationFailed {
                            step: step_name, attempt, reason: String::new(), retry_at: Some(now),
                        });
                    }
                }
            }
        }
        prop_assert!(state.status.is_final(), "{:?}", state);
        if state.status == SagaStatus::Compensated {
            for step in done.iter().filter(|step| shape[**step].undoable) {
                prop_assert!(undone.contains(step), "{step} was forgotten");
            }
        }
    }
}
