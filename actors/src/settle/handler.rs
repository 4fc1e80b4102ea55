//! What users write: a handler of one message, or of many at once.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::{Delivery, Handled, Outcome};

/// Handles messages: of a subscription of the bus, of a queue, of the log.
///
/// A panic is a try that failed, wherever it happens: in the call, in the future that the call
/// makes, in the drop of it.
pub trait Handler: Send + Sync + 'static {
    /// Handles one message. It may come again after it was done; [`Delivery::key`] tells.
    ///
    /// # Cancel safety
    /// The future is dropped at its deadline, and when the actor that it runs for ends; the
    /// message then comes again, if its source keeps it.
    fn handle(&self, delivery: Delivery) -> impl Future<Output = Handled> + Send;
}

impl<F, R, O> Handler for F
where
    F: Fn(Delivery) -> R + Send + Sync + 'static,
    R: Future<Output = O> + Send,
    O: Into<Handled>,
{
    fn handle(&self, delivery: Delivery) -> impl Future<Output = Handled> + Send {
        let handling = self(delivery);
        async { handling.await.into() }
    }
}

/// A handler without its type. Cheap to clone.
#[derive(Clone)]
pub(crate) struct AnyHandler(Arc<Call>);

type Call = dyn Fn(Delivery) -> BoxFuture<'static, Handled> + Send + Sync;

impl AnyHandler {
    pub(crate) fn new(handler: impl Handler) -> Self {
        let handler = Arc::new(handler);
        Self(Arc::new(move |delivery| {
            let handler = Arc::clone(&handler);
            async move { handler.handle(delivery).await }.boxed()
        }))
    }
}

impl Handler for AnyHandler {
    fn handle(&self, delivery: Delivery) -> impl Future<Output = Handled> + Send {
        (self.0)(delivery)
    }
}

/// Handles many messages at once.
pub trait BatchHandler: Send + Sync + 'static {
    /// Handles a batch, and says what came of it.
    ///
    /// # Cancel safety
    /// As for [`Handler::handle`].
    fn handle(&self, batch: Vec<Delivery>) -> impl Future<Output = Outcomes> + Send;
}

impl<F, R, O> BatchHandler for F
where
    F: Fn(Vec<Delivery>) -> R + Send + Sync + 'static,
    R: Future<Output = O> + Send,
    O: Into<Outcomes>,
{
    fn handle(&self, batch: Vec<Delivery>) -> impl Future<Output = Outcomes> + Send {
        let handling = self(batch);
        async { handling.await.into() }
    }
}

/// What came of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcomes {
    /// The same of all.
    All(Outcome),
    /// Of each, in the order of the batch.
    Each(Vec<Outcome>),
}

impl From<Outcome> for Outcomes {
    fn from(outcome: Outcome) -> Self {
        Self::All(outcome)
    }
}

impl From<Vec<Outcome>> for Outcomes {
    fn from(outcomes: Vec<Outcome>) -> Self {
        Self::Each(outcomes)
    }
}

impl<E: fmt::Display> From<Result<(), E>> for Outcomes {
    fn from(result: Result<(), E>) -> Self {
        Self::All(result.into())
    }
}

impl Outcomes {
    /// One for each of `count`.
    fn split(self, count: usize) -> Vec<Outcome> {
        match self {
            Self::All(outcome) => vec![outcome; count],
            Self::Each(mut outcomes) => {
                let said = outcomes.len();
                outcomes.truncate(count);
                outcomes.resize_with(count, || {
                    Outcome::retry(format!("{said} outcomes for a batch of {count}"))
                });
                outcomes
            }
        }
    }
}

/// A handler that gathers messages and hands them over together.
///
/// A batch is handed over when it has `max` messages, or when its first one has waited `linger`.
/// It can never have more than the source hands out at once: a processor's
/// [`concurrency`](crate::bus::queue::processor::ProcessorOptions::concurrency), a consumer's
/// lanes. Messages of the log come in its order within a batch.
///
/// A message that is tried again comes alone: one that panics drags no other down with it.
///
/// ```
/// use std::time::Duration;
/// use mister_smith_actors::bus::{Batch, Delivery, Outcome};
///
/// let insert = Batch::new(100, Duration::from_millis(20), |batch: Vec<Delivery>| async move {
///     println!("{} at once", batch.len());
///     Outcome::Ack
/// });
/// # let _ = insert;
/// ```
pub struct Batch<H> {
    handler: H,
    max: usize,
    linger: Duration,
    gathering: Mutex<Gathering>,
}

/// The batch that is being gathered.
#[derive(Default)]
struct Gathering {
    number: u64,
    waiting: Vec<(Delivery, oneshot::Sender<Outcome>)>,
    due: Option<Instant>,
}

impl Gathering {
    fn take(&mut self) -> Vec<(Delivery, oneshot::Sender<Outcome>)> {
        self.number += 1;
        self.due = None;
        std::mem::take(&mut self.waiting)
    }
}

impl<H: BatchHandler> Batch<H> {
    /// A handler of batches of up to `max` messages, the first of which waits no longer than
    /// `linger` for the others.
    pub fn new(max: usize, linger: Duration, handler: H) -> Self {
        Self { handler, max: max.max(1), linger, gathering: Mutex::default() }
    }

    fn gathering(&self) -> MutexGuard<'_, Gathering> {
        self.gathering.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a batch over, and tells everybody what came of his.
    async fn hand_over(&self, mut batch: Vec<(Delivery, oneshot::Sender<Outcome>)>) {
        // One whose try has ended meanwhile comes again, here or elsewhere, and is not ours any more.
        batch.retain(|(_, asker)| !asker.is_closed());
        if batch.is_empty() {
            return;
        }
        batch.sort_by_key(|(delivery, _)| delivery.recorded().map(|event| event.position));
        let (deliveries, askers): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let outcomes = self.handler.handle(deliveries).await.split(askers.len());
        for (asker, outcome) in askers.into_iter().zip(outcomes) {
            // One whose try has ended by now is tried again, after an effect.
            let _ = asker.send(outcome);
        }
    }
}

impl<H: BatchHandler> Handler for Batch<H> {
    async fn handle(&self, delivery: Delivery) -> Handled {
        let (asker, mut answer) = oneshot::channel();
        if delivery.attempt > 1 {
            self.hand_over(vec![(delivery, asker)]).await;
            return told(answer.await).into();
        }
        let (number, due, full) = {
            let mut gathering = self.gathering();
            gathering.waiting.push((delivery, asker));
            let due = *gathering.due.get_or_insert_with(|| Instant::now() + self.linger);
            let number = gathering.number;
            let full = gathering.waiting.len() >= self.max;
            (number, due, full.then(|| gathering.take()))
        };
        if let Some(batch) = full {
            self.hand_over(batch).await;
            return told(answer.await).into();
        }
        // Each of them watches the time: the first may end before it is over.
        let outcome = tokio::select! {
            biased;
            outcome = &mut answer => outcome,
            () = sleep_until(due) => {
                let batch = {
                    let mut gathering = self.gathering();
                    (gathering.number == number).then(|| gathering.take())
                };
                if let Some(batch) = batch {
                    self.hand_over(batch).await;
                }
                answer.await
            }
        };
        told(outcome).into()
    }
}

fn told(outcome: Result<Outcome, oneshot::error::RecvError>) -> Outcome {
    outcome.unwrap_or_else(|_| Outcome::retry("the batch that it was in was given up"))
}

impl<H> fmt::Debug for Batch<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("max", &self.max)
            .field("linger", &self.linger)
            .finish_non_exhaustive()
    }
}
