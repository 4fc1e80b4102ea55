//! Streams in process: passivation, handing over, and agents beside them.

use std::sync::Arc;
use std::time::Duration;

use mister_smith::actors::aggregate::stream::Incoming;
use mister_smith::actors::event::{ContentType, StreamId};
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

async fn no_stream_is_live(node: &Node) {
    let streams = node.core.actors().supervisor("/domain/aggregates").unwrap();
    eventually(DEADLINE, async || match streams.count() {
        0 => Ok(()),
        live => Err(format!("{live} live")),
    })
    .await;
}

#[tokio::test]
async fn an_idle_stream_ends_and_the_next_event_starts_it_again() {
    let node = Node::start().await;
    let streams = node.core.aggregates().unwrap().idle_after(Duration::from_millis(20));
    let stream = StreamId::new("order-7").unwrap();
    for version in 1..=3 {
        let outcomes = streams.ingest(&stream, incoming(&version.to_string())).await.unwrap();
        assert_eq!(outcomes[0].as_ref().unwrap().last_version.get(), version);
        no_stream_is_live(&node).await;
    }
    let letters = node.core.tree().dead_letters;
    assert_eq!(letters, 0, "nothing was lost on the way");
}

/// A request that meets an actor which is just ending goes to the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_survive_the_end_of_the_actor_that_they_meet() {
    let node = Node::start().await;
    // So short that almost every request meets an end.
    let streams = node.core.aggregates().unwrap().idle_after(Duration::from_micros(200));
    let stream = Arc::new(StreamId::new("busy").unwrap());
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let (streams, stream) = (streams.clone(), Arc::clone(&stream));
            tokio::spawn(async move {
                for n in 0..50 {
                    let events = incoming(&format!("{sender}-{n}"));
                    // What is told to try again is tried again, with the same key.
                    while streams.ingest(&stream, events.clone()).await.is_err() {}
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    assert_eq!(node.core.head().get(), 200, "each once");
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
