//! What an actor can do with its context, a test each.

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

/// A stop from outside ends a life behind what waited for it, or at once, and what it did not handle
/// is for the next life.
#[tokio::test(start_paused = true)]
async fn a_stop_by_address_comes_behind_what_waits() {
    let log = Log::default();
    let system = start(root().child(worker("a", &log))).await;
    let a = to(&system, "/a");
    for (at_once, life) in [(false, 2), (true, 3)] {
        log.take();
        a.try_tell(note("1", &log)).unwrap();
        a.try_tell(note("2", &log)).unwrap();
        assert!(if at_once { a.stop_now() } else { a.stop() });
        a.tell_urgent(note("urgent", &log)).unwrap();
        a.try_tell(note("later", &log)).unwrap();
        settle().await;
        assert_eq!((seen(&system, "/a"), a.depth()), ((SlotState::Up, life), 0));
        let expected = match at_once {
            false => ["urgent", "1", "2", "stop a", "start a", "later"],
            true => ["stop a", "start a", "urgent", "1", "2", "later"],
        };
        assert_eq!(log.take(), expected);
    }
    system.stop("/a").await.unwrap();
    assert!(!a.stop() && !a.stop_now(), "no life is up");
}

fn told(end: &Ended) -> String {
    format!("{} {} {}", end.path, end.life, end.reason)
}

/// Makes the actor watch another one, and note its end.
fn watch(other: &Address<Job>, log: &Log) -> Job {
    let (other, log) = (other.clone(), log.clone());
    call(move |cx| cx.watch(&other, move |end| note(told(&end), &log)))
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_an_end_once_and_a_restart_is_not_an_end() {
    let log = Log::default();
    let b = worker("b", &log).restart(RestartPolicy::Transient);
    let system = start(root().child(worker("a", &log)).child(b).child(worker("c", &log))).await;
    let (a, b, c) = (to(&system, "/a"), to(&system, "/b"), to(&system, "/c"));
    for _ in 0..2 {
        // The second one takes the place of the first.
        a.try_tell(watch(&b, &log)).unwrap();
        a.try_tell(watch(&c, &log)).unwrap();
    }
    let outside = tokio::spawn({
        let b = b.clone();
        async move { told(&b.ended().await) }
    });
    settle().await;
    log.take();
    b.try_tell(failure()).unwrap();
    settle().await;
    assert_eq!((b.life(), log.take()), (2, vec!["start b".to_owned()]));
    b.try_tell(call(|cx| cx.stop())).unwrap();
    settle().await;
    assert_eq!(log.take(), ["stop b", "/b 2 normal"]);
    assert_eq!(outside.await.unwrap(), "/b 2 normal");
    a.try_tell(watch(&b, &log)).unwrap();
    settle().await;
    assert_eq!(log.take(), ["/b 2 normal"], "at once, when it has ended already");
    let (other, said) = (c.clone(), log.clone());
    let unwatch = call(move |cx| {
        said.note(format!("{} {}", cx.unwatch(&other), cx.unwatch(&other)));
    });
    a.try_tell(unwatch).unwrap();
    settle().await;
    system.stop("/c").await.unwrap();
    settle().await;
    assert_eq!(log.take(), ["true false", "stop c"]);
}

/// Set for `after`; notes `silence` each time.
fn listen(after: u64, log: &Log) -> Job {
    let log = log.clone();
    call(move |cx| {
        let after = (after > 0).then(|| secs(after));
        cx.set_receive_timeout(after, move || note("silence", &log));
    })
}

/// It was never told: the alarm woke the life, which took that for a message.
#[tokio::test(start_paused = true)]
async fn silence_is_told_and_told_again() {
    let log = Log::default();
    let system = start(root().child(worker("a", &log))).await;
    let a = to(&system, "/a");
    a.try_tell(listen(10, &log)).unwrap();
    for _ in 0..3 {
        tokio::time::sleep(secs(9)).await;
        a.try_tell(note("message", &log)).unwrap();
    }
    tokio::time::sleep(secs(9)).await;
    assert!(!log.take().contains(&"silence".to_owned()), "each message begins it anew");
    tokio::time::sleep(secs(2)).await;
    assert_eq!(log.take(), ["silence"]);
    tokio::time::sleep(secs(10)).await;
    assert_eq!(log.take(), ["silence"]);
    a.try_tell(listen(0, &log)).unwrap();
    tokio::time::sleep(secs(100)).await;
    assert_eq!(log.take(), Vec::<String>::new());
}

/// What a life is asked beside its mailbox is not a message: checks of its health kept it from ever
/// hearing of the silence.
#[tokio::test(start_paused = true)]
async fn silence_is_told_to_an_actor_that_is_looked_at() {
    let log = Log::default();
    let system = start(root().child(worker("a", &log))).await;
    let a = to(&system, "/a");
    a.try_tell(listen(10, &log)).unwrap();
    for _ in 0..4 {
        tokio::time::sleep(secs(3)).await;
        a.inspect(secs(1)).await.unwrap();
    }
    settle().await;
    assert_eq!(log.take(), ["start a", "silence"]);
}

#[tokio::test(start_paused = true)]
async fn a_timer_takes_the_place_of_one_with_its_key_also_when_that_has_rung() {
    let log = Log::default();
    let system = start(root().child(worker("a", &log))).await;
    let said = log.clone();
    let arm = job(move |cx| {
        Box::pin(async move {
            cx.timer("key", secs(1), note("first", &said));
            // It rings meanwhile, and its message waits.
            tokio::time::sleep(secs(2)).await;
            cx.timer("key", secs(1), note("second", &said));
            cx.timer("other", secs(1), note("third", &said));
            said.note(format!("{} {}", cx.cancel_timer("other"), cx.cancel_timer("other")));
            Ok(())
        })
    });
    to(&system, "/a").try_tell(arm).unwrap();
    tokio::time::sleep(secs(60)).await;
    assert_eq!(log.take(), ["start a", "true false", "second"]);
}

#[tokio::test(start_paused = true)]
async fn an_interval_leaves_out_the_ticks_that_nobody_could_handle() {
    let log = Log::default();
    let system = start(root().child(worker("a", &log))).await;
    let a = to(&system, "/a");
    let said = log.clone();
    a.try_tell(call(move |cx| {
        let mut n = 0;
        cx.periodic("tick", secs(1), move || {
            n += 1;
            note(format!("tick {n}"), &said)
        });
    }))
    .unwrap();
    tokio::time::sleep(ms(2_500)).await;
    let busy = job(|_| {
        Box::pin(async {
            tokio::time::sleep(secs(10)).await;
            Ok(())
        })
    });
    a.try_tell(busy).unwrap();
    tokio::time::sleep(secs(11)).await;
    assert_eq!(log.take()[..4], ["start a", "tick 1", "tick 2", "tick 3"]);
    assert!(a.depth() == 0 && log.take().len() < 2, "ten ticks did not pile up");
    a.try_tell(failure()).unwrap();
    settle().await;
    log.take();
    tokio::time::sleep(secs(60)).await;
    assert_eq!(log.take(), Vec::<String>::new(), "it ends with its life");
}

#[tokio::test(start_paused = true)]
async fn urgent_messages_overtake_and_keep_their_order() {
    let log = Log::default();
    let system = start(root().child(worker("a", &log))).await;
    let a = to(&system, "/a");
    let slow = || {
        job(|_| {
            Box::pin(async {
                tokio::time::sleep(secs(1)).await;
                Ok(())
            })
        })
    };
    a.try_tell(slow()).unwrap();
    settle().await;
    a.try_tell(note("later", &log)).unwrap();
    for n in 1..=2 {
        a.tell_urgent(note(format!("urgent {n}"), &log)).unwrap();
    }
    tokio::time::sleep(secs(2)).await;
    assert_eq!(log.take(), ["start a", "urgent 1", "urgent 2", "later"]);
    a.try_tell(slow()).unwrap();
    settle().await;
    for n in 0..URGENT_CAPACITY {
        a.tell_urgent(note(format!("{n}"), &log)).unwrap();
    }
    let refused = a.tell_urgent(note("one more", &log));
    assert!(matches!(refused, Err(TellError::Full { capacity: URGENT_CAPACITY, .. })));
    tokio::time::sleep(secs(2)).await;
    assert_eq!(log.take().len(), URGENT_CAPACITY);
    system.stop("/a").await.unwrap();
    assert!(matches!(a.tell_urgent(note("", &log)), Err(TellError::Stopped { .. })));
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

#[tokio::test(start_paused = true)]
async fn what_was_put_aside_comes_back_in_order_also_after_a_crash() {
    for crash in [false, true] {
        let log = Log::default();
        let system = start(root().child(worker("a", &log).mailbox(2, Overflow::Fail))).await;
        let a = to(&system, "/a");
        let said = log.clone();
        let aside = call(move |cx| {
            for n in 1..=2 {
                assert!(cx.stash(note(format!("aside {n}"), &said)).is_ok());
            }
            assert!(cx.stash(note("one more", &said)).is_err(), "as many as the mailbox holds");
            assert_eq!(cx.stashed(), 2);
        });
        a.try_tell(aside).unwrap();
        settle().await;
        a.try_tell(if crash { failure() } else { call(|cx| cx.unstash_all()) }).unwrap();
        a.try_tell(note("later", &log)).unwrap();
        settle().await;
        let lines: Vec<_> = log.take().into_iter().filter(|line| line != "start a").collect();
        assert_eq!(lines, ["aside 1", "aside 2", "later"], "crash: {crash}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_a_batch_is_a_dead_letter_for_each_message_of_it() {
    let log = Log::default();
    let Heard { system, graves, .. } = heard(root().child(worker("a", &log))).await;
    let a = to(&system, "/a");
    a.try_tell(job(|cx| {
        Box::pin(async move {
            let (first, second) = (cx.next_waiting(), cx.next_waiting());
            assert!(first.is_some() && second.is_some());
            Err(Failure::permanent("told to"))
        })
    }))
    .unwrap();
    for n in 1..=3 {
        a.try_tell(note(format!("{n}"), &log)).unwrap();
    }
    settle().await;
    assert_eq!(graves.take().len(), 3, "what began the batch, and the two that it took");
    assert_eq!(log.take(), ["start a", "start a", "3"]);
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

/// Shows how far it has counted.
struct Counter(u64);

impl Actor for Counter {
    type Message = u64;
    type Args = ();

    async fn start((): &(), _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self(0))
    }

    async fn handle(&mut self, n: u64, _: &mut Context<Self>) -> Result<(), Failure> {
        if n == 0 {
            std::future::pending().await
        }
        self.0 += n;
        Ok(())
    }

    fn inspect(&self) -> Option<Picture> {
        Some(Picture::of(self.0))
    }
}

#[tokio::test(start_paused = true)]
async fn a_picture_is_made_between_two_messages() {
    let log = Log::default();
    let counter = ChildSpec::actor::<Counter>("c", ());
    let system = start(root().child(counter).child(worker("a", &log))).await;
    let c = system.find::<u64>("/c").unwrap();
    c.try_tell(3).unwrap();
    settle().await;
    let picture = c.inspect(secs(1)).await.unwrap().unwrap();
    assert_eq!(serde_json::to_string(&picture).unwrap(), "3");
    assert!(to(&system, "/a").inspect(secs(1)).await.unwrap().is_none(), "it shows nothing");
    c.try_tell(0).unwrap();
    settle().await;
    assert!(matches!(c.inspect(secs(1)).await, Err(AskError::Timeout { .. })), "busy");
    system.stop("/a").await.unwrap();
    assert!(matches!(to(&system, "/a").inspect(secs(1)).await, Err(AskError::Stopped { .. })));
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
    let ends = [(call(|cx| cx.stop()), "while it is dropped"), (failure(), "told to")];
    for (end, reason) in ends {
        let log = Log::default();
        let a = plan("a", &log).on_drop(|life| assert!(life > 1, "while it is dropped"));
        let system = start(root().child(a.spec().restart(RestartPolicy::Transient))).await;
        to(&system, "/a").try_tell(end).unwrap();
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

/// What a sender of another type sends is made into a message of the actor's.
#[tokio::test(start_paused = true)]
async fn a_recipient_is_an_actor_by_what_it_accepts() {
    let log = Log::default();
    let counter = ChildSpec::actor::<Counter>("c", ()).mailbox(1, Overflow::Fail);
    let system = start(root().child(counter).child(worker("a", &log))).await;
    let (c, a) = (system.find::<u64>("/c").unwrap(), to(&system, "/a"));
    let said = log.clone();
    let listeners = [c.recipient::<u8>(), a.map(move |n: u8| note(format!("a {n}"), &said))];
    for listener in &listeners {
        listener.tell(5).await.unwrap();
    }
    settle().await;
    let picture = c.inspect(secs(1)).await.unwrap().unwrap();
    assert_eq!((serde_json::to_string(&picture).unwrap().as_str(), log.notes("a")), ("5", vec![5]));
    assert_ne!(listeners[0], listeners[1]);
    assert_eq!(listeners[0], c.map(u64::from));
    c.try_tell(0).unwrap();
    settle().await;
    listeners[0].try_tell(1).unwrap();
    assert!(matches!(listeners[0].try_tell(1), Err(RecipientError::Full { capacity: 1, .. })));
    system.stop("/a").await.unwrap();
    let refused = listeners[1].tell(1).await;
    assert!(matches!(refused, Err(RecipientError::Stopped { .. })), "{refused:?}");
    assert_eq!(listeners[1].ended().await.path.as_str(), "/a");
}
