//! A pooler that gives each transaction another session, as PgBouncer does with
//! `pool_mode = transaction`.

use std::time::Duration;

use mister_smith::actors::store::StoreError;
use mister_smith::actors::store::postgres::{PgDatabase, PgOptions, PgStore, Wake};
use mister_smith_testkit::Postgres;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::server::database;

/// `ReadyForQuery`, outside a transaction.
const IDLE: (u8, &[u8]) = (b'Z', b"I");

/// What a client asks before all else, if it would like TLS.
const TLS: [u8; 4] = 80_877_103_u32.to_be_bytes();

/// A message of the server that is still coming in, or the next one.
#[derive(Default)]
struct Messages(Vec<u8>);

impl Messages {
    /// The next message, its kind and its body. Dropped halfway, it loses nothing.
    async fn next(&mut self, server: &mut UnixStream) -> std::io::Result<(u8, Vec<u8>)> {
        loop {
            if let Some(length) = self.0.get(1..5) {
                let end = u32::from_be_bytes(length.try_into().unwrap()) as usize + 1;
                if self.0.len() >= end {
                    let rest = self.0.split_off(end);
                    let message = std::mem::replace(&mut self.0, rest);
                    return Ok((message[0], message[5..].to_vec()));
                }
            }
            if server.read_buf(&mut self.0).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

async fn pass(client: &mut UnixStream, kind: u8, body: &[u8]) -> std::io::Result<()> {
    let length = u32::try_from(body.len()).unwrap() + 4;
    client.write_all(&[&[kind][..], &length.to_be_bytes(), body].concat()).await
}

/// One client and two sessions: after `same` answers each statement is of the other session than the
/// one before.
async fn serve(mut client: UnixStream, server: String, mut same: usize) -> std::io::Result<()> {
    let start = loop {
        let length = client.read_u32().await?;
        let mut start = vec![0; length as usize - 4];
        client.read_exact(&mut start).await?;
        if *start != TLS {
            break [&length.to_be_bytes()[..], &start].concat();
        }
        client.write_all(b"N").await?;
    };
    let mut sessions = Vec::new();
    for number in 0..2 {
        let (mut session, mut messages) =
            (UnixStream::connect(&server).await?, Messages::default());
        session.write_all(&start).await?;
        loop {
            let (kind, body) = messages.next(&mut session).await?;
            if number == 0 {
                pass(&mut client, kind, &body).await?;
            }
            if kind == IDLE.0 {
                break;
            }
        }
        sessions.push((session, messages));
    }
    let (mut now, mut bytes) = (0, vec![0; 1 << 16]);
    loop {
        let (session, messages) = &mut sessions[now];
        tokio::select! {
            biased;
            sent = messages.next(session) => {
                let (kind, body) = sent?;
                pass(&mut client, kind, &body).await?;
                if (kind, &*body) == IDLE {
                    match same {
                        0 => now = 1 - now,
                        _ => same -= 1,
                    }
                }
            }
            read = client.read(&mut bytes) => match read? {
                0 => return Ok(()),
                read => session.write_all(&bytes[..read]).await?,
            }
        }
    }
}

/// The address of a database by such a pooler.
fn pooler(url: &str, same: usize) -> (TempDir, String) {
    let server = url.split(['=', '&']).nth(1).unwrap().to_owned();
    let dir = TempDir::with_prefix("pooler-").unwrap();
    let listener = UnixListener::bind(dir.path().join(".s.PGSQL.5432")).unwrap();
    let target = format!("{server}/.s.PGSQL.5432");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client, target.clone(), same));
        }
    });
    let url = url.replace(&server, &dir.path().display().to_string());
    (dir, url)
}

/// Guards against a store that begins behind such a pooler and says later that it is not migrated,
/// or that a statement does not exist.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_shares_sessions_is_refused_with_the_cure() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let (_dir, pooled) = pooler(&url, 0);
    let options = || PgOptions::default().wake(Wake::Poll).acquire_timeout(Duration::from_secs(5));
    let error = PgStore::open(&pooled, options()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("pool_mode = session"), "{error}");

    // Later, when others are there: its health says so.
    let (_dir, pooled) = pooler(&url, 8);
    let database = PgDatabase::open(&pooled, options()).unwrap();
    let mut answers = 0;
    let error = loop {
        match database.ping().await {
            Ok(()) => answers += 1,
            Err(error) => break error,
        }
    };
    assert!(answers > 0 && error.to_string().contains("pool_mode = session"), "{error}");
}
