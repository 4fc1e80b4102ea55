//! The kernel against raw ractor, kameo and Erlang/OTP, paired in one run.
//!
//! `cargo bench --bench kernel`. Each row is measured round by round, ours, ractor, kameo, OTP,
//! ours, …, and a ratio is the median of the rounds' ratios: machines drift, pairs do not. `cpu` is
//! CPU time of the whole process per operation. The driver is a task on a worker of the same
//! two-threaded runtime. Statistics and backtraces are on; the panic hook is silent for all three.
//!
//! - `-- --goals` ends with each goal of the kernel and whether this run reached it.
//! - `-- --million` adds a million idle actors in one process.
//! - `-- --short` takes a few seconds; its figures only show that everything runs.
//!
//! ractor has its default features off but for tokio, so it carries no spans, as in our kernel. Its
//! mailbox has no bound; ours and kameo's hold 1,024, and OTP's senders wait for acknowledgements
//! so that at most 1,024 are on their way. Without Erlang/OTP on the `PATH` its rows are left out.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a benchmark may panic")]

use std::time::{Duration, Instant};

#[path = "kernel/goals.rs"]
mod goals;
#[path = "kernel/kameo_peer.rs"]
mod kameo_peer;
#[path = "kernel/late.rs"]
mod late;
#[path = "kernel/measure.rs"]
mod measure;
#[path = "kernel/million.rs"]
mod million;
#[path = "kernel/otp.rs"]
mod otp;
#[path = "kernel/ours.rs"]
mod ours;
#[path = "kernel/ractor_peer.rs"]
mod ractor_peer;

use goals::{Reached, Rows};
use measure::{Ratio, Sample, median};
use otp::Otp;

/// What a round does.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    Tell { count: u64, senders: u64 },
    Ask { count: u64 },
    Spawn { count: u64 },
    Crash { count: u64, panics: bool },
}

impl Work {
    pub(crate) fn count(self) -> u64 {
        match self {
            Self::Tell { count, .. }
            | Self::Ask { count }
            | Self::Spawn { count }
            | Self::Crash { count, .. } => count,
        }
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A round of one Rust peer, on a fresh runtime.
macro_rules! round {
    ($peer:ident, $work:expr) => {{
        let runtime = runtime();
        let sample = runtime.block_on(async {
            tokio::spawn(async move {
                match $work {
                    Work::Tell { count, senders } => $peer::tell(count, senders).await,
                    Work::Ask { count } => $peer::ask(count).await,
                    Work::Spawn { count } => $peer::spawn(count).await,
                    Work::Crash { count, panics } => $peer::crash(count, panics).await,
                }
            })
            .await
            .unwrap()
        });
        runtime.shutdown_timeout(Duration::from_secs(10));
        sample
    }};
}

/// Runs the rounds of all peers in turn.
fn rounds(turns: usize, otp: &mut Option<Otp>, work: Work) -> Rows {
    let mut rows = Rows::default();
    for _ in 0..turns {
        rows.ours.push(round!(ours, work));
        rows.ractor.push(round!(ractor_peer, work));
        rows.kameo.push(round!(kameo_peer, work));
        if let Some(otp) = otp {
            rows.otp.push(otp.run(work, false));
            if matches!(work, Work::Tell { .. }) {
                rows.otp_cast.push(otp.run(work, true));
            }
        }
    }
    rows
}

fn of(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    median(samples.iter().map(figure).collect())
}

/// A line for each peer with its own figures, and ours against them.
fn row(name: &str, work: Work, rows: &Rows) {
    let by_rate = matches!(work, Work::Tell { .. } | Work::Spawn { .. });
    let otp_name = match work {
        Work::Tell { .. } => "OTP, bare process",
        _ => "OTP, gen_server",
    };
    for (peer, samples) in [
        ("ours", &rows.ours),
        ("ractor", &rows.ractor),
        ("kameo", &rows.kameo),
        (otp_name, &rows.otp),
        ("OTP, gen_server:cast", &rows.otp_cast),
    ] {
        if samples.is_empty() {
            continue;
        }
        let name = if peer == "ours" { name } else { "" };
        let figures = if by_rate {
            format!("{:>7.2} M/s", of(samples, Sample::per_second) / 1e6)
        } else {
            format!(
                "{:>7.2} µs p50 {:>7.2} µs p99",
                of(samples, Sample::p50_us),
                of(samples, Sample::p99_us)
            )
        };
        print!("{name:<26} {peer:<21} {figures:<28} {:>7.0} ns cpu", of(samples, Sample::cpu_ns));
        if peer != "ours" {
            let quick = if by_rate { Sample::per_second } else { Sample::p50_us };
            let quick = Ratio::of(&rows.ours, samples, quick);
            let cpu = Ratio::of(&rows.ours, samples, Sample::cpu_ns);
            let what = if by_rate { "rate" } else { "p50 " };
            print!("   ours: {what} {:>5.2} x, cpu {:>5.2} x", quick.median, cpu.median);
        }
        println!();
    }
}

/// Memory of an idle child: each system in a process of its own. Returns ours against ractor's.
fn memory(turns: usize, children: u64, otp: Option<&Otp>) -> Ratio {
    let bytes = |who: &str| -> f64 {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--memory", who, &children.to_string()])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    let names = ["ours", "ractor", "kameo", "OTP, gen_server", "OTP, bare process"];
    let mut all: [Vec<f64>; 5] = Default::default();
    for _ in 0..turns {
        for (bytes_of, who) in all.iter_mut().zip(&names[..3]) {
            bytes_of.push(bytes(who));
        }
        if let Some(otp) = otp {
            let [server, bare] = otp.memory(children);
            all[3].push(server);
            all[4].push(bare);
        }
    }
    let against = |peer: &[f64]| Ratio::new(all[0].iter().zip(peer).map(|(a, b)| a / b).collect());
    for (who, bytes) in names.iter().zip(&all) {
        if bytes.is_empty() {
            continue;
        }
        let name = if *who == "ours" { "idle supervised child" } else { "" };
        print!("{name:<26} {who:<21} {:>7.0} bytes", median(bytes.clone()));
        if *who != "ours" {
            print!("{:<35}ours: {:.2} x", "", against(bytes).median);
        }
        println!();
    }
    against(&all[1])
}

fn memory_child(who: &str, children: u64) -> ! {
    let grown = runtime().block_on(async {
        match who {
            "ours" => tokio::spawn(ours::grow(children)).await.unwrap(),
            "ractor" => tokio::spawn(ractor_peer::grow(children)).await.unwrap(),
            _ => tokio::spawn(kameo_peer::grow(children)).await.unwrap(),
        }
    });
    println!("{}", grown / children);
    std::process::exit(0);
}

fn look(actors: u64) {
    let [worst, text, heat] = runtime().block_on(ours::look(actors));
    println!(
        "{:<26} {worst:.2} ms the 50 worst, {text:.2} ms by text, {heat:.2} ms as bytes",
        format!("look at {actors}")
    );
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let flag = |name: &str| args.iter().any(|arg| arg == name);
    if let Some(at) = args.iter().position(|arg| arg == "--memory") {
        memory_child(&args[at + 1], args[at + 2].parse().unwrap());
    }
    if let Some(at) = args.iter().position(|arg| arg == "--million-child") {
        million::child(args[at + 1].parse().unwrap());
    }
    // Panics that the benchmark asks for are not printed.
    std::panic::set_hook(Box::new(|info| {
        if info.payload_as_str() != Some("told to") {
            eprintln!("{info}");
        }
    }));
    let short = flag("--short") || flag("--test");
    let (turns, scale) = if short { (1, 20) } else { (7, 1) };

    let began = Instant::now();
    let mut otp = Otp::start();
    match &otp {
        Some(otp) => println!("{}\n", otp.describe()),
        None => println!("Erlang/OTP: not installed (Debian: erlang-base)\n"),
    }
    let mut measure = |name: &str, work: Work| {
        let rows = rounds(turns, &mut otp, work);
        row(name, work, &rows);
        rows
    };
    let tell = |senders| Work::Tell { count: 1_000_000 / scale, senders };
    let crash = |panics| Work::Crash { count: 4_000 / scale, panics };
    let mut reached = Reached {
        tell: measure("tell 1 → 1", tell(1)),
        tell_by_four: measure("tell 4 → 1", tell(4)),
        ask: measure("ask", Work::Ask { count: 200_000 / scale }),
        spawn: measure("supervised spawn", Work::Spawn { count: 20_000 / scale }),
        error: measure("error → next life answers", crash(false)),
        panic: measure("panic → next life answers", crash(true)),
        ..Reached::default()
    };
    reached.idle_child = Some(memory(turns.min(3), 100_000 / scale, otp.as_ref()));
    // A node that busy-waits is not to disturb what is measured alone.
    drop(otp);
    reached.late_ms = Some(late::rows(Duration::from_millis(if short { 60 } else { 1_000 })));
    look(100_000 / scale);
    if flag("--million") {
        reached.million_bytes = Some(million::rows());
    }
    if flag("--goals") {
        goals::print(&reached);
    }
    println!("\n{:.0} s", began.elapsed().as_secs_f64());
}
