//! `smith projections`: the read models of a running node.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::net::TcpStream;

use super::output::{self, write};
use crate::system::DEFAULT_LISTEN;

/// Options of `smith projections`.
#[derive(Clone, Debug, Args)]
pub(super) struct Projections {
    #[command(subcommand)]
    action: Action,
    /// Address of the node
    #[arg(long, value_name = "ADDR", default_value = DEFAULT_LISTEN, env = "SMITH_LISTEN", global = true)]
    node: String,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// List all, with how far they are
    List,
    /// Make a projection's documents again, beside those that are read until then
    Rebuild { name: String },
    /// Throw a projection's documents away and begin again
    Reset { name: String },
    /// Let a projection stand still
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

fn escaped(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

impl Projections {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
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
        let answer = self.ask(method, &path).await?;
        match (&self.action, self.json) {
            (_, true) => output::json(&answer)?,
            (Action::List, false) => write(format_args!("{}", table(&answer)))?,
            (Action::Parked { .. }, false) => write(format_args!("{}", parked_table(&answer)))?,
            (_, false) => write(format_args!("done: {answer}\n"))?,
        };
        Ok(ExitCode::SUCCESS)
    }

    async fn ask(&self, method: Method, path: &str) -> anyhow::Result<Value> {
        let node = self.node.trim_start_matches("http://").trim_end_matches('/');
        let unreachable = || format!("no node at {node}; start one, or give --node its address");
        let stream = TcpStream::connect(node).await.with_context(unreachable)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder().method(method).uri(path).header("host", node);
        let request = request.body(Empty::<Bytes>::new())?;
        let exchange = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            anyhow::Ok((head.status, body.collect().await?.to_bytes()))
        };
        tokio::pin!(exchange);
        let (status, body) = tokio::select! {
            biased;
            answer = &mut exchange => answer?,
            // A node that closes after its answer ends the connection first.
            _ = connection => exchange.await?,
        };
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if !status.is_success() {
            match answer["detail"].as_str() {
                Some(detail) => bail!("{detail}"),
                None => bail!("the node answered {status}"),
            }
        }
        Ok(answer)
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
        text.push_str(&format!(
            "{name:<24}  {:>10}  {:>8}  {:>6}{made}\n",
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
