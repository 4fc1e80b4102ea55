//! Aggregates: state that changes by events only, one actor for each that is live.
//!
//! | you want | look at |
//! |---|---|
//! | to write one | [`Aggregate`]: `decide` and `evolve`, two pure functions |
//! | to test one | [`fixture`]: given these events, when this command, then those events |
//! | to send it a command | [`CommandBus`](crate::command::CommandBus) |
//! | to know how it lives | [`actor`]: loads, decides, commits, passivates |
//! | to take in events that nobody decides on | [`ingest`](crate::ingest) |

use std::error::Error as StdError;

use serde::{Serialize, de::DeserializeOwned};

use crate::event::{Event, EventCodecError, InvalidStreamId, StreamId, upcast};
use crate::store::RecordedType;
use crate::store::notes::{Owned, Owner, Owners};

pub mod actor;
pub mod fixture;
pub mod live;
mod loading;
pub mod snapshot_policy;
mod unreadable;

pub use snapshot_policy::SnapshotPolicy;
pub use unreadable::Unreadable;

#[cfg(test)]
pub(crate) mod tests;

/// State that is made of its events, and decides which events a command leads to.
///
/// Both functions are pure: no clock, no randomness, no I/O. What a decision needs from outside
/// comes in with the command. So the same events always give the same state, and a command that
/// met somebody else's change can be decided again.
///
/// The state's `Default` is what it is before its first event. It is serialized for snapshots
/// only.
///
/// ```
/// use mister_smith_actors::aggregate::{Aggregate, fixture};
/// use mister_smith_actors::event::Event;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Default, Serialize, Deserialize)]
/// struct Account { open: bool, cents: u64 }
///
/// enum Command { Open, Deposit(u64), Withdraw(u64) }
///
/// #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
/// enum Happened {
///     #[serde(rename = "account.opened")] Opened,
///     #[serde(rename = "account.deposited")] Deposited { cents: u64 },
///     #[serde(rename = "account.withdrawn")] Withdrawn { cents: u64 },
/// }
/// impl Event for Happened {}
///
/// #[derive(Debug, PartialEq, thiserror::Error)]
/// enum Refused {
///     #[error("the account is not open")] NotOpen,
///     #[error("there are only {0} cents")] TooMuch(u64),
/// }
///
/// impl Aggregate for Account {
///     type Command = Command;
///     type Event = Happened;
///     type Rejection = Refused;
///     const CATEGORY: &'static str = "account";
///
///     fn decide(&self, command: &Command) -> Result<Vec<Happened>, Refused> {
///         match *command {
///             Command::Open if self.open => Ok(vec![]),
///             Command::Open => Ok(vec![Happened::Opened]),
///             _ if !self.open => Err(Refused::NotOpen),
///             Command::Deposit(cents) => Ok(vec![Happened::Deposited { cents }]),
///             Command::Withdraw(cents) if cents > self.cents => Err(Refused::TooMuch(self.cents)),
///             Command::Withdraw(cents) => Ok(vec![Happened::Withdrawn { cents }]),
///         }
///     }
///
///     fn evolve(&mut self, event: Happened) {
///         match event {
///             Happened::Opened => self.open = true,
///             Happened::Deposited { cents } => self.cents += cents,
///             Happened::Withdrawn { cents } => self.cents -= cents,
///         }
///     }
/// }
///
/// fixture::given::<Account>([Happened::Opened, Happened::Deposited { cents: 5 }])
///     .when(Command::Withdraw(7))
///     .then_rejected(&Refused::TooMuch(5));
/// ```
pub trait Aggregate: Default + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What it can be asked to do.
    type Command: Send + Sync + 'static;
    /// What can happen to it.
    type Event: Event;
    /// Why it refuses a command.
    type Rejection: StdError + Send + Sync + 'static;

    /// The first part of its streams' names, without `-`: the stream of account 17 is
    /// `account-17`.
    const CATEGORY: &'static str;

    /// Whose its streams are. Those of the system are not an application's.
    #[doc(hidden)]
    const OWNER: Owner = Owner::Aggregate;

    /// The shape of the state in snapshots. Raise it when a snapshot of the old shape must not be
    /// read: the state is then made of its events again.
    const STATE_SCHEMA: u32 = 1;

    /// The events that a command leads to, in this state; none if there is nothing to do.
    ///
    /// # Errors
    /// The command is refused; nothing happens.
    fn decide(&self, command: &Self::Command) -> Result<Vec<Self::Event>, Self::Rejection>;

    /// The state after an event. It has happened: there is no refusing it.
    fn evolve(&mut self, event: Self::Event);

    /// When snapshots are taken.
    fn snapshots() -> SnapshotPolicy {
        SnapshotPolicy::default()
    }
}

/// The stream of an aggregate.
///
/// # Errors
/// The id is empty, too long, or has a control character; or the category has a `-`.
pub fn stream_of<A: Aggregate>(id: &str) -> Result<StreamId, InvalidAggregate> {
    if A::CATEGORY.is_empty() || A::CATEGORY.contains('-') {
        return Err(InvalidAggregate::Category { category: A::CATEGORY });
    }
    if id.is_empty() {
        return Err(InvalidAggregate::Id { source: InvalidStreamId::Empty });
    }
    StreamId::new(format!("{}-{id}", A::CATEGORY)).map_err(|source| InvalidAggregate::Id { source })
}

/// Checks an aggregate type before its first command: its name, the shape of its events, and a
/// way for every schema version that the log holds.
///
/// # Errors
/// What is wrong, and what to do.
pub fn check<A: Aggregate>(recorded: &[RecordedType]) -> Result<(), InvalidAggregate> {
    stream_of::<A>("1")?;
    let versions = recorded.iter().map(|one| (one.name.clone(), one.schema_version));
    upcast::check::<A::Event>(versions)
        .map_err(|source| InvalidAggregate::Events { category: A::CATEGORY, source })
}

/// Whether an aggregate's streams may be its own, as far as this node knows.
///
/// # Errors
/// They belong to somebody else.
pub fn check_owner<A: Aggregate>(owners: &Owners) -> Result<(), InvalidAggregate> {
    match owners.of(A::CATEGORY) {
        Some(owner) if owner != A::OWNER => {
            Err(Owned { category: A::CATEGORY.to_owned(), owner }.into())
        }
        _ => Ok(()),
    }
}

/// Why an aggregate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAggregate {
    /// The category is not the first part of a stream's name.
    #[error("the category {category:?} is empty or has a '-', which ends it in a stream's name")]
    Category {
        /// The category.
        category: &'static str,
    },
    /// The id cannot be part of a stream's name.
    #[error("the aggregate's id is no name: {source}")]
    Id {
        /// What is wrong with it.
        source: InvalidStreamId,
    },
    /// Its streams belong to somebody else.
    #[error(transparent)]
    Owned(#[from] Owned),
    /// Its events cannot be written, or those in the log not be read.
    #[error("events of {category}: {source}")]
    Events {
        /// The category.
        category: &'static str,
        /// What is wrong with them.
        source: EventCodecError,
    },
}
