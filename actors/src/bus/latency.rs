//! How long messages take from their publisher, or from the log, to a handler.
//!
//! One writer, the subscription's actor; whoever looks reads atomics. Recording costs one reading
//! of the clock and a few stores.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

/// Buckets: below 1 µs, then by powers of two; the last one is open, and begins at 36 minutes.
const BUCKETS: usize = 33;

/// What a subscription's lives count together.
#[derive(Debug)]
pub(super) struct Latency {
    /// In microseconds; `u64::MAX` if there is none.
    target: u64,
    buckets: [AtomicU64; BUCKETS],
    late: AtomicU64,
    worst: AtomicU64,
}

/// How long messages took to reach a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LatencyStatus {
    /// How many were measured.
    pub count: u64,
    /// Half of them took at most this long, in microseconds; up to a factor of two.
    pub p50_us: u64,
    /// 99 of 100 took at most this long, in microseconds; up to a factor of two.
    pub p99_us: u64,
    /// The longest, in microseconds.
    pub max_us: u64,
    /// What the subscription wants, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_us: Option<u64>,
    /// Messages that took longer than that.
    pub late: u64,
}

impl Latency {
    pub(super) fn new(target: Option<Duration>) -> Self {
        let micros = |target: Duration| u64::try_from(target.as_micros()).unwrap_or(u64::MAX);
        Self {
            target: target.map_or(u64::MAX, micros),
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            late: AtomicU64::new(0),
            worst: AtomicU64::new(0),
        }
    }

    /// Counts one that took so many microseconds. One writer, so plain loads and stores do.
    pub(super) fn record(&self, micros: u64) {
        let bump = |counter: &AtomicU64| {
            counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        };
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        bump(&self.buckets[bucket.min(BUCKETS - 1)]);
        if micros > self.target {
            bump(&self.late);
        }
        if micros > self.worst.load(Ordering::Relaxed) {
            self.worst.store(micros, Ordering::Relaxed);
        }
    }

    pub(super) fn status(&self) -> LatencyStatus {
        let counts = self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed));
        let count: u64 = counts.iter().sum();
        let worst = self.worst.load(Ordering::Relaxed);
        let below = |share: f64| {
            let wanted = (count as f64 * share).ceil() as u64;
            let mut seen = 0;
            let bucket = counts.iter().position(|count| {
                seen += count;
                seen >= wanted
            });
            // The bound of the bucket, or what is known better.
            bucket.map_or(0, |bucket| (1_u64 << bucket) - 1).min(worst)
        };
        LatencyStatus {
            count,
            p50_us: below(0.5),
            p99_us: below(0.99),
            max_us: worst,
            target_us: (self.target != u64::MAX).then_some(self.target),
            late: self.late.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_true_up_to_a_factor_of_two() {
        let latency = Latency::new(Some(Duration::from_micros(900)));
        assert_eq!(latency.status().p99_us, 0, "nothing was measured");
        for micros in 1..=1_000 {
            latency.record(micros);
        }
        let status = latency.status();
        assert_eq!((status.count, status.max_us, status.late), (1_000, 1_000, 100));
        assert_eq!(status.target_us, Some(900));
        assert!((500..1_000).contains(&status.p50_us), "{status:?}");
        assert!((990..=1_000).contains(&status.p99_us), "{status:?}");
        latency.record(u64::MAX);
        latency.record(0);
        assert_eq!(latency.status().max_us, u64::MAX);
    }
}
