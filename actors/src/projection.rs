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
//! | to see, retry, skip events that could not be applied | [`desk::ParkedDesk`] |
//! | to know how it lives | [`actor`] |
//! | the one that every node has | [`streams`] |
//!
//! The log is followed with [`store::follow`](crate::store::follow), as by all who do: what is here
//! is what a page does to documents, which builds of them there are, and what stands still.
//!
//! The ports that it writes through are in [`store::read_model`](crate::store::read_model), a layer
//! below, because the pool leases them together with the log.

use std::error::Error as StdError;
use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};

use crate::event::RecordedEvent;
pub use crate::store::EventFilter;
pub use crate::store::read_model::documents::{
    Document, Documents, Parked, ParkedDocument, ParkedQuery, Progress, Wanted,
};
pub use crate::store::read_model::query::{Compare, ListQuery};
pub use crate::store::read_model::{Epoch, ProjectionError};

pub mod actor;
pub mod cache;
pub mod desk;
pub mod handle;
mod kept;
mod parked;
mod plan;
mod retry;
mod shown;
pub mod streams;
mod track;
mod written;

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
    type Document: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Its name; the node's actors, its checkpoint and the command line call it so.
    const NAME: &'static str;

    /// Raise it when the same events shall give other documents: they are made anew beside the
    /// old ones, which stay in use until the new ones are as far, and as sound: if more of them
    /// stand still because of events that cannot be applied, the old ones stay.
    ///
    /// It only goes up. A program with a lower one reads what the newer has made and changes
    /// nothing; to go back, raise it again with the code of before, or reset the projection.
    const VERSION: u32 = 1;

    /// Over how many actors the documents are spread, by their ids. The events of one document
    /// keep their order. Raise [`VERSION`](Self::VERSION) with it if there are to be fewer.
    const PARTITIONS: u16 = 1;

    /// Which events it wants; all of them unless said otherwise. Others are not even read. Asked
    /// once, when its actor starts.
    fn filter(&self) -> EventFilter {
        EventFilter::ALL
    }

    /// The documents that an event changes, or may change. Each has an id of at most
    /// [`MAX_ID`](crate::store::read_model::documents::MAX_ID) bytes. Asked once of each event.
    fn ids(&self, event: &RecordedEvent) -> Vec<Arc<str>>;

    /// A document after an event; `None` if there is none, or it is to be removed.
    ///
    /// # Errors
    /// The event cannot be applied. It is tried a few times, and then it is parked together with
    /// all later events of the same document; the others go on. The same is done when it panics,
    /// and when the document cannot be written: it has no JSON, or more than
    /// [`MAX_DOCUMENT`](crate::store::read_model::documents::MAX_DOCUMENT) bytes of it.
    fn apply(
        &self,
        event: &RecordedEvent,
        id: &str,
        document: Option<Self::Document>,
    ) -> Result<Option<Self::Document>, ProjectionFault>;
}

/// What a program makes of a projection.
pub(crate) const fn wanted_by<P: Projection>() -> Wanted {
    let partitions = if P::PARTITIONS == 0 { 1 } else { P::PARTITIONS };
    Wanted { version: P::VERSION, partitions }
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
