//! Notes, and who owns what.

use super::owners::ClaimError;
use super::{Notes, Owned, Owner, Owners, conformance};
use crate::event::Timestamp;
use crate::store::memory::MemoryStore;

const AT: Timestamp = Timestamp::from_micros(0);

#[tokio::test]
async fn notes_in_memory_keep_every_law() {
    conformance::run(async || MemoryStore::new()).await;
    conformance::nothing_gets_past_an_owner(&MemoryStore::new()).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn notes_in_sqlite_keep_every_law() {
    use crate::store::sqlite::tests::Home;
    let homes = std::sync::Mutex::new(Vec::new());
    conformance::run(async || {
        let home = Home::new();
        let store = home.store().await;
        homes.lock().unwrap().push(home);
        store
    })
    .await;
    conformance::nothing_gets_past_an_owner(&Home::new().store().await).await;
}

/// A node that has no aggregate of the category, and one whose program no longer has it, know it.
#[tokio::test]
async fn what_one_node_owns_no_other_gives_away() {
    let store = MemoryStore::new();
    let (one, two) = (Owners::default(), Owners::default());
    assert_eq!(two.admit("account"), Ok(()));
    one.claim(&store, "account", Owner::Aggregate, AT).await.unwrap();
    let owned = Owned { category: "account".to_owned(), owner: Owner::Aggregate };
    assert_eq!(two.hear("account", "an aggregate"), owned);
    assert_eq!(one.admit("account"), Err(owned.clone()));
    assert_eq!(two.admit("account"), Err(owned));
    assert_eq!(two.admit("accounts"), Ok(()));
    // Again, by an aggregate of whatever Rust type.
    two.claim(&store, "account", Owner::Aggregate, AT).await.unwrap();
    assert_eq!(store.owners().await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_the_system_owns_nobody_claims() {
    let store = MemoryStore::new();
    for category in ["saga", "dead_letter", "schema", "schemas", "process_passed", "$store"] {
        let owners = Owners::default();
        let error = owners.claim(&store, category, Owner::Aggregate, AT).await.unwrap_err();
        assert!(matches!(error, ClaimError::Owned(_)), "{error}");
        let owned = owners.admit(category).unwrap_err();
        assert_eq!(error.to_string(), owned.to_string());
        assert!(owned.to_string().contains(&format!("the category {category} belong to the ")));
    }
    // A newer program's part keeps what it has.
    store.own("robot", "the robots", AT).await.unwrap();
    let owners = Owners::default();
    let error = owners.claim(&store, "robot", Owner::Aggregate, AT).await.unwrap_err();
    assert!(error.to_string().contains("belong to the robots"), "{error}");
    assert_eq!(owners.of("robot"), Some(Owner::Other("the robots".into())));
}
