//! Guards against times that are wrong, and deadlines that are late, from a step of the machine's
//! clock to the end of the process.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::{Clock, ClockAnchor};

const SECOND: i64 = 1_000_000;

/// Sets a machine's clock of its own to `steps` in turn: (what it is set to, what must be shown).
#[tokio::test(start_paused = true)]
async fn times_follow_the_machine_at_once() {
    static WALL: AtomicI64 = AtomicI64::new(100 * SECOND);
    let clock = Clock::bound_to(|| WALL.load(Ordering::Relaxed));
    tokio::time::advance(Duration::from_secs(5)).await;
    for set_to in [105, 3_705, 50, 106] {
        WALL.store(set_to * SECOND, Ordering::Relaxed);
        assert_eq!(clock.wall_us(), set_to * SECOND);
        // Two seconds ago, by the clock as it is set now.
        assert_eq!(clock.wall_at(Duration::from_secs(3)), (set_to - 2) * SECOND);
        assert_eq!(clock.stepped_us(), (set_to - 105) * SECOND);
    }
    assert_eq!(clock.elapsed(), Duration::from_secs(5), "durations know nothing of it");
}

/// The machine's clock moves with tokio's, and is set forward by an hour once.
#[tokio::test(start_paused = true)]
async fn a_wait_for_a_time_ends_within_a_second_of_a_step() {
    static AHEAD: AtomicI64 = AtomicI64::new(0);
    static PASSED: AtomicI64 = AtomicI64::new(0);
    let clock = Clock::bound_to(|| AHEAD.load(Ordering::Relaxed) + PASSED.load(Ordering::Relaxed));
    let start = tokio::time::Instant::now();
    let pass = |to: Duration| {
        PASSED.store(i64::try_from(to.as_micros()).unwrap(), Ordering::Relaxed);
    };
    let mut wait = Box::pin(clock.until(3_610 * SECOND));
    for second in 1..=10 {
        let step = tokio::time::sleep_until(start + Duration::from_secs(second));
        tokio::select! {
            biased;
            () = step => pass(start.elapsed()),
            () = &mut wait => panic!("an hour early"),
        }
    }
    AHEAD.store(3_600 * SECOND, Ordering::Relaxed);
    wait.await;
    assert!(start.elapsed() <= Duration::from_secs(11), "{:?}", start.elapsed());
}

/// A clock that follows nobody sleeps once, however far the time is away.
#[tokio::test(start_paused = true)]
async fn paused_time_is_alike_in_every_run() {
    let clock = Clock::following(|| 7 * SECOND);
    clock.until(1_000_000_000 * SECOND).await;
    assert_eq!(clock.wall_us(), 1_000_000_000 * SECOND);
    assert_eq!((clock.stepped_us(), clock.wall_at(Duration::ZERO)), (0, 7 * SECOND));
}

/// A look at the machine's clock is good for a millisecond, and no longer.
#[tokio::test(start_paused = true)]
async fn an_anchor_follows_a_step_within_a_millisecond() {
    static WALL: AtomicI64 = AtomicI64::new(100 * SECOND);
    let clock = Clock::bound_to(|| WALL.load(Ordering::Relaxed));
    let mut anchor = ClockAnchor::default();
    assert_eq!(clock.wall_near(&mut anchor, 0), 100 * SECOND);
    // The machine's clock is set, and half a millisecond passes.
    WALL.store(200 * SECOND, Ordering::Relaxed);
    assert_eq!(clock.wall_near(&mut anchor, 500_000), 100 * SECOND + 500);
    tokio::time::advance(Duration::from_millis(2)).await;
    assert_eq!(clock.wall_near(&mut anchor, 2_000_000), 200 * SECOND);
    // A moment before the look.
    assert_eq!(clock.wall_near(&mut anchor, 1_500_000), 200 * SECOND - 500);
}
