//! Appends whose connection is lost at a chosen place, or that the server undoes.

use std::time::Duration;

use mister_smith::actors::event::{EventId, NewEvent, Position, StreamId, Timestamp, Version};
use mister_smith::actors::store::postgres::{PgOptions, PgStore, Wake};
use mister_smith::actors::store::{
    Append, AppendError, AppendOutcome, EventStore, ExpectedVersion, IdempotencyKey, StoreError,
    conformance,
};
use mister_smith::prelude::ErrorClass;
use mister_smith_testkit::Postgres;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::server::{DEADLINE, database, name_of, open};
use crate::wire::{COMMITTED, Cut, INSERTED, SELECTED, Wire};

const ANY: ExpectedVersion = ExpectedVersion::Any;

/// In the payload of [`marked`] appends, for the wire to find.
const HERE: &[u8] = b"cut here";

/// An append without a key. The ids of its events are numbers from `id` on.
fn plain(stream: &str, expected: ExpectedVersion, id: u128, count: u128) -> Append {
    let events = (id..id + count)
        .map(|id| NewEvent { id: EventId::new(Uuid::from_u128(id)), ..conformance::event(3) });
    Append::new(StreamId::new(stream).unwrap(), expected, events.collect())
}

fn marked(mut append: Append) -> Append {
    append.events[0].data = HERE.into();
    append
}

/// Makes a batch take a look: what seems to conflict is not refused from memory.
fn refused(stream: &str) -> Append {
    plain(stream, ExpectedVersion::Exact(Version::new(77)), 1 << 100, 1)
}

async fn ids(store: &PgStore) -> Vec<u128> {
    let log = conformance::whole_log(store, 1_000).await;
    log.iter().map(|event| event.id.as_uuid().as_u128()).collect()
}

/// Makes a batch take the lock: its type is new.
fn typed(mut append: Append) -> Append {
    append.events[0].event_type = "new".into();
    append
}

/// First and last position of an append that was written, `None` for one that was refused.
type Place = Option<(u64, u64)>;

fn places(outcomes: Vec<AppendOutcome>) -> Vec<Place> {
    let place = |outcome: AppendOutcome| match outcome {
        Ok(appended) => {
            assert!(!appended.duplicate, "the store answered its own repeat");
            Some((appended.first_position.get(), appended.last_position.get()))
        }
        Err(AppendError::Conflict { .. }) => None,
        Err(error) => panic!("{error}"),
    };
    outcomes.into_iter().map(place).collect()
}

/// A store by a wire that knows the types and the streams `s`, `t` and `u`, so that its next append
/// is one statement; and another one to look with, without the wire.
async fn by_wire(server: &Postgres) -> (Wire, PgStore, PgStore) {
    let url = database(server).await;
    let wire = Wire::to(&url);
    let store = open(&wire.url(&url)).await;
    for (id, stream) in [(1, "s"), (2, "t"), (3, "u")] {
        store.append_batch([plain(stream, ANY, id, 1)].into()).await.unwrap();
    }
    (wire, store, open(&url).await)
}

/// Batches by each way that an append can go, where their appends come to lie on a log of three,
/// and what the server says last. None has a key, but the one.
fn batches() -> Vec<(Vec<Append>, Vec<Place>, &'static [u8])> {
    let key = Some(IdempotencyKey::of(["k"]));
    vec![
        (vec![plain("s", ANY, 10, 1)], vec![Some((4, 4))], INSERTED),
        (
            vec![plain("t", ANY, 10, 3), plain("u", ANY, 13, 1), plain("t", ANY, 14, 2)],
            vec![Some((4, 6)), Some((7, 7)), Some((8, 9))],
            SELECTED,
        ),
        (
            vec![typed(plain("s", ANY, 10, 2)), refused("t"), plain("t", ANY, 12, 1)],
            vec![Some((4, 5)), None, Some((6, 6))],
            COMMITTED,
        ),
        (vec![Append { key, ..plain("s", ANY, 10, 2) }], vec![Some((4, 5))], SELECTED),
    ]
}

/// Guards against a store that forgets where the log ended before the batch: after a commit by the
/// slow way it looked for the batch behind the batch, and wrote it once more.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_is_found_in_the_log() {
    let server = Postgres::start().await;
    for (batch, expected, answer) in batches() {
        let (wire, store, other) = by_wire(&server).await;
        wire.cut(Cut::Answer(answer));
        let outcomes = store.append_batch(batch.into()).await.unwrap();
        wire.was_cut(1).await;
        assert_eq!(places(outcomes), expected);
        let last = expected.last().unwrap().unwrap().1;
        let written = 10..10 + u128::from(last) - 3;
        assert_eq!(ids(&other).await, [1, 2, 3].into_iter().chain(written).collect::<Vec<_>>());
        // And it goes on from there.
        let outcomes = store.append_batch([plain("s", ANY, 50, 1)].into()).await.unwrap();
        assert_eq!(places(outcomes), [Some((last + 1, last + 1))]);
    }
}

/// Others append to the same streams before the store is back: they neither hide its batch nor are
/// they taken for it.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_is_found_behind_what_others_append() {
    let server = Postgres::start().await;
    for (batch, expected, answer) in batches() {
        let (wire, store, other) = by_wire(&server).await;
        wire.cut_and_block(Cut::Answer(answer));
        let (outcomes, ()) = tokio::join!(store.append_batch(batch.into()), async {
            wire.was_cut(1).await;
            let others = ["s", "t", "u"].map(|stream| plain(stream, ANY, 100, 7));
            other.append_batch(others.to_vec().into()).await.unwrap();
            wire.open();
        });
        assert_eq!(places(outcomes.unwrap()), expected);
        let last = expected.last().unwrap().unwrap().1;
        assert_eq!(other.head().await.unwrap().get(), last + 21);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_did_not_arrive_is_made_again() {
    let server = Postgres::start().await;
    for (mut batch, expected, _) in batches() {
        batch[0] = marked(batch[0].clone());
        let (wire, store, other) = by_wire(&server).await;
        wire.cut(Cut::Request(HERE));
        let outcomes = store.append_batch(batch.into()).await.unwrap();
        wire.was_cut(1).await;
        assert_eq!(places(outcomes), expected);
        assert_eq!(other.head().await.unwrap().get(), expected.last().unwrap().unwrap().1);
    }
}

/// What others append while the store is away counts for what did not arrive, as for any append.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_did_not_arrive_can_lose_to_others() {
    let server = Postgres::start().await;
    let (wire, store, other) = by_wire(&server).await;
    let expected = ExpectedVersion::Exact(Version::new(1));
    let batch = vec![marked(plain("s", expected, 10, 2)), plain("t", ANY, 12, 1)];
    wire.cut_and_block(Cut::Request(HERE));
    let (outcomes, ()) = tokio::join!(store.append_batch(batch.into()), async {
        wire.was_cut(1).await;
        // The first event at the same place, and the rest is another.
        other.append_batch([plain("s", expected, 10, 1)].into()).await.unwrap();
        wire.open();
    });
    assert_eq!(places(outcomes.unwrap()), [None, Some((5, 5))]);
    assert_eq!(ids(&other).await, [1, 2, 3, 10, 12]);
}

/// Guards against a statement that the server has not read yet when the store looks for it: it
/// would be written after the store had written it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_arrives_late_is_not_carried_out() {
    let server = Postgres::start().await;
    for (mut batch, expected, _) in batches() {
        batch[0] = marked(batch[0].clone());
        let (wire, store, other) = by_wire(&server).await;
        wire.cut(Cut::Late(HERE));
        let outcomes = store.append_batch(batch.into()).await.unwrap();
        assert_eq!(places(outcomes), expected);
        wire.deliver().await;
        let written = ids(&other).await;
        assert_eq!(written.len() as u64, expected.last().unwrap().unwrap().1);
    }
}

/// Behind a pooler the process of the lost connection is not ended, as it may serve others: what
/// arrives late is carried out, and finds its place taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_arrives_late_finds_its_place_taken() {
    let server = Postgres::start().await;
    for (mut batch, expected, last) in batches() {
        if last == COMMITTED {
            continue;
        }
        batch[0] = marked(batch[0].clone());
        let url = database(&server).await;
        let wire = Wire::to(&url);
        let options = PgOptions::default().wake(Wake::Poll);
        let store = PgStore::open(&wire.url(&url), options).await.unwrap();
        for (id, stream) in [(1, "s"), (2, "t"), (3, "u")] {
            store.append_batch([plain(stream, ANY, id, 1)].into()).await.unwrap();
        }
        wire.cut(Cut::Late(HERE));
        let outcomes = store.append_batch(batch.into()).await.unwrap();
        assert_eq!(places(outcomes), expected);
        wire.deliver().await;
        let written = ids(&open(&url).await).await;
        assert_eq!(written.len() as u64, expected.last().unwrap().unwrap().1);
    }
}

/// Guards against a machine that vanishes while it holds the lock: everybody else waited until TCP
/// had given it up, which takes hours.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_vanishes_does_not_keep_the_lock() {
    let server = Postgres::start().await;
    let (wire, store, other) = by_wire(&server).await;
    wire.cut(Cut::Freeze(b"pg_advisory_xact_lock("));
    let vanished =
        tokio::spawn(
            async move { store.append_batch([typed(plain("s", ANY, 10, 1))].into()).await },
        );
    wire.was_cut(1).await;
    let append = other.append_batch([plain("s", ANY, 20, 1)].into());
    let outcomes = tokio::time::timeout(DEADLINE, append).await.expect("the lock is free").unwrap();
    assert_eq!(places(outcomes), [Some((4, 4))]);
    vanished.abort();
    assert_eq!(ids(&other).await, [1, 2, 3, 20]);
}

// --- what the server undoes ------------------------------------------------------------------------

/// Makes every insert of an event fail, the first `times` times, with this statement.
async fn fail(server: &Postgres, url: &str, times: u32, statement: &str) {
    let sql = format!(
        "set search_path to ms_framework;
         -- A sequence is not undone with the statement that failed.
         drop sequence if exists failures; create sequence failures;
         create or replace function fail() returns trigger language plpgsql as $$ begin
             if nextval('ms_framework.failures') <= {times} then {statement}; end if;
             return new;
         end $$;
         create or replace trigger fail before insert on events for each row
             execute function fail();"
    );
    server.sql(name_of(url), &sql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_undoes_is_made_again_and_not_for_ever() {
    let server = Postgres::start().await;
    let undone =
        ["40P01", "40001"].map(|code| format!("raise exception 'no' using errcode = '{code}'"));
    let ended = "perform pg_terminate_backend(pg_backend_pid())".to_owned();
    for statement in undone.into_iter().chain([ended]) {
        let url = database(&server).await;
        let store = open(&url).await;
        store.append_batch([plain("s", ANY, 1, 1)].into()).await.unwrap();
        fail(&server, &url, 3, &statement).await;
        for batch in [
            vec![plain("s", ANY, 2, 1)],
            vec![plain("s", ANY, 3, 1), refused("t"), plain("new", ANY, 4, 1)],
        ] {
            store.append_batch(batch.into()).await.unwrap();
            fail(&server, &url, 3, &statement).await;
        }
        assert_eq!(ids(&store).await, [1, 2, 3, 4]);

        fail(&server, &url, 1_000, &statement).await;
        let error = store.append_batch([plain("s", ANY, 5, 1)].into()).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Transient, "{error}");
        fail(&server, &url, 0, &statement).await;
        store.append_batch([plain("s", ANY, 5, 1)].into()).await.unwrap();
        assert_eq!(ids(&store).await, [1, 2, 3, 4, 5]);
    }
}

/// Guards against a store that goes on with the number of a type whose row was undone: its events
/// would be in the log, and nobody could read them.
#[tokio::test(flavor = "multi_thread")]
async fn a_type_whose_append_was_undone_is_not_known() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let store = open(&url).await;
    store.append_batch([plain("s", ANY, 1, 1)].into()).await.unwrap();
    let mut new = plain("s", ANY, 2, 1);
    new.events[0].event_type = "new".into();
    fail(&server, &url, 3, "raise exception 'no' using errcode = '40001'").await;
    // Its type is given a number under the lock, and undone with it three times.
    store.append_batch([new.clone(), refused("t")].into()).await.unwrap();
    let log = conformance::whole_log(&open(&url).await, 10).await;
    assert_eq!(&*log[1].event_type, "new");

    // A refused append brings no type either.
    new.events[0].event_type = "refused".into();
    new.expected = ExpectedVersion::NoStream;
    let outcomes = store.append_batch([new].into()).await.unwrap();
    assert_eq!(places(outcomes), [None]);
    let types = store.event_types().await.unwrap();
    let types: Vec<_> = types.iter().map(|recorded| &*recorded.name).collect();
    assert_eq!(types, ["new", "opened"]);
}

// --- two nodes -------------------------------------------------------------------------------------

/// Guards against a node that marks a time before the last mark of another one: who reads from
/// that time would then miss what the other one had written in between.
#[tokio::test(flavor = "multi_thread")]
async fn marks_of_time_go_up_whoever_writes_them() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let (fast, slow) = (open(&url).await, open(&url).await);
    let minute = |minute: i64| Timestamp::from_micros(1_700_000_000_000_000 + minute * 60_000_000);
    let at = |id, time: i64| {
        let mut append = plain("s", ANY, id, 1);
        append.events[0].recorded_at = minute(time);
        vec![append]
    };
    slow.append_batch(at(1, 0).into()).await.unwrap();
    fast.append_batch(at(2, 20).into()).await.unwrap();
    slow.append_batch(at(3, 10).into()).await.unwrap();
    assert_eq!(slow.position_at(minute(15)).await.unwrap(), Position::ZERO);
    assert_eq!(slow.position_at(minute(20)).await.unwrap(), Position::new(1));
    slow.append_batch(at(4, 30).into()).await.unwrap();
    assert_eq!(fast.position_at(minute(31)).await.unwrap(), Position::new(3));
}

/// Through a pooler nobody is heard; a store that only looks finds what others append all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_only_looks_hears_of_others() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let looks = PgStore::open(&url, PgOptions::default().wake(Wake::Poll)).await.unwrap();
    let other = open(&url).await;
    for id in 1..=2 {
        let (head, written) = tokio::join!(
            tokio::time::timeout(DEADLINE, looks.changed(Position::new(id - 1))),
            other.append_batch([plain("s", ANY, id.into(), 1)].into())
        );
        written.unwrap();
        assert_eq!(head.unwrap().unwrap(), Position::new(id));
    }
    let listening = "select count(*) from pg_stat_activity where query like 'LISTEN%'";
    assert_eq!(server.sql(name_of(&url), listening).await, "0");
}

// --- connections -----------------------------------------------------------------------------------

/// Every connection that waits in the pool is dead after a restart of the server. No reader hears
/// of it.
#[tokio::test(flavor = "multi_thread")]
async fn readers_do_not_hear_of_a_restart() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let store = PgStore::open(&url, PgOptions::default().connections(4)).await.unwrap();
    store.append_batch([plain("s", ANY, 1, 1)].into()).await.unwrap();
    let heads = futures_util::future::join_all((0..16).map(|_| store.head())).await;
    assert!(heads.iter().all(Result::is_ok));
    server.kill9().await;
    let error = store.head().await.unwrap_err();
    assert!(matches!(error, StoreError::Lost { .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Transient);
    server.restart().await;
    for _ in 0..8 {
        assert_eq!(store.head().await.unwrap(), Position::new(1));
        assert_eq!(ids(&store).await, [1]);
    }
}

/// A server that refuses connections is not a pool that is used up.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_is_not_taken_for_a_full_pool() {
    // A port that nobody listens on: bound and left.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgres://postgres@127.0.0.1:{port}/db");
    let options = PgOptions::default().acquire_timeout(Duration::from_millis(50));
    let error = PgStore::open(&url, options).await.unwrap_err();
    assert!(matches!(error, StoreError::Lost { .. }), "{error:?}");
    assert!(error.to_string().contains(&format!("postgres://127.0.0.1:{port}/db")), "{error}");
}

/// Guards against a refused lock that left its transaction open: the next try found itself inside
/// it, and the append failed though the lock was free by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_refused_is_asked_for_again() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let sql = format!("alter database {} set lock_timeout = '200ms'", name_of(&url));
    server.sql("postgres", &sql).await;
    let store = open(&url).await;
    store.append_batch([plain("s", ANY, 1, 1)].into()).await.unwrap();
    let mut other = PgConnection::connect(&url).await.unwrap();
    sqlx::query("select pg_advisory_lock(7033157211)").execute(&mut other).await.unwrap();
    // Free once the first try was refused.
    let release = async {
        let mut before = false;
        loop {
            let waits: bool = sqlx::query_scalar(
                "select exists (select from pg_locks where locktype = 'advisory' and not granted)",
            )
            .fetch_one(&mut other)
            .await
            .unwrap();
            if before && !waits {
                break;
            }
            before = waits;
        }
        sqlx::query("select pg_advisory_unlock(7033157211)").execute(&mut other).await.unwrap();
    };
    let append = store.append_batch([typed(plain("s", ANY, 2, 1))].into());
    let (outcomes, ()) = tokio::join!(append, release);
    assert_eq!(places(outcomes.unwrap()), [Some((2, 2))]);
    store.append_batch([plain("s", ANY, 3, 1)].into()).await.unwrap();
    assert_eq!(ids(&store).await, [1, 2, 3]);
}
