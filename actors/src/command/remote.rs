//! Commands from one node to another: whoever serves the aggregate's category decides it, and the
//! answer says that its events are durable.
//!
//! | you want | look at |
//! |---|---|
//! | to send a command to another node | [`RemoteCommands::send`], [`RemoteCommands::send_to`] |
//! | to serve commands | [`server::CommandServer`], [`server::Served`] |
//! | to speak it from another program | [the next section](#on-the-wire) |
//!
//! A request can get lost on its way there and on its way back, and the sender cannot tell which.
//! So each command has a key, and the sender repeats it with the same key until it has an answer
//! or its deadline is over: a repeat of what was done has no effect, and gets the first answer.
//! The aggregate keeps the key with its events, so this holds over the death of any process
//! between, and whichever node of one store answers.
//!
//! # On the wire
//!
//! A request to `PREFIX.command.CATEGORY`, in JSON: `{"id": "7", "key": "…", "metadata": {…},
//! "command": …}`; key and metadata may be left out. The header `Smith-Timeout-Ms` says how long
//! the sender waits. The answer's header `Smith-Status` is 200 with the
//! [`Executed`] in JSON, or another number with a [`Problem`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mister_smith_supervisors::ErrorClass;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use super::{CommandEnvelope, CommandError, Executed};
use crate::aggregate::Aggregate;
use crate::bus::remote::{Remote, RemoteError};
use crate::bus::wire::{CONTENT_TYPE, WireMessage};
use crate::bus::{InvalidSubject, Subject};
use crate::event::Metadata;

pub mod server;

#[cfg(test)]
mod tests;

/// What came of a request: the numbers of HTTP.
pub const STATUS: &str = "Smith-Status";
/// How long the sender waits for the answer, in milliseconds from when it was sent.
pub const TIMEOUT_MS: &str = "Smith-Timeout-Ms";

/// The first token of the subjects, unless said otherwise.
pub const DEFAULT_PREFIX: &str = "smith";

/// The pause before a repeat, doubled with each, up to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Where the commands of a category are served.
fn subject_of(prefix: &str, category: &str) -> Result<Subject, InvalidSubject> {
    Subject::new(format!("{prefix}.command.{category}"))
}

/// A command as it travels.
#[derive(Debug, Serialize, Deserialize)]
struct Order<C> {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    metadata: Metadata,
    command: C,
}

/// Why a command was not executed, or not as far as one knows: RFC 9457, with our members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Problem {
    /// What kind of problem, for programs: `refused`, or what the server calls it.
    #[serde(rename = "type")]
    pub code: String,
    /// The number that the header says, too.
    pub status: u16,
    /// What went wrong, for people.
    pub detail: String,
    /// The command may have had its effect.
    #[serde(default)]
    pub unknown: bool,
    /// What the aggregate says about its refusal.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub data: Value,
}

impl Problem {
    fn new(status: u16, code: &str, detail: impl ToString) -> Self {
        let (code, detail) = (code.to_owned(), detail.to_string());
        Self { code, status, detail, unknown: false, data: Value::Null }
    }

    fn in_doubt(mut self) -> Self {
        self.unknown = true;
        self
    }

    /// What a command's error is to a sender far away.
    fn of(error: &CommandError) -> Self {
        let (status, code) = match (error, error.class()) {
            (CommandError::Rejected(reason), _) => return Self::new(409, "refused", reason),
            (CommandError::Denied { reason }, _) => return Self::new(403, "denied", reason),
            (CommandError::Overloaded { .. }, _) => (503, "busy"),
            (CommandError::KeyReused { .. }, _) => (422, "key_reused"),
            (CommandError::Unreadable(_), _) => (500, "unreadable"),
            (_, ErrorClass::Transient) => (503, "failed"),
            (_, ErrorClass::User) => (422, "invalid"),
            _ => (500, "failed"),
        };
        let problem = Self::new(status, code, error);
        match code {
            // The store or an actor between failed: nobody knows how far it was.
            "failed" => problem.in_doubt(),
            _ => problem,
        }
    }
}

/// How commands are sent.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RemoteOptions {
    /// The first token of the subjects; `smith`.
    pub prefix: String,
    /// A command is answered within this time, repeats included; 10 s.
    pub deadline: Duration,
    /// After this long without an answer it is repeated; 2 s.
    pub repeat_after: Duration,
    /// How long nobody may serve a category before that is an error; 3 s: a node that lost its
    /// connection has it again after 2 s, once the broker is back.
    pub absent_for: Duration,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            prefix: DEFAULT_PREFIX.to_owned(),
            deadline: Duration::from_secs(10),
            repeat_after: Duration::from_secs(2),
            absent_for: Duration::from_secs(3),
        }
    }
}

impl RemoteOptions {
    /// Sets the first token of the subjects.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets within which time a command is answered, repeats included.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets after how long without an answer it is repeated.
    #[must_use]
    pub fn repeat_after(mut self, after: Duration) -> Self {
        self.repeat_after = after.max(PAUSES.0);
        self
    }

    /// Sets how long nobody may serve a category before that is an error.
    #[must_use]
    pub fn absent_for(mut self, time: Duration) -> Self {
        self.absent_for = time;
        self
    }
}

/// Sends commands to whoever serves them. Cheap to clone.
#[derive(Clone)]
pub struct RemoteCommands(Arc<Inner>);

struct Inner {
    remote: Arc<dyn Remote>,
    options: RemoteOptions,
    keys: Box<dyn Fn() -> String + Send + Sync>,
}

/// Why a command has no answer, or none that it was executed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteCommandError {
    /// Nobody serves the category: nothing has happened.
    #[error("nobody serves commands to {category}; start a node that does")]
    NobodyServes {
        /// The category.
        category: String,
    },
    /// It was not sent: nothing has happened.
    #[error("the command was not sent: {0}")]
    NotSent(RemoteError),
    /// It may have happened. A repeat with this key finds out, and doubles nothing.
    #[error(
        "no answer after {tries} tries ({reason}); it may have happened, repeat it with the key \
         {key}"
    )]
    Unknown {
        /// The key that it was sent with.
        key: Arc<str>,
        /// How often it was sent.
        tries: u32,
        /// What the last try came to.
        reason: String,
    },
    /// The aggregate refused it: nothing has happened, unless the problem says
    /// `unknown`, because an earlier try may still be on its way.
    #[error("refused: {}", .0.detail)]
    Refused(Problem),
    /// A middleware of the serving node refused it: nothing has happened.
    #[error("not allowed: {reason}")]
    Denied {
        /// What it said.
        reason: String,
    },
    /// The server cannot read it, or there cannot be such an aggregate: nothing has happened.
    #[error("the command is not understood: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// The servers had no room for it: nothing has happened.
    #[error("the servers are busy: {reason}; slow down and retry")]
    Busy {
        /// What they said.
        reason: String,
    },
    /// The server failed in a way that a repeat does not mend.
    #[error("the server failed: {}", .0.detail)]
    Failed(Problem),
    /// It cannot be written as JSON, or the category is none.
    #[error("the command cannot be sent: {reason}")]
    Unwritable {
        /// What is wrong with it.
        reason: String,
    },
}

impl RemoteCommandError {
    /// How to react. What is transient is worth a repeat, with the same key.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::NobodyServes { .. } | Self::Unknown { .. } | Self::Busy { .. } => {
                ErrorClass::Transient
            }
            Self::NotSent(error) => error.class(),
            Self::Refused(_)
            | Self::Denied { .. }
            | Self::Invalid { .. }
            | Self::Unwritable { .. } => ErrorClass::User,
            Self::Failed(_) => ErrorClass::Permanent,
        }
    }

    /// Whether it may have had its effect.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::Unknown { .. } => true,
            Self::Failed(problem) | Self::Refused(problem) => problem.unknown,
            _ => false,
        }
    }
}

/// What one try came to.
enum Tried {
    Done(Result<Executed, RemoteCommandError>),
    /// It is worth another.
    Again {
        error: RemoteCommandError,
        unknown: bool,
    },
}

impl RemoteCommands {
    /// A sender. `keys` makes the key of a command that has none: never twice the same, in any
    /// process.
    pub fn new(
        remote: Arc<dyn Remote>,
        options: RemoteOptions,
        keys: impl Fn() -> String + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner { remote, options, keys: Box::new(keys) }))
    }

    /// Sends a command to an aggregate by its id, and waits until what came of it is durable.
    ///
    /// # Errors
    /// See [`RemoteCommandError`]; [`is_unknown`](RemoteCommandError::is_unknown) tells whether
    /// it may have had its effect.
    ///
    /// # Cancel safety
    /// A dropped call may have had its effect.
    pub async fn send<A: Aggregate>(
        &self,
        id: &str,
        command: impl Into<CommandEnvelope<A::Command>>,
    ) -> Result<Executed, RemoteCommandError>
    where
        A::Command: Serialize,
    {
        self.send_to(A::CATEGORY, id, command).await
    }

    /// As [`send`](Self::send), for who knows the aggregate only by its category.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    ///
    /// # Cancel safety
    /// A dropped call may have had its effect.
    pub async fn send_to<C: Serialize>(
        &self,
        category: &str,
        id: &str,
        command: impl Into<CommandEnvelope<C>>,
    ) -> Result<Executed, RemoteCommandError> {
        let CommandEnvelope { command, key, metadata, .. } = command.into();
        let key = key.unwrap_or_else(|| (self.0.keys)().into());
        let order = Order { id: id.to_owned(), key: Some(Arc::clone(&key)), metadata, command };
        let unwritable = |error: String| RemoteCommandError::Unwritable { reason: error };
        let bytes = serde_json::to_vec(&order).map_err(|error| unwritable(error.to_string()))?;
        let subject = subject_of(&self.0.options.prefix, category)
            .map_err(|error| unwritable(error.to_string()))?;
        let message =
            WireMessage::new(&subject, "", bytes).header(CONTENT_TYPE, "application/json");
        self.until_answered(category, &key, message).await
    }

    async fn until_answered(
        &self,
        category: &str,
        key: &Arc<str>,
        message: WireMessage,
    ) -> Result<Executed, RemoteCommandError> {
        let options = &self.0.options;
        let began = Instant::now();
        // Until somebody was there, and since when nobody is.
        let mut present = began;
        let (mut tries, mut unknown, mut pause) = (0_u32, false, PAUSES.0);
        loop {
            let left = options.deadline.saturating_sub(began.elapsed());
            let message = message.clone().header(TIMEOUT_MS, left.as_millis());
            let asked = self.0.remote.request(&message, left.min(options.repeat_after)).await;
            tries += 1;
            let absent = matches!(
                asked,
                Err(RemoteError::NoResponders { .. } | RemoteError::Unreachable { .. })
            );
            if !absent {
                present = Instant::now();
            }
            let error = match judge(category, asked) {
                // The aggregate looks for the key before it refuses; but a try that is still on
                // its way may find it in another state.
                Tried::Done(Err(RemoteCommandError::Refused(mut problem))) => {
                    problem.unknown |= unknown;
                    return Err(RemoteCommandError::Refused(problem));
                }
                // Nobody else looks for the key.
                Tried::Done(Err(error)) if unknown => error,
                Tried::Done(result) => return result,
                Tried::Again { error, unknown: doubt } => {
                    unknown |= doubt;
                    error
                }
            };
            let over = began.elapsed() + pause >= options.deadline
                || absent && present.elapsed() >= options.absent_for
                || error.class() != ErrorClass::Transient;
            if over {
                let reason = error.to_string();
                return Err(match unknown {
                    true => RemoteCommandError::Unknown { key: Arc::clone(key), tries, reason },
                    false => error,
                });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}

fn judge(category: &str, asked: Result<WireMessage, RemoteError>) -> Tried {
    let again = |error, unknown| Tried::Again { error, unknown };
    let answer = match asked {
        Ok(answer) => answer,
        Err(RemoteError::NoResponders { .. }) => {
            let category = category.to_owned();
            return again(RemoteCommandError::NobodyServes { category }, false);
        }
        Err(error @ RemoteError::TooLarge { .. }) => {
            return Tried::Done(Err(RemoteCommandError::NotSent(error)));
        }
        Err(error) => {
            let unknown = matches!(error, RemoteError::NoAnswer { .. });
            return again(RemoteCommandError::NotSent(error), unknown);
        }
    };
    let status = answer.headers.get(STATUS).and_then(|status| status.parse::<u16>().ok());
    if status == Some(200)
        && let Ok(executed) = serde_json::from_slice(&answer.payload)
    {
        return Tried::Done(Ok(executed));
    }
    let problem = match serde_json::from_slice::<Problem>(&answer.payload) {
        Ok(problem) if status != Some(200) => problem,
        // Somebody else serves the subject, a stream for example, or a newer server.
        _ => {
            let detail = format!("an answer that is none of a command's, with status {status:?}");
            let problem = Problem::new(500, "unreadable", detail).in_doubt();
            return Tried::Done(Err(RemoteCommandError::Failed(problem)));
        }
    };
    let reason = problem.detail.clone();
    match problem.status {
        409 => Tried::Done(Err(RemoteCommandError::Refused(problem))),
        403 => Tried::Done(Err(RemoteCommandError::Denied { reason })),
        400..500 => Tried::Done(Err(RemoteCommandError::Invalid { reason })),
        503 | 504 => again(RemoteCommandError::Busy { reason }, problem.unknown),
        _ => Tried::Done(Err(RemoteCommandError::Failed(problem))),
    }
}

impl fmt::Debug for RemoteCommands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteCommands")
            .field("remote", &self.0.remote)
            .field("options", &self.0.options)
            .finish_non_exhaustive()
    }
}
