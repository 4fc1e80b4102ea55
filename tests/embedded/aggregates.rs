//! What comes in beside the commands of aggregates, and agents beside them.

use std::sync::Arc;

use mister_smith::actors::event::{ContentType, StreamId};
use mister_smith::actors::ingest::Incoming;
use mister_smith::actors::store::IdempotencyKey;
use mister_smith::prelude::*;
use mister_smith_testkit::eventually;

use crate::node::{DEADLINE, Node};

fn incoming(id: &str) -> Vec<Incoming> {
    vec![Incoming {
        event_type: "order.placed".into(),
        codec: ContentType::Json,
        data: br#"{"total":12}"#.as_slice().into(),
        meta: b"{}".as_slice().into(),
        key: IdempotencyKey::of(["/shop", id]),
    }]
}

/// Whatever is killed meanwhile: what is told to try again is tried again, with the same key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_in_the_log_once_while_the_committer_is_killed() {
    let node = Node::start().await;
    let stream = Arc::new(StreamId::new("busy").unwrap());
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let (ingest, stream) = (node.core.ingest().clone(), Arc::clone(&stream));
            let actors = node.core.actors().clone();
            tokio::spawn(async move {
                for n in 0..50 {
                    if n % 10 == sender {
                        actors.kill("/resources/store.committer").unwrap();
                    }
                    let events = incoming(&format!("{sender}-{n}"));
                    while ingest.ingest(&stream, events.clone()).await.is_err() {}
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    assert_eq!(node.core.head().get(), 200, "each once");
    let streams = node.core.actors().supervisor("/domain/aggregates").unwrap();
    assert_eq!(streams.count(), 0, "no actor stands for a stream of events");
}

/// An agent that was spawned at run time is there again after a part of the tree before it, or its
/// own supervisor, was restarted.
#[tokio::test]
async fn agents_come_back_with_their_supervisor() {
    struct Echo;
    impl Actor for Echo {
        type Message = ReplyPort<u64>;
        type Args = ();
        async fn start(_: &(), _: &mut Context<Self>) -> Result<Self, StartError> {
            Ok(Self)
        }
        async fn handle(
            &mut self,
            reply: ReplyPort<u64>,
            cx: &mut Context<Self>,
        ) -> Result<(), Failure> {
            reply.send(cx.life());
            Ok(())
        }
    }
    let node = Node::start().await;
    let agent = node.core.spawn::<Echo>("echo", ()).await.unwrap();
    assert_eq!(agent.ask(|reply| reply).await.unwrap(), 1);
    node.core.actors().restart("/resources").await.unwrap();
    assert_eq!(agent.ask(|reply| reply).await.unwrap(), 2);
    node.core.actors().kill("/agents").unwrap();
    eventually(DEADLINE, async || match agent.ask(|reply| reply).await {
        Ok(3) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}
