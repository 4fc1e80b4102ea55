use super::*;

#[test]
fn what_is_used_stays_and_the_rest_goes() {
    let mut recent = Recent::new(10);
    recent.insert(0, "used");
    recent.insert(1, "unused");
    for n in 2..1_000 {
        assert!(recent.touch(&0));
        recent.insert(n, "more");
        assert!(recent.young.len() + recent.old.len() <= 20);
    }
    assert_eq!((recent.peek(&0), recent.peek(&1)), (Some(&"used"), None));
}
