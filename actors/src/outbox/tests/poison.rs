//! What an outlet will never take.

use super::*;
use crate::dead_letter::{LetterState, LetterSummary};
use crate::store::DEAD_LETTERS;

/// All letters that wait, when there are so many.
async fn letters(world: &World, count: usize) -> Vec<(Arc<str>, LetterSummary)> {
    let there = async {
        loop {
            world.settled().await;
            let letters = world.letters.list(None, None, 100).await.unwrap();
            if letters.len() == count {
                return letters;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, there).await.expect("so many letters wait")
}

/// A relay that begins when so many events are in the log, so that letters come after them.
async fn begun_with(post: &Arc<Post>, events: u64) -> Running {
    let world = World::new().await;
    let args = args(&world, "post", Arc::clone(post) as _);
    let shown = Arc::clone(&args.shown);
    let running = Running { world, appended: AtomicU64::new(0), shown };
    running.append("order-1", events).await;
    begin(&running.world, "relay", args).await;
    running
}

async fn begin(world: &World, name: &str, args: RelayArgs) {
    let supervisor = world.system.supervisor("/aggregates").unwrap();
    let spec = ChildSpec::component::<Relay>(name.to_owned(), args);
    supervisor.spawn_spec::<RelayMessage>(spec).await.unwrap();
}

/// One event that the outlet will not take stopped the relay for good.
#[tokio::test]
async fn an_event_that_is_refused_is_a_dead_letter_and_the_rest_goes_on() {
    let post = Arc::new(Post::default());
    post.refuses.lock().unwrap().extend([3, 4]);
    let running = begun_with(&post, 6).await;
    post.until_it_has([1, 2, 5, 6]).await;
    let kept = letters(&running.world, 2).await;
    for (_, letter) in &kept {
        assert_eq!((&*letter.origin, &*letter.reason), ("relay.post", "too large"));
    }
    // Sent again in vain, it is a letter again; and when the outlet takes more, it is settled.
    let (first, _) = &kept[0];
    running.world.letters.requeue(first, "somebody").await.unwrap();
    let again = async {
        while running.world.letters.show(first).await.unwrap().failures < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, again).await.expect("it is refused again");
    // Those that wait are looked for in the list.
    let listed = async {
        while letters(&running.world, 2).await.iter().any(|(_, one)| one.state != LetterState::Open)
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, listed).await.expect("both are open");
    post.refuses.lock().unwrap().clear();
    running.world.letters.requeue_all(None, "somebody").await.unwrap();
    post.until_it_has(1..=6).await;
    letters(&running.world, 0).await;
    let settled = running.world.letters.show(first).await.unwrap();
    assert_eq!(settled.state, LetterState::Settled);
}

/// The letters about what is refused are events too: who sends everything would send them, and a
/// processor that fails on everything would make more of them with each.
#[tokio::test]
async fn dead_letters_are_sent_only_to_who_asks_for_them() {
    let post = Arc::new(Post::default());
    post.refuses.lock().unwrap().insert(2);
    let running = begun_with(&post, 3).await;
    letters(&running.world, 1).await;
    let head = running.world.lease().await.store.head().await.unwrap();
    running.reached(head.get()).await;
    post.until_it_has([1, 3]).await;

    let named = Arc::new(Post::default());
    let filter = EventFilter::ALL.categories([DEAD_LETTERS]);
    let args = RelayArgs { filter, ..args(&running.world, "named", Arc::clone(&named) as _) };
    let shown = Arc::clone(&args.shown);
    // Refused, an event about a letter is put aside: a letter about it would be refused as well.
    named.refuses.lock().unwrap().insert(head.get());
    begin(&running.world, "named", args).await;
    tokio::time::timeout(DEADLINE, shown.wait_for(head)).await.expect("it gets there");
    assert_eq!(running.world.lease().await.store.head().await.unwrap(), head);
    let claims = running.world.lease().await.claims;
    let note = claims.note("relay.named", &format!("$parked/{head:020}", head = head.get())).await;
    assert!(note.unwrap().is_some(), "it is seen");
}

/// A header that a client answers with a panic let the relay begin anew without end.
#[tokio::test]
async fn a_row_that_is_refused_is_a_dead_letter_and_the_rest_goes_on() {
    let world = World::new().await;
    let orders = Broker::default().queue(QueueOptions::new("orders").max_bytes(10_000));
    let queue = orders.receiver("g").unwrap();
    let nudge = Nudge::default();
    let args = TableArgs {
        pool: POOL.into(),
        owner: "test".into(),
        queue: orders.sender(),
        nudge: nudge.clone(),
        shown: Arc::default(),
        letters: letters_of(&world),
    };
    let supervisor = world.system.supervisor("/aggregates").unwrap();
    let spec = ChildSpec::component::<TableRelay>("table", args);
    supervisor.spawn_spec::<TableMessage>(spec).await.unwrap();
    let url = format!("sqlite://{}", world.path().display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    let large = WireMessage { payload: vec![b'x'; 20_000].into(), ..letter(3) };
    let nowhere = WireMessage { subject: "a b".to_owned(), ..letter(4) };
    for message in [letter(1), letter(2).header("a b", "c"), large, nowhere, letter(5)] {
        sqlite::put(&mut connection, &message).await.unwrap();
    }
    nudge.nudge();
    let mut got = Vec::new();
    while got.len() < 2 {
        for one in queue.receive(10, DEADLINE).await.unwrap() {
            got.push(one.message.id.clone());
            queue.ack(&one.receipt).await.unwrap();
        }
    }
    assert_eq!(got, ["o1", "o5"]);
    let kept = letters(&world, 3).await;
    let reasons: Vec<_> = kept.iter().map(|(_, letter)| letter.reason.clone()).collect();
    for wanted in ["header \"a b\"", "white space", "too large for queue orders"] {
        assert!(reasons.iter().any(|reason| reason.contains(wanted)), "{wanted}: {reasons:?}");
    }
    assert!(kept.iter().all(|(_, letter)| &*letter.origin == "outbox"));
    let empty = async {
        while !world.lease().await.messages.outgoing(10).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, empty).await.expect("what is a letter is not in the table");
}

/// A letter holds what the row held: sent again, it has the same id and the same headers.
#[test]
fn a_row_comes_back_out_of_its_letter() {
    let bus = crate::bus::EventBus::new(mister_smith_supervisors::Clock::starting_at(1_000), 1);
    let sent = letter(7).header("Tenant", "acme").header("Content-Type", "text/plain");
    let nowhere = WireMessage { subject: "a b".to_owned(), ..sent.clone() };
    let held = bus.stamp(super::super::refused::letter_of(&nowhere));
    assert_eq!(super::super::refused::wire_of(&held).unwrap().subject, "a b");
    let held = bus.stamp(super::super::refused::letter_of(&sent));
    let back = super::super::refused::wire_of(&held).unwrap();
    assert_eq!((&back.id, &back.subject, &back.payload), (&sent.id, &sent.subject, &sent.payload));
    assert_eq!(back.headers["Tenant"], "acme");
    let again = bus.stamp(super::super::refused::letter_of(&sent));
    assert_eq!(held.id(), again.id(), "and one row makes one letter");
}
