//! What is in the log: one append for a result and what follows from it, and histories that were
//! written before that was so.

use super::*;
use crate::event::{Event, NewEvent, Position, RecordedEvent, Timestamp, Version};
use crate::projection::Projection;
use crate::saga::{Next, OpenSagas, SagaEvent, SagaSummary, StepShape, StepStatus, stream_of};
use crate::store::{Append, ExpectedVersion};

fn shape() -> Vec<StepShape> {
    STEPS
        .map(|name| StepShape {
            name: name.to_owned(),
            undoable: true,
            attempts: 4,
            undo_attempts: 2,
        })
        .to_vec()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn begun(step: &str) -> SagaEvent {
    SagaEvent::StepStarted { step: step.to_owned(), attempt: 1 }
}

fn done(step: &str) -> SagaEvent {
    let data = serde_json::to_value(trip()).unwrap();
    SagaEvent::StepCompleted { step: step.to_owned(), data }
}

fn beginning(deadline: Option<Timestamp>) -> SagaEvent {
    let (name, data) = ("trip".to_owned(), serde_json::to_value(trip()).unwrap());
    SagaEvent::Started { name, version: 1, data, deadline }
}

/// As it was written when each event was a commit of its own.
fn old_history() -> Vec<SagaEvent> {
    let mut all = vec![beginning(None)];
    for step in STEPS {
        all.extend([begun(step), done(step)]);
    }
    all.push(SagaEvent::Completed {});
    all
}

fn state_of(events: &[SagaEvent]) -> SagaState {
    let mut state = SagaState::default();
    events.iter().for_each(|event| state.evolve(event.clone()));
    state
}

/// The last step was done in time, its commit came after the deadline, and all was undone.
#[test]
fn when_all_steps_are_done_it_is_completed_whatever_the_deadline() {
    let mut events = old_history();
    events[0] = beginning(Some(at(100)));
    events.pop();
    let state = state_of(&events);
    assert_eq!(state.next(&shape(), at(101)), Next::Record(SagaEvent::Completed {}));
    events.pop();
    let state = state_of(&events);
    let planned = state.plan(vec![done("car")], &shape(), at(101));
    assert_eq!(planned, [done("car"), SagaEvent::Completed {}]);
    // One that is not done in time is undone.
    let planned = state.plan(state.orphan(&shape(), at(101)), &shape(), at(101));
    let back = SagaEvent::CompensationStarted { step: "car".to_owned(), attempt: 1 };
    assert!(matches!(&planned[0], SagaEvent::Compensating { .. }), "{planned:?}");
    assert_eq!(planned[1..], [back]);
}

#[test]
fn an_interrupted_try_counts_and_the_last_one_is_the_end_of_it() {
    let interrupted = |attempt| {
        let step = "flight".to_owned();
        let state = state_of(&[beginning(None), SagaEvent::StepStarted { step, attempt }]);
        state.plan(state.orphan(&shape(), at(1)), &shape(), at(1))
    };
    let again = interrupted(3);
    assert!(
        matches!(&again[0], SagaEvent::StepFailed { retry_at: Some(_), unknown: true, .. }),
        "{again:?}"
    );
    assert_eq!(again[1], SagaEvent::StepStarted { step: "flight".to_owned(), attempt: 4 });
    let over = interrupted(4);
    assert!(matches!(&over[0], SagaEvent::StepFailed { retry_at: None, .. }), "{over:?}");
    assert!(matches!(&over[1], SagaEvent::Compensating { .. }), "{over:?}");
    let undo = SagaEvent::CompensationStarted { step: "flight".to_owned(), attempt: 1 };
    assert_eq!(over[2], undo);
}

#[tokio::test]
async fn a_result_and_what_follows_from_it_are_one_append() {
    let agency = Arc::new(Agency::default());
    let world = started(&agency).await;
    begin(&world, "1").await;
    end(&world, "1").await;
    // The start, the first step, two results with the next step, the last result with the end.
    assert_eq!(world.faults.commits().len(), 5);
    assert_eq!(world.sagas.history("trip", "1").await.unwrap().len(), 8);
}

async fn append(world: &World, id: &str, events: &[SagaEvent]) {
    let new = events.iter().map(|event| {
        let encoded = event.encode().unwrap();
        let id = fresh_id();
        NewEvent::new(id, encoded.event_type, encoded.codec, encoded.data, at(1_700_000_000))
    });
    let stream = stream_of("trip", id).unwrap();
    let append = Append::new(stream, ExpectedVersion::NoStream, new.collect());
    world.commit(append).await.unwrap().remove(0).unwrap();
}

#[tokio::test]
async fn a_history_of_before_goes_on_from_every_event_of_it() {
    let agency = Arc::new(Agency::default());
    let world = started(&agency).await;
    let history = old_history();
    for length in 1..=history.len() {
        let id = length.to_string();
        append(&world, &id, &history[..length]).await;
        let state = end(&world, &id).await;
        assert_eq!(state.status, SagaStatus::Completed, "{length}");
        assert!(state.steps.iter().all(|step| step.status == StepStatus::Done), "{length}");
        super::faults::check_history(&world, &id, &format!("of {length}")).await;
        let ran = |step: &&str| !history[..length].contains(&done(step));
        let wanted: Vec<_> = STEPS.iter().copied().filter(|step| ran(step)).collect();
        assert_eq!(std::mem::take(&mut *agency.calls.lock().unwrap()), wanted, "{length}");
    }
}

/// What a list shows after events.
fn listed(events: &[SagaEvent]) -> SagaSummary {
    let mut summary = None;
    for (n, event) in events.iter().enumerate() {
        let encoded = event.encode().unwrap();
        let (id, n) = (fresh_id(), n as u64 + 1);
        let new = NewEvent::new(id, encoded.event_type, encoded.codec, encoded.data, at(1));
        let stream = stream_of("trip", "1").unwrap();
        let event = RecordedEvent::at(Position::new(n), stream, Version::new(n), new);
        if !OpenSagas.ids(&event).is_empty() {
            summary = OpenSagas.apply(&event, "saga-trip-1", summary).unwrap();
        }
    }
    summary.unwrap()
}

/// One that was parked on its way back was shown as running when it was retried.
#[test]
fn a_saga_that_is_retried_on_its_way_back_is_listed_as_compensating() {
    let (step, reason) = ("flight".to_owned(), "no".to_owned());
    let parked = vec![
        beginning(None),
        begun("flight"),
        done("flight"),
        SagaEvent::Compensating { reason: reason.clone() },
        SagaEvent::CompensationStarted { step: step.clone(), attempt: 1 },
        SagaEvent::CompensationFailed { step, attempt: 1, reason, retry_at: None },
        SagaEvent::Parked { reason: "step flight cannot be undone: no".to_owned() },
    ];
    let resumed = SagaEvent::Resumed { by: "ann".to_owned() };
    let back = [parked.clone(), vec![resumed.clone()]].concat();
    assert_eq!(listed(&back).status, SagaStatus::Compensating);
    // Written by a program of before.
    let mut old = serde_json::to_value(listed(&parked)).unwrap();
    old.as_object_mut().unwrap().remove("undoing");
    let old: SagaSummary = serde_json::from_value(old).unwrap();
    assert_eq!((old.status, old.undoing), (SagaStatus::Parked, None));
    let encoded = resumed.encode().unwrap();
    let id = fresh_id();
    let new = NewEvent::new(id, encoded.event_type, encoded.codec, encoded.data, at(1));
    let stream = stream_of("trip", "1").unwrap();
    let event = RecordedEvent::at(Position::new(9), stream, Version::new(9), new);
    let summary = OpenSagas.apply(&event, "saga-trip-1", Some(old)).unwrap().unwrap();
    assert_eq!(summary.status, SagaStatus::Compensating);
    let forth =
        [beginning(None), SagaEvent::Parked { reason: "no definition".to_owned() }, resumed];
    assert_eq!(listed(&forth).status, SagaStatus::Running);
}

#[test]
fn the_list_is_written_only_when_a_status_or_a_time_changes() {
    let written = old_history().into_iter().filter(|event| {
        let encoded = event.encode().unwrap();
        let id = fresh_id();
        let new = NewEvent::new(id, encoded.event_type, encoded.codec, encoded.data, at(1));
        let stream = stream_of("trip", "1").unwrap();
        let event = RecordedEvent::at(Position::new(1), stream, Version::new(1), new);
        !OpenSagas.ids(&event).is_empty()
    });
    assert_eq!(written.count(), 2, "it begins, and it ends");
}
