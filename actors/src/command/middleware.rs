//! What every command passes on its way: authorization, logging, metrics, limits.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::{CommandError, Executed};
use crate::event::{Metadata, StreamId};

/// What a middleware knows about a command.
#[derive(Debug)]
#[non_exhaustive]
pub struct CommandInfo {
    /// The aggregate's category.
    pub category: &'static str,
    /// The aggregate's stream.
    pub stream: StreamId,
    /// The Rust type of the command, without its path.
    pub command: &'static str,
    /// The key, if it has one.
    pub key: Option<Arc<str>>,
    /// What the events will carry; a middleware may change it.
    pub metadata: Metadata,
}

/// Sees every command of a bus, and its answer.
///
/// ```
/// use futures_util::{FutureExt, future::BoxFuture};
/// use mister_smith_actors::command::{CommandError, CommandInfo, Executed, Middleware, Next};
///
/// #[derive(Debug)]
/// struct SignedIn;
///
/// impl Middleware for SignedIn {
///     fn handle<'a>(
///         &'a self,
///         info: CommandInfo,
///         next: Next<'a>,
///     ) -> BoxFuture<'a, Result<Executed, CommandError>> {
///         async move {
///             if info.metadata.actor.is_none() {
///                 return Err(CommandError::Denied { reason: "nobody is signed in".to_owned() });
///             }
///             next.run(info).await
///         }
///         .boxed()
///     }
/// }
/// ```
pub trait Middleware: Send + Sync + fmt::Debug {
    /// Passes the command on, by [`Next::run`], or answers it.
    fn handle<'a>(
        &'a self,
        info: CommandInfo,
        next: Next<'a>,
    ) -> BoxFuture<'a, Result<Executed, CommandError>>;
}

/// The rest of the way.
pub struct Next<'a> {
    rest: &'a [Arc<dyn Middleware>],
    send: Box<dyn FnOnce(CommandInfo) -> BoxFuture<'a, Result<Executed, CommandError>> + Send + 'a>,
}

impl<'a> Next<'a> {
    pub(super) fn new(
        rest: &'a [Arc<dyn Middleware>],
        send: impl FnOnce(CommandInfo) -> BoxFuture<'a, Result<Executed, CommandError>> + Send + 'a,
    ) -> Self {
        Self { rest, send: Box::new(send) }
    }

    /// Passes the command on.
    ///
    /// # Errors
    /// What a later middleware or the aggregate answers.
    pub async fn run(self, info: CommandInfo) -> Result<Executed, CommandError> {
        match self.rest.split_first() {
            None => (self.send)(info).await,
            Some((first, rest)) => first.handle(info, Next { rest, send: self.send }).await,
        }
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").field("rest", &self.rest.len()).finish_non_exhaustive()
    }
}
