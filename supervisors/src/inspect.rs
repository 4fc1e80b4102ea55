//! Looking at a system without asking it: what happened and why, what would happen, and how it is.
//!
//! | file | what |
//! |---|---|
//! | `timeline` | the last events, and waiting for more |
//! | `lineage` | why something happened |
//! | `fold` | the tree as it was |
//! | `look` | parts of the tree, sorted and filtered |
//! | `heat` | every slot as a byte |
//! | `waits` | who waits for whom |
//! | `plan`, `rehearsal` | what an action would do, by the machines that would do it |
//! | `recorder` | the last messages of an actor |
//! | `picture` | an actor's state, the only thing here that an actor is asked for |

pub(crate) mod fold;
pub(crate) mod heat;
pub(crate) mod lineage;
pub(crate) mod look;
pub(crate) mod picture;
pub(crate) mod plan;
pub(crate) mod recorder;
pub(crate) mod rehearsal;
pub(crate) mod timeline;
pub(crate) mod waits;

pub use fold::{PastNode, PastTree};
pub use heat::{Heat, HeatSpan};
pub use lineage::Lineage;
pub use look::{Look, Sort};
pub use picture::Picture;
pub use plan::{Plan, PlannedEnd, PlannedStop};
pub use recorder::{Handled, RECORDER_LENGTH, Recorded};
pub use timeline::{DEFAULT_HISTORY, Missed, Timeline, TimelinePage};
pub use waits::{WaitEdge, Waits};
