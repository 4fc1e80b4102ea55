use super::{MAX_STREAMS, Memory, Remembered};
use crate::event::{StreamId, Version};
use crate::store::plan::StreamState;

fn at(version: u64) -> StreamState {
    StreamState { version: Version::new(version), deleted: false }
}

#[test]
fn others_move_what_is_remembered_and_nothing_else() {
    let mut memory = Memory::default();
    let name = |number: i64| StreamId::new(format!("s-{number}")).unwrap();
    for number in 1..=3 {
        memory.put(name(number), Remembered { number, state: at(1) });
    }
    // Again, as its writer does with each append.
    memory.put(name(2), Remembered { number: 2, state: at(4) });
    memory.moved(2, Version::new(7), true);
    memory.moved(9, Version::new(7), false);
    let states: Vec<_> = (1..=3).map(|n| memory.get(&name(n)).unwrap().state).collect();
    assert_eq!(states, [at(1), StreamState { version: Version::new(7), deleted: true }, at(1)]);
    memory.forget();
    memory.moved(2, Version::new(8), false);
    assert!(memory.get(&name(2)).is_none());
}

#[test]
fn it_starts_over_beyond_its_bound() {
    let mut memory = Memory::default();
    for number in 0..=MAX_STREAMS as i64 {
        let name = StreamId::new(format!("s-{number}")).unwrap();
        let forgot = memory.put(name, Remembered { number, state: at(1) });
        assert_eq!(forgot, number == MAX_STREAMS as i64, "whoever puts it in is told");
    }
    assert_eq!(memory.streams.len(), 1);
    assert_eq!(memory.by_number.len(), 1);
}
