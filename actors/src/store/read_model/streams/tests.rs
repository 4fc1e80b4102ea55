use super::*;
use crate::{
    event::Version,
    store::{Append, EventStore, ExpectedVersion, conformance, memory::MemoryStore},
};

fn append(stream: &str, seed: u64, count: u64) -> Append {
    conformance::append(stream, ExpectedVersion::Any, seed, count)
}

async fn log(batch: Vec<Append>) -> Vec<RecordedEvent> {
    let store = MemoryStore::new();
    store.append_batch(batch).await.unwrap();
    conformance::whole_log(&store, 1000).await
}

#[tokio::test]
async fn a_summary_counts_by_type_and_keeps_the_last_payload() {
    let mut batch = vec![append("s", 0, 4), append("t", 9, 1)];
    // Out of order on purpose: a late event widens the span, it does not move its end back.
    batch[0].events[3].recorded_at = Timestamp::from_micros(5);
    let log = log(batch).await;
    let summaries = Summaries::of(&log);
    let summary = summaries.get(&StreamId::new("s").unwrap()).unwrap();
    assert_eq!(summary.events, 4);
    assert_eq!(summary.first_at, Timestamp::from_micros(5));
    assert_eq!(summary.last_at, log[2].recorded_at);
    let by_type: Vec<_> = summary.by_type.iter().map(|(name, n)| (&**name, *n)).collect();
    assert_eq!(by_type, [("changed", 1), ("closed", 1), ("opened", 2)]);
    assert_eq!(summary.last_payload, log[3].data);
    assert_eq!((summary.last_position.get(), log[3].version), (4, Version::new(4)));
    assert_eq!(summaries.iter().count(), 2);
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        store::read_model::streams::sqlite::SqliteStreams,
        store::sqlite::{Database, SqliteOptions, tests::Home},
    };

    async fn streams(home: &Home) -> SqliteStreams {
        let database = Database::open(home.file().await, SqliteOptions::default()).await.unwrap();
        SqliteStreams::new(Arc::new(database))
    }

    async fn all(streams: &SqliteStreams, limit: usize) -> Vec<StreamSummary> {
        let mut all: Vec<StreamSummary> = Vec::new();
        loop {
            let page = streams.list(all.last().map(|last| &last.id), limit).await.unwrap();
            assert!(page.len() <= limit);
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }

    #[tokio::test]
    async fn events_that_were_applied_count_once() {
        let home = Home::new();
        let streams = streams(&home).await;
        let log = log(vec![append("b", 0, 5), append("a", 10, 5)]).await;
        let Claim { epoch, checkpoint } = streams.claim("node-1").await.unwrap();
        assert_eq!((epoch, checkpoint), (Epoch::new(1), Position::ZERO));

        assert_eq!(streams.apply(epoch, &log[..6]).await.unwrap(), Position::new(6));
        assert_eq!(streams.apply(epoch, &log[..6]).await.unwrap(), Position::new(6));
        assert_eq!(streams.apply(epoch, &log[2..]).await.unwrap(), Position::new(10));
        assert_eq!(streams.apply(epoch, &[]).await.unwrap(), Position::new(10));

        let expected: Vec<_> = Summaries::of(&log).iter().cloned().collect();
        assert_eq!(all(&streams, 1).await, expected);
        assert_eq!(streams.get(&expected[0].id).await.unwrap().as_ref(), Some(&expected[0]));
        assert_eq!(streams.get(&StreamId::new("c").unwrap()).await.unwrap(), None);
        let checkpoint = streams.checkpoint().await.unwrap();
        assert_eq!((checkpoint.position.get(), &*checkpoint.owner), (10, "node-1"));
    }

    #[tokio::test]
    async fn a_gap_is_refused_and_changes_nothing() {
        let home = Home::new();
        let streams = streams(&home).await;
        let log = log(vec![append("s", 0, 8)]).await;
        let epoch = streams.claim("node").await.unwrap().epoch;
        streams.apply(epoch, &log[..2]).await.unwrap();
        let before = all(&streams, 10).await;

        let error = streams.apply(epoch, &log[3..]).await.unwrap_err();
        assert!(matches!(error, ProjectionError::Gap { .. }), "{error}");
        assert_eq!(
            error.to_string(),
            "projection stream_summaries stands at position 2, the next event given is 4; \
             read from the log after 2"
        );
        let holey = [log[2].clone(), log[4].clone()];
        assert!(matches!(
            streams.apply(epoch, &holey).await,
            Err(ProjectionError::Gap { found, .. }) if found == Position::new(5)
        ));
        assert_eq!(all(&streams, 10).await, before);
        assert_eq!(streams.apply(epoch, &log[2..]).await.unwrap(), Position::new(8));
    }

    /// Guards against two writers of one projection, which would count events twice.
    #[tokio::test]
    async fn the_owner_before_is_fenced() {
        let home = Home::new();
        let streams = streams(&home).await;
        let log = log(vec![append("s", 0, 8)]).await;
        let nobody = streams.apply(Epoch::ZERO, &log).await.unwrap_err();
        assert!(matches!(nobody, ProjectionError::Fenced { .. }), "not claimed: {nobody}");

        let old = streams.claim("old").await.unwrap();
        streams.apply(old.epoch, &log[..4]).await.unwrap();
        let new = streams.claim("new").await.unwrap();
        assert_eq!((new.epoch, new.checkpoint), (Epoch::new(2), Position::new(4)));
        let error = streams.apply(old.epoch, &log[4..]).await.unwrap_err();
        assert!(
            matches!(error, ProjectionError::Fenced { current, .. } if current == new.epoch),
            "{error}"
        );
        assert!(streams.reset(old.epoch).await.is_err());
        assert_eq!(streams.checkpoint().await.unwrap().position, Position::new(4));
        streams.apply(new.epoch, &log[4..]).await.unwrap();
        assert_eq!(all(&streams, 10).await[0].events, 8);
    }

    #[tokio::test]
    async fn a_reset_begins_again() {
        let home = Home::new();
        let streams = streams(&home).await;
        let log = log(vec![append("s", 0, 8)]).await;
        let epoch = streams.claim("node").await.unwrap().epoch;
        streams.apply(epoch, &log).await.unwrap();
        let before = all(&streams, 10).await;
        streams.reset(epoch).await.unwrap();
        assert_eq!(all(&streams, 10).await, []);
        assert_eq!(streams.checkpoint().await.unwrap().position, Position::ZERO);
        streams.apply(epoch, &log).await.unwrap();
        assert_eq!(all(&streams, 10).await, before);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// However the log is cut into pages, and pages repeated: fold(log) == read model.
        #[test]
        fn the_rows_are_the_fold_of_the_log(
            appends in prop::collection::vec((0..40_u8, 0..1000_u64, 1..30_u64), 1..30),
            cuts in prop::collection::vec((1..60_usize, 0..20_usize), 1..200),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let home = Home::new();
                let streams = streams(&home).await;
                let batch = appends.into_iter().map(|(s, seed, n)| append(&format!("s-{s}"), seed, n));
                let log = log(batch.collect()).await;
                let epoch = streams.claim("node").await.unwrap().epoch;
                let mut done = 0;
                for (size, again) in cuts.into_iter().chain([(log.len(), 0)]) {
                    let end = (done + size).min(log.len());
                    let from = done.saturating_sub(again);
                    let checkpoint = streams.apply(epoch, &log[from..end]).await.unwrap();
                    done = end;
                    assert_eq!(checkpoint.get(), done as u64);
                    let fold: Vec<_> = Summaries::of(&log[..done]).iter().cloned().collect();
                    assert_eq!(all(&streams, 7).await, fold);
                    if done == log.len() {
                        break;
                    }
                }
            });
        }
    }
}
