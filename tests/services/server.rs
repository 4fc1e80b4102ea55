//! Databases, stores and events on a PostgreSQL server.

use std::time::Duration;

use mister_smith::actors::event::{EventId, NewEvent, StreamId};
use mister_smith::actors::store::conformance;
use mister_smith::actors::store::postgres::{PgOptions, PgStore};
use mister_smith::actors::store::{Append, ExpectedVersion, IdempotencyKey};
use mister_smith_testkit::Postgres;
use uuid::Uuid;

/// Long enough for a busy machine; a test that works never waits for it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The address of a database with all tables.
pub(crate) async fn database(server: &Postgres) -> String {
    let url = server.create_database().await;
    mister_smith::migrate::up(&url).await.unwrap();
    url
}

/// A store of one's own.
pub(crate) async fn store(server: &Postgres) -> PgStore {
    open(&database(server).await).await
}

pub(crate) async fn open(url: &str) -> PgStore {
    PgStore::open(url, PgOptions::default()).await.unwrap()
}

/// The name in an address.
pub(crate) fn name_of(url: &str) -> &str {
    url.split(['/', '?']).nth(3).unwrap()
}

/// An append of one event whose id, and key, are this number.
pub(crate) fn numbered(stream: &str, number: u128) -> Append {
    let event = NewEvent { id: EventId::new(Uuid::from_u128(number)), ..conformance::event(1) };
    let stream = StreamId::new(stream).unwrap();
    Append {
        key: Some(IdempotencyKey::new(number.to_be_bytes())),
        ..Append::new(stream, ExpectedVersion::Any, vec![event])
    }
}
