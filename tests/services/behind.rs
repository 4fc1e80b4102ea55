//! Rows that follow the log, and programs that do not know of it; what the server is spared.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use mister_smith::actors::event::{Position, StreamId, Version};
use mister_smith::actors::store::claims::Claimed;
use mister_smith::actors::store::postgres::PgStore;
use mister_smith::actors::store::read_model::documents::builds::Wanted;
use mister_smith::actors::store::read_model::documents::postgres::PgDocuments;
use mister_smith::actors::store::read_model::documents::{Documents, Part};
use mister_smith::actors::store::{
    Append, AppendError, EventFilter, EventStore, ExpectedVersion, IdempotencyKey, StoreError,
    conformance,
};
use mister_smith_testkit::{Postgres, eventually};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::server::{DEADLINE, database, name_of, numbered, open};
use crate::wire::Wire;

fn stream(name: &str) -> StreamId {
    StreamId::new(name).unwrap()
}

/// One event whose id is this number, without a key.
fn plain(name: &str, id: u128) -> Append {
    Append { key: None, ..numbered(name, id) }
}

/// An append as programs before the rows followed made it: the rows of head and stream move with
/// it, and if one is not as believed, it divides by zero.
async fn older_append(
    connection: &mut PgConnection,
    name: &str,
    id: u128,
) -> Result<i64, sqlx::Error> {
    let (number, version): (i64, i64) =
        sqlx::query_as("select id, version from ms_framework.streams where name = $1")
            .bind(name)
            .fetch_one(&mut *connection)
            .await?;
    sqlx::query_scalar(
        "with lock as materialized (select pg_advisory_xact_lock(7033157211)), \
         head as (update ms_framework.store_head set position = position + 1 from lock \
                   where id = 1 returning position - 1 as base), \
         moved as (update ms_framework.streams set version = $2 + 1, last_position = base + 1 \
                     from head where id = $1 and version = $2 and status = 0 returning 1), \
         written as (insert into ms_framework.events (position, stream_id, version, recorded_at, \
                         type_id, codec, event_id, data, meta) \
                     select base + 1, $1, $2 + 1, 0, 1, 1, $3, '', '' from head) \
         select base / (select count(*) from moved) from head",
    )
    .bind(number)
    .bind(version)
    .bind(Uuid::from_u128(id))
    .fetch_one(connection)
    .await
}

async fn is_right(store: &PgStore, length: usize) {
    let log = conformance::whole_log(store, 100).await;
    assert_eq!(log.len(), length);
    let mut versions = std::collections::BTreeMap::new();
    for (n, event) in (1..).zip(&log) {
        assert_eq!(event.position.get(), n);
        let version: &mut u64 = versions.entry(event.stream.clone()).or_default();
        *version += 1;
        assert_eq!(event.version.get(), *version, "{event:?}");
    }
    for (stream, version) in versions {
        assert_eq!(store.stream_version(&stream).await.unwrap().get(), version);
    }
}

/// In a rolling deploy. Where rows are behind, the older program is refused and nothing is
/// damaged; a newer one sees it, and keeps the rows right from then on.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_from_before_appends_beside_a_newer_one() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let store = open(&url).await;
    for id in 1..=3 {
        store.append_batch([plain("s", id)].into()).await.unwrap();
    }
    let mut older = PgConnection::connect(&url).await.unwrap();
    sqlx::query("set application_name to 'smith'").execute(&mut older).await.unwrap();
    // The rows are behind by two events now, or were brought forward a moment ago.
    let mut length = 3 + usize::from(older_append(&mut older, "s", 10).await.is_ok());
    is_right(&store, length).await;
    store.settle().await.unwrap();
    older_append(&mut older, "s", 11).await.unwrap();
    length += 1;
    is_right(&store, length).await;

    // A writer looks for older programs when it begins; one that runs does within a second.
    let newer = open(&url).await;
    for id in 100..110 {
        newer.append_batch([plain("s", id), plain("new", id + 1_000)].into()).await.unwrap();
        older_append(&mut older, "s", id + 100).await.unwrap();
        older_append(&mut older, "new", id + 200).await.unwrap();
        length += 4;
    }
    is_right(&newer, length).await;
    let mut id = 1_000_000;
    eventually(DEADLINE, async || {
        id += 1;
        store.append_batch([plain("s", id)].into()).await.unwrap();
        older_append(&mut older, "s", id + 500_000).await.map_err(|error| error.to_string())
    })
    .await;
    let head = store.head().await.unwrap().get();
    is_right(&store, usize::try_from(head).unwrap()).await;
}

/// Every read is right while the rows are behind, and when they are not.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_read_depends_on_rows_that_follow() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let (store, other) = (open(&url).await, open(&url).await);
    let end = Version::new(u64::MAX);
    for round in 1..=20_u64 {
        store.append_batch([plain("s", round.into())].into()).await.unwrap();
        let at = Version::new(round);
        assert_eq!(other.stream_version(&stream("s")).await.unwrap(), at);
        assert_eq!(other.head().await.unwrap(), Position::new(round));
        let page = other.read_stream(&stream("s"), at.minus(1), 10).await.unwrap();
        assert_eq!(page.len(), 1);
        let page = other.read_stream_backward(&stream("s"), end, 1).await.unwrap();
        assert_eq!(page[0].version, at);
        let filter = EventFilter::default().categories(["s"]);
        let page = other.read_matching(&filter, Position::new(round - 1), 10).await.unwrap();
        assert_eq!((page.events.len(), page.scanned_to), (1, Position::new(round)));
        if round % 5 == 0 {
            other.settle().await.unwrap();
        }
    }
    let behind = "select position from ms_framework.store_head";
    store.append_batch([plain("s", 21)].into()).await.unwrap();
    // Nobody has to ask for it.
    eventually(DEADLINE, async || match &*server.sql(name_of(&url), behind).await {
        "21" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await;
    let row = "select version, last_position from ms_framework.streams where name = 's'";
    assert_eq!(server.sql(name_of(&url), row).await, "21|21");
}

/// Guards against 2,000 scans of a long log for the few events of a category.
#[tokio::test(flavor = "multi_thread")]
async fn a_rare_category_is_found_without_a_look_at_all_the_others() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let store = open(&url).await;
    store.append_batch([plain("rare-1", 1), plain("filler-1", 2)].into()).await.unwrap();
    store.settle().await.unwrap();
    let many = "insert into ms_framework.events \
                select n, s.id, n - 1, 0, 1, 1, gen_random_uuid(), '', '' \
                  from generate_series(3, 400000) n, ms_framework.streams s \
                 where s.name = 'filler-1'";
    server.sql(name_of(&url), many).await;
    let store = open(&url).await;
    store.append_batch([plain("rare-2", 3)].into()).await.unwrap();
    let filter = EventFilter::default().categories(["rare"]);
    let calls = async |store: &PgStore| {
        let (mut at, mut calls, mut found) = (Position::ZERO, 0, Vec::new());
        loop {
            let page = store.read_matching(&filter, at, 10).await.unwrap();
            calls += 1;
            found.extend(page.events.iter().map(|event| event.position.get()));
            if page.scanned_to == at {
                return (calls, found);
            }
            at = page.scanned_to;
        }
    };
    assert_eq!(calls(&store).await.1, [1, 400_001], "also while nothing is known of the rest");
    store.settle().await.unwrap();
    let (calls, found) = calls(&store).await;
    assert_eq!(found, [1, 400_001]);
    assert!(calls <= 4, "{calls} calls");
    let absent = EventFilter::default().categories(["none"]);
    let page = store.read_matching(&absent, Position::ZERO, 10).await.unwrap();
    assert_eq!(page.scanned_to, Position::new(400_001), "at once");
}

/// Guards against conflicts that cost an error in the server's log each, and the lock.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_second_leaves_no_error_in_the_servers_log() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let stores = [open(&url).await, open(&url).await];
    let key = Some(IdempotencyKey::of(["k"]));
    let mut id = 0;
    for round in 0..40 {
        id += 3;
        let store = &stores[round % 2];
        let batch = [
            plain("s", id),
            Append { expected: ExpectedVersion::NoStream, ..plain("s", id + 1) },
            Append { key, ..plain(&format!("t-{}", round / 2), id + 2) },
        ];
        let outcomes = store.append_batch(batch.into()).await.unwrap();
        outcomes[0].as_ref().unwrap();
        assert!(matches!(outcomes[1], Err(AppendError::Conflict { .. })), "{outcomes:?}");
        assert_eq!(outcomes[2].as_ref().unwrap().duplicate, round > 0);
    }
    assert!(!server.log().contains("ERROR"), "{}", server.log());
    is_right(&stores[0], 41).await;
}

/// Guards against a page of large events for which the server sends all that it has.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_sends_what_fits_into_a_page() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let store = open(&url).await;
    let large = |id: u128| {
        let mut append = plain("large", id);
        append.events[0].data = vec![7; 200_000].into();
        append
    };
    for batch in 0..20_u128 {
        let appends: Vec<_> = (1..=25).map(|n| large(batch * 25 + n)).collect();
        store.append_batch(appends.into()).await.unwrap();
    }
    let wire = Wire::to(&url);
    let reader = open(&wire.url(&url)).await;
    let mut seen = 0;
    while seen < 500 {
        let page = reader.read_all(Position::new(seen), 5_000).await.unwrap();
        seen += page.len() as u64;
        assert_eq!(page.last().unwrap().position, Position::new(seen));
    }
    // It is 100 MB of events; each of seven pages began with up to 16 MiB and then knew better.
    let sent = wire.received();
    assert!(sent < 130_000_000, "{sent} bytes");
    let page = reader.read_stream(&stream("large"), Version::ZERO, 5_000).await.unwrap();
    assert!(!page.is_empty());
}

/// Guards against the whole table of types being read for each new type: names come from outside.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_type_costs_the_same_whatever_number_there_is() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let many = "insert into ms_framework.event_types (name, schema_version) \
                select 'type-' || n, 1 from generate_series(1, 20000) n";
    server.sql(name_of(&url), many).await;
    let wire = Wire::to(&url);
    let store = open(&wire.url(&url)).await;
    let typed = |id: u128, name: String| {
        let mut append = plain("s", id);
        append.events[0].event_type = name.into();
        append
    };
    store.append_batch([plain("s", 1)].into()).await.unwrap();
    let before = wire.received();
    for id in 2..=20 {
        store.append_batch([typed(id, format!("new-{id}"))].into()).await.unwrap();
        store.append_batch([typed(id + 100, format!("type-{id}"))].into()).await.unwrap();
    }
    assert_eq!(store.read_all(Position::ZERO, 100).await.unwrap().len(), 39);
    let sent = wire.received() - before;
    assert!(sent < 400_000, "{sent} bytes for 38 types");
}

/// Guards against a node that runs in circles after a failover to a replica that lacks the last
/// commits: the end that it had announced is not there any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_became_shorter_is_waited_for_again() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let store = open(&url).await;
    for id in 1..=5 {
        store.append_batch([plain("s", id)].into()).await.unwrap();
    }
    store.settle().await.unwrap();
    assert_eq!(store.changed(Position::new(3)).await.unwrap(), Position::new(5));
    // What the replica would have.
    let lost = "delete from ms_framework.events where position > 3; \
                update ms_framework.streams set version = 3, last_position = 3; \
                update ms_framework.store_head set position = 3";
    server.sql(name_of(&url), lost).await;
    // No session outlives a failover.
    let end = "select pg_terminate_backend(pid) from pg_stat_activity \
               where application_name = 'mister-smith'";
    server.sql(name_of(&url), end).await;
    eventually(DEADLINE, async || match store.changed(Position::new(3)).now_or_never() {
        None => Ok(()),
        Some(head) => Err(format!("still announced: {head:?}")),
    })
    .await;
    let other = open(&url).await;
    let (head, written) = tokio::join!(
        tokio::time::timeout(DEADLINE, store.changed(Position::new(3))),
        other.append_batch([plain("s", 6)].into())
    );
    written.unwrap();
    assert_eq!(head.unwrap().unwrap(), Position::new(4));
    store.append_batch([plain("s", 7)].into()).await.unwrap();
    is_right(&store, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_forgotten_by_their_age() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let store = open(&url).await;
    store.append_batch([numbered("s", 1), numbered("s", 2)].into()).await.unwrap();
    // Many events of long ago, so that it takes more than one statement.
    let aged = "update ms_framework.command_results set recorded_at = recorded_at - 691200000000 \
                 where key = '00000000-0000-0000-0000-000000000001'; \
                insert into ms_framework.command_results \
                select gen_random_uuid(), 1, 1, 1, 1, 0 from generate_series(1, 12000)";
    server.sql(name_of(&url), aged).await;
    store.forget_old_keys().await.unwrap();
    let left = "select count(*) from ms_framework.command_results";
    assert_eq!(server.sql(name_of(&url), left).await, "1");
    let key = |n: u128| IdempotencyKey::new(n.to_be_bytes());
    assert_eq!(store.answer(key(1)).await.unwrap(), None);
    assert!(store.answer(key(2)).await.unwrap().is_some());
    let again = [numbered("s", 1), numbered("s", 2)];
    let outcomes = store.append_batch(again.into()).await.unwrap();
    let repeats: Vec<_> = outcomes.iter().map(|one| one.as_ref().unwrap().duplicate).collect();
    assert_eq!(repeats, [false, true]);
}

/// A database whose commits are not waited for, and whose log is written late.
async fn careless(server: &Postgres) -> String {
    let url = database(server).await;
    let name = name_of(&url);
    server.sql(name, &format!("alter database {name} set synchronous_commit = off")).await;
    server.sql(name, "alter system set wal_writer_delay = '10s'").await;
    server.kill9().await;
    server.restart().await;
    url
}

/// Guards against a setting of the server that undoes what was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn an_append_is_on_the_disk_whatever_the_server_is_set_to() {
    let server = Postgres::start().await;
    let url = careless(&server).await;
    let store = open(&url).await;
    for id in 1..=20 {
        store.append_batch([numbered("s", id)].into()).await.unwrap();
    }
    server.kill9().await;
    server.restart().await;
    assert_eq!(conformance::whole_log(&open(&url).await, 100).await.len(), 20);
}

/// Guards against two owners with one epoch: a claim that a crash undoes after its owner knew.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_on_the_disk_before_it_is_answered() {
    let server = Postgres::start().await;
    let url = careless(&server).await;
    let documents = PgDocuments::new(Arc::clone(open(&url).await.database()));
    let build =
        documents.builds("p", Wanted { version: 1, partitions: 1 }).await.unwrap().active.id;
    let part = Part { build, partition: 0 }.to_string();
    let lease = Duration::from_millis(1);
    let epoch = async |documents: &PgDocuments, owner: &str| match documents
        .claims()
        .claim(&part, owner, lease)
        .await
        .unwrap()
    {
        Claimed::Yes(claim) => claim.fence.epoch.get(),
        held @ Claimed::Held(_) => panic!("{held:?}"),
    };
    let first = epoch(&documents, "a").await;
    server.kill9().await;
    server.restart().await;
    let documents = PgDocuments::new(Arc::clone(open(&url).await.database()));
    assert!(epoch(&documents, "b").await > first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_and_a_pool_have_the_limits_of_the_address() {
    let server = Postgres::start().await;
    let url = database(&server).await + "&statement_timeout_s=1&pool_min=3&pool_max=4";
    let store = open(&url).await;
    store.append_batch([plain("s", 1)].into()).await.unwrap();
    let open_ones = "select count(*) from pg_stat_activity where application_name = 'mister-smith'";
    eventually(DEADLINE, async || {
        match server.sql(name_of(&url), open_ones).await.parse::<u32>() {
            Ok(3..) => Ok(()),
            other => Err(format!("{other:?} connections")),
        }
    })
    .await;
    assert_eq!(store.database().usage().1, 4);
    let mut holder =
        PgConnection::connect(&url.replace("&statement_timeout_s=1", "")).await.unwrap();
    let mut held = holder.begin().await.unwrap();
    sqlx::query("lock table ms_framework.events").execute(&mut *held).await.unwrap();
    let error = store.read_all(Position::ZERO, 10).await.unwrap_err();
    assert!(matches!(error, StoreError::Busy { .. }), "{error:?}");
    held.rollback().await.unwrap();
    assert_eq!(store.read_all(Position::ZERO, 10).await.unwrap().len(), 1);
}

/// Guards against a node that is restarted because its readers are slow.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_asked_for_its_health_beside_the_pool() {
    let server = Postgres::start().await;
    let url = database(&server).await + "&pool_max=2";
    let store = Arc::new(open(&url).await);
    store.append_batch([plain("s", 1)].into()).await.unwrap();
    let mut holder = PgConnection::connect(&url.replace("&pool_max=2", "")).await.unwrap();
    let mut held = holder.begin().await.unwrap();
    sqlx::query("lock table ms_framework.events").execute(&mut *held).await.unwrap();
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.read_all(Position::ZERO, 10).await })
        })
        .collect();
    eventually(DEADLINE, async || match store.database().usage() {
        (2, 2) => Ok(()),
        usage => Err(format!("{usage:?}")),
    })
    .await;
    tokio::time::timeout(DEADLINE, store.database().ping()).await.unwrap().unwrap();
    held.rollback().await.unwrap();
    for reader in readers {
        assert_eq!(reader.await.unwrap().unwrap().len(), 1);
    }
    server.kill9().await;
    store.database().ping().await.unwrap_err();
    server.restart().await;
    store.database().ping().await.unwrap();
}
