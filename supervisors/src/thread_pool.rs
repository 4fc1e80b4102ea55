//! Threads for work that would keep a worker of the runtime: bounded, counted, and able to say no.
//!
//! Three pools per system: `compute` for work that keeps a processor busy, `io` and `blocking` for
//! calls that wait in the operating system. The threads are tokio's blocking ones; a pool says how
//! many of them run at once and how much may wait for them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::actor::panic::said;
use crate::environment::Clock;

/// Which pool work is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Work {
    /// Keeps a processor busy.
    Compute,
    /// Reads and writes files and the like.
    Io,
    /// Waits for something that has no asynchronous form.
    Blocking,
}

/// How large a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadPoolSpec {
    /// Pieces of work that run at once, at least 1.
    pub threads: usize,
    /// Pieces that wait for a thread at most; one more is refused.
    pub queue: usize,
}

impl ThreadPoolSpec {
    /// As many threads, and as long a queue.
    #[must_use]
    pub const fn new(threads: usize, queue: usize) -> Self {
        Self { threads, queue }
    }
}

/// What a pool does now, and has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadPoolView {
    /// Its name.
    pub name: &'static str,
    /// Its size.
    pub spec: ThreadPoolSpec,
    /// Pieces that run now.
    pub running: usize,
    /// Pieces that wait for a thread.
    pub queued: usize,
    /// Pieces that ran to their end.
    pub done: u64,
    /// Pieces that were refused.
    pub rejected: u64,
    /// Pieces that panicked.
    pub panicked: u64,
    /// Time that pieces waited for a thread, all together.
    pub waited: Duration,
    /// Time that they ran.
    pub busy: Duration,
}

/// Work was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ComputeError {
    /// Too much waits for the pool already.
    #[error(
        "thread pool {pool:?} has {queue} pieces of work waiting, its limit; slow down, or give it \
         more threads or a longer queue"
    )]
    Rejected {
        /// Which pool.
        pool: &'static str,
        /// Its limit.
        queue: usize,
    },
    /// The work panicked.
    #[error("work on thread pool {pool:?} panicked: {message}")]
    Panicked {
        /// Which pool.
        pool: &'static str,
        /// What the panic said.
        message: String,
    },
    /// The runtime is shutting down.
    #[error("thread pool {pool:?} is shutting down")]
    Stopped {
        /// Which pool.
        pool: &'static str,
    },
}

impl ComputeError {
    /// Who can mend it.
    #[must_use]
    pub fn class(&self) -> crate::resilience::ErrorClass {
        match self {
            Self::Rejected { .. } | Self::Stopped { .. } => {
                crate::resilience::ErrorClass::Transient
            }
            Self::Panicked { .. } => crate::resilience::ErrorClass::Permanent,
        }
    }
}

/// The pools of a system.
pub(crate) struct ThreadPools {
    pools: [Arc<ThreadPool>; 3],
}

struct ThreadPool {
    name: &'static str,
    spec: ThreadPoolSpec,
    threads: Semaphore,
    running: AtomicUsize,
    queued: AtomicUsize,
    done: AtomicU64,
    rejected: AtomicU64,
    panicked: AtomicU64,
    waited_ns: AtomicU64,
    busy_ns: AtomicU64,
}

/// The sizes that a system has when its builder does not say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadPoolSpecs(pub(crate) [ThreadPoolSpec; 3]);

impl Default for ThreadPoolSpecs {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let compute = ThreadPoolSpec::new(cores, 1_024);
        Self([compute, ThreadPoolSpec::new(16, 1_024), ThreadPoolSpec::new(64, 1_024)])
    }
}

impl ThreadPools {
    pub(crate) fn new(specs: ThreadPoolSpecs) -> Self {
        let [compute, io, blocking] = specs.0;
        let pool = |name, spec: ThreadPoolSpec| {
            Arc::new(ThreadPool {
                name,
                spec,
                threads: Semaphore::new(spec.threads.clamp(1, Semaphore::MAX_PERMITS)),
                running: AtomicUsize::new(0),
                queued: AtomicUsize::new(0),
                done: AtomicU64::new(0),
                rejected: AtomicU64::new(0),
                panicked: AtomicU64::new(0),
                waited_ns: AtomicU64::new(0),
                busy_ns: AtomicU64::new(0),
            })
        };
        let pools = [pool("compute", compute), pool("io", io), pool("blocking", blocking)];
        Self { pools }
    }

    pub(crate) fn views(&self) -> Vec<ThreadPoolView> {
        self.pools.iter().map(|pool| pool.view()).collect()
    }

    /// Runs `work` on a pool.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        clock: Clock,
        on: Work,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ComputeError> {
        let pool = match on {
            Work::Compute => &self.pools[0],
            Work::Io => &self.pools[1],
            Work::Blocking => &self.pools[2],
        };
        Arc::clone(pool).run(clock, work).await
    }
}

/// Counts for as long as it is there.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn up_to(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        let counted = Self(count);
        if count.fetch_add(1, Ordering::AcqRel) < most { Some(counted) } else { None }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl ThreadPool {
    async fn run<T: Send + 'static>(
        self: Arc<Self>,
        clock: Clock,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ComputeError> {
        let began = clock.elapsed();
        let permit = match self.threads.try_acquire() {
            Ok(permit) => permit,
            Err(_) => {
                let Some(_queued) = Counted::up_to(&self.queued, self.spec.queue) else {
                    self.rejected.fetch_add(1, Ordering::Relaxed);
                    return Err(ComputeError::Rejected { pool: self.name, queue: self.spec.queue });
                };
                let stopped = |_| ComputeError::Stopped { pool: self.name };
                self.threads.acquire().await.map_err(stopped)?
            }
        };
        // Given back by the thread, so that work whose asker is gone still counts.
        permit.forget();
        add(&self.waited_ns, clock.elapsed().saturating_sub(began));
        let pool = Arc::clone(&self);
        let ran = Handle::current().spawn_blocking(move || {
            let _running = Counted::up_to(&pool.running, usize::MAX);
            let began = clock.elapsed();
            let result = catch_unwind(AssertUnwindSafe(work));
            add(&pool.busy_ns, clock.elapsed().saturating_sub(began));
            pool.threads.add_permits(1);
            let counter = if result.is_ok() { &pool.done } else { &pool.panicked };
            counter.fetch_add(1, Ordering::Relaxed);
            result.map_err(said)
        });
        match ran.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(message)) => Err(ComputeError::Panicked { pool: self.name, message }),
            Err(_) => Err(ComputeError::Stopped { pool: self.name }),
        }
    }

    fn view(&self) -> ThreadPoolView {
        ThreadPoolView {
            name: self.name,
            spec: self.spec,
            running: self.running.load(Ordering::Relaxed),
            queued: self.queued.load(Ordering::Relaxed),
            done: self.done.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
            panicked: self.panicked.load(Ordering::Relaxed),
            waited: Duration::from_nanos(self.waited_ns.load(Ordering::Relaxed)),
            busy: Duration::from_nanos(self.busy_ns.load(Ordering::Relaxed)),
        }
    }
}

fn add(counter: &AtomicU64, time: Duration) {
    counter.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
}
