//! What to use when something fails.
//!
//! | you have | use |
//! |---|---|
//! | an error, and must say who can mend it | [`ErrorClass`] |
//! | something to try again, and must not hammer | [`Backoff`] |

mod backoff;
mod class;

pub use backoff::Backoff;
pub use class::ErrorClass;
