//! Tests of an aggregate without a store: given these events, when this command, then those.
//!
//! Every event goes through the codec and back on its way, so that a test also finds out that an
//! event cannot be read again. See [`Aggregate`] for an example.

// A test's way to fail is a panic.

use std::fmt::Debug;

use super::Aggregate;
use crate::event::{EncodedEvent, Event};

/// An aggregate to which events have happened.
///
/// # Panics
/// An event does not come back from its codec.
#[track_caller]
pub fn given<A: Aggregate>(events: impl IntoIterator<Item = A::Event>) -> Given<A> {
    let mut state = A::default();
    for event in events {
        state.evolve(recoded(&event));
    }
    Given { state }
}

/// An aggregate to which nothing has happened.
#[must_use]
pub fn given_nothing<A: Aggregate>() -> Given<A> {
    Given { state: A::default() }
}

#[track_caller]
fn recoded<E: Event>(event: &E) -> E {
    let EncodedEvent { event_type, schema_version, codec, data } =
        event.encode().unwrap_or_else(|error| panic!("an event cannot be written: {error}"));
    E::decode(&event_type, schema_version, codec, &data)
        .unwrap_or_else(|error| panic!("an event cannot be read again: {error}"))
}

/// An aggregate in a state.
#[derive(Debug)]
pub struct Given<A> {
    state: A,
}

impl<A: Aggregate> Given<A> {
    /// Lets it decide a command.
    #[track_caller]
    pub fn when(mut self, command: A::Command) -> Then<A> {
        let decided = self.state.decide(&command);
        if let Ok(events) = &decided {
            for event in events {
                self.state.evolve(recoded(event));
            }
        }
        Then { state: self.state, decided }
    }

    /// Looks at the state.
    pub fn state(&self) -> &A {
        &self.state
    }
}

/// What an aggregate decided.
#[derive(Debug)]
pub struct Then<A: Aggregate> {
    state: A,
    decided: Result<Vec<A::Event>, A::Rejection>,
}

impl<A: Aggregate> Then<A> {
    /// Exactly these events, in this order.
    ///
    /// # Panics
    /// It decided otherwise.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = A::Event>) -> Given<A>
    where
        A::Event: PartialEq + Debug,
    {
        let expected: Vec<_> = expected.into_iter().collect();
        match self.decided {
            Ok(events) => assert_eq!(events, expected, "the command led to other events"),
            Err(refused) => panic!("expected {expected:?}, but the command was refused: {refused}"),
        }
        Given { state: self.state }
    }

    /// Nothing to do: accepted, without an event.
    ///
    /// # Panics
    /// It decided otherwise.
    #[track_caller]
    pub fn then_nothing(self) -> Given<A>
    where
        A::Event: PartialEq + Debug,
    {
        self.then([])
    }

    /// Refused, for this reason.
    ///
    /// # Panics
    /// It decided otherwise.
    #[track_caller]
    pub fn then_rejected(self, expected: &A::Rejection) -> Given<A>
    where
        A::Event: Debug,
        A::Rejection: PartialEq,
    {
        match &self.decided {
            Ok(events) => panic!("expected a refusal ({expected}), but it led to {events:?}"),
            Err(refused) => assert_eq!(refused, expected, "refused for another reason"),
        }
        Given { state: self.state }
    }

    /// The state after it.
    pub fn state(&self) -> &A {
        &self.state
    }
}
