//! What a broker gives, over the lives of the actor that owns the connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use mister_smith_supervisors::{ActorSystem, ChildSpec, Policies, SupervisorSpec};

use crate::bus::broker::{Broker, BrokerActor};
use crate::bus::key_value::{BucketOptions, From, KeyValue};
use crate::bus::queue::QueueOptions;
use crate::bus::remote::RemoteError;
use crate::bus::wire::WireMessage;
use crate::bus::{Pattern, Subject, key_value, queue, remote};

const PATH: &str = "/broker";

async fn owned(broker: &Broker) -> ActorSystem {
    let root = SupervisorSpec::new("resources")
        .intensity(1_000, Duration::from_secs(1))
        .child(ChildSpec::component::<BrokerActor>("broker", broker.clone()));
    ActorSystem::builder(root).policies(Policies::new()).start().await.unwrap()
}

/// Kills the actor, and waits for the next life.
async fn killed(system: &ActorSystem, broker: &Broker) {
    let life = system.find::<crate::bus::broker::BrokerMessage>(PATH).unwrap().life();
    system.kill(PATH).unwrap();
    while system.find::<crate::bus::broker::BrokerMessage>(PATH).unwrap().life() == life
        || !broker.status().connected
    {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_broker_gives_keeps_every_law() {
    let broker = Broker::new("memory:").unwrap();
    let _system = owned(&broker).await;
    let shared = broker.clone();
    Box::pin(queue::conformance::run(&move |options| {
        let queue = shared.queue(options).unwrap();
        async move { queue }.boxed()
    }))
    .await;
    let shared = broker.clone();
    Box::pin(remote::conformance::run(&move || {
        let remote = shared.remote();
        async move { remote }.boxed()
    }))
    .await;
    Box::pin(key_value::conformance::run(&move |options| {
        let bucket = broker.bucket(options).unwrap();
        async move { bucket }.boxed()
    }))
    .await;
}

#[tokio::test]
async fn a_restart_of_the_connection_s_actor_is_survived_by_all_that_use_it() {
    let broker = Broker::new("memory:").unwrap();
    let queue = broker.queue(QueueOptions::new("q")).unwrap().sender();
    let bucket = broker.bucket(BucketOptions::new("b")).unwrap();
    let remote = broker.remote();
    let subject = Subject::new("a.question").unwrap();
    let message = WireMessage::new(&subject, "1", "x");
    // Before it lives, nothing can be reached, and nothing waits.
    assert!(!broker.status().connected);
    let error = remote.request(&message, Duration::from_secs(60)).await.unwrap_err();
    assert!(matches!(error, RemoteError::Unreachable { .. }), "{error}");
    assert!(queue.tail().await.unwrap_err().to_string().contains("being restarted"));

    let system = owned(&broker).await;
    assert!(broker.status().connected);
    queue.send(std::slice::from_ref(&message)).await.unwrap();
    let mut watch = bucket.watch(">", From::Now).await.unwrap();
    let mut requests = remote.serve(&Pattern::from(&subject), "g").await.unwrap();
    for round in 0..5_u64 {
        killed(&system, &broker).await;
        assert_eq!(queue.tail().await.unwrap(), 1, "the next call goes over the next one");
        // Who serves is told, and serves again.
        assert!(requests.next().await.is_none());
        requests = remote.serve(&Pattern::from(&subject), "g").await.unwrap();
        let serving = async {
            let asked = requests.next().await.unwrap();
            asked.answer(WireMessage::answer("y")).await.unwrap();
        };
        let asking = remote.request(&message, Duration::from_secs(60));
        assert_eq!(&tokio::join!(asking, serving).0.unwrap().payload[..], b"y");
        // A watch goes on.
        let revision = bucket.put("k", Bytes::from(round.to_string())).await.unwrap();
        let seen = watch.changes.next().await.unwrap().unwrap();
        assert_eq!((seen.revision, &seen.value[..]), (revision, round.to_string().as_bytes()));
    }
}

#[tokio::test]
async fn how_a_broker_stands_is_shown() {
    let broker = Broker::new("memory:").unwrap();
    let system = owned(&broker).await;
    while broker.status().round_trip_us.is_none() {
        tokio::task::yield_now().await;
    }
    let json = serde_json::to_value(broker.status()).unwrap();
    let wanted = serde_json::json!({
        "url": "memory:", "connected": true, "server_version": null, "jetstream": true,
        "connections": 1, "round_trip_us": 0, "trouble": null,
    });
    assert_eq!(json, wanted);
    assert!(system.tree().to_string().contains("connected"), "{}", system.tree());
    system.shutdown(Duration::from_secs(20)).await;
    assert!(!broker.status().connected);
    assert_eq!(
        Broker::new("kafka://x").unwrap_err().to_string(),
        "kafka://x is not the address of a broker; give memory: or nats://HOST:PORT"
    );
}

/// Both ends of the test share one bucket, as two users of a node do.
#[tokio::test]
async fn a_broker_of_one_system_is_one() {
    let broker = Broker::new("memory:").unwrap();
    let _system = owned(&broker).await;
    let (one, two): (Arc<dyn KeyValue>, _) = (
        broker.bucket(BucketOptions::new("b")).unwrap(),
        broker.clone().bucket(BucketOptions::new("b")).unwrap(),
    );
    one.put("k", "1".into()).await.unwrap();
    assert_eq!(&two.get("k").await.unwrap().unwrap().value[..], b"1");
}
