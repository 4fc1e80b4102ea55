//! Durable consumers of a whole node, steered from outside.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mister_smith::http::Limits;
use mister_smith::prelude::*;
use mister_smith_testkit::eventually;
use tokio::process::Command;

use crate::node::{DEADLINE, Node, event};

/// What `smith ARGS` prints, and whether it ended well.
async fn smith(node: &Node, args: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_smith"))
        .args(args)
        .args(["--node", &node.addr().to_string()])
        .env("SMITH_LOG", "off")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

fn is<T: PartialEq>(seen: T, wanted: T) -> Result<(), T> {
    if seen == wanted { Ok(()) } else { Err(seen) }
}

#[tokio::test]
async fn a_consumer_is_seen_paused_and_sent_back_from_the_command_line() {
    let node = Node::made(Limits::default(), |builder| builder).await;
    let (ok, text) = smith(&node, &["consumers", "list"]).await;
    assert!(ok, "{text}");
    assert_eq!(text, "no consumers\n");
    let handled = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&handled);
    let consumer = Consumer::new("counter", move |_: Delivery| {
        counter.fetch_add(1, Ordering::SeqCst);
        async { Outcome::Ack }
    });
    let started = node.core.consumers().start(consumer).await.unwrap();
    node.fill(&["1", "2", "3"].map(|id| event(id, "order-1"))).await;
    started.wait_for(node.core.head()).await;
    assert_eq!(handled.load(Ordering::SeqCst), 3);
    let (ok, text) = smith(&node, &["consumers", "list"]).await;
    assert!(ok, "{text}");
    let words: Vec<_> = text.split_whitespace().collect();
    assert_eq!(words.join(" "), "counter up to date position 3 0 pending 0 dead");

    let (ok, text) = smith(&node, &["consumers", "replay", "counter", "--from", "2"]).await;
    assert!(ok, "{text}");
    assert_eq!(text, "counter goes on after position 1\n");
    eventually(DEADLINE, async || is(handled.load(Ordering::SeqCst), 5)).await;
    let (ok, text) = smith(&node, &["consumers", "replay", "counter", "--from", "soon"]).await;
    assert!(!ok);
    assert!(text.contains("give beginning, end, a position or a time"), "{text}");
    let (ok, text) = smith(&node, &["consumers", "pause", "counters"]).await;
    assert!(!ok);
    assert!(text.contains("there is no consumer counters on this node; it has counter"), "{text}");
    let (ok, text) = smith(&node, &["consumers", "pause", "counter"]).await;
    assert!(ok, "{text}");
    eventually(DEADLINE, async || is(started.status().paused, true)).await;
    let (ok, text) = smith(&node, &["consumers", "resume", "counter"]).await;
    assert!(ok, "{text}");
    eventually(DEADLINE, async || is(started.status().paused, false)).await;
    assert!(node.core.tree().to_string().contains("counter"));
}

/// A handler that fails at everything is told of the dead letters that it caused only if it asked
/// for them: otherwise each would cause another.
#[tokio::test]
async fn dead_letters_do_not_come_to_those_who_caused_them() {
    let node = Node::made(Limits::default(), |builder| {
        builder.publish_events(mister_smith::actors::store::EventFilter::ALL)
    })
    .await;
    let subscription = Subscription::new("fussy", "events.>").unwrap();
    let subscription = subscription.retry(RetryPolicy::attempts(1));
    let bus = node.core.bus();
    bus.subscribe(subscription, || |_| async { Outcome::fail("no") }).await.unwrap();
    let consumer = Consumer::new("picky", |_: Delivery| async { Outcome::fail("no") });
    let started = node.core.consumers().start(consumer).await.unwrap();
    node.fill(&[event("1", "order-1")]).await;
    eventually(DEADLINE, async || {
        node.core.wait_for(node.core.head()).await.unwrap();
        is(node.core.dead_letters().list(None, None, 10).await.unwrap().len(), 2)
    })
    .await;
    let head = node.core.head();
    started.wait_for(head).await;
    assert_eq!(head.get(), 3, "one event, and a dead letter of each");
    assert_eq!(started.status().dead, 1);
}
