//! The bus in the tree: it joins the bus to its node, and shows how it stands.
//!
//! Publishing does not go through it, so nothing waits while it is restarted.

use std::fmt;
use std::sync::Arc;

use mister_smith_supervisors::{
    Actor, Context, Failure, Health, StartError, SupervisedComponent, SupervisionMetadata,
};

use super::{DeadLetterOffice, EventBus};
use crate::component;

/// Nobody tells it anything.
#[derive(Debug)]
pub enum BusMessage {}

/// What a fresh start needs.
#[derive(Clone, Debug)]
pub struct BusArgs {
    bus: EventBus,
    subscriptions: Arc<str>,
    office: Arc<dyn DeadLetterOffice>,
}

impl BusArgs {
    /// The bus, the path of the dynamic supervisor under which subscriptions live, and where dead
    /// letters go.
    #[must_use]
    pub fn new(
        bus: EventBus,
        subscriptions: impl Into<Arc<str>>,
        office: Arc<dyn DeadLetterOffice>,
    ) -> Self {
        Self { bus, subscriptions: subscriptions.into(), office }
    }
}

/// The actor.
pub struct BusActor {
    bus: EventBus,
}

impl Actor for BusActor {
    type Message = BusMessage;
    type Args = BusArgs;

    async fn start(args: &BusArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let supervisor = cx.find_supervisor(&args.subscriptions)?;
        args.bus.attach(supervisor, Arc::clone(&args.office));
        let bus = args.bus.clone();
        cx.describe(move || {
            let mut all = bus.subscriptions();
            // Only dead letters come that way; nothing is published there.
            all.retain(|one| !one.pattern.starts_with(super::TIMERS));
            let queued: usize = all.iter().map(|one| one.depth).sum();
            let subscriptions = match all.len() {
                1 => "1 subscription".to_owned(),
                many => format!("{many} subscriptions"),
            };
            format!("{subscriptions}   {queued} queued")
        });
        Ok(Self { bus: args.bus.clone() })
    }

    async fn handle(&mut self, message: BusMessage, _: &mut Context<Self>) -> Result<(), Failure> {
        match message {}
    }
}

impl SupervisedComponent for BusActor {
    type Handover = ();

    async fn health_check(&mut self, _: &mut Context<Self>) -> Health {
        let all = self.bus.subscriptions();
        let cut_off: Vec<_> = all.iter().filter(|one| one.cut_off).map(|one| &*one.name).collect();
        match cut_off.is_empty() {
            true => Health::Healthy,
            false => Health::degraded(format!("no room in {}", cut_off.join(", "))),
        }
    }

    fn supervision_metadata(_: &BusArgs) -> SupervisionMetadata {
        SupervisionMetadata::of(component::EVENT_BUS)
    }
}

impl fmt::Debug for BusActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusActor").field("bus", &self.bus).finish()
    }
}
