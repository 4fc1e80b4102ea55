use std::os::unix::process::ExitStatusExt as _;

use super::*;

const SECONDS: Duration = Duration::from_secs(10);

fn fake() -> SmithBuilder {
    let binary = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/fake-smith");
    Smith::builder(binary).env("FAKE_SMITH", "hello")
}

#[tokio::test]
async fn a_node_is_started_terminated_and_started_again_on_its_directory() {
    let mut smith = fake().arg("--more").start().await;
    assert_eq!(smith.addr(), "127.0.0.1:4321".parse().unwrap());
    smith.wait_for_line("life 1 says hello", SECONDS).await;
    let args = smith.wait_for_line("args", SECONDS).await;
    let store = format!("sqlite://{}/smith.db", smith.dir().display());
    assert_eq!(args.text, format!("args run --store {store} --listen 127.0.0.1:0 --more"));
    assert_eq!(args.stream, Stream::Stderr);

    smith.terminate();
    assert_eq!(smith.wait(SECONDS).await.code(), Some(3));
    assert_eq!(smith.output().last().unwrap().text, "stopping");

    smith.restart().await;
    smith.wait_for_line("life 2 says hello", SECONDS).await;
    smith.kill9().await;
    assert_eq!(smith.wait(SECONDS).await.signal(), Some(9));
    assert!(smith.output().iter().all(|line| line.text != "stopping"));
    // To nobody: the id may be another process's by now.
    smith.terminate();
}

#[tokio::test]
async fn a_node_that_refuses_says_why() {
    let ended = fake().arg("refuse").try_start().await.unwrap_err();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.to_string().contains("\n  the port is in use; choose another one"), "{ended}");
}

#[tokio::test]
#[should_panic(expected = "the node still runs")]
async fn a_running_node_is_not_started_again() {
    fake().start().await.restart().await;
}

#[tokio::test]
async fn dropping_a_node_kills_it_and_removes_its_directory() {
    let smith = fake().start().await;
    let (dir, id) = (smith.dir().to_owned(), smith.life.child.id().unwrap());
    drop(smith);
    assert!(!dir.exists());
    // The runtime reaps it at some later time; until then it is there as a zombie.
    crate::eventually(SECONDS, async || {
        match std::fs::read_to_string(format!("/proc/{id}/stat")) {
            Ok(stat) if !stat.contains(") Z") => Err(stat),
            _ => Ok(()),
        }
    })
    .await;
}
