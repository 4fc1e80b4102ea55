//! The HTTP actor: accepts connections.
//!
//! It lives under `edge`, the last to start and the first to stop. The socket and the connections
//! belong to the node ([`Edge`]), so when this actor is killed the requests under way are still
//! answered, and new connections wait in the socket's backlog until the next life accepts them.
//! The same when it is stopped with a part of the tree that is restarted. Only when the node itself
//! is stopped every connection finishes its request and is closed, up to a deadline.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use mister_smith_supervisors::{Actor, Context, ExitReason, Failure, StartError, TaskGuard};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Edge, Peer};

/// How long a connection may take to send the head of a request, and to stay idle.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);

/// How long a stop waits for requests under way. Below the default shutdown of a child.
const DRAIN_DEADLINE: Duration = Duration::from_secs(4);

/// Nobody tells the server anything: requests reach it through the socket.
#[derive(Debug)]
pub(crate) enum ServerMessage {}

/// The actor.
pub(crate) struct HttpServer {
    edge: Edge,
    accepting: Option<TaskGuard>,
}

impl Actor for HttpServer {
    type Message = ServerMessage;
    type Args = Edge;

    async fn start(edge: &Edge, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let addr = edge.addr();
        cx.describe(move || addr.to_string());
        let accepting = Some(cx.spawn_guard(accept(edge.clone())));
        Ok(Self { edge: edge.clone(), accepting })
    }

    async fn handle(
        &mut self,
        message: ServerMessage,
        _: &mut Context<Self>,
    ) -> Result<(), Failure> {
        match message {}
    }

    async fn stop(&mut self, _: &ExitReason, _: &mut Context<Self>) {
        self.accepting = None;
        if !*self.edge.0.closing.borrow() {
            return;
        }
        let mut serving = std::mem::take(&mut *serving(&self.edge));
        let drained = async { while serving.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_DEADLINE, drained).await.is_err() {
            serving.abort_all();
        }
    }
}

impl fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServer").field("edge", &self.edge).finish_non_exhaustive()
    }
}

fn serving(edge: &Edge) -> MutexGuard<'_, JoinSet<()>> {
    let mutex: &Mutex<JoinSet<()>> = &edge.0.serving;
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(edge: Edge) {
    let service = TowerToHyperService::new(edge.router().into_service());
    loop {
        // Never closed: it belongs to the edge.
        let Ok(permit) = Arc::clone(&edge.0.connections).acquire_owned().await else { return };
        let (stream, peer) = match edge.0.listener.accept().await {
            Ok((stream, peer)) => (stream, Peer(peer.ip())),
            Err(error) => {
                // Out of file handles, mostly: those that are open have to end first.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let connection = connect(edge.clone(), stream, peer, service.clone());
        let mut serving = serving(&edge);
        while serving.try_join_next().is_some() {}
        serving.spawn(async move {
            connection.await;
            drop(permit);
        });
    }
}

async fn connect(edge: Edge, stream: TcpStream, peer: Peer, service: Routes) {
    let _ = stream.set_nodelay(true);
    let closing = edge.0.closing.subscribe();
    #[cfg(feature = "tls")]
    if let Some(tls) = &edge.0.door.tls {
        match tls.accept(stream).await {
            Ok(stream) => serve(stream, peer, service, closing).await,
            Err(error) => tracing::debug!(%error, "a handshake failed"),
        }
        return;
    }
    serve(stream, peer, service, closing).await;
}

/// The node's routes, as hyper calls them.
type Routes = TowerToHyperService<axum::routing::RouterIntoService<hyper::body::Incoming>>;

async fn serve<S>(stream: S, peer: Peer, service: Routes, mut closing: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        service.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended");
            }
            return;
        }
        // The sender is gone only when the node is.
        _ = closing.wait_for(|closing| *closing) => {}
    }
    connection.as_mut().graceful_shutdown();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended");
    }
}
