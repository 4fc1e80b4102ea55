//! `smith run` as a process: what it prints, how it ends, and what survives it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use mister_smith_testkit::{Ended, Smith, Stream};
use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use crate::node::{DEADLINE, NDJSON, ONE, Raw, event, ndjson};

const SMITH: &str = env!("CARGO_BIN_EXE_smith");

/// Less than a stop waits for requests under way: what ends within it waited for nobody.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Runs `smith` to its end: the code, and what it wrote to standard error.
async fn run<S: AsRef<OsStr>>(args: &[S]) -> (Option<i32>, String) {
    let mut command = Command::new(SMITH);
    command.args(args).stdin(Stdio::null()).env("SMITH_LOG", "off").kill_on_drop(true);
    let output = timeout(DEADLINE, command.output()).await.expect("it ends by itself").unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Runs a node that is to refuse: with code 1 and one line, which is returned with `dir` as `DIR`.
async fn refusal(dir: &Path, store: &str, listen: &str) -> String {
    let (code, text) = run(&["run", "--store", store, "--listen", listen]).await;
    assert_eq!(code, Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text.trim_end().replace(&dir.display().to_string(), "DIR")
}

// --- starts ----------------------------------------------------------------------------------------

#[tokio::test]
async fn without_arguments_it_says_what_it_made_and_where_to_look() {
    let mut smith = Smith::builder(SMITH).bare().env("SMITH_LOG", "off").start().await;
    let curl = smith.wait_for_line("curl ", DEADLINE).await.text;
    assert_eq!(curl, format!("curl http://{}/debug/tree?format=text", smith.addr()));
    assert_eq!(smith.get("/healthz").await.0, 200);
    assert!(smith.dir().join("data/smith.db").exists());

    // Ctrl-C.
    smith.interrupt();
    assert_eq!(smith.wait(DEADLINE).await.code(), Some(0));
    let shown = |smith: &Smith| {
        let lines = smith.output().into_iter().filter(|line| line.stream == Stream::Stdout);
        let text: Vec<String> = lines.map(|line| line.text).collect();
        let text = text.join("\n").replace(&smith.addr().port().to_string(), "[port]");
        // Readers may be at work already, and messages on their way.
        let text = (1..=9).fold(text, |text, n| {
            text.replace(&format!("{n}/4 in use"), "0/4 in use")
                .replace(&format!("   {n} waiting"), "")
        });
        // A busy machine may take longer.
        let (before, after) = text.split_once("up ").unwrap();
        format!("{before}up [seconds] {}", after.split_once(' ').unwrap().1)
    };
    insta::with_settings!({ snapshot_path => "../snapshots" }, {
        insta::assert_snapshot!("smith_run", shown(&smith));
    });
    smith.restart().await;
    smith.wait_for_line("curl ", DEADLINE).await;
    assert!(!shown(&smith).contains("(made)"), "it is there already");
}

#[tokio::test]
async fn what_stands_in_the_way_is_named_with_its_cure() {
    let dir = TempDir::with_prefix("smith-").unwrap();
    let at = |name: &str| format!("sqlite://{}", dir.path().join(name).display());
    let free = "127.0.0.1:0";

    let taken = TcpListener::bind(free).unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    assert_eq!(
        refusal(dir.path(), &at("a.db"), &addr).await.replace(&addr, "ADDR"),
        "error: ADDR is in use by another program; stop it, or give --listen another port \
         (port 0 picks a free one)"
    );
    assert!(!dir.path().join("a.db").exists(), "a port in use leaves nothing behind");

    for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        assert_eq!(
            refusal(dir.path(), &at("a.db"), open).await,
            format!(
                "error: {open} can be reached from other machines, and nobody would be asked who \
                 they are: make a token with `smith token NAME --role operator --tokens FILE` and \
                 give --tokens FILE, or listen on 127.0.0.1 or [::1]"
            )
        );
    }

    std::fs::write(dir.path().join("file"), "I am no directory").unwrap();
    assert_eq!(
        refusal(dir.path(), &at("file/a.db"), free).await,
        "error: cannot make DIR/file: File exists (os error 17); make its directory writable for \
         this user, or give --store another path"
    );
    let nowhere = refusal(dir.path(), "sqlite:///proc/nowhere/a.db", free).await;
    assert!(nowhere.starts_with("error: cannot make /proc/nowhere: "), "{nowhere}");

    std::fs::write(dir.path().join("poem.db"), "Roses are red. ".repeat(400)).unwrap();
    assert_eq!(
        refusal(dir.path(), &at("poem.db"), free).await,
        "error: DIR/poem.db is not a database; give another path, or move that file away"
    );
    std::fs::create_dir(dir.path().join("folder.db")).unwrap();
    let folder = refusal(dir.path(), &at("folder.db"), free).await;
    assert!(folder.starts_with("error: cannot open DIR/folder.db: "), "{folder}");

    let refused = refusal(dir.path(), "postgres://u:secret@localhost:1/smith", free).await;
    if cfg!(feature = "postgres") {
        assert!(
            refused.starts_with("error: cannot open postgres://localhost:1/smith: "),
            "{refused}"
        );
        assert!(refused.ends_with("; start the server, or give another address"), "{refused}");
        assert!(!refused.contains("secret"), "{refused}");
    } else {
        assert!(
            refused
                .ends_with("built without feature `postgres`; rebuild with `--features postgres`"),
            "{refused}"
        );
    }
    assert_eq!(
        refusal(dir.path(), "mysql://localhost/smith", free).await,
        "error: --store mysql://localhost/smith: mysql://localhost/smith is not the address of a \
         store; give sqlite://PATH or postgres://USER@HOST/DATABASE"
    );
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_left_alone() {
    let dir = TempDir::with_prefix("smith-").unwrap();
    let path = dir.path().join("smith.db");
    let known = mister_smith::migrate::up(&path).await.unwrap().to;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut connection = options.connect().await.unwrap();
    sqlx::query("insert into schema_migrations values (99, '0099_future', x'', '', '', 0, 0)")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    let store = format!("sqlite://{}", path.display());
    assert_eq!(
        refusal(dir.path(), &store, "127.0.0.1:0").await,
        format!(
            "error: DIR/smith.db is at version 99, this program knows versions up to {known}; run \
             a newer smith, or go back with `smith migrate down --to {known}`"
        )
    );
}

#[tokio::test]
async fn two_nodes_do_not_share_a_store() {
    let mut first = Smith::start(SMITH).await;
    let dir = first.dir().to_owned();
    let store = format!("sqlite://{}", dir.join("smith.db").display());
    let text = refusal(&dir, &store, "127.0.0.1:0").await;
    assert_eq!(
        text,
        "error: DIR/smith.db is in use by another node; stop it, or give --store another path"
    );
    // The lock ends with its process, however that ends.
    first.kill9().await;
    first.restart().await;
    assert_eq!(first.get("/readyz").await.0, 200);
}

#[tokio::test]
async fn words_that_nobody_knows_are_the_fault_of_the_command_line() {
    for args in [["run", "--lisen"], ["run", "--listen=there"], ["--store", "x"]] {
        let (code, text) = run(&args).await;
        assert_eq!(code, Some(2), "{args:?}: {text}");
        assert!(text.starts_with("error: "), "{text}");
    }
}

// --- stops -----------------------------------------------------------------------------------------

#[tokio::test]
async fn a_request_under_way_is_finished_before_the_end() {
    let mut smith = Smith::start(SMITH).await;
    let body = event("late", "a").to_string();
    let mut late = Raw::begin_ingest(smith.addr(), &body).await;
    smith.terminate();
    smith.wait_for_line("SIGTERM: stopping; once more ends it at once", DEADLINE).await;
    late.send(&body[1..]).await;
    let (status, text) = late.answer().await;
    assert_eq!(status, 200, "{text}");
    assert!(text.contains(r#""status":"accepted""#), "{text}");
    assert_eq!(smith.wait(DEADLINE).await.code(), Some(0));
    smith.wait_for_line("stopped", DEADLINE).await;

    smith.restart().await;
    assert_eq!(smith.get("/api/v1/events").await.1["events"][0]["event"]["id"], "late");
}

#[tokio::test]
async fn connections_without_a_request_do_not_hold_up_a_stop() {
    let mut smith = Smith::start(SMITH).await;
    // One that never said a word, one that asked and stays, and one accepted by a life of the
    // server that was killed since: the last one once held up the stop until its deadline.
    let before = answered(&smith).await;
    let (status, _) = smith.client().post("/debug/actors/edge/http/kill", "", "").await.unwrap();
    assert_eq!(status, 200);
    let after = answered(&smith).await;
    let silent = Raw::connect(smith.addr()).await;
    // Accepted in order, so the silent one is in.
    assert_eq!(smith.get("/healthz").await.0, 200);
    smith.terminate();
    assert_eq!(smith.wait(AT_ONCE).await.code(), Some(0));
    drop((before, after, silent));
}

/// A connection that has been used and is kept open.
async fn answered(smith: &Smith) -> Raw {
    let mut raw = Raw::connect(smith.addr()).await;
    raw.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    raw.wait_for("ok").await;
    raw
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut smith = Smith::start(SMITH).await;
    let endless = Raw::begin_ingest(smith.addr(), &event("never", "a").to_string()).await;
    smith.terminate();
    smith.wait_for_line("SIGTERM: stopping", DEADLINE).await;
    smith.interrupt();
    assert_eq!(smith.wait(AT_ONCE).await.code(), Some(130));
    drop(endless);
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off() {
    let mut smith = Smith::start(SMITH).await;
    let endless = Raw::begin_ingest(smith.addr(), &event("never", "a").to_string()).await;
    smith.terminate();
    assert_eq!(smith.wait(DEADLINE).await.code(), Some(0));
    drop(endless);
}

#[tokio::test]
async fn output_that_nobody_reads_does_not_end_it() {
    // `smith | head -1`: writing to a closed pipe once made the node panic when it stopped.
    let dir = TempDir::with_prefix("smith-").unwrap();
    let mut command = Command::new(SMITH);
    command.current_dir(dir.path()).env("SMITH_LISTEN", "127.0.0.1:0").kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    // It writes before it listens to nobody, so its lock tells that it runs.
    mister_smith_testkit::eventually(DEADLINE, async || {
        let at = dir.path().join("data/smith.db-wal");
        if at.exists() { Ok(()) } else { Err(child.try_wait()) }
    })
    .await;
    let id = child.id().unwrap().to_string();
    mister_smith_testkit::eventually(DEADLINE, async || {
        // Signals before it listens for them would end it with no code.
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        let term = 1 << 14;
        if u64::from_str_radix(caught, 16).unwrap() & term != 0 { Ok(()) } else { Err(status) }
    })
    .await;
    assert!(Command::new("kill").arg(&id).status().await.unwrap().success());
    let output = timeout(DEADLINE, child.wait_with_output()).await.unwrap().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[tokio::test]
async fn refusals_are_seen_by_who_waits_for_an_address() {
    // What the kit itself reports of a node that ends.
    let Ended { status, lines } =
        Smith::builder(SMITH).arg("--no-such-option").try_start().await.unwrap_err();
    assert_eq!(status.code(), Some(2));
    assert!(!lines.is_empty());
}

// --- survives --------------------------------------------------------------------------------------

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let mut smith = Smith::start(SMITH).await;
    let events: Vec<Value> =
        (0..40).map(|n| event(&n.to_string(), &format!("order-{}", n % 6))).collect();
    let (_, first) = smith.post_ingest(NDJSON, ndjson(&events)).await;
    assert_eq!(first["accepted"], 40);
    let log = smith.get("/api/v1/events?limit=1000").await.1;
    smith.terminate();
    assert_eq!(smith.wait(DEADLINE).await.code(), Some(0));

    smith.restart().await;
    assert_eq!(smith.get("/api/v1/events?limit=1000").await.1, log);
    let streams = projected(&smith, 40).await;
    assert_eq!(streams.len(), 6);
    let (_, again) = smith.post_ingest(NDJSON, ndjson(&events)).await;
    assert_eq!(again["duplicates"], 40);
    for (first, again) in rows(&first).iter().zip(rows(&again)) {
        for place in ["stream", "version", "position"] {
            assert_eq!(first[place], again[place]);
        }
    }
    let (_, next) = smith.post_ingest(ONE, event("next", "order-0").to_string()).await;
    assert_eq!((&rows(&next)[0]["version"], &rows(&next)[0]["position"]), (&json!(8), &json!(41)));
}

fn rows(answer: &Value) -> &Vec<Value> {
    answer["results"].as_array().unwrap()
}

/// The rows of all streams once the read model is at `position`.
async fn projected(smith: &Smith, position: u64) -> Vec<Value> {
    mister_smith_testkit::eventually(DEADLINE, async || {
        let (_, page) = smith.get("/api/v1/streams?limit=1000").await;
        if page["position"] == position {
            Ok(page["streams"].as_array().unwrap().clone())
        } else {
            Err(page["position"].clone())
        }
    })
    .await
}

#[tokio::test]
async fn after_kill_9_every_acknowledged_event_is_there_once() {
    let mut smith = Smith::start(SMITH).await;
    let mut acknowledged = BTreeSet::new();
    let all = |life: u32| (0..400).map(move |n| format!("{life}-{n}"));
    for life in 0..3 {
        // Four senders, each with its share, until the process is gone under them.
        let (acks, mut acked) = tokio::sync::mpsc::unbounded_channel();
        let senders: Vec<_> = (0..4)
            .map(|share| {
                let (client, acks) = (smith.client(), acks.clone());
                let ids: Vec<String> = all(life).skip(share).step_by(4).collect();
                tokio::spawn(async move {
                    for id in ids {
                        let body = event(&id, &format!("order-{share}")).to_string();
                        match client.post_ingest(ONE, body).await {
                            Ok((200, answer)) if answer["accepted"] == 1 => acks.send(id).unwrap(),
                            Ok(answer) => panic!("{answer:?}"),
                            Err(_) => return,
                        }
                    }
                })
            })
            .collect();
        drop(acks);
        let mut count = 0;
        while let Some(id) = acked.recv().await {
            acknowledged.insert(id);
            count += 1;
            if count == 50 {
                smith.kill9().await;
            }
        }
        assert!((50..400).contains(&count), "it was killed while they sent: {count}");
        for sender in senders {
            sender.await.unwrap();
        }
        smith.restart().await;
    }

    let check = async |smith: &Smith| {
        let (_, page) = smith.get("/api/v1/events?limit=1000").await;
        let events = page["events"].as_array().unwrap().clone();
        let ids: Vec<&str> =
            events.iter().map(|event| event["event"]["id"].as_str().unwrap()).collect();
        let once: BTreeSet<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        assert_eq!(once.len(), ids.len(), "each once");
        assert!(acknowledged.is_subset(&once), "{:?}", acknowledged.difference(&once));
        for (i, event) in events.iter().enumerate() {
            assert_eq!(event["position"], i + 1);
        }
        let streams = projected(smith, ids.len() as u64).await;
        for row in streams {
            let in_log = events.iter().filter(|event| event["stream"] == row["id"]).count();
            assert_eq!(row["events"], in_log);
        }
        once.len()
    };
    let before = check(&smith).await;
    // Sent again, what was acknowledged is known.
    let events: Vec<Value> = acknowledged.iter().map(|id| event(id, "elsewhere")).collect();
    let (_, answer) = smith.post_ingest(NDJSON, ndjson(&events)).await;
    assert_eq!(answer["duplicates"], acknowledged.len());
    assert_eq!(check(&smith).await, before);
}
