//! Sagas and dead letters of a whole node, seen and steered from outside.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mister_smith::http::Limits;
use mister_smith::prelude::*;
use mister_smith_testkit::eventually;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::node::{DEADLINE, Node};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Trip {
    city: String,
}

/// A step that asks for another try until the switch is on, and cannot be undone before.
fn trip(works: &Arc<AtomicBool>) -> Saga<Trip> {
    let undo = Arc::clone(works);
    let once = RetryPolicy::attempts(1);
    Saga::new("trip")
        .step(
            Step::new("hotel", |cx: StepContext<Trip>| async move { Ok(cx.data) })
                .undo(move |_| {
                    let works = Arc::clone(&undo);
                    async move {
                        match works.load(Ordering::SeqCst) {
                            true => Ok(()),
                            false => Err(StepError::retry("the hotel does not answer")),
                        }
                    }
                })
                .undo_retry(once),
        )
        .step(Step::new("flight", |_: StepContext<Trip>| async move {
            Err(StepError::refused("no seats"))
        }))
}

/// What `smith ARGS` prints, and whether it ended well.
async fn smith(node: &Node, args: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_smith"))
        .args(args)
        .args(["--node", &node.addr().to_string()])
        .env("SMITH_LOG", "off")
        .env("USER", "ann")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn a_parked_saga_is_seen_and_resumed_from_the_command_line() {
    let works = Arc::new(AtomicBool::new(false));
    let node = Node::made(Limits::default(), |builder| builder.saga(trip(&works))).await;
    let data = Trip { city: "Rome".to_owned() };
    let sagas = node.core.sagas();
    sagas.start("trip", "7/a", &data, Metadata::default()).await.unwrap();
    sagas.wait("trip", "7/a").await.unwrap();
    let (ok, text) = smith(&node, &["sagas", "show", "trip", "7/a"]).await;
    assert!(ok, "{text}");
    let shown: Vec<_> = text
        .lines()
        .map(|line| match line.strip_prefix("  ") {
            // Without the time.
            Some(entry) => entry.split_once("  ").unwrap().1.trim_end().to_owned(),
            None => line.to_owned(),
        })
        .collect();
    insta::assert_snapshot!(shown.join("\n"), @"
    trip 7/a: parked (step hotel cannot be undone: the hotel does not answer)
    started
    step_started              hotel  #1
    step_completed            hotel
    step_started              flight  #1
    step_failed               flight  #1  no seats
    compensating              step flight: no seats
    compensation_started      hotel  #1
    compensation_failed       hotel  #1  the hotel does not answer
    parked                    step hotel cannot be undone: the hotel does not answer
    ");

    // The list is a read model, a moment behind.
    eventually(DEADLINE, async || {
        let (_, text) = smith(&node, &["sagas", "list"]).await;
        match text.contains("7/a") && text.contains("parked") {
            true => Ok(()),
            false => Err(text),
        }
    })
    .await;
    let (ok, text) = smith(&node, &["sagas", "abort", "trip", "7/a"]).await;
    assert_eq!((ok, &*text), (false, "error: saga trip 7/a cannot be aborted: it is Parked\n"));
    works.store(true, Ordering::SeqCst);
    let (ok, text) = smith(&node, &["sagas", "retry", "trip", "7/a"]).await;
    assert!(ok && text.starts_with("done: "), "{text}");
    eventually(DEADLINE, async || {
        let status = node.core.sagas().state("trip", "7/a").await.unwrap().status;
        let status = format!("{status:?}");
        if status == "Compensated" { Ok(()) } else { Err(status) }
    })
    .await;
    let (ok, text) = smith(&node, &["sagas", "show", "trip", "8"]).await;
    assert_eq!((ok, &*text), (false, "error: there is no saga trip 8; see `smith sagas list`\n"));
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Mail {
    #[serde(rename = "mail.sent")]
    Sent { to: String },
}

impl Event for Mail {}

#[tokio::test]
async fn timers_are_seen_and_taken_back_from_the_command_line() {
    use mister_smith::actors::event::Timestamp;
    use mister_smith::actors::timer::{Fired, NewTimer, Timer, TimerOptions};
    let node = Node::start().await;
    assert_eq!(smith(&node, &["timers", "list"]).await, (true, "no timers\n".to_owned()));
    let far = Timestamp::from_micros(4_102_444_800_000_000);
    let timer = |name: &str, due| NewTimer::new("bell", name, due, "secret");
    let set = vec![timer("a / b", far), timer("new", Timestamp::default()), timer("z", far)];
    node.core.timers().set_all(set).await.unwrap();
    let handler = |_: Timer| async { Fired::unknown("what is this?") };
    node.core.timers().handle("bell", TimerOptions::default(), handler).await.unwrap();
    let text = eventually(DEADLINE, async || {
        let (_, text) = smith(&node, &["timers", "list", "--state", "unknown"]).await;
        if text.contains("what is this?") { Ok(text) } else { Err(text) }
    })
    .await;
    assert_eq!(text.lines().count(), 1, "{text}");
    let (_, text) = smith(&node, &["timers", "list", "--limit", "2"]).await;
    assert!(text.contains("2100-01-01T00:00:00Z  waiting   bell"), "{text}");
    assert!(text.ends_with("there are more: --after bell/new\n"), "{text}");
    assert!(!text.contains("secret"), "{text}");
    let (_, text) = smith(&node, &["timers", "list", "--after", "bell/new"]).await;
    assert_eq!(text.lines().count(), 1, "{text}");
    let (ok, text) = smith(&node, &["timers", "cancel", "bell", "a / b"]).await;
    assert!(ok && text.contains(r#""done":"cancel""#), "{text}");
    let (ok, text) = smith(&node, &["timers", "cancel", "bell", "a / b"]).await;
    assert_eq!((ok, &*text), (false, "error: there is no timer a / b of kind bell\n"));
    let (_, text) = smith(&node, &["timers", "list", "--json"]).await;
    let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["timers"].as_array().unwrap().len(), 2);
    let bell = shown["handled"].as_array().unwrap().iter().find(|one| one["kind"] == "bell");
    assert_eq!(bell.unwrap()["unknown"], 1, "{text}");
}

#[tokio::test]
async fn a_dead_letter_is_seen_and_sent_again_from_the_command_line() {
    let node = Node::start().await;
    let works = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&works);
    let subscription = Subscription::new("postman", "mail.>").unwrap();
    node.core
        .bus()
        .subscribe(subscription.retry(RetryPolicy::attempts(1)), move || {
            let works = Arc::clone(&switch);
            move |_: Delivery| {
                let outcome = match works.load(Ordering::SeqCst) {
                    true => Outcome::Ack,
                    false => Outcome::fail("no such street"),
                };
                async { outcome }
            }
        })
        .await
        .unwrap();
    let mail = Mail::Sent { to: "Ann".to_owned() };
    let subject = Subject::new("mail.sent").unwrap();
    node.core.bus().publish_event(subject, mail).await.unwrap();
    let listed = async || smith(&node, &["dead-letters", "list"]).await.1;
    eventually(DEADLINE, async || {
        let text = listed().await;
        if text.contains("no such street") { Ok(()) } else { Err(text) }
    })
    .await;
    let text = listed().await;
    let id = text.split_whitespace().next().unwrap();
    assert!(text[id.len()..].starts_with("  open      postman           mail.sent"), "{text}");
    let (_, text) = smith(&node, &["dead-letters", "show", id, "--json"]).await;
    let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["message"]["data"], serde_json::json!({ "to": "Ann" }));
    assert_eq!(shown["message"]["cause"], "failed");

    works.store(true, Ordering::SeqCst);
    let (ok, text) = smith(&node, &["dead-letters", "requeue", "--all"]).await;
    assert!(ok && text.contains(r#""requeued":1"#), "{text}");
    eventually(DEADLINE, async || {
        let text = listed().await;
        if text == "no dead letters\n" { Ok(()) } else { Err(text) }
    })
    .await;
    let (ok, text) = smith(&node, &["dead-letters", "purge", id]).await;
    assert_eq!(
        (ok, &*text),
        (false, "error: refused: it was handled already; nothing is left to do\n")
    );
    let bus = node.get("/api/v1/bus").await;
    let all = bus["subscriptions"].as_array().unwrap();
    let postman = all.iter().find(|one| one["name"] == "postman").unwrap();
    assert_eq!(postman["delivered"], 2);
}
