//! One life after another.

use std::sync::Arc;
use std::task::Waker;

use loom::thread;

use crate::gate::{Gate, Sign};
use crate::mailbox::{Receiver, WhenFull};
use crate::model::{Bell, Flag, Life, Message, accepted, block_on, explore, mailbox};

/// Would find a life that goes on after it was given up and replaced, and a message that the change
/// loses, doubles or puts in the wrong place: also the one that was in flight, which is put back in
/// front, and those that are sent while nobody reads.
#[test]
fn the_next_life_goes_on_where_the_last_one_was_given_up() {
    explore(3, || {
        let gate = Arc::new(Gate::new());
        assert_eq!(gate.next_life(), 1);
        let mailbox = mailbox(4, WhenFull::Refuse);
        for message in [10, 11] {
            assert!(accepted(mailbox.push(message), message));
        }
        let given_up = Arc::new(Flag::default());
        let bell: Arc<Bell> = Arc::default();
        let first = {
            let (gate, mailbox) = (Arc::clone(&gate), Arc::clone(&mailbox));
            let (given_up, bell) = (Arc::clone(&given_up), Arc::clone(&bell));
            thread::spawn(move || {
                let mut life = Life::with_bell(&mailbox, Receiver::default(), bell);
                let mut handled: Vec<Message> = vec![];
                loop {
                    let over = given_up.is_set();
                    match gate.sign(1) {
                        Sign::Go => assert!(!over, "a life that was given up goes on"),
                        Sign::Kill => break,
                        sign => panic!("nobody asked for {sign:?}"),
                    }
                    match life.poll_next() {
                        // Killed while it handles it: a copy goes to the next life.
                        Some(message) if gate.is_killed(1) => {
                            life.put_back(message);
                            break;
                        }
                        Some(message) => handled.push(message),
                        None => life.sleep(),
                    }
                }
                assert!(gate.sign(1) == Sign::Kill && gate.is_killed(1), "it read a kill before");
                let (left_over, receiver) = life.end();
                assert!(left_over.is_empty(), "the mailbox is open");
                (handled, receiver)
            })
        };
        let sender = {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || assert!(accepted(mailbox.push(12), 12)))
        };
        // The supervisor does not wait for the life to look.
        assert_eq!(gate.next_life(), 2);
        given_up.set();
        Waker::from(bell).wake();
        // The next life waits for the receiver.
        let (mut handled, receiver) = first.join().unwrap();
        let mut life = Life::begin(&mailbox, receiver);
        while handled.len() < 3 {
            assert_eq!(gate.sign(2), Sign::Go);
            handled.push(life.next());
        }
        assert_eq!(handled, [10, 11, 12]);
        sender.join().unwrap();
        assert_eq!((life.poll_next(), mailbox.depth()), (None, 0));
    });
}

/// Would find a wake-up that goes to the life before: a sender that comes between two lives wakes
/// nobody, or somebody who no longer reads, and the next life must see its message.
#[test]
fn what_is_sent_between_two_lives_reaches_the_next() {
    explore(3, || {
        let mailbox = mailbox(4, WhenFull::Refuse);
        let senders = [10, 20].map(|message| {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || assert!(accepted(mailbox.push(message), message)))
        });
        let mut handled = vec![];
        let mut life = Life::begin(&mailbox, Receiver::default());
        handled.extend(life.poll_next());
        let (_, receiver) = life.end();
        let mut life = Life::begin(&mailbox, receiver);
        while handled.len() < 2 {
            handled.push(life.next());
        }
        handled.sort_unstable();
        assert_eq!(handled, [10, 20]);
        for sender in senders {
            sender.join().unwrap();
        }
    });
}

/// Would find a kill or a stop that was meant for one life and reaches the next, and a number that
/// a change at the same moment sets back.
#[test]
fn what_was_asked_of_a_life_ends_with_it() {
    explore(3, || {
        let gate = Arc::new(Gate::new());
        assert_eq!(gate.next_life(), 1);
        let asked = [Gate::stop, Gate::kill].map(|ask| {
            let gate = Arc::clone(&gate);
            thread::spawn(move || ask(&gate, 1))
        });
        gate.hold(true);
        assert_eq!(gate.next_life(), 2);
        assert_eq!((gate.sign(1), gate.sign(2)), (Sign::Kill, Sign::Hold));
        for asked in asked {
            asked.join().unwrap();
        }
        assert!(!gate.kill(1), "the life that was meant is gone");
        gate.hold(false);
        assert_eq!((gate.sign(1), gate.sign(2)), (Sign::Kill, Sign::Go));
    });
}

/// Found: between two lives, a place that the last one had made stayed empty beside a waiter, until
/// the next life came or the waiter's time was over.
#[test]
fn a_life_that_lets_go_lets_in() {
    explore(3, || {
        let mailbox = mailbox(2, WhenFull::Refuse);
        assert!(accepted(mailbox.push(10), 10) && accepted(mailbox.push(11), 11));
        let waiters = [20, 30].map(|message| {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || assert!(accepted(block_on(mailbox.wait(message)), message)))
        });
        let mut life = Life::begin(&mailbox, Receiver::default());
        assert_eq!([life.next(), life.next()], [10, 11]);
        let (_, receiver) = life.end();
        // Nobody reads, and there is room for both.
        for waiter in waiters {
            waiter.join().unwrap();
        }
        let mut handled = Life::begin(&mailbox, receiver).drain();
        handled.sort_unstable();
        assert_eq!(handled, [20, 30]);
    });
}
