#![doc = include_str!("../README.md")]

pub mod archive;
pub mod cli;
pub mod debug;
mod demo;
pub mod http;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub mod migrate;
pub mod prelude;
pub mod runtime;
pub mod system;

pub use mister_smith_actors as actors;
pub use mister_smith_supervisors as supervisors;
pub use system::{SystemBuilder, SystemCore};

/// The snippets for newcomers, so that they compile.
#[cfg(doctest)]
#[doc = include_str!("../docs/coming-from.md")]
struct ComingFrom;
