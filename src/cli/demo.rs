//! `smith demo`: a node in which something lives, and dies, and comes back.

use std::io::{Write, stderr, stdout};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::demo::{Counts, Demo, Options, is_ordered};
use crate::runtime::{Signals, hard_exit_code};
use crate::system::{DEFAULT_LISTEN, DEFAULT_STOP_DEADLINE, SystemCore};

/// Agents at most.
const MOST_AGENTS: usize = 10_000;

/// Something breaks no more often: the root takes 100 restarts a minute.
const RAREST: Duration = Duration::from_millis(500);

/// Commands a second at most.
const FASTEST: u32 = 10_000;

/// Options of `smith demo`.
#[derive(Clone, Debug, Args)]
pub(super) struct DemoArgs {
    /// Decides all of the demo's chances; the same seed breaks the same things in the same order
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// How many agents talk with each other
    #[arg(long, default_value = "12")]
    agents: NonZeroUsize,
    /// Commands to aggregates a second
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// How often something breaks: 3s, 500ms, 1m
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration)]
    crash_every: Duration,
    /// End after this time; else with Ctrl-C
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    within: Option<Duration>,
    /// Store of the events; a new SQLite file, removed at the end, unless given
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Address to listen on; port 0 picks a free one
    #[arg(long, value_name = "ADDR", default_value = DEFAULT_LISTEN, env = "SMITH_LISTEN")]
    listen: SocketAddr,
}

/// A time as people write it: `3s`, `500ms`, `1m 30s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration =
        text.parse().map_err(|_| format!("{text:?} is no time; write 500ms, 3s or 5m"))?;
    Duration::try_from(span).map_err(|_| "a time is not negative".to_owned())
}

impl DemoArgs {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        let mut signals = Signals::listen()?;
        if self.crash_every < RAREST {
            anyhow::bail!("--crash-every is at least {RAREST:?}: the node would give up");
        }
        if self.rate > FASTEST || self.agents.get() > MOST_AGENTS {
            anyhow::bail!("--rate is at most {FASTEST}, --agents at most {MOST_AGENTS}");
        }
        // Removed when this function is left, whichever way.
        let scratch = match self.store {
            Some(_) => None,
            None => Some(tempfile::Builder::new().prefix("smith-demo-").tempdir()?),
        };
        let store = match (&self.store, &scratch) {
            (Some(store), _) => store.clone(),
            (None, Some(dir)) => format!("sqlite://{}", dir.path().join("demo.db").display()),
            (None, None) => anyhow::bail!("there is no store"),
        };
        hush();
        let demo = Demo::new(Options {
            seed: self.seed,
            agents: self.agents.get(),
            rate: self.rate,
            crash_every: self.crash_every,
        });
        let node = demo.prepare(SystemCore::embedded().store(store).listen(self.listen));
        let node = node.start().await?;
        demo.fill(&node).await?;
        self.announce(&node);
        let counts = Counts::default();
        tokio::select! {
            biased;
            signal = signals.next() => {
                say(stderr(), &format!("{signal}: stopping; once more ends it at once\n"));
            }
            () = over(self.within) => {}
            reason = node.ended() => anyhow::bail!("the node gave up: {reason}"),
            () = demo.run(&node, &counts, |line| say(stdout(), line)) => {}
        }
        say(stdout(), &format!("\n{}\n{}\n", node.tree(), counts.sentence()));
        tokio::select! {
            biased;
            in_order = node.stop(DEFAULT_STOP_DEADLINE) => {
                let how = if in_order { "" } else { "; what did not end was killed" };
                say(stdout(), &format!("stopped{how}\n"));
                Ok(ExitCode::SUCCESS)
            }
            _ = signals.next() => Ok(hard_exit_code()),
        }
    }

    fn announce(&self, node: &SystemCore) {
        let (store, _) = node.store();
        let mut text = format!("{}\nseed   {}\nstore  {store}\n", node.tree(), self.seed);
        if let Some(addr) = node.addr() {
            text.push_str(&format!("page   http://{addr}/\n\n"));
            let own = if addr.to_string() == DEFAULT_LISTEN {
                String::new()
            } else {
                format!(" --node {addr}")
            };
            text.push_str(&format!("smith top{own}    smith tree{own}    Ctrl-C ends it\n\n"));
        }
        say(stdout(), &text);
    }
}

/// Panics that the demo itself ordered are told in a sentence; others as always.
fn hush() {
    let earlier = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload_as_str().is_some_and(is_ordered) {
            earlier(info);
        }
    }));
}

async fn over(within: Option<Duration>) {
    match within {
        Some(within) => tokio::time::sleep(within).await,
        None => std::future::pending().await,
    }
}

/// Writes to whoever may read it; a demo goes on when nobody does.
fn say(mut to: impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes());
    let _ = to.flush();
}
