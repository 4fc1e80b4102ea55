//! `smith migrate`: how a store's schema stands, and how it gets where it should be.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};

use super::output::{self, write};
use super::store::StoreArg;
use crate::migrate::{self, Report, Status};
use crate::system::store_lock;

/// Options of `smith migrate`.
#[derive(Clone, Debug, Args)]
pub(super) struct Migrate {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// List all migrations, and which of them are applied
    Status(Options),
    /// Apply what is pending
    Up(Options),
    /// Undo migrations down to a version, newest first; what was in their tables is gone
    Down {
        /// The version to go back to; 0 is the empty database
        #[arg(long, value_name = "N")]
        to: u32,
        /// Undo it; without this it is only told what would be lost
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        options: Options,
    },
    /// Check that what is applied is what this program knows; change nothing
    Verify(Options),
}

#[derive(Clone, Debug, Args)]
struct Options {
    #[command(flatten)]
    store: StoreArg,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Migrate {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        match self.action {
            Action::Status(options) => {
                let status = migrate::status(options.store.address()).await?;
                match options.json {
                    true => output::json(&status)?,
                    false => write(format_args!("{}", Shown(&status)))?,
                };
            }
            Action::Up(options) => {
                let _lock = store_lock(&options.store.address())?;
                let report = migrate::up(options.store.address()).await?;
                told(&report, "applied", options.json)?;
            }
            Action::Down { to, yes, options } => {
                if !yes {
                    return would_lose(&options, to).await;
                }
                let _lock = store_lock(&options.store.address())?;
                let report = migrate::down(options.store.address(), to).await?;
                told(&report, "undone", options.json)?;
            }
            Action::Verify(options) => return verify(&options).await,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Says what going down would cost, and does nothing.
async fn would_lose(options: &Options, to: u32) -> anyhow::Result<ExitCode> {
    let store = &options.store.address();
    let losses = migrate::losses(store, to).await?;
    if options.json {
        output::json(&losses)?;
    }
    if losses.is_empty() {
        write(format_args!("{store}: at version {to}, nothing to do\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    for loss in losses.iter().filter(|_| !options.json) {
        match &*loss.tables.join(", ") {
            "" => write(format_args!("would undo {}\n", loss.name))?,
            tables => write(format_args!("would undo {}, and lose {tables}\n", loss.name))?,
        };
    }
    bail!("nothing was undone; what is in these tables would be gone. Say so with --yes")
}

async fn verify(options: &Options) -> anyhow::Result<ExitCode> {
    let status = migrate::status(options.store.address()).await?;
    if options.json {
        output::json(&status)?;
    }
    let mut problems = status.problems.clone();
    problems.extend(status.read_models.iter().flat_map(|beside| beside.problems.clone()));
    if !problems.is_empty() {
        bail!("{}", problems.join("\nerror: "));
    }
    if !options.json {
        let pending = status.pending().len();
        write(format_args!(
            "{}: version {} of {}, {pending} pending, nothing wrong\n",
            status.store, status.version, status.newest
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn told(report: &Report, done: &str, json: bool) -> anyhow::Result<()> {
    if json {
        output::json(report)?;
        return Ok(());
    }
    for report in std::iter::once(report).chain(report.read_models.as_deref()) {
        for step in &report.steps {
            write(format_args!("{done} {}  {} ms\n", step.name, step.took_ms))?;
        }
        let (store, from, to) = (&report.store, report.from, report.to);
        match report.steps.len() {
            0 => write(format_args!("{store}: at version {to}, nothing to do\n"))?,
            _ => write(format_args!("{store}: version {from} -> {to}\n"))?,
        };
    }
    Ok(())
}

/// A status for people.
struct Shown<'a>(&'a Status);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let status = self.0;
        writeln!(f, "{}: version {} of {}", status.store, status.version, status.newest)?;
        for one in &status.migrations {
            match (one.applied_at, one.took_ms) {
                (Some(at), Some(took)) => {
                    writeln!(f, "  applied  {:<28}  {at}  {took} ms", one.name)?;
                }
                _ => writeln!(f, "  pending  {}", one.name)?,
            }
        }
        status.problems.iter().try_for_each(|problem| writeln!(f, "  wrong    {problem}"))?;
        match &status.read_models {
            Some(beside) => write!(f, "{}", Shown(beside)),
            None => Ok(()),
        }
    }
}
