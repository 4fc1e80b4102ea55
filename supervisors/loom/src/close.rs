//! The end of a mailbox, whatever else happens to it meanwhile.

use std::sync::Arc;

use loom::thread;

use crate::mailbox::{Receiver, WhenFull};
use crate::model::{Life, accepted, assert_each_once, block_on, explore, mailbox};

/// Would find a message that a close loses or doubles: each is handled, handed back to its sender,
/// handed out by the close, or handed out when the life lets go. And a waiter that a close forgets:
/// it would wait forever.
///
/// Found: a life that let the line in after the close left the message in a queue that nobody
/// empties any more.
#[test]
fn a_close_gives_each_message_one_fate() {
    explore(3, || {
        let mailbox = mailbox(1, WhenFull::Refuse);
        assert!(accepted(mailbox.push(10), 10));
        let pusher = {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || (!accepted(mailbox.push(20), 20)).then_some(20))
        };
        let waiter = {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || (!accepted(block_on(mailbox.wait(30)), 30)).then_some(30))
        };
        let life = {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || {
                let mut life = Life::begin(&mailbox, Receiver::default());
                let mut fates: Vec<_> = life.next_now().into_iter().collect();
                if mailbox.has_waiting() {
                    mailbox.let_in();
                }
                fates.extend(life.end().0);
                fates
            })
        };
        let mut fates = Vec::from(mailbox.close());
        fates.extend(life.join().unwrap());
        fates.extend(pusher.join().unwrap());
        fates.extend(waiter.join().unwrap());
        assert!(mailbox.is_closed());
        assert_eq!((mailbox.depth(), mailbox.has_waiting()), (0, false));
        assert_each_once(fates, &[10, 20, 30]);
    });
}

/// As the model before, with a line of two and a life that takes the head of the line when it finds
/// the mailbox empty, and so lets the next one in.
#[test]
fn a_close_is_the_end_of_the_line() {
    explore(2, || {
        let mailbox = mailbox(1, WhenFull::Refuse);
        assert!(accepted(mailbox.push(10), 10));
        let waiters = [20, 30].map(|message| {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || {
                (!accepted(block_on(mailbox.wait(message)), message)).then_some(message)
            })
        });
        let life = {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || {
                let mut life = Life::begin(&mailbox, Receiver::default());
                let mut fates: Vec<_> = life.poll_next().into_iter().collect();
                fates.extend(life.end().0);
                fates
            })
        };
        let mut fates = Vec::from(mailbox.close());
        fates.extend(life.join().unwrap());
        for waiter in waiters {
            fates.extend(waiter.join().unwrap());
        }
        assert_eq!((mailbox.depth(), mailbox.has_waiting()), (0, false));
        assert_each_once(fates, &[10, 20, 30]);
    });
}

/// Would find a message that a life still holds and that a close hands out as well, or that
/// neither hands out.
#[test]
fn what_a_life_holds_at_the_close_it_hands_out_itself() {
    explore(3, || {
        let mailbox = mailbox(4, WhenFull::Refuse);
        for message in [10, 11, 12] {
            assert!(accepted(mailbox.push(message), message));
        }
        let life = {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || {
                let mut life = Life::begin(&mailbox, Receiver::default());
                let first = life.poll_next();
                if let Some(first) = first {
                    // In flight when the life crashed.
                    life.put_back(first);
                }
                Vec::from(life.end().0)
            })
        };
        let sender = {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || (!accepted(mailbox.push(20), 20)).then_some(20))
        };
        let mut fates = Vec::from(mailbox.close());
        fates.extend(life.join().unwrap());
        fates.extend(sender.join().unwrap());
        assert_eq!(mailbox.depth(), 0);
        assert_each_once(fates, &[10, 11, 12, 20]);
    });
}

/// Would find a waiter that sleeps through a close and the reopening behind it, although there is
/// room, and one whose message is handed back and delivered.
#[test]
fn a_mailbox_that_is_reopened_lets_in_or_has_refused() {
    explore(3, || {
        let mailbox = mailbox(1, WhenFull::Refuse);
        assert!(accepted(mailbox.push(10), 10));
        let waiter = {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || (!accepted(block_on(mailbox.wait(20)), 20)).then_some(20))
        };
        let mut fates = Vec::from(mailbox.close());
        mailbox.open();
        let mut life = Life::begin(&mailbox, Receiver::default());
        fates.extend(life.poll_next());
        fates.extend(waiter.join().unwrap());
        fates.extend(life.drain());
        assert_each_once(fates, &[10, 20]);
    });
}
