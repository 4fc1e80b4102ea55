//! Tells observers what happens: in order, one event after the other, on a task of its own.
//!
//! Supervisors only number their events and put them into the history. So an observer that is slow,
//! or panics, holds up nobody, and hears every event in the order of its number, whichever
//! supervisor it came from.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::actor::panic::caught;
use crate::environment::{Environment, spawn};
use crate::inspect::{Missed, Timeline};

/// Events after which others have their turn.
const PAGE: u64 = 64;

/// The task that tells the observers.
pub(crate) struct Dispatch {
    task: Option<JoinHandle<()>>,
    finish: watch::Sender<bool>,
}

impl Dispatch {
    /// Begins, if there is anybody to tell.
    pub(crate) fn begin(env: &Arc<Environment>) -> Self {
        let (finish, mut finishing) = watch::channel(false);
        if env.observers.is_empty() {
            return Self { task: None, finish };
        }
        let told = Arc::clone(env);
        let task = spawn(env, async move {
            let timeline = Timeline::new(Arc::clone(&told.history));
            let mut seen = 0;
            loop {
                for event in told.history.take_unheard() {
                    let missed = (event.seq > seen + 1)
                        .then(|| Missed { from: seen + 1, to: event.seq - 1 });
                    for observer in &told.observers {
                        if let Some(missed) = missed {
                            caught("observer", || observer.on_missed(missed));
                        }
                        caught("observer", || observer.on_event(&event));
                    }
                    seen = event.seq;
                    if seen % PAGE == 0 {
                        // Others may run meanwhile.
                        tokio::task::yield_now().await;
                    }
                }
                if timeline.last() > seen {
                    continue;
                }
                if *finishing.borrow() {
                    return;
                }
                tokio::select! {
                    biased;
                    _ = timeline.changed(seen) => {}
                    told = finishing.changed() => {
                        if told.is_err() {
                            // Nobody will ever tell it to finish.
                            return;
                        }
                    }
                }
            }
        });
        Self { task: Some(task), finish }
    }

    /// Tells what is left, and ends. An observer that does not return is left behind.
    pub(crate) async fn finish(self, within: Duration) {
        self.finish.send_replace(true);
        if let Some(task) = self.task
            && tokio::time::timeout(within, task).await.is_err()
        {
            tracing::error!("an observer does not return; the last events were not told");
        }
    }
}
