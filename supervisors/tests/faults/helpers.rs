//! What needs names that the kernel does not have yet. To be listed in `main.rs` with them.

use std::sync::{Arc, Mutex};

use mister_smith_supervisors::*;

use crate::kit::*;
use crate::workers::*;

/// A task of a life panicked, and nobody heard of it: the actor was up and deaf.
#[tokio::test(start_paused = true)]
async fn a_panic_of_a_task_fails_its_life() {
    let log = Log::default();
    let Heard { system, events, .. } = heard(root().child(worker("a", &log))).await;
    let helped = call(|cx| {
        cx.spawn(async {
            tokio::time::sleep(ms(10)).await;
            panic!("a task panics")
        });
    });
    to(&system, "/a").try_tell(helped).unwrap();
    tokio::time::sleep(secs(1)).await;
    assert_eq!(seen(&system, "/a"), (SlotState::Up, 2));
    let last = system.tree().find("/a").unwrap().last_failure.clone().expect("a failure");
    assert!(last.reason.to_string().contains("a task panics"), "{}", last.reason);
    assert!(events.all().contains(&"/a#1 failed".to_owned()), "{:?}", events.all());
}

/// The same while the actor starts: the start has failed, or the life fails as soon as it is up.
#[tokio::test(start_paused = true)]
async fn a_panic_of_a_task_of_a_start_fails_its_life() {
    let log = Log::default();
    let a = plan("a", &log).on_start(|cx| {
        if cx.life() == 1 {
            cx.spawn(async { panic!("a task panics") });
        }
        Box::pin(async {
            tokio::time::sleep(ms(100)).await;
            Ok(())
        })
    });
    let system = start(root().child(SupervisorSpec::new("s").child(worker("b", &log)))).await;
    let _ = system.supervisor("/s").unwrap().start_child(a.spec()).await;
    tokio::time::sleep(secs(1)).await;
    assert_eq!(seen(&system, "/s/b"), (SlotState::Up, 1));
    let panicked = system.timeline().since(0, usize::MAX).events.into_iter().any(|event| {
        let (LifecycleKind::Failed { reason } | LifecycleKind::StartFailed { reason }) =
            &event.kind
        else {
            return false;
        };
        reason.to_string().contains("a task panics")
    });
    assert!(panicked, "somebody hears of it");
}

/// A task outlived the life that had started it.
#[tokio::test(start_paused = true)]
async fn a_task_ends_with_its_life() {
    for how in ["failed", "killed", "stopped"] {
        let log = Log::default();
        let ticks = Arc::new(Mutex::new(0));
        let system = start(root().child(worker("a", &log))).await;
        let count = Arc::clone(&ticks);
        let helped = call(move |cx| {
            cx.spawn(async move {
                loop {
                    *count.lock().unwrap() += 1;
                    tokio::time::sleep(secs(1)).await;
                }
            });
        });
        to(&system, "/a").try_tell(helped).unwrap();
        tokio::time::sleep(secs(5)).await;
        assert!(*ticks.lock().unwrap() >= 5, "it runs beside the messages");
        match how {
            "failed" => to(&system, "/a").try_tell(failure()).unwrap(),
            "killed" => assert_eq!(system.kill("/a").unwrap(), Some(1)),
            _ => system.stop("/a").await.unwrap(),
        }
        settle().await;
        let then = *ticks.lock().unwrap();
        tokio::time::sleep(secs(60)).await;
        assert_eq!(*ticks.lock().unwrap(), then, "{how}");
    }
}

/// The message of a timer that found no room vanished; now it names why it is a dead letter.
#[tokio::test(start_paused = true)]
async fn a_timer_that_finds_no_room_is_undeliverable() {
    let log = Log::default();
    let causes = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&causes);
    let system = ActorSystem::builder(root().child(worker("a", &log).mailbox(1, Overflow::Fail)))
        .dead_letters(move |letter: DeadLetter| {
            written.lock().unwrap().push((letter.cause, letter.message.is_some()));
        })
        .start()
        .await
        .unwrap();
    let a = to(&system, "/a");
    a.try_tell(job(|cx| {
        let timer = cx.tell_after(secs(1), call(|_| {}));
        Box::pin(async move {
            tokio::time::sleep(secs(10)).await;
            drop(timer);
            Ok(())
        })
    }))
    .unwrap();
    settle().await;
    a.try_tell(call(|_| {})).unwrap();
    tokio::time::sleep(secs(60)).await;
    let causes = causes.lock().unwrap();
    assert!(
        matches!(causes[..], [(DeadLetterCause::Undeliverable { full: true }, true)]),
        "{causes:?}"
    );
}

/// A timer that rang when its actor had stopped for good told nobody.
#[tokio::test(start_paused = true)]
async fn a_timer_whose_actor_has_stopped_is_undeliverable() {
    let log = Log::default();
    let kept = Arc::new(Mutex::new(None));
    let causes = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&causes);
    let system = ActorSystem::builder(root().child(worker("a", &log)))
        .dead_letters(move |letter: DeadLetter| written.lock().unwrap().push(letter.cause))
        .start()
        .await
        .unwrap();
    let keep = Arc::clone(&kept);
    let arm = call(move |cx| *keep.lock().unwrap() = Some(cx.tell_after(secs(1), call(|_| {}))));
    to(&system, "/a").try_tell(arm).unwrap();
    settle().await;
    system.stop("/a").await.unwrap();
    tokio::time::sleep(secs(10)).await;
    let causes = causes.lock().unwrap();
    assert!(
        causes.iter().all(|cause| matches!(cause, DeadLetterCause::Undeliverable { .. })),
        "its guard outlived the life: cancelled, or a dead letter: {causes:?}"
    );
}

/// The buckets of handling times, as numbers.
#[tokio::test(start_paused = true)]
async fn quantiles_hold_beyond_32_bits() {
    let latency = {
        let mut latency = [0u64; 12];
        latency[2] = u64::from(u32::MAX) * 3;
        latency[5] = 10;
        latency
    };
    let handled = latency.iter().sum();
    let view = HandlingView { handled, busy: secs(1), longest: ms(1), latency };
    let bound = std::time::Duration::from_nanos(LATENCY_BUCKETS_NS[2]);
    assert_eq!(view.quantile(0.99), Some(bound));
}
