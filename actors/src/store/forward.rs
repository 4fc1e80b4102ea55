//! What a store in front of another leaves to that one, as it is.
//!
//! Each method is told once here. One that the port gains, with a default of its own, is added to
//! the lists of those in front, or they would answer with the default.

/// Methods of [`EventStore`](super::EventStore) that go to the store in a field of `self`.
macro_rules! forward {
    ($store:ident: $($method:ident),+ $(,)?) => {
        $($crate::store::forward::one!($store $method);)+
    };
}

macro_rules! one {
    ($store:ident append_batch) => {
        fn append_batch(
            &self,
            batch: ::std::sync::Arc<[$crate::store::Append]>,
        ) -> $crate::store::forward::Answer<'_, ::std::vec::Vec<$crate::store::AppendOutcome>> {
            self.$store.append_batch(batch)
        }
    };
    ($store:ident read_stream) => {
        fn read_stream<'a>(
            &'a self,
            stream: &'a $crate::event::StreamId,
            after: $crate::event::Version,
            limit: usize,
        ) -> $crate::store::forward::Answer<'a, ::std::vec::Vec<$crate::event::RecordedEvent>> {
            self.$store.read_stream(stream, after, limit)
        }
    };
    ($store:ident read_all) => {
        fn read_all(
            &self,
            after: $crate::event::Position,
            limit: usize,
        ) -> $crate::store::forward::Answer<'_, ::std::vec::Vec<$crate::event::RecordedEvent>> {
            self.$store.read_all(after, limit)
        }
    };
    ($store:ident head) => {
        fn head(&self) -> $crate::store::forward::Answer<'_, $crate::event::Position> {
            self.$store.head()
        }
    };
    ($store:ident stream_version) => {
        fn stream_version<'a>(
            &'a self,
            stream: &'a $crate::event::StreamId,
        ) -> $crate::store::forward::Answer<'a, $crate::event::Version> {
            self.$store.stream_version(stream)
        }
    };
    ($store:ident read_stream_backward) => {
        fn read_stream_backward<'a>(
            &'a self,
            stream: &'a $crate::event::StreamId,
            before: $crate::event::Version,
            limit: usize,
        ) -> $crate::store::forward::Answer<'a, ::std::vec::Vec<$crate::event::RecordedEvent>> {
            self.$store.read_stream_backward(stream, before, limit)
        }
    };
    ($store:ident read_matching) => {
        fn read_matching<'a>(
            &'a self,
            filter: &'a $crate::store::EventFilter,
            after: $crate::event::Position,
            limit: usize,
        ) -> $crate::store::forward::Answer<'a, $crate::store::MatchingPage> {
            self.$store.read_matching(filter, after, limit)
        }
    };
    ($store:ident answer) => {
        fn answer(
            &self,
            key: $crate::store::IdempotencyKey,
        ) -> $crate::store::forward::Answer<'_, ::std::option::Option<$crate::store::Appended>> {
            self.$store.answer(key)
        }
    };
    ($store:ident event_types) => {
        fn event_types(
            &self,
        ) -> $crate::store::forward::Answer<'_, ::std::vec::Vec<$crate::store::RecordedType>> {
            self.$store.event_types()
        }
    };
    ($store:ident position_at) => {
        fn position_at(
            &self,
            time: $crate::event::Timestamp,
        ) -> $crate::store::forward::Answer<'_, $crate::event::Position> {
            self.$store.position_at(time)
        }
    };
    ($store:ident changed) => {
        fn changed(
            &self,
            after: $crate::event::Position,
        ) -> $crate::store::forward::Answer<'_, $crate::event::Position> {
            self.$store.changed(after)
        }
    };
    ($store:ident store_id) => {
        fn store_id(&self) -> ::uuid::Uuid {
            self.$store.store_id()
        }
    };
    ($store:ident span) => {
        fn span<'a>(
            &'a self,
            stream: &'a $crate::event::StreamId,
        ) -> $crate::store::forward::Answer<
            'a,
            ::std::option::Option<($crate::event::Position, $crate::event::Position)>,
        > {
            self.$store.span(stream)
        }
    };
}

pub(crate) use {forward, one};

/// What a method answers.
pub(crate) type Answer<'a, T> = futures_util::future::BoxFuture<'a, Result<T, super::StoreError>>;
