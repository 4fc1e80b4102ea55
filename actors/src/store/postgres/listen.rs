//! Hearing of what other nodes append, and telling them.
//!
//! `NOTIFY` inside an append costs a factor of 4 to 13, because it takes a lock of the whole
//! database until the commit. So it is sent after the commit, on another connection, at most once
//! in [`QUIET`], and carries nothing: it only wakes. Behind it there is a look once in [`POLL`],
//! for what was not heard.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mister_smith_supervisors::TaskGuard;
use sqlx::postgres::PgListener;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    database::{PgDatabase, Wake},
    lookup,
};
use crate::{event::Position, store::StoreError};

const CHANNEL: &str = "ms_events";

/// The pause after a `NOTIFY`.
const QUIET: Duration = Duration::from_millis(10);

/// How often the database is asked when nothing is heard.
const POLL: Duration = Duration::from_secs(1);

/// Knows how long the log is, and waits for it to grow.
#[derive(Debug)]
pub(super) struct Ear {
    database: Arc<PgDatabase>,
    /// The end of the log, as far as this store wrote it or heard of it.
    head: watch::Sender<Position>,
    /// The end of the log, as far as this store wrote it.
    wrote: watch::Sender<Position>,
    tasks: Mutex<Tasks>,
}

#[derive(Debug, Default)]
struct Tasks {
    listens: Option<TaskGuard>,
    tells: Option<TaskGuard>,
}

impl Ear {
    pub(super) fn new(database: Arc<PgDatabase>) -> Self {
        Self {
            database,
            head: watch::Sender::new(Position::ZERO),
            wrote: watch::Sender::new(Position::ZERO),
            tasks: Mutex::default(),
        }
    }

    /// This store has appended.
    pub(super) fn wrote(&self, head: Position) {
        forward(&self.head, head);
        if self.database.options.wake == Wake::Poll {
            return;
        }
        forward(&self.wrote, head);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.tells.is_none() {
            let (database, mut wrote) = (Arc::clone(&self.database), self.wrote.subscribe());
            // What was written a moment ago is news too.
            wrote.mark_changed();
            tasks.tells = Some(TaskGuard::spawn(async move {
                while wrote.changed().await.is_ok() {
                    tell(&database).await;
                    sleep(QUIET).await;
                }
            }));
        }
    }

    pub(super) async fn changed(&self, after: Position) -> Result<Position, StoreError> {
        let mut head = self.head.subscribe();
        if *head.borrow() > after {
            return Ok(*head.borrow());
        }
        self.listen();
        // The listener may have begun before this question, and the last news been older.
        let now = lookup::head(&self.database).await?;
        forward(&self.head, now);
        let closed = async {
            self.database.closed().await;
        };
        tokio::select! {
            biased;
            now = head.wait_for(|head| *head > after) => match now {
                Ok(now) => return Ok(*now),
                Err(_) => unreachable!("the sender is a field of this value"),
            },
            () = closed => {}
        }
        lookup::head(&self.database).await
    }

    fn listen(&self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.listens.is_none() {
            let (database, head) = (Arc::clone(&self.database), self.head.clone());
            tasks.listens = Some(TaskGuard::spawn(listen(database, head)));
        }
    }

    pub(super) fn close(&self) {
        *self.tasks.lock().unwrap_or_else(PoisonError::into_inner) = Tasks::default();
    }
}

fn forward(head: &watch::Sender<Position>, to: Position) {
    head.send_if_modified(|at| {
        let moves = to > *at;
        *at = to.max(*at);
        moves
    });
}

async fn tell(database: &PgDatabase) {
    let Ok(pool) = database.pool() else { return };
    // Lost, the poll stands in.
    if let Err(error) = sqlx::query("select pg_notify('ms_events', '')").execute(pool).await {
        tracing::debug!(%error, "other nodes were not told of an append");
    }
}

async fn listen(database: Arc<PgDatabase>, head: watch::Sender<Position>) {
    loop {
        let mut listener = match database.options.wake {
            Wake::Poll => None,
            Wake::Notify => match connect(&database).await {
                Ok(listener) => Some(listener),
                Err(error) => {
                    tracing::debug!(%error, "not listening yet");
                    None
                }
            },
        };
        loop {
            match lookup::head(&database).await {
                Ok(now) => forward(&head, now),
                Err(StoreError::Closed { .. }) => return,
                Err(error) => tracing::debug!(%error, "the head cannot be read now"),
            }
            match &mut listener {
                None => {
                    sleep(POLL).await;
                    if database.options.wake == Wake::Notify {
                        break;
                    }
                }
                // `Ok(Ok(None))` is a connection that was lost and made again: news may have been
                // missed, and the look above finds it.
                Some(listener) => match timeout(POLL, listener.try_recv()).await {
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "listening was cut off");
                        sleep(QUIET).await;
                        break;
                    }
                    _ => while listener.next_buffered().is_some() {},
                },
            }
        }
    }
}

async fn connect(database: &PgDatabase) -> sqlx::Result<PgListener> {
    let mut listener = PgListener::connect_with(&database.lone_pool()).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}
