//! Erlang/OTP, if it is installed: a node of its own, driven by lines (see `otp_peer.erl`).
//!
//! There are two of them. OTP's schedulers busy-wait by default, which is quick and makes CPU time
//! meaningless; so wall time comes from a node with the default flags and CPU time from one that
//! does not busy-wait.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::Work;
use super::measure::Sample;

/// As many schedulers as our runtimes have workers.
const FLAGS: [&str; 2] = ["+S", "2:2"];
const CALM: [&str; 6] = ["+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"];

pub(crate) struct Otp {
    /// For wall time.
    quick: Node,
    /// For CPU time.
    calm: Node,
    code: TempDir,
}

impl Otp {
    /// `None` when Erlang/OTP is not on the `PATH`.
    pub(crate) fn start() -> Option<Self> {
        let code = tempfile::tempdir().unwrap();
        let source = code.path().join("otp_peer.erl");
        std::fs::write(&source, include_str!("otp_peer.erl")).unwrap();
        let compiled =
            Command::new("erlc").current_dir(code.path()).arg("otp_peer.erl").status().ok()?;
        assert!(compiled.success(), "otp_peer.erl does not compile");
        let mut otp = Self {
            quick: Node::start(code.path(), &[])?,
            calm: Node::start(code.path(), &CALM)?,
            code,
        };
        // Modules are loaded at their first use.
        for node in [&mut otp.quick, &mut otp.calm] {
            for line in ["cast 1000 1 1", "ask 1000", "spawn 100", "crash 10 0", "crash 10 1"] {
                node.command(line);
            }
        }
        Some(otp)
    }

    pub(crate) fn describe(&self) -> String {
        let [release, erts, flavor] = &self.quick.version;
        format!(
            "Erlang/OTP {release} (erts {erts}, {flavor}): wall time with `erl {}`, CPU time and \
             memory with `erl {} {}`",
            FLAGS.join(" "),
            FLAGS.join(" "),
            CALM.join(" ")
        )
    }

    /// A round: wall time and latencies of one node, CPU time of the other.
    pub(crate) fn run(&mut self, work: Work, cast: bool) -> Sample {
        let line = match work {
            Work::Tell { count, senders } if cast => format!("cast {count} {senders} 1"),
            Work::Tell { count, senders } => format!("tell {count} {senders} 1"),
            Work::Ask { count } => format!("ask {count}"),
            Work::Spawn { count } => format!("spawn {count}"),
            Work::Crash { count, panics } => format!("crash {count} {}", u8::from(panics)),
        };
        let quick = self.quick.command(&line);
        let calm = self.calm.command(&line);
        Sample {
            operations: work.count(),
            wall: Duration::from_nanos(quick[0]),
            // The node's own figure comes in whole milliseconds.
            cpu: Duration::from_millis(calm[1].max(1)),
            p50: Duration::from_nanos(quick[2]),
            p99: Duration::from_nanos(quick[3]),
        }
    }

    /// Bytes of an idle `gen_server` below a supervisor, and of a bare process, each on a node of
    /// its own.
    pub(crate) fn memory(&self, children: u64) -> [f64; 2] {
        ["grow", "bare"].map(|what| {
            let mut node = Node::start(self.code.path(), &CALM).unwrap();
            node.command(&format!("{what} {children}"))[0] as f64
        })
    }
}

struct Node {
    child: Child,
    lines_in: ChildStdin,
    lines_out: BufReader<ChildStdout>,
    version: [String; 3],
}

impl Node {
    fn start(code: &Path, flags: &[&str]) -> Option<Self> {
        let mut child = Command::new("erl")
            .args(FLAGS)
            .args(flags)
            .args(["-noshell", "-s", "otp_peer", "main"])
            .current_dir(code)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let lines_in = child.stdin.take().unwrap();
        let lines_out = BufReader::new(child.stdout.take().unwrap());
        let mut node = Self { child, lines_in, lines_out, version: Default::default() };
        let ready = node.line();
        let mut words = ready.split_whitespace().skip(1).map(str::to_owned);
        node.version = std::array::from_fn(|_| words.next().unwrap_or_default());
        Some(node)
    }

    fn command(&mut self, line: &str) -> Vec<u64> {
        writeln!(self.lines_in, "{line}").unwrap();
        let answer = self.line();
        let figures = answer.strip_prefix("ok").unwrap_or_else(|| panic!("{line}: {answer}"));
        figures.split_whitespace().map(|figure| figure.parse().unwrap()).collect()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines_out.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
