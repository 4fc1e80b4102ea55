//! Read models that follow the log.
//!
//! A projection writes its documents and its checkpoint in one transaction, so that each event has
//! its effect once, whatever crashes between. Two owners cannot both do so: each claim gets a
//! higher epoch, and a write under an older one is refused.
//!
//! | you want | look at |
//! |---|---|
//! | to write one | [`Projection`] |
//! | to read, pause, rebuild one | [`handle::ProjectionRef`] |
//! | to know how it lives | [`actor`] |
//! | the one that every node has | [`streams`] |
//!
//! The ports that it writes through are in [`store::read_model`](crate::store::read_model), a layer
//! below, because the pool leases them together with the log.

use std::error::Error as StdError;
use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};

use crate::event::RecordedEvent;
pub use crate::store::EventFilter;
pub use crate::store::read_model::documents::{Document, Documents, Parked, Progress};
pub use crate::store::read_model::query::{Compare, ListQuery};
pub use crate::store::read_model::{Claim, Epoch, ProjectionError};

pub mod actor;
pub mod cache;
pub mod handle;
mod pages;
pub mod streams;
mod track;

#[cfg(test)]
mod tests;

/// Why an event could not be applied.
pub type ProjectionFault = Box<dyn StdError + Send + Sync>;

/// Documents that are made of events.
///
/// Both functions are pure: the same events give the same documents, in a rebuild too.
///
/// ```
/// use std::sync::Arc;
/// use mister_smith_actors::event::RecordedEvent;
/// use mister_smith_actors::projection::{Projection, ProjectionFault};
/// use serde::{Deserialize, Serialize};
///
/// /// How many events of each type there are.
/// struct Types;
///
/// #[derive(Clone, Default, Serialize, Deserialize)]
/// struct Count { events: u64 }
///
/// impl Projection for Types {
///     type Document = Count;
///     const NAME: &'static str = "types";
///
///     fn ids(&self, event: &RecordedEvent) -> Vec<Arc<str>> {
///         vec![event.event_type.clone()]
///     }
///
///     fn apply(
///         &self,
///         _: &RecordedEvent,
///         _: &str,
///         count: Option<Count>,
///     ) -> Result<Option<Count>, ProjectionFault> {
///         let mut count = count.unwrap_or_default();
///         count.events += 1;
///         Ok(Some(count))
///     }
/// }
/// ```
pub trait Projection: Send + Sync + 'static {
    /// What is kept, as JSON.
    type Document: Serialize + DeserializeOwned + Clone + Send + Sync + 'static;

    /// Its name; the node's actors, its checkpoint and the command line call it so.
    const NAME: &'static str;

    /// Raise it when the same events shall give other documents: they are made anew beside the
    /// old ones, which stay in use until the new ones are as far.
    const VERSION: u32 = 1;

    /// Over how many actors the documents are spread, by their ids. The events of one document
    /// keep their order.
    const PARTITIONS: u16 = 1;

    /// Which events it wants; all of them unless said otherwise. Others are not even read.
    fn filter(&self) -> EventFilter {
        EventFilter::ALL
    }

    /// The documents that an event changes, or may change.
    fn ids(&self, event: &RecordedEvent) -> Vec<Arc<str>>;

    /// A document after an event; `None` if there is none, or it is to be removed.
    ///
    /// # Errors
    /// The event cannot be applied. It is tried a few times, and then it is parked together with
    /// all later events of the same document; the others go on.
    fn apply(
        &self,
        event: &RecordedEvent,
        id: &str,
        document: Option<Self::Document>,
    ) -> Result<Option<Self::Document>, ProjectionFault>;
}

/// The partition of a document.
pub(crate) fn partition_of(id: &str, partitions: u16) -> u16 {
    if partitions <= 1 {
        return 0;
    }
    // FNV-1a, 64 bits (http://www.isthe.com/chongo/tech/comp/fnv/): the same for ever, since
    // checkpoints depend on it.
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    u16::try_from(hash % u64::from(partitions)).unwrap_or(0)
}
