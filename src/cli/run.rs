//! `smith run`: start a node, print where to look, stop it when told.

use std::fmt;
use std::io::{Write, stderr, stdout};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use mister_smith_actors::bus::broker::{Broker, BrokerError};
use mister_smith_actors::bus::queue::{self, QueueOptions, Retention};
use mister_smith_actors::event::compression::{Compression, CompressionError, Encoding};
use mister_smith_actors::store::EventFilter;

use super::access::AccessArgs;
use super::archives::ArchivesArg;
use crate::runtime::{Signals, hard_exit_code};
use crate::system::{DEFAULT_LISTEN, DEFAULT_STOP_DEADLINE, DEFAULT_STORE, SystemCore};

/// Options of `smith run`.
#[derive(Clone, Debug, Args)]
pub(super) struct Run {
    /// Store of the events: a SQLite file, made if missing, or postgres://USER@HOST/DATABASE
    #[arg(long, value_name = "URL", default_value = DEFAULT_STORE, env = "SMITH_STORE")]
    store: String,
    /// Address to listen on; port 0 picks a free one. Others than loopback need --tokens
    #[arg(long, value_name = "ADDR", default_value = DEFAULT_LISTEN, env = "SMITH_LISTEN")]
    listen: SocketAddr,
    /// Queue that every event is sent to: nats://HOST:PORT or redis://HOST:PORT
    #[arg(long, value_name = "URL", env = "SMITH_OUTBOX")]
    outbox: Option<String>,
    /// Name of that queue, and first part of the subjects in it
    #[arg(long, value_name = "NAME", default_value = "events", env = "SMITH_OUTBOX_NAME")]
    outbox_name: String,
    /// How large payloads to the outbox are compressed: none, zstd, lz4 or gzip
    #[arg(long, value_name = "HOW", default_value = "none")]
    outbox_compression: String,
    /// In `production` nothing is migrated by itself: run `smith migrate up` first
    #[arg(long, value_name = "NAME", default_value = "development", env = "SMITH_ENV")]
    env: String,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    archives: ArchivesArg,
    /// Seconds that a graceful stop may take before what is left is killed
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_STOP_DEADLINE.as_secs())]
    stop_deadline: u64,
}

impl Default for Run {
    fn default() -> Self {
        // The same defaults, the environment included, as if `run` had been written.
        use clap::{Command, FromArgMatches};
        let matches = Run::augment_args(Command::new("smith")).get_matches_from(["smith"]);
        Run::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

impl Run {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        let mut signals = Signals::listen()?;
        let production = self.env.eq_ignore_ascii_case("production");
        let access = self.access.options()?;
        let mut node =
            SystemCore::embedded().store(&self.store).production(production).access(access);
        node = self.archives.apply(node);
        if let Some(url) = &self.outbox {
            let name = &self.outbox_name;
            // Nobody else sends to it: the events of two logs do not mix in one queue.
            let options = QueueOptions::new(name)
                .retention(Retention::Log)
                .sole_sender()
                .compression(compression(&self.outbox_compression)?);
            let queue = match Broker::new(url) {
                Ok(broker) => {
                    node = node.broker(&broker);
                    broker.queue(options)
                }
                Err(BrokerError::Unknown { .. }) => queue::connect(url, options).await,
                Err(error) => anyhow::bail!("--outbox {url}: {error}"),
            };
            let queue = queue.map_err(|error| anyhow::anyhow!("--outbox {url}: {error}"))?;
            node = node.outbox(name, queue.sender(), EventFilter::ALL);
        }
        let node = node.listen(self.listen).start().await?;
        announce(&node);
        tokio::select! {
            biased;
            signal = signals.next() => {
                say(stderr(), format_args!("{signal}: stopping; once more ends it at once\n"));
            }
            reason = node.ended() => anyhow::bail!("the node gave up: {reason}"),
        }
        tokio::select! {
            biased;
            in_order = node.stop(Duration::from_secs(self.stop_deadline)) => {
                if in_order {
                    say(stdout(), format_args!("stopped\n"));
                } else {
                    let deadline = self.stop_deadline;
                    let text = format_args!("stopped; what had not ended after {deadline} s was killed\n");
                    say(stderr(), text);
                }
                Ok(ExitCode::SUCCESS)
            }
            _ = signals.next() => Ok(hard_exit_code()),
        }
    }
}

fn compression(name: &str) -> anyhow::Result<Compression> {
    let encoding = match name {
        "none" => Some(Encoding::Identity),
        name => Encoding::from_name(name),
    };
    let unknown = || CompressionError::Unknown { name: name.to_owned() };
    let how = encoding.ok_or_else(unknown).and_then(Compression::of);
    how.map_err(|error| anyhow::anyhow!("--outbox-compression {name}: {error}"))
}

fn announce(node: &SystemCore) {
    let (store, created) = node.store();
    let made = if created { "  (made)" } else { "" };
    let mut text = format!("{}\nstore  {}{made}\n", node.tree(), store);
    if let Some(addr) = node.addr() {
        text.push_str(&format!("http   http://{addr}\n\n"));
        text.push_str(&format!("page   http://{addr}/\n"));
        text.push_str(&format!("curl http://{addr}/debug/tree?format=text\n"));
    }
    say(stdout(), format_args!("{text}"));
}

/// Writes to whoever may read it. `println!` panics when nobody does (`smith | head -1`), and a
/// node is not there for its words.
fn say(mut to: impl Write, text: fmt::Arguments<'_>) {
    let _ = to.write_fmt(text);
    let _ = to.flush();
}
