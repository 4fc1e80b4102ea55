//! Followers on one store in memory, under time that the test moves.

use futures_util::FutureExt;
use mister_smith_supervisors::TaskGuard;
use tokio::sync::mpsc;
use tokio::time::{advance, timeout};

use super::*;
use crate::store::claims::memory::MemoryClaims;
use crate::store::claims::{Note, Place, REFUSED, Request, Save, asked};
use crate::store::memory::MemoryStore;
use crate::store::probe::Probe;
use crate::store::{Append, ExpectedVersion, conformance};

const LONG: Duration = Duration::from_secs(3_600);

/// One store, and whatever nodes there are on it.
struct Town {
    source: Source,
    head: watch::Sender<Position>,
    clock: Clock,
}

/// A follower of a node, with the task that keeps its claim.
struct Node {
    follower: Follower,
    cursor: Cursor,
    ended: mpsc::UnboundedReceiver<ClaimError>,
    keeping: Option<TaskGuard>,
}

impl Town {
    fn new() -> Self {
        let (store, claims) = (Arc::new(MemoryStore::new()), Arc::new(MemoryClaims::new()));
        let head = watch::Sender::new(Position::ZERO);
        let clock = Clock::starting_at(1_000_000);
        Self { source: Source { store, claims, shared: true }, head, clock }
    }

    async fn append(&self, stream: &str, count: u64) {
        for seed in 0..count {
            let append: Append = conformance::append(stream, ExpectedVersion::Any, seed, 1);
            let done = self.source.store.append_batch([append].into()).await.unwrap();
            self.head.send_replace(done[0].as_ref().unwrap().last_position);
        }
    }

    fn follower(&self, follow: Follow) -> Follower {
        let source = self.source.clone();
        Follower::new(follow, source, self.head.subscribe(), self.clock, Arc::default())
    }

    fn node_as(&self, follow: Follow) -> Node {
        let follower = self.follower(follow);
        let (end, ended) = mpsc::unbounded_channel();
        let kept = follower.clone();
        let keeping = TaskGuard::spawn(async move {
            let _ = end.send(kept.keep().await);
        });
        Node { follower, cursor: Cursor::default(), ended, keeping: Some(keeping) }
    }

    fn node(&self, owner: &str) -> Node {
        self.node_as(Follow::new("f", owner))
    }

    async fn place(&self) -> Place {
        self.source.claims.place("f").await.unwrap().unwrap()
    }
}

impl Node {
    /// The next step, which has to come.
    async fn step(&mut self) -> Step {
        let step = timeout(LONG, self.follower.next(self.cursor, 10)).await.expect("it comes");
        let step = step.unwrap();
        self.cursor = step.cursor();
        step
    }

    async fn begins(&mut self) -> u64 {
        match self.step().await {
            Step::Begin(cursor) => cursor.position().get(),
            other => panic!("{other:?}"),
        }
    }

    async fn events(&mut self) -> Vec<u64> {
        match self.step().await {
            Step::Page(events, _) => events.iter().map(|event| event.position.get()).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn settle(&self) {
        self.follower.settle(self.cursor, self.cursor.position());
    }

    /// Nothing comes for a while.
    async fn waits(&mut self) {
        let waits = timeout(Duration::from_secs(30), self.follower.next(self.cursor, 10));
        assert!(waits.await.is_err());
    }

    /// The machine stops, without a word.
    fn dies(&mut self) {
        self.keeping = None;
    }
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_where_everything_was_settled() {
    let town = Town::new();
    town.append("a-1", 5).await;
    let mut one = town.node("one");
    assert_eq!(one.begins().await, 0);
    assert_eq!(one.events().await, [1, 2, 3, 4, 5]);
    one.settle();
    // With the next renewal the place is kept.
    advance(RENEW_EVERY * 2).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(town.place().await.position, Position::new(5));
    one.waits().await;
    town.append("a-1", 1).await;
    assert_eq!(one.events().await, [6]);
    // Not settled, it comes again.
    one.follower.release().await;
    let mut two = town.node("two");
    assert_eq!(two.begins().await, 5);
    assert_eq!(two.events().await, [6]);
}

#[tokio::test(start_paused = true)]
async fn a_standby_shows_the_place_and_takes_over_at_once_when_the_owner_stops() {
    let town = Town::new();
    town.append("a-1", 3).await;
    let mut one = town.node("one");
    one.begins().await;
    let mut two = town.node("two");
    assert_eq!(one.events().await, [1, 2, 3]);
    one.settle();
    let shown = Arc::clone(two.follower.shown());
    timeout(LONG, shown.wait_for(Position::new(3))).await.expect("it learns the place");
    assert!(shown.standing().standby);
    assert_eq!(&*shown.standing().owner, "one");
    let stopped = tokio::time::Instant::now();
    one.follower.release().await;
    assert_eq!(two.begins().await, 3);
    assert!(stopped.elapsed() <= LOOK_EVERY, "{:?}", stopped.elapsed());
    assert!(!shown.standing().standby);
    assert_eq!(town.place().await.deaths, 0);
}

#[tokio::test(start_paused = true)]
async fn who_slept_past_the_lease_does_not_act() {
    let town = Town::new();
    town.append("a-1", 3).await;
    let mut one = town.node("one");
    one.begins().await;
    // Nothing of this node runs any more, and so nothing renews.
    one.dies();
    let mut two = town.node("two");
    assert_eq!(two.begins().await, 0);
    // It wakes: its claim ran out, and another has it.
    let woken = one.follower.next(one.cursor, 10).await;
    assert!(matches!(woken, Err(ClaimError::Lost { .. })), "{woken:?}");
    assert!(one.follower.assure().await.is_err());
    assert!(one.follower.save(one.cursor, [("n".into(), Some("late".into()))]).await.is_err());
    assert_eq!(two.follower.note("n").await.unwrap(), None);
    assert_eq!(two.events().await, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn who_slept_and_lost_nothing_goes_on() {
    let town = Town::new();
    town.append("a-1", 1).await;
    let mut one = town.node("one");
    one.begins().await;
    one.dies();
    advance(LEASE * 2).await;
    assert!(!town.place().await.held);
    assert_eq!(one.events().await, [1]);
    assert!(town.place().await.held, "it has asked for its claim again before");
}

#[tokio::test(start_paused = true)]
async fn keep_ends_when_the_claim_is_lost() {
    let town = Town::new();
    let mut one = town.node("one");
    one.begins().await;
    let thief = town.source.claims.claim("f", "one", LEASE).await.unwrap();
    drop(thief);
    let error = timeout(LONG, one.ended.recv()).await.unwrap().unwrap();
    assert!(matches!(error, ClaimError::Lost { .. }), "{error}");
}

/// A filtered follower under steady traffic that is not for it: its claim and its place are kept.
#[tokio::test(start_paused = true)]
async fn steady_traffic_takes_no_claim_away() {
    let town = Town::new();
    let filter = EventFilter::ALL.categories(["rare"]);
    let mut one = town.node_as(Follow::new("f", "one").filter(filter.clone()));
    one.begins().await;
    let mut two = town.node_as(Follow::new("f", "two").filter(filter));
    for n in 1..=60 {
        town.append("usual-1", 1).await;
        assert_eq!(one.events().await, Vec::<u64>::new());
        one.settle();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let place = town.place().await;
        assert_eq!((&*place.owner, place.deaths), ("one", 0), "{n}");
        assert!(place.position.get() + 5 >= n, "{place:?}");
    }
    town.append("rare-1", 1).await;
    assert_eq!(one.events().await, [61]);
    assert!(two.follower.next(two.cursor, 10).now_or_never().is_none());
    two.dies();
}

#[tokio::test(start_paused = true)]
async fn any_node_can_pause_it_and_it_stays_paused() {
    let town = Town::new();
    let mut one = town.node("one");
    one.begins().await;
    let mut two = town.node("two");
    tokio::task::yield_now().await;
    assert!(two.follower.ask(Request::Pause).await.unwrap(), "the owner has heard");
    town.append("a-1", 1).await;
    assert!(matches!(one.step().await, Step::Paused(true, _)));
    one.waits().await;
    tokio::time::sleep(LOOK_EVERY * 2).await;
    assert!(one.follower.shown().standing().paused && two.follower.shown().standing().paused);
    // The next owner has it paused.
    one.follower.release().await;
    two.begins().await;
    assert!(matches!(two.step().await, Step::Paused(true, _)));
    assert!(two.follower.ask(Request::Resume).await.unwrap());
    assert!(matches!(two.step().await, Step::Paused(false, _)));
    assert_eq!(two.events().await, [1]);
}

#[tokio::test(start_paused = true)]
async fn any_node_can_move_the_place_also_while_none_runs() {
    let town = Town::new();
    town.append("a-1", 5).await;
    let mut one = town.node("one");
    one.begins().await;
    one.events().await;
    one.settle();
    let two = town.node("two");
    tokio::task::yield_now().await;
    assert!(two.follower.ask(Request::GoTo(Position::new(2))).await.unwrap());
    let before = one.cursor;
    assert_eq!(one.begins().await, 2);
    one.follower.settle(before, Position::new(5));
    assert_eq!(one.follower.shown().position(), Position::new(2), "of another turn");
    assert_eq!(one.events().await, [3, 4, 5]);
    one.settle();
    for mut node in [one, two] {
        node.follower.release().await;
        node.dies();
    }
    let number = town.source.claims.ask("f", Request::GoTo(Position::new(4))).await.unwrap();
    let mut three = town.node("three");
    assert_eq!(three.begins().await, 4);
    assert_eq!(three.events().await, [5]);
    assert_eq!(town.source.claims.notes("f", "", 10).await.unwrap(), [], "nothing is left to do");
    tokio::time::sleep(RENEW_EVERY * 2).await;
    assert_eq!(town.place().await.heard, number);
}

/// A request that its owner could not read was taken for done.
#[tokio::test(start_paused = true)]
async fn who_asks_for_what_the_owner_cannot_do_learns_so() {
    let town = Town::new();
    town.append("a-1", 3).await;
    let mut one = town.node("one");
    one.begins().await;
    one.events().await;
    let claims = &town.source.claims;
    // A newer program asks for what there is not yet.
    let number = claims.ask("f", Request::GoTo(Position::new(1))).await.unwrap();
    let newer = (asked(number), Some(bytes::Bytes::from_static(br#"{"fly":"high"}"#)));
    let fence = one.follower.fence().unwrap();
    claims.save(&fence, Save::renewal(LEASE).notes([newer])).await.unwrap();
    let refused = wait_until_heard(&**claims, "f", number).await.unwrap_err();
    assert_eq!(refused.class(), ErrorClass::User);
    let says = "f refuses what it was asked: its owner cannot read it (unknown variant `fly`";
    assert!(refused.to_string().starts_with(says), "{refused}");
    // It goes on, and hears what comes after it.
    assert!(one.follower.ask(Request::Pause).await.unwrap());
    assert!(matches!(one.step().await, Step::Paused(true, _)));
    assert!(one.follower.ask(Request::GoTo(Position::new(2))).await.unwrap());
    assert_eq!(one.begins().await, 2);
    // They are few, however many are made.
    for _ in 0..2 * REFUSALS {
        let number = claims.ask("f", Request::Skip(Position::new(9))).await.unwrap();
        let broken = (asked(number), Some(bytes::Bytes::from_static(b"?")));
        claims.save(&fence, Save::renewal(LEASE).notes([broken])).await.unwrap();
        assert!(wait_until_heard(&**claims, "f", number).await.is_err());
    }
    let notes = claims.notes("f", "", 10).await.unwrap();
    assert_eq!(notes.iter().map(|(id, _)| &**id).collect::<Vec<_>>(), [REFUSED]);
    let kept: Vec<Refusal> = serde_json::from_slice(&notes[0].1).unwrap();
    assert_eq!(kept.len(), REFUSALS);
}

/// Whoever keeps the place with what it makes of the events moves it with that only.
#[tokio::test(start_paused = true)]
async fn a_place_of_the_users_own_is_not_moved_by_others() {
    let town = Town::new();
    town.append("a-1", 3).await;
    let mut one = town.node_as(Follow::new("f", "one").own_place());
    one.begins().await;
    one.events().await;
    one.settle();
    for request in [Request::GoTo(Position::new(1)), Request::Skip(Position::new(2))] {
        let refused = one.follower.ask(request).await;
        assert!(matches!(refused, Err(ClaimError::Refused { .. })), "{refused:?}");
    }
    assert!(one.follower.ask(Request::Pause).await.unwrap());
    assert!(matches!(one.step().await, Step::Paused(true, _)));
    one.follower.release().await;
    assert_eq!(town.place().await.position, Position::ZERO, "it is not the follower's");
    let mut two = town.node("two");
    assert_eq!(two.begins().await, 0);
}

/// A follower that has read the three events there are, from a store that counts reads.
async fn at_the_end() -> (Town, Arc<Probe<MemoryStore>>, Node) {
    let store = Arc::new(Probe::<MemoryStore>::default());
    let mut town = Town::new();
    town.source.store = Arc::clone(&store) as _;
    town.append("a-1", 3).await;
    let mut one = town.node("one");
    assert_eq!(one.begins().await, 0);
    assert_eq!(one.events().await, [1, 2, 3]);
    (town, store, one)
}

/// A page ends there, and nothing more is announced: a follower at the end asked once more.
#[tokio::test(start_paused = true)]
async fn who_is_at_the_end_reads_nothing() {
    let (town, store, mut one) = at_the_end().await;
    store.reads();
    one.waits().await;
    assert_eq!(store.reads(), 0);
    town.append("a-1", 1).await;
    assert_eq!(one.events().await, [4]);
    // What was read before it is read again where its user says so.
    one.cursor = one.cursor.after(Position::new(2));
    assert_eq!(one.events().await, [3, 4]);
}

#[tokio::test(start_paused = true)]
async fn an_event_is_left_out_when_somebody_says_so() {
    let town = Town::new();
    town.append("a-1", 4).await;
    let mut one = town.node("one");
    one.begins().await;
    assert_eq!(one.events().await, [1, 2, 3, 4]);
    one.follower.settle(one.cursor, Position::new(1));
    // It is in hand, and does not end.
    assert!(one.follower.ask(Request::Skip(Position::new(2))).await.unwrap());
    assert_eq!(one.begins().await, 1);
    assert_eq!(one.events().await, [3, 4]);
    one.settle();
    one.follower.save(one.cursor, []).await.unwrap();
    let notes = town.source.claims.notes("f", "", 10).await.unwrap();
    let ids: Vec<_> = notes.iter().map(|(id, _)| id.to_string()).collect();
    assert_eq!(ids, [format!("$parked/{:020}", 2)], "it is shown, and the request is done");
    let all = Followers::over(Arc::clone(&town.source.claims));
    let parked = async || all.parked("f", Position::ZERO, 10).await.unwrap();
    let left_out =
        Parked { position: Position::new(2), reason: "left out, as was asked".to_owned() };
    assert_eq!(parked().await, [left_out]);
    let broken = (ids[0].as_str().into(), Some(bytes::Bytes::from_static(b"?")));
    one.follower.save(one.cursor, [broken]).await.unwrap();
    let shown = parked().await;
    assert_eq!((shown.len(), shown[0].position), (1, Position::new(2)));
    assert!(shown[0].reason.starts_with("its note cannot be read"), "{shown:?}");
    assert_eq!(one.follower.notes(None, 10).await.unwrap(), [], "it is no note of the user's");
}

/// An event kills every process that gets it.
#[tokio::test(start_paused = true)]
async fn an_event_that_kills_is_found_and_put_aside() {
    let town = Town::new();
    town.append("a-1", 20).await;
    let (mut done, mut lives, mut poison) = (Vec::new(), 0, None);
    'lives: while done.last() != Some(&20) {
        lives += 1;
        assert!(lives < 8, "{done:?}");
        let mut node = town.node_as(Follow::new("f", format!("p{lives}")).repeats(50));
        loop {
            match node.step().await {
                Step::Begin(_) => {}
                Step::Page(events, cursor) => {
                    for event in events {
                        if event.position.get() == 7 {
                            node.dies();
                            advance(LEASE * 2).await;
                            continue 'lives;
                        }
                        done.push(event.position.get());
                    }
                    node.follower.settle(cursor, cursor.position());
                    node.follower.save(cursor, []).await.unwrap();
                }
                Step::Poison(event, deaths, cursor) => {
                    poison = Some((event.position.get(), deaths));
                    node.follower.park(cursor, &event, "it kills").await.unwrap();
                    node.follower.settle(cursor, cursor.position());
                }
                Step::Paused(..) => panic!("nobody has paused it"),
            }
            if done.last() == Some(&20) {
                break;
            }
        }
    }
    assert_eq!(poison, Some((7, MOST_DEATHS)));
    assert_eq!(lives, 1 + CAREFUL_AFTER + MOST_DEATHS);
    let once: std::collections::BTreeSet<_> = done.iter().copied().collect();
    assert_eq!(once.len(), 19, "all others were done: {done:?}");
    let notes = town.source.claims.notes("f", "", 10).await.unwrap();
    assert_eq!(&*notes[0].0, format!("$parked/{:020}", 7));
}

/// A server that was replaced by one with a shorter log: what was announced is not there.
#[tokio::test(start_paused = true)]
async fn a_head_that_the_log_does_not_reach_is_not_chased() {
    let (town, store, mut one) = at_the_end().await;
    town.head.send_replace(Position::new(10));
    store.reads();
    one.waits().await;
    let reads = store.reads();
    assert!(reads < 200, "{reads} reads in 30 s");
    town.append("a-1", 1).await;
    assert_eq!(one.events().await, [4]);
}

/// What died long ago, elsewhere in the log, makes nobody careful.
#[tokio::test(start_paused = true)]
async fn deaths_at_a_place_that_is_left_behind_are_over() {
    let town = Town::new();
    town.append("a-1", 20).await;
    for owner in ["one", "two"] {
        let mut node = town.node(owner);
        assert_eq!(node.begins().await, 0);
        node.dies();
        advance(LEASE * 2).await;
    }
    let mut three = town.node("three");
    assert_eq!(three.begins().await, 0);
    assert_eq!(three.events().await, [1], "one at a time");
    three.settle();
    three.follower.release().await;
    three.dies();
    let mut four = town.node("four");
    assert_eq!(four.begins().await, 1);
    assert_eq!(four.events().await, (2..=11).collect::<Vec<_>>());
}

/// The place is not kept without the notes that belong to it.
#[tokio::test(start_paused = true)]
async fn a_place_and_its_notes_are_settled_together_or_not_at_all() {
    let town = Town::new();
    town.append("a-1", 3).await;
    let mut one = town.node("one");
    one.begins().await;
    one.events().await;
    let (cursor, at) = (one.cursor, one.cursor.position());
    let note = |id: &str| -> [Note; 1] { [(id.into(), Some(bytes::Bytes::from_static(b"1")))] };
    one.follower.save_at(cursor.after(Position::ZERO), Position::new(2), note("a")).await.unwrap();
    assert_eq!(town.place().await.position, Position::new(2));
    assert!(one.follower.note("a").await.unwrap().is_some());
    one.dies();
    advance(LEASE * 2).await;
    let mut two = town.node("two");
    assert_eq!(two.begins().await, 2);
    let durably = one.follower.save_at(cursor, at, note("b")).await;
    let lightly = one.follower.save_lightly(cursor, at, note("b")).await;
    for lost in [durably, lightly] {
        assert!(matches!(lost, Err(ClaimError::Lost { .. })));
    }
    assert_eq!(one.follower.shown().position(), Position::new(2), "nothing is settled");
    assert_eq!(town.place().await.position, Position::new(2));
    assert!(one.follower.note("b").await.unwrap().is_none());
    two.events().await;
    two.follower.save_lightly(two.cursor, at, note("b")).await.unwrap();
    assert_eq!(town.place().await.position, at);
    assert!(two.follower.note("b").await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn without_a_claim_every_node_follows() {
    let town = Town::new();
    town.append("a-1", 3).await;
    let everywhere = |owner| Follow::new("bus", owner).on_every_node();
    let (mut one, mut two) = (town.node_as(everywhere("one")), town.node_as(everywhere("two")));
    assert_eq!((one.begins().await, two.begins().await), (3, 3), "from the end");
    town.append("a-1", 2).await;
    assert_eq!((one.events().await, two.events().await), (vec![4, 5], vec![4, 5]));
    one.settle();
    // Another life in the same process goes on where it was.
    let shown = Arc::clone(one.follower.shown());
    one.dies();
    town.append("a-1", 1).await;
    let (source, head) = (town.source.clone(), town.head.subscribe());
    let again = Follower::new(everywhere("one"), source, head, town.clock, shown);
    let kept = again.clone();
    let _keeping = TaskGuard::spawn(async move { _ = kept.keep().await });
    let step = timeout(LONG, again.next(Cursor::default(), 10)).await.unwrap().unwrap();
    assert!(matches!(step, Step::Begin(cursor) if cursor.position().get() == 5), "{step:?}");
    assert_eq!(town.source.claims.places().await.unwrap(), []);
}
