//! The command line: one file a subcommand.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod access;
#[cfg(feature = "postgres")]
mod archive;
mod archives;
mod consumers;
mod dead_letters;
mod demo;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod events;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod migrate;
mod node;
mod output;
mod parked;
mod places;
mod projections;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod replay;
mod run;
mod sagas;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod skip;
mod store;
mod timers;
mod token;
mod top;
mod tree;

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
    /// Start a node in which something lives, breaks and heals
    Demo(demo::DemoArgs),
    /// See and change the version of a store's tables
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    Migrate(migrate::Migrate),
    /// Look into the log
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    Events(events::Events),
    /// Print events of the past as JSON, one a line
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    Replay(replay::ReplayArgs),
    /// Put old partitions of a PostgreSQL store into files, and back
    #[cfg(feature = "postgres")]
    Archive(archive::Archive),
    /// See and steer the read models of a running node, and what is parked in a store
    Projections(projections::Projections),
    /// See and steer the durable consumers of a running node, or of a store
    Consumers(consumers::Consumers),
    /// See and steer the sagas of a running node
    Sagas(sagas::Sagas),
    /// See what is to happen at a time, and take it back
    Timers(timers::Timers),
    /// Show the tree of a running node, as text or as a picture
    Tree(tree::TreeArgs),
    /// Watch the actors of a running node
    Top(top::Top),
    /// Make a token that callers show to a node
    Token(token::TokenArgs),
    /// See, send again or give up messages that a subscriber could not handle
    DeadLetters(dead_letters::DeadLetters),
}

impl Cli {
    /// What is logged unless the environment says otherwise.
    #[must_use]
    pub fn log_filter(&self) -> &'static str {
        match self.command {
            // A node tells what it does.
            None | Some(Command::Run(_)) => "info,ractor=warn",
            // It fails all the time, and says so itself.
            Some(Command::Demo(_)) => "error",
            // A command's own words are enough.
            _ => "warn",
        }
    }

    /// Does what was asked.
    ///
    /// # Errors
    /// What went wrong, with the cure; the process ends with code 1.
    pub async fn execute(self) -> anyhow::Result<ExitCode> {
        match self.command.unwrap_or_else(|| Command::Run(run::Run::default())) {
            Command::Run(run) => run.execute().await,
            Command::Demo(demo) => Box::pin(demo.execute()).await,
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Command::Migrate(migrate) => migrate.execute().await,
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Command::Events(events) => events.execute().await,
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Command::Replay(replay) => replay.execute().await,
            #[cfg(feature = "postgres")]
            Command::Archive(archive) => archive.execute().await,
            Command::Projections(projections) => projections.execute().await,
            Command::Consumers(consumers) => consumers.execute().await,
            Command::Sagas(sagas) => sagas.execute().await,
            Command::Timers(timers) => timers.execute().await,
            Command::Tree(tree) => tree.execute().await,
            Command::Top(top) => Box::pin(top.execute()).await,
            Command::Token(token) => token.execute(),
            Command::DeadLetters(letters) => letters.execute().await,
        }
    }
}
