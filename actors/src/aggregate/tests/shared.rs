//! A store to which others write: nothing is answered on a state that the log contradicts. And
//! keys, of which two commands are on their way at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{join, join_all};
use futures_util::stream::FuturesUnordered;
use mister_smith_supervisors::ErrorClass;
use tokio::sync::Semaphore;

use super::faulty::Fault;
use super::{Account, Bank, Happened, Order, Refused, refusal};
use crate::aggregate::actor::{AggregateMessage, MAX_UNANSWERED};
use crate::command::{CommandEnvelope, CommandError, Freshness};
use crate::event::{Event as _, EventId, Metadata, NewEvent, StreamId, Timestamp};
use crate::store::{Append, ExpectedVersion};

const DEADLINE: Duration = Duration::from_secs(20);

fn life(bank: &Bank) -> u64 {
    bank.system.find::<AggregateMessage<Account>>("/aggregates/account-7").unwrap().life()
}

/// Another node's event.
fn deposit(cents: i64) -> Append {
    let encoded = Happened::Deposited { cents }.encode().unwrap();
    let (id, at) = (EventId::default(), Timestamp::from_micros(0));
    let event = NewEvent::new(id, encoded.event_type, encoded.codec, encoded.data, at);
    let stream = StreamId::new("account-7").unwrap();
    Append::new(stream, ExpectedVersion::Any, vec![event])
}

/// The worst that was found: the other node's event was acknowledged, and this one went on to
/// refuse, and to have nothing to do, on what it had in memory.
#[tokio::test]
async fn nothing_is_refused_on_a_state_that_another_node_has_changed() {
    let bank = Bank::shared().await;
    bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    bank.stranger("7", &[Happened::Deposited { cents: 5 }]).await;
    let done = bank.bus.send::<Account>("7", Order::Withdraw(5)).await.unwrap();
    assert_eq!((done.events, done.version.get()), (1, 3));
    bank.stranger("7", &[Happened::Deposited { cents: 2 }]).await;
    let refused = bank.bus.send::<Account>("7", Order::Withdraw(3)).await;
    assert_eq!(refusal(&refused), &Refused::TooMuch(2));
    bank.stranger("7", &[Happened::Deposited { cents: 1 }]).await;
    let nothing = bank.bus.send::<Account>("7", Order::Deposit(0)).await.unwrap();
    assert_eq!((nothing.events, nothing.version.get()), (0, 5));
    assert_eq!(life(&bank), 1);
}

#[tokio::test]
async fn a_look_sees_what_another_node_has_written_unless_it_asks_for_memory() {
    let bank = Bank::shared().await;
    bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    bank.stranger("7", &[Happened::Deposited { cents: 5 }]).await;
    let look = |account: &Account, version: crate::event::Version| (account.cents, version.get());
    let old = bank.bus.look_as("7", Freshness::InMemory, look).await.unwrap();
    assert_eq!(old, (0, 1), "the version tells how old it is");
    assert_eq!(bank.bus.look("7", look).await.unwrap(), (5, 2));
    assert_eq!(bank.bus.look_as("7", Freshness::InMemory, look).await.unwrap(), (5, 2));
}

/// Each question found the stream further on: the look was never answered, and what came behind it
/// waited.
#[tokio::test]
async fn a_look_is_answered_beside_a_node_that_never_stops_writing() {
    let bank = Bank::shared().await;
    bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    *bank.faults.busy.lock().unwrap() = Some(deposit(1));
    let both = async {
        let look = bank.bus.look("7", |account: &Account, _| account.cents);
        join(look, bank.bus.send::<Account>("7", Order::Deposit(100))).await
    };
    let (seen, done) = tokio::time::timeout(Duration::from_secs(5), both).await.expect("in time");
    assert!(seen.unwrap() >= 1);
    assert!(done.unwrap().events == 1);
}

/// They waited for a read that hung, however many came.
#[tokio::test]
async fn looks_that_wait_are_bounded() {
    let bank = Bank::shared().await;
    bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    *bank.faults.gate.lock().unwrap() = Some(Arc::new(Semaphore::new(0)));
    let look = |_| bank.bus.look("7", |_: &Account, _| ());
    let mut looks: FuturesUnordered<_> = (0..MAX_UNANSWERED + 10).map(look).collect();
    for _ in 0..10 {
        let refused = tokio::time::timeout(DEADLINE / 5, looks.next()).await.expect("at once");
        let refused = refused.unwrap();
        assert!(matches!(refused, Err(CommandError::Overloaded { .. })), "{refused:?}");
    }
}

/// With whatever is on its way beside it.
#[tokio::test]
async fn a_refusal_between_appends_stands_or_falls_with_them() {
    let bank = Bank::shared().await;
    bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    bank.stranger("7", &[Happened::Deposited { cents: 5 }]).await;
    let orders = [Order::Withdraw(6), Order::Deposit(1), Order::Withdraw(6), Order::Deposit(2)];
    let answers = join_all(orders.map(|order| bank.bus.send::<Account>("7", order))).await;
    assert_eq!(refusal(&answers[0]), &Refused::TooMuch(5));
    assert!(answers[1..].iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(bank.account("7").await.cents, 2);
}

#[tokio::test]
async fn many_refusals_share_one_read_and_none_is_needed_beside_an_append() {
    let bank = Bank::shared().await;
    bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    let before = bank.faults.version_reads.load(Ordering::Relaxed);
    let sent = (0..200).map(|_| bank.bus.send::<Account>("7", Order::Withdraw(1)));
    for answer in join_all(sent).await {
        assert_eq!(refusal(&answer), &Refused::TooMuch(0));
    }
    let reads = bank.faults.version_reads.load(Ordering::Relaxed) - before;
    assert!(reads < 50, "{reads} reads for 200 refusals");

    // Where nobody else writes there is nothing to ask.
    let alone = Bank::open().await;
    alone.bus.send::<Account>("7", Order::Open).await.unwrap();
    let before = alone.faults.version_reads.load(Ordering::Relaxed);
    alone.bus.send::<Account>("7", Order::Withdraw(1)).await.unwrap_err();
    alone.account("7").await;
    assert_eq!(alone.faults.version_reads.load(Ordering::Relaxed), before);
}

/// The read has to begin after the command came: one that was under way may have seen the log
/// before the other node's event.
#[tokio::test]
async fn a_read_that_was_under_way_proves_nothing_for_what_came_after_it() {
    let bank = Bank::shared().await;
    bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    let gate = Arc::new(Semaphore::new(0));
    *bank.faults.gate.lock().unwrap() = Some(Arc::clone(&gate));
    let before = bank.faults.version_reads.load(Ordering::Relaxed);
    let first = bank.bus.send::<Account>("7", Order::Withdraw(5));
    let later = async {
        while bank.faults.version_reads.load(Ordering::Relaxed) == before {
            tokio::task::yield_now().await;
        }
        // The read has its answer and is held; then the other node writes, and then this comes.
        bank.stranger("7", &[Happened::Deposited { cents: 5 }]).await;
        let (done, ()) = join(bank.bus.send::<Account>("7", Order::Withdraw(4)), async {
            tokio::task::yield_now().await;
            gate.add_permits(100);
        })
        .await;
        done
    };
    let both = tokio::time::timeout(DEADLINE, join(first, later)).await.expect("both are answered");
    assert_eq!(both.1.unwrap().events, 1);
    // The first came before the other node's event, and so may have either answer.
    assert!(both.0.is_ok() || matches!(refusal(&both.0), Refused::TooMuch(_)));
}

/// Commands that append do not wait for a read that hangs, and their commit proves the refusal.
#[tokio::test]
async fn a_read_that_hangs_holds_up_no_append() {
    let bank = Bank::shared().await;
    bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    *bank.faults.gate.lock().unwrap() = Some(Arc::new(Semaphore::new(0)));
    let before = bank.faults.version_reads.load(Ordering::Relaxed);
    let refused = bank.bus.send::<Account>("7", Order::Withdraw(5));
    let appended = async {
        while bank.faults.version_reads.load(Ordering::Relaxed) == before {
            tokio::task::yield_now().await;
        }
        bank.bus.send::<Account>("7", Order::Deposit(9)).await
    };
    let both = tokio::time::timeout(Duration::from_secs(4), join(refused, appended)).await;
    let (refused, appended) = both.expect("neither waits for the read");
    assert_eq!(refusal(&refused), &Refused::TooMuch(0));
    assert_eq!(appended.unwrap().version.get(), 2);
}

#[tokio::test]
async fn a_read_that_fails_is_an_answer_and_no_crash() {
    let bank = Bank::shared().await;
    bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    bank.faults.failing_reads.store(2, Ordering::Relaxed);
    let error = bank.bus.send::<Account>("7", Order::Withdraw(1)).await.unwrap_err();
    assert!(matches!(error, CommandError::Unchecked { .. }), "{error}");
    assert_eq!(error.class(), ErrorClass::Transient);
    let error = bank.bus.look("7", |_: &Account, _| ()).await.unwrap_err();
    assert!(error.to_string().contains("connection lost"), "{error}");
    assert_eq!(life(&bank), 1);

    // The look for a key is another read; it crashed the actor, and so the aggregates of a node.
    let alone = Bank::open().await;
    alone.bus.send::<Account>("7", Order::Open).await.unwrap();
    alone.faults.failing_reads.store(1, Ordering::Relaxed);
    let keyed = || CommandEnvelope::new(Order::Withdraw(1)).key("k");
    let error = alone.bus.send::<Account>("7", keyed()).await.unwrap_err();
    assert!(matches!(error, CommandError::Unchecked { .. }), "{error}");
    let refused = alone.bus.send::<Account>("7", keyed()).await;
    assert_eq!(refusal(&refused), &Refused::TooMuch(0));
    assert_eq!(life(&alone), 1);
}

/// The other node was faster, and the log could not be read then: the life ended, and kept the state
/// that it had assumed as a snapshot of the version at which the log has the other node's event. All
/// lives after it decided on a state that never was.
#[tokio::test]
async fn what_was_only_assumed_is_not_kept() {
    let bank = Bank::shared().await;
    bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    for _ in 0..7 {
        bank.bus.send::<Account>("7", Order::Deposit(1)).await.unwrap();
    }
    bank.faults.then(Fault::After(deposit(50)));
    bank.faults.failing_stream_reads.store(1, Ordering::Relaxed);
    let error = bank.bus.send::<Account>("7", Order::Deposit(1_000)).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    let ended = async {
        while bank.bus.live().count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, ended).await.expect("it cannot go on");
    assert_eq!(bank.account("7").await.cents, 57);
    assert_eq!(bank.account("7").await, bank.replayed("7").await);
}

/// The second was decided on what the first one would make of the state, and refused.
#[tokio::test]
async fn a_repeat_beside_its_first_gets_its_answer() {
    for bank in [Bank::open().await, Bank::shared().await] {
        let open = || CommandEnvelope::new(Order::Open).key("a");
        let send = |envelope| bank.bus.send::<Account>("7", envelope);
        let answers = join_all((0..5).map(|_| send(open()))).await;
        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers.iter().filter(|answer| !answer.duplicate).count(), 1, "{answers:?}");
        assert!(answers.iter().all(|answer| answer.version.get() == 1 && answer.events == 1));
        send(CommandEnvelope::new(Order::Deposit(5))).await.unwrap();
        let withdraw = || CommandEnvelope::new(Order::Withdraw(5)).key("b");
        let (first, second) = join(send(withdraw()), send(withdraw())).await;
        assert_eq!(first.unwrap().position, second.unwrap().position);
        assert_eq!(bank.account("7").await.cents, 0);
        assert_eq!(life(&bank), 1);
    }
}

#[tokio::test]
async fn a_repeat_of_a_refused_command_is_decided_for_itself() {
    let bank = Bank::open().await;
    bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    let withdraw = || CommandEnvelope::new(Order::Withdraw(5)).key("b");
    let send = |envelope| bank.bus.send::<Account>("7", envelope);
    let (first, deposit, again) =
        futures_util::join!(send(withdraw()), send(Order::Deposit(5).into()), send(withdraw()));
    assert_eq!(refusal(&first), &Refused::TooMuch(0));
    deposit.unwrap();
    assert!(!again.unwrap().duplicate, "a refusal has not used up the key");
}

/// A key that names another command is not answered with what the first one came to.
#[tokio::test]
async fn a_strict_key_names_one_command() {
    let bank = Bank::open().await;
    let send =
        |order: Order| bank.bus.send::<Account>("7", CommandEnvelope::new(order).strict_key("k"));
    bank.bus.send::<Account>("7", Order::Withdraw(1)).await.unwrap_err();
    // Beside each other, after each other, and in another life.
    let (open, other) = join(send(Order::Open), send(Order::Deposit(1))).await;
    assert_eq!(open.unwrap().version.get(), 1);
    assert!(matches!(other.unwrap_err(), CommandError::KeyReused { .. }));
    for _ in 0..2 {
        // It leads to an append, and to nothing.
        for order in [Order::Deposit(1), Order::Withdraw(1)] {
            let error = send(order).await.unwrap_err();
            assert!(matches!(error, CommandError::KeyReused { .. }), "{error}");
            assert_eq!(error.class(), ErrorClass::User);
        }
        assert!(send(Order::Open).await.unwrap().duplicate);
        bank.system.kill("/aggregates/account-7").unwrap();
    }
    assert_eq!(bank.account("7").await, bank.replayed("7").await);
    assert_eq!(bank.account("7").await.cents, 0);
    // Of a first that was sent without it nothing is known.
    let old = CommandEnvelope::new(Order::Deposit(1)).key("old");
    bank.bus.send::<Account>("7", old).await.unwrap();
    let other = CommandEnvelope::new(Order::Deposit(2)).strict_key("old");
    assert!(bank.bus.send::<Account>("7", other).await.unwrap().duplicate);
    let first = bank.lease().await.store.read_all(crate::event::Position::ZERO, 1).await.unwrap();
    assert!(Metadata::from_bytes(&first[0].meta).fingerprint.is_some());
}
