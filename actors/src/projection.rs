//! Read models that follow the log.
//!
//! A projection writes its rows and its checkpoint in one transaction, so that each event has its
//! effect once, whatever crashes between. Two owners cannot both do so: [`claim`] gives each a
//! higher epoch, and a write under an older epoch is refused.
//!
//! The ports that it writes through are in [`store::read_model`](crate::store::read_model), a layer
//! below, because the pool leases them together with the log; their names are here too.
//!
//! [`claim`]: streams::StreamSummaries::claim

pub use crate::store::read_model::{Checkpoint, Claim, Epoch, ProjectionError, streams};

pub mod actor;
