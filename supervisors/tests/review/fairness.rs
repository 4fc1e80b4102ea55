//! Many children at once hold nobody up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mister_smith_supervisors::*;

use crate::kit::*;

const MANY: usize = 20_000;

/// The most events that were told between two turns of somebody else, while `what` goes on.
async fn longest_turn(system: &ActorSystem, what: impl Future<Output = ()>) -> u64 {
    let (timeline, over) = (system.timeline(), Arc::new(AtomicBool::new(false)));
    let ended = Arc::clone(&over);
    let other = tokio::spawn(async move {
        let (mut longest, mut before) = (0, timeline.last());
        while !ended.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
            let now = timeline.last();
            longest = longest.max(now - before);
            before = now;
        }
        longest
    });
    what.await;
    over.store(true, Ordering::SeqCst);
    other.await.unwrap()
}

async fn crowd() -> ActorSystem {
    let log = Log::default();
    let crowd = SupervisorSpec::dynamic("d").keep_children().max_children(MANY);
    let crowd = (0..MANY).fold(crowd, |crowd, n| {
        crowd.child(ChildSpec::actor::<Puppet>(n.to_string(), Role::new("x", &log)))
    });
    ActorSystem::builder(root().child(crowd)).history(1_000_000).start().await.unwrap()
}

#[tokio::test]
#[ignore = "the children of a killed supervisor are told of, and ended, in one go"]
async fn the_kill_of_a_supervisor_of_many_holds_nobody_up() {
    let system = crowd().await;
    let longest = longest_turn(&system, async {
        system.kill("/d").unwrap().unwrap();
        while system.look("/d", Depth::FOLDED).unwrap().root.life < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(longest < 2_000, "{longest} events in one go");
}

#[tokio::test]
async fn the_stop_of_a_supervisor_of_many_holds_nobody_up() {
    let system = crowd().await;
    let longest = longest_turn(&system, async {
        system.supervisor("/").unwrap().terminate_child("d").await.unwrap();
    })
    .await;
    assert!(longest < 2_000, "{longest} events in one go");
}

#[tokio::test]
async fn a_mailbox_of_many_that_closes_holds_nobody_up() {
    let log = Log::default();
    let spec = puppet("a", &log).mailbox(1_000_000, Overflow::Fail);
    let buried = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&buried);
    let system = ActorSystem::builder(root().child(spec))
        .dead_letters(move |_: DeadLetter| {
            counted.fetch_add(1, Ordering::SeqCst);
        })
        .start()
        .await
        .unwrap();
    let a = at(&system, "/a");
    a.tell(Do::Sleep(secs(1_000), 0)).await.unwrap();
    settle().await;
    for n in 0..200_000 {
        a.try_tell(Do::Note(n)).unwrap();
    }
    system.supervisor("/").unwrap().suspend("a").await.unwrap();
    assert!(a.kill_handle().kill());
    let other = tokio::spawn({
        let buried = Arc::clone(&buried);
        async move {
            let (mut longest, mut before) = (0, 0);
            while before < 200_000 {
                tokio::task::yield_now().await;
                let now = buried.load(Ordering::SeqCst);
                longest = longest.max(now - before);
                before = now;
            }
            longest
        }
    });
    system.supervisor("/").unwrap().terminate_child("a").await.unwrap();
    let longest = other.await.unwrap();
    assert!(longest < 10_000, "{longest} dead letters in one go");
}
