//! The commands beside `smith run`, as a person or a script meets them.

use std::path::Path;
use std::process::Stdio;

use insta::assert_snapshot;
use mister_smith_testkit::{Smith, eventually};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::node::{DEADLINE, NDJSON, event, ndjson};

const SMITH: &str = env!("CARGO_BIN_EXE_smith");

/// Runs a command in a directory: whether it went well, and what it wrote to both sides.
async fn smith(dir: &Path, args: &[&str]) -> (bool, String, String) {
    let output = Command::new(SMITH)
        .args(args)
        .current_dir(dir)
        .env_remove("SMITH_STORE")
        .env_remove("SMITH_ENV")
        .stdin(Stdio::null())
        .output();
    let output = tokio::time::timeout(DEADLINE, output).await.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

async fn ok(dir: &Path, args: &[&str]) -> String {
    let (good, out, err) = smith(dir, args).await;
    assert!(good, "{args:?}: {err}");
    out
}

async fn refused(dir: &Path, args: &[&str]) -> String {
    let (good, out, err) = smith(dir, args).await;
    assert!(!good, "{args:?}: {out}");
    err
}

fn store_of(smith: &Smith) -> String {
    format!("sqlite://{}", smith.dir().join("smith.db").display())
}

/// A node with five events of three streams.
async fn node() -> (Smith, String) {
    let node = Smith::start(SMITH).await;
    let events: Vec<_> = [("1", "order-a"), ("2", "order-b"), ("3", "invoice"), ("4", "order-a")]
        .map(|(id, subject)| event(id, subject))
        .into();
    let (status, answer) = node.client().post_ingest(NDJSON, ndjson(&events)).await.unwrap();
    assert_eq!((status, &answer["rejected"]), (200, &Value::from(0)), "{answer}");
    let store = store_of(&node);
    (node, store)
}

fn no_times(text: &str) -> String {
    let mut words = Vec::new();
    for line in text.lines() {
        let line = line.split("  ").map(|word| match word.trim().parse::<jiff::Timestamp>() {
            Ok(_) => "[time]",
            Err(_) if word.ends_with(" ms") => "[n] ms",
            Err(_) => word,
        });
        words.push(line.collect::<Vec<_>>().join("  "));
    }
    words.join("\n")
}

#[tokio::test]
async fn migrate_goes_up_and_down_and_says_how_things_stand() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let store = ["--store", "a.db"];
    let with = |args: &[&'static str]| [args, &store[..]].concat();
    let mut told = Vec::new();
    for args in [
        &["migrate", "status"][..],
        &["migrate", "up"],
        &["migrate", "up"],
        &["migrate", "down", "--to", "3", "--yes"],
        &["migrate", "status"],
        &["migrate", "verify"],
    ] {
        told.push(format!("$ smith {}\n{}", args.join(" "), ok(dir, &with(args)).await));
    }
    insta::with_settings!({ snapshot_path => "../snapshots" }, {
        assert_snapshot!("migrate", no_times(&told.join("\n")));
    });
    let status = ok(dir, &with(&["migrate", "status", "--json"])).await;
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!((&status["version"], &status["newest"]), (&3.into(), &12.into()));
    let error = refused(dir, &with(&["migrate", "down", "--to", "9"])).await;
    assert_eq!(error, "error: a.db is at version 3; it cannot go down to 9\n");
    let error = refused(dir, &with(&["migrate", "down", "--to", "1"])).await;
    assert!(error.contains("nothing was undone"), "{error}");
    assert!(ok(dir, &with(&["migrate", "status"])).await.contains("version 3"));
}

/// It dropped tables under a running node.
#[tokio::test]
async fn migrations_wait_for_no_node_and_are_refused_beside_one() {
    let (_node, store) = node().await;
    let dir = TempDir::new().unwrap();
    for args in [&["migrate", "down", "--to", "3", "--yes"][..], &["migrate", "up"]] {
        let error = refused(dir.path(), &[args, &["--store", &store]].concat()).await;
        assert!(error.contains("is in use by another node"), "{args:?}: {error}");
    }
    ok(dir.path(), &["migrate", "status", "--store", &store]).await;
}

#[tokio::test]
async fn nothing_is_migrated_by_itself_in_production() {
    let dir = TempDir::new().unwrap();
    let run = ["run", "--store", "a.db", "--listen", "127.0.0.1:0", "--env", "production"];
    ok(dir.path(), &["migrate", "up", "--store", "a.db"]).await;
    ok(dir.path(), &["migrate", "down", "--to", "11", "--yes", "--store", "a.db"]).await;
    let error = refused(dir.path(), &run).await;
    assert_eq!(
        error,
        "error: a.db needs a migration (0012_timers), and nothing is migrated by itself in \
         production; run `smith migrate up`\n"
    );
    assert!(ok(dir.path(), &["migrate", "status", "--store", "a.db"]).await.contains("version 11"));
}

#[tokio::test]
async fn events_are_shown_beside_a_running_node() {
    let (_node, store) = node().await;
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let positions = async |args: &[&str]| {
        let args = [&["events", "tail", "--json", "--store", &store][..], args].concat();
        let lines = ok(dir, &args).await;
        let parse = |line: &str| serde_json::from_str::<Value>(line).unwrap()["position"].as_u64();
        lines.lines().map(|line| parse(line).unwrap()).collect::<Vec<_>>()
    };
    let all = positions(&[]).await;
    assert_eq!(all.len(), 4);
    assert_eq!(positions(&["-n", "2"]).await, all[2..]);
    assert_eq!(positions(&["--from", "1"]).await, all[1..]);
    assert_eq!(positions(&["--category", "order"]).await.len(), 3);
    assert_eq!(positions(&["--stream", "order-a", "-n", "1"]).await.len(), 1);
    assert_eq!(positions(&["--type", "nothing"]).await.len(), 0);

    let one = ok(dir, &["events", "show", "order-a/2", "--store", &store]).await;
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!((&one["stream"], &one["version"]), (&"order-a".into(), &2.into()));
    assert_eq!(one["payload"], serde_json::json!({"eur": 1}));
    assert_eq!(one["metadata"]["source"], "/shop");
    let error = refused(dir, &["events", "show", "99", "--store", &store]).await;
    assert_eq!(error, "error: there is no event 99\n");
    let error = refused(dir, &["events", "show", "banana", "--store", &store]).await;
    assert_eq!(error, "error: \"banana\" is no place; give a position, or STREAM/VERSION\n");
    let error = refused(dir, &["events", "tail", "--store", "nowhere.db"]).await;
    assert!(error.contains("create it with `smith migrate up`"), "{error}");
    let stats = ok(dir, &["events", "stats", "--store", &store]).await;
    insta::with_settings!({ snapshot_path => "../snapshots" }, {
        assert_snapshot!("events_stats", stats);
    });
}

#[tokio::test]
async fn a_tail_follows_what_comes() {
    let (node, store) = node().await;
    let mut tail = Command::new(SMITH)
        .args(["events", "tail", "--follow", "-n", "1", "--store", &store])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = tokio::time::timeout(DEADLINE, lines.next_line()).await;
        line.expect("a line comes").unwrap().unwrap()
    };
    assert!(next().await.trim_start().starts_with("4  "));
    for n in 5..8 {
        let events = [event(&n.to_string(), "late")];
        node.client().post_ingest(NDJSON, ndjson(&events)).await.unwrap();
        let line = next().await;
        assert!(line.trim_start().starts_with(&format!("{n}  ")), "{line}");
        assert!(line.contains("late/"), "{line}");
    }
}

#[tokio::test]
async fn a_replay_is_resumed_where_it_was() {
    let (_node, store) = node().await;
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let first = ["replay", "--to", "3", "--resume", "kept.json", "--store", &store];
    assert_eq!(ok(dir, &first).await.lines().count(), 3);
    assert_eq!(ok(dir, &first).await.lines().count(), 0, "it is done, and stays so");
    // The end is kept as well: another file, another replay.
    let whole = ["replay", "--rate", "10000", "--store", &store];
    let text = ok(dir, &whole).await;
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["position"], 4);
    let stream = ["replay", "--stream", "order-a", "--store", &store];
    assert_eq!(ok(dir, &stream).await.lines().count(), 2);
    let since = ["replay", "--since", "2999-01-01T00:00:00Z", "--store", &store];
    assert_eq!(ok(dir, &since).await, "");
    std::fs::write(dir.join("odd.json"), "{}").unwrap();
    let error = refused(dir, &["replay", "--resume", "odd.json", "--store", &store]).await;
    assert!(error.starts_with("error: odd.json does not say how far a replay is; remove it"));
}

#[tokio::test]
async fn projections_are_steered_from_the_command_line() {
    let (node, _) = node().await;
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let addr = node.client().addr().to_string();
    let at = ["--node", &addr];
    let with = |args: &[&'static str]| {
        [&["projections"], args].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = async |args: &[&'static str]| {
        let args = with(args);
        let args: Vec<&str> = args.iter().map(String::as_str).chain(at).collect();
        smith(dir, &args).await
    };
    eventually(DEADLINE, async || {
        let (_, out, _) = run(&["list"]).await;
        if out.contains("         4         0       0") { Ok(()) } else { Err(out) }
    })
    .await;
    assert!(run(&["rebuild", "streams"]).await.0);
    assert!(run(&["pause", "streams"]).await.0);
    let (_, tree) = node.client().get("/debug/tree?format=text").await.unwrap();
    assert!(tree.as_str().unwrap().contains("paused"), "{tree}");
    assert!(run(&["resume", "streams"]).await.0);
    assert!(run(&["reset", "streams"]).await.0);
    assert_eq!(run(&["parked", "streams"]).await.1, "nothing is parked\n");
    eventually(DEADLINE, async || {
        let (status, answer) = node.client().get("/api/v1/streams/order-a").await.unwrap();
        if status == 200 && answer["events"] == 2 { Ok(()) } else { Err(answer) }
    })
    .await;
    let (good, _, error) = run(&["pause", "nothing"]).await;
    assert_eq!((good, &*error), (false, "error: there is no projection nothing\n"));
    let (good, _, error) = run(&["retry", "streams", "x"]).await;
    assert!(good, "nothing is parked, nothing to do: {error}");
    let error = refused(dir, &["projections", "list", "--node", "127.0.0.1:1"]).await;
    assert!(
        error.starts_with("error: no node at 127.0.0.1:1; start one, or give --node"),
        "{error}"
    );
}

/// Who decided that an event does not count, when and why, is kept, and the event too.
#[tokio::test]
async fn an_event_is_passed_over_on_purpose_and_audited() {
    let (node, store) = node().await;
    let dir = node.dir();
    let with = |args: &[&'static str]| -> Vec<String> {
        let args = args.iter().map(|arg| (*arg).to_owned());
        args.chain(["--store".to_owned(), store.clone()]).collect()
    };
    let run = async |args: &[&'static str], good: bool| {
        let args = with(args);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        match good {
            true => ok(dir, &args).await,
            false => refused(dir, &args).await,
        }
    };
    assert_eq!(run(&["events", "skipped"], true).await, "");
    let skip = ["events", "skip", "order-a", "2", "--reason", "cut off", "--by", "ada"];
    let told = run(&skip, true).await;
    assert!(told.starts_with("order-a/2 (position "), "{told}");
    let again = run(&["events", "skip", "order-a", "2", "--reason", "again"], false).await;
    assert!(again.contains("passed over already"), "{again}");
    // Whatever names the archives of the store is not for who writes to it, or migrates it.
    let cold = format!("{store}?archive_dir=cold");
    let skip = ["events", "skip", "order-a", "2", "--reason", "again", "--store", &cold];
    let again = refused(dir, &skip).await;
    assert!(again.contains("passed over already"), "{again}");
    let status = ok(dir, &["migrate", "status", "--store", &cold]).await;
    assert!(!status.contains("pending"), "{status}");
    run(&["events", "skip", "1", "--reason", "forged"], true).await;
    for nothing in [&["99"][..], &["order-a", "9"], &["order-a", "x"], &["order-a"]] {
        let args = [&["events", "skip"], nothing, &["--reason", "x"]].concat();
        let error = run(&args, false).await;
        assert!(error.contains("event"), "{error}");
    }
    let listed = run(&["events", "skipped"], true).await;
    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(lines.len(), 2, "{listed}");
    assert!(lines[1].contains("order-a/2") && lines[1].ends_with("ada: cut off"), "{listed}");
    assert!(run(&["events", "show", "order-a/2"], true).await.contains("order-a"));
    let json: Value =
        serde_json::from_str(&run(&["events", "skipped", "--json"], true).await).unwrap();
    assert_eq!((&json[1]["stream"], &json[1]["reason"]), (&"order-a".into(), &"cut off".into()));
}
