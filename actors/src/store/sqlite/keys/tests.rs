use super::*;

fn key(n: u64) -> IdempotencyKey {
    IdempotencyKey::of([n.to_le_bytes()])
}

#[test]
fn the_newest_are_known_and_memory_is_bounded() {
    let mut keys = Keys::new(BUCKET * 2);
    let all = BUCKET as u64 * 4;
    (1..=all).for_each(|n| keys.insert(&key(n), Position::new(n)));
    assert!(keys.len() <= BUCKET * 2);
    assert_eq!(keys.find(&key(all)), Some(Position::new(all)));
    assert_eq!(keys.find(&key(all - BUCKET as u64)), Some(Position::new(all - BUCKET as u64)));
    assert_eq!(keys.find(&key(1)), None);
    keys.forget(Position::new(all - 1));
    assert_eq!(keys.find(&key(all)), Some(Position::new(all)));
    keys.forget(Position::new(all));
    assert_eq!((keys.find(&key(all)), keys.len()), (None, 0));
}
