//! Queries: typed questions, answered by whoever registered for their type.
//!
//! The asker does not know who answers: a read model, the log, an aggregate's state, another
//! service. One type of question has one answerer.
//!
//! ```
//! use mister_smith_actors::query::{Query, QueryBus, QueryError};
//!
//! struct Balance { account: String }
//! impl Query for Balance { type Answer = u64; }
//!
//! # async fn doc() -> Result<(), QueryError> {
//! let bus = QueryBus::new();
//! bus.answer(|balance: Balance| async move {
//!     Ok(if balance.account == "17" { 250 } else { 0 })
//! })?;
//! assert_eq!(bus.ask(Balance { account: "17".to_owned() }).await?, 250);
//! # Ok(())
//! # }
//! # futures_util::FutureExt::now_or_never(doc()).unwrap().unwrap();
//! ```

use std::any::{Any, TypeId, type_name};
use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mister_smith_supervisors::ErrorClass;

/// A question.
pub trait Query: Send + 'static {
    /// What it is answered with.
    type Answer: Send + 'static;
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// Nobody answers questions of this type.
    #[error("nobody answers {query}; register a handler with `QueryBus::answer`")]
    NoHandler {
        /// The type of the question.
        query: &'static str,
    },
    /// Somebody answers questions of this type already.
    #[error("{query} is answered already; one type of question has one handler")]
    Taken {
        /// The type of the question.
        query: &'static str,
    },
    /// The handler failed.
    #[error("{query}: {source}")]
    Failed {
        /// The type of the question.
        query: &'static str,
        /// What it said.
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl QueryError {
    /// How to react. Of a handler's failure nobody but the asker can tell.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::NoHandler { .. } | Self::Taken { .. } => ErrorClass::Permanent,
            Self::Failed { .. } => ErrorClass::System,
        }
    }
}

/// What a handler fails with.
type HandlerError = Box<dyn StdError + Send + Sync>;

/// A handler of questions of type `Q`.
type Handler<Q> =
    dyn Fn(Q) -> BoxFuture<'static, Result<<Q as Query>::Answer, HandlerError>> + Send + Sync;

/// Handlers by the type of their question. Cheap to clone; all clones are one bus.
#[derive(Clone, Default)]
pub struct QueryBus {
    handlers: Arc<RwLock<BTreeMap<TypeId, Registered>>>,
}

struct Registered {
    query: &'static str,
    /// An `Arc<Handler<Q>>`.
    handler: Box<dyn Any + Send + Sync>,
}

impl QueryBus {
    /// A bus on which nobody answers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `handler` answer questions of type `Q`.
    ///
    /// # Errors
    /// Somebody does already.
    pub fn answer<Q: Query, F>(
        &self,
        handler: impl Fn(Q) -> F + Send + Sync + 'static,
    ) -> Result<(), QueryError>
    where
        F: Future<Output = Result<Q::Answer, HandlerError>> + Send + 'static,
    {
        let handler: Arc<Handler<Q>> = Arc::new(move |query| handler(query).boxed());
        let query = type_name::<Q>();
        let mut handlers = self.handlers.write().unwrap_or_else(PoisonError::into_inner);
        if handlers.contains_key(&TypeId::of::<Q>()) {
            return Err(QueryError::Taken { query });
        }
        handlers.insert(TypeId::of::<Q>(), Registered { query, handler: Box::new(handler) });
        Ok(())
    }

    /// Asks a question.
    ///
    /// # Errors
    /// Nobody answers it, or the handler failed.
    ///
    /// # Cancel safety
    /// As the handler's.
    pub async fn ask<Q: Query>(&self, query: Q) -> Result<Q::Answer, QueryError> {
        let name = type_name::<Q>();
        let handler = {
            let handlers = self.handlers.read().unwrap_or_else(PoisonError::into_inner);
            let registered = handlers.get(&TypeId::of::<Q>());
            registered.and_then(|one| one.handler.downcast_ref::<Arc<Handler<Q>>>()).cloned()
        };
        let handler = handler.ok_or(QueryError::NoHandler { query: name })?;
        handler(query).await.map_err(|source| QueryError::Failed { query: name, source })
    }
}

impl fmt::Debug for QueryBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handlers = self.handlers.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_set().entries(handlers.values().map(|one| one.query)).finish()
    }
}
