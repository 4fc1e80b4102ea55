//! What is in the log and in the read model, page by page.

use std::collections::BTreeMap;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::node::{NDJSON, Node, escaped, event, webhooks};

/// Every row of a resource, in pages of `limit`.
async fn walk(node: &Node, path: &str, rows: &str, limit: usize) -> Vec<Value> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let page = node.get(&format!("{path}?limit={limit}{after}")).await;
        let found = page[rows].as_array().unwrap().clone();
        assert!(found.len() <= limit, "{path}");
        let done = found.is_empty();
        all.extend(found);
        let next = match &page["next"] {
            Value::Null => return all,
            Value::String(name) => escaped(name),
            number => number.to_string(),
        };
        assert!(!done, "an empty page has no next: {page}");
        after = format!("&after={next}");
    }
}

/// 60 events in 17 streams of 3 types.
async fn filled() -> Node {
    let node = Node::start().await;
    let events: Vec<Value> = (0..60)
        .map(|n| {
            let mut event = event(&n.to_string(), &format!("stream/{} ü", n % 17));
            event["type"] = json!(["placed", "paid", "sent"][n % 3]);
            event
        })
        .collect();
    node.fill(&events).await;
    node
}

#[tokio::test]
async fn pages_add_up_to_the_whole() {
    let node = filled().await;
    let one = format!("/api/v1/streams/{}/events", escaped("stream/3 ü"));
    for (path, rows, count) in [
        ("/api/v1/streams", "streams", 17),
        ("/api/v1/events", "events", 60),
        (one.as_str(), "events", 4),
    ] {
        let whole = node.get(&format!("{path}?limit=1000")).await[rows].as_array().unwrap().clone();
        assert_eq!(whole.len(), count, "{path}");
        for limit in [1, 7, count] {
            assert_eq!(walk(&node, path, rows, limit).await, whole, "{path} by {limit}");
        }
    }
}

#[tokio::test]
async fn a_page_is_a_hundred_rows_unless_asked() {
    let node = Node::start().await;
    let events: Vec<Value> = (0..120).map(|n| event(&n.to_string(), &format!("{n:03}"))).collect();
    node.fill(&events).await;
    for (path, rows) in [("/api/v1/streams", "streams"), ("/api/v1/events", "events")] {
        let page = node.get(path).await;
        assert_eq!(page[rows].as_array().unwrap().len(), 100);
        assert_ne!(page["next"], Value::Null);
    }
}

#[tokio::test]
async fn events_are_in_the_order_of_commits_without_a_gap() {
    let node = filled().await;
    let events = walk(&node, "/api/v1/events", "events", 7).await;
    let positions: Vec<u64> = events.iter().map(|e| e["position"].as_u64().unwrap()).collect();
    assert_eq!(positions, (1..=60).collect::<Vec<u64>>());
    let mut versions = BTreeMap::<&str, u64>::new();
    for event in &events {
        let version = versions.entry(event["stream"].as_str().unwrap()).or_default();
        *version += 1;
        assert_eq!(event["version"], *version, "{event}");
    }
    assert_eq!(node.get("/api/v1/events?after=60").await, json!({ "events": [], "next": null }));
    // One past all there is, and the largest number there can be.
    for after in ["61", "18446744073709551615"] {
        let page = node.get(&format!("/api/v1/events?after={after}")).await;
        assert_eq!(page["events"], json!([]));
    }
}

#[tokio::test]
async fn the_read_model_agrees_with_a_count_over_the_log() {
    let node = filled().await;
    let mut counted = BTreeMap::<String, (u64, BTreeMap<String, u64>, Value)>::new();
    for event in walk(&node, "/api/v1/events", "events", 1000).await {
        let stream = event["stream"].as_str().unwrap().to_owned();
        let row = counted.entry(stream).or_default();
        row.0 += 1;
        *row.1.entry(event["event"]["type"].as_str().unwrap().to_owned()).or_default() += 1;
        row.2 = event["position"].clone();
    }
    let page = node.get("/api/v1/streams").await;
    assert_eq!(page["position"], 60);
    let rows = page["streams"].as_array().unwrap();
    assert_eq!(rows.len(), counted.len());
    for (row, (id, (events, by_type, last))) in rows.iter().zip(&counted) {
        assert_eq!(row["id"], *id, "in the order of names");
        assert_eq!((&row["events"], &row["by_type"]), (&json!(events), &json!(by_type)));
        assert_eq!(row["last_position"], *last);
        assert!(row["first_at"].as_str().unwrap() <= row["last_at"].as_str().unwrap());
        assert!(row.get("last_payload").is_none(), "a list stays small");
    }
}

#[tokio::test]
async fn bad_limits_and_places_are_answered_with_the_cure() {
    let node = filled().await;
    let stream = escaped("stream/3 ü");
    let paths = [
        "/api/v1/events".to_owned(),
        "/api/v1/streams".to_owned(),
        format!("/api/v1/streams/{stream}/events"),
    ];
    for path in &paths {
        for limit in ["0", "1001", "-1", "ten", "1.5", "99999999999999999999999"] {
            let (status, problem) =
                node.client.get(&format!("{path}?limit={limit}")).await.unwrap();
            assert_eq!(status, 400, "{path} {limit}: {problem}");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains("a number from 1 to 1000"), "{path} {limit}: {detail}");
        }
    }
    for path in [&paths[0], &paths[2]] {
        for after in ["-1", "last", "1.5", "99999999999999999999999", ""] {
            let (status, problem) =
                node.client.get(&format!("{path}?after={after}")).await.unwrap();
            assert_eq!(status, 400, "{path} {after}: {problem}");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains("give the number"), "{path} {after}: {detail}");
        }
    }
    let (status, _) = node.client.get("/api/v1/streams?after=%00").await.unwrap();
    assert_eq!(status, 400);
    let (status, _) = node.client.get("/api/v1/streams/%FF").await.unwrap();
    assert_eq!(status, 400);
}

#[tokio::test]
async fn an_unknown_stream_is_not_found() {
    let node = filled().await;
    for path in ["/api/v1/streams/nobody", "/api/v1/streams/nobody/events"] {
        let (status, problem) = node.client.get(path).await.unwrap();
        assert_eq!(status, 404, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("no stream nobody"), "{problem}");
    }
}

// --- the real events -----------------------------------------------------------------------------------

/// What `jq` counts in the same text.
async fn counted_by_jq(text: &str) -> Value {
    const PROGRAM: &str = "group_by(.subject) | map({
        id: .[0].subject,
        events: length,
        by_type: (group_by(.type) | map({key: .[0].type, value: length}) | from_entries),
        last_payload: .[-1].data
    })";
    let mut jq = Command::new("jq")
        .args(["--slurp", "--compact-output", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("jq is installed");
    let mut stdin = jq.stdin.take().unwrap();
    let text = text.to_owned();
    let written = tokio::spawn(async move { stdin.write_all(text.as_bytes()).await });
    let output = jq.wait_with_output().await.unwrap();
    written.await.unwrap().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn the_real_webhooks_are_taken_once_and_counted_as_jq_counts() {
    let node = Node::start().await;
    let text = webhooks();
    for (accepted, duplicates) in [(165, 0), (0, 165)] {
        let (status, answer) = node.ingest(NDJSON, &text).await;
        assert_eq!(status, 200);
        let counts = (&answer["accepted"], &answer["duplicates"], &answer["rejected"]);
        assert_eq!(counts, (&json!(accepted), &json!(duplicates), &json!(0)));
        assert_eq!(answer["results"].as_array().unwrap().len(), 165);
    }
    node.projected().await;

    let counted = counted_by_jq(&text).await;
    let counted = counted.as_array().unwrap();
    let page = node.get("/api/v1/streams").await;
    let rows = page["streams"].as_array().unwrap();
    assert_eq!(rows.len(), counted.len());
    for (row, theirs) in rows.iter().zip(counted) {
        for field in ["id", "events", "by_type"] {
            assert_eq!(row[field], theirs[field]);
        }
        let path = format!("/api/v1/streams/{}", row["id"].as_str().unwrap());
        assert_eq!(node.get(&path).await["last_payload"], theirs["last_payload"], "{path}");
    }

    // Every event as it was sent, in the order of its stream.
    let mut sent = BTreeMap::<String, Vec<Value>>::new();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        sent.entry(event["subject"].as_str().unwrap().to_owned()).or_default().push(event);
    }
    for (stream, events) in sent {
        let found = walk(&node, &format!("/api/v1/streams/{stream}/events"), "events", 50).await;
        let found: Vec<Value> = found.into_iter().map(|row| row["event"].clone()).collect();
        assert!(found == events, "the events of {stream}");
    }
}
