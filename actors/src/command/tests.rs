//! What passes a command on its way.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mister_smith_supervisors::ErrorClass;
use uuid::Uuid;

use super::{CommandEnvelope, CommandError, CommandInfo, Executed, Middleware, Next};
use crate::aggregate::tests::{Account, Bank, Order};
use crate::aggregate::{self, SnapshotPolicy, snapshot_policy::Since};
use crate::event::{Metadata, Version};
use crate::store::RecordedType;

/// Notes who passes, and stops withdrawals without a name.
#[derive(Debug, Default)]
struct Guard(Arc<Mutex<Vec<String>>>);

impl Middleware for Guard {
    fn handle<'a>(
        &'a self,
        mut info: CommandInfo,
        next: Next<'a>,
    ) -> BoxFuture<'a, Result<Executed, CommandError>> {
        async move {
            let (stream, key) = (info.stream.to_string(), info.key.clone());
            self.0.lock().unwrap().push(format!("{} to {stream} {key:?}", info.command));
            if key.as_deref() == Some("forbidden") {
                return Err(CommandError::Denied { reason: "not with this key".to_owned() });
            }
            info.metadata.headers.insert("checked".to_owned(), "yes".to_owned());
            let answer = next.run(info).await;
            self.0.lock().unwrap().push(format!("answered: {}", answer.is_ok()));
            answer
        }
        .boxed()
    }
}

#[tokio::test]
async fn a_middleware_sees_changes_and_stops_commands() {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let second = Guard::default();
    let inner = Arc::clone(&second.0);
    let bank = Bank::guarded(vec![Arc::new(Guard(Arc::clone(&seen))), Arc::new(second)]).await;
    let actor = Some("ada".to_owned());
    let open = CommandEnvelope::new(Order::Open)
        .key("k")
        .metadata(Metadata { actor, ..Metadata::default() });
    bank.bus.send::<Account>("7", open).await.unwrap();
    let forbidden = CommandEnvelope::new(Order::Deposit(1)).key("forbidden");
    let error = bank.bus.send::<Account>("7", forbidden).await.unwrap_err();
    assert_eq!(error.to_string(), "not allowed: not with this key");
    assert_eq!(error.class(), ErrorClass::User);
    assert_eq!(
        *seen.lock().unwrap(),
        [
            "Order to account-7 Some(\"k\")",
            "answered: true",
            "Order to account-7 Some(\"forbidden\")"
        ]
    );
    assert_eq!(inner.lock().unwrap().len(), 2, "the second saw only what the first let through");

    // What it put into the metadata is in the log, with what was there.
    let stream = aggregate::stream_of::<Account>("7").unwrap();
    let log = bank.lease().await.store.read_stream(&stream, Version::ZERO, 10).await.unwrap();
    let metadata = Metadata::from_bytes(&log[0].meta);
    assert_eq!(metadata.actor.as_deref(), Some("ada"));
    assert_eq!(metadata.headers["checked"], "yes");

    // A command that an event caused is of the same conversation.
    let caused = CommandEnvelope::new(Order::Deposit(1)).caused_by(&log[0]);
    bank.bus.send::<Account>("7", caused).await.unwrap();
    let log = bank.lease().await.store.read_stream(&stream, Version::ZERO, 10).await.unwrap();
    let metadata = Metadata::from_bytes(&log[1].meta);
    let cause: Uuid = *log[0].id.as_uuid();
    assert_eq!((metadata.causation_id, metadata.correlation_id), (Some(cause), Some(cause)));
    assert_eq!(metadata.actor.as_deref(), Some("ada"));
}

#[test]
fn a_type_is_checked_before_its_first_command() {
    let recorded = |name: &str, schema_version| RecordedType { name: name.into(), schema_version };
    aggregate::check::<Account>(&[recorded("account.opened", 1), recorded("other", 7)]).unwrap();
    let error = aggregate::check::<Account>(&[recorded("account.opened", 2)]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "events of account: account.opened has schema version 2, this program knows versions up \
         to 1; run the newer program"
    );
}

#[test]
fn a_snapshot_is_due_by_count_by_bytes_and_by_age() {
    let since = |events, bytes, seconds| Since { events, bytes, age: Duration::from_secs(seconds) };
    let policy = SnapshotPolicy::every(100).bytes(5_000).age(Duration::from_secs(60));
    assert!(!policy.is_due(since(99, 4_999, 59)));
    assert!(policy.is_due(since(100, 0, 0)));
    assert!(policy.is_due(since(1, 5_000, 0)));
    assert!(policy.is_due(since(1, 0, 60)));
    assert!(!policy.is_due(since(0, 9_999, 999)), "nothing is new");
    assert!(!SnapshotPolicy::NEVER.is_due(since(u64::MAX, u64::MAX, 9_999)));
    assert!(!policy.is_due_at_the_end(since(99, 0, 0)));
    let at_the_end = policy.on_passivation(10);
    assert!(at_the_end.is_due_at_the_end(since(10, 0, 0)));
    assert!(!at_the_end.is_due_at_the_end(since(9, 0, 0)));
}
