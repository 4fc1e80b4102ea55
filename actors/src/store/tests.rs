use super::{conformance, memory::MemoryStore, *};

#[tokio::test]
async fn the_memory_store_keeps_every_law() {
    conformance::run(async || MemoryStore::new()).await;
    conformance::snapshots::run(async || MemoryStore::new()).await;
}

#[test]
fn a_key_depends_on_where_its_parts_end() {
    let key = IdempotencyKey::of(["ab", "c"]);
    assert_eq!(key, IdempotencyKey::of(["ab", "c"]));
    assert_ne!(key, IdempotencyKey::of(["a", "bc"]));
    assert_ne!(key, IdempotencyKey::of(["abc"]));
    assert_ne!(key, IdempotencyKey::of(["ab", "c", ""]));
    // Stored keys have to mean the same for ever.
    assert_eq!(format!("{key:?}"), "IdempotencyKey(43ee655579de01ca739b3f95c1c2d3f4)");
}

#[test]
fn errors_name_both_sides_and_the_cure() {
    let conflict = AppendError::Conflict {
        stream: StreamId::new("order-1").unwrap(),
        expected: ExpectedVersion::Exact(Version::new(3)),
        actual: Version::new(5),
    };
    assert_eq!(
        conflict.to_string(),
        "stream order-1 is at version 5, expected version 3; reload and retry"
    );
    assert_eq!(conflict.class(), crate::error::ErrorClass::Transient);
}

#[tokio::test]
async fn claims_in_memory_keep_every_law() {
    use super::claims::{conformance, memory::MemoryClaims};
    conformance::run(true, async || MemoryClaims::new()).await;
}
