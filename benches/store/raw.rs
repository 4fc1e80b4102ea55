//! The limit: the same rows, written and read by the driver alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _};
use tempfile::TempDir;
use uuid::Uuid;

use mister_smith::actors::event::Event as _;

use super::{Account, Aggregate as _, Happened, deposited};

async fn connect(url: &str) -> PgConnection {
    let options: PgConnectOptions = url.parse().unwrap();
    let mut connection = options.connect().await.unwrap();
    connection
        .execute(
            "create table if not exists raw (position bigserial primary key, stream_id bigint, \
             version bigint, recorded_at bigint, type_id int, codec smallint, event_id uuid, \
             data bytea, meta bytea); \
             create index if not exists raw_stream on raw (stream_id, version)",
        )
        .await
        .unwrap();
    connection
}

/// One row a transaction, over as many connections as commands at once (64 at most).
pub(crate) async fn pg_single(url: &str, connections: usize, time: Duration) -> f64 {
    drop(connect(url).await);
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let data = deposited(1).encode().unwrap().data;
    let mut tasks = Vec::new();
    let begun = Instant::now();
    for n in 0..connections.min(64) {
        let (stop, count, data) = (Arc::clone(&stop), Arc::clone(&count), data.clone());
        let mut connection = connect(url).await;
        tasks.push(tokio::spawn(async move {
            let mut version = 0_i64;
            while !stop.load(Ordering::Relaxed) {
                version += 1;
                sqlx::query(
                    "insert into raw (stream_id, version, recorded_at, type_id, codec, event_id, \
                     data, meta) values ($1, $2, 0, 1, 2, $3, $4, '')",
                )
                .bind(n as i64)
                .bind(version)
                .bind(Uuid::from_u128(version as u128))
                .bind(&data[..])
                .execute(&mut connection)
                .await
                .unwrap();
                count.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    tokio::time::sleep(time).await;
    let rate = count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    rate
}

/// Many rows a transaction by `unnest`, one connection.
pub(crate) async fn pg_unnest(url: &str, rows: usize, time: Duration) -> f64 {
    let mut connection = connect(url).await;
    let data = deposited(1).encode().unwrap().data;
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < time {
        sqlx::query(
            "insert into raw (stream_id, version, recorded_at, type_id, codec, event_id, data, \
             meta) select * from unnest($1::int8[], $2::int8[], $3::int8[], $4::int4[], \
             $5::int2[], $6::uuid[], $7::bytea[], $8::bytea[])",
        )
        .bind((0..rows).map(|n| n as i64).collect::<Vec<_>>())
        .bind(vec![count as i64; rows])
        .bind(vec![0_i64; rows])
        .bind(vec![1_i32; rows])
        .bind(vec![2_i16; rows])
        .bind((0..rows).map(|n| Uuid::from_u128(n as u128)).collect::<Vec<_>>())
        .bind(vec![&data[..]; rows])
        .bind(vec![&b""[..]; rows])
        .execute(&mut connection)
        .await
        .unwrap();
        count += rows;
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

/// `rows` a transaction in one statement, WAL and FULL, one connection.
pub(crate) async fn sqlite(dir: &TempDir, rows: usize, time: Duration) -> f64 {
    let mut connection = SqliteConnectOptions::new()
        .filename(dir.path().join("raw.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .connect()
        .await
        .unwrap();
    connection
        .execute(
            "create table if not exists raw (position integer primary key, stream_id integer, \
             version integer, type_id integer, event_id blob, codec integer, \
             recorded_at integer, data blob, meta blob) strict; \
             create unique index if not exists raw_stream on raw (stream_id, version)",
        )
        .await
        .unwrap();
    let data = deposited(1).encode().unwrap().data.to_vec();
    let text = format!(
        "insert into raw (stream_id, version, type_id, event_id, codec, recorded_at, data, meta) \
         values {}",
        vec!["(?, ?, 1, ?, 2, 0, ?, x'')"; rows].join(", ")
    );
    let mut version: i64 = sqlx::query_scalar("select coalesce(max(version), 0) from raw")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < time {
        version += 1;
        let mut query = sqlx::query(sqlx::AssertSqlSafe(text.as_str()));
        for n in 0..rows {
            let id = Uuid::from_u128(n as u128);
            query = query
                .bind(n as i64)
                .bind(version)
                .bind(id.into_bytes().to_vec())
                .bind(data.clone());
        }
        query.execute(&mut connection).await.unwrap();
        count += rows;
    }
    connection.close().await.unwrap();
    count as f64 / begun.elapsed().as_secs_f64()
}

/// The whole log by one row stream, into the same typed fold.
pub(crate) async fn rows(url: &str) -> Duration {
    const TEXT: &str = "select e.position, e.version, e.type_id, e.event_id, e.codec, \
         e.recorded_at, e.data, e.meta, s.name from events e join streams s \
         on s.id = e.stream_id order by e.position";
    let mut account = Account::<true>::default();
    let mut fold = |data: &[u8]| {
        let event = Happened::decode("account.deposited", 1, Default::default(), data);
        account.evolve(event.unwrap());
    };
    let begun = Instant::now();
    if url.starts_with("postgres") {
        let mut connection = connect(url).await;
        connection.execute("set search_path to ms_framework").await.unwrap();
        let mut rows = sqlx::query(TEXT).fetch(&mut connection);
        while let Some(row) = rows.try_next().await.unwrap() {
            fold(row.get::<&[u8], _>(6));
        }
    } else {
        let path = url.trim_start_matches("sqlite://");
        let options = SqliteConnectOptions::new().filename(path).read_only(true);
        let mut connection = options.connect().await.unwrap();
        let text = TEXT.replace("join streams", "cross join streams");
        let mut rows = sqlx::query(sqlx::AssertSqlSafe(text)).fetch(&mut connection);
        while let Some(row) = rows.try_next().await.unwrap() {
            fold(row.get::<&[u8], _>(6));
        }
    }
    begun.elapsed()
}
