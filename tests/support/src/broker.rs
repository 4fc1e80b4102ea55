//! Brokers of one's own: NATS with JetStream, Redis; made, killed and started again by a test.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::wait::eventually;

/// How long a server may take to answer. Long, because test machines are shared.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// A running broker on a port and in a directory of its own. Dropping it kills it.
#[derive(Debug)]
pub struct Broker {
    kind: Kind,
    dir: TempDir,
    port: u16,
    child: Mutex<Option<Child>>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Nats,
    Redis,
}

impl Broker {
    /// A NATS server with JetStream on files.
    ///
    /// # Panics
    /// `nats-server` is not installed (`scripts/test` installs it), or does not start.
    pub async fn nats() -> Self {
        Self::start(Kind::Nats).await
    }

    /// A Redis server that syncs each command to its file before it answers.
    ///
    /// # Panics
    /// `redis-server` is not installed (`scripts/test` installs it), or does not start.
    pub async fn redis() -> Self {
        Self::start(Kind::Redis).await
    }

    /// A NATS server that is not there yet; [`restart`](Self::restart) starts it.
    ///
    /// # Panics
    /// There is no free port.
    #[must_use]
    pub fn nats_that_is_down() -> Self {
        Self::new(Kind::Nats)
    }

    /// A Redis server that is not there yet; [`restart`](Self::restart) starts it.
    ///
    /// # Panics
    /// There is no free port.
    #[must_use]
    pub fn redis_that_is_down() -> Self {
        Self::new(Kind::Redis)
    }

    fn new(kind: Kind) -> Self {
        let port = free_port();
        let dir = TempDir::with_prefix("broker-").expect("a temporary directory");
        Self { kind, dir, port, child: Mutex::new(None) }
    }

    async fn start(kind: Kind) -> Self {
        let broker = Self::new(kind);
        broker.restart().await;
        broker
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = match self.kind {
            Kind::Nats => "nats",
            Kind::Redis => "redis",
        };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Starts it again on the same port and directory, and waits until it answers.
    ///
    /// # Panics
    /// It does not.
    pub async fn restart(&self) {
        let (dir, port) = (self.dir.path().display().to_string(), self.port.to_string());
        let mut command = match self.kind {
            Kind::Nats => {
                // It would allow streams three quarters of the free disk together, which is little
                // on a full one: what tests declare is more than they ever write.
                let config = format!(
                    "listen: \"127.0.0.1:{port}\"\n\
                     jetstream {{ store_dir: \"{dir}\", max_file_store: 1TB }}\n"
                );
                let file = self.dir.path().join("nats.conf");
                std::fs::write(&file, config).expect("a configuration");
                let mut nats = Command::new(find("nats-server"));
                nats.arg("-c").arg(file);
                nats
            }
            Kind::Redis => {
                let mut redis = Command::new(find("redis-server"));
                redis.args(["--bind", "127.0.0.1", "--port", &port, "--dir", &dir]);
                redis.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
                redis
            }
        };
        let log = std::fs::File::create(self.dir.path().join("log")).expect("a log file");
        command.stdin(Stdio::null()).stderr(log.try_clone().expect("a handle")).stdout(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        *self.child.lock().expect("nobody panics with it") = Some(child);
        eventually(START_DEADLINE, async || {
            match TcpStream::connect(("127.0.0.1", self.port)).await {
                Ok(_) => Ok(()),
                Err(error) => Err(format!("{error}: {}", self.log())),
            }
        })
        .await;
    }

    /// Kills it at once.
    ///
    /// # Panics
    /// It does not run.
    pub fn kill9(&self) {
        let child = self.child.lock().expect("nobody panics with it").take();
        let mut child = child.expect("it runs");
        child.kill().expect("it can be killed");
        let _ = child.wait();
    }

    /// Removes all it has kept. It must not run.
    ///
    /// # Panics
    /// A file cannot be removed.
    pub fn forget(&self) {
        for entry in std::fs::read_dir(self.dir.path()).expect("the directory").flatten() {
            let path = entry.path();
            let removed = match path.is_dir() {
                true => std::fs::remove_dir_all(&path),
                false => std::fs::remove_file(&path),
            };
            removed.expect("it can be removed");
        }
    }

    /// What it wrote to its log.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

/// A port that is free now; the server takes it a moment later.
///
/// Not one of those that the system gives to connections: a client that tries to reach a server
/// that is down on such a port can get it for its own end, and is connected with itself.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 10_000).unwrap_or(0);
    (0..10_000)
        .map(|_| 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// Debian keeps servers where a user's PATH does not look.
fn find(program: &str) -> String {
    let near = ["/usr/sbin/", "/usr/bin/", "/usr/local/bin/"].map(|dir| format!("{dir}{program}"));
    near.into_iter()
        .find(|path| std::path::Path::new(path).exists())
        .unwrap_or_else(|| program.to_owned())
}

impl Drop for Broker {
    fn drop(&mut self) {
        let child = self.child.lock().map(|mut child| child.take()).ok().flatten();
        if let Some(mut child) = child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
