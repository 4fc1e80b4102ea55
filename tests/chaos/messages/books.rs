//! The soak's own books: what was acknowledged to its sender, and what is to come of it.

use std::collections::{BTreeMap, BTreeSet};

use mister_smith::actors::dead_letter::LetterEvent;
use mister_smith::actors::event::{Decoder, Metadata, RecordedEvent};

use super::handlers::{Noted, is_watched};
use super::items::{Item, Kind, NAME, Way};

/// What is to come of a message, with one who handles it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Effect,
    Letter,
}

/// Who, and the name of the message.
type Place = (String, String);

/// What was said to senders.
#[derive(Debug, Default)]
pub(super) struct Books {
    acknowledged: BTreeSet<Item>,
    /// Those that it was said of that they will never be taken.
    refused: BTreeSet<Item>,
    /// In which life of the node a message was published on the bus.
    published: BTreeMap<Item, u64>,
}

/// What has come of all of them.
#[derive(Debug, Default)]
pub(super) struct Found {
    effects: BTreeMap<Place, u64>,
    letters: BTreeMap<Place, Vec<String>>,
}

impl Found {
    /// From the log, and the names of what the batches have had an effect with.
    pub(super) fn in_log(log: &[RecordedEvent], audited: &str) -> Self {
        let mut found = Self::default();
        for name in audited.lines() {
            found.effect("audit", name);
        }
        let (notes, letters) = (Decoder::<Noted>::new(), Decoder::<LetterEvent>::new());
        for event in log {
            match &*event.event_type {
                "tally.noted" => {
                    let Noted::Noted { handler, what } = notes.decode(event).unwrap();
                    found.effect(&handler, &what);
                }
                "dead_letter.kept" => {
                    let LetterEvent::Kept(letter) = letters.decode(event).unwrap() else {
                        panic!("{} is no letter", event.position);
                    };
                    let mut headers = Metadata::from_bytes(&letter.meta).headers;
                    let name = headers.remove(NAME).unwrap_or_else(|| format!("{letter:?}"));
                    let reason = format!("{:?}: {}", letter.cause, letter.reason);
                    found.letters.entry((letter.origin, name)).or_default().push(reason);
                }
                _ => {}
            }
        }
        found
    }

    fn effect(&mut self, handler: &str, name: &str) {
        *self.effects.entry((handler.to_owned(), name.to_owned())).or_default() += 1;
    }
}

/// What is to come of an item that was acknowledged.
fn fates(item: &Item) -> Vec<(&'static str, Fate)> {
    use Fate::{Effect, Letter};
    let rings = is_watched(&item.to_string()).then_some(("bell", Effect));
    match (item.way, item.kind) {
        (Way::Order, Kind::Plain | Kind::Exit) => {
            let all = ["bill", "audit", "scribe", "pay"].map(|one| (one, Effect));
            all.into_iter().chain(rings).collect()
        }
        (Way::Order, Kind::Large | Kind::Header) => {
            [("relay.shop", Letter), ("scribe", Effect)].into_iter().chain(rings).collect()
        }
        (Way::Order, _) => {
            let all = ["bill", "audit", "scribe"].map(|one| (one, Letter));
            all.into_iter().chain(rings).collect()
        }
        (Way::Foreign, _) => ["bill", "audit", "scribe"].map(|one| (one, Letter)).into(),
        (Way::Saga, Kind::Plain) => vec![("reserve", Effect), ("pay.trip", Effect)],
        (Way::Saga, _) => vec![("reserve", Effect), ("undo", Effect)],
        (Way::Later, Kind::Plain) => vec![("later", Effect)],
        (Way::Later, _) => vec![("later", Letter)],
        (Way::Bus, Kind::Plain) => vec![("ear", Effect)],
        (Way::Bus, _) => vec![("ear", Letter)],
        (Way::Table, Kind::Plain) => vec![("jet", Effect)],
        (Way::Table, _) => vec![("outbox", Letter)],
        (way @ (Way::Redis | Way::Jet), kind) => {
            let who = if way == Way::Redis { "redis" } else { "jet" };
            let good = matches!(
                kind,
                Kind::Plain | Kind::Packed | Kind::Exit | Kind::Large | Kind::Header
            );
            vec![(who, if good { Effect } else { Letter })]
        }
    }
}

impl Books {
    pub(super) fn acknowledged(&mut self, item: Item) {
        self.acknowledged.insert(item);
    }

    pub(super) fn refused(&mut self, item: Item) {
        self.refused.insert(item);
    }

    pub(super) fn published(&mut self, item: Item, life: u64) {
        self.published.insert(item, life);
    }

    /// How many were acknowledged, refused, published.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        (self.acknowledged.len(), self.refused.len(), self.published.len())
    }

    /// What must have come: of all that were acknowledged, and of what was published on the bus in
    /// the last life of the node. Memory keeps nothing over the end of a process.
    fn due(&self, life: u64) -> BTreeMap<Place, Fate> {
        let published = self.published.iter().filter(|(_, in_life)| **in_life == life);
        let all = self.acknowledged.iter().chain(published.map(|(item, _)| item));
        let due = all.flat_map(|item| {
            let place = move |who: &str| (who.to_owned(), item.to_string());
            fates(item).into_iter().map(move |(who, fate)| (place(who), fate))
        });
        due.collect()
    }

    /// What has not come yet.
    pub(super) fn missing(&self, found: &Found, life: u64) -> Vec<(Place, String)> {
        let due = self.due(life);
        let missing = due.into_iter().filter(|(place, fate)| match fate {
            Fate::Effect => !found.effects.contains_key(place),
            Fate::Letter => !found.letters.contains_key(place),
        });
        missing.map(|(place, fate)| (place, format!("{fate:?}"))).collect()
    }

    /// Everything that is against the law, when nothing is missing.
    pub(super) fn wrong(&self, found: &Found, life: u64) -> Vec<String> {
        let mut wrong: Vec<_> =
            self.missing(found, life).iter().map(|one| format!("missing: {one:?}")).collect();
        let due = self.due(life);
        let maybe: BTreeSet<Place> = self
            .published
            .keys()
            .flat_map(|item| fates(item).into_iter().map(|(who, _)| (who.into(), item.to_string())))
            .collect();
        for (place, count) in &found.effects {
            match due.get(place) {
                Some(Fate::Effect) if *count == 1 => {}
                None if *count == 1 && maybe.contains(place) => {}
                fate => wrong.push(format!("{count} effects: {place:?}, to be {fate:?}")),
            }
        }
        for (place, reasons) in &found.letters {
            match due.get(place) {
                Some(Fate::Letter) if reasons.len() == 1 => {}
                None if reasons.len() == 1 && maybe.contains(place) => {}
                fate => wrong.push(format!("letters: {place:?} {reasons:?}, to be {fate:?}")),
            }
            if found.effects.contains_key(place) {
                wrong.push(format!("both an effect and a letter: {place:?} {reasons:?}"));
            }
        }
        wrong
    }
}
