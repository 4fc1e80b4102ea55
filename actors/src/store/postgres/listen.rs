//! Hearing of what other nodes append, and telling them.
//!
//! `NOTIFY` inside an append costs a factor of 4 to 13, because it takes a lock of the whole
//! database until the commit. So it is sent after the commit, on another connection, at most once
//! in [`QUIET`]. It carries the end of the log, by which a node knows its own news; beyond that it
//! only wakes. Behind it there is a look once in [`POLL`], for what was not heard.

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

use super::{database::PgDatabase, lookup, options::Wake};
use crate::{event::Position, store::StoreError};

const CHANNEL: &str = "ms_events";

/// The pause after a `NOTIFY`.
const QUIET: Duration = Duration::from_millis(10);

/// How often the database is asked when nothing is heard.
const POLL: Duration = Duration::from_secs(1);

/// Knows how long the log is, and waits for it to grow.
#[derive(Debug)]
pub(super) struct HeadWatch {
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

impl HeadWatch {
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
                    let head = *wrote.borrow_and_update();
                    tell(&database, head).await;
                    sleep(QUIET).await;
                }
            }));
        }
    }

    /// Asks nothing of the database: what this store writes it knows, and the listener looks when
    /// it begins, when it hears of others, and once in a while.
    pub(super) async fn changed(&self, after: Position) -> Result<Position, StoreError> {
        self.database.pool()?;
        let mut head = self.head.subscribe();
        self.listen();
        let longer = async { head.wait_for(|head| *head > after).await.map(|head| *head) };
        tokio::select! {
            biased;
            now = longer => Ok(now.expect("the sender is a field of this value")),
            () = self.database.closed() => lookup::head(&self.database).await,
        }
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

async fn tell(database: &PgDatabase, head: Position) {
    let Ok(pool) = database.pool() else { return };
    let query = sqlx::query("select pg_notify('ms_events', $1)").bind(head.get().to_string());
    // Lost, the poll stands in.
    if let Err(error) = query.execute(pool).await {
        tracing::debug!(%error, "other nodes were not told of an append");
    }
}

/// Looks how long the log is.
async fn look(database: &PgDatabase, head: &watch::Sender<Position>) -> Result<(), StoreError> {
    let before = *head.borrow();
    let now = lookup::head(database).await?;
    if now < before {
        // A replica that had not yet got the last commits is the primary now. Who waits behind the
        // old end would be told at once that there is something, and find nothing.
        tracing::error!(
            had = before.get(),
            has = now.get(),
            "the log has become shorter: the server that answers now lacks acknowledged events"
        );
        head.send_replace(now);
        return Ok(());
    }
    forward(head, now);
    Ok(())
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
            match look(&database, &head).await {
                Ok(()) => {}
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
                Some(listener) => {
                    if let Err(error) = hear(listener, &head).await {
                        tracing::debug!(%error, "listening was cut off");
                        sleep(QUIET).await;
                        break;
                    }
                }
            }
        }
    }
}

/// Waits for news of others, at most [`POLL`].
async fn hear(listener: &mut PgListener, head: &watch::Sender<Position>) -> sqlx::Result<()> {
    let news = async {
        loop {
            // `None` is a connection that was lost and made again: news may have been missed.
            let Some(told) = listener.try_recv().await? else { return Ok(()) };
            let told = told.payload().parse().map(Position::new);
            if !told.is_ok_and(|told| told <= *head.borrow()) {
                while listener.next_buffered().is_some() {}
                return Ok(());
            }
        }
    };
    timeout(POLL, news).await.unwrap_or(Ok(()))
}

async fn connect(database: &PgDatabase) -> sqlx::Result<PgListener> {
    let mut listener = PgListener::connect_with(&database.lone_pool()).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}
