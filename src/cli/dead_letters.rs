//! `smith dead-letters`: messages that a subscriber could not handle.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::Value;

use super::node::{NodeArg, escaped, query, user};
use super::output::{self, write};

/// Options of `smith dead-letters`.
#[derive(Clone, Debug, Args)]
pub(super) struct DeadLetters {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    node: NodeArg,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// List those that wait
    List {
        /// Only of this subscription
        #[arg(long)]
        origin: Option<String>,
        /// Only after this id
        #[arg(long)]
        after: Option<String>,
        /// At most this many
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one with its message
    Show { id: String },
    /// Send one to its subscriber again, or all that are open
    Requeue {
        #[arg(required_unless_present = "all")]
        id: Option<String>,
        /// All that are open
        #[arg(long, conflicts_with = "id")]
        all: bool,
        /// With --all: only of this subscription
        #[arg(long, requires = "all")]
        origin: Option<String>,
    },
    /// Give one up for good
    Purge { id: String },
}

const PATH: &str = "/api/v1/dead-letters";

impl DeadLetters {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        let by = || ("by", user());
        let (method, path) = match &self.action {
            Action::List { origin, after, limit } => {
                let asked = [
                    ("origin", origin.clone()),
                    ("after", after.clone()),
                    ("limit", Some(limit.to_string())),
                ];
                (Method::GET, format!("{PATH}{}", query(asked)))
            }
            Action::Show { id } => (Method::GET, format!("{PATH}/{}", escaped(id))),
            Action::Requeue { id: Some(id), .. } => {
                (Method::POST, format!("{PATH}/{}/requeue{}", escaped(id), query([by()])))
            }
            Action::Requeue { origin, .. } => {
                let asked = [("origin", origin.clone()), by()];
                (Method::POST, format!("{PATH}/requeue{}", query(asked)))
            }
            Action::Purge { id } => {
                (Method::POST, format!("{PATH}/{}/purge{}", escaped(id), query([by()])))
            }
        };
        let answer = self.node.ask(method, &path).await?;
        match (&self.action, self.node.json) {
            (Action::List { .. }, false) => write(format_args!("{}", table(&answer)))?,
            (_, true) | (Action::Show { .. }, false) => output::json(&answer)?,
            (_, false) => write(format_args!("done: {answer}\n"))?,
        };
        Ok(ExitCode::SUCCESS)
    }
}

fn table(answer: &Value) -> String {
    let mut text = String::new();
    for one in answer["dead_letters"].as_array().into_iter().flatten() {
        let letter = &one["letter"];
        let word = |name: &str| letter[name].as_str().unwrap_or_default().to_owned();
        text.push_str(&format!(
            "{}  {:<8}  {:<16}  {:<24}  {} tries: {}\n",
            one["id"].as_str().unwrap_or_default(),
            word("state"),
            word("origin"),
            word("subject"),
            letter["attempts"],
            word("reason"),
        ));
    }
    output::page(text, answer, "dead letters")
}
