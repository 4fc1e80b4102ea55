//! A kill reaches a life between two messages, and nobody waits for a busy actor.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mister_smith_supervisors::*;

use crate::kit::*;
use crate::workers::*;

fn of_life_1(log: &Log) -> usize {
    log.notes("a").into_iter().filter(|life| *life == 1).count()
}

/// A life looked for a kill only when it went idle: up to 255 more messages were handled by a life
/// that was killed, as long as their handlers did not wait.
#[test]
fn a_killed_life_handles_no_further_message() {
    real(2, async {
        let (log, gate) = (Log::default(), Gate::default());
        let system = start(root().child(worker("a", &log))).await;
        let a = to(&system, "/a");
        a.try_tell(blocks("a", &log, &gate)).unwrap();
        for _ in 0..100 {
            a.try_tell(noted("a", &log)).unwrap();
        }
        let (message, handled) = last();
        a.try_tell(message).unwrap();
        gate.reached().await;
        assert_eq!(system.kill("/a").unwrap(), Some(1));
        gate.open();
        soon("the last message", handled).await;
        assert!(of_life_1(&log) <= 2, "{} handled by life 1", of_life_1(&log));
        assert!(log.notes("a").len() >= 100, "the next life handles what waited");
    });
}

/// Control: a handler that waits is dropped at its `await`, and life 1 handles nothing more.
#[tokio::test(start_paused = true)]
async fn a_killed_life_that_waits_handles_no_further_message() {
    let log = Log::default();
    let system = start(root().child(puppet("a", &log))).await;
    let a = at(&system, "/a");
    a.try_tell(Do::Sleep(secs(1), 0)).unwrap();
    for n in 1..100 {
        a.try_tell(Do::Note(n)).unwrap();
    }
    settle().await;
    system.kill("/a").unwrap();
    settle().await;
    assert_eq!((log.notes("a"), a.life()), ((1..100).collect(), 2));
}

/// The same with a child that is killed to be stopped: its life handled all that waited for two
/// seconds, and the slot was called stuck meanwhile.
#[test]
fn a_brutal_kill_reaches_a_life_between_two_messages() {
    real(2, async {
        let (log, gate) = (Log::default(), Gate::default());
        let child = worker("a", &log).shutdown(Shutdown::BrutalKill);
        let Heard { system, events, .. } = heard(root().child(child)).await;
        let a = to(&system, "/a");
        a.try_tell(blocks("a", &log, &gate)).unwrap();
        for _ in 0..100 {
            let log = log.clone();
            let slow = call(move |cx| {
                std::thread::sleep(ms(20));
                log.note(format!("a {}", cx.life()));
            });
            a.try_tell(slow).unwrap();
        }
        gate.reached().await;
        let stopping = {
            let system = system.clone();
            tokio::spawn(async move { system.stop("/a").await })
        };
        until("a is being stopped", || a.state() != SlotState::Up).await;
        gate.open();
        soon("the stop", stopping).await.unwrap().unwrap();
        assert_eq!(a.state(), SlotState::Down);
        assert!(of_life_1(&log) <= 2, "{} handled by life 1", of_life_1(&log));
        system.shutdown(secs(10)).await;
        assert!(!events.all().iter().any(|event| event.contains("stuck")), "{:?}", events.all());
    });
}

/// A life that was given up as stuck went on once it let go: it handled what waited for the next
/// one, because numbering the next life took back its order to stop.
#[test]
fn a_life_that_was_given_up_handles_no_further_message() {
    real(2, async {
        let (log, gate) = (Log::default(), Gate::default());
        let child = worker("a", &log).shutdown(Shutdown::After(ms(50)));
        let Heard { system, events, .. } = heard(root().child(child)).await;
        let a = to(&system, "/a");
        a.try_tell(blocks("a", &log, &gate)).unwrap();
        for _ in 0..100 {
            a.try_tell(noted("a", &log)).unwrap();
        }
        let (message, handled) = last();
        a.try_tell(message).unwrap();
        gate.reached().await;
        let restarting = {
            let system = system.clone();
            tokio::spawn(async move { system.restart("/a").await })
        };
        until("a is stuck", || events.all().iter().any(|event| event == "/a#1 stuck")).await;
        gate.open();
        soon("the last message", handled).await;
        assert_eq!(of_life_1(&log), 1, "only the message that it held");
        assert_eq!(log.notes("a").len(), 101);
        let _ = soon("the restart", restarting).await;
    });
}

/// The worst delay of a 1 ms sleep beside an actor that handles 10,000 messages of 100 µs, each told
/// by the one before.
fn worst_delay(yields: bool) -> Duration {
    let mut worst = Duration::ZERO;
    real(0, async {
        let (log, left) = (Log::default(), Arc::new(AtomicU64::new(10_000)));
        let system = start(root().child(worker("a", &log))).await;
        let (done, mut over) = tokio::sync::oneshot::channel();
        to(&system, "/a").try_tell(spin(left, done, yields)).unwrap();
        while over.try_recv().is_err() {
            let began = Instant::now();
            tokio::time::sleep(ms(1)).await;
            worst = worst.max(began.elapsed());
        }
    });
    worst
}

fn spin(left: Arc<AtomicU64>, done: tokio::sync::oneshot::Sender<()>, yields: bool) -> Job {
    job(move |cx| {
        Box::pin(async move {
            let began = Instant::now();
            while began.elapsed() < Duration::from_micros(100) {
                std::hint::spin_loop();
            }
            if yields {
                tokio::task::yield_now().await;
            }
            if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                let _ = done.send(());
            } else {
                cx.address().try_tell(spin(left, done, yields)).unwrap();
            }
            Ok(())
        })
    })
}

/// A busy actor kept its worker for 32,768 messages: a 1 ms sleep on the same thread was late by 3.3
/// seconds when each took 100 µs.
#[test]
fn a_busy_actor_lets_others_have_their_turn() {
    let worst = worst_delay(false);
    assert!(worst < ms(500), "a sleep of 1 ms took {worst:?}");
}

/// Control: the same with a handler that yields.
#[test]
fn a_busy_actor_that_yields_lets_others_have_their_turn() {
    let worst = worst_delay(true);
    assert!(worst < ms(500), "a sleep of 1 ms took {worst:?}");
}

/// A killed supervisor lets its children go while its next life brings them up again; a late entry
/// of the old life must not show a child of the new one as down.
#[test]
fn all_are_up_after_a_supervisor_was_killed_many_times() {
    real(2, async {
        let log = Log::default();
        let ids = ["a", "b", "c", "d"];
        let s = ids.iter().fold(SupervisorSpec::new("s"), |s, id| s.child(puppet(id, &log)));
        let patient = SupervisorSpec::new("root").intensity(u32::MAX, secs(1));
        let system = start(patient.child(s)).await;
        for n in 1..=500 {
            until("s is up", || {
                let tree = system.look("/s", Depth::FOLDED).unwrap().root;
                tree.state == SlotState::Up
                    && tree.life == n
                    && tree.children.iter().all(|child| child.state == SlotState::Up)
            })
            .await;
            assert_eq!(system.kill("/s").unwrap(), Some(n));
        }
    });
}
