//! How many restarts are too many.

use std::collections::VecDeque;
use std::time::Duration;

/// At most this many restarts within a period; one more, and the supervisor gives up.
///
/// The sketches' `Escalate` policy is an intensity of 0: the first failure goes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts allowed within `period`.
    pub restarts: u32,
    /// The length of the window.
    pub period: Duration,
}

impl Intensity {
    /// `restarts` within `period`.
    #[must_use]
    pub const fn new(restarts: u32, period: Duration) -> Self {
        Self { restarts, period }
    }
}

impl Default for Intensity {
    /// One restart in five seconds, as OTP.
    fn default() -> Self {
        Self::new(1, Duration::from_secs(5))
    }
}

/// How much of an intensity is used up. More than `max` is one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntensityUse {
    /// Restarts within the last period.
    pub used: u32,
    /// Restarts allowed within one.
    pub max: u32,
    /// The length of the window.
    pub period: Duration,
}

/// The restarts of the recent past: an exact sliding window.
///
/// OTP counts in whole seconds, so that two crashes 1.1 s apart are inside or outside a period of
/// 1 s by phase. Here a restart counts for exactly one period.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Never longer than the intensity plus one.
    restarts: VecDeque<Duration>,
}

impl Window {
    /// Counts a restart at `now` (any clock that does not go backwards) and says whether it is
    /// one too many.
    pub fn exceeds(&mut self, now: Duration, intensity: Intensity) -> bool {
        while self.restarts.front().is_some_and(|&at| now.saturating_sub(at) > intensity.period) {
            self.restarts.pop_front();
        }
        self.restarts.push_back(now);
        let allowed = usize::try_from(intensity.restarts).unwrap_or(usize::MAX);
        let exceeded = self.restarts.len() > allowed;
        if exceeded {
            // The limit may be lowered at run time: what is older can never matter again.
            while self.restarts.len() > allowed + 1 {
                self.restarts.pop_front();
            }
        }
        exceeded
    }

    /// Restarts still allowed at `now` before the next one is too many.
    #[must_use]
    pub fn left(&self, now: Duration, intensity: Intensity) -> u32 {
        intensity.restarts.saturating_sub(self.in_use(now, intensity).used)
    }

    /// What is used up at `now`.
    #[must_use]
    pub fn in_use(&self, now: Duration, intensity: Intensity) -> IntensityUse {
        let counted =
            self.restarts.iter().filter(|&&at| now.saturating_sub(at) <= intensity.period).count();
        let used = u32::try_from(counted).unwrap_or(u32::MAX);
        IntensityUse { used, max: intensity.restarts, period: intensity.period }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_IN_A_SECOND: Intensity = Intensity::new(2, Duration::from_secs(1));

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn one_more_than_the_intensity_is_too_many() {
        let mut window = Window::default();
        assert!(!window.exceeds(ms(0), TWO_IN_A_SECOND));
        assert!(!window.exceeds(ms(10), TWO_IN_A_SECOND));
        assert!(window.exceeds(ms(20), TWO_IN_A_SECOND));
    }

    #[test]
    fn a_restart_counts_for_exactly_one_period() {
        for phase in [0, 20, 500, 950, 999] {
            let mut window = Window::default();
            assert!(!window.exceeds(ms(phase), TWO_IN_A_SECOND));
            assert!(!window.exceeds(ms(phase + 500), TWO_IN_A_SECOND));
            assert!(!window.clone().exceeds(ms(phase + 1_001), TWO_IN_A_SECOND), "phase {phase}");
            assert!(window.exceeds(ms(phase + 1_000), TWO_IN_A_SECOND), "phase {phase}");
        }
    }

    #[test]
    fn intensity_zero_escalates_at_once() {
        assert!(Window::default().exceeds(ms(0), Intensity::new(0, ms(1_000))));
    }

    #[test]
    fn what_is_left_counts_down_and_recovers() {
        let mut window = Window::default();
        assert_eq!(window.left(ms(0), TWO_IN_A_SECOND), 2);
        window.exceeds(ms(0), TWO_IN_A_SECOND);
        assert_eq!(window.left(ms(0), TWO_IN_A_SECOND), 1);
        assert_eq!(window.left(ms(1_001), TWO_IN_A_SECOND), 2);
    }
}
