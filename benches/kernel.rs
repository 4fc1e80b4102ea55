//! The kernel against raw ractor and kameo, paired in one run.
//!
//! `cargo bench --bench kernel`. Each row is measured round by round, ours, ractor, kameo, ours, …,
//! and a ratio is the median of the rounds' ratios: machines drift, pairs do not. `cpu` is CPU time
//! of the process an operation. The driver is a task on a worker of the same two-threaded runtime.
//! Statistics and backtraces are on; the panic hook is silent for all three. `-- --short` takes a
//! few seconds.
//!
//! ractor has its default features off but for tokio, so it carries no spans, as in our kernel.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a benchmark may panic")]

use std::time::{Duration, Instant};

use cpu_time::ProcessTime;

#[path = "kernel/kameo_peer.rs"]
mod kameo_peer;
#[path = "kernel/ours.rs"]
mod ours;
#[path = "kernel/ractor_peer.rs"]
mod ractor_peer;

/// What a round measured: wall and CPU time, and the time of each operation where it is known.
pub(crate) struct Sample {
    operations: u64,
    wall: Duration,
    cpu: Duration,
    each: Vec<Duration>,
}

impl Sample {
    pub(crate) async fn of(operations: u64, run: impl Future<Output = Vec<Duration>>) -> Self {
        let (wall, cpu) = (Instant::now(), ProcessTime::now());
        let each = run.await;
        Self { operations, wall: wall.elapsed(), cpu: cpu.elapsed(), each }
    }

    fn per_second(&self) -> f64 {
        self.operations as f64 / self.wall.as_secs_f64()
    }

    fn cpu_ns(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.operations as f64
    }

    fn at(&self, share: f64) -> f64 {
        let mut each = self.each.clone();
        each.sort_unstable();
        each[((each.len() - 1) as f64 * share) as usize].as_nanos() as f64 / 1e3
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs `rounds` of ours, ractor and kameo in turn on fresh runtimes.
fn rounds(
    rounds: usize,
    mut run: impl FnMut(&tokio::runtime::Runtime, usize) -> Sample,
) -> [Vec<Sample>; 3] {
    let mut samples = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (peer, samples) in samples.iter_mut().enumerate() {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            samples.push(run(&runtime, peer));
            runtime.shutdown_timeout(Duration::from_secs(10));
        }
    }
    samples
}

/// The median of the rounds' ratios of a figure to a peer's.
fn ratio(samples: &[Vec<Sample>; 3], peer: usize, figure: impl Fn(&Sample) -> f64) -> f64 {
    median(samples[0].iter().zip(&samples[peer]).map(|(a, b)| figure(a) / figure(b)).collect())
}

fn of(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    median(samples.iter().map(figure).collect())
}

macro_rules! each_peer {
    ($runtime:expr, $peer:expr, $bench:ident($($arg:expr),*)) => {
        $runtime.block_on(async {
            match $peer {
                0 => tokio::spawn(ours::$bench($($arg),*)).await.unwrap(),
                1 => tokio::spawn(ractor_peer::$bench($($arg),*)).await.unwrap(),
                _ => tokio::spawn(kameo_peer::$bench($($arg),*)).await.unwrap(),
            }
        })
    };
}

fn rate_row(name: &str, samples: &[Vec<Sample>; 3]) {
    println!(
        "{name:<26} {:>7.2} M/s {:>7.0} ns cpu   {:>5.2} x ractor {:>5.2} x kameo   cpu {:.2} x ractor {:.2} x kameo",
        of(&samples[0], Sample::per_second) / 1e6,
        of(&samples[0], Sample::cpu_ns),
        ratio(samples, 1, Sample::per_second),
        ratio(samples, 2, Sample::per_second),
        ratio(samples, 1, Sample::cpu_ns),
        ratio(samples, 2, Sample::cpu_ns),
    );
}

fn latency_row(name: &str, samples: &[Vec<Sample>; 3]) {
    let p50 = |sample: &Sample| sample.at(0.5);
    println!(
        "{name:<26} {:>7.2} µs p50 {:>6.2} µs p99   {:>5.2} x ractor {:>5.2} x kameo (p50, below 1 is faster)",
        of(&samples[0], p50),
        of(&samples[0], |sample| sample.at(0.99)),
        ratio(samples, 1, p50),
        ratio(samples, 2, p50),
    );
}

/// Memory of an idle child: each system in a process of its own.
fn memory(children: u64) {
    let bytes = |who: &str| -> f64 {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--memory", who, &children.to_string()])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        a.push(bytes("ours"));
        b.push(bytes("ractor"));
        c.push(bytes("kameo"));
    }
    let (a, b, c) = (median(a), median(b), median(c));
    println!(
        "{:<26} {a:>7.0} bytes                {:>5.2} x ractor {:>5.2} x kameo (below 1 is smaller)",
        "idle supervised child",
        a / b,
        a / c
    );
}

/// Resident memory of this process, in bytes.
pub(crate) fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn memory_child(who: &str, children: u64) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let grown = runtime.block_on(async {
        match who {
            "ours" => tokio::spawn(ours::grow(children)).await.unwrap(),
            "ractor" => tokio::spawn(ractor_peer::grow(children)).await.unwrap(),
            _ => tokio::spawn(kameo_peer::grow(children)).await.unwrap(),
        }
    });
    println!("{}", grown / children);
    std::process::exit(0);
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--memory") {
        memory_child(&args[at + 1], args[at + 2].parse().unwrap());
    }
    // Panics that the benchmark asks for are not printed.
    std::panic::set_hook(Box::new(|info| {
        if info.payload_as_str() != Some("told to") {
            eprintln!("{info}");
        }
    }));
    let short = args.iter().any(|arg| arg == "--short" || arg == "--test");
    let (turns, scale) = if short { (1, 20) } else { (7, 1) };

    let tell = 1_000_000 / scale;
    rate_row("tell 1 → 1", &rounds(turns, |rt, peer| each_peer!(rt, peer, tell(tell, 1))));
    rate_row("tell 4 → 1", &rounds(turns, |rt, peer| each_peer!(rt, peer, tell(tell, 4))));
    let ask = 200_000 / scale;
    latency_row("ask", &rounds(turns, |rt, peer| each_peer!(rt, peer, ask(ask))));
    let spawn = 20_000 / scale;
    rate_row("supervised spawn", &rounds(turns, |rt, peer| each_peer!(rt, peer, spawn(spawn))));
    let crash = 4_000 / scale;
    latency_row(
        "error → next life answers",
        &rounds(turns, |rt, peer| each_peer!(rt, peer, crash(crash, false))),
    );
    latency_row(
        "panic → next life answers",
        &rounds(turns, |rt, peer| each_peer!(rt, peer, crash(crash, true))),
    );
    memory(20_000 / scale);
    let crowd = 100_000 / scale;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let [worst, text, heat] = runtime.block_on(ours::look(crowd));
    println!(
        "{:<26} {worst:>7.2} ms the 50 worst {text:>6.2} ms by text {heat:>6.2} ms as bytes",
        format!("look at {crowd}")
    );
}
