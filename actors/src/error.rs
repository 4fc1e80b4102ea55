//! What an error means to the one who has to react to it: every error type of this crate answers
//! `class()`.

pub use mister_smith_supervisors::ErrorClass;
