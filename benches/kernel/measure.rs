//! What a round measured, and how rounds become one figure.

use std::time::{Duration, Instant};

use cpu_time::ProcessTime;

/// One round of one peer: wall and CPU time of all its operations, and the time of a single one
/// where each was timed.
#[derive(Clone, Default)]
pub(crate) struct Sample {
    pub(crate) operations: u64,
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Sample {
    pub(crate) async fn of(operations: u64, run: impl Future<Output = Vec<Duration>>) -> Self {
        let (wall, cpu) = (Instant::now(), ProcessTime::now());
        let each = run.await;
        Self::new(operations, wall.elapsed(), cpu.elapsed(), each)
    }

    /// CPU time also of what the operations left behind. A spawn may return before the new actor
    /// was polled for the first time, and that poll is part of its price.
    pub(crate) async fn settled(operations: u64, run: impl Future<Output = ()>) -> Self {
        let (began, cpu) = (Instant::now(), ProcessTime::now());
        run.await;
        let wall = began.elapsed();
        for _ in 0..200 {
            let before = cpu.elapsed();
            tokio::time::sleep(Duration::from_millis(5)).await;
            if cpu.elapsed() - before < Duration::from_micros(250) {
                break;
            }
        }
        Self::new(operations, wall, cpu.elapsed(), Vec::new())
    }

    fn new(operations: u64, wall: Duration, cpu: Duration, mut each: Vec<Duration>) -> Self {
        each.sort_unstable();
        let at = |percent: usize| {
            let last = each.len().saturating_sub(1);
            each.get(last * percent / 100).copied().unwrap_or_default()
        };
        Self { operations, wall, cpu, p50: at(50), p99: at(99) }
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.operations as f64 / self.wall.as_secs_f64()
    }

    pub(crate) fn cpu_ns(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.operations as f64
    }

    pub(crate) fn p50_us(&self) -> f64 {
        self.p50.as_secs_f64() * 1e6
    }

    pub(crate) fn p99_us(&self) -> f64 {
        self.p99.as_secs_f64() * 1e6
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Resident memory of this process, in bytes.
pub(crate) fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// A figure of ours against a peer's: the median of the rounds' ratios, and the two ends.
#[derive(Clone, Copy)]
pub(crate) struct Ratio {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Ratio {
    pub(crate) fn of(ours: &[Sample], theirs: &[Sample], figure: impl Fn(&Sample) -> f64) -> Self {
        Self::new(ours.iter().zip(theirs).map(|(a, b)| figure(a) / figure(b)).collect())
    }

    pub(crate) fn new(mut ratios: Vec<f64>) -> Self {
        ratios.sort_by(f64::total_cmp);
        Self { median: ratios[ratios.len() / 2], least: ratios[0], most: ratios[ratios.len() - 1] }
    }
}
