use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::event::{ContentType, EventId, NewEvent, Position};

fn stream(n: usize) -> StreamId {
    StreamId::new(format!("saga-t-{n}")).unwrap()
}

fn event(n: usize, version: u64) -> RecordedEvent {
    let id = EventId::new(uuid::Uuid::from_u128(u128::from(version)));
    let new = NewEvent::new(id, "saga.resumed", ContentType::Json, "{}", at(0));
    RecordedEvent::at(Position::new(version), stream(n), Version::new(version), new)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn counts(running: usize, ready: usize, asleep: usize) -> Counts {
    Counts { running, ready, asleep }
}

/// A poke told to an actor that had just decided to rest was buried with it.
#[test]
fn what_was_heard_before_a_saga_rests_keeps_it_and_what_comes_after_wakes_it() {
    let board = Board::default();
    board.heard(&event(1, 1));
    let taken = board.take(10);
    assert_eq!(taken.len(), 1);
    assert!(taken[0].1.is_some(), "the event that began it is all there is to know");
    board.begins(&stream(1));
    assert!(board.heard(&event(1, 9)), "it runs, and is to be told");
    assert!(!board.rest(&stream(1), Version::new(8), Some(at(60))), "it has not read that");
    assert!(board.rest(&stream(1), Version::new(9), Some(at(60))));
    assert_eq!(board.counts(), counts(0, 0, 1));
    assert!(!board.heard(&event(1, 10)));
    assert_eq!((board.counts(), board.next_due()), (counts(0, 1, 0), None));
    assert_eq!(board.take(10)[0].0, stream(1));
}

#[test]
fn those_whose_time_has_come_are_next_and_the_first_due_is_announced() {
    let board = Board::default();
    board.found(&stream(1), Some(at(20)));
    board.found(&stream(2), Some(at(10)));
    board.found(&stream(3), None);
    assert_eq!((board.counts(), board.next_due()), (counts(0, 1, 2), Some(at(10))));
    board.wake(at(15));
    let taken = board.take(10);
    let streams: Vec<_> = taken.iter().map(|(stream, _)| stream.clone()).collect();
    assert_eq!(streams, [stream(3), stream(2)]);
    board.begins(&stream(2));
    assert!(board.rest(&stream(2), Version::new(4), Some(at(12))));
    assert_eq!(board.next_due(), Some(at(12)));
    let changed = ready(board.changed());
    assert!(changed.is_some(), "the manager has to be told of the earlier one");
}

/// What a future answers if it is ready.
fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    futures_util::FutureExt::now_or_never(future)
}

#[test]
fn what_found_no_room_is_next_and_one_that_was_stopped_comes_back() {
    let board = Board::default();
    for n in 1..=3 {
        board.found(&stream(n), None);
    }
    let first = board.take(1)[0].0.clone();
    board.put_back(&first);
    assert_eq!(board.take(1)[0].0, first);
    board.begins(&first);
    board.put_back(&first);
    assert!(board.is_alive(&first), "it lives; somebody else has begun it");
    board.again(&first, at(60));
    assert_eq!((board.counts(), board.next_due()), (counts(0, 2, 1), Some(at(60))));
    board.forget();
    assert_eq!((board.counts(), board.next_due()), (counts(0, 0, 0), None));
}

/// Killed between the word that it rests and its end, an actor has another life.
#[test]
fn a_life_that_begins_unasked_is_known() {
    let board = Board::default();
    board.found(&stream(1), None);
    board.take(1);
    board.begins(&stream(1));
    assert!(board.rest(&stream(1), Version::new(3), None));
    board.begins(&stream(1));
    assert!(board.heard(&event(1, 4)) && board.is_alive(&stream(1)));
    assert!(!board.rest(&stream(1), Version::new(3), None));
    assert_eq!(board.counts(), counts(1, 0, 0));
}

proptest! {
    /// Whatever comes in which order: what was heard of a saga is read by a life of it that began
    /// after, or that does not rest before it has.
    #[test]
    fn nothing_that_was_heard_is_lost(steps in vec((0..6_u8, 0..3_usize), 1..200)) {
        let board = Board::default();
        // By saga: what is in the log, what its life has read, whether there is one.
        let mut sagas = [(0_u64, 0_u64, false); 3];
        let mut now = 0;
        for (step, n) in steps {
            let name = stream(n);
            let (log, read, alive) = &mut sagas[n];
            match step {
                // Something is written, and heard.
                0 => {
                    *log += 1;
                    board.heard(&event(n, *log));
                }
                1 => for (stream, _) in board.take(2) {
                    let n = stream.as_str().rsplit('-').next().unwrap().parse::<usize>().unwrap();
                    prop_assert!(!sagas[n].2, "it had an actor");
                    board.begins(&stream);
                    // A life begins with reading what there is.
                    (sagas[n].1, sagas[n].2) = (sagas[n].0, true);
                },
                2 if *alive => *read = *log,
                3 if *alive => {
                    let until = (*read % 2 == 0).then(|| at(now + 10));
                    if board.rest(&name, Version::new(*read), until) {
                        prop_assert_eq!(*read, *log);
                        *alive = false;
                    }
                }
                4 if *alive => {
                    board.again(&name, at(now + 1));
                    *alive = false;
                }
                5 => {
                    now += 5;
                    board.wake(at(now));
                }
                _ => {}
            }
            let all = board.counts();
            prop_assert_eq!(all.running, sagas.iter().filter(|(.., alive)| *alive).count());
        }
        // In the end every one that has not read everything is on its way.
        board.wake(at(now + 100));
        let on_their_way: Vec<_> = board.take(10).into_iter().map(|(stream, _)| stream).collect();
        for (n, (log, read, alive)) in sagas.iter().enumerate() {
            prop_assert!(log == read || *alive || on_their_way.contains(&stream(n)));
        }
    }
}
