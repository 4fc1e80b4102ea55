use super::*;

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
const WEEK: Duration = Duration::from_secs(7 * DAY);
const START: i64 = 1_700_000_000_000_000;

/// What is believed, as hours after the start, of a clock that is so many hours wrong.
fn hours(believed: &mut Believed, counted: u64, wrong: i64) -> i64 {
    let hour = micros(Duration::from_secs(HOUR));
    let counted_us = i64::try_from(counted).unwrap() * hour;
    let wall = START + counted_us + wrong * hour;
    let now = believed.now(wall, Duration::from_secs(counted * HOUR), WEEK);
    (now - START) / hour
}

#[test]
fn a_clock_that_jumps_ahead_and_back_hurries_nothing() {
    let mut believed = Believed { ahead: START, said: None };
    assert_eq!(hours(&mut believed, 1, 0), 1);
    for counted in 2..100 {
        assert_eq!(hours(&mut believed, counted, 7 * 24), counted as i64);
    }
    for counted in 100..200 {
        assert_eq!(hours(&mut believed, counted, 0), counted as i64);
    }
    // It was back in between: the days before count for nothing.
    for counted in 200..200 + 7 * 24 {
        assert_eq!(hours(&mut believed, counted, 7 * 24), counted as i64);
    }
}

#[test]
fn a_clock_that_was_set_right_is_believed_once_the_keys_are_old_enough() {
    let mut believed = Believed { ahead: START, said: None };
    let (wrong, week) = (100 * 24, 7 * 24);
    for counted in 1..=week {
        assert_eq!(hours(&mut believed, counted, wrong), counted as i64);
    }
    assert_eq!(hours(&mut believed, week + 1, wrong), week as i64 + 1 + wrong);
    // Back at once, and an hour is no jump.
    assert_eq!(hours(&mut believed, week + 2, 0), week as i64 + 2);
    assert_eq!(hours(&mut believed, week + 3, 1), week as i64 + 4);
}
