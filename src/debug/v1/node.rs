//! `GET /debug/v1/node`: what it is, how much is in it, and how near it is to its limits.

use std::collections::BTreeMap;

use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::Response;
use mister_smith_supervisors::{Look, NodeView, SlotState, ThreadPoolView};
use serde::Serialize;
use utoipa::ToSchema;

use super::tagged;
use super::view::{millis, time};
use crate::http::access::{Caller, Role};
use crate::http::{Edge, Node, Problem};

/// A node.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NodeInfo {
    name: String,
    version: &'static str,
    pid: u32,
    /// `development` or `production`.
    mode: &'static str,
    /// What the caller may do.
    role: Role,
    actions: Allowed,
    started_at: String,
    uptime_ms: u64,
    workers: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    rss_bytes: Option<u64>,
    /// The last lifecycle event.
    seq: u64,
    actors: Counts,
    totals: Totals,
    limits: Vec<Limit>,
    store: StoreInfo,
    brokers: Vec<BrokerInfo>,
    thread_pools: Vec<ThreadPoolInfo>,
}

/// Whether the caller may act, and why, or why not.
#[derive(Debug, Serialize, ToSchema)]
struct Allowed {
    allowed: bool,
    why: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct Counts {
    total: usize,
    by_state: BTreeMap<&'static str, usize>,
    by_component: BTreeMap<&'static str, usize>,
}

/// What all actors together have done since the node started.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Totals {
    /// Messages handled.
    handled: u64,
    /// Lives that failed.
    failures: u64,
    restarts: u64,
    /// What subscriptions and consumers have given up.
    dead_letters: u64,
    /// Messages to actors that nobody handled.
    undelivered: u64,
}

impl Totals {
    pub(super) fn of(node: &Node) -> Self {
        let all = node.actors.totals();
        let given_up = node.bus.subscriptions().into_iter().filter_map(|one| one.handling);
        let by_consumers: u64 = node.consumers.list().iter().map(|one| one.dead).sum();
        Self {
            handled: all.handled,
            failures: all.failures,
            restarts: all.restarts,
            dead_letters: given_up.map(|one| one.dead).sum::<u64>() + by_consumers,
            undelivered: node
                .actors
                .look_for(&Look::at("/").levels(0))
                .map_or(0, |tree| tree.dead_letters),
        }
    }
}

/// A number, and what it may be at most.
#[derive(Debug, Serialize, ToSchema)]
struct Limit {
    name: String,
    value: u64,
    max: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct StoreInfo {
    kind: &'static str,
    url: String,
    head: u64,
}

/// Threads for work that would keep a worker of the runtime.
#[derive(Debug, Serialize, ToSchema)]
struct ThreadPoolInfo {
    /// `compute`, `io` or `blocking`.
    name: &'static str,
    threads: usize,
    /// Pieces of work that run now.
    running: usize,
    /// Pieces that wait for a thread.
    queued: usize,
    /// Pieces that may wait.
    queue: usize,
    done: u64,
    /// Pieces that were refused.
    rejected: u64,
    panicked: u64,
    /// Time that pieces waited for a thread, all together.
    waited_ms: u64,
    /// Time that they ran.
    busy_ms: u64,
}

impl ThreadPoolInfo {
    fn of(pool: &ThreadPoolView) -> Self {
        Self {
            name: pool.name,
            threads: pool.spec.threads,
            running: pool.running,
            queued: pool.queued,
            queue: pool.spec.queue,
            done: pool.done,
            rejected: pool.rejected,
            panicked: pool.panicked,
            waited_ms: millis(pool.waited),
            busy_ms: millis(pool.busy),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct BrokerInfo {
    kind: String,
    state: String,
    detail: String,
}

/// `GET /debug/v1/node`
#[utoipa::path(get, path = "/debug/v1/node", tag = "node",
    responses((status = 200, description = "The node", body = NodeInfo)))]
pub(super) async fn show(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let node = edge.node()?;
    let actors = &node.actors;
    let tree = actors.look_for(&Look::at("/").children(1));
    let tree = tree.ok_or_else(|| Problem::unavailable("the root has gone"))?;
    let mut counts = count(&actors.heat().states);
    let mut limits = Vec::new();
    for one in tree.walk() {
        weigh(one, &mut counts, &mut limits);
    }
    limits.sort_by_key(|limit| std::cmp::Reverse(limit.value * 1_000 / limit.max.max(1)));
    limits.truncate(8);
    let facts = &node.facts;
    let brokers = node.brokers.iter().map(|broker| {
        let status = broker.status();
        BrokerInfo {
            kind: status.url.split(':').next().unwrap_or_default().to_owned(),
            state: if status.connected { "connected" } else { "away" }.to_owned(),
            detail: match (&status.trouble, &status.server_version) {
                (Some(trouble), _) => trouble.clone(),
                (None, version) => format!("{} {}", status.url, version.as_deref().unwrap_or("")),
            },
        }
    });
    let root = &tree.root;
    let info = NodeInfo {
        name: actors.name().to_owned(),
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        mode: if facts.production { "production" } else { "development" },
        role: caller.role,
        actions: allowed(&caller),
        started_at: root.started_at_us.map(time).unwrap_or_default(),
        uptime_ms: root.up_for.map(millis).unwrap_or_default(),
        workers: tokio::runtime::Handle::current().metrics().num_workers(),
        rss_bytes: rss(),
        seq: actors.timeline().last(),
        actors: counts,
        totals: Totals::of(node),
        limits,
        store: StoreInfo {
            kind: facts.kind,
            url: facts.store.clone(),
            head: facts.head.borrow().get(),
        },
        brokers: brokers.collect(),
        thread_pools: actors.thread_pools().iter().map(ThreadPoolInfo::of).collect(),
    };
    Ok(tagged(&headers, &info))
}

fn allowed(caller: &Caller) -> Allowed {
    let who = match &caller.name {
        Some(name) => format!("the token of {name}"),
        None => "a caller on loopback without a token".to_owned(),
    };
    match caller.role >= Role::Operator {
        true => Allowed { allowed: true, why: format!("{who} is {}", caller.role.as_str()) },
        false => Allowed {
            allowed: false,
            why: format!("{who} may only look; send an operator's token, or start with --operator"),
        },
    }
}

/// How many slots are in which state, from their bytes: all of them, however many.
fn count(states: &[u8]) -> Counts {
    const NAMES: [&str; 7] =
        ["starting", "up", "stopping", "suspended", "backing_off", "down", "failed"];
    let mut by_state = [0_usize; 8];
    for byte in states {
        by_state[usize::from(byte & 7)] += 1;
    }
    let by_state = NAMES.into_iter().zip(by_state).filter(|(_, count)| *count > 0).collect();
    Counts { total: states.len(), by_state, by_component: BTreeMap::new() }
}

fn weigh(node: &NodeView, counts: &mut Counts, limits: &mut Vec<Limit>) {
    if let Some(mailbox) = node.mailbox.as_ref().filter(|mailbox| mailbox.depth > 0) {
        limits.push(Limit {
            name: format!("mailbox of {}", node.path),
            value: mailbox.depth as u64,
            max: mailbox.capacity as u64,
        });
    }
    if let Some(component) = node.component.filter(|_| node.state != SlotState::Down) {
        *counts.by_component.entry(component.as_str()).or_default() += 1;
    }
    if let Some(supervisor) = &node.supervisor {
        limits.push(Limit {
            name: format!(
                "restarts below {} in {} s",
                node.path,
                supervisor.intensity.period.as_secs()
            ),
            value: u64::from(supervisor.used),
            max: u64::from(supervisor.intensity.restarts),
        });
        // One child of it is in the view, and stands for the others.
        let hidden = supervisor.children.saturating_sub(node.children.len());
        if let Some(component) = node.children.first().and_then(|child| child.component) {
            *counts.by_component.entry(component.as_str()).or_default() += hidden;
        }
    }
}

/// Memory of this process, where the system tells.
fn rss() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4_096)
}
