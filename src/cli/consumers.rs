//! `smith consumers`: what follows the log on a running node.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::Value;

use super::node::{NodeArg, escaped, query};
use super::output::{self, write};

/// Options of `smith consumers`.
#[derive(Clone, Debug, Args)]
pub(super) struct Consumers {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    node: NodeArg,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// List them: how far, what is pending, what is tried again
    List,
    /// Handle nothing more until it is resumed
    Pause { name: String },
    /// Go on
    Resume { name: String },
    /// Handle events again from a place in the log, or leave some out
    Replay {
        name: String,
        /// `beginning`, `end`, the position of the first event, or its time in RFC 3339
        #[arg(long)]
        from: String,
    },
}

const PATH: &str = "/api/v1/consumers";

impl Consumers {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        let (method, path) = match &self.action {
            Action::List => (Method::GET, PATH.to_owned()),
            Action::Pause { name } => (Method::POST, format!("{PATH}/{}/pause", escaped(name))),
            Action::Resume { name } => (Method::POST, format!("{PATH}/{}/resume", escaped(name))),
            Action::Replay { name, from } => {
                let from = query([("from", Some(from.clone()))]);
                (Method::POST, format!("{PATH}/{}/replay{from}", escaped(name)))
            }
        };
        let answer = self.node.ask(method, &path).await?;
        match (&self.action, self.node.json) {
            (_, true) => output::json(&answer)?,
            (Action::List, false) => write(format_args!("{}", table(&answer)))?,
            (Action::Replay { name, .. }, false) => {
                write(format_args!("{name} goes on after position {}\n", answer["after"]))?
            }
            (Action::Pause { name }, false) => write(format_args!("{name} is paused\n"))?,
            (Action::Resume { name }, false) => write(format_args!("{name} goes on\n"))?,
        };
        Ok(ExitCode::SUCCESS)
    }
}

fn table(answer: &Value) -> String {
    let mut text = String::new();
    for one in answer["consumers"].as_array().into_iter().flatten() {
        let number = |name: &str| one[name].as_u64().unwrap_or_default();
        let state = match (one["standby"].as_bool(), one["paused"].as_bool()) {
            (Some(true), _) => "standby",
            (_, Some(true)) => "paused",
            _ if number("pending") == 0 => "up to date",
            _ => "running",
        };
        text.push_str(&format!(
            "{:<32}  {state:<10}  position {:<10}  {} pending   {} dead   {}\n",
            one["name"].as_str().unwrap_or_default(),
            number("position"),
            number("pending"),
            number("dead"),
            one["trouble"].as_str().unwrap_or_default(),
        ));
    }
    if text.is_empty() { "no consumers\n".to_owned() } else { text }
}
