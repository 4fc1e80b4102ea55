//! `smith demo`, `smith tree` and `smith top`, as a person or a script meets them.

use std::process::Stdio;

use mister_smith::prelude::*;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::node::{DEADLINE, Node};

const SMITH: &str = env!("CARGO_BIN_EXE_smith");

/// Whether `smith ARGS` ended well, and what it wrote to both sides.
async fn smith(node: &Node, args: &[&str]) -> (bool, String, String) {
    let output = Command::new(SMITH)
        .args(args)
        .args(["--node", &node.addr().to_string()])
        .env("SMITH_LOG", "off")
        .env_remove("SMITH_TOKEN")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(DEADLINE, output).await.expect("it ends by itself").unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

async fn ok(node: &Node, args: &[&str]) -> String {
    let (good, out, err) = smith(node, args).await;
    assert!(good, "{args:?}: {err}");
    out
}

/// Counts what it is told.
struct Counter(u64);

impl Actor for Counter {
    type Message = u64;
    type Args = ();

    async fn start(_: &(), _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self(0))
    }

    async fn handle(&mut self, add: u64, _: &mut Context<Self>) -> Result<(), Failure> {
        self.0 += add;
        Ok(())
    }
}

#[tokio::test]
async fn the_tree_is_shown_in_every_form() {
    let node = Node::start().await;
    node.core.spawn::<Counter>("anna", ()).await.unwrap();
    node.core.spawn::<Counter>("b/ob", ()).await.unwrap();
    let text = ok(&node, &["tree"]).await;
    assert!(
        text.contains("└─ ") && text.contains("pool.sqlite") && text.contains("anna"),
        "{text}"
    );
    let part = ok(&node, &["tree", "--text", "--path", "/agents"]).await;
    assert!(part.contains("anna") && part.contains("b/ob"), "{part}");
    assert!(!part.contains("pool.sqlite"), "{part}");
    let few = ok(&node, &["tree", "--path", "/agents", "--children", "1"]).await;
    assert!(few.contains("… 1 more"), "{few}");

    let of_agents = |form| ["tree", form, "--path", "/agents", "--children", "1"];
    let dot = ok(&node, &of_agents("--dot")).await;
    assert!(
        dot.starts_with("digraph") && dot.contains("… 1 more") && !dot.contains("pool"),
        "{dot}"
    );
    let mermaid = ok(&node, &of_agents("--mermaid")).await;
    assert!(mermaid.starts_with("flowchart") && mermaid.contains("… 1 more"), "{mermaid}");
    let svg = ok(&node, &["tree", "--svg"]).await;
    assert!(svg.starts_with("<svg") && svg.contains("store.committer"), "{svg}");
    let json = ok(&node, &["tree", "--json", "--path", "/agents", "--depth", "0"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["root"]["children"]["total"], 2, "{json}");

    for form in ["--text", "--dot"] {
        let (good, _, error) = smith(&node, &["tree", form, "--path", "/nowhere"]).await;
        assert_eq!((good, &*error), (false, "error: nothing lives at /nowhere\n"));
    }
    let (good, _, error) = smith(&node, &["tree", "--text", "--dot"]).await;
    assert!(!good && error.contains("cannot be used with"), "{error}");
}

#[tokio::test]
async fn top_prints_one_frame_for_people_and_for_scripts() {
    let node = Node::start().await;
    let counter = node.core.spawn::<Counter>("counter", ()).await.unwrap();
    counter.tell(1).await.unwrap();
    node.live(["7"]).await;
    let data = ok(&node, &["top", "--once", "--json"]).await;
    let data: Value = serde_json::from_str(&data).unwrap();
    assert_eq!(data["node"]["mode"], "development");
    let actors = data["actors"].as_array().unwrap();
    let found = actors.iter().find(|actor| actor["path"] == "/agents/counter").unwrap();
    assert_eq!((&found["state"], &found["restarts"]), (&"up".into(), &0.into()));
    assert!(found["rate"].is_number() && found["busy_percent"].is_number(), "{found}");
    let text = ok(&node, &["top", "--once"]).await;
    let head = text.lines().find(|line| line.starts_with("PATH")).expect("a header");
    let columns: Vec<_> = head.split_whitespace().collect();
    let named = ["PATH", "STATE", "MBOX", "RATE", "P99", "BUSY%", "RESTARTS", "SPARK", "WARN"];
    assert_eq!(columns, named);
    assert!(text.contains("order-7") && text.contains("counter"), "{text}");
    // Its output is no terminal here.
    let (good, _, error) = smith(&node, &["top"]).await;
    assert!(!good && error.contains("--once"), "{error}");
}

#[tokio::test]
async fn a_demo_heals_before_the_eyes_of_who_watches_it() {
    let dir = TempDir::new().unwrap();
    let store = dir.path().join("demo.db");
    let mut demo = Command::new(SMITH)
        .args(["demo", "--seed", "1", "--for", "5s", "--listen", "127.0.0.1:0", "--store"])
        .arg(&store)
        .env_remove("SMITH_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let mut seen = Vec::new();
    let reading = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            seen.push(line);
        }
    };
    timeout(DEADLINE, reading).await.expect("it ends by itself");
    let ended = timeout(DEADLINE, demo.wait_with_output()).await.unwrap().unwrap();
    let text = seen.join("\n");
    assert!(ended.status.success(), "{text}");
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "", "{text}");
    assert!(seen[0].starts_with("demo "), "{text}");
    assert!(text.contains("\npage   http://127.0.0.1:"), "{text}");
    let has =
        |word: &str, more: &str| seen.iter().any(|line| line.contains(word) && line.contains(more));
    assert!(has("  healed  ", " was restarted because "), "{text}");
    assert!(has("  broke   ", " was killed by the demo (crash 2)"), "{text}");
    assert_eq!(seen.last().unwrap(), "stopped", "{text}");
    assert!(store.exists(), "a store that was named is kept");
}
