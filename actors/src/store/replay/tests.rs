use proptest::prelude::*;

use super::*;
use crate::store::memory::MemoryStore;
use crate::store::{Append, ExpectedVersion, conformance};

const START_US: i64 = 1_700_000_000_000_000;

/// A log of streams a, b and c, a minute from event to event.
async fn filled(events: u64) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    for n in 0..events {
        let name = ["a-1", "b-1", "c"][(n % 3) as usize];
        let mut append: Append = conformance::append(name, ExpectedVersion::Any, n, 1);
        append.events[0].recorded_at =
            Timestamp::from_micros(START_US + n.cast_signed() * 60_000_000);
        store.append_batch([append].into()).await.unwrap();
    }
    store
}

async fn positions(mut replay: Replay) -> Vec<u64> {
    let mut all = Vec::new();
    while let Some(events) = replay.next().await.unwrap() {
        assert!(!events.is_empty());
        all.extend(events.iter().map(|event| event.position.get()));
    }
    assert_eq!(replay.progress().events, all.len() as u64);
    assert_eq!(replay.progress().at, replay.progress().to);
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Ended at any page and resumed from what was kept of it, as often as one likes: the same
    /// events as in one go.
    #[test]
    fn the_parts_of_a_replay_are_the_whole(
        events in 0..60_u64,
        from in 0..70_u64,
        to in 0..70_u64,
        page in 1..9_usize,
        filtered in any::<bool>(),
        stops in prop::collection::vec(1..4_usize, 0..5),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let store = filled(events).await;
            let filter = match filtered {
                true => EventFilter::ALL.categories(["a", "c"]),
                false => EventFilter::ALL,
            };
            let from = ReplayFrom::Position(Position::new(from));
            let begin = Replay::begin(store.clone(), from.clone()).await.unwrap();
            let whole = begin.to(to).filter(filter.clone());
            let ReplayFrom::Position(first) = from else { unreachable!() };
            let expected: Vec<u64> = conformance::whole_log(&*store, 100).await
                .into_iter()
                .filter(|event| event.position > first && event.position.get() <= to)
                .filter(|event| filter.accepts(&event.stream, &event.event_type))
                .map(|event| event.position.get())
                .collect();
            let mut replay = Replay::resume(store.clone(), whole.cursor().clone()).page(page);
            let mut parts = Vec::new();
            for pages in stops {
                for _ in 0..pages {
                    let Some(events) = replay.next().await.unwrap() else { break };
                    parts.extend(events.iter().map(|event| event.position.get()));
                }
                let kept = serde_json::to_string(replay.cursor()).unwrap();
                let cursor = serde_json::from_str(&kept).unwrap();
                replay = Replay::resume(store.clone(), cursor).page(page);
            }
            while let Some(events) = replay.next().await.unwrap() {
                parts.extend(events.iter().map(|event| event.position.get()));
            }
            prop_assert_eq!(&parts, &expected);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_replay_from_a_time_begins_with_its_first_event() {
    let store = filled(100).await;
    let time = |n: i64| ReplayFrom::Time(Timestamp::from_micros(START_US + n * 30_000_000));
    for (half_minutes, first) in [(-5, 1), (0, 1), (1, 2), (2, 2), (99, 51), (198, 100)] {
        let replay = Replay::begin(store.clone(), time(half_minutes)).await.unwrap();
        assert_eq!(positions(replay.page(7)).await, (first..=100).collect::<Vec<_>>());
    }
    assert_eq!(positions(Replay::begin(store, time(199)).await.unwrap()).await, [0; 0]);
}

#[tokio::test]
async fn a_replay_of_a_stream_is_the_stream() {
    let store = filled(30).await;
    let from = |version| {
        let stream = StreamId::new("b-1").unwrap();
        ReplayFrom::Stream(stream, Version::new(version))
    };
    let whole = Replay::begin(store.clone(), from(0)).await.unwrap().page(3);
    assert_eq!(positions(whole).await, (0..10).map(|n| n * 3 + 2).collect::<Vec<_>>());
    let part = Replay::begin(store.clone(), from(4)).await.unwrap().to(6);
    assert_eq!(positions(part).await, [14, 17]);
    let nothing = Replay::begin(store, from(10)).await.unwrap();
    assert_eq!(positions(nothing).await, [0; 0]);
}

#[tokio::test]
async fn what_comes_later_is_not_of_the_past() {
    let store = filled(10).await;
    let replay = Replay::begin(store.clone(), ReplayFrom::Position(Position::ZERO)).await.unwrap();
    store
        .append_batch([conformance::append("d", ExpectedVersion::Any, 1, 5)].into())
        .await
        .unwrap();
    assert_eq!(positions(replay).await, (1..=10).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept() {
    let store = filled(500).await;
    let begun = Instant::now();
    let replay = Replay::begin(store, ReplayFrom::Position(Position::ZERO)).await.unwrap();
    assert_eq!(positions(replay.rate(100)).await.len(), 500);
    let took = begun.elapsed();
    // The last page is given out when the ones before it are due.
    assert!(
        took >= Duration::from_millis(4_900) && took <= Duration::from_millis(5_100),
        "{took:?}"
    );
}
