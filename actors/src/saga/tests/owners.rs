//! Two owners of one saga: a node whose claim has ended and that does not know it yet.

use super::*;
use crate::aggregate::tests::faulty::Fault;
use crate::event::{Event, NewEvent, Timestamp};
use crate::saga::actor::{SagaActor, SagaArgs};
use crate::saga::board::Board;
use crate::saga::{Definitions, SagaEvent, stream_of};
use crate::store::{Append, ExpectedVersion};

/// What another owner writes.
fn by_another(events: &[SagaEvent]) -> Append {
    let at = Timestamp::from_micros(1_700_000_000_000_000);
    let new = events.iter().map(|event| {
        let encoded = event.encode().unwrap();
        let id = fresh_id();
        NewEvent::new(id, encoded.event_type, encoded.codec, encoded.data, at)
    });
    Append::new(stream_of("trip", "1").unwrap(), ExpectedVersion::Any, new.collect())
}

fn started_step(step: &str, attempt: u32) -> SagaEvent {
    SagaEvent::StepStarted { step: step.to_owned(), attempt }
}

fn completed_step(step: &str) -> SagaEvent {
    let data = serde_json::to_value(trip()).unwrap();
    SagaEvent::StepCompleted { step: step.to_owned(), data }
}

/// The other owner's events come into the log right before the commit of that number; the first is
/// the one that begins the saga. Answers what happened.
async fn interfered(commit: usize, others: &[SagaEvent]) -> (Arc<Agency>, Vec<SagaEvent>) {
    let agency = Arc::new(Agency::default());
    let world = started(&agency).await;
    for _ in 0..commit {
        world.faults.then(Fault::None);
    }
    world.faults.then(Fault::After(by_another(others)));
    begin(&world, "1").await;
    let state = end(&world, "1").await;
    assert_eq!(state.status, SagaStatus::Completed);
    assert_eq!(agency.booked(), keys("1", &STEPS));
    let history = world.sagas.history("trip", "1").await.unwrap();
    world.system.shutdown(Duration::from_secs(5)).await;
    (agency, history.into_iter().map(|(_, event)| event).collect())
}

fn begun(history: &[SagaEvent], wanted: &str) -> Vec<u32> {
    let attempts = history.iter().filter_map(|event| match event {
        SagaEvent::StepStarted { step, attempt } if step == wanted => Some(*attempt),
        _ => None,
    });
    attempts.collect()
}

fn completions(history: &[SagaEvent], wanted: &str) -> usize {
    let is = |event: &&SagaEvent| matches!(event, SagaEvent::StepCompleted { step, .. } if step == wanted);
    history.iter().filter(is).count()
}

/// An owner that found the other's `step_started` at the version where its own was to be took it
/// for its own, and ran the step too.
#[tokio::test]
async fn a_step_is_run_by_whoever_wrote_that_it_begins() {
    // Both began it: the other's try has to be over before there is another.
    let (agency, history) = interfered(1, &[started_step("flight", 1)]).await;
    assert_eq!(begun(&history, "flight"), [1, 2], "{history:?}");
    assert_eq!(agency.calls(), STEPS, "ours is the second");

    // The other went on with the next step while our result was on its way.
    let others = [completed_step("flight"), started_step("hotel", 1)];
    let (agency, history) = interfered(2, &others).await;
    assert_eq!(begun(&history, "hotel"), [1, 2], "{history:?}");
    assert_eq!(completions(&history, "flight"), 1, "{history:?}");
    assert_eq!(agency.calls(), STEPS);
}

/// The answer to the first `step_started` is lost: it was ours, so the step is run, and that was the
/// only try that it has.
#[tokio::test]
async fn a_beginning_whose_answer_is_lost_is_known_as_ours() {
    for fault in [Fault::AnswerLost, Fault::Late] {
        for at in 1..4 {
            let agency = Arc::new(Agency::default());
            let once = |name| step(&agency, name).retry(RetryPolicy::attempts(1));
            let saga = STEPS.iter().fold(Saga::new("trip"), |saga, name| saga.step(once(name)));
            let world = World::with(one(saga)).await;
            for _ in 0..at {
                world.faults.then(Fault::None);
            }
            world.faults.then(fault.clone());
            begin(&world, "1").await;
            let state = end(&world, "1").await;
            assert_eq!(state.status, SagaStatus::Completed, "{fault:?} at {at}: {state:?}");
            assert_eq!(agency.calls(), STEPS, "{fault:?} at {at}");
            world.system.shutdown(Duration::from_secs(5)).await;
        }
    }
}

/// The result of a try that the log has as over is not written as the result of another's.
#[tokio::test]
async fn the_completion_of_anothers_try_is_not_taken_for_ours() {
    let (reason, step) = (String::new(), "flight".to_owned());
    let retry_at = Some(Timestamp::from_micros(1));
    let over = SagaEvent::StepFailed { step, attempt: 1, reason, unknown: true, retry_at };
    let (agency, history) = interfered(2, &[over, started_step("flight", 2)]).await;
    assert_eq!(begun(&history, "flight"), [1, 2, 3], "{history:?}");
    assert_eq!(completions(&history, "flight"), 1, "{history:?}");
    assert_eq!(agency.calls(), ["flight", "flight", "hotel", "car"]);
}

/// Another actor begins on the same stream at each point of a saga: before and after each commit
/// and each effect.
#[tokio::test]
async fn two_actors_on_one_stream_do_each_step_under_its_key_and_come_to_one_end() {
    for refused in [false, true] {
        let mut at = 0;
        while at < two_actors(at, refused).await {
            at += 1;
        }
        assert!(at > 15, "only {at} points");
    }
}

async fn two_actors(at: usize, refused: bool) -> usize {
    let agency = Arc::new(Agency::default());
    if refused {
        agency.plan("car", &[Answer::Refuse]);
    }
    let world = started(&agency).await;
    let (reached, mut wait) = tokio::sync::mpsc::unbounded_channel();
    let points = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&points);
    let point = Arc::new(move || {
        if counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == at {
            let _ = reached.send(());
        }
    });
    let on_commit = Arc::clone(&point);
    world.faults.hook(Arc::new(move |_| on_commit()));
    *agency.hook.lock().unwrap() = Some(Arc::new(move |_: &str| point()));
    let running = world.system.supervisor("/sagas/running").unwrap();
    let args = SagaArgs {
        stream: stream_of("trip", "1").unwrap(),
        begun: None,
        pool: crate::tests::world::POOL.into(),
        committer: crate::tests::world::COMMITTER.into(),
        board: Board::default(),
        claim: None,
        definitions: Definitions::new(one(saga(&agency))).unwrap(),
    };
    let second = tokio::spawn(async move {
        if wait.recv().await.is_some() {
            running.spawn::<SagaActor>("another", args).await.unwrap();
        }
    });
    begin(&world, "1").await;
    let state = end(&world, "1").await;
    let place = format!("at {at}, refused: {refused}");
    super::faults::check(&agency, "1", &state, &place);
    super::faults::check_history(&world, "1", &place).await;
    let seen = points.load(std::sync::atomic::Ordering::SeqCst);
    world.system.shutdown(Duration::from_secs(5)).await;
    second.abort();
    seen
}
