//! Messages that are published later: after a while, by a pattern of cron, or never, because they
//! were taken back. They are in the store, and so there after any restart.
//!
//! `cargo run --example reminders` prints
//!
//! ```text
//! the node stops, with 2 messages in its store
//! heard: remind.order-7
//! heard: reports.tick
//! heard: reports.tick
//! ```

use std::time::Duration;

use mister_smith::actors::event::ContentType;
use mister_smith::actors::timer::TimerFilter;
use mister_smith::prelude::*;
use tokio::sync::mpsc;

const STOP: Duration = Duration::from_secs(20);

fn message(subject: &str) -> anyhow::Result<NewMessage> {
    Ok(NewMessage::bytes(subject, "remind", ContentType::Json, "{}")?)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let store = format!("sqlite://{}", dir.path().join("smith.db").display());
    let node = SystemCore::embedded().store(&store).start().await?;
    let wait = Duration::from_millis(300);
    node.schedule().after("order 7", wait, message("remind.order-7")?).await?;
    node.schedule().after("order 8", wait, message("remind.order-8")?).await?;
    // In a program this is said at each start: what is the same stays as it is.
    node.schedule().cron("tick", "* * * * * *", message("reports.tick")?).await?;
    // The order was paid.
    node.schedule().cancel("order 8").await?;
    let waiting = node.timers().list(&TimerFilter::default(), None, 10).await?;
    println!("the node stops, with {} messages in its store", waiting.len());
    node.stop(STOP).await;
    drop(node);
    // It is down when the reminder is due.
    tokio::time::sleep(wait).await;

    let node = SystemCore::embedded().store(&store).start().await?;
    let (tell, mut heard) = mpsc::unbounded_channel();
    for pattern in ["remind.>", "reports.>"] {
        let tell = tell.clone();
        let subscription = Subscription::new(pattern.trim_end_matches(".>"), pattern)?;
        node.bus()
            .subscribe(subscription, move || {
                let tell = tell.clone();
                move |delivery: Delivery| {
                    let _ = tell.send(delivery.message.subject().to_string());
                    async { Outcome::Ack }
                }
            })
            .await?;
    }
    let mut all = Vec::new();
    while all.iter().filter(|subject| *subject == "reports.tick").count() < 2
        || !all.iter().any(|subject| subject == "remind.order-7")
    {
        all.extend(heard.recv().await);
    }
    all.truncate(3);
    all.sort_unstable();
    for subject in all {
        println!("heard: {subject}");
    }
    node.stop(STOP).await;
    Ok(())
}
