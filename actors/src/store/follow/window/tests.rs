//! The window against a model that keeps everything.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { at_once: 3, events: 12, bytes: 100 };

fn at(position: u64) -> Position {
    Position::new(position)
}

/// An event of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waits,
    Runs,
    Settled,
}

#[derive(Debug, Clone)]
enum Do {
    /// Read an event of a lane, after so many positions that are not wanted.
    Push {
        lane: u8,
        bytes: usize,
        skip: u64,
    },
    Pass(u64),
    Begin,
    /// Settle one of those that run.
    Settle(usize),
    /// Settle something that does not run.
    Nonsense(u64),
    /// Everything but the mark, or the prefix, is lost.
    Crash {
        mark: bool,
    },
}

fn anything() -> impl Strategy<Value = Do> {
    prop_oneof![
        6 => (0..4_u8, 0..30_usize, 0..3_u64).prop_map(|(lane, bytes, skip)| Do::Push { lane, bytes, skip }),
        1 => (0..5_u64).prop_map(Do::Pass),
        6 => Just(Do::Begin),
        5 => (0..8_usize).prop_map(Do::Settle),
        1 => (0..60_u64).prop_map(Do::Nonsense),
        1 => any::<bool>().prop_map(|mark| Do::Crash { mark }),
    ]
}

/// Every event that was ever read, by position, with its lane.
#[derive(Debug, Default)]
struct Model {
    log: Vec<(Position, u8, usize)>,
    states: BTreeMap<Position, State>,
    frontier: Position,
}

impl Model {
    fn open(&self) -> BTreeSet<Position> {
        let open = self.states.iter().filter(|(_, state)| **state != State::Settled);
        open.map(|(at, _)| *at).collect()
    }

    fn prefix(&self) -> Position {
        self.open().first().map_or(self.frontier, |first| first.minus(1))
    }

    fn running(&self) -> Vec<Position> {
        let running = self.states.iter().filter(|(_, state)| **state == State::Runs);
        running.map(|(at, _)| *at).collect()
    }

    fn lane(&self, position: Position) -> u8 {
        self.log.iter().find(|(at, ..)| *at == position).expect("it is in the log").1
    }

    /// Those that may begin: the first of a lane that is not settled, if it does not run.
    fn ready(&self) -> Option<Position> {
        if self.running().len() >= BOUNDS.at_once {
            return None;
        }
        let mut lanes = BTreeSet::new();
        self.open()
            .into_iter()
            .find(|at| lanes.insert(self.lane(*at)) && self.states[at] == State::Waits)
    }
}

proptest! {
    #[test]
    fn it_does_what_the_model_does(steps in vec(anything(), 0..200)) {
        let mut window = Window::<u64>::new(BOUNDS, Position::ZERO);
        let mut model = Model::default();
        for step in steps {
            match step {
                Do::Push { lane, bytes, skip } => {
                    if window.room() == 0 {
                        continue;
                    }
                    // After a crash the same events are read again.
                    let known = model.log.iter().find(|(at, ..)| *at > window.frontier()).copied();
                    let (position, lane, bytes) = known.unwrap_or_else(|| {
                        // What was passed over has nothing in it.
                        let end = window.frontier().max(model.frontier).get();
                        let new = (at(end + skip + 1), lane, bytes);
                        model.log.push(new);
                        new
                    });
                    window.push(position, lane.to_string().into(), bytes, position.get());
                    model.states.entry(position).or_insert(State::Waits);
                    model.frontier = model.frontier.max(position);
                }
                Do::Pass(by) => {
                    // Not over what is known to be there.
                    if model.log.iter().all(|(at, ..)| *at <= window.frontier()) {
                        window.passed(at(window.frontier().get() + by));
                        model.frontier = model.frontier.max(window.frontier());
                    }
                }
                Do::Begin => {
                    let read: BTreeSet<_> = model.log.iter()
                        .map(|(at, ..)| *at)
                        .filter(|at| *at <= window.frontier())
                        .collect();
                    // What has not come again yet cannot begin; it is behind everything that has.
                    let wanted = model.ready().filter(|at| read.contains(at));
                    let began = window.begin();
                    prop_assert_eq!(began.map(|(at, _)| at), wanted);
                    if let Some((position, event)) = began {
                        prop_assert_eq!(event, position.get());
                        model.states.insert(position, State::Runs);
                    }
                }
                Do::Settle(which) => {
                    let running = model.running();
                    if let Some(position) = running.get(which % running.len().max(1)) {
                        window.settle(*position);
                        model.states.insert(*position, State::Settled);
                    }
                }
                Do::Nonsense(position) => {
                    if model.states.get(&at(position)) != Some(&State::Runs) {
                        window.settle(at(position));
                    }
                }
                Do::Crash { mark } => {
                    let (prefix, kept) = (window.prefix(), window.mark());
                    window = Window::new(BOUNDS, prefix);
                    if mark {
                        window = window.resume(kept);
                        for state in model.states.values_mut().filter(|one| **one == State::Runs) {
                            *state = State::Waits;
                        }
                    } else {
                        // All beyond the prefix comes again.
                        model.states.retain(|at, _| *at <= prefix);
                        model.frontier = prefix;
                    }
                    continue;
                }
            }
            let running = model.running().len();
            prop_assert_eq!(window.running(), running);
            let read: BTreeSet<_> = model.open().into_iter()
                .filter(|at| *at <= window.frontier())
                .collect();
            prop_assert_eq!(window.len(), read.len());
            prop_assert_eq!(window.mark().open, model.open());
            if !window.goes_on() {
                prop_assert_eq!(window.prefix(), model.prefix());
                prop_assert!(window.prefix() <= window.frontier());
            }
            let bytes: usize = read.iter()
                .map(|at| model.log.iter().find(|one| one.0 == *at).map_or(0, |one| one.2))
                .sum();
            let full = bytes >= BOUNDS.bytes || read.len() >= BOUNDS.events;
            prop_assert_eq!(window.room() == 0, full);
        }
    }
}

#[test]
fn a_lane_that_waits_holds_up_no_other() {
    let bounds = Bounds { at_once: 2, events: 1_000, bytes: 1_000_000 };
    let mut window = Window::new(bounds, Position::ZERO);
    window.push(at(1), "a".into(), 1, ());
    assert_eq!(window.begin(), Some((at(1), ())));
    for position in 2..=500 {
        window.push(at(position), "b".into(), 1, ());
        assert_eq!(window.begin(), Some((at(position), ())));
        window.settle(at(position));
    }
    assert_eq!((window.prefix(), window.beyond(), window.len()), (at(0), 499, 1));
    let mark = window.mark();
    assert_eq!((mark.frontier, mark.open), (at(500), BTreeSet::from([at(1)])));
    window.settle(at(1));
    assert_eq!((window.prefix(), window.beyond()), (at(500), 0));
}
