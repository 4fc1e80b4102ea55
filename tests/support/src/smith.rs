//! A node as a process of its own: started on an empty directory, killed, started again.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use hyper::body::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::client::Client;
use crate::output::{Line, Output, Stream};

#[cfg(test)]
mod tests;

/// How long a node may take to print its address. Long, because test machines are shared.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// How long the pipes of an ended process may stay open, held by whatever it started.
const PIPE_DEADLINE: Duration = Duration::from_secs(2);

/// A running node on a temporary directory, with a database of its own and a free port.
///
/// ```no_run
/// # async fn test() {
/// use mister_smith_testkit::Smith;
///
/// let mut smith = Smith::start("target/debug/smith").await; // env!("CARGO_BIN_EXE_smith")
/// let (status, _) = smith.get("/healthz").await;
/// assert_eq!(status, 200);
/// smith.kill9().await;
/// smith.restart().await; // the same directory, another port
/// # }
/// ```
///
/// Dropping it kills the process and removes the directory; in a test that panics, it prints what
/// every life wrote.
#[derive(Debug)]
pub struct Smith {
    builder: SmithBuilder,
    dir: TempDir,
    life: Life,
    client: Client,
    /// What earlier lives wrote.
    past: Vec<Vec<Line>>,
}

/// A node to be started.
#[derive(Debug, Clone)]
pub struct SmithBuilder {
    binary: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    bare: bool,
}

/// A node that ended before it printed an address.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote.
    pub lines: Vec<Line>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the node ended with {} before it printed an address", self.status)?;
        self.lines.iter().try_for_each(|line| write!(f, "\n{line}"))
    }
}

impl std::error::Error for Ended {}

impl SmithBuilder {
    /// One more argument, after `run --store … --listen …`.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// A variable of its environment.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Starts it without any argument, inside its directory: what `cargo run` does. Only the port
    /// is free and not the default one.
    pub fn bare(mut self) -> Self {
        self.bare = true;
        self
    }

    /// Starts it on a new directory and waits until it prints its address.
    ///
    /// # Panics
    ///
    /// If it ends instead, or prints none within 30 s; with all that it wrote.
    pub async fn start(self) -> Smith {
        self.try_start().await.unwrap_or_else(|ended| panic!("{ended}"))
    }

    /// As [`start`](Self::start), for nodes that are meant to refuse.
    ///
    /// # Errors
    ///
    /// [`Ended`] if it ends before it prints an address.
    ///
    /// # Panics
    ///
    /// If it does neither within 30 s.
    pub async fn try_start(self) -> Result<Smith, Ended> {
        let dir = TempDir::with_prefix("smith-").expect("a temporary directory");
        let (life, addr) = self.spawn(dir.path()).await?;
        Ok(Smith { builder: self, dir, life, client: Client::new(addr), past: Vec::new() })
    }

    async fn spawn(&self, dir: &Path) -> Result<(Life, SocketAddr), Ended> {
        let mut store = OsString::from("sqlite://");
        store.push(dir.join("smith.db"));
        let mut command = Command::new(&self.binary);
        if self.bare {
            command.current_dir(dir).env("SMITH_LISTEN", "127.0.0.1:0").env_remove("SMITH_STORE");
        } else {
            command.args(["run", "--store"]).arg(store).args(["--listen", "127.0.0.1:0"]);
        }
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        let mut life = Life::start(command, &self.binary);
        let end = Instant::now() + START_DEADLINE;
        let addr = tokio::select! {
            biased;
            addr = life.output.find(address) => addr,
            status = life.child.wait() => {
                let status = status.expect("a child can be waited for");
                life.read_to_end().await;
                return Err(Ended { status, lines: life.output.lines() });
            }
            () = tokio::time::sleep_until(end) => {
                let lines = show(&life.output.lines());
                panic!("no address within {START_DEADLINE:?}; the node wrote:{lines}");
            }
        };
        Ok((life, addr))
    }
}

/// The address in a line of standard output that announces one.
fn address(line: &Line) -> Option<SocketAddr> {
    if line.stream != Stream::Stdout {
        return None;
    }
    let (_, rest) = line.text.split_once("http://127.0.0.1:")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let port: u16 = rest[..digits].parse().ok()?;
    Some(SocketAddr::from(([127, 0, 0, 1], port)))
}

impl Smith {
    /// A node with default arguments; `binary` is `env!("CARGO_BIN_EXE_smith")` in a test.
    ///
    /// # Panics
    ///
    /// As [`SmithBuilder::start`].
    pub async fn start(binary: impl Into<PathBuf>) -> Self {
        Self::builder(binary).start().await
    }

    /// A node with arguments and environment of your choice.
    pub fn builder(binary: impl Into<PathBuf>) -> SmithBuilder {
        SmithBuilder { binary: binary.into(), args: Vec::new(), env: Vec::new(), bare: false }
    }

    /// The directory that its database is in; it stays the same over restarts.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where it listens; another port after a restart.
    pub fn addr(&self) -> SocketAddr {
        self.client.addr()
    }

    /// A client for its address, whose failures are values. Ask again after a restart.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// `GET path`: status, and the body as JSON (as a JSON string if it is no JSON).
    ///
    /// # Panics
    ///
    /// If no complete answer comes; use [`client`](Self::client) where that may be.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        match self.client.get(path).await {
            Ok(answer) => answer,
            Err(error) => panic!("GET {path}: {error}"),
        }
    }

    /// `POST /api/v1/data/ingest`: status, and the body as JSON.
    ///
    /// # Panics
    ///
    /// As [`get`](Self::get).
    pub async fn post_ingest(&self, content_type: &str, body: impl Into<Bytes>) -> (u16, Value) {
        match self.client.post_ingest(content_type, body).await {
            Ok(answer) => answer,
            Err(error) => panic!("POST /api/v1/data/ingest: {error}"),
        }
    }

    /// What this life wrote so far, both streams, in the order of arrival.
    pub fn output(&self) -> Vec<Line> {
        self.life.output.lines()
    }

    /// Waits until this life writes, or has written, a line that contains `text`.
    ///
    /// # Panics
    ///
    /// At the deadline, with all that it wrote.
    pub async fn wait_for_line(&self, text: &str, deadline: Duration) -> Line {
        let wanted = |line: &Line| line.text.contains(text).then(|| line.clone());
        match timeout(deadline, self.life.output.find(wanted)).await {
            Ok(line) => line,
            Err(_) => {
                let lines = show(&self.output());
                panic!("no line with {text:?} within {deadline:?}; the node wrote:{lines}")
            }
        }
    }

    /// Ends the process as a power cut would (SIGKILL) and waits until it is gone.
    pub async fn kill9(&mut self) {
        self.life.signal(Signal::KILL);
        self.wait(Duration::from_secs(10)).await;
    }

    /// Asks it to stop (SIGTERM); follow with [`wait`](Self::wait). A second one means at once.
    pub fn terminate(&self) {
        self.life.signal(Signal::TERM);
    }

    /// Asks it to stop as Ctrl-C does (SIGINT).
    pub fn interrupt(&self) {
        self.life.signal(Signal::INT);
    }

    /// Waits until it ended and all its output is in.
    ///
    /// # Panics
    ///
    /// At the deadline, with all that it wrote.
    pub async fn wait(&mut self, deadline: Duration) -> ExitStatus {
        match timeout(deadline, self.life.child.wait()).await {
            Ok(status) => {
                self.life.read_to_end().await;
                status.expect("a child can be waited for")
            }
            Err(_) => {
                let lines = show(&self.output());
                panic!("still running after {deadline:?}; the node wrote:{lines}")
            }
        }
    }

    /// Starts it again on the same directory, after it ended.
    ///
    /// # Panics
    ///
    /// If it still runs, and as [`SmithBuilder::start`].
    pub async fn restart(&mut self) {
        let running = matches!(self.life.child.try_wait(), Ok(None));
        assert!(!running, "the node still runs; kill it, or terminate and wait, before a restart");
        self.past.push(self.life.output.lines());
        match self.builder.spawn(self.dir.path()).await {
            Ok((life, addr)) => (self.life, self.client) = (life, Client::new(addr)),
            Err(ended) => panic!("{ended}"),
        }
    }
}

impl Drop for Smith {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lives = self.past.iter().cloned().chain([self.output()]);
            for (number, lines) in (1..).zip(lives) {
                eprintln!("life {number} of the node wrote:{}", show(&lines));
            }
        }
    }
}

fn show(lines: &[Line]) -> String {
    lines.iter().map(|line| format!("\n  {line}")).collect()
}

/// One life of the process; the child is killed when this is dropped.
#[derive(Debug)]
struct Life {
    child: Child,
    output: Output,
    readers: Vec<JoinHandle<()>>,
}

impl Life {
    fn start(mut command: Command, binary: &Path) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = match command.kill_on_drop(true).spawn() {
            Ok(child) => child,
            Err(error) => panic!("{} cannot be started: {error}", binary.display()),
        };
        let output = Output::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let readers =
            vec![output.read(Stream::Stdout, stdout), output.read(Stream::Stderr, stderr)];
        Self { child, output, readers }
    }

    /// Does nothing to a process that was waited for: its id may be another's by now.
    fn signal(&self, signal: Signal) {
        let id = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(id) = id {
            // An error means that it ended and is not waited for yet: what the signal is to do.
            let _ = kill_process(id, signal);
        }
    }

    async fn read_to_end(&mut self) {
        let end = Instant::now() + PIPE_DEADLINE;
        for reader in self.readers.drain(..) {
            let abort = reader.abort_handle();
            if timeout_at(end, reader).await.is_err() {
                abort.abort();
            }
        }
    }
}
