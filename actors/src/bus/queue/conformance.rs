//! What every queue has to do. Run it on an adapter of your own from a test.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{MessageQueue, QueueError, QueueOptions, Received, Reject};
use crate::bus::subject::Subject;
use crate::bus::wire::WireMessage;
use crate::event::compression::{Compression, CompressionError, Encoding};

/// Opens a queue with these options, twice the same one for the same name.
pub type Open<'a> =
    &'a (dyn Fn(QueueOptions) -> BoxFuture<'static, Arc<dyn MessageQueue>> + Send + Sync);

/// Long enough for a server on a busy machine.
const WAIT: Duration = Duration::from_secs(10);

/// How long a receiver may take in these tests.
const SHORT: Duration = Duration::from_millis(400);

/// A time in which nothing comes.
const NOTHING: Duration = Duration::from_millis(100);

/// Runs all laws.
///
/// # Panics
/// One is broken; the panic says which.
pub async fn run(open: Open<'_>) {
    in_order_and_byte_for_byte(open).await;
    what_is_acknowledged_is_gone(open).await;
    what_somebody_has_no_other_gets(open).await;
    what_is_not_acknowledged_comes_again(open).await;
    what_is_rejected_comes_later_or_never(open).await;
    more_time_is_given(open).await;
    a_repeat_is_known(open).await;
    a_group_shares_and_each_group_gets_all(open).await;
    a_full_queue_says_so(open).await;
    numbers_go_up(open).await;
    what_is_compressed_on_the_way_arrives_as_it_was(open).await;
}

fn message(queue: &str, n: usize) -> WireMessage {
    let subject = Subject::of([queue, "things", &format!("n{n}")]);
    WireMessage::new(&subject, format!("{queue}-{n}"), vec![n as u8, 0, 255, b'\r', b'\n'])
        .header("Content-Type", "application/octet-stream")
        .header("Smith-Text", "größer: 1, \"2\"")
}

fn messages(queue: &str, range: std::ops::Range<usize>) -> Vec<WireMessage> {
    range.map(|n| message(queue, n)).collect()
}

async fn take(queue: &dyn MessageQueue, count: usize) -> Vec<Received> {
    let mut all = Vec::new();
    for _ in 0..200 {
        if all.len() >= count {
            break;
        }
        all.extend(queue.receive(count - all.len(), WAIT / 20).await.expect("it is reachable"));
    }
    assert_eq!(all.len(), count, "messages that were received");
    all
}

async fn nothing(queue: &dyn MessageQueue, law: &str) {
    let got = queue.receive(10, NOTHING).await.expect("it is reachable");
    assert!(got.is_empty(), "{law}: {got:?}");
}

async fn in_order_and_byte_for_byte(open: Open<'_>) {
    let queue = open(QueueOptions::new("order", "g")).await;
    nothing(&*queue, "a new queue is empty").await;
    let all = messages("order", 0..50);
    for part in all.chunks(7) {
        queue.send(part).await.expect("it is reachable");
    }
    let got = take(&*queue, 50).await;
    let got: Vec<_> = got.into_iter().map(|one| (one.message, one.delivered)).collect();
    let wanted: Vec<_> = all.into_iter().map(|one| (one, 1)).collect();
    assert_eq!(got, wanted, "messages come in order and as they were sent");
}

async fn what_is_acknowledged_is_gone(open: Open<'_>) {
    let options = || QueueOptions::new("acked", "g").ack_within(SHORT);
    let queue = open(options()).await;
    queue.send(&messages("acked", 0..3)).await.expect("it is reachable");
    assert_eq!(queue.waiting().await.expect("it is reachable"), 3);
    for one in take(&*queue, 3).await {
        queue.ack(&one.receipt).await.expect("it is reachable");
    }
    let again = open(options()).await;
    tokio::time::sleep(SHORT + NOTHING).await;
    nothing(&*again, "what was acknowledged does not come again").await;
    assert_eq!(queue.waiting().await.expect("it is reachable"), 0);
}

async fn what_somebody_has_no_other_gets(open: Open<'_>) {
    // Time enough for the slowest machine.
    let queue = open(QueueOptions::new("held", "g").ack_within(WAIT)).await;
    queue.send(&messages("held", 0..1)).await.expect("it is reachable");
    let held = take(&*queue, 1).await;
    nothing(&*queue, "what somebody has, no other gets").await;
    queue.ack(&held[0].receipt).await.expect("it is reachable");
}

async fn what_is_not_acknowledged_comes_again(open: Open<'_>) {
    let queue = open(QueueOptions::new("unacked", "g").ack_within(SHORT)).await;
    queue.send(&messages("unacked", 0..2)).await.expect("it is reachable");
    let first = take(&*queue, 2).await;
    queue.ack(&first[0].receipt).await.expect("it is reachable");
    let again = take(&*queue, 1).await;
    assert_eq!(again[0].message, first[1].message, "it comes again when its time is over");
    assert_eq!(again[0].delivered, 2, "deliveries are counted");
    queue.ack(&again[0].receipt).await.expect("it is reachable");
}

async fn what_is_rejected_comes_later_or_never(open: Open<'_>) {
    let queue = open(QueueOptions::new("rejected", "g").ack_within(WAIT * 3)).await;
    queue.send(&messages("rejected", 0..3)).await.expect("it is reachable");
    let got = take(&*queue, 3).await;
    queue.reject(&got[0].receipt, Reject::Never).await.expect("it is reachable");
    queue.reject(&got[1].receipt, Reject::Later(SHORT)).await.expect("it is reachable");
    queue.reject(&got[2].receipt, Reject::Later(Duration::ZERO)).await.expect("it is reachable");
    let again = take(&*queue, 2).await;
    let ids: Vec<_> = again.iter().map(|one| &*one.message.id).collect();
    assert_eq!(ids, ["rejected-2", "rejected-1"], "each comes at its time");
    for one in &again {
        assert_eq!(one.delivered, 2);
        queue.ack(&one.receipt).await.expect("it is reachable");
    }
    nothing(&*queue, "what was refused for good does not come again").await;
}

async fn more_time_is_given(open: Open<'_>) {
    let queue = open(QueueOptions::new("extended", "g").ack_within(SHORT * 2)).await;
    queue.send(&messages("extended", 0..1)).await.expect("it is reachable");
    let got = take(&*queue, 1).await;
    for _ in 0..4 {
        tokio::time::sleep(SHORT).await;
        queue.extend(&got[0].receipt).await.expect("it is reachable");
    }
    nothing(&*queue, "who asked for more time has the message").await;
    queue.ack(&got[0].receipt).await.expect("it is reachable");
}

async fn a_repeat_is_known(open: Open<'_>) {
    let queue = open(QueueOptions::new("repeats", "g")).await;
    let all = messages("repeats", 0..4);
    queue.send(&all[..3]).await.expect("it is reachable");
    let again = queue.send(&all).await.expect("it is reachable");
    assert_eq!(again.duplicates, 3, "repeats are counted");
    let got = take(&*queue, 4).await;
    let ids: Vec<_> = got.iter().map(|one| &*one.message.id).collect();
    assert_eq!(ids, ["repeats-0", "repeats-1", "repeats-2", "repeats-3"]);
    nothing(&*queue, "a repeat is not put in again").await;
}

async fn a_group_shares_and_each_group_gets_all(open: Open<'_>) {
    let (one, two) = (
        open(QueueOptions::new("groups", "first")).await,
        open(QueueOptions::new("groups", "first")).await,
    );
    let other = open(QueueOptions::new("groups", "second")).await;
    one.send(&messages("groups", 0..20)).await.expect("it is reachable");
    let mut shared = take(&*one, 7).await;
    shared.extend(take(&*two, 13).await);
    let mut ids: Vec<_> = shared.iter().map(|one| one.message.id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 20, "each message goes to one member of a group");
    let all = take(&*other, 20).await;
    assert_eq!(all.len(), 20, "another group gets all of them");
}

async fn a_full_queue_says_so(open: Open<'_>) {
    let queue = open(QueueOptions::new("full", "g").max_messages(5)).await;
    let error = queue.send(&messages("full", 0..8)).await.expect_err("it holds five");
    assert_eq!(error.sent, 5, "those before the end are in it: {error}");
    assert!(matches!(error.source, QueueError::Full { .. }), "{error}");
    let got = take(&*queue, 5).await;
    assert_eq!(got[4].message.id, "full-4", "nothing that was taken is thrown away");
    for one in &got {
        queue.ack(&one.receipt).await.expect("it is reachable");
    }
    let sent = queue.send(&messages("full", 8..12)).await;
    sent.expect("what was handled takes no room");
}

async fn numbers_go_up(open: Open<'_>) {
    let queue = open(QueueOptions::new("numbers", "g")).await;
    let before = queue.tail().await.expect("it is reachable");
    let first = queue.send(&messages("numbers", 0..3)).await.expect("it is reachable");
    let second = queue.send(&messages("numbers", 3..5)).await.expect("it is reachable");
    let tail = queue.tail().await.expect("it is reachable");
    assert!(before < first.last && first.last < second.last, "{before} {first:?} {second:?}");
    assert_eq!(tail, second.last, "the last number is the queue's");
}

async fn what_is_compressed_on_the_way_arrives_as_it_was(open: Open<'_>) {
    let options =
        QueueOptions::new("packed", "g").ack_within(WAIT).compression(Compression::gzip());
    let queue = open(options.clone()).await;
    let large = WireMessage { payload: vec![7; 100_000].into(), ..message("packed", 0) };
    let sent = [large.clone(), message("packed", 1)];
    queue.send(&sent).await.expect("it is reachable");
    let got = take(&*queue, 2).await;
    for (got, sent) in got.iter().zip(&sent) {
        assert_eq!(&got.message, sent, "what was compressed arrives as it was sent");
        assert_eq!(got.unreadable, None);
        queue.ack(&got.receipt).await.expect("it is reachable");
    }
    // Another limit shows that it was compressed, and that a payload beyond it comes as it is.
    let again = WireMessage { id: "packed-again".to_owned(), ..large };
    queue.send(&[again]).await.expect("it is reachable");
    let queue = open(options.read_limit(10_000)).await;
    let got = take(&*queue, 1).await;
    assert_eq!(got[0].unreadable, Some(CompressionError::TooLarge { limit: 10_000 }));
    assert_eq!(got[0].message.encoding(), Ok(Encoding::Gzip));
    assert!(got[0].message.payload.len() < 1_000, "the payload was not compressed");
    queue.ack(&got[0].receipt).await.expect("it is reachable");
}
