//! A wire between a store and its server, to be cut at a chosen place.
//!
//! A killed server or a terminated session is lost somewhere; which of the three places it was
//! (before the statement, after its commit, or long before it arrives) is chance. Here it is chosen.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, watch};

/// Where the wire is cut.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    /// What the client sends with these bytes in it does not arrive.
    Request(&'static [u8]),
    /// It arrives when [`Wire::deliver`] says so, long after the client was told of the end.
    Late(&'static [u8]),
    /// The answer with these bytes in it does not arrive: it is done, and nobody knows.
    Answer(&'static [u8]),
    /// It arrives, and nothing that the client sends afterwards on that connection, which stays:
    /// a machine that has vanished.
    Freeze(&'static [u8]),
    /// The client's message of this number, counted over all connections from the cut on, arrives,
    /// and nothing that it sends afterwards on that connection. Everything else goes on, until the
    /// client has closed it: the moment after that message, for as long as it takes to kill it.
    After(u64),
}

/// What the server says at the end of an `insert`, of a `select`, and of a `commit`.
pub(crate) const INSERTED: &[u8] = b"INSERT 0 1\0";
pub(crate) const SELECTED: &[u8] = b"SELECT 1\0";
pub(crate) const COMMITTED: &[u8] = b"COMMIT\0";

/// A socket in front of a server's.
pub(crate) struct Wire {
    dir: TempDir,
    server: String,
    state: Arc<State>,
}

struct State {
    cut: Mutex<Option<Cut>>,
    /// Messages of clients.
    sent: AtomicU64,
    /// Bytes that the server sent.
    received: AtomicU64,
    /// How often it was cut.
    cuts: watch::Sender<usize>,
    /// No new connection gets through.
    blocked: watch::Sender<bool>,
    deliver: Notify,
    delivered: Notify,
}

impl Wire {
    /// A wire to the server of a `postgres:///database?host=…` address.
    pub(crate) fn to(url: &str) -> Self {
        let server = url.split(['=', '&']).nth(1).unwrap().to_owned();
        let state = Arc::new(State {
            cut: Mutex::new(None),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            cuts: watch::Sender::new(0),
            blocked: watch::Sender::new(false),
            deliver: Notify::new(),
            delivered: Notify::new(),
        });
        let dir = TempDir::with_prefix("wire-").unwrap();
        let listener = UnixListener::bind(dir.path().join(".s.PGSQL.5432")).unwrap();
        let (target, shared) = (format!("{server}/.s.PGSQL.5432"), Arc::clone(&state));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (target, state) = (target.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    state.blocked.subscribe().wait_for(|blocked| !blocked).await.unwrap();
                    let Ok(server) = UnixStream::connect(&target).await else { return };
                    carry(client, server, &state).await;
                });
            }
        });
        Self { dir, server, state }
    }

    /// The address of the same database by this wire.
    pub(crate) fn url(&self, url: &str) -> String {
        url.replace(&self.server, &self.dir.path().display().to_string())
    }

    /// Cuts the first connection that comes to this place.
    pub(crate) fn cut(&self, at: Cut) {
        *self.state.cut.lock().unwrap() = Some(at);
    }

    /// How many messages clients have sent, on all connections.
    pub(crate) fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::Relaxed)
    }

    /// Cuts there, and lets no new connection through until [`open`](Self::open).
    pub(crate) fn cut_and_block(&self, at: Cut) {
        self.state.blocked.send_replace(true);
        self.cut(at);
    }

    pub(crate) fn open(&self) {
        self.state.blocked.send_replace(false);
    }

    /// How many bytes the server has sent, on all connections.
    pub(crate) fn received(&self) -> u64 {
        self.state.received.load(Ordering::Relaxed)
    }

    /// Waits until it was cut this often.
    pub(crate) async fn was_cut(&self, times: usize) {
        self.state.cuts.subscribe().wait_for(|cuts| *cuts >= times).await.unwrap();
    }

    /// Sends what was late, and waits until the server has closed that connection or answered.
    pub(crate) async fn deliver(&self) {
        self.state.deliver.notify_one();
        self.state.delivered.notified().await;
    }
}

impl State {
    /// Takes the cut if these bytes are its place.
    fn here(&self, bytes: &[u8], request: bool) -> Option<Cut> {
        if request {
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
        let mut slot = self.cut.lock().unwrap();
        let (at, of_request) = match slot.as_mut()? {
            Cut::Request(at) | Cut::Late(at) | Cut::Freeze(at) => (*at, true),
            Cut::Answer(at) => (*at, false),
            Cut::After(left) => {
                *left -= u64::from(request);
                return if *left == 0 { slot.take() } else { None };
            }
        };
        let hit = of_request == request && bytes.windows(at.len()).any(|part| part == at);
        if hit { slot.take() } else { None }
    }
}

async fn carry(client: UnixStream, server: UnixStream, state: &State) {
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let late = tokio::select! {
        biased;
        late = pass(client_in, server_out, state, true) => late,
        late = pass(server_in, client_out, state, false) => late,
    };
    // Everything of the client is closed here.
    let Some((bytes, mut server)) = late else { return };
    state.deliver.notified().await;
    // The server may have closed it: then there is nobody whom it could reach.
    if server.write_all(&bytes).await.is_ok() {
        let _ = server.as_ref().readable().await;
    }
    state.delivered.notify_one();
}

/// Passes on until the end, or the cut; answers what is late, with the way to the server.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
    request: bool,
) -> Option<(Vec<u8>, OwnedWriteHalf)> {
    let mut bytes = vec![0; 1 << 20];
    loop {
        let count = from.read(&mut bytes).await.ok().filter(|count| *count > 0)?;
        if let Some(cut) = state.here(&bytes[..count], request) {
            if matches!(cut, Cut::Freeze(_)) {
                to.write_all(&bytes[..count]).await.ok()?;
                state.cuts.send_modify(|cuts| *cuts += 1);
                return std::future::pending().await;
            }
            if matches!(cut, Cut::After(_)) {
                to.write_all(&bytes[..count]).await.ok()?;
                state.cuts.send_modify(|cuts| *cuts += 1);
                while from.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
                return None;
            }
            state.cuts.send_modify(|cuts| *cuts += 1);
            return matches!(cut, Cut::Late(_)).then(|| (bytes[..count].to_vec(), to));
        }
        if !request {
            state.received.fetch_add(count as u64, Ordering::Relaxed);
        }
        to.write_all(&bytes[..count]).await.ok()?;
    }
}
