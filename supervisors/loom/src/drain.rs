//! Senders and a life that sleeps.

use std::sync::Arc;
use std::task::Waker;

use loom::thread;

use crate::mailbox::{Receiver, WhenFull};
use crate::model::{Life, accepted, assert_each_once, assert_in_order, explore, mailbox};

/// Would find a message lost or handled twice, two of one sender in the wrong order, and a lost
/// wake-up: a life that falls asleep beside a message sleeps forever here.
#[test]
fn each_message_is_handled_once_in_its_senders_order() {
    explore(3, || {
        let mailbox = mailbox(8, WhenFull::Refuse);
        let senders = [10, 20].map(|first| {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || {
                for message in [first, first + 1] {
                    assert!(accepted(mailbox.push(message), message), "there is room for all");
                }
            })
        });
        let mut life = Life::begin(&mailbox, Receiver::default());
        let handled: Vec<_> = (0..4).map(|_| life.next()).collect();
        for sender in senders {
            sender.join().unwrap();
        }
        assert_in_order(&handled);
        assert_each_once(handled, &[10, 11, 20, 21]);
        assert_eq!((life.poll_next(), mailbox.depth()), (None, 0));
        assert!((1..=4).contains(&mailbox.high_water()));
    });
}

/// Would find a wake-up that goes missing because the life was woken for something else in between:
/// it finds the mailbox empty, sleeps again, and must be woken again.
#[test]
fn a_life_that_is_woken_for_nothing_is_woken_again() {
    explore(3, || {
        let mailbox = mailbox(2, WhenFull::Refuse);
        let bell = Arc::default();
        let sender = {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || [10, 11].map(|message| accepted(mailbox.push(message), message)))
        };
        let passer_by = {
            let waker = Waker::from(Arc::clone(&bell));
            thread::spawn(move || waker.wake())
        };
        let mut life = Life::with_bell(&mailbox, Receiver::default(), bell);
        assert_eq!([life.next(), life.next()], [10, 11]);
        assert_eq!(sender.join().unwrap(), [true, true]);
        passer_by.join().unwrap();
    });
}
