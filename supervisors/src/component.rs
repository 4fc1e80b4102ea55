//! Components: actors that say how they are, hand over to their next life, and name what they
//! depend on.

use std::any::Any;
use std::future::Future;

use crate::actor::{Actor, Context};
use crate::error::Failure;
use crate::health::Health;
use crate::supervisor::policy::ComponentType;

/// An actor that takes part in its own supervision.
///
/// Every method has a default, so a component says only what it has to say.
pub trait SupervisedComponent: Actor {
    /// What one life leaves to the next on a planned restart; `()` for nothing.
    type Handover: Send + 'static;

    /// How are you? Asked between two messages, with a deadline, as often as the
    /// [`HealthSpec`](crate::HealthSpec) says.
    fn health_check(&mut self, _cx: &mut Context<Self>) -> impl Future<Output = Health> + Send {
        async { Health::Healthy }
    }

    /// Called before a planned restart (by an operator, with a group, for bad health), never
    /// after a crash or a kill, when the state cannot be trusted. What it returns is given to the
    /// next life.
    fn prepare_for_restart(
        &mut self,
        _cx: &mut Context<Self>,
    ) -> impl Future<Output = Option<Self::Handover>> + Send {
        async { None }
    }

    /// Called in every life after the first, when `start` is done and before the first message.
    ///
    /// # Errors
    /// An error is a failed start.
    fn post_restart_recovery(
        &mut self,
        _handover: Option<Self::Handover>,
        _cx: &mut Context<Self>,
    ) -> impl Future<Output = Result<(), Failure>> + Send {
        async { Ok(()) }
    }

    /// What its supervisor should know before it starts.
    fn supervision_metadata(_args: &Self::Args) -> SupervisionMetadata {
        SupervisionMetadata::default()
    }
}

/// What a component tells its supervisor: what it is, and which siblings it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SupervisionMetadata {
    /// What it is; the policy for that type is used unless the spec says otherwise.
    pub component_type: Option<ComponentType>,
    /// Ids of siblings that must be up before it, and whose restart restarts it.
    pub depends_on: Vec<String>,
}

impl SupervisionMetadata {
    /// A component of a given type.
    #[must_use]
    pub fn of(component_type: ComponentType) -> Self {
        Self { component_type: Some(component_type), depends_on: Vec::new() }
    }

    /// Adds siblings that it depends on.
    #[must_use]
    pub fn depends_on<I: Into<String>>(mut self, ids: impl IntoIterator<Item = I>) -> Self {
        self.depends_on.extend(ids.into_iter().map(Into::into));
        self
    }
}

/// A component's hooks, or their absence, chosen when the spec is written.
pub(crate) trait Hooks<A: Actor>: Send + Sync + 'static {
    const CHECKS_HEALTH: bool;

    fn health_check(actor: &mut A, cx: &mut Context<A>) -> impl Future<Output = Health> + Send;

    fn prepare_for_restart(
        actor: &mut A,
        cx: &mut Context<A>,
    ) -> impl Future<Output = Option<Box<dyn Any + Send>>> + Send;

    fn post_restart_recovery(
        actor: &mut A,
        cx: &mut Context<A>,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// An actor without hooks.
pub(crate) struct PlainHooks;

impl<A: Actor> Hooks<A> for PlainHooks {
    const CHECKS_HEALTH: bool = false;

    async fn health_check(_: &mut A, _: &mut Context<A>) -> Health {
        Health::Healthy
    }

    async fn prepare_for_restart(_: &mut A, _: &mut Context<A>) -> Option<Box<dyn Any + Send>> {
        None
    }

    async fn post_restart_recovery(_: &mut A, _: &mut Context<A>) -> Result<(), Failure> {
        Ok(())
    }
}

/// The hooks of a [`SupervisedComponent`].
pub(crate) struct ComponentHooks;

impl<A: SupervisedComponent> Hooks<A> for ComponentHooks {
    const CHECKS_HEALTH: bool = true;

    async fn health_check(actor: &mut A, cx: &mut Context<A>) -> Health {
        actor.health_check(cx).await
    }

    async fn prepare_for_restart(
        actor: &mut A,
        cx: &mut Context<A>,
    ) -> Option<Box<dyn Any + Send>> {
        let handover = actor.prepare_for_restart(cx).await?;
        Some(Box::new(handover))
    }

    async fn post_restart_recovery(actor: &mut A, cx: &mut Context<A>) -> Result<(), Failure> {
        let handover = cx.take_handover::<A::Handover>();
        actor.post_restart_recovery(handover, cx).await
    }
}
