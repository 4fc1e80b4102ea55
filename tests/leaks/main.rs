//! A node that has stopped leaves nothing behind in its process. In a process of its own, because
//! it counts what the process has.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use mister_smith::SystemCore;
use mister_smith_testkit::{Client, eventually};
use tempfile::TempDir;

/// Files, sockets and threads of this process.
fn held() -> (usize, usize) {
    let count = |of: &str| fs::read_dir(of).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_leaves_no_port_no_file_and_no_thread() {
    let dir = TempDir::with_prefix("smith-").unwrap();
    let before = held();
    for n in 0..5 {
        let store = format!("sqlite://{}", dir.path().join(format!("{n}.db")).display());
        let core = SystemCore::embedded().store(store).listen("127.0.0.1:0".parse().unwrap());
        let core = core.start().await.unwrap();
        let addr = core.addr().unwrap();
        let (status, _) = Client::new(addr).get("/debug/v1/node").await.unwrap();
        assert_eq!(status, 200);
        assert!(core.stop(Duration::from_secs(10)).await);
        drop(core);
        eventually(Duration::from_secs(10), async || {
            TcpListener::bind(addr).map(drop).map_err(|error| format!("{addr}: {error}"))
        })
        .await;
    }
    // Threads for blocking work go when they have had nothing to do for 10 s.
    eventually(Duration::from_secs(40), async || match held() {
        now if now.0 <= before.0 && now.1 <= before.1 => Ok(()),
        now => Err(format!("files and threads: {before:?} before, {now:?} after")),
    })
    .await;
}
