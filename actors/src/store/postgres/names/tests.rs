use super::{GENERATION, Generations};
use crate::event::StreamId;

/// Guards against a cache that grows with every stream that was ever read.
#[test]
fn what_is_not_read_again_goes() {
    let mut names = Generations::default();
    let name = |number: i64| StreamId::new(format!("s-{number}")).unwrap();
    names.put(-1, name(-1));
    names.put(-2, name(-2));
    for number in 0..2 * GENERATION as i64 {
        names.put(number, name(number));
        if number % 1_000 == 0 {
            assert_eq!(names.get(-1), Some(name(-1)), "it is read all the time");
        }
        assert!(names.young.len() + names.old.len() <= 2 * GENERATION);
    }
    assert_eq!(names.get(-2), None);
}
