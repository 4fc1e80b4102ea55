//! Consumers from outside: start, look, wait, go back, pause.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indexmap::IndexMap;
use mister_smith_supervisors::{Address, ChildSpec, HealthSpec, SupervisorRef};
use serde::Serialize;
use tokio::sync::watch;

use super::actor::{ConsumerActor, ConsumerArgs, ConsumerMessage, trouble_of};
use super::{Begin, Consumer, ConsumerError};
use crate::bus::{DeadLetterOffice, EventBus, Pattern, spawn_anew};
use crate::event::Position;
use crate::settle::Counts;
use crate::store::claims::Request;
use crate::store::follow::{ASK_DEADLINE, Shown};

/// The longest name of a consumer.
const LONGEST_NAME: usize = 100;

/// How long an answer may take that another node has to hear of.
const PATIENCE: Duration = ASK_DEADLINE.saturating_add(Duration::from_secs(5));

/// The consumers of a node. Cheap to clone.
#[derive(Clone)]
pub struct Consumers(Arc<Inner>);

struct Inner {
    supervisor: SupervisorRef,
    pool: Arc<str>,
    owner: Arc<str>,
    head: watch::Receiver<Position>,
    bus: EventBus,
    office: Arc<dyn DeadLetterOffice>,
    health: HealthSpec,
    all: Mutex<IndexMap<Arc<str>, ConsumerRef>>,
    /// One is started at a time.
    starting: tokio::sync::Mutex<()>,
}

/// A consumer that runs, or stands by. Cheap to clone.
#[derive(Clone)]
pub struct ConsumerRef {
    name: Arc<str>,
    address: Address<ConsumerMessage>,
    head: watch::Receiver<Position>,
    counts: Arc<Counts>,
    shown: Arc<Shown>,
}

/// How a consumer stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConsumerStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Where its actor is in the tree.
    pub path: String,
    /// Everything up to here is settled.
    pub position: Position,
    /// Positions of the log after that, whether it wants them or not.
    pub pending: u64,
    /// It handles nothing until it is resumed.
    pub paused: bool,
    /// Another node has it.
    pub standby: bool,
    /// Events that were handled since this node started.
    pub handled: u64,
    /// Tries that failed and were followed by another.
    pub retried: u64,
    /// Events that became dead letters.
    pub dead: u64,
    /// The event that is tried again, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl Consumers {
    /// Consumers under a dynamic supervisor, with what they need of their node.
    #[must_use]
    pub fn new(
        supervisor: SupervisorRef,
        pool: impl Into<Arc<str>>,
        owner: impl Into<Arc<str>>,
        head: watch::Receiver<Position>,
        bus: EventBus,
        office: Arc<dyn DeadLetterOffice>,
        health: HealthSpec,
    ) -> Self {
        Self(Arc::new(Inner {
            supervisor,
            pool: pool.into(),
            owner: owner.into(),
            head,
            bus,
            office,
            health,
            all: Mutex::default(),
            starting: tokio::sync::Mutex::default(),
        }))
    }

    fn all(&self) -> MutexGuard<'_, IndexMap<Arc<str>, ConsumerRef>> {
        self.0.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a consumer, in an actor of its own. It goes on where it was, in whichever life of
    /// the node.
    ///
    /// # Errors
    /// The name is none, or in use, also by a subscription of the bus.
    ///
    /// # Cancel safety
    /// A dropped call has started it or not.
    pub async fn start(&self, consumer: Consumer) -> Result<ConsumerRef, ConsumerError> {
        let name = Arc::clone(&consumer.name);
        let odd = |c: char| !c.is_alphanumeric() && !matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > LONGEST_NAME || name.contains(odd) {
            return Err(ConsumerError::Name { name: name.to_string() });
        }
        // Dead letters are sent again to whoever has their name; nothing is published there.
        let nothing = Pattern::new(format!("system.consumer.{name}"))
            .map_err(|_| ConsumerError::Name { name: name.to_string() })?;
        let exists = || ConsumerError::Exists { name: name.to_string() };
        let _turn = self.0.starting.lock().await;
        if self.all().contains_key(&name) || self.0.bus.has(&name) {
            return Err(exists());
        }
        let (shown, counts) = (Arc::<Shown>::default(), Arc::<Counts>::default());
        let inner = &self.0;
        let args = ConsumerArgs {
            consumer,
            pool: Arc::clone(&inner.pool),
            owner: Arc::clone(&inner.owner),
            head: inner.head.clone(),
            bus: inner.bus.clone(),
            office: Arc::clone(&inner.office),
            counts: Arc::clone(&counts),
            shown: Arc::clone(&shown),
        };
        let spec =
            ChildSpec::component::<ConsumerActor>(Arc::clone(&name), args).health(inner.health);
        let spawned = spawn_anew::<ConsumerMessage>(&inner.supervisor, &name, spec).await?;
        let address = spawned.ok_or_else(exists)?;
        let started = ConsumerRef {
            name: Arc::clone(&name),
            address: address.clone(),
            head: inner.head.clone(),
            counts: Arc::clone(&counts),
            shown,
        };
        let connected = inner.bus.connect_counted(
            Arc::clone(&name),
            nothing,
            address,
            ConsumerMessage::Again,
            Arc::clone(&counts),
        );
        if connected.is_err() {
            inner.supervisor.terminate_child(&name).await?;
            return Err(exists());
        }
        self.all().insert(name, started.clone());
        Ok(started)
    }

    /// Ends a consumer. Its place stays in the store: started again it goes on.
    ///
    /// # Errors
    /// There is none of that name.
    pub async fn stop(&self, name: &str) -> Result<(), ConsumerError> {
        let _turn = self.0.starting.lock().await;
        let found = self.all().shift_remove(name);
        if found.is_none() {
            return Err(self.unknown(name));
        }
        // It was connected when it was started; one that is gone already is no matter.
        let _ = self.0.bus.unsubscribe(name).await;
        Ok(self.0.supervisor.terminate_child(name).await?)
    }

    /// One of them.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn get(&self, name: &str) -> Result<ConsumerRef, ConsumerError> {
        let found = self.all().get(name).cloned();
        found.ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> ConsumerError {
        let all = self.all();
        let known = match all.is_empty() {
            true => "none".to_owned(),
            false => all.keys().map(|name| &**name).collect::<Vec<_>>().join(", "),
        };
        ConsumerError::Unknown { name: name.to_owned(), known }
    }

    /// All of them, in the order in which they were started.
    #[must_use]
    pub fn list(&self) -> Vec<ConsumerStatus> {
        self.all().values().map(ConsumerRef::status).collect()
    }
}

impl ConsumerRef {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it stands. Asks nobody.
    #[must_use]
    pub fn status(&self) -> ConsumerStatus {
        let Counts { acked, retried, dead, .. } = &*self.counts;
        let standing = self.shown.standing();
        let position = standing.position;
        let event = trouble_of(&self.counts);
        ConsumerStatus {
            name: Arc::clone(&self.name),
            path: self.address.path().to_string(),
            position,
            pending: self.head.borrow().get().saturating_sub(position.get()),
            paused: standing.paused,
            standby: standing.standby,
            handled: acked.load(Ordering::Relaxed),
            retried: retried.load(Ordering::Relaxed),
            dead: dead.load(Ordering::Relaxed),
            trouble: event.or_else(|| standing.trouble.map(|text| text.to_string())),
        }
    }

    /// Waits until everything up to a position is settled, on whichever node.
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing.
    pub async fn wait_for(&self, position: Position) {
        self.shown.wait_for(position).await;
    }

    /// Goes back, or ahead: the events after the place that is answered come next. What is in
    /// hand is given up and may come again. Any node can ask for it.
    ///
    /// # Errors
    /// The node that has it does not answer, or the place could not be kept.
    pub async fn replay(&self, from: Begin) -> Result<Position, ConsumerError> {
        self.address.ask_within(PATIENCE, |reply| ConsumerMessage::Replay(from, reply)).await?
    }

    /// Begins nothing more after what is in hand, until it is resumed: on whichever node it is, and
    /// over restarts. Any node can ask for it.
    ///
    /// # Errors
    /// The node that has it does not answer: it hears of it when it can.
    pub async fn pause(&self) -> Result<(), ConsumerError> {
        self.ask(Request::Pause).await
    }

    /// Goes on.
    ///
    /// # Errors
    /// See [`pause`](Self::pause).
    pub async fn resume(&self) -> Result<(), ConsumerError> {
        self.ask(Request::Resume).await
    }

    /// Leaves an event out, also one that is tried again and again. It is noted as parked.
    ///
    /// # Errors
    /// See [`pause`](Self::pause).
    pub async fn skip(&self, event: Position) -> Result<(), ConsumerError> {
        self.ask(Request::Skip(event)).await
    }

    async fn ask(&self, request: Request) -> Result<(), ConsumerError> {
        self.address.ask_within(PATIENCE, |reply| ConsumerMessage::Ask(request, reply)).await?
    }
}

impl fmt::Debug for Consumers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumers").field("all", &self.all().keys()).finish_non_exhaustive()
    }
}

impl fmt::Debug for ConsumerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerRef").field("name", &self.name).finish_non_exhaustive()
    }
}
