//! The requests that wait for their commit.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::{
    CommitError, Committed, MAX_BATCH_BYTES, MAX_BATCH_EVENTS, MAX_WAITING_BYTES,
    MAX_WAITING_EVENTS, Request,
};
use crate::store::Append;

/// A line, bounded in events and bytes: the actor puts requests in, the driver takes batches out.
#[derive(Debug, Default)]
pub(super) struct Line {
    state: Mutex<State>,
    grown: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Sized>,
    events: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Sized {
    request: Request,
    events: usize,
    bytes: usize,
}

/// Appends that go into one commit, and who waits for how many of them.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) appends: Vec<Append>,
    pub(super) answers: Vec<(usize, oneshot::Sender<Committed>)>,
    pub(super) bytes: usize,
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing below leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a request in line, or refuses it when too much waits already.
    pub(super) fn put(&self, request: Request) {
        let (events, bytes) = size(&request.appends);
        let mut state = self.state();
        if state.events + events > MAX_WAITING_EVENTS.max(events)
            || state.bytes + bytes > MAX_WAITING_BYTES.max(bytes)
        {
            let waiting = state.events;
            drop(state);
            let _ = request.answer.send(Err(CommitError::Overloaded { waiting }));
            return;
        }
        state.events += events;
        state.bytes += bytes;
        state.waiting.push_back(Sized { request, events, bytes });
        drop(state);
        self.grown.notify_one();
    }

    /// How many requests wait.
    pub(super) fn len(&self) -> usize {
        self.state().waiting.len()
    }

    /// How many events wait.
    pub(super) fn events(&self) -> usize {
        self.state().events
    }

    /// Waits until there is a request.
    pub(super) async fn wait(&self) {
        while self.len() == 0 {
            self.grown.notified().await;
        }
    }

    /// What goes into the next commit: in order, up to a batch, and one request at least if any
    /// waits.
    pub(super) fn take(&self) -> Batch {
        let mut batch = Batch::default();
        let mut events = 0;
        let mut state = self.state();
        while let Some(next) = state.waiting.front() {
            let full = events + next.events > MAX_BATCH_EVENTS
                || batch.bytes + next.bytes > MAX_BATCH_BYTES;
            if full && !batch.answers.is_empty() {
                break;
            }
            let Some(Sized { request, events: more, bytes }) = state.waiting.pop_front() else {
                break;
            };
            events += more;
            batch.bytes += bytes;
            state.events -= more;
            state.bytes -= bytes;
            batch.answers.push((request.appends.len(), request.answer));
            batch.appends.extend(request.appends);
        }
        batch
    }
}

fn size(appends: &[Append]) -> (usize, usize) {
    let events = appends.iter().map(|append| append.events.len()).sum();
    let bytes = appends.iter().flat_map(|append| &append.events).map(|event| event.size()).sum();
    (events, bytes)
}
