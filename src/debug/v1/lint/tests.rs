use super::of_clock;

#[test]
fn a_clock_that_was_set_is_shown_from_a_second_on() {
    for quiet in [0, 999_999, -999_999] {
        assert!(of_clock(quiet).is_none(), "{quiet}");
    }
    for (stepped, shown) in [(3_600_000_000, "moved +3600 s"), (-1_500_000, "moved -1 s")] {
        let lint = of_clock(stepped).unwrap();
        assert!(lint.code == "clock_stepped" && lint.text.contains(shown), "{lint:?}");
    }
}
