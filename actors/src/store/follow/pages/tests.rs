//! Pages that several followers share.

use super::*;
use crate::store::memory::MemoryStore;
use crate::store::{EventStore, ExpectedVersion, conformance};

fn positions(page: &Page) -> Vec<u64> {
    page.iter().map(|event| event.position.get()).collect()
}

#[tokio::test]
async fn a_full_page_is_read_once_and_found_from_anywhere_in_it() {
    let store = MemoryStore::new();
    let append = conformance::append("s-1", ExpectedVersion::Any, 1, 6);
    store.append_batch([append].into()).await.unwrap();
    let events = store.read_all(Position::ZERO, 10).await.unwrap();
    let wanted: Vec<_> = events.into_iter().filter(|one| one.position.get() % 2 == 0).collect();
    // Position 7 was looked at, too, and is not wanted.
    let page = MatchingPage { events: wanted, scanned_to: Position::new(7) };
    let pages = Pages::default();
    let reads = async |after, limit, page: Option<MatchingPage>| {
        let read = async { Ok(page.expect("it is in memory")) };
        pages.read(Position::new(after), limit, read).await.unwrap()
    };
    let first = reads(0, 3, Some(page.clone())).await;
    assert_eq!((positions(&first), first.scanned_to().get()), (vec![2, 4, 6], 7));
    let part = reads(1, 2, None).await;
    assert_eq!((positions(&part), part.scanned_to().get()), (vec![2, 4], 4));
    let rest = reads(4, 3, None).await;
    assert_eq!((positions(&rest), rest.scanned_to().get()), (vec![6], 7));
    let none = reads(6, 3, None).await;
    assert_eq!((positions(&none), none.scanned_to().get()), (vec![], 7));
    // Behind it there may be more; and one that is not full may have grown.
    let short = MatchingPage { events: Vec::new(), scanned_to: Position::new(9) };
    for _ in 0..2 {
        assert_eq!(reads(7, 3, Some(short.clone())).await.scanned_to().get(), 9);
    }
    assert_eq!(rest.into_iter().map(|event| event.position.get()).collect::<Vec<_>>(), [6]);
}
