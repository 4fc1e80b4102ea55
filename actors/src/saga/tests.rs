//! Sagas in a node on SQLite: participants that remember, faults at every point, a person who
//! decides.

mod decisions;
mod faults;
mod histories;
mod laws;
mod owners;
mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mister_smith_supervisors::Backoff;
use serde::{Deserialize, Serialize};

use super::{Definition, Saga, SagaState, SagaStatus, Step, StepContext, StepError};
use crate::bus::RetryPolicy;
use crate::event::EventId;
use crate::tests::world::World;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Trip {
    city: String,
    booked: Vec<String>,
}

fn trip() -> Trip {
    Trip { city: "Rome".to_owned(), booked: Vec::new() }
}

type Hook = Arc<dyn Fn(&str) + Send + Sync>;

/// A service that has an effect once a key, as the steps demand of it.
#[derive(Default)]
struct Agency {
    /// What is done and not undone, by key.
    booked: Mutex<BTreeMap<String, u32>>,
    /// Every call, in order.
    calls: Mutex<Vec<String>>,
    /// What was refused, by key: it is refused again, however often it is asked for.
    refused: Mutex<BTreeSet<String>>,
    /// What to answer to the next calls of a step, its own keys apart.
    plan: Mutex<BTreeMap<String, Vec<Answer>>>,
    /// Called before the effect of each call, and after it.
    hook: Mutex<Option<Hook>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Answer {
    /// It has its effect.
    Yes,
    /// It was refused.
    Refuse,
    /// It did not work now, without an effect.
    Busy,
    /// It had its effect, and the answer is lost.
    Lost,
    /// It had its effect, and then the caller panicked.
    Panic,
    /// It has no effect, and no answer comes.
    Hang,
}

impl Agency {
    fn plan(&self, step: &str, answers: &[Answer]) {
        self.plan.lock().unwrap().insert(step.to_owned(), answers.to_vec());
    }

    fn call(&self, point: &str) {
        let hook = self.hook.lock().unwrap().clone();
        if let Some(hook) = hook {
            hook(point);
        }
    }

    async fn ask(&self, step: &str, key: &str, undo: bool) -> Result<(), StepError> {
        self.calls.lock().unwrap().push(step.to_owned());
        self.call("before");
        // A kill that came with the call takes the caller here.
        tokio::task::yield_now().await;
        let answer = if self.refused.lock().unwrap().contains(key) {
            Answer::Refuse
        } else {
            let mut plan = self.plan.lock().unwrap();
            match plan.get_mut(step) {
                Some(answers) if !answers.is_empty() => answers.remove(0),
                _ => Answer::Yes,
            }
        };
        match answer {
            Answer::Refuse => {
                // An undo that was refused is tried again.
                if !undo {
                    self.refused.lock().unwrap().insert(key.to_owned());
                }
                return Err(StepError::refused("no"));
            }
            Answer::Busy => return Err(StepError::retry("busy")),
            Answer::Hang => std::future::pending().await,
            Answer::Yes | Answer::Lost | Answer::Panic => {}
        }
        {
            let mut booked = self.booked.lock().unwrap();
            match undo {
                false => drop(booked.entry(key.to_owned()).or_insert(1)),
                true => drop(booked.remove(key.trim_end_matches("/undo"))),
            }
        }
        self.call("after");
        tokio::task::yield_now().await;
        match answer {
            Answer::Lost => Err(StepError::retry("the answer is lost")),
            Answer::Panic => panic!("a fault in the application"),
            _ => Ok(()),
        }
    }

    fn booked(&self) -> Vec<String> {
        self.booked.lock().unwrap().keys().cloned().collect()
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

/// An id that no other event has.
fn fresh_id() -> EventId {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let number = u128::from(LAST.fetch_add(1, Ordering::Relaxed));
    EventId::new(uuid::Uuid::from_u128((0xfe << 120) | number))
}

const STEPS: [&str; 3] = ["flight", "hotel", "car"];

fn quick() -> Backoff {
    Backoff::exponential(Duration::from_millis(2), Duration::from_millis(10))
}

fn step(agency: &Arc<Agency>, name: &'static str) -> Step<Trip> {
    let (run, undo) = (Arc::clone(agency), Arc::clone(agency));
    Step::new(name, move |cx: StepContext<Trip>| {
        let agency = Arc::clone(&run);
        async move {
            agency.ask(name, &cx.key, false).await?;
            let mut trip = cx.data;
            trip.booked.push(name.to_owned());
            Ok(trip)
        }
    })
    .undo(move |cx: StepContext<Trip>| {
        let agency = Arc::clone(&undo);
        async move { agency.ask(&format!("undo {name}"), &cx.key, true).await }
    })
    .timeout(Duration::from_millis(300))
    .retry(RetryPolicy::attempts(4).backoff(quick()))
    .undo_retry(RetryPolicy::attempts(6).backoff(quick()))
}

fn saga(agency: &Arc<Agency>) -> Saga<Trip> {
    STEPS.iter().fold(Saga::new("trip"), |saga, name| saga.step(step(agency, name)))
}

fn one(saga: Saga<Trip>) -> Vec<Arc<dyn Definition>> {
    vec![Arc::new(saga)]
}

async fn started(agency: &Arc<Agency>) -> World {
    World::with(one(saga(agency))).await
}

async fn begin(world: &World, id: &str) {
    loop {
        // Whoever begins it repeats until it is told that it is begun.
        match world.sagas.start("trip", id, &trip(), Default::default()).await {
            Ok(_) => return,
            Err(super::SagaError::Commit(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn end(world: &World, id: &str) -> SagaState {
    let waiting = async {
        loop {
            match world.sagas.wait("trip", id).await {
                Ok(state) => return state,
                // The pool was being restarted.
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("it comes to an end")
}

fn keys(id: &str, steps: &[&str]) -> Vec<String> {
    let mut keys: Vec<_> = steps.iter().map(|step| format!("saga/trip/{id}/{step}")).collect();
    keys.sort();
    keys
}

#[tokio::test]
async fn all_steps_are_done_in_their_order_and_hand_on_their_data() {
    let agency = Arc::new(Agency::default());
    let world = started(&agency).await;
    let begun = world.sagas.start("trip", "1", &trip(), Default::default()).await.unwrap();
    assert!(!begun.duplicate);
    let state = end(&world, "1").await;
    assert_eq!(state.status, SagaStatus::Completed);
    assert_eq!(agency.calls(), STEPS);
    assert_eq!(agency.booked(), keys("1", &STEPS));
    let trip: Trip = serde_json::from_value(state.data).unwrap();
    assert_eq!(trip.booked, STEPS);
    let again = world.sagas.start("trip", "1", &trip, Default::default()).await.unwrap();
    assert!(again.duplicate, "the same saga again begins nothing");
    assert_eq!(again.position, begun.position);
}

#[tokio::test]
async fn a_refusal_undoes_what_was_done_last_first() {
    let agency = Arc::new(Agency::default());
    agency.plan("car", &[Answer::Refuse]);
    let world = started(&agency).await;
    begin(&world, "1").await;
    let state = end(&world, "1").await;
    assert_eq!(state.status, SagaStatus::Compensated);
    assert_eq!(state.reason.as_deref(), Some("step car: no"));
    assert_eq!(agency.calls(), ["flight", "hotel", "car", "undo hotel", "undo flight"]);
    assert_eq!(agency.booked(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_step_that_may_have_worked_is_tried_again_and_undone_with_the_rest() {
    let agency = Arc::new(Agency::default());
    agency.plan("hotel", &[Answer::Lost, Answer::Busy, Answer::Hang, Answer::Panic]);
    let world = started(&agency).await;
    begin(&world, "1").await;
    let state = end(&world, "1").await;
    assert_eq!(state.status, SagaStatus::Compensated);
    assert_eq!(
        agency.calls(),
        ["flight", "hotel", "hotel", "hotel", "hotel", "undo hotel", "undo flight"]
    );
    assert_eq!(agency.booked(), [] as [&str; 0]);
    let reason = state.reason.unwrap();
    assert!(reason.contains("it panicked: a fault in the application"), "{reason}");
}

#[tokio::test]
async fn what_happened_can_be_read_and_belongs_to_one_conversation() {
    let agency = Arc::new(Agency::default());
    agency.plan("hotel", &[Answer::Busy]);
    let world = started(&agency).await;
    begin(&world, "1").await;
    end(&world, "1").await;
    let history = world.sagas.history("trip", "1").await.unwrap();
    let types: Vec<_> = history.iter().map(|(event, _)| &*event.event_type).collect();
    assert_eq!(
        types,
        [
            "saga.started",
            "saga.step_started",
            "saga.step_completed",
            "saga.step_started",
            "saga.step_failed",
            "saga.step_started",
            "saga.step_completed",
            "saga.step_started",
            "saga.step_completed",
            "saga.completed",
        ]
    );
    let conversation = Some(*history[0].0.id.as_uuid());
    for pair in history.windows(2) {
        let meta = crate::event::Metadata::from_bytes(&pair[1].0.meta);
        assert_eq!(meta.correlation_id, conversation);
        assert_eq!(meta.causation_id, Some(*pair[0].0.id.as_uuid()));
    }
}

#[tokio::test]
async fn what_cannot_be_a_saga_is_refused_with_its_reason() {
    let agency = Arc::new(Agency::default());
    let world = started(&agency).await;
    let start = async |name: &str, id: &str, data: serde_json::Value| {
        world.sagas.start(name, id, &data, Default::default()).await.unwrap_err().to_string()
    };
    let data = serde_json::json!({ "city": "Rome", "booked": [] });
    let all = [
        start("journey", "1", data.clone()).await,
        start("trip", "", data).await,
        start("trip", "1", serde_json::json!({ "city": 7 })).await,
        world.sagas.state("trip", "2").await.unwrap_err().to_string(),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    there is no saga journey; this node has trip
    the saga's id is no name: a stream needs a name; the text is empty
    saga trip does not work on that: invalid type: integer `7`, expected a string
    there is no saga trip 2; see `smith sagas list`
    "#);
    let twice = super::Definitions::new([one(saga(&agency)), one(saga(&agency))].concat());
    assert_eq!(
        twice.unwrap_err().to_string(),
        "there are two sagas trip of version 1; raise the version of one"
    );
}
