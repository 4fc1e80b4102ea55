//! `smith demo`, as a person or a script meets them.

use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::node::DEADLINE;

const SMITH: &str = env!("CARGO_BIN_EXE_smith");

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
