//! The HTTP edge: what comes in over the wire, before any actor sees it.

pub mod body;
