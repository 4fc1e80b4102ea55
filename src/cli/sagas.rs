//! `smith sagas`: the processes of a running node.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::Value;

use super::node::{NodeArg, escaped, query, user};
use super::output::{self, write};

/// Options of `smith sagas`.
#[derive(Clone, Debug, Args)]
pub(super) struct Sagas {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    node: NodeArg,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// List those that are open
    List {
        /// Only of this kind
        #[arg(long)]
        name: Option<String>,
        /// Only in this state: running, compensating, parked, completed, compensated
        #[arg(long)]
        status: Option<String>,
        /// Completed and undone ones too
        #[arg(long)]
        all: bool,
        /// Only after this stream
        #[arg(long)]
        after: Option<String>,
        /// At most this many
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one with its steps and what happened to it
    Show { name: String, id: String },
    /// Let a parked one go on, or one that waits go on at once
    Retry { name: String, id: String },
    /// Have one undone
    Abort {
        name: String,
        id: String,
        /// Why, for the record
        #[arg(long, default_value = "aborted")]
        reason: String,
    },
}

const PATH: &str = "/api/v1/sagas";

impl Sagas {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        let path = |name: &str, id: &str| format!("{PATH}/{}/{}", escaped(name), escaped(id));
        let (method, path) = match &self.action {
            Action::List { name, status, all, after, limit } => {
                let open = (!*all && status.is_none()).then(|| "true".to_owned());
                let asked = [
                    ("name", name.clone()),
                    ("status", status.clone()),
                    ("open", open),
                    ("after", after.clone()),
                    ("limit", Some(limit.to_string())),
                ];
                (Method::GET, format!("{PATH}{}", query(asked)))
            }
            Action::Show { name, id } => (Method::GET, path(name, id)),
            Action::Retry { name, id } => {
                (Method::POST, format!("{}/retry{}", path(name, id), query([("by", user())])))
            }
            Action::Abort { name, id, reason } => {
                let asked = query([("by", user()), ("reason", Some(reason.clone()))]);
                (Method::POST, format!("{}/abort{asked}", path(name, id)))
            }
        };
        let answer = self.node.ask(method, &path).await?;
        match (&self.action, self.node.json) {
            (_, true) => output::json(&answer)?,
            (Action::List { .. }, false) => write(format_args!("{}", table(&answer)))?,
            (Action::Show { .. }, false) => write(format_args!("{}", story(&answer)))?,
            (_, false) => write(format_args!("done: {answer}\n"))?,
        };
        Ok(ExitCode::SUCCESS)
    }
}

fn table(answer: &Value) -> String {
    let mut text = String::new();
    for one in answer["sagas"].as_array().into_iter().flatten() {
        let word = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
        text.push_str(&format!(
            "{:<16}  {:<24}  {:<12}  {:<16}  {}\n",
            word("name"),
            word("id"),
            word("status"),
            word("step"),
            word("reason"),
        ));
    }
    output::page(text, answer, "sagas")
}

fn story(answer: &Value) -> String {
    let state = &answer["state"];
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut text =
        format!("{} {}: {}", word(&answer["name"]), word(&answer["id"]), word(&state["status"]));
    if let Some(reason) = state["reason"].as_str() {
        text.push_str(&format!(" ({reason})"));
    }
    text.push('\n');
    for entry in answer["history"].as_array().into_iter().flatten() {
        let Some((name, event)) = entry["event"].as_object().and_then(|map| map.iter().next())
        else {
            continue;
        };
        let more = ["step", "attempt", "reason", "by"].iter().filter_map(|field| {
            let value = event.get(*field)?;
            Some(value.as_str().map_or_else(|| format!("#{value}"), str::to_owned))
        });
        let more = more.collect::<Vec<_>>().join("  ");
        let name = name.trim_start_matches("saga.");
        text.push_str(&format!("  {}  {name:<24}  {more}\n", word(&entry["at"])));
    }
    text
}
