//! The command line: one file a subcommand.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod run;

/// Actors under supervision trees, with the event store inside.
#[derive(Debug, Parser)]
#[command(name = "smith", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a node (the default)
    Run(run::Run),
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    /// What went wrong, with the cure; the process ends with code 1.
    pub async fn execute(self) -> anyhow::Result<ExitCode> {
        match self.command.unwrap_or_else(|| Command::Run(run::Run::default())) {
            Command::Run(run) => run.execute().await,
        }
    }
}
