//! What every queue has to do. Run it on an adapter of your own from a test.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{
    Queue, QueueError, QueueOptions, Receipt, Received, Receiver, Reject, SendError, Sender,
    SentAll,
};
use crate::bus::subject::Subject;
use crate::bus::wire::WireMessage;
use crate::event::compression::{Compression, CompressionError, Encoding};

mod groups;

/// Opens a queue with these options, twice the same one for the same name.
pub type Open<'a> = &'a (dyn Fn(QueueOptions) -> BoxFuture<'static, Arc<dyn Queue>> + Send + Sync);

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
    it_is_known_when_a_message_came(open).await;
    a_message_without_an_id_gets_one(open).await;
    what_has_expired_is_not_delivered(open).await;
    what_cannot_be_sent_is_named(open).await;
    groups::run(open).await;
}

/// A queue, and a member of one of its groups.
struct Opened {
    queue: Arc<dyn Queue>,
    sender: Arc<dyn Sender>,
    receiver: Arc<dyn Receiver>,
}

impl Opened {
    async fn send(&self, messages: &[WireMessage]) -> Result<SentAll, SendError> {
        self.sender.send(messages).await
    }

    async fn put(&self, messages: &[WireMessage]) -> SentAll {
        self.send(messages).await.expect("it is reachable")
    }

    async fn take(&self, count: usize) -> Vec<Received> {
        take(&*self.receiver, count).await
    }

    async fn nothing(&self, law: &str) {
        let got = self.receiver.receive(10, NOTHING).await.expect("it is reachable");
        assert!(got.is_empty(), "{law}: {got:?}");
    }

    async fn ack(&self, receipt: &Receipt) {
        self.receiver.ack(receipt).await.expect("it is reachable");
    }

    async fn reject(&self, receipt: &Receipt, reject: Reject) {
        self.receiver.reject(receipt, reject).await.expect("it is reachable");
    }

    async fn waiting(&self) -> u64 {
        self.receiver.waiting().await.expect("it is reachable")
    }

    async fn tail(&self) -> u64 {
        self.sender.tail().await.expect("it is reachable")
    }

    fn member(&self, group: &str) -> Self {
        let receiver = self.queue.receiver(group).expect("a name");
        Self { queue: Arc::clone(&self.queue), sender: self.queue.sender(), receiver }
    }

    /// Takes so many and acknowledges them.
    async fn handle(&self, count: usize) {
        for one in self.take(count).await {
            self.ack(&one.receipt).await;
        }
    }
}

async fn opened(open: Open<'_>, options: QueueOptions, group: &str) -> Opened {
    let queue = open(options).await;
    let (sender, receiver) = (queue.sender(), queue.receiver(group).expect("a name"));
    Opened { queue, sender, receiver }
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

async fn take(queue: &dyn Receiver, count: usize) -> Vec<Received> {
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

async fn in_order_and_byte_for_byte(open: Open<'_>) {
    let queue = opened(open, QueueOptions::new("order"), "g").await;
    queue.nothing("a new queue is empty").await;
    let all = messages("order", 0..50);
    for part in all.chunks(7) {
        queue.put(part).await;
    }
    let got = queue.take(50).await;
    let got: Vec<_> = got.into_iter().map(|one| (one.message, one.delivered)).collect();
    let wanted: Vec<_> = all.into_iter().map(|one| (one, 1)).collect();
    assert_eq!(got, wanted, "messages come in order and as they were sent");
}

async fn what_is_acknowledged_is_gone(open: Open<'_>) {
    let options = || QueueOptions::new("acked").ack_within(SHORT);
    let queue = opened(open, options(), "g").await;
    queue.put(&messages("acked", 0..3)).await;
    assert_eq!(queue.waiting().await, 3);
    for one in queue.take(3).await {
        queue.ack(&one.receipt).await;
    }
    let again = opened(open, options(), "g").await;
    tokio::time::sleep(SHORT + NOTHING).await;
    again.nothing("what was acknowledged does not come again").await;
    assert_eq!(queue.waiting().await, 0);
}

async fn what_somebody_has_no_other_gets(open: Open<'_>) {
    // Time enough for the slowest machine.
    let queue = opened(open, QueueOptions::new("held").ack_within(WAIT), "g").await;
    queue.put(&messages("held", 0..1)).await;
    let held = queue.take(1).await;
    queue.nothing("what somebody has, no other gets").await;
    queue.ack(&held[0].receipt).await;
}

async fn what_is_not_acknowledged_comes_again(open: Open<'_>) {
    let queue = opened(open, QueueOptions::new("unacked").ack_within(SHORT), "g").await;
    queue.put(&messages("unacked", 0..2)).await;
    let first = queue.take(2).await;
    queue.ack(&first[0].receipt).await;
    let again = queue.take(1).await;
    assert_eq!(again[0].message, first[1].message, "it comes again when its time is over");
    assert_eq!(again[0].delivered, 2, "deliveries are counted");
    queue.ack(&again[0].receipt).await;
}

async fn what_is_rejected_comes_later_or_never(open: Open<'_>) {
    let queue = opened(open, QueueOptions::new("rejected").ack_within(WAIT * 3), "g").await;
    queue.put(&messages("rejected", 0..3)).await;
    let got = queue.take(3).await;
    queue.reject(&got[0].receipt, Reject::Never).await;
    queue.reject(&got[1].receipt, Reject::Later(SHORT)).await;
    queue.reject(&got[2].receipt, Reject::Later(Duration::ZERO)).await;
    let again = queue.take(2).await;
    let ids: Vec<_> = again.iter().map(|one| &*one.message.id).collect();
    assert_eq!(ids, ["rejected-2", "rejected-1"], "each comes at its time");
    for one in &again {
        assert_eq!(one.delivered, 2);
        queue.ack(&one.receipt).await;
    }
    queue.nothing("what was refused for good does not come again").await;
}

async fn more_time_is_given(open: Open<'_>) {
    let queue = opened(open, QueueOptions::new("extended").ack_within(SHORT * 2), "g").await;
    queue.put(&messages("extended", 0..1)).await;
    let got = queue.take(1).await;
    for _ in 0..4 {
        tokio::time::sleep(SHORT).await;
        queue.receiver.extend(&got[0].receipt).await.expect("it is reachable");
    }
    queue.nothing("who asked for more time has the message").await;
    queue.ack(&got[0].receipt).await;
}

async fn a_repeat_is_known(open: Open<'_>) {
    let queue = opened(open, QueueOptions::new("repeats"), "g").await;
    let all = messages("repeats", 0..4);
    queue.put(&all[..3]).await;
    let again = queue.put(&all).await;
    assert_eq!(again.duplicates, 3, "repeats are counted");
    let got = queue.take(4).await;
    let ids: Vec<_> = got.iter().map(|one| &*one.message.id).collect();
    assert_eq!(ids, ["repeats-0", "repeats-1", "repeats-2", "repeats-3"]);
    queue.nothing("a repeat is not put in again").await;
}

async fn a_group_shares_and_each_group_gets_all(open: Open<'_>) {
    let (one, two) = (
        opened(open, QueueOptions::new("groups"), "first").await,
        opened(open, QueueOptions::new("groups"), "first").await,
    );
    let other = opened(open, QueueOptions::new("groups"), "second").await;
    one.put(&messages("groups", 0..20)).await;
    let mut shared = one.take(7).await;
    shared.extend(two.take(13).await);
    let mut ids: Vec<_> = shared.iter().map(|one| one.message.id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 20, "each message goes to one member of a group");
    let all = other.take(20).await;
    assert_eq!(all.len(), 20, "another group gets all of them");
}

async fn a_full_queue_says_so(open: Open<'_>) {
    let queue = opened(open, QueueOptions::new("full").max_messages(5), "g").await;
    let error = queue.send(&messages("full", 0..8)).await.expect_err("it holds five");
    assert_eq!(error.sent, 5, "those before the end are in it: {error}");
    assert!(matches!(error.source, QueueError::Full { .. }), "{error}");
    let got = queue.take(5).await;
    assert_eq!(got[4].message.id, "full-4", "nothing that was taken is thrown away");
    for one in &got {
        queue.ack(&one.receipt).await;
    }
    let sent = queue.send(&messages("full", 8..12)).await;
    sent.expect("what was handled takes no room");
}

async fn numbers_go_up(open: Open<'_>) {
    let queue = opened(open, QueueOptions::new("numbers"), "g").await;
    let before = queue.tail().await;
    let first = queue.put(&messages("numbers", 0..3)).await;
    let second = queue.put(&messages("numbers", 3..5)).await;
    let tail = queue.tail().await;
    assert!(before < first.last && first.last < second.last, "{before} {first:?} {second:?}");
    assert_eq!(tail, second.last, "the last number is the queue's");
}

async fn what_is_compressed_on_the_way_arrives_as_it_was(open: Open<'_>) {
    let options = QueueOptions::new("packed").ack_within(WAIT).compression(Compression::gzip());
    let queue = opened(open, options.clone(), "g").await;
    let large = WireMessage { payload: vec![7; 100_000].into(), ..message("packed", 0) };
    let sent = [large.clone(), message("packed", 1)];
    queue.put(&sent).await;
    let got = queue.take(2).await;
    for (got, sent) in got.iter().zip(&sent) {
        assert_eq!(&got.message, sent, "what was compressed arrives as it was sent");
        assert_eq!(got.unreadable, None);
        queue.ack(&got.receipt).await;
    }
    // Another limit shows that it was compressed, and that a payload beyond it comes as it is.
    let again = WireMessage { id: "packed-again".to_owned(), ..large };
    queue.put(&[again]).await;
    let queue = opened(open, options.read_limit(10_000), "g").await;
    let got = queue.take(1).await;
    assert_eq!(got[0].unreadable, Some(CompressionError::TooLarge { limit: 10_000 }));
    assert_eq!(got[0].message.encoding(), Ok(Encoding::Gzip));
    assert!(got[0].message.payload.len() < 1_000, "the payload was not compressed");
    queue.ack(&got[0].receipt).await;
}

async fn it_is_known_when_a_message_came(open: Open<'_>) {
    let queue = opened(open, QueueOptions::new("times"), "g").await;
    queue.put(&messages("times", 0..2)).await;
    let got = queue.take(2).await;
    assert!(got[0].at <= got[1].at, "later messages have later times: {got:?}");
    queue.reject(&got[0].receipt, Reject::Later(Duration::ZERO)).await;
    let again = queue.take(1).await;
    assert_eq!(again[0].at, got[0].at, "the time is the message's, not the delivery's");
}

async fn a_message_without_an_id_gets_one(open: Open<'_>) {
    let queue = opened(open, QueueOptions::new("foreign"), "g").await;
    let foreign = WireMessage { id: String::new(), ..message("foreign", 0) };
    let sent = queue.put(&[foreign.clone(), foreign]).await;
    assert_eq!(sent.duplicates, 0, "what has no id is no repeat of anything");
    let got = queue.take(2).await;
    assert!(!got[0].message.id.is_empty(), "every message has an id");
    assert_ne!(got[0].message.id, got[1].message.id, "and its own");
    queue.reject(&got[0].receipt, Reject::Later(Duration::ZERO)).await;
    let again = queue.take(1).await;
    assert_eq!(again[0].message.id, got[0].message.id, "the same with every delivery");
    let other = queue.member("h");
    let same = other.take(2).await;
    assert_eq!(same[0].message.id, got[0].message.id, "and for every group");
}

/// A client may answer a header that it cannot write with a panic.
async fn what_cannot_be_sent_is_named(open: Open<'_>) {
    let queue = opened(open, QueueOptions::new("odd").max_bytes(10_000), "g").await;
    let good = || message("odd", 0);
    for (odd, wanted) in [
        (good().header("a b", "c"), r#"header "a b" has a name that cannot be sent"#),
        (good().header("a:b", "c"), r#"header "a:b" has a name that cannot be sent"#),
        (good().header("gr\u{f6}\u{df}e", "c"), "has a name that cannot be sent"),
        (good().header("", "c"), r#"header "" has a name that cannot be sent"#),
        (good().header("nats-TTL", "1s"), r#"header "nats-TTL" belongs to the server"#),
        (good().header("A", "b\0c"), r#"header "A" has a value with a line end or a NUL"#),
        (WireMessage { id: "a\r\nb".to_owned(), ..good() }, "has a line end or a NUL"),
        (WireMessage { subject: "odd.a b".to_owned(), ..good() }, "white space"),
        (WireMessage { subject: "odd.*".to_owned(), ..good() }, "wildcard"),
        (WireMessage { payload: vec![0; 20_000].into(), ..good() }, "too large"),
    ] {
        let before = queue.tail().await;
        let first = WireMessage { id: format!("before {wanted}"), ..good() };
        let error = queue.send(&[first, odd, good()]).await.expect_err(wanted);
        assert!(error.source.is_of_the_message(), "{error}");
        assert!(error.to_string().contains(wanted), "{error} does not say {wanted}");
        assert_eq!(error.sent, 1, "those before it are in the queue: {error}");
        assert_eq!((queue.tail().await, error.last), (before + 1, before + 1));
    }
}

async fn what_has_expired_is_not_delivered(open: Open<'_>) {
    let queue = opened(open, QueueOptions::new("expiring").ack_within(SHORT), "g").await;
    let soon = |n| message("expiring", n).expires_after(SHORT);
    let late = message("expiring", 2).expires_after(WAIT * 60);
    queue.put(&[soon(0), soon(1), late, message("expiring", 3)]).await;
    tokio::time::sleep(SHORT * 2).await;
    let got = queue.take(2).await;
    let ids: Vec<_> = got.iter().map(|one| &*one.message.id).collect();
    assert_eq!(ids, ["expiring-2", "expiring-3"], "what has expired is left out");
    for one in &got {
        queue.ack(&one.receipt).await;
    }
    assert_eq!(queue.waiting().await, 0, "and waits no more");
}
