//! A running node, as commands talk to it.

use anyhow::{Context as _, bail};
use clap::Args;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::net::TcpStream;

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

impl NodeArg {
    /// Sends a request, and answers what the node says.
    ///
    /// # Errors
    /// There is no node, or it refuses; the text is its own.
    pub(super) async fn ask(&self, method: Method, path: &str) -> anyhow::Result<Value> {
        let node = self.node.trim_start_matches("http://").trim_end_matches('/');
        let unreachable = || format!("no node at {node}; start one, or give --node its address");
        let stream = TcpStream::connect(node).await.with_context(unreachable)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::builder().method(method).uri(path).header("host", node);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
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
