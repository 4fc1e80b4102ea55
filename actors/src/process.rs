//! Process managers: they react to what happens, and to what does not happen in time.
//!
//! A [saga](crate::saga) is one list of steps, told once. Where no single place should know the
//! whole way (an order that hears of stock, of payment, of a delivery by somebody else), each
//! process says only which events concern it, what it concludes, and what that makes others do:
//! a choreography.
//!
//! A process is an [aggregate](crate::aggregate) with three more functions. Its conclusions are
//! events of its own stream, so they are durable before anything follows from them:
//!
//! ```text
//! an event of others ─▶ [`on`](Process::on) ─▶ decide ─▶ an event of its own, in the log
//!                                                          │ [`then`](Process::then)
//!            ┌──────────────┬───────────────────┬──────────┘
//!     a command to    a call to some      a deadline
//!     an aggregate    other system        kept in the store
//!            └── refused, answered, due ──▶ decide ─▶ …
//! ```
//!
//! Each arrow is a [durable consumer](crate::consumer), or a [timer](crate::timer) for a deadline,
//! and each effect has a name that is the same permanently: the process, the position of the event
//! that it follows from, and the effect's own name. So whatever crashes when, every reaction happens, each has its effect once on
//! aggregates, and calls to other systems are repeated only under the same name.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::aggregate::Aggregate;
use crate::bus::Outcome;
use crate::command::{CommandBus, CommandEnvelope, CommandError, Executed};
use crate::error::ErrorClass;
use crate::event::{EventCodecError, RecordedEvent, Timestamp};
use crate::saga::StepError;
use crate::store::EventFilter;

mod effects;
mod handle;
mod reactions;
pub mod timers;

pub use handle::{ProcessError, ProcessOptions, ProcessRef, Processes};

#[cfg(test)]
mod tests;

/// A process: an aggregate that reacts.
///
/// ```
/// use std::time::Duration;
/// use mister_smith_actors::aggregate::Aggregate;
/// use mister_smith_actors::event::{Event, EventCodecError, RecordedEvent};
/// use mister_smith_actors::process::{Effect, Process};
/// use mister_smith_actors::store::EventFilter;
/// use serde::{Deserialize, Serialize};
/// # #[derive(Debug, Default, Serialize, Deserialize)]
/// # struct Stock;
/// # #[derive(Debug)]
/// # enum StockCommand { Reserve { order: String } }
/// # impl Aggregate for Stock {
/// #     type Command = StockCommand;
/// #     type Event = Concluded;
/// #     type Rejection = std::convert::Infallible;
/// #     const CATEGORY: &'static str = "stock";
/// #     fn decide(&self, _: &StockCommand) -> Result<Vec<Concluded>, Self::Rejection> { Ok(vec![]) }
/// #     fn evolve(&mut self, _: Concluded) {}
/// # }
///
/// /// Sees to it that an order that was placed gets its goods, or is cancelled.
/// #[derive(Debug, Default, Serialize, Deserialize)]
/// struct Fulfilment { done: bool }
///
/// enum Hears { Placed, Reserved, OutOfStock, TooLate }
///
/// #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
/// enum Concluded {
///     #[serde(rename = "fulfilment.begun")] Begun,
///     #[serde(rename = "fulfilment.completed")] Completed,
///     #[serde(rename = "fulfilment.cancelled")] Cancelled { why: String },
/// }
/// impl Event for Concluded {}
///
/// impl Aggregate for Fulfilment {
///     // …
/// #   type Command = Hears;
/// #   type Event = Concluded;
/// #   type Rejection = std::convert::Infallible;
/// #   const CATEGORY: &'static str = "fulfilment";
/// #   fn decide(&self, heard: &Hears) -> Result<Vec<Concluded>, Self::Rejection> {
/// #       Ok(match heard {
/// #           _ if self.done => vec![],
/// #           Hears::Placed => vec![Concluded::Begun],
/// #           Hears::Reserved => vec![Concluded::Completed],
/// #           Hears::OutOfStock => vec![Concluded::Cancelled { why: "out of stock".to_owned() }],
/// #           Hears::TooLate => vec![Concluded::Cancelled { why: "too late".to_owned() }],
/// #       })
/// #   }
/// #   fn evolve(&mut self, event: Concluded) { self.done = event != Concluded::Begun; }
/// }
///
/// impl Process for Fulfilment {
///     fn reacts_to() -> EventFilter {
///         EventFilter::ALL.types(["order.placed", "stock.reserved"])
///     }
///
///     fn on(event: &RecordedEvent) -> Result<Option<(String, Hears)>, EventCodecError> {
///         // Here the order's number is in the names of both kinds of streams.
///         let Some((_, order)) = event.stream.as_str().split_once('-') else { return Ok(None) };
///         let heard = match &*event.event_type {
///             "order.placed" => Hears::Placed,
///             _ => Hears::Reserved,
///         };
///         Ok(Some((order.to_owned(), heard)))
///     }
///
///     fn then(order: &str, event: &Concluded) -> Vec<Effect<Self>> {
///         match event {
///             Concluded::Begun => vec![
///                 Effect::send::<Stock>(
///                     "reserve",
///                     "goods",
///                     StockCommand::Reserve { order: order.to_owned() },
///                 )
///                 .refused(|_| Hears::OutOfStock),
///                 Effect::after("too late", Duration::from_secs(3_600), || Hears::TooLate),
///             ],
///             _ => vec![Effect::cancel("too late")],
///         }
///     }
/// }
/// ```
pub trait Process: Aggregate {
    /// Which events of others it reacts to.
    fn reacts_to() -> EventFilter;

    /// Which process an event concerns, and what that process hears; `None` if it concerns none.
    /// Pure: it is called again when the event comes again.
    ///
    /// # Errors
    /// The event cannot be read: it becomes a dead letter.
    fn on(event: &RecordedEvent) -> Result<Option<(String, Self::Command)>, EventCodecError>;

    /// What follows from an event of its own. Pure: it is called as often as it takes.
    fn then(id: &str, event: &Self::Event) -> Vec<Effect<Self>>;
}

/// What follows from an event of a process. Its name tells it from the others of the event, for
/// good: after a crash it is known by it what was done, also by a later version of the program that
/// has more of them. So a name stays with what it stands for.
pub struct Effect<P: Process> {
    name: Arc<str>,
    kind: Kind<P>,
}

type Dispatch = Box<
    dyn FnOnce(CommandBus, EffectContext) -> BoxFuture<'static, Result<Executed, CommandError>>
        + Send,
>;
type Refused<P> = Box<dyn FnOnce(&CommandError) -> <P as Aggregate>::Command + Send>;
type Called<P> = BoxFuture<'static, Result<Option<<P as Aggregate>::Command>, StepError>>;

enum Kind<P: Process> {
    Send { dispatch: Dispatch, refused: Option<Refused<P>> },
    Call(Box<dyn FnOnce(EffectContext) -> Called<P> + Send>),
    Later { due: Due, command: Box<dyn FnOnce() -> P::Command + Send> },
    Cancel,
}

#[derive(Debug, Clone, Copy)]
enum Due {
    After(Duration),
    At(Timestamp),
}

/// What an effect is given.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EffectContext {
    /// Names the effect for ever: the same whenever it is tried.
    pub key: String,
    /// The event of the process that it follows from.
    pub event: RecordedEvent,
}

impl<P: Process> Effect<P> {
    fn new(name: impl Into<Arc<str>>, kind: Kind<P>) -> Self {
        Self { name: name.into(), kind }
    }

    /// Sends a command to an aggregate; it has its effect once. Without
    /// [`refused`](Self::refused), a refusal becomes a dead letter.
    pub fn send<A: Aggregate>(
        name: impl Into<Arc<str>>,
        id: impl Into<String>,
        command: A::Command,
    ) -> Self {
        let id = id.into();
        let dispatch: Dispatch = Box::new(move |commands, cx: EffectContext| {
            async move {
                let envelope = CommandEnvelope::new(command).key(cx.key).caused_by(&cx.event);
                commands.send::<A>(&id, envelope).await
            }
            .boxed()
        });
        Self::new(name, Kind::Send { dispatch, refused: None })
    }

    /// What the process hears when the aggregate refuses the command. Other effects have nobody
    /// who refuses.
    #[must_use]
    pub fn refused(
        mut self,
        hears: impl FnOnce(&CommandError) -> P::Command + Send + 'static,
    ) -> Self {
        if let Kind::Send { refused, .. } = &mut self.kind {
            *refused = Some(Box::new(hears));
        }
        self
    }

    /// Asks some other system to do something, under the name [`EffectContext::key`], by which it
    /// must tell a repeat. The process hears what is answered. An error is
    /// [tried again](StepError::retry), or [refused](StepError::refused), which becomes a dead
    /// letter: what can be expected should be an answer.
    pub fn call<F, R>(name: impl Into<Arc<str>>, call: F) -> Self
    where
        F: FnOnce(EffectContext) -> R + Send + 'static,
        R: Future<Output = Result<Option<P::Command>, StepError>> + Send + 'static,
    {
        Self::new(name, Kind::Call(Box::new(move |cx| call(cx).boxed())))
    }

    /// The process hears something when a time has passed since the event. The name tells it from
    /// other deadlines of the same event. One that the process does not need any more it
    /// [cancels](Self::cancel), or does nothing about when it hears of it.
    pub fn after(
        name: impl Into<Arc<str>>,
        wait: Duration,
        hears: impl FnOnce() -> P::Command + Send + 'static,
    ) -> Self {
        Self::new(name, Kind::Later { due: Due::After(wait), command: Box::new(hears) })
    }

    /// As [`after`](Self::after), at a time.
    pub fn at(
        name: impl Into<Arc<str>>,
        time: Timestamp,
        hears: impl FnOnce() -> P::Command + Send + 'static,
    ) -> Self {
        Self::new(name, Kind::Later { due: Due::At(time), command: Box::new(hears) })
    }

    /// Takes the deadlines of a name back that earlier events of the process have set. One whose
    /// time comes at this moment may still be heard.
    pub fn cancel(name: impl Into<Arc<str>>) -> Self {
        Self::new(name, Kind::Cancel)
    }
}

impl<P: Process> fmt::Debug for Effect<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Send { .. } => "Send",
            Kind::Call(_) => "Call",
            Kind::Later { .. } => "Later",
            Kind::Cancel => "Cancel",
        };
        let mut shown = f.debug_struct(kind);
        shown.field("name", &self.name);
        match &self.kind {
            Kind::Send { refused, .. } => {
                shown.field("may_be_refused", &refused.is_some()).finish()
            }
            Kind::Later { due, .. } => shown.field("due", due).finish(),
            Kind::Call(_) | Kind::Cancel => shown.finish(),
        }
    }
}

/// The id of a process, from the name of its stream.
fn id_of(event: &RecordedEvent) -> &str {
    event.stream.as_str().split_once('-').map_or("", |(_, id)| id)
}

/// Names an effect of an event.
fn key_of<P: Process>(event: &RecordedEvent, effect: impl fmt::Display) -> String {
    format!("process/{}/{}/{effect}", P::CATEGORY, event.position)
}

/// What a consumer does about an error of a command.
fn outcome_of(error: &CommandError) -> Outcome {
    match error.class() {
        ErrorClass::Transient => Outcome::retry(error),
        _ => Outcome::fail(error),
    }
}
