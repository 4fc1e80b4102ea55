//! The node on embedded defaults: SQLite and everything in one process.
//!
//! | module | what it proves |
//! |---|---|
//! | [`aggregates`] | streams and agents in process: passivation, coming back |
//! | [`ingest`] | what is answered to events that come in, good and bad |
//! | [`queries`] | pages of streams and events, and that the read model agrees with the log |
//! | [`debug`] | the tree over HTTP, and what an operator can do |
//! | [`debug_v1`], [`attacks`] | the debug API, and who is let in |
//! | [`process`] | `smith run`: what it prints, how it ends, what survives it |
//! | [`readme`] | what the README shows is what the program does |
//! | [`cli`] | migrate, events, replay, projections from the command line |
//! | [`sagas`], [`consumers`] | seen and steered from outside |
//! | [`terminal`] | `smith demo`, `smith tree`, `smith top` |
//! | [`wal`] | the write-ahead logs under load |
//! | [`architecture`] | which file may use which |

#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

mod aggregates;
mod architecture;
mod attacks;
mod cli;
mod consumers;
mod debug;
mod debug_v1;
mod ingest;
mod node;
mod process;
mod queries;
mod readme;
mod sagas;
mod terminal;
mod wal;
