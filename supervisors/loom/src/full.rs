//! A full mailbox, and those who wait for room.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use loom::thread;

use crate::mailbox::{Mailbox, Receiver, Taken, WhenFull};
use crate::model::{
    Flag, Life, Message, accepted, assert_each_once, block_on, explore, mailbox, poll_once,
};

/// A life, a waiter with 20 and a sender that pushes 30, on a mailbox that is full with `before`.
fn line(mailbox: &Arc<Mailbox<Message>>, mut life: Life<'_>, before: &[Message]) {
    let in_line = Arc::new(Flag::default());
    let waiter = {
        let (mailbox, in_line) = (Arc::clone(mailbox), Arc::clone(&in_line));
        thread::spawn(move || {
            let mut room = mailbox.wait(20);
            let answer = block_on(poll_fn(move |cx| {
                let polled = Pin::new(&mut room).poll(cx);
                in_line.set();
                polled
            }));
            assert!(accepted(answer, 20), "a waiter is let in");
        })
    };
    let pusher = {
        let mailbox = Arc::clone(mailbox);
        thread::spawn(move || {
            let behind = in_line.is_set();
            (behind, accepted(mailbox.push(30), 30))
        })
    };
    let mut handled: Vec<_> = before.iter().map(|_| life.next()).collect();
    assert_eq!(handled, before);
    while !handled.contains(&20) {
        handled.push(life.next());
    }
    waiter.join().unwrap();
    let (behind, pushed) = pusher.join().unwrap();
    handled.extend(life.drain());
    let at = |message| handled.iter().position(|&other| other == message);
    assert!(!(behind && pushed) || at(20) < at(30), "overtaken: {handled:?}");
    let after: &[Message] = if pushed { &[20, 30] } else { &[20] };
    assert_each_once(handled, &[before, after].concat());
    assert_eq!((mailbox.high_water(), mailbox.has_waiting()), (mailbox.capacity(), false));
}

/// Would find a sender that overtakes the line, a waiter that is never let in (the life, which has
/// nothing to do, sleeps beside it), and more messages waiting than there is room for.
#[test]
fn the_line_goes_first_and_is_let_in() {
    explore(3, || {
        let mailbox = mailbox(1, WhenFull::Refuse);
        assert!(accepted(mailbox.push(10), 10));
        line(&mailbox, Life::begin(&mailbox, Receiver::default()), &[10]);
    });
}

/// As the model before, where the life makes room outside the lock and nobody has noticed yet: the
/// next sender that comes must let the line in before it looks for room of its own.
#[test]
fn the_line_goes_first_also_into_room_that_nobody_has_seen() {
    explore(3, || {
        let mailbox = mailbox(2, WhenFull::Refuse);
        assert!(accepted(mailbox.push(10), 10) && accepted(mailbox.push(11), 11));
        let mut life = Life::begin(&mailbox, Receiver::default());
        assert_eq!(life.next(), 10);
        assert!(accepted(mailbox.push(12), 12));
        line(&mailbox, life, &[11, 12]);
    });
}

/// As the model before, where all that fills the mailbox was put back by the life: when it has
/// handled that, it finds a line beside an empty queue.
#[test]
fn the_line_is_let_in_behind_what_was_put_back() {
    explore(3, || {
        let mailbox = mailbox(1, WhenFull::Refuse);
        assert!(accepted(mailbox.push(10), 10));
        let mut life = Life::begin(&mailbox, Receiver::default());
        assert_eq!(life.next(), 10);
        life.put_back(10);
        line(&mailbox, life, &[10]);
    });
}

/// Would find a sender that is told "full" after the life has made room, because what the life
/// handles outside the lock is not looked up, or with too weak an ordering.
#[test]
fn nobody_is_refused_while_there_is_room() {
    explore(3, || {
        let mailbox = mailbox(2, WhenFull::Refuse);
        assert!(accepted(mailbox.push(10), 10) && accepted(mailbox.push(11), 11));
        let handled_two = Arc::new(Flag::default());
        let sender = {
            let (mailbox, handled_two) = (Arc::clone(&mailbox), Arc::clone(&handled_two));
            thread::spawn(move || {
                let first = accepted(mailbox.push(20), 20);
                let room = handled_two.is_set();
                let second = accepted(mailbox.push(21), 21);
                assert!(second || !room, "refused beside {} that wait", mailbox.depth());
                usize::from(first) + usize::from(second)
            })
        };
        let mut life = Life::begin(&mailbox, Receiver::default());
        assert_eq!([life.next(), life.next()], [10, 11]);
        handled_two.set();
        let sent = sender.join().unwrap();
        assert_eq!(life.drain().len(), sent);
        assert_eq!(mailbox.high_water(), 2);
    });
}

/// Would find a waiter whose message is both handed back and delivered, or neither, and one that
/// takes the place of those behind it with it when it gives up.
#[test]
fn a_waiter_that_gives_up_has_its_message_or_has_sent_it() {
    explore(3, || {
        let mailbox = mailbox(1, WhenFull::Refuse);
        assert!(accepted(mailbox.push(10), 10));
        let gives_up = {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || {
                let mut room = mailbox.wait(20);
                let _ = poll_once(&mut room);
                room.take_back()
            })
        };
        let waits = {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || assert!(accepted(block_on(mailbox.wait(30)), 30)))
        };
        let mut life = Life::begin(&mailbox, Receiver::default());
        let mut handled = vec![life.next(), life.next()];
        if !handled.contains(&30) {
            handled.push(life.next());
        }
        let back = gives_up.join().unwrap();
        waits.join().unwrap();
        handled.extend(life.drain());
        assert_each_once(handled.into_iter().chain(back), &[10, 20, 30]);
        assert!(!mailbox.has_waiting());
    });
}

/// As the model before, for a waiter that is dropped: its message must not stay in the line, where
/// it would be sent although its sender has gone.
#[test]
fn a_waiter_that_is_dropped_leaves_nothing_in_the_line() {
    explore(3, || {
        let mailbox = mailbox(1, WhenFull::Refuse);
        assert!(accepted(mailbox.push(10), 10));
        let gone = Arc::new(Flag::default());
        let dropped = {
            let (mailbox, gone) = (Arc::clone(&mailbox), Arc::clone(&gone));
            thread::spawn(move || {
                let mut room = mailbox.wait(20);
                let polled = poll_once(&mut room);
                let let_in = matches!(polled, Poll::Ready(Ok(Taken::Queued)));
                drop(room);
                gone.set();
                let_in
            })
        };
        let was_gone = gone.is_set();
        let mut life = Life::begin(&mailbox, Receiver::default());
        assert_eq!(life.next(), 10);
        let let_in = dropped.join().unwrap();
        assert!(!mailbox.has_waiting());
        let after = life.drain();
        match (was_gone, let_in) {
            (true, _) => assert_eq!(after, [], "sent by a sender that had gone"),
            (_, true) => assert_eq!(after, [20], "its sender was told that it is in"),
            (false, false) => assert!(after.is_empty() || after == [20]),
        }
        assert_eq!(mailbox.depth(), 0);
    });
}

/// Found: a waiter whose time was over was refused beside free places, because the life, busy with
/// one long message, had not looked at the line since it made room.
#[test]
fn a_waiter_whose_time_is_over_looks_for_room_first() {
    explore(3, || {
        let mailbox = mailbox(2, WhenFull::Refuse);
        assert!(accepted(mailbox.push(10), 10) && accepted(mailbox.push(11), 11));
        let busy = Arc::new(Flag::default());
        let sender = {
            let (mailbox, busy) = (Arc::clone(&mailbox), Arc::clone(&busy));
            thread::spawn(move || {
                let first = accepted(mailbox.push(20), 20);
                let mut room = mailbox.wait(21);
                let answer = poll_once(&mut room);
                let free = busy.is_set();
                let back = room.take_back();
                match answer {
                    Poll::Ready(answer) => assert!(accepted(answer, 21)),
                    Poll::Pending => assert!(!free || back.is_none(), "refused"),
                }
                usize::from(first) + usize::from(back.is_none())
            })
        };
        let mut life = Life::begin(&mailbox, Receiver::default());
        assert_eq!([life.next(), life.next()], [10, 11]);
        busy.set();
        let sent = sender.join().unwrap();
        assert_eq!(life.drain().len(), sent);
    });
}
