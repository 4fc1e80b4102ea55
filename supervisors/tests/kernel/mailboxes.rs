//! Bounds and overflow, dead letters, questions and their answers.

use std::sync::{Arc, Mutex};

use mister_smith_supervisors::{
    ActorSystem, Address, AskError, ChildSpec, DeadLetter, DeadLetters, ExitReason, OnCrash,
    Overflow, TellError,
};
use proptest::prelude::*;

use crate::kit::*;

fn letters() -> (impl DeadLetters, Log) {
    let log = Log::default();
    let written = log.clone();
    let hook = move |letter: DeadLetter| {
        let what = letter.message.and_then(|message| message.downcast::<Do>().ok());
        let what = what.map_or("gone".to_owned(), |what| format!("{what:?}"));
        written.note(format!("{} {what} x{}: {}", letter.path, letter.attempts, letter.cause));
    };
    (hook, log)
}

async fn with_letters(child: ChildSpec) -> (ActorSystem, Log) {
    let (hook, letters) = letters();
    let system =
        ActorSystem::builder(root().child(child)).dead_letters(hook).start().await.unwrap();
    (system, letters)
}

fn fill(a: &Address<Do>, numbers: std::ops::RangeInclusive<u64>) {
    for n in numbers {
        a.try_tell(Do::Note(n)).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_mailbox_hands_the_message_back() {
    let log = Log::default();
    let (system, _) = with_letters(puppet("a", &log).mailbox(2, Overflow::Fail)).await;
    let a = at(&system, "/a");
    fill(&a, 1..=2);
    let refused = a.tell(Do::Note(3)).await;
    let Err(TellError::Full { capacity: 2, message: Do::Note(3), .. }) = refused else {
        panic!("{refused:?}")
    };
    settle().await;
    assert_eq!(log.notes("a"), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn drop_oldest_and_drop_newest_go_to_the_dead_letters() {
    for (overflow, kept, dead) in [
        (Overflow::DropOldest, [2, 3], "/a Note(1) x0: mailbox full, oldest dropped"),
        (Overflow::DropNewest, [1, 2], "/a Note(3) x0: mailbox full, newest dropped"),
    ] {
        let log = Log::default();
        let (system, letters) = with_letters(puppet("a", &log).mailbox(2, overflow)).await;
        fill(&at(&system, "/a"), 1..=3);
        settle().await;
        assert_eq!(log.notes("a"), kept);
        assert_eq!(letters.take(), [dead]);
    }
}

#[tokio::test(start_paused = true)]
async fn senders_wait_for_room_first_come_first_served() {
    let log = Log::default();
    let (system, _) = with_letters(puppet("a", &log).mailbox(1, Overflow::Wait(secs(100)))).await;
    let a = at(&system, "/a");
    a.try_tell(Do::Sleep(secs(10), 0)).unwrap();
    settle().await;
    let senders: Vec<_> = (1..=20)
        .map(|n| {
            let a = a.clone();
            tokio::spawn(async move { a.tell(Do::Note(n)).await.is_ok() })
        })
        .collect();
    settle().await;
    // One that comes later does not overtake those that wait.
    assert!(a.try_tell(Do::Note(99)).is_err());
    for sender in senders {
        assert!(sender.await.unwrap());
    }
    settle().await;
    assert_eq!(log.notes("a"), (0..=20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_sender_waits_no_longer_than_the_deadline_and_through_a_crash() {
    let log = Log::default();
    let (system, _) = with_letters(puppet("a", &log).mailbox(1, Overflow::Wait(secs(5)))).await;
    let a = at(&system, "/a");
    a.try_tell(Do::Sleep(secs(8), 0)).unwrap();
    settle().await;
    a.try_tell(Do::Note(1)).unwrap();
    assert!(matches!(a.tell(Do::Note(2)).await, Err(TellError::Full { .. })));
    let waiting = tokio::spawn({
        let a = a.clone();
        async move { a.tell(Do::Note(3)).await }
    });
    settle().await;
    system.kill("/a").unwrap();
    waiting.await.unwrap().unwrap();
    settle().await;
    assert_eq!(log.notes("a"), [1, 3]);
}

#[tokio::test(start_paused = true)]
async fn the_message_in_hand_is_a_dead_letter_with_the_cause() {
    let log = Log::default();
    let (system, letters) = with_letters(puppet("a", &log)).await;
    let a = at(&system, "/a");
    a.try_tell(Do::Fail).unwrap();
    settle().await;
    a.try_tell(Do::Sleep(secs(9), 1)).unwrap();
    settle().await;
    system.kill("/a").unwrap();
    settle().await;
    assert_eq!(
        letters.take(),
        [
            "/a gone x1: in hand when its life ended: permanent: told to",
            "/a gone x1: in hand when its life ended: killed",
        ]
    );
    assert_eq!(system.tree().dead_letters, 2);
}

#[tokio::test(start_paused = true)]
async fn a_redelivered_message_comes_first_and_ends_as_a_dead_letter_with_its_content() {
    let log = Log::default();
    let spec = puppet("a", &log).on_crash(OnCrash::redeliver::<Do>(3));
    let (system, letters) = with_letters(spec).await;
    let a = at(&system, "/a");
    a.try_tell(Do::Fail).unwrap();
    a.try_tell(Do::Note(1)).unwrap();
    settle().await;
    assert_eq!(log.take(), ["start a", "start a", "start a", "start a", "a 1"]);
    assert_eq!(letters.take(), ["/a Fail x3: in hand when its life ended: permanent: told to"]);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_actor_hands_messages_back_and_buries_what_waited() {
    let log = Log::default();
    let (system, letters) = with_letters(puppet("a", &log)).await;
    let a = at(&system, "/a");
    a.try_tell(Do::Sleep(secs(1), 0)).unwrap();
    settle().await;
    a.try_tell(Do::Note(1)).unwrap();
    let asked = tokio::spawn({
        let a = a.clone();
        async move { a.ask(Do::Life).await }
    });
    settle().await;
    system.stop("/a").await.unwrap();
    assert!(matches!(asked.await.unwrap(), Err(AskError::Stopped { .. })));
    assert!(matches!(a.try_tell(Do::Note(2)), Err(TellError::Stopped { .. })));
    assert!(matches!(a.ask(Do::Life).await, Err(AskError::Stopped { .. })));
    assert_eq!(log.notes("a"), [0]);
    assert_eq!(letters.take()[0], "/a Note(1) x0: waiting when its actor stopped: shutdown");
}

#[tokio::test(start_paused = true)]
async fn a_question_ends_in_an_answer_or_says_why_not() {
    let log = Log::default();
    let (system, _) = with_letters(puppet("a", &log).mailbox(1, Overflow::Fail)).await;
    let a = at(&system, "/a");
    assert_eq!(a.ask(Do::Life).await.unwrap(), 1);
    assert!(matches!(a.ask(Do::DropPort).await, Err(AskError::NoReply { .. })));
    let crashed = a.ask(Do::FailWith).await;
    assert!(
        matches!(&crashed, Err(AskError::Crashed { reason: ExitReason::Error(f), .. }) if f.message() == "told to"),
        "{crashed:?}"
    );
    assert_eq!(a.ask(Do::Life).await.unwrap(), 2);
    // A port that is kept and lost with its life.
    let kept = tokio::spawn({
        let a = a.clone();
        async move { a.ask(Do::KeepPort).await }
    });
    settle().await;
    a.try_tell(Do::Panic).unwrap();
    let kept = kept.await.unwrap();
    assert!(
        matches!(&kept, Err(AskError::Crashed { reason: ExitReason::Panic(_), .. })),
        "{kept:?}"
    );
    // A deadline, and a full mailbox.
    a.try_tell(Do::Sleep(secs(9), 0)).unwrap();
    settle().await;
    assert!(matches!(a.ask_within(secs(2), Do::Life).await, Err(AskError::Timeout { .. })));
    assert!(matches!(a.ask(Do::Life).await, Err(AskError::Full { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_question_behind_a_crash_is_answered_by_the_next_life() {
    let log = Log::default();
    let system = start(root().child(puppet("a", &log))).await;
    let a = at(&system, "/a");
    a.try_tell(Do::Panic).unwrap();
    assert_eq!(a.ask(Do::Life).await.unwrap(), 2);
}

/// A sender's step in the model below.
#[derive(Clone, Debug)]
enum Step {
    Send(u8),
    Crash,
    Kill,
    Pause,
    Resume,
    Let,
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    prop_oneof![
        8 => (1u8..40).prop_map(Step::Send),
        1 => Just(Step::Crash),
        1 => Just(Step::Kill),
        1 => Just(Step::Pause),
        1 => Just(Step::Resume),
        2 => Just(Step::Let),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens between: every message that was taken is handled once and in order, or is
    /// a dead letter once.
    #[test]
    fn every_message_is_handled_once_or_is_a_dead_letter_once(
        steps in proptest::collection::vec(step(), 1..60),
        policy in 0usize..3,
    ) {
        let overflow = [Overflow::Fail, Overflow::DropOldest, Overflow::DropNewest][policy];
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async move {
            let log = Log::default();
            let lost = Arc::new(Mutex::new(Vec::new()));
            let written = Arc::clone(&lost);
            let spec = puppet("a", &log)
                .mailbox(16, overflow)
                .on_crash(OnCrash::dead_letter_with_copy::<Do>());
            let system = ActorSystem::builder(root().child(spec))
                .dead_letters(move |letter: DeadLetter| {
                    if let Ok(what) = letter.message.unwrap().downcast::<Do>()
                        && let Do::Note(n) = *what
                    {
                        written.lock().unwrap().push(n);
                    }
                })
                .start()
                .await
                .unwrap();
            let a = at(&system, "/a");
            let (mut next, mut taken) = (0, Vec::new());
            for step in steps {
                match step {
                    Step::Send(count) => {
                        for _ in 0..count {
                            next += 1;
                            if a.try_tell(Do::Note(next)).is_ok() {
                                taken.push(next);
                            }
                        }
                    }
                    Step::Crash => drop(a.try_tell(Do::Fail)),
                    Step::Kill => drop(system.kill("/a")),
                    Step::Pause => system.suspend("/a").await.unwrap(),
                    Step::Resume => system.resume("/a").await.unwrap(),
                    Step::Let => settle().await,
                }
            }
            system.resume("/a").await.unwrap();
            settle().await;
            system.shutdown(secs(60)).await;
            let handled = log.notes("a");
            let mut all: Vec<u64> = lost.lock().unwrap().clone();
            prop_assert!(handled.is_sorted(), "in order: {handled:?}");
            all.extend(&handled);
            all.sort_unstable();
            prop_assert_eq!(all, taken);
            Ok(())
        })?;
    }
}
