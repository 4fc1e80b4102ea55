//! What was answered, read, written down and shown, held against the log.

use std::collections::{BTreeMap, BTreeSet};

use mister_smith::actors::event::RecordedEvent;
use serde_json::Value;

use super::program::{Card, Change, IsSo, Turn, is_watched};

/// An answer, and how far the stream was before it was asked for and after it was given.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) n: u64,
    pub(super) lamp: String,
    pub(super) before: u64,
    pub(super) after: u64,
    /// `None`: it was only looked at.
    pub(super) turn: Option<Turn>,
    pub(super) what: What,
    /// Who has answered.
    #[expect(dead_code, reason = "a failure shows it")]
    pub(super) by: String,
}

#[derive(Debug)]
pub(super) enum What {
    Done { version: u64, events: u64 },
    Refused(IsSo),
    Looked { state: IsSo, version: u64 },
}

/// A card that was read, and the version that it had to have at least.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) lamp: String,
    pub(super) at_least: u64,
    pub(super) card: Card,
}

/// The log, folded by the tests themselves.
#[derive(Debug)]
pub(super) struct Log {
    lamps: BTreeMap<String, History>,
    /// The types of each watch's events.
    watches: BTreeMap<u64, Vec<String>>,
    /// What the bell has heard.
    bell: Vec<u64>,
}

/// A lamp after each of its events, from none on.
#[derive(Debug)]
struct History {
    states: Vec<IsSo>,
    digests: Vec<u64>,
    orders: Vec<(u64, Change)>,
    positions: Vec<u64>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            states: vec![IsSo::default()],
            digests: vec![0],
            orders: Vec::new(),
            positions: Vec::new(),
        }
    }
}

impl Log {
    /// # Panics
    /// Positions or versions have holes, or something became a dead letter.
    pub(super) fn of(events: &[RecordedEvent]) -> Self {
        let mut log = Self { lamps: BTreeMap::new(), watches: BTreeMap::new(), bell: Vec::new() };
        let mut versions: BTreeMap<&str, u64> = BTreeMap::new();
        for (place, event) in (1..).zip(events) {
            assert_eq!(event.position.get(), place, "positions have no holes");
            let stream = event.stream.as_str();
            let version = versions.entry(stream).or_default();
            *version += 1;
            assert_eq!(event.version.get(), *version, "versions have no holes: {event:?}");
            let n = || {
                let data: Value = rmp_serde::from_slice(&event.data).unwrap();
                data["n"].as_u64().unwrap_or_else(|| panic!("{data}"))
            };
            match stream.split_once('-').unwrap() {
                ("lamp", lamp) => {
                    let change = match &*event.event_type {
                        "lamp.on" => Change::On,
                        "lamp.off" => Change::Off,
                        "lamp.marked" => Change::Marked,
                        other => panic!("{other}"),
                    };
                    log.lamps.entry(lamp.to_owned()).or_default().push(n(), change, place);
                }
                ("watch", id) => {
                    assert_eq!(n().to_string(), id);
                    log.watches.entry(n()).or_default().push(event.event_type.to_string());
                }
                ("bell", _) => log.bell.push(n()),
                ("process_passed", _) => {}
                _ => panic!("what is that? {event:?} {:?}", String::from_utf8_lossy(&event.data)),
            }
        }
        log
    }

    pub(super) fn lamps(&self) -> impl Iterator<Item = (&str, u64)> {
        self.lamps.iter().map(|(lamp, history)| (&**lamp, history.orders.len() as u64))
    }

    /// How many events of lamps there are.
    pub(super) fn events_of_lamps(&self) -> usize {
        self.lamps.values().map(|history| history.orders.len()).sum()
    }

    /// Every order that was answered as done is there, where it was said to be, once; no other is;
    /// and each answer is that of a state which the lamp had between question and answer.
    pub(super) fn agrees_with(&self, said: &[Said]) {
        let mut unanswered: BTreeMap<u64, (&str, usize)> = BTreeMap::new();
        for (lamp, history) in &self.lamps {
            for (version, (n, _)) in (1..).zip(&history.orders) {
                let twice = unanswered.insert(*n, (lamp, version));
                assert!(twice.is_none(), "order {n} is there twice: {lamp} {version}, {twice:?}");
            }
        }
        let nothing = History::default();
        for one in said {
            let history = self.lamps.get(&one.lamp).unwrap_or(&nothing);
            let in_time = |version: u64| one.before <= version && version <= one.after;
            match &one.what {
                What::Done { version, events: 1 } => {
                    let place = unanswered.remove(&one.n);
                    assert_eq!(place, Some((&*one.lamp, *version as usize)), "{one:?}");
                    assert!(*version > one.before && in_time(*version), "{one:?}");
                    let before = history.states[*version as usize - 1];
                    let (_, change) = history.orders[*version as usize - 1];
                    assert_eq!(before.decided(one.turn.unwrap()), Ok(Some(change)), "{one:?}");
                }
                What::Done { version, events } => {
                    assert_eq!(*events, 0, "{one:?}");
                    assert!(in_time(*version), "nothing to do on an old state: {one:?}");
                    let state = history.states[*version as usize];
                    assert_eq!(state.decided(one.turn.unwrap()), Ok(None), "{one:?}");
                }
                What::Refused(state) => {
                    let version = state.turns + state.marks;
                    assert!(in_time(version), "refused on an old state: {one:?}");
                    assert_eq!(&history.states[version as usize], state, "{one:?}");
                    assert_eq!(state.decided(one.turn.unwrap()), Err(*state), "{one:?}");
                }
                What::Looked { state, version } => {
                    assert!(in_time(*version), "an old state was shown: {one:?}");
                    assert_eq!(&history.states[*version as usize], state, "{one:?}");
                }
            }
        }
        assert!(
            unanswered.is_empty(),
            "in the log, and answered as something else: {unanswered:?}"
        );
    }

    /// A card is what the lamp's events up to some version make, and not an older one.
    pub(super) fn agrees_with_card(&self, read: &Read) {
        let card = &read.card;
        assert!(
            card.events >= read.at_least,
            "a reader does not find what is acknowledged: {read:?}"
        );
        let history = &self.lamps[&read.lamp];
        let state = history.states[card.events as usize];
        assert_eq!((card.on, card.turns), (state.on, state.turns), "{read:?}");
        match (card.made_by, &card.more) {
            (1, None) => {}
            (2, Some(more)) => {
                let digest = history.digests[card.events as usize];
                assert_eq!((more.marks, more.digest), (state.marks, digest), "{read:?}");
            }
            _ => panic!("half of it is of the other version: {read:?}"),
        }
    }

    /// Every watch that had to be set has rung once, and the bell has heard each once.
    ///
    /// # Errors
    /// What is still missing. What is there twice is a panic.
    pub(super) fn all_have_rung(&self) -> Result<(), String> {
        let on = self.lamps.values().flat_map(|history| &history.orders);
        let on = on.filter(|(n, change)| *change == Change::On && is_watched(*n));
        let wanted: BTreeSet<u64> = on.map(|(n, _)| *n).collect();
        for (n, events) in &self.watches {
            assert!(wanted.contains(n), "a watch for an order that is not there: {n}");
            let all = ["watch.set", "watch.rang"];
            assert!(events.len() <= 2 && *events == all[..events.len()], "{n}: {events:?}");
        }
        let heard: BTreeSet<u64> = self.bell.iter().copied().collect();
        assert_eq!(heard.len(), self.bell.len(), "heard twice: {:?}", self.bell);
        assert!(heard.is_subset(&wanted));
        let missing: Vec<_> = wanted.difference(&heard).map(|n| (n, self.watches.get(n))).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("not heard: {missing:?}")) }
    }

    /// Every event of a lamp is in the herald's diary. The first time that one comes, all before it
    /// in its stream have come.
    ///
    /// # Errors
    /// How many are still missing.
    pub(super) fn all_are_in_the_diary(&self, diary: &str) -> Result<(), String> {
        let mut heard: BTreeMap<&str, u64> = BTreeMap::new();
        for line in diary.lines() {
            let mut words = line.split(' ');
            let lamp = words.next().unwrap().strip_prefix("lamp-").unwrap();
            let mut number = || words.next().unwrap().parse::<u64>().unwrap();
            let (version, position) = (number(), number());
            assert_eq!(self.lamps[lamp].positions[version as usize - 1], position, "{line}");
            let last = heard.entry(lamp).or_default();
            assert!(version <= *last + 1, "{lamp}: {version} came after {last}");
            *last = version.max(*last);
        }
        let wanted: BTreeMap<&str, u64> = self.lamps().collect();
        if heard == wanted { Ok(()) } else { Err(format!("{heard:?} of {wanted:?}")) }
    }
}

impl History {
    fn push(&mut self, n: u64, change: Change, position: u64) {
        let mut state = self.states[self.orders.len()];
        state.changed(change);
        self.states.push(state);
        let digest = self.digests[self.orders.len()];
        self.digests.push(digest.wrapping_mul(31).wrapping_add(n));
        self.orders.push((n, change));
        self.positions.push(position);
    }
}
