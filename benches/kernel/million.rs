//! A million idle actors in one process: `-- --million`.
//!
//! Each row is a process of its own, so that its memory is its own. It ends without a shutdown.

use std::time::{Duration, Instant};

use super::measure::resident;
use super::{ours, runtime};

const ACTORS: u64 = 1_000_000;

/// Prints a row for each number of supervisors; returns the resident bytes of the first.
pub(crate) fn rows() -> f64 {
    let mut first = None;
    for supervisors in [1_u64, 4] {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--million-child", &supervisors.to_string()])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let figures: Vec<f64> =
            text.split_whitespace().map(|figure| figure.parse().unwrap()).collect();
        let &[actors, seconds, bytes, look_ms] = figures.as_slice() else {
            panic!("the child process said {text:?}: {:?}", output.status);
        };
        assert_eq!(actors as u64, ACTORS);
        println!(
            "{:<26} {seconds:>6.1} s to spawn, {:>5.2} GB resident, {:>5.0} bytes each, a look {look_ms:.0} ms",
            format!("1,000,000 under {supervisors}"),
            bytes / 1e9,
            bytes / ACTORS as f64,
        );
        first.get_or_insert(bytes);
    }
    first.unwrap_or_default()
}

/// What the child process prints: actors, seconds, resident bytes, milliseconds of a look.
pub(crate) fn child(supervisors: u64) -> ! {
    runtime().block_on(async {
        let began = Instant::now();
        let crowd = tokio::spawn(ours::crowd(ACTORS, supervisors)).await.unwrap();
        let spawned = began.elapsed();
        let bytes = resident();
        let mut looks: Vec<Duration> = (0..3)
            .map(|_| {
                let began = Instant::now();
                crowd.look();
                began.elapsed()
            })
            .collect();
        looks.sort_unstable();
        println!(
            "{} {} {bytes} {}",
            crowd.count(),
            spawned.as_secs_f64(),
            looks[1].as_secs_f64() * 1e3
        );
        std::process::exit(0)
    })
}
