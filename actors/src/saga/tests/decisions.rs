use super::super::{SagaFilter, StepStatus};
use super::*;
use crate::event::Position;
use crate::store::claims::{Claimed, Save};
use crate::store::follow::LEASE;

#[tokio::test]
async fn what_cannot_be_undone_is_parked_visible_and_resumable() {
    let agency = Arc::new(Agency::default());
    agency.plan("car", &[Answer::Refuse]);
    agency.plan("undo hotel", &[Answer::Busy; 6]);
    let world = started(&agency).await;
    begin(&world, "1").await;
    let state = end(&world, "1").await;
    assert_eq!(state.status, SagaStatus::Parked);
    assert_eq!(state.reason.as_deref(), Some("step hotel cannot be undone: busy"));
    assert_eq!(agency.booked(), keys("1", &["flight", "hotel"]), "what comes before it waits");
    world.settled().await;
    let parked = SagaFilter { status: Some("parked".to_owned()), ..SagaFilter::default() };
    let listed = world.sagas.list(&parked, None, 10).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((&*listed[0].1.id, listed[0].1.open), ("1", true));

    let refused = world.sagas.abort("trip", "1", "ann", "no use").await.unwrap_err();
    assert_eq!(refused.to_string(), "saga trip 1 cannot be aborted: it is Parked");
    world.sagas.retry("trip", "1", "ann").await.unwrap();
    let state = loop {
        let state = end(&world, "1").await;
        if state.status != SagaStatus::Parked {
            break state;
        }
    };
    assert_eq!(state.status, SagaStatus::Compensated);
    assert_eq!(agency.booked(), [] as [&str; 0]);
    let refused = world.sagas.retry("trip", "1", "ann").await.unwrap_err();
    assert_eq!(refused.to_string(), "saga trip 1 cannot be retried: it is Compensated");
}

#[tokio::test]
async fn a_person_turns_a_saga_round_while_a_step_runs() {
    let agency = Arc::new(Agency::default());
    let (reached, mut wait) = tokio::sync::mpsc::unbounded_channel();
    agency.plan("hotel", &[Answer::Hang]);
    *agency.hook.lock().unwrap() = Some(Arc::new(move |_: &str| {
        let _ = reached.send(());
    }));
    let slow = |name| step(&agency, name).timeout(Duration::from_secs(3_600));
    let saga = STEPS.iter().fold(Saga::new("trip"), |saga, name| saga.step(slow(name)));
    let world = World::with(one(saga)).await;
    begin(&world, "1").await;
    // Before the flight, after it, before the hotel.
    for _ in 0..3 {
        wait.recv().await.unwrap();
    }
    world.sagas.abort("trip", "1", "ann", "the customer called").await.unwrap();
    let state = end(&world, "1").await;
    assert_eq!(state.status, SagaStatus::Compensated);
    assert_eq!(state.reason.as_deref(), Some("the customer called (by ann)"));
    assert_eq!(agency.calls(), ["flight", "hotel", "undo hotel", "undo flight"]);
}

#[tokio::test]
async fn a_pause_and_a_deadline_survive_the_node() {
    let agency = Arc::new(Agency::default());
    agency.plan("hotel", &[Answer::Busy]);
    // Longer than the node lives, and shorter than a person waits.
    let long = Backoff::exponential(Duration::from_secs(3_600), Duration::from_secs(3_600));
    let patient = |agency: &Arc<Agency>| {
        let retry = RetryPolicy::attempts(3).backoff(long);
        let saga = Saga::new("trip").deadline(Duration::from_millis(1_500));
        STEPS.iter().fold(saga, |saga, name| saga.step(step(agency, name).retry(retry)))
    };
    let world = World::with(one(patient(&agency))).await;
    begin(&world, "1").await;
    while !agency.calls().contains(&"hotel".to_owned()) {
        tokio::task::yield_now().await;
    }
    let world = world.again(one(patient(&agency))).await;
    let state = end(&world, "1").await;
    assert_eq!(state.status, SagaStatus::Compensated);
    let reason = state.reason.unwrap();
    assert!(reason.contains("deadline") && reason.contains("has passed"), "{reason}");
    assert_eq!(agency.booked(), [] as [&str; 0]);
    let hotel = state.steps.iter().find(|step| step.name == "hotel").unwrap();
    assert_eq!((hotel.attempts, &hotel.status), (1, &StepStatus::Undone));
}

/// Two owners died where the sagas' place is, while their list went on: the next one takes events
/// one at a time, and takes them.
#[tokio::test]
async fn sagas_begin_after_owners_have_died_behind_their_list() {
    let agency = Arc::new(Agency::default());
    let world = started(&agency).await;
    begin(&world, "1").await;
    end(&world, "1").await;
    world.settled().await;
    let claims = world.lease().await.claims;
    let claim = async |owner: &str| match claims.claim("sagas", owner, LEASE).await.unwrap() {
        Claimed::Yes(claim) => claim.fence,
        Claimed::Held(_) => panic!("a file is one node's"),
    };
    let fence = claim("a").await;
    let back = Save { to: Some(Position::ZERO), ..Save::renewal(LEASE) };
    claims.save(&fence, back).await.unwrap();
    claim("b").await;
    claim("c").await;
    let _ = world.system.kill("/sagas/manager");
    begin(&world, "2").await;
    assert_eq!(end(&world, "2").await.status, SagaStatus::Completed);
}

/// The migration that gave read models a file of their own took the list of open sagas with it, so
/// that the manager wakes every saga that ever began. None of them does anything again.
#[tokio::test]
async fn sagas_whose_list_is_gone_are_looked_at_and_do_nothing_again() {
    let agency = Arc::new(Agency::default());
    let hour = Duration::from_secs(3_600);
    let saga = |agency: &Arc<Agency>| {
        let retry = RetryPolicy::attempts(3).backoff(Backoff::exponential(hour, hour));
        STEPS
            .iter()
            .fold(Saga::new("trip"), |saga, name| saga.step(step(agency, name).retry(retry)))
    };
    let world = World::with(one(saga(&agency))).await;
    begin(&world, "done").await;
    assert_eq!(end(&world, "done").await.status, SagaStatus::Completed);
    agency.plan("hotel", &[Answer::Refuse]);
    begin(&world, "undone").await;
    assert_eq!(end(&world, "undone").await.status, SagaStatus::Compensated);
    agency.plan("car", &[Answer::Busy]);
    begin(&world, "waits").await;
    let waits = |state: &SagaState| {
        state.steps.iter().any(|step| matches!(step.status, StepStatus::Waiting(_)))
    };
    while !waits(&world.sagas.state("trip", "waits").await.unwrap()) {
        tokio::task::yield_now().await;
    }
    let (calls, booked) = (agency.calls(), agency.booked());
    let head = world.lease().await.store.head().await.unwrap();

    let world = world.again_from_the_log(one(saga(&agency))).await;
    // It is taken after all that are before it in the log.
    begin(&world, "next").await;
    assert_eq!(end(&world, "next").await.status, SagaStatus::Completed);
    world.settled().await;
    let running = world.system.supervisor("/sagas/running").unwrap();
    while running.count() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(agency.calls()[..calls.len()], calls);
    assert_eq!(agency.calls()[calls.len()..], STEPS);
    assert!(booked.iter().all(|key| agency.booked().contains(key)));
    let log = world.lease().await.store.read_all(head, 100).await.unwrap();
    assert!(log.iter().all(|event| event.stream.as_str() == "saga-trip-next"), "{log:?}");
    assert!(waits(&world.sagas.state("trip", "waits").await.unwrap()));
}

#[tokio::test]
async fn a_saga_that_waits_long_has_no_actor_and_is_woken_by_a_person() {
    let agency = Arc::new(Agency::default());
    agency.plan("flight", &[Answer::Busy]);
    let hour = Duration::from_secs(3_600);
    let retry = RetryPolicy::attempts(3).backoff(Backoff::exponential(hour * 100, hour * 100));
    let saga = Saga::new("trip").step(step(&agency, "flight").retry(retry));
    let world = World::with(one(saga)).await;
    begin(&world, "1").await;
    let running = world.system.supervisor("/sagas/running").unwrap();
    let mut tries = 0;
    while !world
        .sagas
        .state("trip", "1")
        .await
        .unwrap()
        .steps
        .iter()
        .any(|step| matches!(step.status, StepStatus::Waiting(_)))
        || running.count() > 0
    {
        tries += 1;
        assert!(tries < 100_000, "{}", world.system.tree());
        tokio::task::yield_now().await;
    }
    world.sagas.retry("trip", "1", "ann").await.unwrap();
    assert_eq!(end(&world, "1").await.status, SagaStatus::Completed);
    assert_eq!(agency.calls(), ["flight", "flight"]);
}

#[tokio::test]
async fn a_saga_goes_on_with_the_definition_that_it_was_begun_with() {
    let agency = Arc::new(Agency::default());
    agency.plan("hotel", &[Answer::Busy]);
    let hour = Duration::from_secs(3_600);
    let retry = RetryPolicy::attempts(3).backoff(Backoff::exponential(hour, hour));
    let old = || {
        STEPS
            .iter()
            .fold(Saga::new("trip"), |saga, name| saga.step(step(&agency, name).retry(retry)))
    };
    let new = || Saga::new("trip").version(2).step(step(&agency, "train"));
    let world = World::with(one(old())).await;
    begin(&world, "1").await;
    while !agency.calls().contains(&"hotel".to_owned()) {
        tokio::task::yield_now().await;
    }
    // The new program forgot the old definition.
    let world = world.again(one(new())).await;
    let state = loop {
        let _ = world.sagas.retry("trip", "1", "ann").await;
        let state = end(&world, "1").await;
        if state.status == SagaStatus::Parked {
            break state;
        }
    };
    assert_eq!(
        state.reason.as_deref(),
        Some("this program has no saga trip of version 1; register it, then retry")
    );
    let world = world.again([one(old()), one(new())].concat()).await;
    world.sagas.retry("trip", "1", "ann").await.unwrap();
    let state = loop {
        let state = end(&world, "1").await;
        if state.status != SagaStatus::Parked {
            break state;
        }
    };
    assert_eq!(state.status, SagaStatus::Completed);
    begin(&world, "2").await;
    assert_eq!(end(&world, "2").await.steps[0].name, "train", "new ones get the new steps");
}
