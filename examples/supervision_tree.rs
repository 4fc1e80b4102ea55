//! Strategies, dependencies, backoff and escalation, seen through the tree and its events.
//!
//! `cargo run --example supervision_tree`

use std::time::Duration;

use mister_smith::prelude::*;
use tokio::sync::mpsc;

/// Says what it is told to: `work`, `fail` or `panic`.
struct Worker;

impl Actor for Worker {
    type Message = &'static str;
    type Args = ();

    async fn start(_: &(), _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(&mut self, what: &'static str, cx: &mut Context<Self>) -> Result<(), Failure> {
        match what {
            "fail" => Err(Failure::transient("told to fail")),
            "panic" => panic!("told to panic in life {}", cx.life()),
            _ => Ok(()),
        }
    }
}

fn worker(id: &'static str) -> ChildSpec {
    ChildSpec::actor::<Worker>(id, ())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (events, mut seen) = mpsc::unbounded_channel();

    // A cache and an api live on a pool: its restart restarts them, in order. The report is alone.
    let services = SupervisorSpec::new("services")
        .intensity(2, Duration::from_secs(60))
        .child(worker("api").depends_on(["pool", "cache"]))
        .child(worker("cache").depends_on(["pool"]))
        .child(worker("pool"))
        .child(worker("report").restart(RestartPolicy::Transient));
    // A pipeline: what comes after a failed stage has to start over.
    let pipeline = SupervisorSpec::new("pipeline")
        .strategy(Strategy::RestForOne)
        .child(worker("read"))
        .child(worker("parse"))
        .child(worker("write"));
    let root = SupervisorSpec::new("example")
        .intensity(3, Duration::from_secs(60))
        .child(services)
        .child(pipeline);
    let system = ActorSystem::builder(root)
        .observer(move |event: &LifecycleEvent| drop(events.send(event.clone())))
        .start()
        .await?;
    print!("{}", system.tree());

    let mut until = async |path: &str, name: &str, times: usize| {
        let mut left = times;
        while left > 0 {
            let event = seen.recv().await.expect("the system runs");
            println!("  {event}");
            if event.path.as_str() == path && event.kind.name() == name {
                left -= 1;
            }
        }
    };
    until("/pipeline", "started", 1).await;

    println!("\nthe pool fails: cache and api depend on it, the report does not");
    system.find::<&str>("/services/pool")?.tell("fail").await?;
    until("/services/api", "restarted", 1).await;

    println!("\na stage panics: it and the stages after it start over");
    system.find::<&str>("/pipeline/parse")?.tell("panic").await?;
    until("/pipeline/write", "restarted", 1).await;

    println!("\nthe services have one restart left: the failure after it goes up the tree");
    let report = system.find::<&str>("/services/report")?;
    report.tell("fail").await?;
    report.tell("fail").await?;
    until("/services", "restarted", 1).await;

    println!();
    print!("{}", system.tree());
    system.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
