//! More sagas than there is room for, and sagas that cannot go on: nobody else waits for them.

use std::sync::atomic::AtomicUsize;

use tokio::sync::Semaphore;

use super::*;
use crate::event::{ContentType, NewEvent, Timestamp};
use crate::saga::{SagaEvent, StepStatus, stream_of};
use crate::store::{Append, ExpectedVersion};

/// A saga whose step waits for a permit; counts those that have begun.
fn gated(gate: &Arc<Semaphore>, begun: &Arc<AtomicUsize>) -> Saga<Trip> {
    let (gate, begun) = (Arc::clone(gate), Arc::clone(begun));
    Saga::new("trip").step(Step::new("gate", move |cx: StepContext<Trip>| {
        let (gate, begun) = (Arc::clone(&gate), Arc::clone(&begun));
        async move {
            begun.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            Ok(cx.data)
        }
    }))
}

async fn until(what: impl Fn() -> bool) {
    for _ in 0..2_000_000 {
        if what() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it did not come");
}

fn life_of_the_manager(world: &World) -> u64 {
    world.system.find::<crate::saga::manager::ManagerMessage>("/sagas/manager").unwrap().life()
}

/// The manager failed when there were more sagas than places, and took all of them with it, again
/// and again.
#[tokio::test]
async fn sagas_wait_their_turn_when_there_is_no_room() {
    let (gate, begun) = (Arc::new(Semaphore::new(0)), Arc::<AtomicUsize>::default());
    let world = World::small(one(gated(&gate, &begun)), 3).await;
    for n in 0..12 {
        begin(&world, &n.to_string()).await;
    }
    until(|| begun.load(Ordering::SeqCst) == 3).await;
    // A person is heard while all places are taken.
    world.sagas.abort("trip", "0", "ann", "enough").await.unwrap();
    assert_eq!(end(&world, "0").await.status, SagaStatus::Compensated);
    gate.add_permits(20);
    for n in 1..12 {
        assert_eq!(end(&world, &n.to_string()).await.status, SagaStatus::Completed);
    }
    assert_eq!(life_of_the_manager(&world), 1);
    assert!(begun.load(Ordering::SeqCst) <= 12, "none began twice");
}

/// Each page of the open ones is begun, whatever the number of places.
#[tokio::test]
async fn those_that_are_open_at_the_start_are_found_page_by_page_and_wait_their_turn() {
    const COUNT: usize = 1_100;
    let (gate, begun) = (Arc::new(Semaphore::new(0)), Arc::<AtomicUsize>::default());
    let world = World::small(one(gated(&gate, &begun)), 200).await;
    let all =
        (0..COUNT).map(|n| {
            let sagas = world.sagas.clone();
            async move {
                sagas.start("trip", &n.to_string(), &trip(), Default::default()).await.unwrap()
            }
        });
    futures_util::future::join_all(all).await;
    world.settled().await;
    let world = world.again(one(gated(&gate, &begun))).await;
    gate.add_permits(COUNT * 2);
    for n in 0..COUNT {
        assert_eq!(end(&world, &n.to_string()).await.status, SagaStatus::Completed);
    }
    assert_eq!(life_of_the_manager(&world), 1);
}

/// A saga with an event of a newer program failed its actor, and in the end all sagas of the node.
#[tokio::test]
async fn one_that_cannot_be_read_holds_up_nobody() {
    let agency = Arc::new(Agency::default());
    let world = started(&agency).await;
    let at = Timestamp::from_micros(1_700_000_000_000_000);
    let started = crate::event::Event::encode(&SagaEvent::Started {
        name: "trip".to_owned(),
        version: 1,
        data: serde_json::to_value(trip()).unwrap(),
        deadline: None,
    });
    let started = started.unwrap();
    let id = fresh_id;
    let new = vec![
        NewEvent::new(id(), started.event_type, started.codec, started.data, at),
        NewEvent::new(id(), "saga.of_tomorrow", ContentType::Json, "{}", at),
    ];
    let stream = stream_of("trip", "odd").unwrap();
    let append = Append::new(stream.clone(), ExpectedVersion::NoStream, new);
    world.commit(append).await.unwrap().remove(0).unwrap();
    for n in 0..5 {
        begin(&world, &n.to_string()).await;
        assert_eq!(end(&world, &n.to_string()).await.status, SagaStatus::Completed);
    }
    let manager = world.system.tree().to_string();
    until(|| world.system.tree().to_string().contains("1 asleep")).await;
    assert_eq!(life_of_the_manager(&world), 1, "{manager}");
    let store = world.lease().await.store;
    let odd = store.read_stream(&stream, Default::default(), 10).await.unwrap();
    assert_eq!(odd.len(), 2, "nothing was done to it");
}

/// What a step answered was refused by the log for ever, and its actor began again for ever.
#[tokio::test]
async fn an_answer_that_cannot_be_kept_is_a_try_that_did_not_work() {
    let agency = Arc::new(Agency::default());
    let huge = Step::new("huge", |cx: StepContext<Trip>| async move {
        Ok(Trip { city: "x".repeat(17 << 20), ..cx.data })
    });
    let policy = RetryPolicy::attempts(2).backoff(quick());
    let saga = Saga::new("trip").step(step(&agency, "flight")).step(huge.retry(policy));
    let world = World::with(one(saga)).await;
    begin(&world, "1").await;
    let state = end(&world, "1").await;
    assert_eq!(state.status, SagaStatus::Compensated);
    assert!(state.reason.as_ref().unwrap().contains("at most"), "{:?}", state.reason);
    assert_eq!(state.steps[1].attempts, 2);
    assert_eq!(agency.booked(), [] as [&str; 0]);
}

/// A reason with a NUL is one that PostgreSQL's documents do not take.
#[tokio::test]
async fn a_reason_is_kept_as_every_store_takes_it() {
    let step = Step::new("bad", |_: StepContext<Trip>| async {
        Err(StepError::refused(format!("a\0b{}", "c".repeat(5_000))))
    });
    let world = World::with(one(Saga::new("trip").step(step))).await;
    begin(&world, "1").await;
    let reason = end(&world, "1").await.reason.unwrap();
    assert!(reason.starts_with("step bad: a\u{fffd}bc") && reason.len() < 2_100, "{reason}");
}

/// A step that ends its process was tried again for ever.
#[tokio::test]
async fn a_step_that_kills_whoever_runs_it_ends_by_its_policy() {
    let agency = Arc::new(Agency::default());
    let world = started(&agency).await;
    let system = world.system.clone();
    let watched = Arc::downgrade(&agency);
    *agency.hook.lock().unwrap() = Some(Arc::new(move |point: &str| {
        let last = watched.upgrade().unwrap().calls().last().cloned();
        if point == "before" && last.as_deref() == Some("car") {
            let _ = system.kill("/sagas/running/saga-trip-1");
        }
    }));
    begin(&world, "1").await;
    let state = end(&world, "1").await;
    assert_eq!(state.status, SagaStatus::Compensated);
    let tries = agency.calls().iter().filter(|call| *call == "car").count();
    assert_eq!(tries, 4, "as often as the policy says");
    let reason = "step car: the saga was interrupted while it ran";
    assert_eq!(state.reason.as_deref(), Some(reason));
    assert_eq!(agency.booked(), [] as [&str; 0]);
}

/// The same on the way back: a person is asked.
#[tokio::test]
async fn an_undo_that_kills_whoever_runs_it_is_parked() {
    let agency = Arc::new(Agency::default());
    agency.plan("car", &[Answer::Refuse]);
    let world = started(&agency).await;
    let (system, watched) = (world.system.clone(), Arc::downgrade(&agency));
    *agency.hook.lock().unwrap() = Some(Arc::new(move |point: &str| {
        let last = watched.upgrade().unwrap().calls().last().cloned();
        if point == "before" && last.as_deref() == Some("undo hotel") {
            let _ = system.kill("/sagas/running/saga-trip-1");
        }
    }));
    begin(&world, "1").await;
    let state = end(&world, "1").await;
    assert_eq!(state.status, SagaStatus::Parked);
    let hotel = &state.steps[1];
    assert_eq!((hotel.undo_attempts, &hotel.status), (6, &StepStatus::UndoFailed));
}

/// `wait` read the whole history again at every commit of the log.
#[tokio::test]
async fn waiting_reads_a_saga_once_and_again_when_it_has_ended() {
    let (gate, begun) = (Arc::new(Semaphore::new(0)), Arc::<AtomicUsize>::default());
    let world = World::with(one(gated(&gate, &begun))).await;
    begin(&world, "1").await;
    until(|| begun.load(Ordering::SeqCst) == 1).await;
    let waiting = tokio::spawn({
        let sagas = world.sagas.clone();
        async move { sagas.wait("trip", "1").await }
    });
    let reads = || world.faults.stream_reads.load(Ordering::SeqCst);
    let before = reads();
    until(|| reads() == before + 1).await;
    for n in 0..30 {
        let id = fresh_id();
        let new = NewEvent::new(id, "noise", ContentType::Json, "{}", Timestamp::from_micros(n));
        let stream = crate::event::StreamId::new("noise-1").unwrap();
        let append = Append::new(stream, ExpectedVersion::Any, vec![new]);
        world.commit(append).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(reads(), before + 1);
    gate.add_permits(1);
    assert_eq!(waiting.await.unwrap().unwrap().status, SagaStatus::Completed);
    assert_eq!(reads(), before + 2);
}
