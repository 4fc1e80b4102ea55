//! Laws of groups, and of what is kept for them.

use super::{NOTHING, Open, Opened, Received, SHORT, WAIT, messages, opened};
use crate::bus::queue::{GroupStatus, QueueError, QueueOptions, Reject, Retention};

pub(super) async fn run(open: Open<'_>) {
    a_sender_is_not_a_group(open).await;
    a_group_that_comes_late_begins_with_the_oldest(open).await;
    a_group_that_is_idle_loses_nothing(open).await;
    a_group_that_was_renamed_can_be_removed(open).await;
    a_group_that_was_removed_is_a_new_one(open).await;
    groups_are_listed(open).await;
    a_log_drops_the_oldest(open).await;
    a_member_that_is_late_takes_nothing_back(open).await;
    no_message_hides_behind_those_in_flight(open).await;
}

fn ids(got: &[Received]) -> Vec<&str> {
    got.iter().map(|one| &*one.message.id).collect()
}

/// A sender that made a group which never acknowledges would fill the queue forever.
async fn a_sender_is_not_a_group(open: Open<'_>) {
    let queue = opened(open, QueueOptions::new("sending").max_messages(5), "w").await;
    queue.put(&messages("sending", 0..5)).await;
    queue.tail().await;
    queue.handle(5).await;
    queue.put(&messages("sending", 5..10)).await;
    let groups = queue.queue.groups().await.expect("it is reachable");
    assert_eq!(names(&groups), ["w"], "only who receives is a group");
    queue.handle(5).await;
    assert_eq!(queue.waiting().await, 0);
}

fn names(groups: &[GroupStatus]) -> Vec<&str> {
    groups.iter().map(|group| &*group.name).collect()
}

async fn a_group_that_comes_late_begins_with_the_oldest(open: Open<'_>) {
    let queue = opened(open, QueueOptions::new("late").max_messages(5), "first").await;
    queue.put(&messages("late", 0..5)).await;
    queue.handle(4).await;
    // Room is made, so the first four are gone.
    queue.put(&messages("late", 5..7)).await;
    let late = queue.member("late");
    assert_eq!(late.waiting().await, 3, "what is there waits for a group that comes");
    let got = late.take(3).await;
    assert_eq!(ids(&got), ["late-4", "late-5", "late-6"]);
    for one in &got {
        late.ack(&one.receipt).await;
    }
    late.nothing("there is no more").await;
    assert_eq!((late.waiting().await, queue.waiting().await), (0, 3));
}

async fn a_group_that_is_idle_loses_nothing(open: Open<'_>) {
    let queue = opened(open, QueueOptions::new("idle").max_messages(5), "busy").await;
    let idle = queue.member("idle");
    queue.put(&messages("idle", 0..3)).await;
    idle.handle(1).await;
    queue.handle(3).await;
    queue.put(&messages("idle", 3..6)).await;
    queue.handle(3).await;
    let error = queue.send(&messages("idle", 6..7)).await.expect_err("five wait for the idle one");
    assert!(matches!(error.source, QueueError::Full { .. }), "{error}");
    let got = idle.take(5).await;
    assert_eq!(ids(&got), ["idle-1", "idle-2", "idle-3", "idle-4", "idle-5"]);
}

async fn a_group_that_was_renamed_can_be_removed(open: Open<'_>) {
    let queue = opened(open, QueueOptions::new("renamed").max_messages(3), "old").await;
    queue.put(&messages("renamed", 0..3)).await;
    queue.take(1).await;
    let new = queue.member("new");
    new.handle(3).await;
    let error = queue.send(&messages("renamed", 3..4)).await;
    error.expect_err("nobody is in the old group, and it has still to handle three");
    assert!(queue.queue.remove_group("old").await.expect("it is reachable"));
    queue.put(&messages("renamed", 3..6)).await;
    let groups = queue.queue.groups().await.expect("it is reachable");
    assert_eq!(names(&groups), ["new"]);
    new.handle(3).await;
    assert!(!queue.queue.remove_group("old").await.expect("it is reachable"), "it is gone");
}

async fn a_group_that_was_removed_is_a_new_one(open: Open<'_>) {
    let queue = opened(open, QueueOptions::new("removed").ack_within(WAIT), "g").await;
    queue.put(&messages("removed", 0..3)).await;
    queue.take(2).await;
    assert!(queue.queue.remove_group("g").await.expect("it is reachable"));
    // One that receives makes it again; what a member had is nobody's.
    let got = again(&queue, 3).await;
    assert_eq!(ids(&got), ["removed-0", "removed-1", "removed-2"]);
    assert!(got.iter().all(|one| one.delivered == 1), "{got:?}");
}

/// A member may need a call to notice that its group was removed.
async fn again(queue: &Opened, count: usize) -> Vec<Received> {
    let mut got = Vec::new();
    for _ in 0..200 {
        if got.len() >= count {
            break;
        }
        got.extend(queue.receiver.receive(count - got.len(), WAIT / 20).await.unwrap_or_default());
    }
    assert_eq!(got.len(), count, "messages that were received");
    got
}

async fn groups_are_listed(open: Open<'_>) {
    let queue = opened(open, QueueOptions::new("listed").ack_within(WAIT), "b").await;
    let groups = queue.queue.groups().await.expect("it is reachable");
    assert_eq!(groups, [], "a group is made by its first receive");
    queue.put(&messages("listed", 0..5)).await;
    let other = queue.member("a");
    let got = queue.take(3).await;
    other.take(1).await;
    queue.ack(&got[0].receipt).await;
    let groups = queue.queue.groups().await.expect("it is reachable");
    let seen: Vec<_> = groups.iter().map(|one| (&*one.name, one.waiting, one.in_flight)).collect();
    assert_eq!(seen, [("a", 5, 1), ("b", 4, 2)], "name, waiting, in flight");
}

async fn a_log_drops_the_oldest(open: Open<'_>) {
    let options = QueueOptions::new("log").retention(Retention::Log).max_messages(5);
    let queue = opened(open, options, "g").await;
    queue.put(&messages("log", 0..3)).await;
    queue.handle(3).await;
    for part in messages("log", 3..12).chunks(4) {
        queue.put(part).await;
    }
    assert_eq!(queue.tail().await, 12, "numbers go on");
    let got = queue.take(5).await;
    assert_eq!(ids(&got), ["log-7", "log-8", "log-9", "log-10", "log-11"], "the newest five");
    for one in &got {
        queue.ack(&one.receipt).await;
    }
    let late = queue.member("late");
    let got = late.take(5).await;
    assert_eq!(ids(&got), ["log-7", "log-8", "log-9", "log-10", "log-11"], "also when handled");
    queue.nothing("the rest is gone").await;
}

async fn a_member_that_is_late_takes_nothing_back(open: Open<'_>) {
    let queue = opened(open, QueueOptions::new("owners").ack_within(SHORT), "g").await;
    let other = queue.member("g");
    queue.put(&messages("owners", 0..1)).await;
    let late = queue.take(1).await;
    tokio::time::sleep(SHORT + NOTHING).await;
    let now = other.take(1).await;
    assert_eq!(now[0].delivered, 2);
    queue.receiver.extend(&late[0].receipt).await.expect("it is reachable");
    // Whoever has it now goes on having it, and settles it.
    other.receiver.extend(&now[0].receipt).await.expect("it is reachable");
    other.ack(&now[0].receipt).await;
    tokio::time::sleep(SHORT + NOTHING).await;
    queue.nothing("it was acknowledged").await;
}

/// Those that others have are not to hide one that nobody has any more.
async fn no_message_hides_behind_those_in_flight(open: Open<'_>) {
    let queue = opened(open, QueueOptions::new("hidden").ack_within(WAIT), "g").await;
    let other = queue.member("g");
    queue.put(&messages("hidden", 0..100)).await;
    let got = queue.take(100).await;
    queue.reject(&got[99].receipt, Reject::Later(SHORT)).await;
    let found = other.take(1).await;
    assert_eq!(ids(&found), ["hidden-99"]);
}
