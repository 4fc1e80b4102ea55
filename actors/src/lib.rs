//! What lives on the kernel.
//!
//! | layer | module | what |
//! |---|---|---|
//! | 1 | [`event`] | ids, places and times of events |
//! | 2 | [`store`] | the log: append and read |
//! | 3 | [`projection`] | read models that follow the log |

pub mod error;
pub mod event;
pub mod projection;
pub mod store;
