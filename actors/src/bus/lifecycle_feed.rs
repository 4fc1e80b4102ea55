//! What happens to the node's actors, as messages on its bus.
//!
//! Subjects are `system.lifecycle.KIND.PATH`, with the path's parts as tokens: a restart of
//! `/resources/pool.sqlite` is published to `system.lifecycle.restarted.resources.pool.sqlite`.
//! So `system.lifecycle.failed.>` hears every failure, and `system.lifecycle.*.resources.>` all
//! that happens to what the rest depends on.
//!
//! The supervisors never wait for the bus: events stand in a queue of [`CAPACITY`] until they are
//! published. If more come, the oldest are left out, and the next one says how many
//! ([`Lifecycle::missed`]).

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mister_smith_supervisors::{
    Actor, Context, Failure, LifecycleEvent, LifecycleKind, Observer, StartError,
    SupervisedComponent, SupervisionMetadata, TaskGuard,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::{EventBus, NewMessage, Subject};
use crate::component;
use crate::event::{Event, Timestamp};

/// Events that wait to be published at most.
pub const CAPACITY: usize = 16_384;

/// Events that are published before the actor looks at its mailbox again.
const BURST: usize = 256;

/// A lifecycle event as it is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LifecycleMessage {
    /// Something happened to an actor.
    #[serde(rename = "system.lifecycle")]
    Happened(Lifecycle),
}

impl Event for LifecycleMessage {}

/// What happened to an actor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lifecycle {
    /// Counts up in one system.
    pub seq: u64,
    /// The event that led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause_seq: Option<u64>,
    /// Where the actor is in the tree.
    pub path: String,
    /// Which of its lives.
    pub life: u64,
    /// One word: `started`, `failed`, `restarted`, `escalated`, `stopped` ….
    pub kind: String,
    /// Why, if there is a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Events before this one that were left out, because they came faster than they could be
    /// published.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Lifecycle {
    fn of(event: &LifecycleEvent, missed: u64) -> Self {
        let detail = match &event.kind {
            LifecycleKind::Failed { reason }
            | LifecycleKind::StartFailed { reason }
            | LifecycleKind::Stopped { reason }
            | LifecycleKind::Escalated { reason } => Some(reason.to_string()),
            LifecycleKind::Restarted { restarts } => Some(format!("{restarts} restarts")),
            LifecycleKind::BackingOff { delay } => Some(format!("for {delay:?}")),
            LifecycleKind::Health { detail, .. } => Some(detail.to_string()),
            _ => None,
        };
        Self {
            seq: event.seq,
            cause_seq: event.cause_seq,
            path: event.path.to_string(),
            life: event.life,
            kind: event.kind.name().to_owned(),
            detail,
            missed,
        }
    }
}

/// The subject of a lifecycle event.
#[must_use]
pub fn subject_of(event: &LifecycleEvent) -> Subject {
    let path = event.path.to_string();
    let parts = path.split('/').filter(|part| !part.is_empty());
    Subject::of(["system", "lifecycle", event.kind.name()].into_iter().chain(parts))
}

/// The events on their way from the supervisors to the bus. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct LifecycleQueue(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    grown: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<LifecycleEvent>,
    missed: u64,
}

impl LifecycleQueue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<(LifecycleEvent, u64)> {
        let mut waiting = self.lock();
        let event = waiting.events.pop_front()?;
        Some((event, std::mem::take(&mut waiting.missed)))
    }
}

impl Observer for LifecycleQueue {
    fn on_event(&self, event: &LifecycleEvent) {
        let mut waiting = self.lock();
        if waiting.events.len() == CAPACITY {
            waiting.events.pop_front();
            waiting.missed += 1;
        }
        waiting.events.push_back(event.clone());
        drop(waiting);
        self.0.grown.notify_one();
    }
}

/// What the feed can be told.
#[derive(Debug)]
pub enum LifecycleFeedMessage {
    /// There may be events. Sent by the feed to itself.
    Grown,
}

/// What a fresh start needs.
#[derive(Clone, Debug)]
pub struct LifecycleFeedArgs {
    queue: LifecycleQueue,
    bus: EventBus,
}

impl LifecycleFeedArgs {
    /// Publishes what comes into the queue.
    #[must_use]
    pub fn new(queue: LifecycleQueue, bus: EventBus) -> Self {
        Self { queue, bus }
    }
}

/// The actor.
pub struct LifecycleFeed {
    args: LifecycleFeedArgs,
    waiting: Option<TaskGuard>,
}

impl Actor for LifecycleFeed {
    type Message = LifecycleFeedMessage;
    type Args = LifecycleFeedArgs;

    async fn start(args: &LifecycleFeedArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let mut feed = Self { args: args.clone(), waiting: None };
        feed.wait(cx);
        Ok(feed)
    }

    async fn handle(
        &mut self,
        _: LifecycleFeedMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        for _ in 0..BURST {
            let Some((event, missed)) = self.args.queue.next() else { break };
            let happened = LifecycleMessage::Happened(Lifecycle::of(&event, missed));
            let message = NewMessage::event(subject_of(&event), happened);
            let Ok(message) = message else { continue };
            let message = message.at(Timestamp::from_micros(event.at_us));
            // Who has no room is cut off and shown so by the bus itself.
            let _ = self.args.bus.publish(message).await;
        }
        self.wait(cx);
        Ok(())
    }

    fn message_name(_: &LifecycleFeedMessage) -> &'static str {
        "Grown"
    }
}

impl LifecycleFeed {
    fn wait(&mut self, cx: &Context<Self>) {
        let queue = self.args.queue.clone();
        self.waiting = Some(cx.spawn_tell(async move {
            while queue.lock().events.is_empty() {
                queue.0.grown.notified().await;
            }
            LifecycleFeedMessage::Grown
        }));
    }
}

impl SupervisedComponent for LifecycleFeed {
    type Handover = ();

    fn supervision_metadata(_: &LifecycleFeedArgs) -> SupervisionMetadata {
        SupervisionMetadata::of(component::EVENT_BUS)
    }
}

impl fmt::Debug for LifecycleFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LifecycleFeed").finish_non_exhaustive()
    }
}
