//! Read models that follow the log.
pub mod streams;
