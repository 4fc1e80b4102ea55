//! The node and its stores on real servers, which these tests start, kill and start again, and its
//! formats beside other programs.
//!
//! | module | what it proves |
//! |---|---|
//! | [`store`] | the PostgreSQL store keeps every law, and cannot be told from the others |
//! | [`recovery`] | an append whose connection is cut at a chosen place, or that is undone, is there once |
//! | [`behind`] | rows that follow the log, older programs beside newer ones, what the server is spared |
//! | [`tls`] | PostgreSQL by TLS: authorities, certificates of clients |
//! | [`pruning`] | partitions of the log: made in time, made late, left out by reads |
//! | [`writers`] | processes that append at once, some of them killed: no gap, no double, no loss |
//! | [`faults`] | the server killed under load, connections used up |
//! | [`followers`] | those who follow the log: standing by, handing over, asleep past the lease, a deadly event |
//! | [`projections`] | on several nodes, and of several versions of the program |
//! | [`node`] | whole nodes on one database: commands, projections, taking over |
//! | [`partitions`] | made by whoever needs them, archived, replayed |
//! | [`archives`] | two at once, held back, read by everybody, put back |
//! | [`archive_kills`] | archives and restores killed after every statement and around every file |
//! | [`crossing`] | what a node does, and is asked, over a range of the log that is only in files |
//! | [`queues`] | NATS and Redis keep every law of queues; killed under load, down at the start |
//! | [`sagas`] | many open ones on several nodes: one node has them and keeps the claim |
//! | [`remote`] | requests and commands between nodes; the broker killed, a node gone, an answer cut off |
//! | [`key_value`] | NATS keeps every law of buckets; a watch over the death of the server |
//! | [`commands`] | reading rights, a log that was archived, a log that grows |
//! | [`codecs`] | Python and the commands read what we write, and write what we read |
//! | [`deploy`] | a new version rolled out over processes under load, which are killed: nothing is lost or wrong |
//! | [`timers`] | on several nodes: set and cancelled anywhere, taken over, a node that sleeps, killed at any moment, two programs |
//! | [`migrations`] | up, down, drift and two at once, on PostgreSQL |

#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

mod archive_kills;
mod archives;
mod behind;
mod codecs;
mod commands;
mod crossing;
mod deploy;
mod diarist;
mod faults;
mod followers;
mod key_value;
mod migrations;
mod node;
mod partitions;
mod pooler;
mod processes;
mod projections;
mod pruning;
mod queues;
mod recovery;
mod remote;
mod sagas;
mod server;
mod store;
mod timers;
#[cfg(feature = "tls")]
mod tls;
mod verdicts;
mod wire;
mod writers;
