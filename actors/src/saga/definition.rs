//! What a saga does: its steps, and how each is undone.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::state::StepShape;
use crate::bus::RetryPolicy;
use crate::event::Metadata;

/// How long one try of a step may take, unless it says otherwise.
pub const DEFAULT_STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// How often undoing a step is tried, unless it says otherwise, before a person is asked.
pub const DEFAULT_UNDO_ATTEMPTS: u32 = 10;

/// What a step is given.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StepContext<S> {
    /// The saga's id.
    pub saga: Arc<str>,
    /// Which try this is; the first is 1.
    pub attempt: u32,
    /// Names the effect of this step for ever: the same for every try, so that whoever does it
    /// can tell a repeat. Undoing it has another.
    pub key: String,
    /// What the saga works on.
    pub data: S,
    /// The conversation that the saga belongs to, with the saga as its cause.
    pub metadata: Metadata,
}

/// Why a try of a step did not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct StepError {
    pub(super) reason: String,
    pub(super) retry: bool,
}

impl StepError {
    /// It may work later, and it may have had its effect: it is tried again with the same key.
    pub fn retry(reason: impl fmt::Display) -> Self {
        Self { reason: reason.to_string(), retry: true }
    }

    /// It was refused, and had no effect: what was done before it is undone.
    pub fn refused(reason: impl fmt::Display) -> Self {
        Self { reason: reason.to_string(), retry: false }
    }

    /// Whether it may work later.
    #[must_use]
    pub fn is_worth_a_retry(&self) -> bool {
        self.retry
    }
}

type Action<S, T> =
    Arc<dyn Fn(StepContext<S>) -> BoxFuture<'static, Result<T, StepError>> + Send + Sync>;

/// One step of a saga.
pub struct Step<S> {
    name: String,
    run: Action<S, S>,
    undo: Option<Action<S, ()>>,
    timeout: Duration,
    retry: RetryPolicy,
    undo_retry: RetryPolicy,
}

impl<S: Send + 'static> Step<S> {
    /// A step with its action, which answers what the saga works on from then on. It must not
    /// have its effect twice under the same [`key`](StepContext::key).
    pub fn new<F, R>(name: impl Into<String>, run: F) -> Self
    where
        F: Fn(StepContext<S>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<S, StepError>> + Send + 'static,
    {
        Self {
            name: name.into(),
            run: Arc::new(move |context| run(context).boxed()),
            undo: None,
            timeout: DEFAULT_STEP_TIMEOUT,
            retry: RetryPolicy::default(),
            undo_retry: RetryPolicy::attempts(DEFAULT_UNDO_ATTEMPTS),
        }
    }

    /// How it is undone. It is asked to when the step was confirmed and when one does not know,
    /// so it must bear that there is nothing to undo.
    #[must_use]
    pub fn undo<F, R>(mut self, undo: F) -> Self
    where
        F: Fn(StepContext<S>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), StepError>> + Send + 'static,
    {
        self.undo = Some(Arc::new(move |context| undo(context).boxed()));
        self
    }

    /// How long one try may take; 30 s unless said otherwise. One that takes longer may have had
    /// its effect.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// When it is tried again.
    #[must_use]
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// When undoing it is tried again; ten times unless said otherwise. Then it is parked.
    #[must_use]
    pub fn undo_retry(mut self, retry: RetryPolicy) -> Self {
        self.undo_retry = retry;
        self
    }
}

impl<S> fmt::Debug for Step<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step")
            .field("name", &self.name)
            .field("undoable", &self.undo.is_some())
            .finish_non_exhaustive()
    }
}

/// A kind of saga: its steps in their order.
///
/// ```
/// use mister_smith_actors::saga::{Saga, Step, StepError};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Clone, Serialize, Deserialize)]
/// struct Order { item: String, paid: bool }
///
/// let saga = Saga::new("order")
///     .step(
///         Step::new("reserve", |cx: mister_smith_actors::saga::StepContext<Order>| async move {
///             // Ask the warehouse under the name `cx.key`; it knows a repeat by it.
///             Ok(cx.data)
///         })
///         .undo(|cx| async move { Ok(()) }),
///     )
///     .step(Step::new("pay", |cx: mister_smith_actors::saga::StepContext<Order>| async move {
///         match cx.data.item.is_empty() {
///             true => Err(StepError::refused("nothing to pay for")),
///             false => Ok(Order { paid: true, ..cx.data }),
///         }
///     }));
/// # let _: Saga<Order> = saga;
/// ```
pub struct Saga<S> {
    name: String,
    version: u32,
    deadline: Option<Duration>,
    steps: Vec<Step<S>>,
}

impl<S: Send + 'static> Saga<S> {
    /// A saga without steps. The name is letters, digits, `_` and `.`.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), version: 1, deadline: None, steps: Vec::new() }
    }

    /// Raise it when steps are removed, or put in before others: sagas that have begun go on with
    /// the definition of their version, which the node must have too.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// How long all steps may take together; then those that are done are undone.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Adds a step after those before it.
    #[must_use]
    pub fn step(mut self, step: Step<S>) -> Self {
        self.steps.push(step);
        self
    }
}

impl<S> fmt::Debug for Saga<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Saga")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

/// A saga's definition without the type of its data.
pub trait Definition: Send + Sync + fmt::Debug {
    /// The kind's name.
    fn name(&self) -> &str;
    /// Its version.
    fn version(&self) -> u32;
    /// How long all steps may take.
    fn deadline(&self) -> Option<Duration>;
    /// Its steps.
    fn shape(&self) -> Vec<StepShape>;
    /// How long a try of a step may take.
    fn timeout(&self, step: usize) -> Duration;
    /// When a step is tried again, or undone again.
    fn policy(&self, step: usize, undo: bool) -> RetryPolicy;
    /// Whether this is data of the saga.
    ///
    /// # Errors
    /// Says why not.
    fn check(&self, data: &Value) -> Result<(), String>;
    /// Runs a step; answers the data after it.
    fn run(
        &self,
        step: usize,
        context: StepContext<Value>,
    ) -> BoxFuture<'static, Result<Value, StepError>>;
    /// Undoes a step.
    fn undo(
        &self,
        step: usize,
        context: StepContext<Value>,
    ) -> BoxFuture<'static, Result<(), StepError>>;
}

impl<S: Serialize + DeserializeOwned + Send + 'static> Definition for Saga<S> {
    fn name(&self) -> &str {
        &self.name
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    fn shape(&self) -> Vec<StepShape> {
        let shape = |step: &Step<S>| StepShape {
            name: step.name.clone(),
            undoable: step.undo.is_some(),
            attempts: step.retry.attempts,
            undo_attempts: step.undo_retry.attempts,
        };
        self.steps.iter().map(shape).collect()
    }

    fn timeout(&self, step: usize) -> Duration {
        self.steps[step].timeout
    }

    fn policy(&self, step: usize, undo: bool) -> RetryPolicy {
        match undo {
            true => self.steps[step].undo_retry,
            false => self.steps[step].retry,
        }
    }

    fn check(&self, data: &Value) -> Result<(), String> {
        S::deserialize(data).map(drop).map_err(|error| error.to_string())
    }

    fn run(
        &self,
        step: usize,
        context: StepContext<Value>,
    ) -> BoxFuture<'static, Result<Value, StepError>> {
        let run = Arc::clone(&self.steps[step].run);
        async move {
            let data = run(typed(context)?).await?;
            // The step had its effect: that its answer cannot be kept is a fault to be mended.
            serde_json::to_value(data).map_err(StepError::retry)
        }
        .boxed()
    }

    fn undo(
        &self,
        step: usize,
        context: StepContext<Value>,
    ) -> BoxFuture<'static, Result<(), StepError>> {
        match &self.steps[step].undo {
            None => async { Ok(()) }.boxed(),
            Some(undo) => {
                let undo = Arc::clone(undo);
                async move { undo(typed(context)?).await }.boxed()
            }
        }
    }
}

fn typed<S: DeserializeOwned>(context: StepContext<Value>) -> Result<StepContext<S>, StepError> {
    let StepContext { saga, attempt, key, data, metadata } = context;
    let data = serde_json::from_value(data).map_err(|error| {
        StepError::retry(format!("the saga's data is not of its type: {error}"))
    })?;
    Ok(StepContext { saga, attempt, key, data, metadata })
}
