//! `POST /api/v1/data/ingest`: what is answered, and what is in the log afterwards.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use mister_smith::http::Limits;
use mister_smith_testkit::{Reply, eventually};
use serde_json::{Value, json};

use crate::node::{BATCH, DEADLINE, INGEST, NDJSON, Node, ONE, Raw, escaped, event, ndjson};

fn gzip(plain: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain.as_ref()).unwrap();
    encoder.finish().unwrap()
}

async fn post(node: &Node, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Reply {
    node.client.send("POST".parse().unwrap(), INGEST, headers, body.into()).await.unwrap()
}

// --- taken -----------------------------------------------------------------------------------------

#[tokio::test]
async fn one_event_is_answered_with_its_place() {
    let node = Node::start().await;
    let (status, answer) = node.ingest(ONE, event("1", "order-1")).await;
    assert_eq!(status, 200);
    let row = json!({
        "index": 0, "status": "accepted", "stream": "order-1", "version": 1, "position": 1,
    });
    assert_eq!(answer, json!({ "accepted": 1, "duplicates": 0, "rejected": 0, "results": [row] }));
}

#[tokio::test]
async fn a_batch_is_answered_in_its_order() {
    let node = Node::start().await;
    let batch = json!([event("1", "a"), event("2", "b"), event("3", "a")]);
    let (status, answer) = node.ingest(BATCH, &batch).await;
    assert_eq!((status, &answer["accepted"]), (200, &json!(3)));
    let rows = answer["results"].as_array().unwrap();
    let row = |i: usize| (&rows[i]["index"], &rows[i]["stream"], &rows[i]["version"]);
    assert_eq!(row(0), (&json!(0), &json!("a"), &json!(1)));
    assert_eq!(row(1), (&json!(1), &json!("b"), &json!(1)));
    assert_eq!(row(2), (&json!(2), &json!("a"), &json!(2)));
    assert!(rows.iter().all(|row| row.get("line").is_none()), "an array has no lines");
    let mut positions: Vec<u64> =
        rows.iter().map(|row| row["position"].as_u64().unwrap()).collect();
    assert!(positions[0] < positions[2], "the order within a stream is kept");
    positions.sort_unstable();
    assert_eq!(positions, [1, 2, 3]);
}

#[tokio::test]
async fn ndjson_is_answered_by_line_and_blank_lines_count() {
    let node = Node::start().await;
    let body = format!("\n{}\r\n\n  \n{}", event("1", "a"), event("2", "a"));
    let (status, answer) = node.ingest(NDJSON, body).await;
    assert_eq!(status, 200);
    let row = |index, line, version| {
        json!({
            "index": index, "line": line, "status": "accepted",
            "stream": "a", "version": version, "position": version,
        })
    };
    assert_eq!(
        answer,
        json!({
            "accepted": 2, "duplicates": 0, "rejected": 0, "results": [row(0, 2, 1), row(1, 5, 2)],
        })
    );
}

#[tokio::test]
async fn an_empty_batch_is_no_fault() {
    let node = Node::start().await;
    let nothing = json!({ "accepted": 0, "duplicates": 0, "rejected": 0, "results": [] });
    assert_eq!(node.ingest(BATCH, "[]").await, (200, nothing.clone()));
    assert_eq!(node.ingest(NDJSON, "\n\n").await, (200, nothing));
}

#[tokio::test]
async fn gzip_is_read_whatever_its_size() {
    let node = Node::start().await;
    let headers = [("content-type", NDJSON), ("content-encoding", "gzip")];
    let events: Vec<Value> = (0..500).map(|n| event(&n.to_string(), "zipped")).collect();
    let small = post(&node, &headers, gzip(ndjson(&events[..1]))).await;
    assert_eq!((small.status, &small.json()["accepted"]), (200, &json!(1)));
    let rest = post(&node, &headers, gzip(ndjson(&events))).await;
    assert_eq!((rest.status, &rest.json()["accepted"]), (200, &json!(499)));
    assert_eq!(rest.json()["duplicates"], 1);
}

#[tokio::test]
async fn without_a_subject_the_source_is_the_stream() {
    let node = Node::start().await;
    let mut one = event("1", "");
    one.as_object_mut().unwrap().remove("subject");
    let mut two = event("2", "");
    two["subject"] = Value::Null;
    let answer = node.fill(&[one, two]).await;
    assert_eq!(answer["results"][0]["stream"], "/shop");
    assert_eq!(answer["results"][1]["stream"], "/shop");
    assert_eq!(node.get("/api/v1/streams//shop").await["events"], 2);
    assert_eq!(node.get("/api/v1/streams/%2Fshop").await["events"], 2);
}

// --- taken once ------------------------------------------------------------------------------------

#[tokio::test]
async fn a_repeat_says_where_the_first_is() {
    let node = Node::start().await;
    let body = ndjson(&[event("1", "a"), event("2", "a"), event("3", "a")]);
    node.ingest(NDJSON, &body).await;
    // Not only in another request: in another stream too, the first one counts.
    let elsewhere = event("2", "somewhere else");
    let (status, answer) = node.ingest(ONE, elsewhere).await;
    assert_eq!(status, 200);
    let row =
        json!({ "index": 0, "status": "duplicate", "stream": "a", "version": 2, "position": 2 });
    assert_eq!(answer, json!({ "accepted": 0, "duplicates": 1, "rejected": 0, "results": [row] }));
    let (status, answer) = node.ingest(NDJSON, &body).await;
    assert_eq!((status, &answer["accepted"], &answer["duplicates"]), (200, &json!(0), &json!(3)));
    for (i, row) in answer["results"].as_array().unwrap().iter().enumerate() {
        assert_eq!((&row["version"], &row["position"]), (&json!(i + 1), &json!(i + 1)));
    }
    assert_eq!(node.core.head().get(), 3);
    // A stream that only a duplicate named does not begin.
    let (status, _) = node.client.get("/api/v1/streams/somewhere%20else/events").await.unwrap();
    assert_eq!(status, 404);
}

#[tokio::test]
async fn the_same_event_twice_in_one_request_is_written_once() {
    let node = Node::start().await;
    let mut other_source = event("1", "a");
    other_source["source"] = json!("/warehouse");
    let (status, answer) =
        node.ingest(BATCH, json!([event("1", "a"), event("1", "a"), other_source])).await;
    assert_eq!((status, &answer["accepted"], &answer["duplicates"]), (200, &json!(2), &json!(1)));
    let first = &answer["results"][0];
    let again = &answer["results"][1];
    assert_eq!((&first["status"], &again["status"]), (&json!("accepted"), &json!("duplicate")));
    assert_eq!((&first["version"], &first["position"]), (&again["version"], &again["position"]));
    assert_eq!(answer["results"][2]["version"], 2, "ids are those of their source");

    // In two streams at once either may be the first; the other one says which.
    let (_, answer) = node.ingest(BATCH, json!([event("2", "b"), event("2", "c")])).await;
    assert_eq!((&answer["accepted"], &answer["duplicates"]), (&json!(1), &json!(1)));
    assert_eq!(answer["results"][0]["stream"], answer["results"][1]["stream"]);
    assert_eq!(answer["results"][0]["position"], answer["results"][1]["position"]);
}

// --- refused, one by one -----------------------------------------------------------------------------

#[tokio::test]
async fn rejected_events_are_named_and_the_others_taken() {
    let node = Node::start().await;
    let mut no_type = event("2", "a");
    no_type.as_object_mut().unwrap().remove("type");
    let mut old = event("3", "a");
    old["specversion"] = json!("0.3");
    let mut late = event("4", "a");
    late["time"] = json!("yesterday");
    let lines = [
        event("1", "a").to_string(),
        no_type.to_string(),
        "{\"specversion\":".to_owned(),
        "[1]".to_owned(),
        old.to_string(),
        late.to_string(),
        event("5", &"x".repeat(600)).to_string(),
        event("6", "a").to_string(),
    ];
    let (status, answer) = node.ingest(NDJSON, lines.join("\n")).await;
    assert_eq!((status, &answer["accepted"], &answer["rejected"]), (200, &json!(2), &json!(6)));
    insta::with_settings!({ snapshot_path => "../snapshots" }, {
        insta::assert_snapshot!(
            "rejected_events",
            serde_json::to_string_pretty(&answer).unwrap()
        );
    });
    assert_eq!(node.core.head().get(), 2);
}

#[tokio::test]
async fn a_single_event_that_misses_an_attribute_is_a_bad_request() {
    let node = Node::start().await;
    for attribute in ["specversion", "id", "source", "type"] {
        let mut event = event("1", "a");
        event.as_object_mut().unwrap().remove(attribute);
        let (status, answer) = node.ingest(ONE, &event).await;
        assert_eq!(status, 400, "{answer}");
        let row = &answer["results"][0];
        assert_eq!((&row["status"], &row["attribute"]), (&json!("rejected"), &json!(attribute)));
        let reason = row["reason"].as_str().unwrap();
        assert!(reason.starts_with(&format!("{attribute} is missing; ")), "{reason}");
    }
    assert_eq!(node.core.head().get(), 0);
}

#[tokio::test]
async fn malformed_json_is_refused_with_its_place() {
    let node = Node::start().await;
    let good = event("1", "a").to_string();
    let one = "{\n  \"id\": tru }".to_owned();
    let batch = format!("[{good},\n{good},\n{{\"id\" 1}}]");
    for (content_type, body, line, column) in [(ONE, one, 2, 12), (BATCH, batch, 3, 7)] {
        let headers = [("content-type", content_type)];
        let reply = post(&node, &headers, body).await;
        let problem = reply.json();
        assert_eq!(reply.status, 400, "{problem}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        assert_eq!((&problem["line"], &problem["column"]), (&json!(line), &json!(column)));
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(&format!("line {line}, column {column}")), "{detail}");
    }
    let (status, problem) = node.ingest(ONE, "").await;
    assert_eq!((status, &problem["line"], &problem["column"]), (400, &json!(1), &json!(1)));
    let (status, problem) = node.ingest(BATCH, &good).await;
    assert_eq!(status, 400);
    assert!(problem["detail"].as_str().unwrap().contains("application/cloudevents+json"));
    assert_eq!(node.core.head().get(), 0, "nothing of a malformed body is taken");
}

// --- refused as a whole --------------------------------------------------------------------------------

#[tokio::test]
async fn a_body_over_the_limit_is_refused_however_it_comes() {
    let node = Node::with(Limits::default().body_bytes(10_000)).await;
    let too_large = |(status, text): (u16, String)| {
        assert_eq!(status, 413, "{text}");
        assert!(text.contains("more than 10000 bytes; send less at once"), "{text}");
    };

    // By its announcement alone: not a byte of it is sent.
    let mut announced = Raw::connect(node.addr()).await;
    let head = format!("POST {INGEST} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {ONE}\r\n");
    announced.send(&format!("{head}Content-Length: 10001\r\n\r\n")).await;
    too_large(announced.answer().await);

    let mut chunked = Raw::connect(node.addr()).await;
    let chunk = "x".repeat(6_000);
    chunked.send(&format!("{head}Transfer-Encoding: chunked\r\n\r\n1770\r\n{chunk}\r\n")).await;
    chunked.send(&format!("1770\r\n{chunk}\r\n")).await;
    too_large(chunked.answer().await);

    let bomb = gzip(vec![b' '; 5_000_000]);
    assert!(bomb.len() < 10_000);
    let headers = [("content-type", ONE), ("content-encoding", "gzip")];
    assert_eq!(post(&node, &headers, bomb).await.status, 413);

    // The limit itself is still taken, and the node is as it was.
    let mut event = event("1", "a");
    let bare = event.to_string().len();
    event["data"]["pad"] = json!("x".repeat(10_000 - bare - r#","pad":"""#.len()));
    assert_eq!(event.to_string().len(), 10_000);
    assert_eq!(node.ingest(ONE, &event).await.0, 200);
}

#[tokio::test]
async fn types_and_encodings_that_nobody_knows_are_refused() {
    let node = Node::start().await;
    let body = event("1", "a").to_string();
    let unknown: [&[(&str, &str)]; 5] = [
        &[],
        &[("content-type", "application/json")],
        &[("content-type", "text/plain; charset=utf-8")],
        &[("content-type", ONE), ("content-encoding", "br")],
        &[("content-type", ONE), ("content-encoding", "gzip, gzip")],
    ];
    for headers in unknown {
        let reply = post(&node, headers, body.clone()).await;
        assert_eq!(reply.status, 415, "{headers:?}: {}", reply.text());
        assert!(reply.json()["detail"].as_str().unwrap().contains("; send "), "{}", reply.text());
    }
    let broken = [("content-type", ONE), ("content-encoding", "gzip")];
    let reply = post(&node, &broken, body.clone()).await;
    assert_eq!(reply.status, 400, "{}", reply.text());
    let known = [("content-type", "Application/CloudEvents+JSON; charset=UTF-8")];
    assert_eq!(post(&node, &known, body).await.status, 200);
    assert_eq!(node.core.head().get(), 1);
}

#[tokio::test]
async fn too_many_requests_at_once_are_told_to_come_back() {
    let node = Node::with(Limits::default().requests(1)).await;
    let body = event("slow", "a").to_string();
    let mut slow = Raw::begin_ingest(node.addr(), &body).await;
    let fast = event("fast", "a").to_string();
    let refused = post(&node, &[("content-type", ONE)], fast).await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    // Reads are not ingest requests.
    node.get("/healthz").await;
    node.get("/api/v1/streams").await;

    slow.send(&body[1..]).await;
    let (status, text) = slow.answer().await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(node.ingest(ONE, event("fast", "a")).await.0, 200, "the place is free again");
}

#[tokio::test]
async fn bodies_share_their_memory() {
    let mut limits = Limits::default().body_bytes(1 << 20);
    limits.in_flight_mib = 1;
    let node = Node::with(limits).await;
    let body = format!("{}{}", event("slow", "a"), " ".repeat(1_000_000));
    let mut slow = Raw::begin_ingest(node.addr(), &body).await;
    let refused = post(&node, &[("content-type", ONE)], vec![b' '; 500_000]).await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert_eq!(node.ingest(ONE, event("small", "a")).await.0, 200, "there is room for this one");
    slow.send(&body[1..]).await;
    assert_eq!(slow.answer().await.0, 200);
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_place() {
    let node = Node::with(Limits::default().requests(1)).await;
    let gone = Raw::begin_ingest(node.addr(), &event("gone", "a").to_string()).await;
    drop(gone);
    eventually(DEADLINE, async || match node.ingest(ONE, event("next", "a")).await {
        (200, _) => Ok(()),
        (status, _) => Err(status),
    })
    .await;
}

#[tokio::test]
async fn wrong_methods_and_places_are_problems() {
    let node = Node::start().await;
    let reply = node.send("GET", INGEST).await;
    assert_eq!(reply.status, 405);
    assert_eq!(reply.header("allow"), Some("POST"), "RFC 9110 section 15.5.6 asks for it");
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    assert_eq!(reply.json()["detail"], "/api/v1/data/ingest does not take GET");
    assert_eq!(node.send("DELETE", "/api/v1/streams/a").await.status, 405);
    let reply = node.send("GET", "/api/v2/nothing").await;
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    assert_eq!(
        reply.json(),
        json!({
            "type": "about:blank",
            "title": "Not Found",
            "status": 404,
            "detail": "there is nothing at /api/v2/nothing",
        })
    );
}

#[tokio::test]
async fn web_pages_of_others_are_refused() {
    let node = Node::start().await;
    let body = event("1", "a").to_string();
    let request = |host: &str, more: &str| {
        let length = body.len();
        format!(
            "POST {INGEST} HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\
             Content-Type: {ONE}\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    let port = node.addr().port();
    let here = format!("localhost:{port}");
    let same = format!("Origin: http://{here}\r\n");
    for (host, more, expected) in [
        ("evil.example", "", 421),
        (here.as_str(), "Origin: http://evil.example\r\n", 403),
        (here.as_str(), "Origin: null\r\n", 403),
        (here.as_str(), same.as_str(), 200),
    ] {
        let mut raw = Raw::connect(node.addr()).await;
        raw.send(&request(host, more)).await;
        let (status, text) = raw.answer().await;
        assert_eq!(status, expected, "{host} {more}: {text}");
    }
    let mut reading = Raw::connect(node.addr()).await;
    reading
        .send("GET /debug/tree HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(reading.answer().await.0, 421);
}

// --- kept as it came -----------------------------------------------------------------------------------

#[tokio::test]
async fn streams_may_have_any_name() {
    let node = Node::start().await;
    let names = [
        "a/b",
        "with space",
        "größe ✓ 日本",
        "quo\"te'",
        "orders/events",
        "events",
        "/shop",
        "https://example.com/x?y=1&z=2#frag",
        "50%",
        "a%2Fb",
        "..",
        ".",
        "a//b",
        "trailing/",
        "back\\slash",
        "<script>",
        "+plus+",
    ];
    let events: Vec<Value> =
        names.iter().enumerate().map(|(i, name)| event(&i.to_string(), name)).collect();
    let answer = node.fill(&events).await;
    assert_eq!(answer["accepted"], names.len());
    for (i, name) in names.iter().enumerate() {
        assert_eq!(answer["results"][i]["stream"], *name);
        let path = format!("/api/v1/streams/{}", escaped(name));
        let row = node.get(&path).await;
        assert_eq!((&row["id"], &row["events"]), (&json!(name), &json!(1)), "{path}");
        let page = node.get(&format!("{path}/events")).await;
        assert_eq!(page["events"][0]["stream"], *name, "{path}");
        assert_eq!(page["events"][0]["event"]["subject"], *name, "{path}");
    }
    // As people write them.
    assert_eq!(node.get("/api/v1/streams/a/b").await["id"], "a/b");
    assert_eq!(node.get("/api/v1/streams/a/b/events").await["events"][0]["stream"], "a/b");
    assert_eq!(node.get("/api/v1/streams/orders%2Fevents").await["id"], "orders/events");
    let listed = node.get("/api/v1/streams?limit=1000").await;
    assert_eq!(listed["streams"].as_array().unwrap().len(), names.len());
}

#[tokio::test]
async fn data_comes_back_as_the_text_that_was_sent() {
    let node = Node::start().await;
    let texts = [
        "123456789012345678901234567890.10",
        "1e400",
        "-0",
        "1.10",
        r#"{"z":1,"a":2,"z":3}"#,
        r#"{ "spaced" : [ 1 , 2 ] }"#,
        r#""\u00e9 \ud83d\ude00 \/ é""#,
        "[]",
        "null",
        "false",
    ];
    for (i, text) in texts.iter().enumerate() {
        let body = format!(
            r#"{{"specversion":"1.0","id":"{i}","source":"s","type":"t","subject":"v{i}","data":{text}}}"#
        );
        let (status, answer) = node.ingest(ONE, body).await;
        assert_eq!(status, 200, "{text}: {answer}");
    }
    node.projected().await;
    let all = node.text("/api/v1/events").await;
    for (i, text) in texts.iter().enumerate() {
        let wanted = format!(r#""data":{text}}}"#);
        let events = node.text(&format!("/api/v1/streams/v{i}/events")).await;
        assert!(events.contains(&wanted) && all.contains(&wanted), "{wanted} in {events}");
        // The read model once read numbers and wrote them again: 30 digits became 17.
        let row = node.text(&format!("/api/v1/streams/v{i}")).await;
        assert!(row.contains(&format!(r#""last_payload":{text}}}"#)), "{text} in {row}");
    }
}

#[tokio::test]
async fn every_attribute_comes_back() {
    let node = Node::start().await;
    let full = json!({
        "specversion": "1.0",
        "type": "t",
        "id": "ünïq \"1\"",
        "source": "urn:x",
        "subject": "s",
        "time": "2024-02-29T23:59:59.123456789+02:00",
        "datacontenttype": "text/plain",
        "dataschema": "https://example.com/schema",
        "text": "a \"quoted\" one",
        "number": 42,
        "flag": true,
        "data": "plain text",
    });
    let binary = json!({
        "specversion": "1.0", "type": "t", "id": "2", "source": "urn:x", "subject": "s",
        "data_base64": "AAEC/w==",
    });
    let empty =
        json!({ "specversion": "1.0", "type": "t", "id": "3", "source": "urn:x", "subject": "s" });
    let events = [full, binary, empty];
    node.fill(&events).await;
    let page = node.get("/api/v1/streams/s/events").await;
    for (i, event) in events.iter().enumerate() {
        assert_eq!(page["events"][i]["event"], *event);
        assert_eq!(page["events"][i]["version"], i + 1);
    }
    let one = node.get("/api/v1/streams/s").await;
    assert_eq!(one["last_payload"], Value::Null);
}

#[tokio::test]
async fn bytes_are_shown_in_base64() {
    let node = Node::start().await;
    let mut binary = event("1", "s");
    binary.as_object_mut().unwrap().remove("data");
    binary["data_base64"] = json!("AAEC/w==");
    node.fill(&[binary]).await;
    let row = node.get("/api/v1/streams/s").await;
    assert_eq!(row["last_payload"], json!({ "base64": "AAEC/w==" }));
}

// --- names -----------------------------------------------------------------------------------------

/// What the system owns, and the types of the store, are not written from outside; the answer says
/// which attribute is wrong.
#[tokio::test]
async fn names_of_others_are_refused() {
    let node = Node::start().await;
    for stream in ["saga-order-7", "dead_letter-1", "schemas", "$any"] {
        let mut forged = event("1", stream);
        forged["type"] = json!("saga.started");
        let (status, answer) = node.ingest(ONE, &forged).await;
        assert_eq!(status, 400, "{answer}");
        let row = &answer["results"][0];
        assert_eq!((&row["status"], &row["attribute"]), (&json!("rejected"), &json!("subject")));
        assert!(row["reason"].as_str().unwrap().contains("belong to the "), "{row}");
        forged["source"] = json!(stream);
        forged.as_object_mut().unwrap().remove("subject");
        let (status, answer) = node.ingest(ONE, &forged).await;
        assert_eq!((status, &answer["results"][0]["attribute"]), (400, &json!("source")));
    }
    for name in ["$tombstone", "$any"] {
        let mut forged = event("1", "order-1");
        forged["type"] = json!(name);
        let (status, answer) = node.ingest(ONE, &forged).await;
        assert_eq!((status, &answer["results"][0]["attribute"]), (400, &json!("type")), "{answer}");
    }
    // In a batch the others are taken.
    let mut forged = event("2", "order-1");
    forged["type"] = json!("$tombstone");
    let (status, answer) = node.ingest(BATCH, json!([event("1", "order-1"), forged])).await;
    assert_eq!((status, &answer["accepted"], &answer["rejected"]), (200, &json!(1), &json!(1)));
    assert_eq!(node.core.head().get(), 1);
}
