//! Mailboxes that drop what they have no room for.

use std::sync::Arc;

use loom::thread;

use crate::mailbox::{Mailbox, Receiver, Taken, WhenFull};
use crate::model::{Life, Message, assert_each_once, assert_in_order, explore, mailbox};

/// Sends, and returns what was dropped for it.
fn send(mailbox: &Mailbox<Message>, message: Message) -> Option<Message> {
    match mailbox.push(message) {
        Ok(Taken::Queued) => None,
        Ok(Taken::DroppedOldest(dropped) | Taken::DroppedNewest(dropped)) => Some(dropped),
        Err(refused) => panic!("this mailbox refuses nothing: {refused:?}"),
    }
}

/// Two senders of two messages each, and a life that sleeps until the first.
fn overflow(when_full: WhenFull) -> impl Fn() + Send + Sync + 'static {
    move || {
        let mailbox = mailbox(1, when_full);
        let senders = [10, 20].map(|first| {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || [first, first + 1].map(|message| send(&mailbox, message)))
        });
        let mut life = Life::begin(&mailbox, Receiver::default());
        let mut handled = vec![life.next()];
        handled.extend(life.poll_next());
        let dropped = senders.map(|sender| sender.join().unwrap());
        let left = life.drain();
        assert!(left.len() <= 1 && mailbox.high_water() == 1, "more than there is room for");
        handled.extend(left);
        assert_in_order(&handled);
        let dropped = dropped.into_iter().flatten().flatten();
        assert_each_once(handled.into_iter().chain(dropped), &[10, 11, 20, 21]);
    }
}

/// Would find a message that is dropped unseen, or dropped and handled, while the life takes what a
/// sender drops.
#[test]
fn the_oldest_is_handled_or_dropped() {
    explore(3, overflow(WhenFull::DropOldest));
}

/// As the model before, for the newest.
#[test]
fn the_newest_is_handled_or_dropped() {
    explore(3, overflow(WhenFull::DropNewest));
}
