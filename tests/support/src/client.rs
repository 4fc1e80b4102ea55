//! A small HTTP client: one connection a request, so that no state outlives a killed server.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

#[cfg(test)]
mod tests;

/// Why there is no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody accepts connections: the request was not sent.
    #[error("no connection to {addr}")]
    Connect {
        /// The address tried.
        addr: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The connection broke before the whole answer came: the request may have had its effect.
    #[error("the connection broke before the answer was complete")]
    Broken(#[from] hyper::Error),
    /// No complete answer in time: the request may have had its effect.
    #[error("no complete answer within {deadline:?}")]
    Timeout {
        /// The deadline of the whole request.
        deadline: Duration,
    },
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Reply {
    /// A header as text, if it is there.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON: `null` if it is empty, its text as a string if it is no JSON.
    pub fn json(&self) -> Value {
        if self.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.body).unwrap_or_else(|_| Value::String(self.text()))
    }
}

/// Sends requests to one address.
#[derive(Debug, Clone)]
pub struct Client {
    addr: SocketAddr,
    deadline: Duration,
}

impl Client {
    /// A client with a deadline of 30 s for a whole request.
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, deadline: Duration::from_secs(30) }
    }

    /// The same with another deadline.
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The address that requests go to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `GET path`, the body read as [`Reply::json`] does.
    ///
    /// # Errors
    ///
    /// When no complete answer came; an answer of any status is none.
    pub async fn get(&self, path: &str) -> Result<(u16, Value), ClientError> {
        let reply = self.send(Method::GET, path, &[], Bytes::new()).await?;
        Ok((reply.status, reply.json()))
    }

    /// `POST path` with a body of a content type.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn post(
        &self,
        path: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> Result<(u16, Value), ClientError> {
        let headers = [(CONTENT_TYPE.as_str(), content_type)];
        let reply = self.send(Method::POST, path, &headers, body).await?;
        Ok((reply.status, reply.json()))
    }

    /// `POST /api/v1/data/ingest`.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn post_ingest(
        &self,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> Result<(u16, Value), ClientError> {
        self.post("/api/v1/data/ingest", content_type, body).await
    }

    /// Any request with any headers, for a gzip body or an answer whose headers matter.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    ///
    /// # Panics
    ///
    /// If the path or a header is not fit for HTTP.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Reply, ClientError> {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(HOST.as_str())) {
            request = request.header(HOST, self.addr.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("path and headers fit HTTP");
        let exchange = self.exchange(request);
        let late = |_| ClientError::Timeout { deadline: self.deadline };
        timeout(self.deadline, exchange).await.map_err(late)?
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Reply, ClientError> {
        let refused = |source| ClientError::Connect { addr: self.addr, source };
        let stream = TcpStream::connect(self.addr).await.map_err(refused)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // The connection has to be driven while the answer is awaited, and ends with this call.
        let answer = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
        };
        tokio::pin!(answer);
        tokio::select! {
            biased;
            reply = &mut answer => reply,
            // A server that closes after its answer ends the connection first.
            _ = connection => answer.await,
        }
    }
}
