//! One stream of all that happens: `GET /debug/v1/stream`.
//!
//! Lifecycle events are never left out without a word: a reader that is slower than the ring is
//! long gets an event `gap` and looks at the tree again. Counters come four times a second, only
//! those of the paths that were asked for, and only if they changed. One stream is enough for a
//! page, which matters where a browser allows six connections to one host.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use mister_smith_supervisors::{Look, Timeline};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, MissedTickBehavior, interval};
use utoipa::IntoParams;

use super::node::Totals;
use super::view::{Event, millis, state, time};
use crate::http::{Edge, Node, Problem};

/// How often counters are sent.
const EVERY: Duration = Duration::from_millis(250);

/// A comment is sent when nothing else was for this long.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Lifecycle events of one batch.
const BATCH: usize = 500;

/// Paths whose counters are sent, at most.
const PATHS: usize = 500;

/// What is wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// `life`, `stats`, or both with a comma between; both.
    topics: Option<String>,
    /// Lifecycle events after this one; those from now on.
    since: Option<u64>,
    /// Paths whose counters are wanted, with commas between.
    paths: Option<String>,
}

/// The counters of a slot.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Counters {
    #[serde(skip_serializing_if = "Option::is_none")]
    depth: Option<usize>,
    handled: u64,
    busy_ms: u64,
    state: &'static str,
    restarts: u64,
    life: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    children: Option<usize>,
}

/// `GET /debug/v1/stream`
#[utoipa::path(get, path = "/debug/v1/stream", tag = "past", params(Asked),
    responses((status = 200, description = "Server-sent events: life, stats, gap",
        content_type = "text/event-stream"),
        (status = 503, description = "Too many streams are open")))]
pub(super) async fn stream(
    State(edge): State<Edge>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let node = edge.node()?.clone();
    let permit = Arc::clone(&edge.desk().streams).try_acquire_owned().map_err(|_| {
        Problem::unavailable("64 streams are open, and there may be no more; close one")
            .retry_after(5)
    })?;
    let topics = asked.topics.as_deref().unwrap_or("life,stats");
    let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let timeline = node.actors.timeline();
    let mut paths: Vec<String> = asked
        .paths
        .unwrap_or_default()
        .split(',')
        .filter(|path| !path.is_empty())
        .map(str::to_owned)
        .collect();
    paths.truncate(PATHS);
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let follower = Follower {
        seen: resumed.or(asked.since).unwrap_or_else(|| timeline.last()),
        timeline,
        node,
        tick: 0,
        closing: edge.closing(),
        life: topics.contains("life"),
        stats: topics.contains("stats"),
        paths,
        last: BTreeMap::new(),
        ready: VecDeque::from([Ok(Sent::default().retry(Duration::from_secs(1)).comment("hello"))]),
        ticks,
        started: Instant::now(),
        _permit: permit,
    };
    let events = stream::unfold(follower, Follower::next);
    let sse = Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT));
    let no_buffer = [("x-accel-buffering", "no"), ("cache-control", "no-store")];
    Ok((no_buffer, sse).into_response())
}

type Item = Result<Sent, Infallible>;

/// What there is to do.
enum Woken {
    Life,
    Stats,
    Closing,
}

struct Follower {
    seen: u64,
    timeline: Timeline,
    node: Node,
    tick: u64,
    closing: tokio::sync::watch::Receiver<bool>,
    life: bool,
    stats: bool,
    paths: Vec<String>,
    last: BTreeMap<String, Counters>,
    ready: VecDeque<Item>,
    ticks: tokio::time::Interval,
    started: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    async fn next(mut self) -> Option<(Item, Self)> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some((item, self));
            }
            match self.wait().await {
                Woken::Life => self.hear(),
                Woken::Stats => self.count(),
                // A stream would hold up the stop for ever.
                Woken::Closing => return None,
            }
        }
    }

    async fn wait(&mut self) -> Woken {
        tokio::select! {
            biased;
            _ = self.closing.wait_for(|closing| *closing) => Woken::Closing,
            _ = self.timeline.changed(self.seen), if self.life => Woken::Life,
            _ = self.ticks.tick(), if self.stats => Woken::Stats,
        }
    }

    fn hear(&mut self) {
        let page = self.timeline.since(self.seen, BATCH);
        if let Some(missed) = page.missed {
            let gap = serde_json::json!({ "from": missed.from, "to": missed.to });
            self.send("gap", None, &gap);
        }
        for event in &page.events {
            self.send("life", Some(event.seq), &Event::of(event));
        }
        self.seen = page.next;
    }

    fn count(&mut self) {
        let mut nodes = BTreeMap::new();
        for path in &self.paths {
            let look = Look::at(path).levels(0);
            let Some(tree) = self.node.actors.look_for(&look) else { continue };
            let node = &tree.root;
            let counters = Counters {
                depth: node.mailbox.as_ref().map(|mailbox| mailbox.depth),
                handled: node.mailbox.as_ref().map_or(0, |mailbox| mailbox.handled),
                busy_ms: node.mailbox.as_ref().map_or(0, |mailbox| millis(mailbox.busy)),
                state: state(node.state),
                restarts: node.restarts,
                life: node.life,
                status: node.status.clone(),
                children: node.supervisor.map(|supervisor| supervisor.children),
            };
            if self.last.get(path) != Some(&counters) {
                nodes.insert(path.clone(), counters);
            }
        }
        // All slots are walked for these: once a second.
        let totals = self.tick.is_multiple_of(4).then(|| Totals::of(&self.node));
        self.tick += 1;
        if nodes.is_empty() && totals.is_none() {
            return;
        }
        let mut stats = serde_json::json!({
            "at": time(self.node.actors.clock().wall_us()),
            "since_ms": millis(self.started.elapsed()),
            "nodes": nodes,
        });
        if let Some(totals) = totals {
            stats["totals"] = serde_json::json!(totals);
        }
        self.last.extend(nodes);
        self.send("stats", None, &stats);
    }

    fn send(&mut self, name: &str, id: Option<u64>, data: &impl Serialize) {
        let sent = Sent::default().event(name);
        let sent = match id {
            Some(id) => sent.id(id.to_string()),
            None => sent,
        };
        // What is sent is ours, and can be written.
        if let Ok(sent) = sent.json_data(data) {
            self.ready.push_back(Ok(sent));
        }
    }
}
