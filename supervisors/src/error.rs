//! Why something ended, and why something could not be done.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::actor::Stack;
use crate::actor::panic::Theirs;
use crate::path::Path;
use crate::resilience::ErrorClass;

/// What a handler returns when its actor must not go on: the actor crashes, its supervisor
/// decides.
///
/// Any error becomes a `Failure` by `?`: an [`AskError`], a [`TellError`] and a
/// [`SupervisorError`] keep their own class, any other error has the class
/// [`ErrorClass::System`] unless [`Failure::wrap`] gives it another. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Failure(Arc<FailureInner>);

#[derive(Debug)]
struct FailureInner {
    class: ErrorClass,
    message: Box<str>,
    source: Option<Theirs<Box<dyn Error + Send + Sync>>>,
}

impl Failure {
    /// A failure of the given class.
    #[must_use]
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        let message = message.into().into_boxed_str();
        Self(Arc::new(FailureInner { class, message, source: None }))
    }

    /// A failure that time may mend.
    #[must_use]
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Transient, message)
    }

    /// A failure that will be the same at every try.
    #[must_use]
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Permanent, message)
    }

    /// Wraps an error, giving it a class.
    #[must_use]
    pub fn wrap(class: ErrorClass, source: impl Error + Send + Sync + 'static) -> Self {
        let message = source.to_string().into_boxed_str();
        Self(Arc::new(FailureInner { class, message, source: Some(Theirs::new(Box::new(source))) }))
    }

    /// Who can mend it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        self.0.class
    }

    /// The message without its class.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The error underneath, when there is one.
    #[must_use]
    pub fn source(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.0.source.as_ref().map(|source| &***source)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.class, self.0.message)
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::wrap(class_of(&error), error)
    }
}

/// The kernel's own errors know who can mend them; of any other, only its author does.
fn class_of(error: &(dyn Error + 'static)) -> ErrorClass {
    if let Some(error) = error.downcast_ref::<AskError>() {
        return error.class();
    }
    if let Some(error) = error.downcast_ref::<SupervisorError>() {
        return error.class();
    }
    let refusal = error.source().and_then(|source| source.downcast_ref::<Refusal>());
    refusal.map_or(ErrorClass::System, |Refusal(class)| *class)
}

/// The source of every [`TellError`].
///
/// `TellError<M>` is a type of its own for each `M`, so that `?` could not ask it for its class
/// without knowing the message. Its source is the same type for all.
#[derive(Debug, thiserror::Error)]
#[error("{0} error")]
struct Refusal(ErrorClass);

/// Why an actor did not start.
#[derive(Clone, Debug)]
pub enum StartError {
    /// Not now, and that is fine: the slot stays without a life (OTP's `ignore`).
    Ignore,
    /// It could not; the supervisor counts a failed start.
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for StartError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// A caught panic: what was said, where, and how it got there.
#[derive(Debug)]
pub struct PanicReport {
    /// The panic message.
    pub message: String,
    /// `file:line:column` of the panic, when it is known.
    pub location: Option<String>,
    /// The stack at the panic. Names are looked up only when it is printed.
    pub backtrace: Stack,
}

impl fmt::Display for PanicReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.location {
            Some(location) => write!(f, " at {location}"),
            None => Ok(()),
        }
    }
}

/// Why a life ended. Cheap to clone.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ExitReason {
    /// It had nothing more to do.
    Normal,
    /// It was told to stop.
    Shutdown,
    /// Its handler, or its start, returned an error.
    Error(Failure),
    /// It panicked.
    Panic(Arc<PanicReport>),
    /// It was killed.
    Killed,
    /// Its start took longer than its deadline.
    StartTimeout {
        /// The deadline that passed.
        after: Duration,
    },
    /// An earlier life of the slot still runs and does not let go, so no new one may start.
    Stuck {
        /// How long the new life waited.
        waited: Duration,
    },
    /// Its health check failed too often.
    Unhealthy(Arc<str>),
    /// A supervisor gave up: more restarts than its intensity allows.
    ///
    /// Unlike OTP, where the reason is `shutdown`, this counts as abnormal, so that a transient
    /// supervisor is restarted by its parent.
    Escalated {
        /// The child whose failure was one too many.
        child: Path,
        /// What that child died of.
        cause: Box<ExitReason>,
    },
    /// A child of a starting supervisor could not be started.
    ChildStart {
        /// The child that did not start.
        child: Path,
        /// Why it did not.
        cause: Box<ExitReason>,
    },
}

impl ExitReason {
    /// Whether a transient child that ended so stays down: `Normal` and `Shutdown`.
    #[must_use]
    pub fn is_normal(&self) -> bool {
        matches!(self, Self::Normal | Self::Shutdown)
    }

    /// One word for logs and JSON.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Shutdown => "shutdown",
            Self::Error(_) => "error",
            Self::Panic(_) => "panic",
            Self::Killed => "killed",
            Self::StartTimeout { .. } => "start_timeout",
            Self::Stuck { .. } => "stuck",
            Self::Unhealthy(_) => "unhealthy",
            Self::Escalated { .. } => "escalated",
            Self::ChildStart { .. } => "child_start",
        }
    }

    /// The class of the error underneath, when there is one.
    #[must_use]
    pub fn class(&self) -> Option<ErrorClass> {
        match self {
            Self::Error(failure) => Some(failure.class()),
            Self::Escalated { cause, .. } | Self::ChildStart { cause, .. } => cause.class(),
            _ => None,
        }
    }

    /// The panic, when the life panicked.
    #[must_use]
    pub fn panic(&self) -> Option<&PanicReport> {
        match self {
            Self::Panic(report) => Some(report),
            _ => None,
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal => f.write_str("normal"),
            Self::Shutdown => f.write_str("shutdown"),
            Self::Error(failure) => write!(f, "{failure}"),
            Self::Panic(report) => write!(f, "panic: {report}"),
            Self::Killed => f.write_str("killed"),
            Self::StartTimeout { after } => write!(f, "start took longer than {after:?}"),
            Self::Stuck { waited } => {
                write!(f, "the life before it has not let go for {waited:?}")
            }
            Self::Unhealthy(why) => write!(f, "unhealthy: {why}"),
            Self::Escalated { child, cause } => write!(f, "gave up on {child}: {cause}"),
            Self::ChildStart { child, cause } => write!(f, "{child} did not start: {cause}"),
        }
    }
}

/// A message was not taken. It is handed back where nothing was lost.
#[non_exhaustive]
pub enum TellError<M> {
    /// The mailbox is full, and stayed so for as long as its policy waits.
    Full {
        /// Whose mailbox.
        path: Path,
        /// How many messages it holds.
        capacity: usize,
        /// The message, handed back.
        message: M,
    },
    /// The actor has stopped for good.
    Stopped {
        /// Which actor.
        path: Path,
        /// The message, handed back.
        message: M,
    },
}

impl<M> fmt::Debug for TellError<M> {
    /// Without the message, so that `?` works for messages that are not `Debug`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { path, capacity, .. } => {
                f.debug_struct("Full").field("path", path).field("capacity", capacity).finish()
            }
            Self::Stopped { path, .. } => f.debug_struct("Stopped").field("path", path).finish(),
        }
    }
}

impl<M> fmt::Display for TellError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { path, capacity, .. } => write!(
                f,
                "mailbox of {path} is full ({capacity} messages); slow down or raise its capacity"
            ),
            Self::Stopped { path, .. } => write!(f, "{path} has stopped"),
        }
    }
}

impl<M> Error for TellError<M> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.refusal())
    }
}

impl<M> TellError<M> {
    /// The message that was not taken.
    pub fn into_message(self) -> M {
        match self {
            Self::Full { message, .. } | Self::Stopped { message, .. } => message,
        }
    }

    /// Who can mend it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        self.refusal().0
    }

    fn refusal(&self) -> &'static Refusal {
        match self {
            Self::Full { .. } => &Refusal(ErrorClass::Transient),
            Self::Stopped { .. } => &Refusal(ErrorClass::Permanent),
        }
    }
}

/// A question was not answered.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// No answer before the deadline. The message may still be handled later.
    #[error("{path} did not answer within {after:?}")]
    Timeout {
        /// Who was asked.
        path: Path,
        /// The deadline that passed.
        after: Duration,
    },
    /// The actor ended while it held the question. It may have acted on it.
    #[error("{path} crashed while it held the question: {reason}")]
    Crashed {
        /// Who was asked.
        path: Path,
        /// What it died of.
        reason: ExitReason,
    },
    /// The actor has stopped for good; the question was not handled.
    #[error("{path} has stopped")]
    Stopped {
        /// Who was asked.
        path: Path,
    },
    /// The mailbox was full; the question was not handled.
    #[error("mailbox of {path} is full ({capacity} messages); slow down or raise its capacity")]
    Full {
        /// Who was asked.
        path: Path,
        /// How many messages its mailbox holds.
        capacity: usize,
    },
    /// The asker is being stopped or started by a supervisor that waits for it, and that would have
    /// to start the actor that is asked; the question was not handled.
    #[error(
        "{path} has no life, and the supervisor that would start it waits for the asker; \
         ask again later, or not while starting and stopping"
    )]
    Blocked {
        /// Who was asked.
        path: Path,
    },
    /// The handler let go of the reply port without using it: a fault in the actor.
    #[error("{path} handled the question and did not answer it")]
    NoReply {
        /// Who was asked.
        path: Path,
    },
}

impl AskError {
    /// Who can mend it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Timeout { .. }
            | Self::Crashed { .. }
            | Self::Full { .. }
            | Self::Blocked { .. } => ErrorClass::Transient,
            Self::Stopped { .. } => ErrorClass::Permanent,
            Self::NoReply { .. } => ErrorClass::System,
        }
    }
}

/// A supervisor could not do what it was asked to.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// No child of that id.
    #[error("{supervisor} has no child {id:?}")]
    NotFound {
        /// The supervisor asked.
        supervisor: Path,
        /// The id asked for.
        id: String,
    },
    /// The child runs; stop it first.
    #[error("{path} is running; terminate it first")]
    Running {
        /// The child.
        path: Path,
    },
    /// The child is waiting to be restarted.
    #[error("{path} is being restarted; try again when it is up or terminated")]
    Restarting {
        /// The child.
        path: Path,
    },
    /// A child of that id is there and runs.
    #[error("{path} is already started")]
    AlreadyStarted {
        /// The child.
        path: Path,
    },
    /// A child of that id is there and is down.
    #[error("{path} is already present and down; restart or delete it")]
    AlreadyPresent {
        /// The child.
        path: Path,
    },
    /// The child could not be started.
    #[error("{path} did not start: {reason}")]
    StartFailed {
        /// The child.
        path: Path,
        /// Why it did not.
        reason: ExitReason,
    },
    /// The child needs another one, which is not up.
    #[error("{path} depends on {dependency}, which is not up; start that first")]
    NeedsDependency {
        /// The child.
        path: Path,
        /// What it depends on.
        dependency: Path,
    },
    /// The supervisor holds as many children as it may.
    #[error("{supervisor} holds {max} children, which is its limit")]
    MaxChildren {
        /// The supervisor asked.
        supervisor: Path,
        /// Its limit.
        max: usize,
    },
    /// The supervisor itself is down or being restarted.
    #[error("{supervisor} is down or restarting; try again")]
    Down {
        /// The supervisor asked.
        supervisor: Path,
    },
    /// The supervisor is stopping the caller, or everything.
    #[error("{supervisor} is stopping")]
    Stopping {
        /// The supervisor asked.
        supervisor: Path,
    },
    /// The spec cannot work.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// It was meant for another life than the one that is there.
    #[error("{path} is in life {found}, not {expected}; look at it again")]
    OtherLife {
        /// Which child.
        path: Path,
        /// The life that was meant.
        expected: u64,
        /// The life that is there, or the last one.
        found: u64,
    },
    /// The child cannot do this (a raw ractor actor has no mailbox to suspend).
    #[error("{path} cannot be {action}: {why}")]
    Unsupported {
        /// The child.
        path: Path,
        /// What was asked.
        action: &'static str,
        /// Why it cannot be done.
        why: &'static str,
    },
}

impl SupervisorError {
    /// Who can mend it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Down { .. } | Self::Restarting { .. } | Self::Stopping { .. } => {
                ErrorClass::Transient
            }
            Self::StartFailed { .. } | Self::MaxChildren { .. } => ErrorClass::System,
            _ => ErrorClass::User,
        }
    }
}

/// A specification that cannot work, refused before anything starts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Two children share an id.
    #[error("{supervisor:?} declares the child {id:?} twice")]
    DuplicateId {
        /// The supervisor.
        supervisor: String,
        /// The id.
        id: String,
    },
    /// An id that cannot stand in a path.
    #[error("child id {id:?} {why}")]
    BadId {
        /// The id.
        id: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A dependency that is not a sibling.
    #[error("{child:?} depends on {dependency:?}, which {supervisor:?} does not declare")]
    UnknownDependency {
        /// The supervisor.
        supervisor: String,
        /// The child that depends.
        child: String,
        /// What it depends on.
        dependency: String,
    },
    /// A dependency in another branch that would start too late, or never.
    #[error(
        "{child} depends on {dependency}, which starts after it, holds it, or depends on it; \
         declare the branch of {dependency} first"
    )]
    DependencyOrder {
        /// The child that depends.
        child: String,
        /// What it depends on.
        dependency: String,
    },
    /// Dependencies that go round.
    #[error("dependencies go round: {}", cycle.join(" -> "))]
    DependencyCycle {
        /// The ids along the cycle, the first one again at the end.
        cycle: Vec<String>,
    },
    /// OTP's rule for significant children.
    #[error("{child:?} is significant, which needs {needs}")]
    Significant {
        /// The child.
        child: String,
        /// What is missing.
        needs: &'static str,
    },
    /// Delays that make the intensity unreachable, so that the tree would never escalate.
    #[error(
        "{child:?}: {restarts} restarts are expected to wait {expected:?}, longer than the \
         period of {period:?}, so the intensity of {supervisor:?} could never be exceeded; \
         shorten the backoff, lengthen the period or set give_up_after"
    )]
    UnreachableIntensity {
        /// The supervisor.
        supervisor: String,
        /// The child.
        child: String,
        /// `intensity + 1`.
        restarts: u32,
        /// The expected sum of their delays.
        expected: Duration,
        /// The period they would have to fit in.
        period: Duration,
    },
    /// A name that another actor has.
    #[error("{child} cannot be named {name:?}: {holder} is; choose another name")]
    NameTaken {
        /// The name.
        name: String,
        /// Who wants it.
        child: String,
        /// Who has it.
        holder: String,
    },
    /// A setting, or a caller, that is made for another type of messages than the child takes.
    #[error("{child:?} takes {actual}, not {wanted}")]
    WrongMessageType {
        /// The child.
        child: String,
        /// What it takes.
        actual: &'static str,
        /// What the setting is for.
        wanted: &'static str,
    },
    /// A mailbox that holds nothing.
    #[error("{child:?} has a mailbox of capacity 0; it needs room for at least one message")]
    EmptyMailbox {
        /// The child.
        child: String,
    },
    /// A setting that does nothing where it stands.
    #[error("{id:?}: {setting} does nothing on {on}; {cure}")]
    Misplaced {
        /// Whose setting it is.
        id: String,
        /// The setting.
        setting: &'static str,
        /// What has no such setting.
        on: &'static str,
        /// What to do instead.
        cure: &'static str,
    },
    /// A setting that only static supervisors have.
    #[error("{child:?}: {setting} needs a static supervisor, and {supervisor:?} is dynamic")]
    NotDynamic {
        /// The supervisor.
        supervisor: String,
        /// The child.
        child: String,
        /// The setting.
        setting: &'static str,
    },
}

/// No actor answers to a path, or not with that message type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// Nothing lives there.
    #[error("nothing lives at {path}")]
    NotFound {
        /// The path asked for.
        path: Path,
    },
    /// No actor has this name.
    #[error("no actor is named {name:?}")]
    NoSuchName {
        /// The name asked for.
        name: String,
    },
    /// An actor lives there and takes other messages.
    #[error("{path} takes {actual}, not {wanted}")]
    WrongType {
        /// The path asked for.
        path: Path,
        /// What it takes.
        actual: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
}
