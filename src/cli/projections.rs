//! `smith projections`: the read models of a running node.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::Value;

use super::node::{NodeArg, escaped, query};
use super::output::{self, write};
use super::parked;

/// Options of `smith projections`.
#[derive(Clone, Debug, Args)]
pub(super) struct Projections {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    node: NodeArg,
    /// Look into this store instead of asking a node: for parked, retry and skip
    #[arg(long, value_name = "URL", global = true)]
    store: Option<String>,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// List all, with how far they are
    List,
    /// Make a projection's documents again, beside those that are read until then
    Rebuild { name: String },
    /// Throw a projection's documents away and begin again
    Reset { name: String },
    /// Let a projection stand still, on whichever node writes it
    Pause { name: String },
    /// Let a projection go on
    Resume { name: String },
    /// List the events that a projection could not apply, and those that wait behind them
    Parked { name: String },
    /// Apply the parked events of a document again
    Retry { name: String, id: String },
    /// Leave out the first parked event of a document
    Skip { name: String, id: String },
}

impl Projections {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        if let Some(url) = &self.store {
            let answer = match &self.action {
                Action::Parked { name } => parked::list(url, name).await?,
                Action::Retry { name, id } => parked::retry(url, name, id).await?,
                Action::Skip { name, id } => parked::skip(url, name, id).await?,
                _ => bail!("only parked, retry and skip work on a store (--store); ask a node"),
            };
            self.show(&answer)?;
            return Ok(ExitCode::SUCCESS);
        }
        let act = |name: &str, action: &str| {
            (Method::POST, format!("/api/v1/projections/{}/{action}", escaped(name)))
        };
        let parked = |name: &str, id: &str, action: &str| {
            act(name, &format!("parked/{}/{action}", escaped(id)))
        };
        let (method, path) = match &self.action {
            Action::List => (Method::GET, "/api/v1/projections".to_owned()),
            Action::Parked { name } => {
                (Method::GET, format!("/api/v1/projections/{}/parked", escaped(name)))
            }
            Action::Rebuild { name } => act(name, "rebuild"),
            Action::Reset { name } => act(name, "reset"),
            Action::Pause { name } => act(name, "pause"),
            Action::Resume { name } => act(name, "resume"),
            Action::Retry { name, id } => parked(name, id, "retry"),
            Action::Skip { name, id } => parked(name, id, "skip"),
        };
        let mut answer = self.node.ask(method, &path).await?;
        if let Action::Parked { .. } = &self.action {
            self.all_pages(&path, &mut answer).await?;
        }
        self.show(&answer)?;
        Ok(ExitCode::SUCCESS)
    }

    fn show(&self, answer: &Value) -> anyhow::Result<()> {
        match (&self.action, self.node.json) {
            (_, true) => output::json(answer)?,
            (Action::List, false) => write(format_args!("{}", table(answer)))?,
            (Action::Parked { .. }, false) => write(format_args!("{}", parked_table(answer)))?,
            (_, false) => write(format_args!("done: {answer}\n"))?,
        };
        Ok(())
    }
}

impl Projections {
    /// Puts the pages behind the first into it.
    async fn all_pages(&self, path: &str, answer: &mut Value) -> anyhow::Result<()> {
        while let (Some(after), Some(position)) =
            (answer["next"]["after"].as_str(), answer["next"]["position"].as_u64())
        {
            let page =
                [("after", Some(after.to_owned())), ("position", Some(position.to_string()))];
            let mut page = self.node.ask(Method::GET, &format!("{path}{}", query(page))).await?;
            answer["next"] = page["next"].take();
            if let (Some(all), Value::Array(more)) =
                (answer["parked"].as_array_mut(), page["parked"].take())
            {
                all.extend(more);
            }
        }
        if let Some(answer) = answer.as_object_mut() {
            answer.remove("next");
        }
        Ok(())
    }
}

fn table(answer: &Value) -> String {
    let mut text =
        format!("{:<24}  {:>10}  {:>8}  {:>6}\n", "projection", "position", "lag", "parked");
    for one in answer["projections"].as_array().into_iter().flatten() {
        let name = one["name"].as_str().unwrap_or_default();
        let parts = one["progress"].as_array().map_or(&[][..], Vec::as_slice);
        let made = parts.iter().filter(|part| part["active"] == false);
        let made = made.filter_map(|part| part["position"].as_u64()).min();
        let made = made.map(|at| format!("   rebuilding at {at}")).unwrap_or_default();
        let paused = if one["paused"] == true { "   paused" } else { "" };
        let trouble = one["trouble"].as_str().map(|text| format!("   {text}")).unwrap_or_default();
        text.push_str(&format!(
            "{name:<24}  {:>10}  {:>8}  {:>6}{made}{paused}{trouble}\n",
            one["position"].to_string(),
            one["lag"].to_string(),
            one["parked"].to_string()
        ));
    }
    text
}

fn parked_table(answer: &Value) -> String {
    let mut text = String::new();
    for one in answer["parked"].as_array().into_iter().flatten() {
        let (id, error) =
            (one["id"].as_str().unwrap_or_default(), one["error"].as_str().unwrap_or_default());
        let error = if error.is_empty() { "waits" } else { error };
        text.push_str(&format!("{:>10}  {id}  {error}\n", one["position"].to_string()));
    }
    if text.is_empty() { "nothing is parked\n".to_owned() } else { text }
}
