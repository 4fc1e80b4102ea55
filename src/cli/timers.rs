//! `smith timers`: what is to happen at a time, in the store of a running node.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::Value;

use super::node::{NodeArg, escaped, query};
use super::output::{self, write};

/// Options of `smith timers`.
#[derive(Clone, Debug, Args)]
pub(super) struct Timers {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    node: NodeArg,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// List them, by kind and name
    List {
        /// Only of this kind: process.CATEGORY, message, queue.NAME or an application's
        #[arg(long)]
        kind: Option<String>,
        /// Only in this state: waiting, or unknown to the programs that tried them
        #[arg(long)]
        state: Option<String>,
        /// Only after this one, KIND/NAME
        #[arg(long)]
        after: Option<String>,
        /// At most this many
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Take one back
    Cancel { kind: String, name: String },
}

const PATH: &str = "/api/v1/timers";

impl Timers {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        let (method, path) = match &self.action {
            Action::List { kind, state, after, limit } => {
                let asked = [
                    ("kind", kind.clone()),
                    ("state", state.clone()),
                    ("after", after.clone()),
                    ("limit", Some(limit.to_string())),
                ];
                (Method::GET, format!("{PATH}{}", query(asked)))
            }
            Action::Cancel { kind, name } => {
                (Method::POST, format!("{PATH}/{}/{}/cancel", escaped(kind), escaped(name)))
            }
        };
        let answer = self.node.ask(method, &path).await?;
        match (&self.action, self.node.json) {
            (Action::List { .. }, false) => write(format_args!("{}", table(&answer)))?,
            (_, true) => output::json(&answer)?,
            (_, false) => write(format_args!("done: {answer}\n"))?,
        };
        Ok(ExitCode::SUCCESS)
    }
}

fn table(answer: &Value) -> String {
    let mut text = String::new();
    for one in answer["timers"].as_array().into_iter().flatten() {
        let word = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
        text.push_str(&format!(
            "{:<20}  {:<8}  {:<32}  {:<32}  {} tries {}\n",
            word("due"),
            word("state"),
            word("kind"),
            word("name"),
            one["attempts"],
            word("reason"),
        ));
    }
    output::page(text, answer, "timers")
}
