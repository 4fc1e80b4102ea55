//! What `smith top` knows: the tree as rows, with rates from one answer of the node to the next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

use super::Frame;

/// Rates that are remembered for a line's little graph.
const SPARK: usize = 12;

/// The order of the children of a supervisor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    /// As the node answers: the start order, of dynamic children the worst first
    #[default]
    Tree,
    /// Those that are not up first
    State,
    /// The most restarts first
    Restarts,
    /// The fullest mailboxes first
    Mailbox,
    /// The busiest first
    Busy,
}

impl Sort {
    /// In a word.
    #[cfg(any(feature = "tui", test))]
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::State => "state",
            Self::Restarts => "restarts",
            Self::Mailbox => "mailbox",
            Self::Busy => "busy",
        }
    }
}

/// How somebody looks at the tree.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) sort: Sort,
    /// Paths whose children are not shown.
    pub(super) folded: BTreeSet<String>,
    /// Only what has this in its path, and what leads to it.
    pub(super) search: String,
}

/// A slot of the tree, as a row shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Slot {
    pub(super) path: String,
    #[serde(skip)]
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) state: String,
    pub(super) life: u64,
    /// Messages that wait, and for how many there is room.
    pub(super) mailbox: Option<u64>,
    pub(super) capacity: Option<u64>,
    /// Messages a second.
    pub(super) rate: Option<f64>,
    pub(super) p99_us: Option<u64>,
    /// Share of the time in which it handled something, in percent.
    pub(super) busy_percent: Option<f64>,
    pub(super) restarts: u64,
    /// Codes of what is wrong.
    pub(super) warnings: Vec<String>,
    /// Children, and how many of them are not in the answer.
    pub(super) children: u64,
    pub(super) hidden: u64,
    #[serde(skip)]
    nodes: Vec<Slot>,
}

/// A line of the table.
#[derive(Clone, Debug)]
pub(super) enum Row<'a> {
    /// A slot, so deep in the tree.
    Slot { depth: usize, slot: &'a Slot, folded: bool },
    /// So many children of the supervisor above are not shown.
    More { depth: usize, count: u64 },
}

#[cfg(any(feature = "tui", test))]
impl Row<'_> {
    /// The path of the slot, if it is one.
    pub(super) fn path(&self) -> Option<&str> {
        match self {
            Self::Slot { slot, .. } => Some(&slot.path),
            Self::More { .. } => None,
        }
    }
}

/// What was counted in an earlier answer.
#[derive(Clone, Debug, Default)]
struct Earlier {
    handled: u64,
    busy_ms: u64,
    rates: VecDeque<f64>,
}

/// All that is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) view: View,
    pub(super) node: Value,
    pub(super) lints: Vec<Value>,
    root: Option<Slot>,
    at_ms: Option<i64>,
    /// By path; only of slots that were in the last answer.
    earlier: BTreeMap<String, Earlier>,
    /// Messages a second, all together.
    pub(super) rate: Option<f64>,
    handled: Option<u64>,
}

impl Model {
    /// Takes what the node says now.
    pub(super) fn feed(&mut self, frame: &Frame) {
        let at = frame.tree["at"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
        let at_ms = at.map(jiff::Timestamp::as_millisecond);
        let passed = match (self.at_ms, at_ms) {
            (Some(before), Some(now)) if now > before => Some((now - before) as f64 / 1_000.0),
            _ => None,
        };
        let earlier = std::mem::take(&mut self.earlier);
        let mut read = Read { passed, earlier, now: BTreeMap::new() };
        self.root = Some(read.slot(&frame.tree["root"]));
        self.earlier = read.now;
        self.at_ms = at_ms.or(self.at_ms);
        let handled = frame.node["totals"]["handled"].as_u64();
        self.rate = match (self.handled, handled, passed) {
            // What the node counts can shrink: of many children it counts the worst ones.
            (Some(before), Some(now), Some(passed)) if now >= before => {
                Some((now - before) as f64 / passed)
            }
            _ => None,
        };
        self.handled = handled;
        self.node = frame.node.clone();
        self.lints = frame.lints["lints"].as_array().cloned().unwrap_or_default();
    }

    /// The rows as the view has them, from top to bottom.
    pub(super) fn rows(&self) -> Vec<Row<'_>> {
        let mut rows = Vec::new();
        if let Some(root) = &self.root {
            self.push(root, 0, &mut rows);
        }
        rows
    }

    fn push<'a>(&'a self, slot: &'a Slot, depth: usize, rows: &mut Vec<Row<'a>>) {
        let View { sort, folded, search } = &self.view;
        if !slot.leads_to(search) {
            return;
        }
        let folded = folded.contains(&slot.path) && !slot.nodes.is_empty();
        rows.push(Row::Slot { depth, slot, folded });
        if folded {
            return;
        }
        let mut nodes: Vec<&Slot> = slot.nodes.iter().collect();
        // Stable: those that are equal stay as they were.
        match sort {
            Sort::Tree => {}
            Sort::State => nodes.sort_by_key(|slot| slot.state == "up"),
            Sort::Restarts => nodes.sort_by_key(|slot| Reverse(slot.all(|slot| slot.restarts))),
            Sort::Mailbox => {
                nodes.sort_by_key(|slot| Reverse(slot.all(|slot| slot.mailbox.unwrap_or(0))));
            }
            Sort::Busy => nodes.sort_by_key(|slot| {
                Reverse(slot.all(|slot| (slot.busy_percent.unwrap_or(0.0) * 100.0) as u64))
            }),
        }
        for node in nodes {
            self.push(node, depth + 1, rows);
        }
        if slot.hidden > 0 && search.is_empty() {
            rows.push(Row::More { depth: depth + 1, count: slot.hidden });
        }
    }

    /// The slot at a path, if it was in the last answer.
    #[cfg(feature = "tui")]
    pub(super) fn slot(&self, path: &str) -> Option<&Slot> {
        fn find<'a>(slot: &'a Slot, path: &str) -> Option<&'a Slot> {
            match slot.path == path {
                true => Some(slot),
                false => slot.nodes.iter().find_map(|slot| find(slot, path)),
            }
        }
        find(self.root.as_ref()?, path)
    }

    /// The last rates of a slot as bars, the newest at the right.
    pub(super) fn spark(&self, path: &str) -> String {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let Some(earlier) = self.earlier.get(path) else { return String::new() };
        let most = earlier.rates.iter().copied().fold(0.0, f64::max);
        let bar = |rate: &f64| match most > 0.0 {
            true => BARS[((rate / most * 7.0).round() as usize).min(7)],
            false => BARS[0],
        };
        earlier.rates.iter().map(bar).collect()
    }

    /// The node in two lines: what it is and holds, and what is near its limit.
    pub(super) fn header(&self) -> [String; 2] {
        let node = &self.node;
        let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        let count = |value: &Value| value.as_u64().unwrap_or_default();
        let actors = &node["actors"];
        let others = actors["by_state"].as_object().into_iter().flatten();
        let others: String = others
            .filter(|(state, _)| *state != "up")
            .map(|(state, count)| format!(", {count} {state}"))
            .collect();
        let rate = self.rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"));
        let first = format!(
            "{} {}  {}  up {}  {} actors{others}  {rate} msg/s  {} restarts  {} dead letters",
            word(&node["name"]),
            word(&node["version"]),
            word(&node["mode"]),
            uptime(count(&node["uptime_ms"]) / 1_000),
            count(&actors["total"]),
            count(&node["totals"]["restarts"]),
            count(&node["totals"]["dead_letters"]),
        );
        let store = &node["store"];
        let mut second = format!("{} at {}", word(&store["kind"]), count(&store["head"]));
        if let Some(bytes) = node["rss_bytes"].as_u64() {
            second.push_str(&format!("  {} MiB", bytes >> 20));
        }
        let limits = node["limits"].as_array().into_iter().flatten();
        for limit in limits.filter(|limit| count(&limit["value"]) > 0).take(3) {
            let (value, max) = (count(&limit["value"]), count(&limit["max"]));
            second.push_str(&format!("  {} {value}/{max}", word(&limit["name"])));
        }
        [first, second]
    }
}

/// A time in words, as `top` writes it.
fn uptime(seconds: u64) -> String {
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes}:{seconds:02}"),
        (hours, minutes, seconds) => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

impl Slot {
    /// Whether it, or what is below it, has a text in its path.
    fn leads_to(&self, text: &str) -> bool {
        self.path.contains(text) || self.nodes.iter().any(|slot| slot.leads_to(text))
    }

    /// The largest of it and what is below it.
    fn all(&self, of: impl Fn(&Self) -> u64 + Copy) -> u64 {
        self.nodes.iter().map(|slot| slot.all(of)).fold(of(self), u64::max)
    }

    /// Whether there is anything to fold.
    #[cfg(feature = "tui")]
    pub(super) fn has_children(&self) -> bool {
        !self.nodes.is_empty()
    }
}

/// Reads an answer beside the one before it.
struct Read {
    /// Seconds between them.
    passed: Option<f64>,
    earlier: BTreeMap<String, Earlier>,
    now: BTreeMap<String, Earlier>,
}

impl Read {
    fn slot(&mut self, node: &Value) -> Slot {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let path = word(&node["path"]);
        let handling = &node["handling"];
        let (mut rate, mut busy_percent) = (None, None);
        if let (Some(handled), Some(busy_ms)) =
            (handling["handled"].as_u64(), handling["busy_ms"].as_u64())
        {
            let earlier = self.earlier.remove(&path);
            let mut rates = VecDeque::new();
            if let Some((earlier, passed)) = earlier.zip(self.passed) {
                rates = earlier.rates;
                let per_second = handled.saturating_sub(earlier.handled) as f64 / passed;
                let busy = busy_ms.saturating_sub(earlier.busy_ms) as f64 / passed / 10.0;
                rates.push_back(per_second);
                if rates.len() > SPARK {
                    rates.pop_front();
                }
                (rate, busy_percent) = (Some(per_second), Some(busy.min(100.0)));
            }
            self.now.insert(path.clone(), Earlier { handled, busy_ms, rates });
        }
        let warnings = node["lints"].as_array().into_iter().flatten();
        let nodes = node["nodes"].as_array().into_iter().flatten();
        let nodes: Vec<Slot> = nodes.map(|node| self.slot(node)).collect();
        let children = node["children"]["total"].as_u64().unwrap_or_default();
        Slot {
            id: word(&node["id"]),
            kind: word(&node["kind"]),
            state: match node["suspended"].as_bool() {
                Some(true) => "suspended".to_owned(),
                _ => word(&node["state"]),
            },
            life: node["life"].as_u64().unwrap_or_default(),
            mailbox: node["mailbox"]["depth"].as_u64(),
            capacity: node["mailbox"]["capacity"].as_u64(),
            rate,
            p99_us: handling["p99_us"].as_u64().filter(|us| *us > 0),
            busy_percent,
            restarts: node["restarts"].as_u64().unwrap_or_default(),
            warnings: warnings.map(word).collect(),
            children,
            hidden: children.saturating_sub(nodes.len() as u64),
            nodes,
            path,
        }
    }
}
