//! A running node, as commands talk to it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::http::request::Builder;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::system::DEFAULT_LISTEN;

/// Which node, and how its answer is printed.
#[derive(Clone, Debug, Args)]
pub(super) struct NodeArg {
    /// Address of the node
    #[arg(long, value_name = "ADDR", default_value = DEFAULT_LISTEN, env = "SMITH_LISTEN", global = true)]
    node: String,
    /// Token to show it; better in the environment, where other users do not see it
    #[arg(long, value_name = "TOKEN", env = "SMITH_TOKEN", hide_env_values = true, global = true)]
    token: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// A text as one part of a path, or as a value of a query.
pub(super) fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// `?name=value&…` of those that are given.
pub(super) fn query<'a>(pairs: impl IntoIterator<Item = (&'a str, Option<String>)>) -> String {
    let given = pairs
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| format!("{name}={}", escaped(&value))));
    match given.collect::<Vec<_>>().join("&") {
        none if none.is_empty() => none,
        some => format!("?{some}"),
    }
}

/// Who asks, for the record.
pub(super) fn user() -> Option<String> {
    std::env::var("USER").ok().filter(|user| !user.is_empty())
}

/// How long a node may take to answer; a look is quick, an action waits for the actor.
const DEADLINE: Duration = Duration::from_secs(30);

/// The largest answer that is taken.
const LONGEST: usize = 64 << 20;

impl NodeArg {
    /// Sends a request, and answers what the node says.
    ///
    /// # Errors
    /// There is no node, or it refuses; the text is its own.
    pub(super) async fn ask(&self, method: Method, path: &str) -> anyhow::Result<Value> {
        let body = self.send(Request::builder().method(method).uri(path), Bytes::new()).await?;
        Ok(serde_json::from_slice(&body).unwrap_or_default())
    }

    /// What the node answers to a look that is no JSON: a picture, lines.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(super) async fn text(&self, path: &str) -> anyhow::Result<String> {
        let body = self.send(Request::builder().uri(path), Bytes::new()).await?;
        String::from_utf8(body.into()).context("the node's answer is no text")
    }

    /// Has the node do something, once for a key.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    #[cfg(feature = "tui")]
    pub(super) async fn act(&self, path: &str, key: &str, body: &Value) -> anyhow::Result<Value> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header("idempotency-key", key)
            .header("content-type", "application/json");
        let body = self.send(request, Bytes::from(body.to_string())).await?;
        Ok(serde_json::from_slice(&body).unwrap_or_default())
    }

    /// The node's address, without what a browser would put around it.
    pub(super) fn addr(&self) -> &str {
        self.node.trim_start_matches("http://").trim_end_matches('/')
    }

    async fn send(&self, request: Builder, body: Bytes) -> anyhow::Result<Bytes> {
        let node = self.addr();
        let late = || format!("{node} did not answer within {} s", DEADLINE.as_secs());
        timeout(DEADLINE, self.exchange(request, body)).await.with_context(late)?
    }

    async fn exchange(&self, mut request: Builder, body: Bytes) -> anyhow::Result<Bytes> {
        let node = self.addr();
        let unreachable = || format!("no node at {node}; start one, or give --node its address");
        let stream = TcpStream::connect(node).await.with_context(unreachable)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        request = request.header("host", node);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body))?;
        let exchange = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, LONGEST).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
            anyhow::Ok((head.status, body))
        };
        tokio::pin!(exchange);
        let (status, body) = tokio::select! {
            biased;
            answer = &mut exchange => answer?,
            // A node that closes after its answer ends the connection first.
            _ = connection => exchange.await?,
        };
        if !status.is_success() {
            let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
            match answer["detail"].as_str() {
                Some(detail) => bail!("{detail}"),
                None => bail!("the node answered {status}"),
            }
        }
        Ok(body)
    }
}
