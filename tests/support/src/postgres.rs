//! A PostgreSQL server of one's own: made, killed and started again by a test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::broker::free_port;
use crate::wait::eventually;

/// How long the server may take to answer. Long, because test machines are shared.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// What a server with TLS shows and asks for, as PEM.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// The server's certificate, for `localhost`.
    pub certificate: String,
    /// The key of that certificate.
    pub key: String,
    /// Clients need a certificate of this authority.
    pub clients: Option<String>,
}

/// A running server with an empty cluster in a temporary directory, reached over a Unix socket
/// only unless it has TLS, with `fsync` on as in real life.
///
/// ```no_run
/// # async fn test() {
/// use mister_smith_testkit::Postgres;
///
/// let server = Postgres::start().await;
/// let url = server.create_database().await;
/// server.kill9().await;
/// server.restart().await; // the same cluster: it recovers from its log
/// # }
/// ```
///
/// Dropping it kills the server and removes the directory.
#[derive(Debug)]
pub struct Postgres {
    dir: TempDir,
    programs: PathBuf,
    databases: AtomicU32,
    /// The port on `localhost` of a server with TLS.
    port: Option<u16>,
}

impl Postgres {
    /// Makes a cluster and starts its server.
    ///
    /// # Panics
    ///
    /// PostgreSQL is not installed (`scripts/test` installs it), or does not start.
    pub async fn start() -> Self {
        Self::begin(None).await
    }

    /// The same, and it is reached over TLS at [`address`](Self::address), and at that only by TLS.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub async fn start_with_tls(tls: ServerTls) -> Self {
        Self::begin(Some(tls)).await
    }

    async fn begin(tls: Option<ServerTls>) -> Self {
        let dir = TempDir::with_prefix("pg-").expect("a temporary directory");
        let port = tls.as_ref().map(|_| free_port());
        let server = Self { dir, programs: programs(), databases: AtomicU32::new(0), port };
        let data = server.data();
        if is_root() {
            // The server refuses to run as root; its directory has to be another user's.
            run(Command::new("chown").arg("postgres").arg(server.dir.path()));
            run(Command::new("chmod").arg("755").arg(server.dir.path()));
        }
        let mut initdb = server.command("initdb");
        initdb.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale"]);
        initdb.arg("--no-sync").arg("--pgdata").arg(&data);
        blocking(move || run(&mut initdb)).await;
        if let Some(tls) = tls {
            server.put(&tls);
        }
        server.restart().await;
        server
    }

    /// Puts the files of TLS into the cluster.
    fn put(&self, tls: &ServerTls) {
        let clients = tls.clients.as_deref();
        let checked = clients.map_or("", |_| "clientcert=verify-ca");
        let access = format!("local all all trust\nhostssl all all all trust {checked}\n");
        for (name, text) in [
            ("server.crt", &*tls.certificate),
            ("server.key", &*tls.key),
            ("root.crt", clients.unwrap_or_default()),
            ("pg_hba.conf", &*access),
        ] {
            let path = self.data().join(name);
            std::fs::write(&path, text).expect("the cluster's directory can be written");
            run(Command::new("chmod").arg("600").arg(&path));
            if is_root() {
                run(Command::new("chown").arg("postgres").arg(&path));
            }
        }
    }

    /// The address of a database on a server with TLS, for parameters to be added.
    ///
    /// # Panics
    ///
    /// The server has none.
    pub fn address(&self, database: &str) -> String {
        let port = self.port.expect("a server with TLS");
        format!("postgres://postgres@localhost:{port}/{database}")
    }

    /// The address of a database, for `--store`.
    pub fn url(&self, database: &str) -> String {
        let port = self.port.map_or_else(String::new, |port| format!("&port={port}"));
        format!("postgres:///{database}?host={}&user=postgres{port}", self.dir.path().display())
    }

    /// Makes an empty database, and answers its address.
    ///
    /// # Panics
    ///
    /// The server does not answer.
    pub async fn create_database(&self) -> String {
        let name = format!("db{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("create database {name}")).await;
        self.url(&name)
    }

    /// Makes a database that is the copy of another one, which nobody may be connected to, and
    /// answers its address.
    ///
    /// # Panics
    ///
    /// The server does not answer, or somebody stays connected.
    pub async fn copy_of_database(&self, template: &str) -> String {
        let name = format!("db{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("create database {name} template {template}")).await;
        self.url(&name)
    }

    /// Runs SQL in a database with `psql`, and answers its output: fields by `|`, rows by lines.
    ///
    /// # Panics
    ///
    /// It fails.
    pub async fn sql(&self, database: &str, sql: &str) -> String {
        let mut psql = self.psql(database);
        psql.arg("--command").arg(sql);
        blocking(move || run(&mut psql)).await
    }

    fn psql(&self, database: &str) -> Command {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--username=postgres"]);
        psql.arg("--set=ON_ERROR_STOP=1").arg("--host").arg(self.dir.path());
        psql.arg("--dbname").arg(database);
        if let Some(port) = self.port {
            psql.arg("--port").arg(port.to_string());
        }
        psql
    }

    /// Kills the server and everything it runs, at once, as a crash of the machine would: what it
    /// had not synced to its log is gone.
    ///
    /// # Panics
    ///
    /// It cannot be killed.
    pub async fn kill9(&self) {
        let (mut stop, data) = (self.command("pg_ctl"), self.data());
        blocking(move || run(stop.args(["stop", "--mode=immediate", "-D"]).arg(data))).await;
    }

    /// Starts the server again, and waits until it answers.
    ///
    /// # Panics
    ///
    /// It does not.
    pub async fn restart(&self) {
        let mut start = self.command("pg_ctl");
        let socket = self.dir.path().display().to_string();
        // Unix sockets only, unless it has TLS: two clusters cannot meet on a port.
        let reached = match self.port {
            None => "-c listen_addresses=''".to_owned(),
            Some(port) => format!(
                "-c listen_addresses=localhost -c port={port} -c ssl=on \
                 -c ssl_cert_file=server.crt -c ssl_key_file=server.key -c ssl_ca_file=root.crt"
            ),
        };
        let options = format!(
            "{reached} -c unix_socket_directories='{socket}' -c max_connections=200 \
             -c shared_buffers=256MB -c max_wal_size=2GB -c checkpoint_timeout=30min"
        );
        start.args(["start", "--no-wait", "--silent", "-D"]).arg(self.data());
        start.arg("-l").arg(self.dir.path().join("log")).arg("-o").arg(options);
        blocking(move || run(&mut start)).await;
        eventually(START_DEADLINE, async || {
            let mut psql = self.psql("postgres");
            psql.args(["--command", "select 1"]);
            blocking(move || tried(&mut psql)).await
        })
        .await;
    }

    /// What the server wrote to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A program of PostgreSQL, run as somebody who is not root.
    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        if !is_root() {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        command.arg(program).current_dir("/");
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let mut stop = self.command("pg_ctl");
        stop.args(["stop", "--mode=immediate", "-D"]).arg(self.data());
        let _ = stop.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where the newest installed PostgreSQL has its programs. Debian keeps them out of the PATH.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let found = versions
        .map(|entry| entry.path())
        .filter(|path| path.join("bin/initdb").exists())
        .max_by_key(|path| version(path));
    match found {
        Some(path) => path.join("bin"),
        None => {
            let paths = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&paths)
                .find(|path| path.join("initdb").exists())
                .expect("PostgreSQL is installed; scripts/test installs it")
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(work).await.expect("the command was run")
}

fn run(command: &mut Command) -> String {
    tried(command).unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn tried(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
    }
    Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
}
