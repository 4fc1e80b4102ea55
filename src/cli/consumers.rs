//! `smith consumers`: what follows the log on a running node.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::Value;

use super::node::{NodeArg, escaped, query};
use super::output::{self, write};
use super::places::{self, Wanted};

/// Options of `smith consumers`.
#[derive(Clone, Debug, Args)]
pub(super) struct Consumers {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    node: NodeArg,
    /// Look into this store, and leave requests there, instead of asking a node
    #[arg(long, value_name = "URL", global = true)]
    store: Option<String>,
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
    /// Leave an event out: for one that no node survives. Needs --store, and no node
    Skip { name: String, position: u64 },
}

const PATH: &str = "/api/v1/consumers";

impl Consumers {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        if let Some(url) = &self.store {
            let wanted = match &self.action {
                Action::List => {
                    places::list(url, self.node.json).await?;
                    return Ok(ExitCode::SUCCESS);
                }
                Action::Pause { name } => Wanted::Pause(name),
                Action::Resume { name } => Wanted::Resume(name),
                Action::Replay { name, from } => Wanted::Replay(name, from),
                Action::Skip { name, position } => Wanted::Skip(name, *position),
            };
            places::ask(url, wanted, self.node.json).await?;
            return Ok(ExitCode::SUCCESS);
        }
        let (method, path) = match &self.action {
            Action::List => (Method::GET, PATH.to_owned()),
            Action::Skip { .. } => {
                bail!(
                    "give the store (--store): the request is left there for whichever node is next"
                )
            }
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
            (Action::Resume { name } | Action::Skip { name, .. }, false) => {
                write(format_args!("{name} goes on\n"))?
            }
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
