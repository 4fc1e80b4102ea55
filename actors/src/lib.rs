//! What lives on the kernel, and the vocabulary it speaks.
//!
//! A module may use only modules of an earlier layer:
//!
//! | layer | module | what |
//! |---|---|---|
//! | 1 | [`component`] | the kinds of components, and how each is restarted |
//! | 1 | [`event`] | ids, places and times of events |
//! | 2 | [`store`] | the log: append and read; [`store::committer`], the actor that groups commits |
//! | 2 | [`store::read_model`] | what a read model is written and read through |
//! | 2 | [`bus`] | messages between actors, by subject |
//! | 2 | [`settle`] | how a message is handled, tried again, and buried: the same for bus, queues and log |
//! | 2 | [`pool`] | the actor that owns the connections |
//! | 3 | [`aggregate`] | state that changes by events only, one actor for each that is live |
//! | 3 | [`command`], [`query`] | typed commands to aggregates, typed questions to whoever answers |
//! | 3 | [`dead_letter`] | messages that somebody could not handle, and what was decided about them |
//! | 3 | [`ingest`] | events from outside: whose the streams are, and how many are under way |
//! | 3 | [`projection`] | read models that follow the log; [`projection::actor`] keeps one |
//! | 3 | [`consumer`] | handlers that follow the log under a name of their own, at least once |
//! | 3 | [`outbox`] | from the log, and from applications' own tables, to queues and the bus |
//! | 3 | [`saga`] | processes of several steps, each undone if a later one cannot be done |
//! | 3 | [`process`] | processes that react to events, and to time |
//! | 3 | [`timer`] | what is to happen at a time; [`timer::schedule`], messages that are published later |
//!
//! What to use for what:
//!
//! | you want | use | survives the node | order | shared by nodes |
//! |---|---|---|---|---|
//! | to tell the actors of this node | a [subscription](bus::Subscription) | no | of a subject | a group within the node |
//! | to react to the log, with side effects | a [`Consumer`](consumer::Consumer) | yes | of a lane | one node, others stand by |
//! | a table or a document | a [`Projection`](projection::Projection) | yes, exactly once | of a document | partitions |
//! | to react, with a state and with time | a [`Process`](process::Process) | yes | of a process | one node, others stand by |
//! | a list of steps with an undo each | a [`Saga`](saga::Saga) | yes | of the steps | one node, others stand by |
//! | something at a time, or by a calendar | [`timer`] | yes | of the times | shards |
//! | work from elsewhere, or shared by nodes | a queue and [`EventBus::process`](bus::EventBus::process) | as the broker does | of a lane | a group |
//! | to send out | an [`outbox`] | yes | of the log | one node, others stand by |
//!
//! One event's way: [`ingest`] hands it to the [`store::committer`]; once it is durable, the
//! [`projection::actor`] is woken.

pub mod aggregate;
pub mod bus;
pub mod command;
pub mod component;
pub mod consumer;
pub mod dead_letter;
pub mod error;
pub mod event;
mod guarded;
pub mod ingest;
pub mod outbox;
pub mod pool;
pub mod process;
pub mod projection;
pub mod query;
pub mod saga;
pub mod settle;
pub mod store;
pub mod timer;

#[cfg(test)]
mod tests;
