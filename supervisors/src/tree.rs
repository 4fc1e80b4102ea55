//! The supervision tree: found by path, looked at, shown as a picture.
//!
//! Reading it never asks an actor: slots count in atomics, supervisors keep an index of their
//! children, and a snapshot walks both.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::actor::slot::AnySlot;
use crate::actor::state::{SlotKind, SlotState};
use crate::actor::{Address, FailureRecord, HandlingView, Overflow, WaitView, typed};
use crate::error::LookupError;
use crate::health::Health;
use crate::path::{Path, unescape};
use crate::supervisor::{ComponentType, Intensity, RestartPolicy, SupervisorLink, SupervisorRef};

/// A way to the tree for those who live in it. It does not keep the tree alive.
#[derive(Clone)]
pub(crate) struct TreeRoot(Weak<dyn AnySlot>);

impl TreeRoot {
    pub(crate) fn new(root: &Arc<dyn AnySlot>) -> Self {
        Self(Arc::downgrade(root))
    }

    pub(crate) fn find(&self, path: &Path) -> Option<Arc<dyn AnySlot>> {
        self.0.upgrade().and_then(|root| find(root, path))
    }

    /// The supervisor of what stands at `path`.
    pub(crate) fn place_of(&self, path: &Path) -> Option<SupervisorLink> {
        self.find(&path.parent()?)?.supervisor().cloned()
    }

    pub(crate) fn address<M: Send + 'static>(
        &self,
        path: &Path,
    ) -> Result<Address<M>, LookupError> {
        let slot = self.find(path).ok_or_else(|| LookupError::NotFound { path: path.clone() })?;
        typed(slot, path)
    }

    pub(crate) fn supervisor(&self, path: &Path) -> Result<SupervisorRef, LookupError> {
        let slot = self.find(path).ok_or_else(|| LookupError::NotFound { path: path.clone() })?;
        match slot.supervisor() {
            Some(link) => Ok(SupervisorRef::new(Arc::clone(link))),
            None => Err(LookupError::WrongType {
                path: path.clone(),
                actual: slot.cell().info.message_type,
                wanted: "(supervisor)",
            }),
        }
    }
}

/// Walks down from the root. One or two look-ups a level, whatever the number of siblings.
///
/// An id may hold slashes, and people do not always escape them: where a segment leads nowhere,
/// all that is left is tried as one id. `org` may stand beside `org/repo`, so a segment that is an
/// id leads somewhere only if the rest is found below it.
fn find(root: Arc<dyn AnySlot>, path: &Path) -> Option<Arc<dyn AnySlot>> {
    below(root, path.as_str().trim_matches('/'))
}

fn below(at: Arc<dyn AnySlot>, rest: &str) -> Option<Arc<dyn AnySlot>> {
    if rest.is_empty() {
        return Some(at);
    }
    let link = at.supervisor()?;
    let (segment, more) = rest.split_once('/').unwrap_or((rest, ""));
    link.child(&unescape(segment))
        .and_then(|child| below(child, more))
        .or_else(|| link.child(&unescape(rest)))
}

/// Everything the tree knows about one slot.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// Where it stands.
    pub path: Path,
    /// Its id among its siblings; the node's name at the root.
    pub id: String,
    /// What lives there.
    pub kind: SlotKind,
    /// The actor's type.
    pub actor_type: &'static str,
    /// The type of its messages.
    pub message_type: &'static str,
    /// What it is doing.
    pub state: SlotState,
    /// Held by an operator or the API.
    pub suspended: bool,
    /// What it is, for its supervision.
    pub component: Option<ComponentType>,
    /// When it is started again.
    pub restart: RestartPolicy,
    /// The number of the current life, or of the last one.
    pub life: u64,
    /// How often it was restarted.
    pub restarts: u64,
    /// When it was last restarted: wall clock, microseconds since the Unix epoch.
    pub restarted_at_us: Option<i64>,
    /// While it backs off: how long until it is started.
    pub backing_off: Option<Duration>,
    /// How long the current life has been up.
    pub up_for: Option<Duration>,
    /// When the current life came up: wall clock, microseconds since the Unix epoch.
    pub started_at_us: Option<i64>,
    /// The last thing that went wrong.
    pub last_failure: Option<Arc<FailureRecord>>,
    /// Whose answers it waits for.
    pub waits: Vec<WaitView>,
    /// What the last health check found.
    pub health: Option<Health>,
    /// What it says about itself.
    pub status: Option<String>,
    /// Messages, for slots with a mailbox.
    pub mailbox: Option<MailboxView>,
    /// For supervisors.
    pub supervisor: Option<SupervisorView>,
    /// Children in start order.
    pub children: Vec<NodeView>,
}

/// What the tree knows about a mailbox and its handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxView {
    /// Messages that wait.
    pub depth: usize,
    /// How many may wait.
    pub capacity: usize,
    /// What happens to one more.
    pub overflow: Overflow,
    /// The most that ever waited.
    pub high_water: usize,
    /// Messages handled over all lives.
    pub handled: u64,
    /// Time spent handling them.
    pub busy: Duration,
    /// The longest one.
    pub longest: Duration,
    /// How many took how long; bounds in [`LATENCY_BUCKETS_NS`](crate::LATENCY_BUCKETS_NS).
    pub latency: [u64; 12],
    /// The message in hand and for how long.
    pub in_hand: Option<(&'static str, Duration)>,
}

impl MailboxView {
    /// The counts as those of one kind of message have them.
    #[must_use]
    pub fn handling(&self) -> HandlingView {
        let Self { handled, busy, longest, latency, .. } = *self;
        HandlingView { handled, busy, longest, latency }
    }
}

/// What the tree knows about a supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SupervisorView {
    /// Who is affected by a failure.
    pub strategy: &'static str,
    /// How many restarts are allowed.
    pub intensity: Intensity,
    /// Restarts within the last period.
    pub used: u32,
    /// How many children it has.
    pub children: usize,
    /// What they are doing, those that are not shown too.
    pub by_state: StateCounts,
    /// How often they were restarted.
    pub child_restarts: u64,
}

/// How many slots are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateCounts([usize; 8]);

impl StateCounts {
    /// How many are in this state.
    #[must_use]
    pub fn of(&self, state: SlotState) -> usize {
        self.0[state as usize]
    }

    /// The states that at least one is in.
    pub fn iter(&self) -> impl Iterator<Item = (SlotState, usize)> {
        SlotState::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
    }

    fn count(&mut self, state: SlotState) {
        self.0[state as usize] += 1;
    }
}

/// How much of the tree to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Levels below the start; `usize::MAX` for all.
    pub levels: usize,
    /// Children of one dynamic supervisor at most; the view still counts them all.
    pub dynamic_children: usize,
}

impl Depth {
    /// All of it.
    pub const ALL: Self = Self { levels: usize::MAX, dynamic_children: usize::MAX };
    /// All levels, and the first ten children of a dynamic supervisor: what a person looks at.
    pub const FOLDED: Self = Self { levels: usize::MAX, dynamic_children: 10 };
}

/// A look at the tree at one moment; `Display` is the picture.
#[derive(Clone, Debug)]
pub struct SupervisionTree {
    /// The slot at the top.
    pub root: NodeView,
    /// Messages that nobody handled, in the whole system so far.
    pub dead_letters: u64,
}

impl SupervisionTree {
    pub(crate) fn of(slot: &Arc<dyn AnySlot>, name: &str, depth: Depth) -> Self {
        Self::with(view(&**slot, depth), slot, name)
    }

    pub(crate) fn with(mut root: NodeView, slot: &Arc<dyn AnySlot>, name: &str) -> Self {
        if root.path.is_root() {
            name.clone_into(&mut root.id);
        }
        Self { root, dead_letters: slot.cell().env.dead_letter_count() }
    }

    /// The view of one slot in this snapshot.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&NodeView> {
        let path = Path::parse(path);
        let mut at = &self.root;
        while at.path != path {
            at = at.children.iter().find(|child| path.is_within(&child.path))?;
        }
        Some(at)
    }

    /// Every slot, a parent before its children.
    pub fn walk(&self) -> impl Iterator<Item = &NodeView> {
        let mut open = vec![&self.root];
        std::iter::from_fn(move || {
            let node = open.pop()?;
            open.extend(node.children.iter().rev());
            Some(node)
        })
    }
}

/// Calls `visit` for a slot and all below it, a parent before its children.
pub(crate) fn walk(slot: &Arc<dyn AnySlot>, visit: &mut impl FnMut(&Arc<dyn AnySlot>)) {
    visit(slot);
    if let Some(link) = slot.supervisor() {
        link.each(|child| walk(child, visit));
    }
}

/// Waits until no life runs at a slot or below it, at most this long.
pub(crate) async fn lives_ended(slot: &Arc<dyn AnySlot>, within: Duration) {
    let step = Duration::from_millis(1);
    let clock = slot.cell().env.clock;
    let deadline = clock.elapsed().saturating_add(within);
    loop {
        let mut running = false;
        walk(slot, &mut |slot| running |= slot.supervisor().is_none() && slot.cell().is_running());
        if !running || clock.elapsed() >= deadline {
            return;
        }
        tokio::time::sleep(step).await;
    }
}

/// What a slot is doing, as it is shown.
pub(crate) fn shown_state(slot: &dyn AnySlot) -> SlotState {
    let cell = slot.cell();
    match cell.state() {
        // Killed, and not gone yet; its supervisor gives it up as stuck before long.
        SlotState::Up if cell.is_killed() => SlotState::Stopping,
        SlotState::Up | SlotState::Down if cell.is_suspended() => SlotState::Suspended,
        state => state,
    }
}

fn view(slot: &dyn AnySlot, depth: Depth) -> NodeView {
    let children = match slot.supervisor() {
        Some(link) if depth.levels > 0 => {
            let below = Depth { levels: depth.levels - 1, ..depth };
            let most = if link.dynamic { depth.dynamic_children } else { usize::MAX };
            link.first_slots(most).iter().map(|child| view(&**child, below)).collect()
        }
        _ => Vec::new(),
    };
    node(slot, children)
}

pub(crate) fn node(slot: &dyn AnySlot, children: Vec<NodeView>) -> NodeView {
    let cell = slot.cell();
    let state = shown_state(slot);
    let running = matches!(state, SlotState::Up | SlotState::Stopping | SlotState::Suspended)
        && cell.is_running();
    let now = cell.env.clock.elapsed();
    let ns = Duration::from_nanos;
    NodeView {
        path: cell.path.clone(),
        id: cell.path.segments().last().map(unescape).unwrap_or_default(),
        kind: cell.info.kind,
        actor_type: cell.info.actor_type,
        message_type: cell.info.message_type,
        state,
        suspended: cell.is_suspended(),
        component: cell.info.component,
        restart: cell.terms(|terms| terms.policy().restart),
        life: cell.life(),
        restarts: cell.restarts(),
        restarted_at_us: cell.restarted_at_ns().map(|at| cell.env.clock.wall_at(ns(at))),
        backing_off: (state == SlotState::Backoff)
            .then(|| ns(cell.backoff_until_ns()).saturating_sub(now)),
        up_for: running.then(|| now.saturating_sub(cell.started_at())),
        started_at_us: running.then(|| cell.env.clock.wall_at(cell.started_at())),
        last_failure: cell.last_failure(),
        waits: cell.waits(),
        health: cell.health(),
        status: cell.status(),
        mailbox: slot.mailbox().map(|facts| {
            let handling = cell.kinds(|kinds| kinds.total(&cell.stats));
            MailboxView {
                depth: facts.depth,
                capacity: facts.capacity,
                overflow: facts.overflow,
                high_water: facts.high_water,
                handled: handling.handled,
                busy: handling.busy,
                longest: handling.longest,
                latency: handling.latency,
                in_hand: cell.stats.began_ns().map(|since| {
                    let name = cell.in_flight_name().unwrap_or(cell.info.message_type);
                    (name, ns(cell.env.clock.ticks_ns().saturating_sub(since)))
                }),
            }
        }),
        supervisor: slot.supervisor().map(|link| {
            let (mut by_state, mut child_restarts) = (StateCounts::default(), 0);
            link.each(|child| {
                by_state.count(shown_state(&**child));
                child_restarts += child.cell().restarts();
            });
            SupervisorView {
                strategy: link.strategy.as_str(),
                intensity: link.intensity(),
                used: link.intensity_use(now).used,
                children: link.len(),
                by_state,
                child_restarts,
            }
        }),
        children,
    }
}

impl fmt::Display for SupervisionTree {
    /// The picture: from top to bottom the start order, from bottom to top the stop order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.walk().map(label_width).max().unwrap_or(0);
        write_node(f, &self.root, "", "", width, 0)
    }
}

fn label_width(node: &NodeView) -> usize {
    // Each level is indented by three columns.
    node.id.chars().count() + 3 * node.path.segments().count()
}

fn write_node(
    f: &mut fmt::Formatter<'_>,
    node: &NodeView,
    branch: &str,
    below: &str,
    width: usize,
    indent: usize,
) -> fmt::Result {
    let pad = width.saturating_sub(node.id.chars().count() + indent);
    let line = format!("{branch}{}{:pad$}  {}", node.id, "", Summary(node));
    writeln!(f, "{}", line.trim_end())?;
    let last = node.children.len().saturating_sub(1);
    for (i, child) in node.children.iter().enumerate() {
        let (branch, more) = if i == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        write_node(
            f,
            child,
            &format!("{below}{branch}"),
            &format!("{below}{more}"),
            width,
            indent + 3,
        )?;
    }
    let hidden = node.supervisor.map_or(0, |all| all.children.saturating_sub(node.children.len()));
    if hidden > 0 && !node.children.is_empty() {
        writeln!(f, "{below}   … {hidden} more")?;
    }
    Ok(())
}

/// The words beside a node.
struct Summary<'a>(&'a NodeView);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.0;
        let mut words = Vec::new();
        match (&node.supervisor, node.kind) {
            (Some(supervisor), SlotKind::DynamicSupervisor) => {
                words.push(format!("{:<13}{} live", "dynamic", supervisor.children));
            }
            (Some(supervisor), _) => words.push(supervisor.strategy.to_owned()),
            (None, _) => {}
        }
        if node.supervisor.is_none() || node.state != SlotState::Up {
            words.push(node.state.as_str().to_owned());
        }
        if node.path.is_root()
            && let Some(up_for) = node.up_for
        {
            words.push(format!("up {} s", up_for.as_secs()));
        }
        words.extend(node.status.clone());
        if let Some(mailbox) = node.mailbox.as_ref().filter(|mailbox| mailbox.depth > 0) {
            words.push(format!("{} waiting", mailbox.depth));
        }
        if node.restarts > 0 {
            words.push(format!("restarts {}", node.restarts));
        }
        if let Some(failure) = &node.last_failure {
            words.push(format!("last: {}", failure.reason));
        }
        match &node.health {
            None | Some(Health::Healthy) => {}
            Some(health) => words.push(health.to_string()),
        }
        f.write_str(&words.join("   "))
    }
}
