use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::*;
use crate::store::conformance::{self, append, whole_log};
use crate::store::memory::MemoryStore;
use crate::store::probe::Probe;
use crate::store::{ExpectedVersion, MAX_PAGE};

const ANY: ExpectedVersion = ExpectedVersion::Any;

type Spy = Probe<MemoryStore>;

async fn tail(store: &Arc<Spy>, sole: bool, bytes: usize) -> Tail {
    Tail::over(Arc::clone(store) as _, sole, bytes).await.unwrap()
}

#[tokio::test]
async fn a_tail_keeps_every_law_of_a_store() {
    for (sole, bytes) in [(true, DEFAULT_BYTES), (false, DEFAULT_BYTES), (true, 2_000)] {
        conformance::run(async || {
            let store = Arc::new(MemoryStore::new());
            Tail::over(store, sole, bytes).await.unwrap()
        })
        .await;
    }
}

#[tokio::test]
async fn who_follows_at_the_end_reads_no_database() {
    let store = Arc::new(Spy::default());
    store.append_batch([append("old", ANY, 0, 5)].into()).await.unwrap();
    let tail = tail(&store, true, DEFAULT_BYTES).await;
    let wanted = EventFilter::ALL.categories(["wanted"]);
    let (mut all, mut at) = (Position::new(5), Position::new(5));
    for n in 0..20 {
        tail.append_batch([append("wanted-1", ANY, n * 10, 1), append("s", ANY, n, 3)].into())
            .await
            .unwrap();
        all = tail.read_all(all, 100).await.unwrap().last().unwrap().position;
        let page = tail.read_matching(&wanted, at, 100).await.unwrap();
        assert_eq!(page.events.len(), 1);
        at = page.scanned_to;
        assert_eq!(tail.read_matching(&wanted, at, 100).await.unwrap().events, []);
        assert_eq!(at, all);
    }
    assert_eq!(store.reads(), 0);
    assert_eq!(whole_log(&tail, 7).await, whole_log(&*store, 7).await);
}

/// Other nodes write beside this one: what they wrote is fetched once for all who follow.
#[tokio::test]
async fn the_events_of_others_are_fetched_once() {
    let store = Arc::new(Spy::default());
    let tail = tail(&store, false, DEFAULT_BYTES).await;
    store.append_batch([append("theirs", ANY, 0, 10)].into()).await.unwrap();
    tail.append_batch([append("ours", ANY, 100, 2)].into()).await.unwrap();
    for _ in 0..20 {
        let page = tail.read_matching(&EventFilter::ALL, Position::ZERO, 100).await.unwrap();
        assert_eq!(page.events.len(), 12);
        let theirs = EventFilter::ALL.categories(["theirs"]);
        let page = tail.read_matching(&theirs, Position::new(3), 100).await.unwrap();
        assert_eq!((page.events.len(), page.scanned_to), (7, Position::new(12)));
    }
    assert_eq!(store.reads(), 1);
    // A reader far beyond what is here makes it begin anew.
    for n in 0..3 {
        store
            .append_batch([append("theirs", ANY, 1_000 * n, MAX_PAGE as u64)].into())
            .await
            .unwrap();
    }
    let at = Position::new(12 + 2 * MAX_PAGE as u64);
    assert_eq!(tail.read_all(at, 1).await.unwrap()[0].position, at.next());
    store.reads();
    assert_eq!(tail.read_all(at, 900).await.unwrap().len(), 900);
    assert_eq!(tail.read_all(at, 900).await.unwrap().len(), 900);
    assert_eq!(store.reads(), 1);
}

/// An append that was given up may be in the log all the same.
#[tokio::test]
async fn an_append_of_unknown_end_is_looked_for() {
    let store = Arc::new(Spy::default());
    let tail = tail(&store, true, DEFAULT_BYTES).await;
    tail.append_batch([append("s", ANY, 0, 2)].into()).await.unwrap();
    store.silent.store(true, Ordering::SeqCst);
    {
        let mut call = tail.append_batch([append("s", ANY, 10, 2)].into());
        assert!(futures_util::poll!(&mut call).is_pending());
    }
    assert_eq!(store.head().await.unwrap(), Position::new(4));
    assert_eq!(tail.read_all(Position::new(2), 10).await.unwrap().len(), 2);
    store.silent.store(false, Ordering::SeqCst);
    tail.append_batch([append("s", ANY, 20, 1)].into()).await.unwrap();
    assert_eq!(tail.read_all(Position::new(2), 10).await.unwrap().len(), 3);
    // One that comes in without a word, and late, is seen with the head.
    store.append_batch([append("s", ANY, 30, 1)].into()).await.unwrap();
    assert_eq!(tail.head().await.unwrap(), Position::new(6));
    assert_eq!(tail.read_all(Position::new(5), 10).await.unwrap().len(), 1);
}

/// A page of large events ends before all of them were read: the rest is looked for, too.
#[tokio::test]
async fn an_append_of_unknown_end_that_is_large_is_found_whole() {
    let store = Arc::new(Spy::default());
    let tail = tail(&store, true, DEFAULT_BYTES).await;
    let mut large = append("s", ANY, 0, 3);
    for event in &mut large.events {
        event.data = vec![0; crate::store::MAX_PAGE_BYTES / 2 + 1].into();
    }
    store.silent.store(true, Ordering::SeqCst);
    {
        let mut call = tail.append_batch([large].into());
        assert!(futures_util::poll!(&mut call).is_pending());
    }
    store.silent.store(false, Ordering::SeqCst);
    let mut at = Position::ZERO;
    while let Some(last) = tail.read_all(at, 10).await.unwrap().last() {
        at = last.position;
    }
    assert_eq!(at, Position::new(3));
}

/// Somebody asks for what comes after a place that the log has not reached: that is no place from
/// which others follow.
#[tokio::test]
async fn who_asks_beyond_the_log_takes_nothing_from_the_others() {
    let store = Arc::new(Spy::default());
    let tail = tail(&store, true, DEFAULT_BYTES).await;
    assert_eq!(tail.read_all(Position::new(1_000_000), 10).await.unwrap(), []);
    store.reads();
    tail.append_batch([append("s", ANY, 0, 3)].into()).await.unwrap();
    assert_eq!(tail.read_all(Position::ZERO, 10).await.unwrap().len(), 3);
    assert_eq!(store.reads(), 0);
}

/// A server that lost its last commits gives their places to others.
#[tokio::test]
async fn what_the_log_lost_is_not_remembered() {
    let lost = Arc::new(MemoryStore::new());
    lost.append_batch([append("s", ANY, 0, 4)].into()).await.unwrap();
    let mut recent = recent::Recent::after(Position::ZERO, DEFAULT_BYTES);
    recent.insert(lost.read_all(Position::ZERO, 10).await.unwrap());
    let other = Arc::new(MemoryStore::new());
    other.append_batch([append("s", ANY, 0, 2), append("t", ANY, 77, 1)].into()).await.unwrap();
    recent.insert(other.read_all(Position::new(2), 10).await.unwrap());
    assert_eq!(recent.end(), Position::new(3));
    assert!(matches!(recent.chunks(Position::new(1), 1), recent::Chunks::Elsewhere));
}

#[tokio::test]
async fn a_closed_tail_asks_the_store() {
    let store = Arc::new(Spy::default());
    let tail = tail(&store, true, DEFAULT_BYTES).await;
    tail.append_batch([append("s", ANY, 0, 2)].into()).await.unwrap();
    tail.close();
    assert_eq!(tail.bytes(), 0);
    assert_eq!(tail.read_all(Position::ZERO, 10).await.unwrap().len(), 2);
    assert!(store.reads() > 0);
}

proptest! {
    /// Whoever wrote what, in which order it came in, and how small the memory is: a reader with
    /// any filter sees what the store has.
    #[test]
    fn a_reader_sees_the_same_as_without_it(
        writes in prop::collection::vec((any::<bool>(), 0_usize..4, 1_u64..4, any::<bool>()), 1..60),
        bytes in prop_oneof![Just(0), 300_usize..4_000, Just(DEFAULT_BYTES)],
        page in 1_usize..20,
        sole in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = Arc::new(Spy::default());
            let tail = tail(&store, sole, bytes).await;
            let filters = [
                EventFilter::ALL,
                EventFilter::ALL.categories(["a", "c"]),
                EventFilter::ALL.types(["opened"]),
                EventFilter::ALL.categories(["none"]),
            ];
            let mut readers = vec![(Position::ZERO, Vec::new()); filters.len()];
            for (n, (ours, stream, count, read)) in (0..).zip(writes) {
                let append = append(&format!("{}-1", ["a", "b", "c", "d"][stream]), ANY, n * 10, count);
                // A sole writer is alone.
                let store: &dyn EventStore = if ours || sole { &tail } else { &*store };
                store.append_batch([append].into()).await.unwrap();
                if read {
                    for (filter, (at, seen)) in filters.iter().zip(&mut readers) {
                        let found = tail.read_matching(filter, *at, page).await.unwrap();
                        assert!(found.scanned_to >= *at);
                        *at = found.scanned_to;
                        seen.extend(found.events);
                    }
                }
                assert!(bytes == 0 || tail.bytes() <= bytes + bytes / 2 + 3_000);
            }
            let head = store.head().await.unwrap();
            let log = whole_log(&*store, 100).await;
            for (filter, (at, seen)) in filters.iter().zip(&mut readers) {
                while *at < head {
                    let found = tail.read_matching(filter, *at, page).await.unwrap();
                    assert!(found.scanned_to > *at, "it goes on: {at}");
                    *at = found.scanned_to;
                    seen.extend(found.events);
                }
                let wanted = log.iter().filter(|one| filter.accepts(&one.stream, &one.event_type));
                assert_eq!(*seen, wanted.cloned().collect::<Vec<_>>());
            }
        });
    }
}
