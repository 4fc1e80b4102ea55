//! What a slot counts about itself, in atomics that only its life writes.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the handling-time buckets, in nanoseconds: 1 µs, then times four, the last one
/// open. Twelve buckets reach from a counter's increment to a stuck handler.
pub const LATENCY_BUCKETS_NS: [u64; 11] = [
    1_000,
    4_000,
    16_000,
    64_000,
    256_000,
    1_024_000,
    4_096_000,
    16_384_000,
    65_536_000,
    262_144_000,
    1_048_576_000,
];

/// Counters of one slot, over all its lives.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    handled: AtomicU64,
    busy_ns: AtomicU64,
    latency: [AtomicU32; 12],
    /// When the message in hand was taken, nanoseconds of the system's clock; 0 when idle.
    in_hand_since: AtomicU64,
}

impl Stats {
    pub(crate) fn begin(&self, now_ns: u64) {
        self.in_hand_since.store(now_ns.max(1), Ordering::Relaxed);
    }

    pub(crate) fn idle(&self) {
        self.in_hand_since.store(0, Ordering::Relaxed);
    }

    /// Counts one message that took `ns`. One writer, so plain loads and stores do.
    pub(crate) fn handled(&self, ns: u64) {
        bump(&self.handled, 1);
        bump(&self.busy_ns, ns);
        let bucket = &self.latency[bucket(ns)];
        bucket.store(bucket.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    pub(crate) fn handled_count(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    pub(crate) fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_ns.load(Ordering::Relaxed))
    }

    pub(crate) fn latency(&self) -> [u32; 12] {
        std::array::from_fn(|i| self.latency[i].load(Ordering::Relaxed))
    }

    pub(crate) fn in_hand_since_ns(&self) -> Option<u64> {
        match self.in_hand_since.load(Ordering::Relaxed) {
            0 => None,
            ns => Some(ns),
        }
    }
}

fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// Bucket of a handling time: powers of four from 1,000 ns on.
fn bucket(ns: u64) -> usize {
    if ns <= LATENCY_BUCKETS_NS[0] {
        return 0;
    }
    // ceil(log4(ns / 1000)): half of ceil(log2), rounded up.
    let log2 = 64 - ((ns - 1) / 1_000).leading_zeros() as usize;
    log2.div_ceil(2).min(11)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_closes_its_bucket() {
        for (i, bound) in LATENCY_BUCKETS_NS.iter().enumerate() {
            assert_eq!(bucket(*bound), i, "{bound} ns");
            assert_eq!(bucket(*bound + 1), i + 1, "{bound} ns + 1");
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), 11);
    }
}
