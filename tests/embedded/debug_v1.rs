//! The debug API: what it shows, what an action would do, what it did, and why.

use std::time::Duration;

use mister_smith::http::Limits;
use mister_smith::prelude::*;
use mister_smith_testkit::eventually;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::node::{DEADLINE, Node};

const POOL: &str = "/resources/pool.sqlite";

/// Does something to an actor.
async fn act(node: &Node, path: &str, action: &str, key: &str, body: &Value) -> (u16, Value) {
    let path = format!("/debug/v1/actors{path}/{action}");
    let headers = [("idempotency-key", key), ("content-type", "application/json")];
    let post = "POST".parse().unwrap();
    let reply = node.client.send(post, &path, &headers, body.to_string()).await.unwrap();
    (reply.status, reply.json())
}

/// Waits until an actor is up in a life.
async fn alive(node: &Node, path: &str, life: u64) -> Value {
    eventually(DEADLINE, async || {
        let actor = node.get(&format!("/debug/v1/actors{path}")).await;
        match (actor["node"]["life"].as_u64(), actor["node"]["state"].as_str()) {
            (Some(is), Some("up")) if is == life => Ok(actor),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

#[tokio::test]
async fn a_dry_run_says_what_the_action_then_does() {
    let node = Node::start().await;
    let plan = node.get(&format!("/debug/v1/actors{POOL}/plan?action=kill")).await;
    assert_eq!(plan["life"], 1);
    assert_eq!(plan["allowed"], true);
    assert_eq!(
        plan["stops"],
        json!([
            { "path": POOL, "how": "killed" },
            { "path": "/resources/store.committer", "how": "stopped" },
        ])
    );
    assert_eq!(plan["starts"], json!([POOL, "/resources/store.committer"]));
    let before = node.get("/debug/v1/node").await["seq"].as_u64().unwrap();

    let why = json!({ "reason": "to see it heal", "expect_life": 1 });
    let (status, done) = act(&node, POOL, "kill", "k1", &why).await;
    assert_eq!(status, 200, "{done}");
    let again = act(&node, POOL, "kill", "k1", &why).await;
    assert_eq!(again, (200, done.clone()), "the same key has no second effect");
    alive(&node, POOL, 2).await;
    let (status, problem) = act(&node, POOL, "kill", "k2", &why).await;
    assert_eq!(status, 409, "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("is in life 2, not 1"), "no successor is hit: {detail}");
    alive(&node, "/resources/store.committer", 2).await;

    // What happened is what was planned, and each of it names its cause.
    let timeline = node.get(&format!("/debug/v1/timeline?since={before}&path=/resources")).await;
    let events = timeline["events"].as_array().unwrap();
    let of = |kind: &str| -> Vec<&str> {
        let all = events.iter().filter(|event| event["kind"] == kind);
        all.map(|event| event["path"].as_str().unwrap()).collect()
    };
    assert_eq!(of("action"), [POOL]);
    assert_eq!(of("failed")[0], POOL);
    assert!(of("restarted").ends_with(&[POOL, "/resources/store.committer"]), "{timeline}");
    let restarted = events.iter().rfind(|event| event["kind"] == "restarted").unwrap();
    let lineage = node.get(&format!("/debug/v1/lineage/{}", restarted["seq"])).await;
    assert_eq!(lineage["whole"], true);
    assert_eq!(
        lineage["text"],
        "store.committer was restarted because pool.sqlite was killed by operator (to see it heal)"
    );

    // The tree as it was before.
    let past = node.get(&format!("/debug/v1/at/{before}")).await;
    let resources = &past["root"]["nodes"].as_array().unwrap();
    let resources = resources.iter().find(|one| one["path"] == "/resources").unwrap();
    assert_eq!(resources["nodes"][0]["life"], 1);
    let (status, problem) = node.client.get("/debug/v1/at/999999").await.unwrap();
    assert_eq!(status, 404, "{problem}");

    let actor = node.get(&format!("/debug/v1/actors{POOL}")).await;
    let decision = &actor["failures"][0]["decision"];
    assert_eq!(
        (&decision["strategy"], &decision["outcome"]),
        (&json!("rest_for_one"), &json!("restarts"))
    );
    assert_eq!(decision["affected"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn every_action_has_its_plan_and_its_effect() {
    let node = Node::start().await;
    let path = "/domain/projections/streams";
    let none = json!({});
    for (n, (action, state, life)) in [
        ("suspend", "suspended", 1),
        ("resume", "up", 1),
        ("restart", "up", 2),
        ("stop", "down", 2),
        ("start", "up", 3),
        ("kill", "up", 4),
    ]
    .into_iter()
    .enumerate()
    {
        let plan = node.get(&format!("/debug/v1/actors{path}/plan?action={action}")).await;
        assert_eq!(plan["allowed"], true, "{plan}");
        assert!(plan["text"].as_str().unwrap().starts_with("streams "), "{plan}");
        let (status, done) = act(&node, path, action, &format!("k{n}"), &none).await;
        assert_eq!(status, 200, "{action}: {done}");
        eventually(DEADLINE, async || {
            let one = node.get(&format!("/debug/v1/actors{path}")).await["node"].clone();
            match one["state"] == state && one["life"] == life {
                true => Ok(()),
                false => Err(format!("{action}: {one}")),
            }
        })
        .await;
    }
    for (path, action, key, status, said) in [
        (path, "explode", "x", 404, "give kill, restart, stop, start, suspend or resume"),
        ("/nowhere", "kill", "x", 404, "nowhere"),
        ("", "kill", "x", 409, "the root has nobody to start it again"),
        (path, "kill", "", 400, "Idempotency-Key"),
    ] {
        let (found, problem) = act(&node, path, action, key, &none).await;
        assert_eq!(found, status, "{path}/{action}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(said), "{problem}");
    }
    let (status, problem) = act(&node, path, "kill", "y", &json!({ "why": "x" })).await;
    assert_eq!(status, 400);
    assert!(problem["detail"].as_str().unwrap().contains("unknown field `why`"), "{problem}");
}

/// An aggregate that can be written down, or says that it cannot.
#[derive(Default, Deserialize)]
struct Till {
    coins: u64,
}

impl Serialize for Till {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.coins {
            13 => Err(serde::ser::Error::custom("an unlucky number")),
            coins => coins.serialize(to),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Happened {
    #[serde(rename = "till.put_in")]
    PutIn { coins: u64 },
}

impl Event for Happened {}

#[derive(Debug, thiserror::Error)]
enum Never {}

impl Aggregate for Till {
    type Command = u64;
    type Event = Happened;
    type Rejection = Never;

    const CATEGORY: &'static str = "till";

    fn decide(&self, coins: &u64) -> Result<Vec<Happened>, Never> {
        Ok(vec![Happened::PutIn { coins: *coins }])
    }

    fn evolve(&mut self, event: Happened) {
        let Happened::PutIn { coins } = event;
        self.coins += coins;
    }
}

#[tokio::test]
async fn an_actor_shows_its_state_to_an_admin() {
    let node = Node::made(Limits::default(), |builder| builder.aggregate::<Till>()).await;
    let at = "/domain/aggregates/till-1";
    for (coins, state) in [(5, json!(5)), (8, json!({ "unreadable": "an unlucky number" }))] {
        node.core.commands().send::<Till>("1", coins).await.unwrap();
        let shown = node.get(&format!("/debug/v1/actors{at}/state")).await;
        let version = if coins == 5 { 1 } else { 2 };
        let picture =
            json!({ "stream": "till-1", "version": version, "committed": version, "state": state });
        assert_eq!(shown, json!({ "path": at, "state": picture }));
    }
    for (path, why) in [(POOL, "shows nothing of its state"), ("/nobody", "nothing lives at")] {
        let reply = node.send("GET", &format!("/debug/v1/actors{path}/state")).await;
        assert_eq!(reply.status, 404, "{path}");
        assert!(reply.json()["detail"].as_str().unwrap().contains(why), "{}", reply.text());
    }
}

#[tokio::test]
async fn the_threads_of_a_node_are_shown() {
    let two = ThreadPoolSpec::new(2, 10);
    let node = Node::made(Limits::default(), |b| b.thread_pool(Work::Compute, two)).await;
    node.core.actors().run_on(Work::Compute, || ()).await.unwrap();
    let info = node.get("/debug/v1/node").await;
    let pools = info["thread_pools"].as_array().unwrap();
    let names: Vec<_> = pools.iter().map(|pool| pool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["compute", "io", "blocking"]);
    assert_eq!((&pools[0]["threads"], &pools[0]["queue"]), (&json!(2), &json!(10)));
    assert_eq!((&pools[0]["done"], &pools[0]["running"]), (&json!(1), &json!(0)), "{info}");
}

#[tokio::test]
async fn the_recorder_shows_what_an_actor_handled() {
    let node = Node::start().await;
    let committer = "/resources/store.committer";
    let (status, _) = act(&node, committer, "record", "r", &json!({})).await;
    assert_eq!(status, 200);
    node.live(["1"]).await;
    let actor = node.get(&format!("/debug/v1/actors{committer}")).await;
    assert_eq!(actor["recording"], true);
    let recorded = actor["recorder"].as_array().unwrap();
    let append = recorded.iter().find(|one| one["type"] == "Append").expect("it was recorded");
    assert_eq!(append["outcome"], "ok");
    assert!(append["from"].as_str().unwrap().starts_with("/domain/aggregates/"), "{append}");
    assert!(actor["messages"].as_array().unwrap().iter().any(|one| one["type"] == "Append"));
}

#[tokio::test]
async fn lists_are_tagged_filtered_and_refuse_what_they_do_not_know() {
    let node = Node::start().await;
    node.live(["1", "2", "3"]).await;
    let reply = node.send("GET", "/debug/v1/heat").await;
    let tag = reply.header("etag").unwrap().to_owned();
    let get = || "GET".parse().unwrap();
    let same = node.client.send(get(), "/debug/v1/openapi.json", &[], "").await.unwrap();
    let api = same.json();
    assert_eq!(api["openapi"], "3.1.0");
    // Every path of it answers.
    for (path, methods) in api["paths"].as_object().unwrap() {
        if methods.get("get").is_none() || path.contains('{') || path.ends_with("/stream") {
            continue;
        }
        let reply = node.send("GET", path).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    }
    let heat = reply.json();
    assert_eq!(heat["count"], heat["spans"][0]["count"].as_u64().unwrap() + 1);
    let known = [("if-none-match", tag.as_str())];
    let again = node.client.send(get(), "/debug/v1/heat", &known, "").await.unwrap();
    assert!(again.status == 304 || again.header("etag") != Some(tag.as_str()));

    let tree = node.get("/debug/v1/tree?q=order-2").await;
    let text = tree.to_string();
    assert!(text.contains("order-2") && !text.contains("order-3"), "{text}");
    let folded = node.get("/debug/v1/tree?path=/domain/aggregates&children=1").await;
    let children = &folded["root"]["children"];
    assert_eq!((&children["total"], &children["shown"]), (&json!(3), &json!(1)));
    for (path, said) in [
        ("/debug/v1/tree?state=happy", "give starting, up"),
        ("/debug/v1/tree?sort=size", "give worst, name"),
        ("/debug/v1/tree?component=cat", "give agent, aggregate"),
        ("/debug/v1/tree?depth=deep", "depth"),
    ] {
        let (status, problem) = node.client.get(path).await.unwrap();
        assert_eq!(status, 400, "{path}");
        assert!(problem["detail"].as_str().unwrap().contains(said), "{problem}");
    }
    for form in ["dot", "mmd", "svg"] {
        let text = node.text(&format!("/debug/v1/graph.{form}")).await;
        assert!(text.contains("order-2"), "{form}");
    }
    let metrics = node.text("/debug/v1/metrics").await;
    assert!(metrics.contains("\nsmith_log_position 3\n"), "{metrics}");
}

/// Asks for another one that is not there to answer: nothing but the deadline ends that.
struct Asker;

impl Actor for Asker {
    type Message = (String, Option<ReplyPort<()>>);
    type Args = ();

    async fn start(_: &(), _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(
        &mut self,
        (whom, reply): Self::Message,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        if !whom.is_empty() {
            let other: Address<(String, Option<ReplyPort<()>>)> =
                cx.find(&whom).map_err(|error| Failure::transient(error.to_string()))?;
            let own = cx.path().to_string();
            let _ = other.ask_within(DEADLINE, |port| (own, Some(port))).await;
        }
        if let Some(reply) = reply {
            reply.send(());
        }
        Ok(())
    }
}

#[tokio::test]
async fn two_that_wait_for_each_other_are_found() {
    let node = Node::start().await;
    let one = node.core.spawn::<Asker>("one", ()).await.unwrap();
    node.core.spawn::<Asker>("two", ()).await.unwrap();
    one.tell(("/agents/two".to_owned(), None)).await.unwrap();
    let lints = eventually(DEADLINE, async || {
        let waits = node.get("/debug/v1/waits").await;
        match waits["cycles"].as_array().is_some_and(|cycles| !cycles.is_empty()) {
            true => Ok(node.get("/debug/v1/lints").await),
            false => Err(waits.to_string()),
        }
    })
    .await;
    let first = &lints["lints"][0];
    assert_eq!((&first["code"], &first["severity"]), (&json!("deadlock"), &json!("error")));
    assert_eq!(first["text"], "/agents/one, /agents/two wait for each other");
    node.core.actors().kill("/agents/one").unwrap();
}

/// Reads a stream until what came has a text in it.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut got = String::new();
    let reading = async {
        let mut buffer = [0; 4_096];
        while !got.contains(text) {
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "the stream ended: {got}");
            got.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    };
    let read = tokio::time::timeout(DEADLINE, reading).await;
    assert!(read.is_ok(), "{text} did not come: {got}");
    got
}

async fn open(node: &Node, query: &str) -> TcpStream {
    let mut stream = TcpStream::connect(node.addr()).await.unwrap();
    let host = node.addr();
    let request = format!("GET /debug/v1/stream?{query} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn one_stream_tells_of_life_and_numbers_and_goes_on_where_it_was() {
    let node = Node::start().await;
    let mut stream = open(&node, "paths=/resources/pool.sqlite").await;
    read_until(&mut stream, "event: stats").await;
    act(&node, POOL, "kill", "k", &json!({})).await;
    let got = read_until(&mut stream, "\"kind\":\"restarted\"").await;
    assert!(got.contains("\"kind\":\"action\""), "{got}");
    drop(stream);
    // From an event on: all after it, and none twice.
    let mut stream = open(&node, "topics=life&since=3").await;
    let got = read_until(&mut stream, "\"kind\":\"restarted\"").await;
    assert!(got.contains("id: 4\n") && !got.contains("id: 3\n"), "{got}");
    drop(stream);
    // A node that stops ends its streams, and does not wait for them.
    let mut stream = open(&node, "topics=life").await;
    read_until(&mut stream, "hello").await;
    assert!(node.core.stop(Duration::from_secs(20)).await, "it stopped in order");
}
