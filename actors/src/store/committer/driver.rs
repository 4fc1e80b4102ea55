//! The loop that commits: one batch after the other, as long as the committer's life.
//!
//! It announces and answers itself, so that a commit costs no message but the request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mister_smith_supervisors::{Clock, TaskGuard};
use tokio::sync::watch;
use tokio::task::yield_now;

use super::line::{Batch, Line};
use super::{CommitError, announce};
use crate::event::Position;
use crate::pool::Upkeep;
use crate::store::{EventStore, StoreError};

/// The store is tidied after this many bytes.
const TIDY_EVERY_BYTES: usize = 4 << 20;

/// What a commit counts for besides its payload: it writes whole pages, and so do the read models
/// that follow it. 22 KiB were measured for events of 60 bytes, one a commit.
const COMMIT_BYTES: usize = 16 << 10;

/// How many turns of the runtime in a row without a new request end the gathering of a batch.
const QUIET_TURNS: u32 = 4;

/// A batch is gathered up to this many requests. The cost of a sync is shared by enough of them
/// then, and those that were just answered are decided while the others are written: to wait for
/// all of 512 was measured to take a fifth of the rate on both stores.
const MOST_GATHERED: usize = 64;

/// Since when a commit runs.
#[derive(Debug, Default)]
pub(super) struct Running(AtomicU64);

impl Running {
    fn begin(&self, now: Duration) {
        // 0 stands for none.
        let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX).max(1);
        self.0.store(micros, Ordering::Relaxed);
    }

    fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// For how long the commit that runs has been running.
    pub(super) fn age(&self, now: Duration) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            begun => Some(now.saturating_sub(Duration::from_micros(begun))),
        }
    }
}

/// See the [module](self).
pub(super) struct Driver {
    pub(super) store: Arc<dyn EventStore>,
    pub(super) upkeep: Arc<dyn Upkeep>,
    pub(super) head: Arc<watch::Sender<Position>>,
    pub(super) line: Arc<Line>,
    pub(super) running: Arc<Running>,
    pub(super) clock: Clock,
}

impl Driver {
    /// Commits what comes; ends only with an error after which the lease is no longer good.
    pub(super) async fn run(self) -> Arc<StoreError> {
        // Nobody knows what the life before has left.
        let mut untidy = TIDY_EVERY_BYTES;
        let mut tidying: Option<TaskGuard> = None;
        loop {
            self.line.wait().await;
            let batch = self.line.take();
            untidy += batch.bytes + COMMIT_BYTES;
            let requests = batch.answers.len();
            self.running.begin(self.clock.elapsed());
            let committed = self.commit(batch).await;
            self.running.end();
            match committed {
                Ok(()) => {}
                // The next commit may find room, or the lock free; a restart would not help.
                Err(error) if is_passing(&error) => {}
                Err(error) => return error,
            }
            // One that is dropped has done nothing: the next begins when it has ended.
            if untidy >= TIDY_EVERY_BYTES && tidying.as_ref().is_none_or(TaskGuard::is_finished) {
                untidy = 0;
                tidying = Some(self.tidy());
            }
            self.gather(requests.min(MOST_GATHERED)).await;
        }
    }

    /// Announces the new head, then answers: whoever has an answer finds its events in the log.
    async fn commit(&self, batch: Batch) -> Result<(), Arc<StoreError>> {
        let Batch { appends, answers, .. } = batch;
        match self.store.append_batch(appends.into()).await {
            Ok(outcomes) => {
                // A repeat's events too: its first may have come into the log after nobody waited
                // for it any more, and so without being announced.
                if let Some(last) = outcomes.iter().flatten().map(|one| one.last_position).max() {
                    announce(&self.head, last);
                }
                let mut outcomes = outcomes.into_iter();
                for (count, answer) in answers {
                    // An asker that is gone does not mind.
                    let _ = answer.send(Ok(outcomes.by_ref().take(count).collect()));
                }
                Ok(())
            }
            Err(error) => {
                let error = Arc::new(error);
                for (_, answer) in answers {
                    let _ = answer.send(Err(CommitError::Store(Arc::clone(&error))));
                }
                Err(error)
            }
        }
    }

    /// Lets those that were just answered come back with their next requests, until as many wait
    /// as the last batch had, or [`MOST_GATHERED`]. Without it the first of them would be a batch
    /// alone, and the others would wait for its sync. A lone one waits for nobody.
    async fn gather(&self, wanted: usize) {
        if wanted < 2 {
            return;
        }
        let (mut waiting, mut quiet) = (self.line.len(), 0);
        while waiting < wanted && quiet < QUIET_TURNS {
            yield_now().await;
            let now = self.line.len();
            quiet = if now > waiting { 0 } else { quiet + 1 };
            waiting = now;
        }
    }

    fn tidy(&self) -> TaskGuard {
        let upkeep = Arc::clone(&self.upkeep);
        TaskGuard::spawn(async move {
            if let Err(error) = upkeep.tidy().await {
                tracing::warn!(%error, "the store could not be tidied; its files grow");
            }
        })
    }
}

fn is_passing(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Busy { .. } | StoreError::Full { .. } | StoreError::Exhausted { .. }
    )
}
