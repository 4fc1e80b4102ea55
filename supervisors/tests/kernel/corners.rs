//! The corners of what an actor can do: where two features meet, and where they end.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use mister_smith_supervisors::*;

use crate::kit::*;
use crate::workers::*;

/// A message that notes `what`.
fn note(what: impl Into<String>, log: &Log) -> Job {
    let (what, log) = (what.into(), log.clone());
    call(move |_| log.note(what))
}

/// What a life is asked beside its mailbox is not a message: checks of its health kept it from ever
/// hearing of the silence.
#[tokio::test(start_paused = true)]
async fn silence_is_told_to_an_actor_that_is_looked_at() {
    let log = Log::default();
    let system = start(root().child(worker("a", &log))).await;
    let a = to(&system, "/a");
    let said = log.clone();
    a.try_tell(call(move |cx| {
        cx.set_receive_timeout(Some(secs(10)), move || note("silence", &said));
    }))
    .unwrap();
    for _ in 0..4 {
        tokio::time::sleep(secs(3)).await;
        a.inspect(secs(1)).await.unwrap();
    }
    settle().await;
    assert_eq!(log.take(), ["start a", "silence"]);
}

/// One that came while there was no life lay there until another one came.
#[tokio::test(start_paused = true)]
async fn an_urgent_message_waits_for_a_life() {
    let log = Log::default();
    let slow = Backoff::exponential(secs(5), secs(5));
    let a = worker("a", &log).backoff(slow).give_up_after(9);
    let system = start(root().child(a)).await;
    let a = to(&system, "/a");
    a.try_tell(failure()).unwrap();
    settle().await;
    a.try_tell(note("later", &log)).unwrap();
    a.tell_urgent(note("urgent", &log)).unwrap();
    tokio::time::sleep(secs(60)).await;
    assert_eq!(log.take(), ["start a", "start a", "urgent", "later"]);
}

/// A stream that counts what was taken from it.
struct Numbers(Arc<AtomicU32>);

impl futures_core::Stream for Numbers {
    type Item = u32;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<u32>> {
        std::task::Poll::Ready(Some(self.0.fetch_add(1, Ordering::SeqCst)))
    }
}

#[tokio::test(start_paused = true)]
async fn an_attached_stream_waits_for_room_and_ends_with_its_life() {
    let log = Log::default();
    let taken = Arc::new(AtomicU32::new(0));
    for overflow in [Overflow::Fail, Overflow::Wait(secs(1))] {
        let system = start(root().child(worker("a", &log).mailbox(4, overflow))).await;
        let (numbers, said) = (Numbers(Arc::clone(&taken)), log.clone());
        let attach = call(move |cx| {
            let stream = cx.attach(numbers, move |n| {
                let said = said.clone();
                job(move |_| {
                    Box::pin(async move {
                        tokio::time::sleep(secs(10)).await;
                        said.note(format!("n {n}"));
                        Ok(())
                    })
                })
            });
            cx.keep(stream);
        });
        to(&system, "/a").try_tell(attach).unwrap();
        tokio::time::sleep(secs(45)).await;
        assert_eq!(log.notes("n"), [0, 1, 2, 3]);
        // Four handled, one in flight, four wait, and one waits for room.
        assert!(taken.load(Ordering::SeqCst) <= 10, "{overflow:?}: {taken:?}");
        system.kill("/a").unwrap();
        tokio::time::sleep(secs(100)).await;
        let then = taken.swap(0, Ordering::SeqCst);
        assert!(then <= 11, "{overflow:?}: {then}");
        log.take();
    }
}

/// What is kept is not dropped, and so the question in it fails by its deadline only.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_is_kept_keeps_its_asker_waiting() {
    for keep in [false, true] {
        let log = Log::default();
        let kept = Mutex::new(Vec::new());
        let system = ActorSystem::builder(root().child(worker("a", &log)))
            .dead_letters(move |letter: DeadLetter| {
                if keep {
                    kept.lock().unwrap().push(letter);
                }
            })
            .start()
            .await
            .unwrap();
        let a = to(&system, "/a");
        // Not stopped by an operator: that refuses what was asked, whoever keeps it.
        a.try_tell(call(|cx| cx.stop())).unwrap();
        let spec = worker("b", &log).restart(RestartPolicy::Temporary);
        let b = system.supervisor("/").unwrap().spawn_spec::<Job>(spec).await.unwrap();
        b.try_tell(call(|cx| cx.stop())).unwrap();
        let (asked, took) = timed("the question", b.ask_within(secs(7), ping)).await;
        match keep {
            true => assert!(matches!(asked, Err(AskError::Timeout { .. })) && took == secs(7)),
            false => assert!(matches!(asked, Err(AskError::Stopped { .. })) && took < ms(10)),
        }
    }
}

/// The drop of an actor is the last that it does: a panic there is the reason of a life that had no
/// other, and does not hide one that it had.
#[tokio::test(start_paused = true)]
async fn a_panic_in_the_drop_is_the_reason_of_a_life_that_would_have_ended_well() {
    let ends: [(fn() -> Job, &str); 2] =
        [(|| call(|cx| cx.stop()), "while it is dropped"), (failure, "told to")];
    for (end, reason) in ends {
        let log = Log::default();
        let a = plan("a", &log).on_drop(|life| assert!(life > 1, "while it is dropped"));
        let system = start(root().child(a.spec().restart(RestartPolicy::Transient))).await;
        to(&system, "/a").try_tell(end()).unwrap();
        settle().await;
        assert_eq!(seen(&system, "/a"), (SlotState::Up, 2), "a failure, so it comes back");
        let last = system.tree().find("/a").unwrap().last_failure.clone().unwrap();
        assert!(last.reason.to_string().contains(reason), "{}", last.reason);
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_failures_are_kept() {
    let log = Log::default();
    let system = start(root().child(worker("a", &log))).await;
    for _ in 0..FAILURES_KEPT + 3 {
        to(&system, "/a").try_tell(failure()).unwrap();
        settle().await;
    }
    let lives: Vec<_> = system.actor("/a").unwrap().failures.iter().map(|f| f.life).collect();
    assert_eq!(lives, (4..=11).collect::<Vec<_>>());
}

fn ids(workers: impl IntoIterator<Item = Address<Do>>) -> Vec<String> {
    workers.into_iter().map(|worker| worker.path().to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_group_has_the_members_that_say_so_in_their_spec() {
    let log = Log::default();
    let system = start(
        root()
            .child(SupervisorSpec::new("s").child(puppet("b", &log).group("all").group("some")))
            .child(puppet("a", &log).group("all"))
            .child(worker("c", &log).group("all")),
    )
    .await;
    assert_eq!(ids(system.group("all").members().to_vec()), ["/a", "/s/b"], "of one type, by path");
    assert_eq!(ids(system.group("some").members().to_vec()), ["/s/b"]);
    assert_eq!(system.group("all").broadcast(&Do::Note(1)), 2);
    settle().await;
    assert_eq!((log.notes("a"), log.notes("b")), (vec![1], vec![1]));
    system.stop("/a").await.unwrap();
    assert_eq!(system.group("all").broadcast(&Do::Note(2)), 1, "one takes no messages");
    assert!(system.group::<Do>("nobody").members().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_task_that_asks_has_the_shutdown_time_to_end_by_itself() {
    for (needs, allowed, in_order) in [(2, 5, true), (9, 5, false)] {
        let log = Log::default();
        let said = log.clone();
        let task = ChildSpec::task("t", move |cx| {
            let said = said.clone();
            async move {
                cx.stopping().await;
                tokio::time::sleep(secs(needs)).await;
                said.note("done");
                Ok(())
            }
        });
        let system = start(root().child(task.shutdown(Shutdown::After(secs(allowed))))).await;
        settle().await;
        let (orderly, took) = timed("the shutdown", system.shutdown(secs(60))).await;
        assert_eq!((orderly, took.as_secs()), (in_order, needs.min(allowed)));
        assert_eq!(log.take().len(), usize::from(in_order));
    }
}

#[tokio::test(start_paused = true)]
async fn a_tasks_own_word_is_its_health() {
    let health = HealthSpec::every(secs(10)).unhealthy_after(1);
    let task = ChildSpec::task("t", |cx| async move {
        if cx.life() == 1 {
            cx.set_health(Health::unhealthy("no signal"));
        }
        std::future::pending().await
    });
    let system = start(root().child(task.health(health))).await;
    tokio::time::sleep(secs(60)).await;
    assert_eq!(seen(&system, "/t"), (SlotState::Up, 2));
}
