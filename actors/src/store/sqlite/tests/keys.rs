use super::*;
use crate::store::sqlite::steady::SteadyClock;

fn keyed(n: u64) -> Append {
    let key = Some(IdempotencyKey::of([n.to_le_bytes()]));
    Append { key, ..append(&format!("s-{n}"), n, 1) }
}

async fn known(store: &SqliteStore, n: u64) -> bool {
    store.answer(IdempotencyKey::of([n.to_le_bytes()])).await.unwrap().is_some()
}

async fn rows(store: &SqliteStore) -> i64 {
    let count = |connection: &rusqlite::Connection| {
        connection.query_row("select count(*) from request_keys", (), |row| row.get(0))
    };
    store.database().read(count).await.unwrap()
}

/// The table of keys had a row for each command that was ever made.
#[tokio::test]
async fn keys_are_forgotten_by_age_and_leave_no_row() {
    let home = Home::new();
    let options = SqliteOptions::default().keys_for(Duration::from_secs(3600));
    let store = SqliteStore::open(home.file().await, options).await.unwrap();
    let start = 1_700_000_000_000_000;
    for n in 0..10 {
        let mut append = keyed(n);
        append.events[0].recorded_at = Timestamp::from_micros(start + n as i64 * 600_000_000);
        store.append_batch([append].into()).await.unwrap();
    }
    assert_eq!(rows(&store).await, 10);
    store.expire_keys().await.unwrap();
    // The last is of minute 90, so those of minute 30 and later are young enough.
    for n in 0..10 {
        assert_eq!(known(&store, n).await, n >= 3, "{n}");
    }
    assert_eq!(rows(&store).await, 7);
    let again = store.append_batch([keyed(0)].into()).await.unwrap().remove(0).unwrap();
    assert!(!again.duplicate, "a key that was forgotten is free");
    assert!(known(&store, 0).await);
}

/// A clock that was a week ahead for a while took all keys with it: a repeat of a command of a minute
/// before had a second effect.
#[tokio::test]
async fn a_clock_that_jumps_ahead_and_back_takes_no_key_with_it() {
    let home = Home::new();
    let path = home.file().await;
    let day = 24 * 3_600_000_000;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_micros()).unwrap();
    let mut store = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
    // The machine's clock is right in this test; the events have the times of one that jumps.
    for (n, at) in [-9, -8, -2, 0, 8, 9, 0, 0].into_iter().enumerate() {
        let mut append = keyed(n as u64);
        append.events[0].recorded_at = Timestamp::from_micros(now + at * day);
        store.append_batch([append].into()).await.unwrap();
        store.expire_keys().await.unwrap();
        if n == 5 {
            store.close().await;
            store = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
            store.expire_keys().await.unwrap();
        }
    }
    for n in 0..8 {
        assert_eq!(known(&store, n).await, n > 0, "{n}");
    }
}

/// A pool that opened its file again while the clock was ahead believed it.
#[tokio::test]
async fn a_file_that_is_opened_again_believes_no_clock_that_was_not_believed_before() {
    let home = Home::new();
    let path = home.file().await;
    let ahead = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let ahead = i64::try_from(ahead.as_micros()).unwrap();
    let day = 24 * 3_600_000_000;
    let right = ahead - 30 * day;
    let clock = SteadyClock::first_asked_at(right);
    let options = SqliteOptions { clock, ..SqliteOptions::default() };
    for (n, at) in [right - day, right, ahead, ahead].into_iter().enumerate() {
        let store = SqliteStore::open(&path, options.clone()).await.unwrap();
        let mut append = keyed(n as u64);
        append.events[0].recorded_at = Timestamp::from_micros(at);
        store.append_batch([append].into()).await.unwrap();
        store.expire_keys().await.unwrap();
        assert!(known(&store, 0).await, "{n}");
        store.close().await;
    }
}

#[tokio::test]
async fn keys_are_known_after_a_restart_up_to_their_number() {
    let home = Home::new();
    let path = home.file().await;
    let options = SqliteOptions::default().max_keys(100);
    let store = SqliteStore::open(&path, options.clone()).await.unwrap();
    for n in 0..30 {
        store.append_batch((n * 10..n * 10 + 10).map(keyed).collect()).await.unwrap();
    }
    assert!(known(&store, 299).await && known(&store, 230).await && !known(&store, 0).await);
    store.close().await;
    let store = SqliteStore::open(&path, options).await.unwrap();
    let loaded = store.database.on_writer(|writer| Ok(writer.memory.keys())).await.unwrap();
    assert!((75..=100).contains(&loaded), "{loaded}");
    assert!(known(&store, 299).await && known(&store, 230).await && !known(&store, 0).await);
    let again = store.append_batch([keyed(299)].into()).await.unwrap().remove(0).unwrap();
    assert!(again.duplicate);
    assert_eq!(again.last_position, Position::new(300));
}

/// What is planned from memory is right also when another process has written: refusals and
/// answers are checked like appends.
#[tokio::test]
async fn memory_that_is_behind_answers_nothing() {
    let home = Home::new();
    let path = home.file().await;
    let one = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
    let two = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
    one.append_batch([append("s", 0, 1)].into()).await.unwrap();
    two.append_batch([append("s", 1, 1), keyed(7)].into()).await.unwrap();
    // A refusal alone: it must not come from version 1.
    let second = conformance::append("s", ExpectedVersion::Exact(Version::new(2)), 2, 1);
    let stale = conformance::append("s", ExpectedVersion::Exact(Version::new(1)), 3, 1);
    let refused = one.append_batch([stale].into()).await.unwrap().remove(0).unwrap_err();
    assert!(refused.to_string().contains("version 2"), "{refused}");
    one.append_batch([second].into()).await.unwrap().remove(0).unwrap();
    two.append_batch([keyed(8)].into()).await.unwrap();
    assert!(known(&one, 7).await && known(&one, 8).await);
    two.append_batch([keyed(9)].into()).await.unwrap();
    assert!(one.append_batch([keyed(9)].into()).await.unwrap().remove(0).unwrap().duplicate);
}

/// A batch may name more streams than are remembered.
#[tokio::test]
async fn a_batch_of_more_streams_than_are_remembered_is_planned_right() {
    let home = Home::new();
    let store = home.store().await;
    for round in 0..2 {
        let batch = (0..120_000).map(|n| append(&format!("s-{n}"), n, 1)).collect();
        for outcome in store.append_batch(batch).await.unwrap() {
            assert_eq!(outcome.unwrap().last_version, Version::new(round + 1));
        }
    }
}
