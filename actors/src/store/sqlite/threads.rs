//! Threads of their own for SQLite's calls, which block: each keeps a state, a connection and what
//! is remembered beside it, and takes jobs from one queue.
//!
//! A job runs to its end once it is in the queue, whether or not anybody still waits for it: that
//! is what makes a dropped append write all or nothing. A job that panics loses its state, and the
//! thread goes on with the next.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
};

use tokio::sync::oneshot;

use crate::guarded::guarded;

/// What a thread works with.
pub(super) trait State: Send + 'static {
    /// Between two jobs, when the answer of the first is out.
    fn rest(&mut self) {}

    /// Forgets whatever a job that panicked may have left half done.
    fn reset(&mut self);
}

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

#[derive(Debug)]
pub(super) struct Threads<S> {
    /// `None` once they are to stop.
    jobs: Mutex<Option<mpsc::Sender<Job<S>>>>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl<S: State> Threads<S> {
    /// One thread for each state.
    pub(super) fn start(
        name: &str,
        states: impl IntoIterator<Item = S>,
    ) -> Result<Self, std::io::Error> {
        let (jobs, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        let mut handles = Vec::new();
        for state in states {
            let queue = Arc::clone(&queue);
            let thread = std::thread::Builder::new().name(name.to_owned());
            handles.push(thread.spawn(move || work_off(&queue, state))?);
        }
        Ok(Self { jobs: Mutex::new(Some(jobs)), handles: Mutex::new(handles) })
    }

    /// Puts a job into the queue; `None` after [`stop`](Self::stop). No answer comes from a job
    /// that panicked.
    pub(super) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Option<oneshot::Receiver<T>> {
        let (answer, answered) = oneshot::channel();
        let job = move |state: &mut S| {
            // Whoever asked may be gone.
            let _ = answer.send(job(state));
        };
        locked(&self.jobs).as_ref()?.send(Box::new(job)).ok()?;
        Some(answered)
    }

    /// They end when the queue is empty.
    pub(super) fn stop(&self) {
        locked(&self.jobs).take();
    }

    /// Waits until they have ended.
    pub(super) async fn ended(&self) {
        self.stop();
        let handles = std::mem::take(&mut *locked(&self.handles));
        // Only a runtime that shuts down refuses it, and then nobody waits.
        let _ = tokio::task::spawn_blocking(move || join(handles)).await;
    }

    /// The same for a thread that may block.
    pub(super) fn end(&self) {
        self.stop();
        join(std::mem::take(&mut *locked(&self.handles)));
    }
}

fn join(handles: Vec<JoinHandle<()>>) {
    for handle in handles {
        // A job's panic was caught; there is no other.
        let _ = handle.join();
    }
}

fn work_off<S: State>(queue: &Mutex<mpsc::Receiver<Job<S>>>, mut state: S) {
    loop {
        // The lock is held while this one waits; the others wait for the lock.
        let next = locked(queue).recv();
        let Ok(job) = next else { return };
        let done = guarded(|| {
            job(&mut state);
            state.rest();
        });
        if done.is_err() {
            state.reset();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
