//! Looking for something in a tree that is too large to be shown whole.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use crate::actor::SlotState;
use crate::actor::slot::AnySlot;
use crate::path::Path;
use crate::supervisor::{ComponentType, SupervisorPlace};
use crate::tree::{NodeView, SupervisionTree, node, shown_state};

/// Children of one dynamic supervisor that are shown when the look does not say.
const DEFAULT_CHILDREN: usize = 50;

/// What part of the tree to look at, and what of it.
///
/// ```
/// use mister_smith_supervisors::{Look, SlotState, Sort};
///
/// let look = Look::at("/agents").children(20).sort(Sort::Worst).state(SlotState::Backoff);
/// ```
#[derive(Clone, Debug)]
#[must_use = "give it to `ActorSystem::look_for`"]
pub struct Look {
    path: Path,
    levels: usize,
    children: usize,
    sort: Sort,
    states: Vec<SlotState>,
    component: Option<String>,
    text: Option<String>,
}

/// Which children of a dynamic supervisor come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Sort {
    /// Those that need somebody: by state, a message in hand for long, a full mailbox, restarts.
    #[default]
    Worst,
    /// By name.
    Name,
    /// The most restarts.
    Restarts,
    /// The most waiting messages.
    Mailbox,
    /// The most time spent handling.
    Busy,
    /// The most messages handled.
    Handled,
}

impl Look {
    /// All levels below `path`, and the 50 worst children of each dynamic supervisor.
    pub fn at(path: &str) -> Self {
        Self {
            path: Path::parse(path),
            levels: usize::MAX,
            children: DEFAULT_CHILDREN,
            sort: Sort::Worst,
            states: Vec::new(),
            component: None,
            text: None,
        }
    }

    /// At most this many levels below.
    pub fn levels(mut self, levels: usize) -> Self {
        self.levels = levels;
        self
    }

    /// At most this many children of a dynamic supervisor; all are counted.
    pub fn children(mut self, children: usize) -> Self {
        self.children = children;
        self
    }

    /// Which of them.
    pub fn sort(mut self, sort: Sort) -> Self {
        self.sort = sort;
        self
    }

    /// Only what is in this state, or in another one given, and what leads to it.
    pub fn state(mut self, state: SlotState) -> Self {
        self.states.push(state);
        self
    }

    /// Only components of the type with this name, and what leads to them.
    pub fn component(mut self, name: impl Into<String>) -> Self {
        self.component = Some(name.into());
        self
    }

    /// Only what has this in its path, and what leads to it.
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn filters(&self) -> bool {
        !self.states.is_empty() || self.component.is_some() || self.text.is_some()
    }

    fn matches(&self, slot: &dyn AnySlot) -> bool {
        let cell = slot.cell();
        (self.states.is_empty() || self.states.contains(&shown_state(slot)))
            && self.is_wanted(cell.info.component)
            && self.text.as_ref().is_none_or(|text| cell.path.as_str().contains(text.as_str()))
    }

    fn is_wanted(&self, component: Option<ComponentType>) -> bool {
        let name = component.map(ComponentType::as_str);
        self.component.is_none() || self.component.as_deref() == name
    }

    /// Whether the slot, or anything below it, is looked for.
    fn leads(&self, slot: &Arc<dyn AnySlot>) -> bool {
        if self.matches(&**slot) {
            return true;
        }
        let mut found = false;
        if let Some(link) = slot.supervisor() {
            link.each(|child| found = found || self.leads(child));
        }
        found
    }

    /// The view of a slot, if it is looked for or leads to what is.
    fn view(&self, slot: &Arc<dyn AnySlot>, levels: usize) -> Option<NodeView> {
        let children: Vec<NodeView> = match slot.supervisor() {
            Some(link) if levels > 0 => {
                let slots = if link.dynamic {
                    self.first(link, slot.cell().env.clock.elapsed_ns())
                } else {
                    link.slots()
                };
                slots.iter().filter_map(|child| self.view(child, levels - 1)).collect()
            }
            _ => Vec::new(),
        };
        let kept = !self.filters() || !children.is_empty() || self.matches(&**slot);
        kept.then(|| node(&**slot, children))
    }

    /// The children that come first, in order, without a view of all the others.
    fn first(&self, place: &SupervisorPlace, now_ns: u64) -> Vec<Arc<dyn AnySlot>> {
        let filters = self.filters();
        if self.sort == Sort::Name {
            let mut slots = place.slots();
            slots.retain(|slot| !filters || self.leads(slot));
            return smallest(slots, self.children, |slot| slot.cell().path.clone());
        }
        let mut keys = Vec::with_capacity(place.len());
        let mut at = 0_usize;
        place.each(|slot| {
            if !filters || self.leads(slot) {
                keys.push((Reverse(self.weight(&**slot, now_ns)), at, Arc::clone(slot)));
            }
            at += 1;
        });
        let first = smallest(keys, self.children, |(weight, at, _)| (*weight, *at));
        first.into_iter().map(|(_, _, slot)| slot).collect()
    }

    /// What is heavier comes first.
    fn weight(&self, slot: &dyn AnySlot, now_ns: u64) -> u64 {
        let cell = slot.cell();
        let handling = || cell.kinds(|kinds| kinds.total(&cell.stats));
        match self.sort {
            Sort::Worst => worst(slot, now_ns),
            Sort::Restarts => cell.restarts(),
            Sort::Mailbox => slot.mailbox().map_or(0, |facts| facts.depth as u64),
            Sort::Busy => u64::try_from(handling().busy.as_nanos()).unwrap_or(u64::MAX),
            Sort::Handled => handling().handled,
            Sort::Name => 0,
        }
    }
}

/// State, then a message in hand for more than a second, then how full the mailbox is, then
/// restarts.
fn worst(slot: &dyn AnySlot, now_ns: u64) -> u64 {
    let cell = slot.cell();
    let state: u64 = match shown_state(slot) {
        SlotState::Stuck => 7,
        SlotState::Backoff => 6,
        SlotState::Restarting => 5,
        SlotState::Down => 4,
        SlotState::Starting | SlotState::Stopping => 3,
        SlotState::Suspended => 2,
        SlotState::Up => 0,
    };
    let since = cell.stats.began_ns();
    let busy = since.is_some_and(|since| {
        Duration::from_nanos(now_ns.saturating_sub(since)) > Duration::from_secs(1)
    });
    let full = slot.mailbox().map_or(0, |facts| facts.depth * 100 / facts.capacity.max(1));
    state << 61
        | u64::from(busy) << 60
        | (full.min(127) as u64) << 53
        | cell.restarts().min((1 << 53) - 1)
}

/// The smallest ones, sorted; the others are not.
fn smallest<T, K: Ord>(mut all: Vec<T>, most: usize, key: impl Fn(&T) -> K) -> Vec<T> {
    if most == 0 {
        return Vec::new();
    }
    if all.len() > most {
        all.select_nth_unstable_by(most - 1, |a, b| key(a).cmp(&key(b)));
        all.truncate(most);
    }
    all.sort_by_key(key);
    all
}

impl SupervisionTree {
    pub(crate) fn looked(slot: &Arc<dyn AnySlot>, name: &str, look: &Look) -> Self {
        // What was asked for by its path is always there.
        let view = look.view(slot, look.levels);
        Self::with(view.unwrap_or_else(|| node(&**slot, Vec::new())), slot, name)
    }
}
