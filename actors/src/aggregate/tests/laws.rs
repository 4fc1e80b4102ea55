//! What a command's answer promises, whatever happens to the commits.

use futures_util::future::join_all;
use proptest::prelude::*;

use super::super::Aggregate;
use super::faulty::Fault;
use super::{Account, Bank, Happened, Order, Refused, refusal};
use crate::command::{CommandEnvelope, CommandOptions, Executed};
use crate::event::{ContentType, Decoder, Event, EventId, NewEvent, StreamId, Timestamp, Version};
use crate::store::{Append, ExpectedVersion};

fn keyed(order: Order, key: &str) -> CommandEnvelope<Order> {
    CommandEnvelope::new(order).key(key)
}

#[tokio::test]
async fn commands_change_the_state_and_refusals_do_not() {
    let bank = Bank::open().await;
    let refused = bank.bus.send::<Account>("7", Order::Deposit(5)).await;
    assert_eq!(refusal(&refused), &Refused::NotOpen);
    let opened = bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    assert_eq!((opened.events, opened.version.get()), (1, 1));
    assert_eq!(opened.stream.as_str(), "account-7");
    let many = bank.bus.send::<Account>("7", Order::Many(7)).await.unwrap();
    assert_eq!((many.events, many.version.get()), (7, 8));
    assert_eq!(many.position.unwrap().get(), 8);
    let nothing = bank.bus.send::<Account>("7", Order::Deposit(0)).await.unwrap();
    assert_eq!((nothing.events, nothing.version.get(), nothing.position), (0, 8, None));
    let refused = bank.bus.send::<Account>("7", Order::Withdraw(8)).await;
    assert_eq!(refusal(&refused), &Refused::TooMuch(7));
    assert_eq!(bank.account("7").await, bank.replayed("7").await);
    assert_eq!(bank.account("8").await, Account::default());
}

#[tokio::test]
async fn the_same_key_gets_the_same_answer() {
    let bank = Bank::open().await;
    let send = async |order, key: &str| bank.bus.send::<Account>("7", keyed(order, key)).await;
    let first = send(Order::Open, "a").await.unwrap();
    // Decided again it would be refused; as a repeat it is not.
    let again = send(Order::Open, "a").await.unwrap();
    assert_eq!(again, Executed { duplicate: true, ..first.clone() });
    send(Order::Deposit(5), "b").await.unwrap();
    let again = send(Order::Deposit(5), "b").await.unwrap();
    assert!(again.duplicate);
    assert_eq!(bank.account("7").await.cents, 5);
    // The state is right after a repeat that was decided, too.
    send(Order::Withdraw(5), "c").await.unwrap();
    assert_eq!(refusal(&send(Order::Withdraw(1), "d").await), &Refused::TooMuch(0));
    // A key belongs to its aggregate, and a refused command has not used it up.
    bank.bus.send::<Account>("8", keyed(Order::Open, "a")).await.unwrap();
    send(Order::Deposit(1), "e").await.unwrap();
    assert!(!send(Order::Withdraw(1), "d").await.unwrap().duplicate);
    assert_eq!(bank.account("7").await, bank.replayed("7").await);
}

#[tokio::test]
async fn a_busy_aggregate_shares_its_commits() {
    let bank = Bank::open().await;
    bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    let before = bank.faults.commits().len();
    let sent = (0..200).map(|_| bank.bus.send::<Account>("7", Order::Deposit(1)));
    for executed in join_all(sent).await {
        executed.unwrap();
    }
    let commits = bank.faults.commits().len() - before;
    assert!(commits < 50, "{commits} commits for 200 commands");
    assert_eq!(bank.account("7").await.cents, 200);
}

fn foreign(id: &str, n: u128) -> Append {
    let encoded = Happened::Withdrawn { cents: 1 }.encode().unwrap();
    let event = NewEvent::new(
        EventId::new(uuid::Uuid::from_u128(n)),
        encoded.event_type,
        ContentType::MessagePack,
        encoded.data,
        Timestamp::from_micros(0),
    );
    let stream = StreamId::new(format!("account-{id}")).unwrap();
    Append::new(stream, ExpectedVersion::Any, vec![event])
}

/// What another node appends makes the versions that pipelined decisions expect: were they not
/// linked, the withdrawal would be written before the deposit that it was decided on.
#[tokio::test]
async fn somebody_elses_events_are_seen_by_every_decision_after_them() {
    let bank = Bank::open().await;
    bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    bank.bus.send::<Account>("7", Order::Deposit(3)).await.unwrap();
    // One request is with the committer, then two in one request, and the stranger before those.
    bank.faults.then(Fault::None);
    bank.faults.then(Fault::After(foreign("7", 1)));
    let orders = [Order::Withdraw(1), Order::Deposit(5), Order::Withdraw(6)];
    let answers = join_all(orders.map(|order| bank.bus.send::<Account>("7", order))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let stream = StreamId::new("account-7").unwrap();
    let log = bank.lease().await.store.read_stream(&stream, Version::ZERO, 100).await.unwrap();
    let mut account = Account::default();
    for event in &log {
        account.evolve(Decoder::new().decode(event).unwrap());
        assert!(account.cents >= 0, "{log:?}");
    }
    assert_eq!(account.cents, 0);
    assert_eq!(bank.account("7").await, account);
}

#[tokio::test]
async fn a_conflict_that_does_not_end_is_told() {
    let bank = Bank::with(CommandOptions::default().retries(2)).await;
    bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    for n in 0..3 {
        bank.faults.then(Fault::After(foreign("7", n)));
    }
    let error = bank.bus.send::<Account>("7", Order::Deposit(1)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "stream account-7 is at version 4, expected version 3; reload and retry"
    );
    assert_eq!(error.class(), crate::error::ErrorClass::Transient);
    bank.bus.send::<Account>("7", Order::Deposit(1)).await.unwrap();
    assert_eq!(bank.account("7").await.cents, -2);
}

#[tokio::test]
async fn a_lost_answer_doubles_nothing_even_without_a_key() {
    for fault in [Fault::AnswerLost, Fault::NotWritten, Fault::Late] {
        let bank = Bank::open().await;
        bank.bus.send::<Account>("7", Order::Open).await.unwrap();
        bank.faults.then(fault.clone());
        let executed = bank.bus.send::<Account>("7", Order::Many(3)).await.unwrap();
        assert_eq!((executed.events, executed.version.get()), (3, 4), "{fault:?}");
        bank.bus.send::<Account>("7", Order::Deposit(1)).await.unwrap();
        assert_eq!(bank.account("7").await.cents, 4, "{fault:?}");
        assert_eq!(bank.replayed("7").await.cents, 4, "{fault:?}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Send(Vec<(i64, bool)>),
    Fault(u8),
    /// Another node withdraws or deposits, alone or while commands are sent.
    Stranger(i64),
    Beside(i64, Vec<(i64, bool)>),
    KillAggregate,
    KillCommitter,
    KillPool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let orders = prop::collection::vec((-3..6_i64, any::<bool>()), 1..12);
    let step = prop_oneof![
        5 => orders.clone().prop_map(Step::Send),
        2 => (-9..9_i64).prop_map(Step::Stranger),
        2 => (-9..9_i64, orders).prop_map(|(cents, orders)| Step::Beside(cents, orders)),
        3 => (0..4_u8).prop_map(Step::Fault),
        1 => Just(Step::KillAggregate),
        1 => Just(Step::KillCommitter),
        1 => Just(Step::KillPool),
    ];
    prop::collection::vec(step, 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever fails and whoever is killed: an acknowledged command is in the log exactly once, at
    /// the place that was told; a keyed one that is repeated until it is answered too; the
    /// balance is never below what the rule allows; and the state is that of the log.
    #[test]
    fn an_acknowledged_command_is_in_the_log_exactly_once(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(Box::pin(follow(steps)));
    }
}

async fn follow(steps: Vec<Step>) {
    let bank = Bank::shared().await;
    bank.bus.send::<Account>("7", keyed(Order::Open, "open")).await.unwrap();
    let mut number = 0_u64;
    let mut places = std::collections::BTreeMap::new();
    let mut strangers = 0_u128;
    let (mut asked, mut seen) = (Vec::new(), Vec::new());
    for step in steps {
        let (cents, orders) = match step {
            Step::Fault(kind) => {
                bank.faults.then(match kind {
                    0 => Fault::AnswerLost,
                    1 => Fault::NotWritten,
                    2 => Fault::Late,
                    _ => {
                        strangers += 1;
                        Fault::After(foreign("7", strangers << 64))
                    }
                });
                continue;
            }
            Step::KillAggregate => {
                kill(&bank, "/aggregates/account-7");
                continue;
            }
            Step::KillCommitter => {
                kill(&bank, "/resources/committer");
                continue;
            }
            Step::KillPool => {
                kill(&bank, "/resources/pool");
                continue;
            }
            Step::Stranger(cents) => (Some(cents), Vec::new()),
            Step::Beside(cents, orders) => (Some(cents), orders),
            Step::Send(orders) => (None, orders),
        };
        let sent = orders.into_iter().map(|(cents, with_key)| {
            number += 1;
            // The amount names the command: what is in the log is told apart by it.
            let order = match cents {
                5 => Order::Deposit(0),
                cents if cents < 0 => Order::Withdraw(-cents),
                cents => Order::Deposit(cents * 1_000 + i64::try_from(number).unwrap()),
            };
            send(&bank, order, number, with_key)
        });
        let before = version(&bank).await;
        let stranger = async {
            let Some(cents) = cents else { return };
            let happened = match cents {
                cents if cents < 0 => Happened::Withdrawn { cents: -cents },
                // Amounts of their own, to be told apart from those of commands.
                cents => Happened::Deposited { cents: 1_000_000 + cents },
            };
            bank.stranger("7", &[happened]).await;
        };
        let (answers, ()) = futures_util::join!(join_all(sent), stranger);
        let look = bank.bus.look("7", |account: &Account, version| (account.clone(), version));
        let look = look.await.ok();
        let after = version(&bank).await;
        seen.extend(answers.iter().map(|(_, said)| (before, after, said.clone())));
        seen.extend(look.map(|(account, version)| (after, after, Said::Looked(account, version))));
        asked.extend(answers);
    }
    for (order, said) in asked {
        let Said::Done(executed) = said else { continue };
        if executed.events == 0 {
            continue;
        }
        let before = places.insert(executed.version, (order, executed.position.unwrap()));
        assert!(before.is_none(), "two commands were told the same place: {before:?}");
    }
    let stream = StreamId::new("account-7").unwrap();
    let log = bank.lease().await.store.read_stream(&stream, Version::ZERO, 5_000).await.unwrap();
    let mut deposits = std::collections::BTreeSet::new();
    // The state of each version.
    let mut states = vec![Account::default()];
    for event in &log {
        let happened = Decoder::<Happened>::new().decode(event).unwrap();
        let mut state = states.last().unwrap().clone();
        state.evolve(happened.clone());
        states.push(state);
        if let Happened::Deposited { cents } = happened
            && cents < 1_000_000
        {
            assert!(deposits.insert(cents), "{cents} was deposited twice");
        }
        let Some((order, position)) = places.remove(&event.version) else { continue };
        assert_eq!(position, event.position);
        match (order, happened) {
            (Order::Deposit(asked), Happened::Deposited { cents }) => assert_eq!(asked, cents),
            (Order::Withdraw(asked), Happened::Withdrawn { cents }) => assert_eq!(asked, cents),
            (order, happened) => panic!("{order:?} led to {happened:?}"),
        }
    }
    assert_eq!(places.len(), 0, "acknowledged and not in the log: {places:?}");
    for (before, after, said) in seen {
        let in_time = |version: Version| before <= version && version <= after;
        match said {
            Said::TooMuch(cents) => {
                let mut versions = (before.get()..=after.get()).map(|at| at as usize);
                assert!(
                    versions.any(|at| states[at].cents == cents),
                    "refused with {cents} cents, which it did not have from {before} to {after}"
                );
            }
            Said::Done(executed) if executed.events == 0 => {
                assert!(in_time(executed.version), "{executed:?} from {before} to {after}");
            }
            Said::Looked(account, version) => {
                assert!(version >= before, "looked at {version}, {before} was there before");
                assert_eq!(account, states[version.get() as usize]);
            }
            Said::Done(_) | Said::Failed => {}
        }
    }
    let account = loop {
        // The pool may have been killed with the last step.
        match bank.bus.look("7", |account: &Account, _| account.clone()).await {
            Ok(account) => break account,
            Err(error) => assert_eq!(error.class(), crate::error::ErrorClass::Transient),
        }
    };
    assert_eq!(account, bank.replayed("7").await);
    bank.system.shutdown(std::time::Duration::from_secs(5)).await;
}

/// What a command, or a look, was told.
#[derive(Debug, Clone)]
enum Said {
    Done(Executed),
    TooMuch(i64),
    Looked(Account, Version),
    Failed,
}

async fn version(bank: &Bank) -> Version {
    let stream = StreamId::new("account-7").unwrap();
    loop {
        // A pool that was killed closes the lease before it.
        if let Ok(version) = bank.lease().await.store.stream_version(&stream).await {
            return version;
        }
    }
}

fn kill(bank: &Bank, path: &str) {
    // It may not be live.
    let _ = bank.system.kill(path);
}

/// Sends until the answer is certain if there is a key, once otherwise.
async fn send(bank: &Bank, order: Order, number: u64, with_key: bool) -> (Order, Said) {
    loop {
        let mut envelope = CommandEnvelope::new(order.clone());
        if with_key {
            envelope = envelope.key(number.to_string());
        }
        match bank.bus.send::<Account>("7", envelope).await {
            Ok(executed) => return (order, Said::Done(executed)),
            Err(error) => match error.rejection::<Refused>() {
                Some(Refused::TooMuch(cents)) => return (order, Said::TooMuch(*cents)),
                Some(refused) => panic!("{refused}"),
                None => {
                    assert_eq!(error.class(), crate::error::ErrorClass::Transient, "{error}");
                    if !with_key {
                        return (order, Said::Failed);
                    }
                }
            },
        }
    }
}
