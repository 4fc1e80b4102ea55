//! Every question is answered once, in time, with the right reason.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mister_smith_supervisors::*;

use crate::kit::*;
use crate::takes;
use crate::workers::*;

#[tokio::test(start_paused = true)]
async fn the_wait_for_room_is_part_of_the_deadline() {
    for deadline in [ms(800), ms(2_000)] {
        let log = Log::default();
        let spec = worker("a", &log).mailbox(1, Overflow::Wait(secs(60)));
        let system = start(root().child(spec)).await;
        let a = to(&system, "/a");
        // Room comes when most of the deadline is over, and then nothing more.
        a.tell(takes(deadline * 3 / 4)).await.unwrap();
        settle().await;
        a.tell(takes(secs(60))).await.unwrap();
        let (answer, took) = timed("ask", a.ask_within::<()>(deadline, ping)).await;
        assert!(matches!(answer, Err(AskError::Timeout { .. })), "{answer:?}");
        assert!(took <= deadline + ms(100), "{took:?} with a deadline of {deadline:?}");
        system.shutdown(secs(0)).await;
    }
}

#[test]
fn an_answer_that_comes_at_once_after_the_wait_for_room_is_not_lost() {
    real(4, async {
        let log = Log::default();
        let spec = worker("a", &log).mailbox(1, Overflow::Wait(secs(60)));
        let system = start(root().child(spec)).await;
        let failed = Arc::new(AtomicU32::new(0));
        let mut askers = Vec::new();
        for _ in 0..8 {
            let (a, failed) = (to(&system, "/a"), Arc::clone(&failed));
            askers.push(tokio::spawn(async move {
                for _ in 0..20_000 {
                    if failed.load(Ordering::SeqCst) > 0 {
                        return;
                    }
                    if a.ask_within(secs(2), ping).await.is_err() {
                        failed.fetch_add(1, Ordering::SeqCst);
                    }
                }
            }));
        }
        for asker in askers {
            asker.await.unwrap();
        }
        assert_eq!(failed.load(Ordering::SeqCst), 0, "answered, and not heard");
    });
}

#[tokio::test(start_paused = true)]
async fn a_question_that_waits_for_room_and_can_never_be_answered_fails_at_once() {
    let log = Log::default();
    let asks = log.clone();
    let a = plan("a", &log).on_start(move |cx| {
        let asks = asks.clone();
        Box::pin(async move {
            if cx.life() > 1 {
                let b = cx.find::<Job>("/s/b").unwrap();
                let began = cx.clock().elapsed();
                let answer = b.ask_within::<()>(secs(4), ping).await;
                let took = cx.clock().elapsed() - began;
                asks.note(format!("{} after {took:?}", answer.is_err()));
            }
            Ok(())
        })
    });
    let s = SupervisorSpec::new("s").strategy(Strategy::OneForAll).intensity(10, secs(1));
    let b = worker("b", &log).mailbox(1, Overflow::Wait(secs(60)));
    let system = start(root().child(s.child(a.spec()).child(b))).await;
    // `b` is busy and its mailbox full when its group is restarted; `a` comes back first.
    to(&system, "/s/b").tell(takes(secs(1_000))).await.unwrap();
    settle().await;
    to(&system, "/s/b").tell(noted("b", &log)).await.unwrap();
    to(&system, "/s/a").tell(failure()).await.unwrap();
    tokio::time::sleep(secs(20)).await;
    assert_eq!(seen(&system, "/s/b"), (SlotState::Up, 2));
    assert!(log.all().contains(&"true after 0ns".to_owned()), "{:?}", log.all());
}

#[tokio::test(start_paused = true)]
async fn a_port_that_a_helper_lets_go_is_no_crash_of_an_earlier_life() {
    let log = Log::default();
    let system = start(root().child(worker("a", &log))).await;
    let a = to(&system, "/a");
    // The question waits while the life before ends of something else.
    a.tell(job(|_| {
        Box::pin(async {
            tokio::time::sleep(ms(10)).await;
            Err(Failure::permanent("told to"))
        })
    }))
    .await
    .unwrap();
    let answer = answered(
        "ask",
        a.ask::<u64>(|port| {
            call(move |cx| {
                let helper = cx.spawn_guard(async move {
                    tokio::time::sleep(ms(1)).await;
                    drop(port);
                });
                cx.keep(helper);
            })
        }),
    )
    .await;
    assert_eq!(seen(&system, "/a"), (SlotState::Up, 2));
    assert!(matches!(answer, Err(AskError::NoReply { .. })), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_question_among_dropped_ones_is_told_so() {
    for (overflow, urgent) in
        [(Overflow::DropOldest, false), (Overflow::DropNewest, false), (Overflow::Fail, true)]
    {
        let log = Log::default();
        let spec = worker("a", &log).mailbox(1, overflow);
        let (hook, _graves) = graves();
        let system =
            ActorSystem::builder(root().child(spec)).dead_letters(hook).start().await.unwrap();
        let a = to(&system, "/a");
        a.tell(takes(secs(1_000))).await.unwrap();
        settle().await;
        let asked = tokio::spawn({
            let a = a.clone();
            async move { a.ask::<()>(ping).await }
        });
        settle().await;
        if urgent {
            for _ in 0..URGENT_CAPACITY {
                a.tell_urgent(call(|_| {})).unwrap();
            }
            assert!(a.tell_urgent(call(|_| {})).is_err());
            assert!(a.kill_handle().kill());
            assert!(answered("ask", asked).await.unwrap().is_ok(), "the next life answers");
            continue;
        }
        let newest = a.ask_within::<()>(secs(5), ping);
        let (first, second) = if overflow == Overflow::DropOldest {
            let _keeps = tokio::spawn({
                let a = a.clone();
                async move { a.ask_within::<()>(secs(500), ping).await }
            });
            (timed("oldest", asked).await.0.unwrap(), Ok(()))
        } else {
            (newest.await, Ok::<(), AskError>(()))
        };
        assert!(matches!(first, Err(AskError::Full { .. })), "{overflow:?}: {first:?}");
        assert!(second.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_that_was_passed_on_fails_with_whoever_dropped_it() {
    let log = Log::default();
    let system = start(root().child(worker("a", &log)).child(worker("b", &log))).await;
    let (a, b) = (to(&system, "/a"), to(&system, "/b"));
    let answer = answered(
        "ask",
        a.ask::<u64>(move |port| {
            call(move |_| {
                b.try_tell(job(move |_| {
                    Box::pin(async move {
                        let _port = port;
                        Err(Failure::permanent("told to"))
                    })
                }))
                .unwrap();
            })
        }),
    )
    .await;
    assert!(matches!(answer, Err(AskError::Crashed { .. })), "{answer:?}");
    assert_eq!(seen(&system, "/a"), (SlotState::Up, 1));
}

#[test]
fn an_ask_from_another_runtime_is_answered_or_late() {
    real(2, async {
        let log = Log::default();
        let spec = worker("a", &log).mailbox(2, Overflow::Wait(secs(60)));
        let system = start(root().child(spec)).await;
        let a = to(&system, "/a");
        let done = tokio::task::spawn_blocking(move || {
            let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            other.block_on(async {
                assert!(a.ask(ping).await.is_ok());
                a.tell(takes(secs(600))).await.unwrap();
                for deadline in [ms(50), ms(1_050)] {
                    let late = a.ask_within::<()>(deadline, ping).await;
                    assert!(matches!(late, Err(AskError::Timeout { .. })), "{late:?}");
                }
            });
        });
        soon("the other runtime", done).await.unwrap();
    });
}

/// Asks `path` as soon as it is up, or while it starts, and notes how that went.
fn asks(id: &'static str, path: &'static str, in_start: bool, log: &Log) -> ChildSpec {
    let noted = log.clone();
    plan(id, log)
        .on_start(move |cx| {
            let noted = noted.clone();
            Box::pin(async move {
                let b = cx.find::<Job>(path).unwrap();
                let asked = async move {
                    let answer = b.ask_within::<()>(secs(10), ping).await;
                    noted.note(format!("{id} {:?}", answer.map_err(|error| error.to_string())));
                };
                if in_start {
                    asked.await;
                } else {
                    let ask = job(move |_| {
                        Box::pin(async move {
                            asked.await;
                            Ok(())
                        })
                    });
                    assert!(cx.address().try_tell(ask).is_ok());
                }
                Ok(())
            })
        })
        .spec()
}

fn slow(id: &'static str, log: &Log) -> ChildSpec {
    plan(id, log)
        .on_start(|_| {
            Box::pin(async {
                tokio::time::sleep(ms(10)).await;
                Ok(())
            })
        })
        .spec()
}

#[tokio::test(start_paused = true)]
async fn who_is_up_may_ask_a_sibling_that_starts_later() {
    let log = Log::default();
    let s = SupervisorSpec::new("s");
    let s = s.child(asks("a", "/s/c", false, &log)).child(slow("b", &log)).child(slow("c", &log));
    let _system = start(root().child(s)).await;
    settle().await;
    assert!(log.all().contains(&"a Ok(())".to_owned()), "{:?}", log.all());
}

#[tokio::test(start_paused = true)]
async fn children_of_a_crowd_may_ask_each_other_while_they_start() {
    let log = Log::default();
    let d = SupervisorSpec::dynamic("d");
    let d = d.child(asks("a", "/d/b", true, &log)).child(slow("b", &log));
    let _system = start(root().child(d)).await;
    settle().await;
    assert!(log.all().contains(&"a Ok(())".to_owned()), "{:?}", log.all());
}

#[tokio::test(start_paused = true)]
async fn a_child_of_a_crowd_that_stops_may_ask_one_that_comes_back() {
    let log = Log::default();
    let noted = log.clone();
    let a = plan("a", &log).on_stop(move |cx| {
        let noted = noted.clone();
        Box::pin(async move {
            let b = cx.find::<Job>("/d/b").unwrap();
            let answer = b.ask_within::<()>(secs(3), ping).await;
            noted.note(format!("a {:?}", answer.map_err(|error| error.to_string())));
        })
    });
    let b = worker("b", &log).backoff(Backoff::exponential(ms(100), ms(100)));
    let d = SupervisorSpec::dynamic("d").intensity(10, secs(1)).child(a.spec()).child(b);
    let system = start(root().child(d)).await;
    to(&system, "/d/b").tell(failure()).await.unwrap();
    settle().await;
    system.supervisor("/d").unwrap().terminate_child("a").await.unwrap();
    assert!(log.all().contains(&"a Ok(())".to_owned()), "{:?}", log.all());
}

#[tokio::test(start_paused = true)]
async fn who_is_up_may_ask_a_cousin_that_starts_later() {
    let log = Log::default();
    let s = SupervisorSpec::new("s").child(asks("a", "/t", false, &log)).child(slow("b", &log));
    let _system = start(root().child(s).child(slow("t", &log))).await;
    settle().await;
    assert!(log.all().contains(&"a Ok(())".to_owned()), "{:?}", log.all());
}
