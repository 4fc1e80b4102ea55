//! What nobody notices: lost consumers and notes, messages that a broker will never take.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use super::*;

async fn nats(server: &Broker) -> Connection {
    let connection = Connection::open(&server.url()).await.unwrap();
    ready(&connection).await;
    connection
}

fn load(messages: std::ops::Range<usize>) -> Vec<WireMessage> {
    messages.map(message).collect()
}

/// Takes so many, and acknowledges them.
async fn handle(receiver: &dyn Receiver, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let wait = Duration::from_millis(200);
        for one in receiver.receive(count - ids.len(), wait).await.unwrap_or_default() {
            receiver.ack(&one.receipt).await.unwrap();
            ids.push(one.message.id);
        }
    }
    ids
}

/// A server that was killed can come back without a consumer. What was removed was decided by the
/// list of consumers: the group that was lost was not asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_group_has_not_seen_is_not_removed() {
    let server = Broker::nats().await;
    let connection = nats(&server).await;
    let queue = connection.queue(QueueOptions::new("load").max_messages(100));
    let (sender, a, b) =
        (queue.sender(), queue.receiver("a").unwrap(), queue.receiver("b").unwrap());
    send_all(&*sender, &load(0..100)).await;
    handle(&*a, 30).await;
    handle(&*b, 100).await;
    let stream = connection.jetstream().get_stream("load").await.unwrap();
    stream.delete_consumer("a").await.unwrap();
    let error = sender.send(&load(100..101)).await;
    let error = error.expect_err("a is known, and has not handled all of them");
    assert!(matches!(error.source, QueueError::Full { .. }), "{error}");
    assert_eq!(queue.groups().await.unwrap().len(), 2, "it is there again");
    let again = handle(&*a, 100).await;
    assert_eq!(again, (0..100).map(|n| format!("m{n}")).collect::<Vec<_>>());
}

/// It goes on about where it was, not at the beginning.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_group_is_made_again_where_it_was() {
    let server = Broker::nats().await;
    let connection = nats(&server).await;
    let queue = connection.queue(QueueOptions::new("load").max_messages(100));
    let (sender, a, b) =
        (queue.sender(), queue.receiver("a").unwrap(), queue.receiver("b").unwrap());
    send_all(&*sender, &load(0..100)).await;
    handle(&*a, 60).await;
    handle(&*b, 1).await;
    // It is full, so it is looked how far the groups are, and room is made.
    send_all(&*sender, &load(100..101)).await;
    let stream = connection.jetstream().get_stream("load").await.unwrap();
    stream.delete_consumer("a").await.unwrap();
    let member = queue.receiver("a").unwrap();
    let rest = handle(&*member, 41).await;
    assert_eq!(rest, (60..101).map(|n| format!("m{n}")).collect::<Vec<_>>());
}

/// The server does not answer a publish to a subject that is in no stream: it looked like a server
/// that was away, for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_for_another_stream_is_told_apart_from_a_server_that_is_away() {
    let server = Broker::nats().await;
    let connection = nats(&server).await;
    let sender = connection.queue(QueueOptions::new("load")).sender();
    let elsewhere = WireMessage::new(&Subject::of(["other", "n"]), "x", "x");
    let error = sender.send(&[message(0), elsewhere, message(1)]).await.unwrap_err();
    assert!(error.source.is_of_the_message(), "{error}");
    assert_eq!(
        error.to_string(),
        "1 messages are in the queue, then: queue load takes load.>, not other.n; let it take \
         more, or publish elsewhere"
    );
}

/// A server that comes back without its data knows no groups. Who has his hands full does not ask
/// for more, so his group was not made again, and what came meanwhile was removed as soon as the
/// others had handled it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_its_hands_full_makes_its_group_again_where_the_server_forgot_it() {
    let server = Broker::nats().await;
    let connection = nats(&server).await;
    let queue = connection.queue(QueueOptions::new("load"));
    let (sender, a) = (queue.sender(), queue.receiver("a").unwrap());
    send_all(&*sender, &load(0..10)).await;
    let in_hand = a.receive(1, DEADLINE).await.unwrap().remove(0);
    server.kill9();
    server.forget();
    server.restart().await;
    send_all(&*sender, &load(0..10)).await;
    assert!(queue.groups().await.unwrap().is_empty(), "it knows nothing");
    eventually(DEADLINE, async || {
        // As a processor does for what is in hand, whether there is room for more or not.
        let told = a.extend(&in_hand.receipt).await;
        match queue.groups().await.map_err(|error| error.to_string())? {
            groups if groups.len() == 1 && groups[0].waiting == 10 => Ok(()),
            groups => Err(format!("{told:?}, {groups:?}")),
        }
    })
    .await;
}

/// One event that is larger than the server takes stopped the outbox for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_the_broker_does_not_take_is_a_dead_letter() {
    let server = Broker::nats().await;
    let dir = tempfile::tempdir().unwrap();
    let queue = connect(&server.url(), QueueOptions::new("shop")).await.unwrap();
    let core = SystemCore::embedded()
        .store(format!("sqlite://{}", dir.path().join("smith.db").display()))
        .outbox("shop", queue.sender(), EventFilter::ALL)
        .start()
        .await
        .unwrap();
    let stream = StreamId::new("order-1").unwrap();
    for (n, bytes) in [10, 2 << 20, 10].into_iter().enumerate() {
        let event = Incoming {
            event_type: "order.placed".into(),
            codec: ContentType::Raw,
            data: vec![b'x'; bytes].into(),
            meta: Default::default(),
            key: IdempotencyKey::of([n.to_string()]),
        };
        core.ingest().ingest(&stream, vec![event]).await.unwrap();
    }
    let got = received(&*queue.receiver("g").unwrap(), 2).await;
    let positions: Vec<_> = got.iter().map(|id| id.rsplit(':').next().unwrap()).collect();
    assert_eq!(positions, ["1", "3"]);
    let letters = eventually(DEADLINE, async || {
        let letters = core.dead_letters().list(None, None, 10).await.unwrap();
        if letters.is_empty() { Err("no letter yet") } else { Ok(letters) }
    })
    .await;
    let (_, letter) = &letters[0];
    assert_eq!(&*letter.origin, "relay.shop");
    assert!(letter.reason.contains("too large"), "{}", letter.reason);
    assert!(core.stop(DEADLINE).await);
}

/// A command of Redis, and the first line of what it answers.
fn redis(server: &Broker, command: &str) -> String {
    let address = server.url();
    let mut socket = TcpStream::connect(address.trim_start_matches("redis://")).unwrap();
    write!(socket, "{command}\r\n").unwrap();
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// Redis evicts keys when it runs out of memory. A counter that was gone looked as if all messages
/// were, and the whole log was sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_go_on_when_redis_has_evicted_the_counter() {
    let server = Broker::redis().await;
    let queue = connect(&server.url(), QueueOptions::new("load")).await.unwrap();
    let sender = queue.sender();
    send_all(&*sender, &load(0..5)).await;
    assert_eq!(redis(&server, "DEL load:count load:last"), ":2");
    assert_eq!(sender.tail().await.unwrap(), 5);
    assert_eq!(redis(&server, "DEL load:count"), ":0", "asking for it writes nothing");
    let sent = sender.send(&load(5..6)).await.unwrap();
    assert_eq!((sent.last, sender.tail().await.unwrap()), (6, 6));
}

/// A pause that is longer than a delivery is good for was cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_lets_a_message_rest_as_long_as_it_is_asked_to() {
    let server = Broker::redis().await;
    let short = Duration::from_millis(200);
    let options = QueueOptions::new("load").ack_within(short);
    let queue = connect(&server.url(), options).await.unwrap();
    let receiver = queue.receiver("g").unwrap();
    send_all(&*queue.sender(), &load(0..1)).await;
    let got = receiver.receive(1, DEADLINE).await.unwrap().remove(0);
    let began = tokio::time::Instant::now();
    receiver.reject(&got.receipt, queue::Reject::Later(short * 6)).await.unwrap();
    let again = receiver.receive(1, DEADLINE).await.unwrap().remove(0);
    assert_eq!(again.delivered, 2);
    assert!(began.elapsed() >= short * 6, "it came too early");
}
