//! Exponential backoff with full jitter, shared by restarts and retries.

use std::time::Duration;

use rand::{Rng, RngExt};

/// Exponential backoff with full jitter: the delay before try `n` is drawn evenly from zero to
/// `min(cap, base · factor^n)`.
///
/// Full jitter spreads a herd best for the work it costs (Brooker, "Exponential Backoff And
/// Jitter", AWS Architecture Blog, 2015).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    factor: f64,
    reset_after: Duration,
}

impl Backoff {
    /// No delay at all: OTP's rule, and the default.
    pub const NONE: Self = Self {
        base: Duration::ZERO,
        cap: Duration::ZERO,
        factor: 1.0,
        reset_after: Duration::from_secs(60),
    };

    /// Doubles from `base` up to `cap`; forgets past failures after 60 s of health.
    #[must_use]
    pub const fn exponential(base: Duration, cap: Duration) -> Self {
        Self { base, cap, factor: 2.0, reset_after: Duration::from_secs(60) }
    }

    /// Multiplies by `factor` instead of doubling. Values below 1 count as 1.
    #[must_use]
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = factor.max(1.0);
        self
    }

    /// How long something must stay healthy before the next failure counts as the first again.
    ///
    /// A setting of its own: tied to `base` it would be impossible to have quick first restarts
    /// and a long memory at once (akka #19246).
    #[must_use]
    pub const fn reset_after(mut self, healthy_for: Duration) -> Self {
        self.reset_after = healthy_for;
        self
    }

    /// How long something must stay healthy before its failures are forgotten.
    #[must_use]
    pub const fn healthy_for(&self) -> Duration {
        self.reset_after
    }

    /// Whether this backoff never waits.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.base.is_zero() || self.cap.is_zero()
    }

    /// The longest delay that failure number `failures` (0 = the first) can lead to.
    #[must_use]
    pub fn ceiling(&self, failures: u32) -> Duration {
        if self.is_none() {
            return Duration::ZERO;
        }
        let factor = self.factor.powi(i32::try_from(failures).unwrap_or(i32::MAX));
        let wanted = self.base.as_secs_f64() * factor;
        if wanted.is_finite() && wanted < self.cap.as_secs_f64() {
            Duration::from_secs_f64(wanted)
        } else {
            self.cap
        }
    }

    /// Draws the delay after failure number `failures` (0 = the first).
    pub fn delay(&self, failures: u32, rng: &mut impl Rng) -> Duration {
        self.ceiling(failures).mul_f64(rng.random::<f64>())
    }

    /// The mean of all delays of the first `restarts` restarts added up, used to refuse a spec
    /// whose delays make its intensity unreachable.
    #[must_use]
    pub fn expected_total(&self, restarts: u32) -> Duration {
        // The ceiling stops growing at the cap, so a long sum is short work.
        let mut total = Duration::ZERO;
        for n in 0..restarts {
            let ceiling = self.ceiling(n);
            if ceiling == self.cap {
                return total.saturating_add((self.cap / 2).saturating_mul(restarts - n));
            }
            total = total.saturating_add(ceiling / 2);
        }
        total
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::NONE
    }
}
