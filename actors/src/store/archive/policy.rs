//! The archivist: an actor that archives now and then.
//!
//! It lives beside the pool and asks the store to take old parts of the log out, into files. Of
//! several nodes on one database one archives at a time; the others see that, and look again when
//! it is their turn. A failure is shown and tried again the next time: what was begun is then
//! finished. Killed at any moment it loses nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mister_smith_supervisors::{
    Actor, Context, Failure, Health, StartError, SupervisedComponent, SupervisionMetadata,
    TaskGuard,
};

use super::{ArchiveError, ArchiveReport, ArchiveRules, SharedCold};
use crate::component;
use crate::event::Position;
use crate::pool::{Lease, lease_at_start};

/// How often, and how much stays.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArchivePolicy {
    /// The time between two looks; default: an hour.
    pub every: Duration,
    /// What stays in the database; default: 12 full partitions, and what followers need.
    pub rules: ArchiveRules,
}

impl Default for ArchivePolicy {
    fn default() -> Self {
        let rules = ArchiveRules::default().mounted(true);
        Self { every: Duration::from_secs(3_600), rules }
    }
}

impl ArchivePolicy {
    /// Sets the time between two looks.
    #[must_use]
    pub const fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// Sets how many full partitions stay in the database.
    #[must_use]
    pub fn keep(mut self, partitions: usize) -> Self {
        self.rules = self.rules.keep(partitions);
        self
    }

    /// Leaves followers out that will never come again.
    #[must_use]
    pub fn without(mut self, followers: impl IntoIterator<Item = String>) -> Self {
        self.rules = self.rules.without(followers);
        self
    }
}

/// What the archivist can be told.
#[derive(Debug)]
pub enum ArchivistMessage {
    /// It is time to look. Sent by the actor to itself; anybody may send it to have it done now.
    Look,
    /// A look has ended. Sent by the actor to itself.
    Done(Result<ArchiveReport, ArchiveError>),
}

/// What a fresh start needs.
#[derive(Debug, Clone)]
pub struct ArchivistArgs {
    /// Where the pool is.
    pub pool: Arc<str>,
    /// Where the files go.
    pub cold: SharedCold,
    /// How often, and how much stays.
    pub policy: ArchivePolicy,
}

/// The actor.
#[derive(Debug)]
pub struct Archivist {
    args: ArchivistArgs,
    lease: Lease,
    /// The look that is under way, or the wait for the next one.
    next: Option<TaskGuard>,
    looking: bool,
    shown: Arc<Mutex<Shown>>,
}

#[derive(Debug, Default)]
struct Shown {
    up_to: Position,
    /// What holds it back, or went wrong.
    says: Option<String>,
    trouble: bool,
    looking: bool,
}

impl Actor for Archivist {
    type Message = ArchivistMessage;
    type Args = ArchivistArgs;

    async fn start(args: &ArchivistArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let lease = lease_at_start(cx, &args.pool).await?;
        let shown = Arc::new(Mutex::new(Shown::default()));
        let status = Arc::clone(&shown);
        cx.describe(move || {
            let shown = status.lock().unwrap_or_else(PoisonError::into_inner);
            let now = if shown.looking { ", at work" } else { "" };
            let says = shown.says.as_deref().map(|says| format!(", {says}")).unwrap_or_default();
            format!("archived up to {}{now}{says}", shown.up_to)
        });
        Ok(Self {
            args: args.clone(),
            lease,
            next: Some(cx.tell_after(Duration::ZERO, ArchivistMessage::Look)),
            looking: false,
            shown,
        })
    }

    async fn handle(
        &mut self,
        message: ArchivistMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        match message {
            ArchivistMessage::Look if !self.looking => {
                self.looking = true;
                self.shown(|shown| shown.looking = true);
                let upkeep = Arc::clone(&self.lease.upkeep);
                let (cold, rules) = (Arc::clone(&self.args.cold), self.args.policy.rules.clone());
                self.next = Some(cx.spawn_tell(async move {
                    ArchivistMessage::Done(upkeep.archive(&*cold, &rules).await)
                }));
            }
            ArchivistMessage::Look => {}
            ArchivistMessage::Done(result) => {
                self.looking = false;
                self.done(result);
                self.next = Some(cx.tell_after(self.args.policy.every, ArchivistMessage::Look));
            }
        }
        Ok(())
    }

    fn message_name(message: &ArchivistMessage) -> &'static str {
        match message {
            ArchivistMessage::Look => "Look",
            ArchivistMessage::Done(_) => "Done",
        }
    }
}

impl Archivist {
    fn shown(&self, with: impl FnOnce(&mut Shown)) {
        with(&mut self.shown.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn done(&self, result: Result<ArchiveReport, ArchiveError>) {
        let (up_to, says, trouble) = match result {
            Ok(report) => (Some(report.up_to), report.held_back.map(|one| one.to_string()), false),
            Err(ArchiveError::Busy { .. }) => (None, Some("another node archives".into()), false),
            Err(error) => {
                tracing::warn!(%error, "could not archive; tried again the next time");
                (None, Some(error.to_string()), true)
            }
        };
        self.shown(|shown| {
            shown.up_to = up_to.unwrap_or(shown.up_to);
            (shown.says, shown.trouble, shown.looking) = (says, trouble, false);
        });
    }
}

impl SupervisedComponent for Archivist {
    type Handover = ();

    async fn health_check(&mut self, _: &mut Context<Self>) -> Health {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        match (&shown.says, shown.trouble) {
            (Some(says), true) => Health::degraded(says.clone()),
            _ => Health::Healthy,
        }
    }

    fn supervision_metadata(_: &ArchivistArgs) -> SupervisionMetadata {
        SupervisionMetadata::of(component::RESOURCE)
    }
}
