//! Timers, timeouts and what was put aside.

use mister_smith_supervisors::*;

use crate::kit::*;
use crate::takes;
use crate::workers::*;

#[tokio::test(start_paused = true)]
async fn a_tick_that_found_no_place_does_not_end_its_timer() {
    for overflow in [Overflow::DropNewest, Overflow::DropOldest, Overflow::Fail] {
        let log = Log::default();
        let spec = worker("a", &log).mailbox(1, overflow);
        let (hook, _graves) = graves();
        let system =
            ActorSystem::builder(root().child(spec)).dead_letters(hook).start().await.unwrap();
        let a = to(&system, "/a");
        let ticks = log.clone();
        a.tell(call(move |cx| {
            let tick = cx.interval(ms(10), move || noted("tick", &ticks));
            cx.keep(tick);
        }))
        .await
        .unwrap();
        tokio::time::sleep(ms(35)).await;
        assert_eq!(log.all().iter().filter(|line| *line == "tick 1").count(), 3, "{overflow:?}");
        log.take();
        // Busy, with the mailbox full, again and again.
        a.try_tell(takes(ms(100))).unwrap();
        settle().await;
        for _ in 0..20 {
            let _ = a.try_tell(call(|_| {}));
            tokio::time::sleep(ms(4)).await;
        }
        tokio::time::sleep(ms(1_000)).await;
        let ticked = log.all().iter().filter(|line| *line == "tick 1").count();
        assert!(ticked > 50, "{overflow:?}: only {ticked} ticks in a second");
    }
}

#[tokio::test(start_paused = true)]
async fn a_timer_that_was_handled_cannot_be_cancelled() {
    let log = Log::default();
    let system = start(root().child(worker("a", &log))).await;
    let a = to(&system, "/a");
    let told = log.clone();
    a.tell(call(move |cx| cx.timer("t", ms(10), noted("timer", &told)))).await.unwrap();
    tokio::time::sleep(ms(50)).await;
    assert!(log.all().contains(&"timer 1".to_owned()));
    let told = log.clone();
    a.tell(call(move |cx| told.note(format!("cancelled {}", cx.cancel_timer("t"))))).await.unwrap();
    settle().await;
    assert!(log.all().contains(&"cancelled false".to_owned()), "{:?}", log.all());
}

#[tokio::test(start_paused = true)]
async fn who_looks_at_an_actor_does_not_break_its_silence() {
    let log = Log::default();
    let system = start(root().child(worker("a", &log))).await;
    let a = to(&system, "/a");
    let told = log.clone();
    a.tell(call(move |cx| {
        cx.set_receive_timeout(Some(ms(100)), move || noted("silence", &told));
    }))
    .await
    .unwrap();
    for _ in 0..10 {
        tokio::time::sleep(ms(50)).await;
        let _ = a.inspect(secs(1)).await;
    }
    let silences = log.all().iter().filter(|line| *line == "silence 1").count();
    assert!((3..=5).contains(&silences), "{silences} in half a second");
}
