use std::sync::mpsc;

use super::*;
use crate::pool::{Connections, connector};

/// Four slow scans made the pool look dead, and the node was restarted with all that was well.
#[tokio::test]
async fn busy_readers_are_not_a_dead_store() {
    let home = Home::new();
    let options = SqliteOptions::default().readers(2).acquire_timeout(Duration::from_millis(20));
    let store = SqliteStore::open(home.file().await, options).await.unwrap();
    let database = store.database();
    let mut blocked = Vec::new();
    for _ in 0..2 {
        let (release, until) = mpsc::channel::<()>();
        let wait = move |_: &rusqlite::Connection| {
            let _ = until.recv();
            Ok(())
        };
        let mut reading = Box::pin(database.read(wait));
        assert!(poll!(&mut reading).is_pending());
        blocked.push((release, reading));
    }
    assert_eq!(database.usage(), (2, 2));
    database.ping().await.unwrap();
    store.append_batch([append("s", 0, 1)].into()).await.unwrap();
    let error = store.read_all(Position::ZERO, 10).await.unwrap_err();
    assert!(matches!(error, StoreError::Exhausted { .. }), "{error}");
    assert_eq!(error.class(), ErrorClass::Transient);
    for (release, reading) in blocked {
        drop(release);
        reading.await.unwrap();
    }
    assert_eq!(store.read_all(Position::ZERO, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_job_that_panics_is_the_loss_of_its_caller_alone() {
    let home = Home::new();
    let store = home.store().await;
    store.append_batch([append("s", 0, 1)].into()).await.unwrap();
    let write = store.database().write(|connection| -> rusqlite::Result<()> {
        connection.execute("delete from streams", ())?;
        panic!("a bug of the caller's")
    });
    assert!(matches!(write.await, Err(StoreError::Lost { .. })));
    for _ in 0..8 {
        let read = store.database().read(|_| -> rusqlite::Result<()> { panic!("another") });
        assert!(matches!(read.await, Err(StoreError::Lost { .. })));
    }
    let appended = store.append_batch([append("s", 1, 1)].into()).await.unwrap().remove(0);
    assert_eq!(appended.unwrap().last_version, Version::new(2), "it was rolled back");
    assert_eq!(conformance::whole_log(&store, 10).await.len(), 2);
}

/// The batch of a committer that was killed is committed all the same, and the next committer has
/// to hear of it though nobody announces it.
#[tokio::test]
async fn the_head_is_that_behind_an_append_nobody_waits_for() {
    let home = Home::new();
    let store = home.store().await;
    let mut expected = 0;
    for n in 0..20 {
        let mut call = store.append_batch([append("s", n * 1_000, 300)].into());
        if poll!(&mut call).is_pending() {
            expected += 300;
        }
        drop(call);
        assert_eq!(store.head().await.unwrap(), Position::new(expected));
    }
}

#[tokio::test]
async fn connections_to_sqlite_keep_every_law() {
    let home = Home::new();
    Box::pin(conformance::leases::run(async || -> Arc<dyn Connections> {
        let path = home.file().await;
        connector(path.to_str().unwrap()).unwrap().connect().await.unwrap()
    }))
    .await;
}

/// Documents that belong to another log, or to more of it than there is, are not shown.
#[tokio::test]
async fn read_models_of_another_log_are_made_again() {
    let home = Home::new();
    let (one, two) = (home.file().await, home.file().await);
    let open = async |path: &std::path::Path| {
        connector(path.to_str().unwrap()).unwrap().connect().await.unwrap()
    };
    let write = async |log: &std::path::Path| {
        let models = Database::read_models(log, SqliteOptions::default()).unwrap();
        let put = |connection: &rusqlite::Connection| {
            connection.execute("insert into documents values (1, 'a', 1, '{}')", ())?;
            connection.execute("insert into checkpoints (name, position, owner, epoch) values ('build 1/0', 1, '', 1)", ())
        };
        models.write(put).await.unwrap();
        models.close().await;
    };
    let count = async |log: &std::path::Path| {
        let models = Database::read_models(log, SqliteOptions::default()).unwrap();
        let text = "select (select count(*) from documents) + (select count(*) from checkpoints)";
        let count = models.read(|connection| connection.query_row(text, (), |row| row.get(0)));
        let count: i64 = count.await.unwrap();
        models.close().await;
        count
    };
    let connections = open(&one).await;
    connections.lease().store.append_batch([append("s", 0, 1)].into()).await.unwrap();
    connections.close().await;
    write(&one).await;
    open(&one).await.close().await;
    assert_eq!(count(&one).await, 2, "its own stay");
    std::fs::copy(read_models_of(&one), read_models_of(&two)).unwrap();
    open(&two).await.close().await;
    assert_eq!(count(&two).await, 0, "those of another log go");
    // As after a backup was put back: the log is shorter than what was read of it.
    write(&two).await;
    open(&two).await.close().await;
    assert_eq!(count(&two).await, 0, "those of events that are gone go");
}
