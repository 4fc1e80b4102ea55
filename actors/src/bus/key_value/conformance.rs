//! What every bucket has to do. Run it on an adapter of your own from a test.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, join_all};

use super::{BucketOptions, Entry, From, KeyValue, KeyValueError, Operation, Watch};

/// Opens a bucket with these options, twice the same one for the same name.
pub type Open<'a> =
    &'a (dyn Fn(BucketOptions) -> BoxFuture<'static, Arc<dyn KeyValue>> + Send + Sync);

/// Long enough for a server on a busy machine; nothing that works waits for it.
const WAIT: Duration = Duration::from_secs(20);

/// Runs all laws.
///
/// # Panics
/// One is broken; the panic says which.
pub async fn run(open: Open<'_>) {
    what_was_put_is_there(open).await;
    a_key_is_created_once(open).await;
    an_update_needs_the_last_revision(open).await;
    of_many_at_once_one_wins(open).await;
    what_was_deleted_is_not_there(open).await;
    a_purge_leaves_nothing_before_it(open).await;
    as_much_history_is_kept_as_was_said(open).await;
    keys_are_those_with_a_value(open).await;
    a_watch_sees_changes_in_order(open).await;
    a_watch_begins_where_it_was_told(open).await;
    what_is_too_old_is_gone(open).await;
    what_is_too_much_is_refused(open).await;
    a_bucket_is_brought_to_its_options(open).await;
    what_is_no_key_is_refused(open).await;
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn value(bucket: &dyn KeyValue, key: &str) -> Option<(Vec<u8>, u64)> {
    let entry = bucket.get(key).await.expect("it is reachable")?;
    assert_eq!((&*entry.key, entry.operation), (key, Operation::Put));
    Some((entry.value.to_vec(), entry.revision))
}

async fn put(bucket: &dyn KeyValue, key: &str, value: &str) -> u64 {
    bucket.put(key, bytes(value)).await.expect("it is reachable")
}

async fn next(watch: &mut Watch) -> Entry {
    let next = tokio::time::timeout(WAIT, watch.changes.next()).await;
    next.expect("a change comes").expect("it goes on").expect("it is reachable")
}

async fn what_was_put_is_there(open: Open<'_>) {
    let bucket = open(BucketOptions::new("put")).await;
    assert_eq!(value(&*bucket, "a").await, None, "a new bucket is empty");
    let odd = Bytes::from_static(&[0, 255, b'\r', b'\n']);
    let first = bucket.put("a.b/c=d-e_F", odd.clone()).await.expect("it is reachable");
    let second = put(&*bucket, "empty", "").await;
    assert!(second > first, "revisions go up");
    assert_eq!(value(&*bucket, "a.b/c=d-e_F").await, Some((odd.to_vec(), first)));
    assert_eq!(value(&*bucket, "empty").await, Some((Vec::new(), second)));
    let again = open(BucketOptions::new("put")).await;
    let third = put(&*again, "empty", "no more").await;
    assert_eq!(value(&*bucket, "empty").await, Some((b"no more".to_vec(), third)));
    let at = |entry: Option<Entry>| entry.expect("it is there").at;
    let (early, late) = (bucket.get("a.b/c=d-e_F").await, bucket.get("empty").await);
    let (early, late) = (early.expect("it is reachable"), late.expect("it is reachable"));
    assert!(at(early) <= at(late), "times go up");
}

async fn a_key_is_created_once(open: Open<'_>) {
    let bucket = open(BucketOptions::new("create")).await;
    let first = bucket.create("k", bytes("1")).await.expect("it has no value");
    let error = bucket.create("k", bytes("2")).await.expect_err("it has one");
    assert_eq!(error, KeyValueError::Exists { key: "k".to_owned() });
    assert_eq!(value(&*bucket, "k").await, Some((b"1".to_vec(), first)));
    bucket.delete("k", None).await.expect("it is reachable");
    let second = bucket.create("k", bytes("3")).await.expect("it was deleted");
    bucket.purge("k").await.expect("it is reachable");
    let third = bucket.create("k", bytes("4")).await.expect("it was purged");
    assert!(first < second && second < third);
}

async fn an_update_needs_the_last_revision(open: Open<'_>) {
    let bucket = open(BucketOptions::new("update")).await;
    let first = put(&*bucket, "k", "1").await;
    put(&*bucket, "other", "x").await;
    let second = bucket.update("k", bytes("2"), first).await.expect("nobody changed it");
    let error = bucket.update("k", bytes("3"), first).await.expect_err("it was changed");
    assert_eq!(error, KeyValueError::Conflict { key: "k".to_owned(), expected: first });
    let error = bucket.delete("k", Some(first)).await.expect_err("it was changed");
    assert_eq!(error, KeyValueError::Conflict { key: "k".to_owned(), expected: first });
    assert_eq!(value(&*bucket, "k").await, Some((b"2".to_vec(), second)));
    bucket.delete("k", Some(second)).await.expect("nobody changed it");
    assert_eq!(value(&*bucket, "k").await, None);
}

async fn of_many_at_once_one_wins(open: Open<'_>) {
    let bucket = open(BucketOptions::new("race")).await;
    let created = join_all((0..10).map(|n| {
        let bucket = Arc::clone(&bucket);
        async move { bucket.create("leader", bytes(&n.to_string())).await }
    }))
    .await;
    let won: Vec<_> = created.iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(won.len(), 1, "one creates it: {created:?}");
    // Each adds one, as often as it takes.
    put(&*bucket, "sum", "0").await;
    join_all((0..5).map(|_| {
        let bucket = Arc::clone(&bucket);
        async move {
            loop {
                let entry = bucket.get("sum").await.expect("it is reachable").expect("it is there");
                let sum: u64 = String::from_utf8_lossy(&entry.value).parse().expect("a number");
                let updated = bucket.update("sum", bytes(&(sum + 1).to_string()), entry.revision);
                match updated.await {
                    Ok(_) => return,
                    Err(KeyValueError::Conflict { .. }) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }))
    .await;
    assert_eq!(value(&*bucket, "sum").await.expect("it is there").0, b"5", "none is lost");
}

async fn what_was_deleted_is_not_there(open: Open<'_>) {
    let bucket = open(BucketOptions::new("deleted").history(5)).await;
    let first = put(&*bucket, "k", "1").await;
    bucket.delete("k", None).await.expect("it is reachable");
    assert_eq!(value(&*bucket, "k").await, None);
    let kept = bucket.history("k").await.expect("it is reachable");
    let kept: Vec<_> = kept.iter().map(|entry| (entry.operation, &entry.value[..])).collect();
    assert_eq!(kept, [(Operation::Put, &b"1"[..]), (Operation::Delete, b"")], "it is kept");
    let before = bucket.get_revision("k", first).await.expect("it is reachable");
    assert_eq!(&before.expect("it is kept").value[..], b"1");
    bucket.delete("never", None).await.expect("what is not there can be deleted");
}

async fn a_purge_leaves_nothing_before_it(open: Open<'_>) {
    let bucket = open(BucketOptions::new("purged").history(5)).await;
    let first = put(&*bucket, "k", "1").await;
    put(&*bucket, "k", "2").await;
    put(&*bucket, "other", "x").await;
    bucket.purge("k").await.expect("it is reachable");
    assert_eq!(value(&*bucket, "k").await, None);
    let kept = bucket.history("k").await.expect("it is reachable");
    let kept: Vec<_> = kept.iter().map(|entry| entry.operation).collect();
    assert_eq!(kept, [Operation::Purge], "only that it was purged is known");
    assert_eq!(bucket.get_revision("k", first).await, Ok(None));
    assert!(value(&*bucket, "other").await.is_some(), "other keys stay");
}

async fn as_much_history_is_kept_as_was_said(open: Open<'_>) {
    let bucket = open(BucketOptions::new("history").history(3)).await;
    let mut revisions = Vec::new();
    for n in 0..5 {
        revisions.push(put(&*bucket, "k", &n.to_string()).await);
    }
    put(&*bucket, "k.other", "x").await;
    let kept = bucket.history("k").await.expect("it is reachable");
    let kept: Vec<_> = kept.iter().map(|entry| (entry.revision, entry.value.to_vec())).collect();
    let wanted: Vec<_> = (2..5).map(|n| (revisions[n], n.to_string().into_bytes())).collect();
    assert_eq!(kept, wanted, "the last three, oldest first");
    assert_eq!(bucket.get_revision("k", revisions[0]).await, Ok(None), "it is not kept");
    assert_eq!(bucket.get_revision("k.other", revisions[4]).await, Ok(None), "another key's");
    assert_eq!(bucket.history("never").await, Ok(Vec::new()));
}

async fn keys_are_those_with_a_value(open: Open<'_>) {
    let bucket = open(BucketOptions::new("keys").history(3)).await;
    assert_eq!(bucket.keys().await, Ok(Vec::new()));
    for key in ["b", "a.c", "a", "gone", "purged", "b"] {
        put(&*bucket, key, "x").await;
    }
    bucket.delete("gone", None).await.expect("it is reachable");
    bucket.purge("purged").await.expect("it is reachable");
    let wanted = ["a", "a.c", "b"].map(str::to_owned).to_vec();
    assert_eq!(bucket.keys().await, Ok(wanted));
}

async fn a_watch_sees_changes_in_order(open: Open<'_>) {
    let options = || BucketOptions::new("watch").history(9);
    let (bucket, other) = (open(options()).await, open(options()).await);
    put(&*bucket, "jobs.old", "x").await;
    let mut all = bucket.watch(">", From::Now).await.expect("it is reachable");
    let mut some = bucket.watch("jobs.*", From::Now).await.expect("it is reachable");
    let mut one = bucket.watch("jobs.b", From::Now).await.expect("it is reachable");
    assert_eq!((all.initial, some.initial), (0, 0));
    put(&*other, "jobs.a", "1").await;
    put(&*other, "else.a", "2").await;
    put(&*other, "jobs.b", "3").await;
    other.delete("jobs.a", None).await.expect("it is reachable");
    put(&*other, "jobs.b", "4").await;
    let seen = async |watch: &mut Watch, count: usize| {
        let mut seen = Vec::new();
        for _ in 0..count {
            let entry = next(watch).await;
            let value = String::from_utf8_lossy(&entry.value).into_owned();
            seen.push((entry.revision, format!("{} {:?} {value}", entry.key, entry.operation)));
        }
        assert!(seen.is_sorted(), "in the order of their revisions: {seen:?}");
        seen.into_iter().map(|(_, text)| text).collect::<Vec<_>>()
    };
    let (a, b) = (["jobs.a Put 1", "jobs.b Put 3"], ["jobs.a Delete ", "jobs.b Put 4"]);
    assert_eq!(seen(&mut all, 5).await, [a[0], "else.a Put 2", a[1], b[0], b[1]]);
    assert_eq!(seen(&mut some, 4).await, [a[0], a[1], b[0], b[1]]);
    assert_eq!(seen(&mut one, 2).await, [a[1], b[1]]);
    other.purge("jobs.b").await.expect("it is reachable");
    assert_eq!(seen(&mut one, 1).await, ["jobs.b Purge "]);
}

async fn a_watch_begins_where_it_was_told(open: Open<'_>) {
    let bucket = open(BucketOptions::new("begins").history(5)).await;
    let mut revisions = Vec::new();
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4")] {
        revisions.push(put(&*bucket, key, value).await);
    }
    bucket.delete("c", None).await.expect("it is reachable");
    let watched = async |keys: &str, from: From| {
        let mut watch = bucket.watch(keys, from).await.expect("it is reachable");
        let mut seen = Vec::new();
        for _ in 0..watch.initial {
            let entry = next(&mut watch).await;
            seen.push(format!("{}={}", entry.key, String::from_utf8_lossy(&entry.value)));
        }
        (seen.join(" "), watch)
    };
    let (current, mut watch) = watched(">", From::Current).await;
    assert_eq!(current, "b=2 a=3 c=", "the last change of each key");
    assert_eq!(watched(">", From::History).await.0, "a=1 b=2 a=3 c=4 c=", "all that is kept");
    assert_eq!(watched("a", From::History).await.0, "a=1 a=3");
    assert_eq!(watched(">", From::Revision(revisions[2])).await.0, "a=3 c=4 c=");
    assert_eq!(watched("never", From::Current).await.0, "", "nothing, and it is said");
    put(&*bucket, "d", "5").await;
    assert_eq!(next(&mut watch).await.key, "d", "and then changes");
}

async fn what_is_too_old_is_gone(open: Open<'_>) {
    let bucket = open(BucketOptions::new("aged").max_age(Duration::from_millis(300))).await;
    put(&*bucket, "k", "1").await;
    let aging = async {
        while value(&*bucket, "k").await.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(WAIT, aging).await.expect("it becomes too old");
    assert_eq!(bucket.keys().await, Ok(Vec::new()));
    bucket.create("k", bytes("2")).await.expect("it has no value any more");
}

async fn what_is_too_much_is_refused(open: Open<'_>) {
    let options = BucketOptions::new("full").max_bytes(20_000).max_value_bytes(3_000);
    let bucket = open(options).await;
    let error = bucket.put("k", Bytes::from(vec![0; 3_001])).await.expect_err("it is too large");
    assert_eq!(error, KeyValueError::TooLarge { key: "k".to_owned(), bytes: 3_001, most: 3_000 });
    bucket.put("k", Bytes::from(vec![0; 3_000])).await.expect("it is not too large");
    let mut count = 0;
    let error = loop {
        match bucket.put(&format!("n{count}"), Bytes::from(vec![0; 1_000])).await {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
        assert!(count < 20, "it is full some time");
    };
    assert!(matches!(error, KeyValueError::Full { .. }), "{error}");
    assert!(value(&*bucket, "n0").await.is_some(), "what was taken stays");
    let larger = open(BucketOptions::new("full").max_bytes(200_000).max_value_bytes(3_000)).await;
    larger.put("more", Bytes::from(vec![0; 1_000])).await.expect("it holds more now");
}

async fn a_bucket_is_brought_to_its_options(open: Open<'_>) {
    let one = open(BucketOptions::new("changed")).await;
    put(&*one, "k", "1").await;
    let many = open(BucketOptions::new("changed").history(4)).await;
    for n in 2..5 {
        put(&*many, "k", &n.to_string()).await;
    }
    assert_eq!(many.history("k").await.expect("it is reachable").len(), 4);
}

async fn what_is_no_key_is_refused(open: Open<'_>) {
    let bucket = open(BucketOptions::new("names")).await;
    for key in ["", ".a", "a.", "a..b", "a b", "a*", "*", ">", "ä", "a\n", "$x"] {
        let refused = [
            bucket.put(key, Bytes::new()).await.map(drop),
            bucket.get(key).await.map(drop),
            bucket.create(key, Bytes::new()).await.map(drop),
            bucket.update(key, Bytes::new(), 1).await.map(drop),
            bucket.delete(key, None).await,
            bucket.purge(key).await,
            bucket.history(key).await.map(drop),
        ];
        for result in refused {
            let error = result.expect_err("it is no key");
            assert!(matches!(error, KeyValueError::Key { .. }), "{key:?}: {error}");
        }
    }
    for keys in ["", "a.>.b", "a*", "a b", "a..*"] {
        let error = bucket.watch(keys, From::Now).await.expect_err("it is no pattern");
        assert!(matches!(error, KeyValueError::Key { .. }), "{keys:?}: {error}");
    }
}
