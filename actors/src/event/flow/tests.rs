use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn id(n: u64) -> Uuid {
    Uuid::from_u128(u128::from(n) + 1)
}

fn link(n: u64, correlation: Option<u64>, causation: Option<u64>) -> Link {
    Link { id: id(n), correlation: correlation.map(id), causation: causation.map(id) }
}

#[test]
fn a_conversation_is_checked_link_by_link() {
    let good = [
        link(1, None, None),
        link(2, Some(1), Some(1)),
        link(3, Some(1), Some(2)),
        link(4, Some(9), None),
        link(5, Some(9), Some(4)),
    ];
    assert_eq!(check_chain(good), []);
    let bad = [link(1, None, None), link(2, Some(7), Some(1)), link(3, Some(1), Some(8))];
    let faults = check_chain(bad);
    assert!(matches!(faults[0], ChainFault::OtherConversation { wanted, .. } if wanted == id(1)));
    assert!(matches!(faults[1], ChainFault::UnknownCause { cause, .. } if cause == id(8)));
    assert_eq!(faults.len(), 2);
}

proptest! {
    /// What `caused_by` makes is a chain, whatever is caused by what.
    #[test]
    fn what_metadata_makes_is_a_chain(causes in vec(any::<prop::sample::Index>(), 1..60)) {
        let mut made: Vec<(Uuid, Metadata)> = vec![(id(0), Metadata::default())];
        for (n, cause) in causes.iter().enumerate() {
            let (cause, meta) = &made[cause.index(made.len())];
            let meta = meta.caused_by(*cause);
            made.push((id(n as u64 + 1), meta));
        }
        let links = made.iter().map(|(id, meta)| Link {
            id: *id,
            correlation: meta.correlation_id,
            causation: meta.causation_id,
        });
        prop_assert_eq!(check_chain(links), []);
    }

    /// No message is taken twice, memory is bounded, and what is inside the window and not more
    /// than it remembers is never refused.
    #[test]
    fn no_message_is_taken_twice(
        sent in vec((0..80_u64, 0..2_000_i64), 1..300),
        capacity in 1..60_usize,
    ) {
        let second = 1_000_000;
        let width = Duration::from_secs(100);
        let mut window = ReplayWindow::new(width, Duration::from_secs(5), capacity);
        let mut taken = BTreeSet::new();
        let mut now = 0;
        for (n, step) in sent {
            now += step * second / 1_000;
            // A message's time belongs to it.
            let at = (n as i64) * 3 * second;
            match window.check(id(n), Timestamp::from_micros(at), Timestamp::from_micros(now)) {
                Freshness::Fresh => prop_assert!(taken.insert(n), "{n} was taken twice"),
                Freshness::Repeat => prop_assert!(taken.contains(&n)),
                Freshness::TooNew => prop_assert!(at > now + 5 * second),
                Freshness::TooOld => {
                    let old = at < now - 100 * second;
                    prop_assert!(old || taken.len() >= capacity, "{n} was refused for nothing");
                }
            }
            prop_assert!(window.len() <= capacity);
        }
    }

    /// Whatever is altered in a trail shows.
    #[test]
    fn an_altered_trail_shows(
        payloads in vec(vec(any::<u8>(), 0..20), 2..6),
        which in any::<prop::sample::Index>(),
        how in 0..4_u8,
    ) {
        let mut trail = Trail::of(&payloads[0]);
        for (n, payload) in payloads[1..].iter().enumerate() {
            trail.step(format!("step {n}"), Timestamp::from_micros(n as i64), payload);
        }
        let last = payloads.last().unwrap();
        prop_assert_eq!(trail.verify(last), Ok(()));
        let json = serde_json::to_string(&trail).unwrap();
        prop_assert_eq!(serde_json::from_str::<Trail>(&json).unwrap(), trail.clone());
        let at = which.index(trail.steps.len());
        match how {
            0 => trail.steps[at].name.push('!'),
            1 => trail.steps[at].output = Checksum::of(b"something else"),
            2 => trail.origin = Checksum::of(b"something else entirely"),
            _ => trail.steps[at].at = Timestamp::from_micros(-1),
        }
        prop_assert!(trail.verify(last).is_err());
    }
}

#[test]
fn a_step_that_is_left_out_or_moved_shows() {
    let mut trail = Trail::of(b"raw");
    trail.step("clean", Timestamp::from_micros(1), b"clean");
    trail.step("enrich", Timestamp::from_micros(2), b"rich");
    let mut without = trail.clone();
    without.steps.remove(0);
    assert_eq!(
        without.verify(b"rich").unwrap_err().to_string(),
        "step 1 (enrich) of the trail is not as it was written, or not in its place"
    );
    let mut moved = trail.clone();
    moved.steps.swap(0, 1);
    assert!(moved.verify(b"clean").is_err());
    assert!(matches!(trail.verify(b"raw"), Err(TrailFault::Payload { .. })));
    assert!(serde_json::from_str::<Checksum>("\"abc\"").is_err());
}
