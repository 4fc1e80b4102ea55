//! The HTTP edge: what comes in over the wire, before any actor sees it.
//!
//! The modules here are pure. [`body`] turns the bytes of a request into a plain body of bounded
//! size, [`cloudevents`] turns that body into checked events. Neither waits, logs or keeps state,
//! so both can be tested and measured without a server.

pub mod body;
pub mod cloudevents;
