//! Aggregates: one actor for each live stream.
//!
//! | you want | look at |
//! |---|---|
//! | to send events to a stream by its name | [`registry::Aggregates`] |
//! | the actor behind a stream | [`stream`] |

pub mod registry;
pub mod stream;
