//! The peer: cqrs-es with postgres-es, a program of the workspace `benches/peers`, built when the
//! bench begins. It waits between its rounds, so that the two take turns in one run.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use mister_smith_testkit::Postgres;

pub(crate) struct Peer {
    process: Child,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Builds the program, into a directory of its own, and starts it.
    pub(crate) fn start() -> Self {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/Cargo.toml");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers");
        let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--quiet", "--release", "--locked", "--manifest-path"])
            .arg(manifest)
            .arg("--target-dir")
            .arg(&target)
            .status();
        assert!(built.unwrap().success(), "benches/peers does not build");
        let mut process = Command::new(target.join("release/cqrs-es"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self { process, answers }
    }

    /// Commands a second in a new database, with as many aggregates at once.
    pub(crate) async fn commands(
        &mut self,
        server: &Postgres,
        at_once: usize,
        time: Duration,
    ) -> f64 {
        let url = server.create_database().await;
        let stdin = self.process.stdin.as_mut().unwrap();
        writeln!(stdin, "{at_once} {} {url}", time.as_millis()).unwrap();
        stdin.flush().unwrap();
        let mut answer = String::new();
        tokio::task::block_in_place(|| self.answers.read_line(&mut answer)).unwrap();
        answer.trim().parse().expect("the peer answers with a rate")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The end of its input is its end.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}
