//! Tests of the mailbox and the gate, which hold none of their own: the model check in
//! `supervisors/loom` compiles their files as tests, against primitives that work in a model only.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::actor::gate::{Gate, Sign};
use crate::actor::mailbox::{Mailbox, Receiver, Refused, Taken, WaitForRoom, WhenFull};

#[test]
fn a_life_reads_its_own_signs_and_a_former_one_reads_a_kill() {
    let gate = Gate::new();
    let first = gate.next_life();
    assert_eq!((first, gate.sign(1)), (1, Sign::Go));
    gate.hold(true);
    assert_eq!(gate.sign(1), Sign::Hold);
    gate.call();
    assert_eq!(gate.sign(1), Sign::Call);
    gate.take_call();
    assert!(gate.stop(1) && !gate.stop(2));
    assert_eq!(gate.sign(1), Sign::Stop);
    assert!(gate.kill(1));
    assert_eq!(gate.sign(1), Sign::Kill);
    let second = gate.next_life();
    assert_eq!((second, gate.sign(1), gate.sign(2)), (2, Sign::Kill, Sign::Hold));
    gate.hold(false);
    assert_eq!(gate.sign(2), Sign::Go);
    assert!(!gate.kill(1), "the life that was meant is gone");
    assert_eq!(gate.sign(2), Sign::Go);
}

/// A mailbox that is full with as many messages as it has room for, counted from zero.
fn full(capacity: usize) -> Mailbox<usize> {
    let mailbox = Mailbox::new(capacity, WhenFull::Refuse);
    for message in 0..capacity {
        assert!(matches!(mailbox.push(message), Ok(Taken::Queued)));
    }
    mailbox
}

fn poll(room: &mut WaitForRoom<'_, usize>) -> Poll<Result<Taken<usize>, Refused<usize>>> {
    Pin::new(room).poll(&mut Context::from_waker(Waker::noop()))
}

/// A life that looked at the line of a closed mailbox let a message into the queue that the close
/// had handed out already: its sender was told that it was in, and it was never heard of again.
#[test]
fn a_closed_mailbox_lets_nobody_in() {
    let mailbox = full(1);
    let mut life = Receiver::default();
    assert_eq!(mailbox.next(&mut life), Some(0));
    assert!(mailbox.push(1).is_ok());
    let mut room = mailbox.wait(2);
    assert!(poll(&mut room).is_pending());
    assert_eq!(mailbox.close(), [1]);
    assert!(mailbox.has_waiting());
    mailbox.let_in();
    assert_eq!(mailbox.next(&mut life), None);
    assert_eq!(mailbox.detach(&mut life), VecDeque::new());
    assert!(matches!(poll(&mut room), Poll::Ready(Err(Refused::Closed(2)))));
}

/// A waiter whose time was over was refused beside free places, because the life, busy with one long
/// message, had not looked at the line since it made room.
#[test]
fn a_waiter_whose_time_is_over_takes_a_place_that_is_free() {
    let mailbox = full(3);
    let mut life = Receiver::default();
    assert_eq!(mailbox.next(&mut life), Some(0));
    assert!(mailbox.push(3).is_ok());
    let mut rooms = [4, 5].map(|message| mailbox.wait(message));
    assert!(rooms.iter_mut().all(|room| poll(room).is_pending()));
    assert_eq!(mailbox.next(&mut life), Some(1));
    let [first, second] = &mut rooms;
    assert_eq!(second.take_back(), Some(5), "the only place is for the first");
    assert_eq!(first.take_back(), None);
    let rest = std::iter::from_fn(|| mailbox.next_now(&mut life));
    assert_eq!(rest.collect::<Vec<_>>(), [2, 3, 4]);
}

/// The places that a life had made stayed empty beside waiting senders when it ended, until the next
/// life came.
#[test]
fn a_life_that_lets_go_lets_waiting_senders_in() {
    let mailbox = full(2);
    let mut life = Receiver::default();
    assert_eq!(mailbox.next(&mut life), Some(0));
    assert!(mailbox.push(2).is_ok());
    let mut room = mailbox.wait(3);
    assert!(poll(&mut room).is_pending());
    assert_eq!(mailbox.next(&mut life), Some(1));
    assert!(mailbox.detach(&mut life).is_empty());
    assert!(matches!(poll(&mut room), Poll::Ready(Ok(Taken::Queued))));
    assert_eq!(mailbox.depth(), 2);
}

/// A sender that has gone sends nothing, even if there is room by then.
#[test]
fn a_waiter_that_is_dropped_takes_its_message_along() {
    let mailbox = full(2);
    let mut life = Receiver::default();
    assert_eq!(mailbox.next(&mut life), Some(0));
    assert!(mailbox.push(2).is_ok());
    let mut room = mailbox.wait(3);
    assert!(poll(&mut room).is_pending());
    assert_eq!(mailbox.next(&mut life), Some(1));
    drop(room);
    assert_eq!((mailbox.next(&mut life), mailbox.next(&mut life)), (Some(2), None));
}
