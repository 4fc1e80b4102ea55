//! Laws of texts that one or the other database may not like.

use std::sync::Arc;

use serde_json::json;

use super::{Claim, all_parked, claim, commit, first_part, parked, put, read};
use crate::event::Position;
use crate::store::read_model::documents::Documents;
use crate::store::read_model::query::{Compare, ListQuery};

const ODD: [&str; 9] = [
    "\0",
    "a\0b",
    "\u{1}",
    "\u{1}\u{1}",
    "\u{1}\u{2}\0",
    "\\u0000",
    "\\\0",
    "\u{ffff}\u{10ffff}",
    "'%_",
];

/// Law: the pages of a list are the list, whatever the ids are, in both directions.
pub async fn pages_of_a_list_are_the_list(documents: &dyn Documents) {
    let part = first_part(documents).await;
    let Claim { epoch, .. } = claim(documents, part).await;
    let mut ids: Vec<_> = ODD.into_iter().chain(["", " ", "A", "a", "ab", "\u{e4}", "Z"]).collect();
    let mut write = commit(part, epoch, 1);
    write.changes = ids.iter().map(|id| put(id, &json!({"n": 1}), 1)).collect();
    documents.commit(write).await.expect("any id can be written");
    ids.sort_unstable();
    for descending in [false, true] {
        for limit in [1, 3, 100] {
            let mut query = ListQuery::first(limit).filter("n", Compare::Eq, 1);
            if descending {
                query = query.descending();
            }
            let mut found = Vec::new();
            loop {
                let page = documents.list("p", &query).await.expect("readable");
                found.extend(page.iter().map(|one| one.id.to_string()));
                match page.last() {
                    Some(last) if page.len() == limit => query = query.after(&*last.id),
                    _ => break,
                }
            }
            if descending {
                found.reverse();
            }
            assert_eq!(found, ids, "pages of {limit}");
        }
    }
}

/// Law: a document, its id and what is parked hold any text, U+0000 too, and are found by it.
pub async fn a_document_may_hold_any_text(documents: &dyn Documents) {
    let part = first_part(documents).await;
    let Claim { epoch, .. } = claim(documents, part).await;
    let document = |text: &str| {
        // A field cannot be named by a quote or a control character, but it can have such a name.
        json!({"text": text, "by name": {text: {"in": [text]}}, "more": [text, 1]})
    };
    let mut write = commit(part, epoch, 1);
    write.changes = ODD.iter().map(|text| put(text, &document(text), 1)).collect();
    write.park = ODD.iter().map(|text| parked(text, 1, 3, text)).collect();
    documents.commit(write).await.expect("any text can be written");
    for text in ODD {
        assert_eq!(read(documents, text).await, Some(document(text)), "{text:?}");
        let loaded = documents.load(part.build, &[text.into()]).await.expect("readable");
        assert_eq!(loaded.len(), 1, "{text:?}");
        let query = ListQuery::first(9).filter("text", Compare::Eq, text);
        let found = documents.list("p", &query).await.expect("readable");
        assert_eq!(found.iter().map(|one| &*one.id).collect::<Vec<_>>(), [text]);
        for (compare, expected) in [
            (Compare::Lt, ODD.iter().filter(|other| **other < text).count()),
            (Compare::Ge, ODD.iter().filter(|other| **other >= text).count()),
        ] {
            let query = ListQuery::first(99).filter("text", compare, text);
            let found = documents.list("p", &query).await.expect("readable");
            assert_eq!(found.len(), expected, "{text:?} {compare:?}");
        }
    }
    let mut expected: Vec<_> = ODD.iter().map(|text| parked(text, 1, 3, text)).collect();
    expected.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(all_parked(documents, part.build).await, expected);
    let mut write = commit(part, epoch, 2);
    write.unpark = ODD.iter().map(|text| (Arc::from(*text), Position::new(1))).collect();
    write.changes = ODD.iter().map(|text| (Arc::from(*text), None, Position::new(2))).collect();
    documents.commit(write).await.expect("writable");
    assert_eq!(all_parked(documents, part.build).await, []);
    assert_eq!(documents.list("p", &ListQuery::first(99)).await.expect("readable"), []);
}
