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

/// Kinds of messages that are counted one by one; what comes after them is `other`.
pub const MAX_MESSAGE_KINDS: usize = 32;

/// Counters of one kind of message, over all lives of a slot.
#[derive(Debug, Default)]
pub(crate) struct Row {
    handled: AtomicU64,
    busy_ns: AtomicU64,
    max_ns: AtomicU64,
    latency: [AtomicU64; 12],
}

impl Row {
    /// Counts one message that took `ns`. One writer, so plain loads and stores do.
    pub(crate) fn handled(&self, ns: u64) {
        bump(&self.handled, 1);
        bump(&self.busy_ns, ns);
        bump(&self.latency[bucket(ns)], 1);
        if ns > self.max_ns.load(Ordering::Relaxed) {
            self.max_ns.store(ns, Ordering::Relaxed);
        }
    }

    pub(crate) fn handled_count(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    pub(crate) fn counts(&self) -> HandlingView {
        HandlingView {
            handled: self.handled.load(Ordering::Relaxed),
            busy: Duration::from_nanos(self.busy_ns.load(Ordering::Relaxed)),
            longest: Duration::from_nanos(self.max_ns.load(Ordering::Relaxed)),
            latency: std::array::from_fn(|i| self.latency[i].load(Ordering::Relaxed)),
        }
    }
}

/// How many messages were handled, and how long that took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandlingView {
    /// Messages handled over all lives.
    pub handled: u64,
    /// Time spent handling them.
    pub busy: Duration,
    /// The longest one.
    pub longest: Duration,
    /// How many took how long; bounds in [`LATENCY_BUCKETS_NS`].
    pub latency: [u64; 12],
}

impl HandlingView {
    /// The upper bound of the bucket that this share of the messages (0.0 to 1.0) is within, and
    /// never more than the longest one took. `None` when there was no message.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let all: u64 = self.latency.iter().sum();
        let mut left = (all as f64 * share.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        for (i, &count) in self.latency.iter().enumerate() {
            if count >= left && count > 0 {
                let bound = LATENCY_BUCKETS_NS.get(i).copied().map(Duration::from_nanos);
                return Some(bound.map_or(self.longest, |bound| bound.min(self.longest)));
            }
            left = left.saturating_sub(count);
        }
        None
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.handled += other.handled;
        self.busy += other.busy;
        self.longest = self.longest.max(other.longest);
        for (sum, count) in self.latency.iter_mut().zip(other.latency) {
            *sum = sum.wrapping_add(count);
        }
    }
}

/// What one slot counts. Most actors take one or two kinds of messages: the first kind is counted
/// here, and only the others cost memory of their own.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) first: Row,
    /// When the message in flight was taken, nanoseconds of the system's clock; 0 when idle.
    in_flight_since: AtomicU64,
    /// Which kind is in flight, or was last.
    in_flight_kind: AtomicU32,
}

impl Stats {
    pub(crate) fn begin(&self, now_ns: u64) {
        self.in_flight_since.store(now_ns.max(1), Ordering::Relaxed);
    }

    pub(crate) fn idle(&self) {
        self.in_flight_since.store(0, Ordering::Relaxed);
    }

    pub(crate) fn began_ns(&self) -> Option<u64> {
        match self.in_flight_since.load(Ordering::Relaxed) {
            0 => None,
            ns => Some(ns),
        }
    }

    pub(crate) fn set_kind(&self, kind: usize) {
        self.in_flight_kind.store(u32::try_from(kind).unwrap_or(0), Ordering::Relaxed);
    }

    pub(crate) fn kind(&self) -> usize {
        self.in_flight_kind.load(Ordering::Relaxed) as usize
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
