//! What everybody else holds of a supervisor.

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::actor::{Actor, Address, typed};
use crate::error::{ExitReason, SupervisorError};
use crate::path::Path;
use crate::supervisor::intensity::Intensity;
use crate::supervisor::place::{SupervisorLink, SupervisorPlace};
use crate::supervisor::policy::ChildPolicy;
use crate::supervisor::spec::ChildSpec;
use crate::supervisor::{Answer, Ask, Change, Given, Request, SupervisorMessage};
use crate::sync::read;

/// A handle to a supervisor: survives its restarts, as an address does.
///
/// # Cancel safety
/// Every method sends one request and waits for the answer. Dropping the future does not take the
/// request back.
#[derive(Clone)]
pub struct SupervisorRef {
    link: SupervisorLink,
    caller: Option<Path>,
}

impl SupervisorRef {
    pub(crate) fn new(link: SupervisorLink) -> Self {
        Self { link, caller: None }
    }

    pub(crate) fn place(&self) -> &SupervisorPlace {
        &self.link
    }

    /// The same handle in the hands of the actor at `path`.
    pub(crate) fn called_by(&self, path: &Path) -> Self {
        Self { link: Arc::clone(&self.link), caller: Some(path.clone()) }
    }

    /// Where the supervisor stands.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.link.path
    }

    /// How many children it has, running or not. O(1).
    #[must_use]
    pub fn count(&self) -> usize {
        self.link.len()
    }

    /// The ids of its children, in start order where it has one.
    #[must_use]
    pub fn which_children(&self) -> Vec<String> {
        read(&self.link.children).keys().map(ToString::to_string).collect()
    }

    /// Starts an actor as a child and returns its address.
    ///
    /// # Errors
    /// As [`start_child`](Self::start_child).
    pub async fn spawn<A: Actor>(
        &self,
        id: impl Into<Arc<str>>,
        args: A::Args,
    ) -> Result<Address<A::Message>, SupervisorError> {
        self.spawn_spec(ChildSpec::actor::<A>(id, args)).await
    }

    /// Starts a child that takes messages of type `M` and returns its address.
    ///
    /// # Errors
    /// As [`start_child`](Self::start_child); `Spec` also when it takes other messages.
    pub async fn spawn_spec<M: Send + 'static>(
        &self,
        spec: ChildSpec,
    ) -> Result<Address<M>, SupervisorError> {
        let path = self.link.path.child(&spec.id);
        spec.takes::<M>()?;
        let slot = self.ask(|answer| Ask::Start(Box::new(spec), answer)).await?;
        typed::<M>(slot, &path).map_err(|error| SupervisorError::StartFailed {
            path,
            reason: ExitReason::Error(error.into()),
        })
    }

    /// Starts a child, OTP's `start_child`. It is added after all others.
    ///
    /// # Errors
    /// A child of that id is there, the spec cannot work, the start failed (then it is not
    /// added), or the supervisor is down.
    pub async fn start_child(&self, spec: impl Into<ChildSpec>) -> Result<(), SupervisorError> {
        let spec = spec.into();
        self.ask(|answer| Ask::Start(Box::new(spec), answer)).await.map(|_| ())
    }

    /// Finds a child's address. O(1).
    #[must_use]
    pub fn child<M: Send + 'static>(&self, id: &str) -> Option<Address<M>> {
        let slot = self.link.child(id)?;
        typed::<M>(slot, &self.link.path).ok()
    }

    /// Stops a child in order and keeps its spec, OTP's `terminate_child`; a temporary child and a
    /// dynamic supervisor's child is forgotten.
    ///
    /// # Errors
    /// No such child, or the supervisor is down.
    pub async fn terminate_child(&self, id: &str) -> Result<(), SupervisorError> {
        self.change(Change::Terminate, id).await
    }

    /// Starts a child that is down, OTP's `restart_child`.
    ///
    /// # Errors
    /// No such child, it runs or is being restarted, the start failed, or the supervisor is down.
    pub async fn restart_child(&self, id: &str) -> Result<(), SupervisorError> {
        self.change(Change::Restart, id).await
    }

    /// Forgets a child that is down, OTP's `delete_child`.
    ///
    /// # Errors
    /// No such child, it runs or is being restarted, or the supervisor is down.
    pub async fn delete_child(&self, id: &str) -> Result<(), SupervisorError> {
        self.change(Change::Delete, id).await
    }

    /// Stops a child and whoever its strategy says, in order and with time to hand over, and
    /// starts them again. Not counted as a failure.
    ///
    /// # Errors
    /// No such child, a start failed, or the supervisor is down.
    pub async fn planned_restart(&self, id: &str) -> Result<(), SupervisorError> {
        self.change(Change::PlannedRestart, id).await
    }

    /// Holds a child: its messages wait, it keeps its state, and no restart of its group starts
    /// it until [`resume`](Self::resume). Suspending a supervisor holds all actors below it.
    ///
    /// # Errors
    /// No such child, or the supervisor is down.
    pub async fn suspend(&self, id: &str) -> Result<(), SupervisorError> {
        self.change(Change::Suspend, id).await
    }

    /// Ends a hold; a child that would have been started meanwhile is started now.
    ///
    /// # Errors
    /// No such child, its start failed, or the supervisor is down.
    pub async fn resume(&self, id: &str) -> Result<(), SupervisorError> {
        self.change(Change::Resume, id).await
    }

    /// Sets the intensity from now on, until the supervisor is restarted.
    ///
    /// # Errors
    /// The supervisor is down.
    pub async fn set_intensity(&self, intensity: Intensity) -> Result<(), SupervisorError> {
        self.ask(|answer| Ask::SetIntensity(intensity, answer)).await
    }

    /// Sets how a child is restarted, from now on, until the supervisor is restarted.
    ///
    /// # Errors
    /// No such child, or the supervisor is down.
    pub async fn set_policy(&self, id: &str, policy: ChildPolicy) -> Result<(), SupervisorError> {
        self.ask(|answer| Ask::SetPolicy(id.into(), policy, answer)).await
    }

    /// Restarts left before it gives up.
    ///
    /// # Errors
    /// The supervisor is down.
    pub async fn restarts_left(&self) -> Result<u32, SupervisorError> {
        self.ask(Ask::RestartsLeft).await
    }

    pub(crate) async fn change(&self, change: Change, id: &str) -> Result<(), SupervisorError> {
        self.change_given(change, id, Given::default()).await
    }

    pub(crate) async fn change_given(
        &self,
        change: Change,
        id: &str,
        given: Given,
    ) -> Result<(), SupervisorError> {
        self.ask_given(|answer| Ask::Change(change, id.into(), answer), given).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(Answer<T>) -> Ask) -> Result<T, SupervisorError> {
        self.ask_given(ask, Given::default()).await
    }

    async fn ask_given<T>(
        &self,
        ask: impl FnOnce(Answer<T>) -> Ask,
        given: Given,
    ) -> Result<T, SupervisorError> {
        let (answer, answered) = oneshot::channel();
        let request = Request { caller: self.caller.clone(), ask: ask(answer), given };
        let down = || SupervisorError::Down { supervisor: self.link.path.clone() };
        if !self.link.send(SupervisorMessage::Request(request)) {
            return Err(down());
        }
        // A supervisor that ends with the request in its hands drops the answer.
        answered.await.unwrap_or_else(|_| Err(down()))
    }
}

impl fmt::Debug for SupervisorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SupervisorRef({})", self.link.path)
    }
}
