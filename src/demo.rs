//! What lives in `smith demo`: a node with work to do, and somebody who breaks it.
//!
//! | file | what |
//! |---|---|
//! | [`luck`] | one seed, all of the randomness |
//! | [`agents`] | actors that talk with each other, and crash when they are told to |
//! | [`shop`] | baskets and shelves, orders as sagas, who fills them |
//! | [`post`] | subscriptions and a durable consumer; some of them fail |
//! | [`storm`] | who breaks what, and when |
//! | [`story`] | what broke and what healed, a sentence each |
//!
//! Nothing grows in memory with time: aggregates that nobody asks for end, what is kept is in the
//! store, and every loop waits for its work to be done before it takes more.

use std::sync::Arc;
use std::time::Duration;

use mister_smith_actors::store::EventFilter;

use crate::system::{SystemBuilder, SystemCore};

mod agents;
mod luck;
mod post;
mod shop;
mod storm;
mod story;

pub(crate) use storm::is_ordered;
pub(crate) use story::Counts;

/// An aggregate of the demo that nobody asked for so long ends; it comes back when it is asked.
const IDLE: Duration = Duration::from_secs(20);

/// What is wanted of a demo.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    /// Actors that talk with each other.
    pub(crate) agents: usize,
    /// Commands to aggregates a second.
    pub(crate) rate: u32,
    /// How often something breaks.
    pub(crate) crash_every: Duration,
}

/// A demo, before and after its node is up.
#[derive(Debug)]
pub(crate) struct Demo {
    options: Options,
    counter: Arc<shop::Counter>,
}

impl Demo {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, counter: Arc::default() }
    }

    /// Says to a node what it has to know before it starts.
    pub(crate) fn prepare(&self, node: SystemBuilder) -> SystemBuilder {
        node.name("demo")
            .seed(self.options.seed)
            .aggregate::<shop::Basket>()
            .aggregate::<shop::Shelf>()
            .saga(shop::order(&self.counter))
            .publish_events(EventFilter::ALL.categories(["basket", "shelf"]))
            .commands(mister_smith_actors::command::CommandOptions::default().idle_after(IDLE))
    }

    /// Puts everything into a node that is up.
    ///
    /// # Errors
    /// Something did not start.
    pub(crate) async fn fill(&self, node: &SystemCore) -> anyhow::Result<()> {
        let Options { seed, agents, rate, .. } = self.options;
        self.counter.open(node.commands().clone());
        post::deliver(node, seed).await?;
        agents::settle(node, seed, agents).await?;
        shop::employ(node, seed, rate).await
    }

    /// Breaks one thing after the other and tells of it, until it is dropped.
    ///
    /// # Cancel safety
    /// It ends when it is dropped; what was broken then heals all the same.
    pub(crate) async fn run(&self, node: &SystemCore, counts: &Counts, tell: impl FnMut(&str)) {
        let storm = storm::storm(node.actors(), self.options);
        let story = story::tell(node.actors(), counts, tell);
        tokio::join!(storm, story);
    }
}
