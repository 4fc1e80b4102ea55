//! The assembled system.

pub mod http;
