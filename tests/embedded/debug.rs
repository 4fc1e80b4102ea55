//! The live tree over HTTP, and what an operator can do to it.

use mister_smith::prelude::*;
use mister_smith_testkit::eventually;
use serde_json::{Value, json};

use crate::node::{DEADLINE, NDJSON, Node, ONE, Order, escaped, event, ndjson};

/// The node at `path`, as `/debug/tree` shows it.
async fn look(node: &Node, path: &str) -> Value {
    node.get(&format!("/debug/tree?path={}", escaped(path))).await["root"].clone()
}

/// The node at `path` once it is as wanted.
async fn wait_until(node: &Node, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually(DEADLINE, async || {
        let view = look(node, path).await;
        if wanted(&view) { Ok(view) } else { Err(view) }
    })
    .await
}

/// The same, while something else is under way that does not end.
async fn wait_until_with<T>(
    node: &Node,
    path: &str,
    other: impl Future<Output = T>,
    wanted: impl Fn(&Value) -> bool,
) {
    tokio::select! {
        biased;
        _ = other => panic!("it has ended"),
        _ = wait_until(node, path, wanted) => {}
    }
}

fn is_up(view: &Value) -> bool {
    view["state"] == "up"
}

/// Nothing in hand, nothing waiting, no connection in use.
fn is_quiet(view: &Value) -> bool {
    let mailbox = &view["mailbox"];
    let idle = mailbox.is_null() || (mailbox["in_hand"].is_null() && mailbox["depth"] == 0);
    let status = view["status"].as_str().unwrap_or_default();
    idle && (!status.ends_with("in use") || status.starts_with("0/"))
}

fn all(view: &Value, test: &dyn Fn(&Value) -> bool) -> bool {
    test(view) && view["children"].as_array().unwrap().iter().all(|child| all(child, test))
}

/// The paths of all slots, a parent before its children.
fn paths(view: &Value) -> Vec<String> {
    let below = view["children"].as_array().unwrap().iter().flat_map(paths);
    std::iter::once(view["path"].as_str().unwrap().to_owned()).chain(below).collect()
}

// --- see -------------------------------------------------------------------------------------------

/// What differs from run to run, by the name of its field.
fn redact(value: &mut Value, port: &str) {
    const VOLATILE: [&str; 7] =
        ["up_for_ms", "started_at_us", "busy_us", "for_us", "at_us", "seq", "handled"];
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                if name == "latency" {
                    let buckets = value.as_array().unwrap().iter();
                    let bounds: Vec<String> =
                        buckets.map(|bucket| bucket["up_to_ns"].to_string()).collect();
                    *value = json!(format!("[count] up to {}", bounds.join(", ")));
                } else if name == "health" {
                    // `null` until the first check, 5 s after the start.
                    *value = json!("[health]");
                } else if VOLATILE.contains(&name.as_str()) && !value.is_null() {
                    *value = json!(format!("[{name}]"));
                } else {
                    redact(value, port);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| redact(value, port)),
        Value::String(text) => *text = text.replace(port, "[port]"),
        _ => {}
    }
}

fn snapshot(name: &str, text: &str) {
    insta::with_settings!({ snapshot_path => "../snapshots" }, {
        insta::assert_snapshot!(name, text);
    });
}

#[tokio::test]
async fn the_tree_as_json_has_every_field() {
    let node = Node::start().await;
    node.live(["1/2"]).await;
    // A message counts as handled a moment after its answer is out.
    let stream = "/domain/aggregates/order-1%2F2";
    wait_until(&node, stream, |view| view["mailbox"]["handled"] == 2 && is_quiet(view)).await;
    assert_eq!(node.post(&format!("/debug/actors{stream}/kill")).await.0, 200);
    wait_until(&node, stream, |view| is_up(view) && view["life"] == 2).await;
    for projection in ["streams", "dead_letters", "sagas"] {
        let path = format!("/domain/projections/{projection}");
        wait_until(&node, &path, |view| view["status"] == "position 1   lag 0").await;
    }
    // The picture that is compared is itself one of a moment in which nobody worked.
    let mut tree = eventually(DEADLINE, async || {
        let tree = node.get("/debug/tree").await;
        if all(&tree["root"], &is_quiet) { Ok(tree) } else { Err(tree) }
    })
    .await;
    let port = node.addr().port().to_string();
    redact(&mut tree, &port);
    snapshot("debug_tree_json", &serde_json::to_string_pretty(&tree).unwrap());
}

#[tokio::test]
async fn the_tree_as_text_is_a_picture() {
    let node = Node::start().await;
    node.live((0..12).map(|n| format!("{n:02}"))).await;
    node.post("/debug/actors/resources/store.committer/kill").await;
    wait_until(&node, "/resources/store.committer", |view| is_up(view) && view["life"] == 2).await;
    // The picture that is compared is itself one of a moment in which nobody worked.
    let text = eventually(DEADLINE, async || {
        let reply = node.send("GET", "/debug/tree?format=text").await;
        assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
        let text = reply.text();
        if text.contains("0/4 in use") && !text.contains(" waiting") { Ok(text) } else { Err(text) }
    })
    .await;
    let port = node.addr().port().to_string();
    // The first line has the seconds since the start.
    let (first, rest) = text.split_once('\n').unwrap();
    let first = first.split_once("up ").unwrap().0;
    snapshot("debug_tree_text", &format!("{first}up [seconds] s\n{rest}").replace(&port, "[port]"));
}

#[tokio::test]
async fn a_part_of_the_tree_and_a_part_of_the_children() {
    let node = Node::start().await;
    node.live((0..15).map(|n| format!("{n:02}"))).await;
    let resources = look(&node, "/resources").await;
    assert_eq!(
        paths(&resources),
        ["/resources", "/resources/pool.sqlite", "/resources/store.committer"]
    );
    assert_eq!(resources["supervisor"]["strategy"], "rest_for_one");
    for (query, shown) in [("", 15), ("&children=15", 15), ("&children=4", 4), ("&children=0", 0)] {
        let path = format!("/debug/tree?path=/domain/aggregates{query}");
        let view = node.get(&path).await["root"].clone();
        assert_eq!(view["children"].as_array().unwrap().len(), shown, "{path}");
        assert_eq!(view["supervisor"]["children"], 15, "all are counted");
    }
    let text = node.text("/debug/tree?format=text&path=/domain/aggregates").await;
    assert!(text.contains("… 5 more"), "{text}");
    let text = node.text("/debug/tree?format=text&children=100").await;
    assert!(text.contains("order-14") && !text.contains("more"), "{text}");

    for (path, status, words) in [
        ("/debug/tree?path=/nowhere", 404, "/nowhere"),
        ("/debug/tree?format=xml", 400, "give json or text"),
        ("/debug/tree?children=many", 400, "children"),
    ] {
        let (found, problem) = node.client.get(path).await.unwrap();
        assert_eq!(found, status, "{path}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{path}: {problem}");
    }
}

/// Panics when told to.
struct Fragile;

impl Actor for Fragile {
    type Message = &'static str;
    type Args = ();

    async fn start(_: &(), _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(&mut self, why: &'static str, _: &mut Context<Self>) -> Result<(), Failure> {
        match why {
            "error" => Err(Failure::new(ErrorClass::Permanent, "the disk is gone")),
            why => panic!("{why}"),
        }
    }

    fn message_name(_: &&'static str) -> &'static str {
        "Break"
    }
}

#[tokio::test]
async fn a_failure_is_shown_with_its_cause() {
    let node = Node::start().await;
    let fragile = node.core.spawn::<Fragile>("fragile", ()).await.unwrap();
    fragile.tell("the cup fell").await.unwrap();
    let path = "/agents/fragile";
    let view = wait_until(&node, path, |view| is_up(view) && view["restarts"] == 1).await;
    let failure = &view["last_failure"];
    assert_eq!((&failure["kind"], &failure["class"]), (&json!("panic"), &Value::Null));
    assert_eq!((&failure["life"], &failure["message_in_hand"]), (&json!(1), &json!("Break")));
    assert!(failure["reason"].as_str().unwrap().contains("the cup fell"), "{failure}");
    assert!(failure["location"].as_str().unwrap().contains("tests/embedded/debug.rs:"));
    assert!(!failure["backtrace"].as_str().unwrap().is_empty());
    assert!(failure["at_us"].as_i64().unwrap() > 1_700_000_000_000_000);

    fragile.tell("error").await.unwrap();
    let view = wait_until(&node, path, |view| is_up(view) && view["restarts"] == 2).await;
    let failure = &view["last_failure"];
    assert_eq!((&failure["kind"], &failure["class"]), (&json!("error"), &json!("permanent")));
    assert!(failure["reason"].as_str().unwrap().contains("the disk is gone"), "{failure}");
    let text = node.text("/debug/tree?format=text&path=/agents").await;
    assert!(text.contains("restarts 2   last: permanent: the disk is gone"), "{text}");
    // The one in hand of each crash.
    assert_eq!(node.get("/debug/tree").await["dead_letters"], 2);
}

// --- act -------------------------------------------------------------------------------------------

#[tokio::test]
async fn every_part_can_be_killed_and_comes_back() {
    let node = Node::start().await;
    node.fill(&[event("before", "a")]).await;
    node.live(["1"]).await;
    for path in [
        "/resources/pool.sqlite",
        "/resources/store.committer",
        "/domain/aggregates/order-1",
        "/domain/projections/streams",
        "/edge/http",
        "/domain/aggregates",
        "/domain",
        "/resources",
        "/edge",
    ] {
        // A kill of a supervisor takes its children with it: all are to be up before the next.
        wait_until(&node, "/", |root| all(root, &is_up)).await;
        let before = look(&node, path).await["life"].as_u64().unwrap();
        let (status, answer) = node.post(&format!("/debug/actors{path}/kill")).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer, json!({ "path": path, "action": "kill", "life": before }));
        let view = wait_until(&node, path, |view| {
            is_up(view) && view["life"].as_u64().is_some_and(|life| life > before)
        })
        .await;
        assert_eq!(view["last_failure"]["kind"], "killed", "{path}");
    }
    let (status, answer) = node.ingest(ONE, event("after", "a")).await;
    assert_eq!((status, &answer["results"][0]["version"]), (200, &json!(2)), "{answer}");
    wait_until(&node, "/domain/projections/streams", is_up).await;
    eventually(DEADLINE, async || match node.get("/api/v1/streams/a").await["events"].as_u64() {
        Some(2) => Ok(()),
        other => Err(other),
    })
    .await;
}

#[tokio::test]
async fn ids_with_slashes_are_found_raw_and_escaped() {
    let node = Node::start().await;
    // `org` beside `org/repo`: the first once hid the second. A leading slash and a doubled one
    // once vanished, and an id with `%2F` in it was taken for one with a slash.
    let ids =
        ["org", "org/repo", "/shop", "https://example.com/x", "a%2Fb", "a/b", "50%", "größe ✓"];
    for id in ids {
        node.core.spawn::<Fragile>(id, ()).await.unwrap();
    }
    for id in ids {
        let path = format!("/agents/{}", escaped(id));
        let before = wait_until(&node, "/agents", |view| {
            view["children"].as_array().unwrap().iter().any(|child| child["id"] == id)
        })
        .await;
        let child = before["children"].as_array().unwrap().iter().find(|child| child["id"] == id);
        let shown = child.unwrap()["path"].as_str().unwrap();
        let (status, answer) = node.post(&format!("/debug/actors{path}/kill")).await;
        assert_eq!((status, &answer["path"]), (200, &json!(shown)), "{answer}");
        wait_until(&node, shown, |view| view["id"] == id && is_up(view) && view["life"] == 2).await;
    }
    for (raw, id) in [
        ("org/repo", "org/repo"),
        ("org", "org"),
        ("/shop", "/shop"),
        ("https://example.com/x", "https://example.com/x"),
    ] {
        let (status, answer) = node.post(&format!("/debug/actors/agents/{raw}/restart")).await;
        assert_eq!(status, 200, "{answer}");
        let shown = format!("/agents/{}", id.replace('/', "%2F"));
        wait_until(&node, &shown, |view| view["id"] == id && view["life"] == 3).await;
        assert_eq!(look(&node, &format!("/agents/{raw}")).await["id"], id);
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_refused() {
    let node = Node::start().await;
    for (path, status) in [
        ("/debug/actors/agents/nobody/kill", 404),
        ("/debug/actors/agents/nobody/restart", 404),
        ("/debug/actors/agents/nobody/suspend", 404),
        ("/debug/actors/agents/nobody/resume", 404),
        ("/debug/actors/edge/http/explode", 404),
        // The root has nobody to start it again: one request once ended the whole node.
        ("/debug/actors/kill", 409),
        ("/debug/actors///kill", 409),
        ("/debug/actors/restart", 409),
        ("/debug/actors/suspend", 409),
        ("/debug/actors/%FF/kill", 400),
    ] {
        let (found, problem) = node.post(path).await;
        assert_eq!(found, status, "{path}: {problem}");
        assert_eq!(problem["status"], status, "{path}: {problem}");
    }
    assert_eq!(node.send("GET", "/debug/actors/edge/http/kill").await.status, 405);
    node.get("/readyz").await;
}

#[tokio::test]
async fn there_is_nothing_to_kill_in_what_is_stopped() {
    let node = Node::start().await;
    node.core.actors().stop("/domain/projections/streams").await.unwrap();
    let path = "/debug/actors/domain/projections/streams";
    let (status, problem) = node.post(&format!("{path}/kill")).await;
    assert_eq!(status, 409, "{problem}");
    assert_eq!(problem["detail"], "/domain/projections/streams has no life to kill now");
    // A restart starts it again.
    assert_eq!(node.post(&format!("{path}/restart")).await.0, 200);
    node.fill(&[event("1", "a")]).await;
}

#[tokio::test]
async fn a_restart_of_the_server_is_answered_by_it() {
    // It once waited for its own answer: 4 s, and then the connection was cut.
    let node = Node::start().await;
    for (path, watched, life) in [
        ("/edge/http", "/edge/http", 2),
        ("/edge", "/edge", 2),
        // Everything after it, the server among it.
        ("/resources", "/edge", 3),
    ] {
        let (status, answer) = node.post(&format!("/debug/actors{path}/restart")).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer, json!({ "path": path, "action": "restart" }));
        wait_until(&node, watched, |view| view["life"] == life && is_up(view)).await;
    }
    assert_eq!(node.ingest(ONE, event("1", "a")).await.0, 200);
}

#[tokio::test]
async fn a_suspended_aggregate_holds_its_commands_until_it_is_resumed() {
    let node = Node::start().await;
    node.live(["1"]).await;
    let path = "/domain/aggregates/order-1";
    assert_eq!(node.post(&format!("/debug/actors{path}/suspend")).await.0, 200);
    let view = look(&node, path).await;
    assert_eq!((&view["state"], &view["suspended"]), (&json!("suspended"), &json!(true)));

    // One asker waits on, the other one gives up; neither is answered.
    let send = |key: &'static str| {
        let core = node.core.clone();
        async move { core.commands().send::<Order>("1", CommandEnvelope::new(1).key(key)).await }
    };
    let waiting = tokio::spawn(send("waits"));
    wait_until(&node, path, |view| view["mailbox"]["depth"] == 1).await;
    {
        let mut gone = std::pin::pin!(send("goes"));
        wait_until_with(&node, path, &mut gone, |view| view["mailbox"]["depth"] == 2).await;
    }
    assert!(!waiting.is_finished());
    assert_eq!(node.core.head().get(), 1);
    let text = node.text("/debug/tree?format=text").await;
    assert!(text.contains("suspended   version 1   2 waiting"), "{text}");
    // Others go on.
    node.live(["2"]).await;
    // A crash does not end the hold.
    node.post(&format!("/debug/actors{path}/kill")).await;
    wait_until(&node, path, |view| view["mailbox"]["depth"] == 2 && view["suspended"] == true)
        .await;

    assert_eq!(node.post(&format!("/debug/actors{path}/resume")).await.0, 200);
    assert!(!waiting.await.unwrap().unwrap().duplicate);
    // Also the one whose asker had gone, and each once.
    for key in ["waits", "goes"] {
        assert!(send(key).await.unwrap().duplicate, "{key}");
    }
    node.projected().await;
    assert_eq!(node.get("/api/v1/streams/order-1").await["events"], 3);
}

// --- alive and ready -------------------------------------------------------------------------------

#[tokio::test]
async fn readiness_names_the_part_that_does_not_work() {
    let node = Node::start().await;
    let ready = (200, json!({ "status": "ready" }));
    assert_eq!(node.client.get("/readyz").await.unwrap(), ready);
    let path = "/domain/projections/streams";
    node.post(&format!("/debug/actors{path}/suspend")).await;
    let reply = node.send("GET", "/readyz").await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    let problem = reply.json();
    assert_eq!(problem["detail"], format!("not ready: {path}"));
    assert_eq!(problem["parts"], json!([{ "path": path, "why": "suspended" }]));
    // Alive all the same, and events are taken; only the read model waits.
    assert_eq!(node.get("/healthz").await, json!({ "status": "ok" }));
    assert_eq!(node.ingest(ONE, event("1", "a")).await.0, 200);
    assert_eq!(node.client.get("/api/v1/streams/a").await.unwrap().0, 404);
    assert_eq!(node.get("/api/v1/streams/a/events").await["events"][0]["position"], 1);

    node.post(&format!("/debug/actors{path}/resume")).await;
    assert_eq!(node.client.get("/readyz").await.unwrap(), ready);
    node.projected().await;
    assert_eq!(node.get("/api/v1/streams/a").await["events"], 1);

    node.core.actors().stop("/resources/store.committer").await.unwrap();
    let (status, problem) = node.client.get("/readyz").await.unwrap();
    assert_eq!(status, 503);
    assert_eq!(problem["parts"][0], json!({ "path": "/resources/store.committer", "why": "down" }));
    node.post("/debug/actors/resources/store.committer/restart").await;
    assert_eq!(node.client.get("/readyz").await.unwrap(), ready);
}

#[tokio::test]
async fn without_a_committer_events_are_to_be_sent_again() {
    let node = Node::start().await;
    node.fill(&[event("1", "a")]).await;
    node.core.actors().stop("/resources/store.committer").await.unwrap();
    let headers = [("content-type", NDJSON)];
    let body = ndjson(&[event("1", "a"), event("2", "a"), json!({ "id": 7 })]);
    let post = "POST".parse().unwrap();
    let reply = node.client.send(post, crate::node::INGEST, &headers, body.clone()).await.unwrap();
    let answer = reply.json();
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{answer}");
    assert_eq!((&answer["retry"], &answer["rejected"]), (&json!(2), &json!(1)), "{answer}");
    let of = |i: usize| answer["results"][i]["status"].clone();
    assert_eq!((of(0), of(1), of(2)), (json!("retry"), json!("retry"), json!("rejected")));
    node.core.actors().restart("/resources/store.committer").await.unwrap();
    // The same request, as it was.
    let (status, answer) = node.ingest(NDJSON, body).await;
    assert_eq!(status, 200, "{answer}");
    let counts = (&answer["accepted"], &answer["duplicates"], &answer["rejected"]);
    assert_eq!(counts, (&json!(1), &json!(1), &json!(1)));
}
