//! Two ways for a message to leave a node if and only if something was committed.
//!
//! `cargo run --example outbox`

use std::time::Duration;

use mister_smith::actors::bus::queue::{Queue, QueueOptions, Receiver, in_process::Broker};
use mister_smith::actors::bus::wire::WireMessage;
use mister_smith::actors::event::ContentType;
use mister_smith::actors::ingest::Incoming;
use mister_smith::actors::store::messages::sqlite;
use mister_smith::actors::store::{EventFilter, IdempotencyKey};
use mister_smith::prelude::*;
use sqlx::{Connection, Executor, SqliteConnection};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("smith.db");
    // With `queue::connect("nats://…")` the same goes to JetStream, with `redis://…` to Redis.
    let broker = Broker::default();
    let queue = |name: &str| broker.queue(QueueOptions::new(name));
    let node = SystemCore::embedded()
        .store(format!("sqlite://{}", file.display()))
        .outbox("shop", queue("shop").sender(), EventFilter::ALL.categories(["order"]))
        .outbox_table(queue("letters").sender())
        .start()
        .await?;

    // The log is an outbox: what is in it is sent.
    let placed = Incoming {
        event_type: "order.placed".into(),
        codec: ContentType::Json,
        data: br#"{"total":12}"#.as_slice().into(),
        meta: Default::default(),
        key: IdempotencyKey::of(["order 7"]),
    };
    node.ingest().ingest(&StreamId::new("order-7")?, vec![placed]).await?;
    print(&*queue("shop").receiver("shipping")?).await?;

    // And so is a table, for an application that has transactions of its own in the same file.
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", file.display())).await?;
    connection.execute("create table customers (name text primary key) strict").await?;
    for (name, keep) in [("Ann", true), ("Bob", false)] {
        let mut transaction = connection.begin().await?;
        let insert = sqlx::query("insert into customers values (?)").bind(name);
        insert.execute(&mut *transaction).await?;
        let subject = Subject::of(["letters", "welcome"]);
        let letter =
            WireMessage::new(&subject, format!("welcome {name}"), name.as_bytes().to_vec());
        sqlite::put(&mut transaction, &letter).await?;
        match keep {
            true => transaction.commit().await?,
            false => transaction.rollback().await?,
        }
    }
    node.nudge_outbox();
    print(&*queue("letters").receiver("shipping")?).await?;
    node.stop(mister_smith::system::DEFAULT_STOP_DEADLINE).await;
    Ok(())
}

/// Receives one message, prints and acknowledges it; there is no second one.
async fn print(queue: &dyn Receiver) -> anyhow::Result<()> {
    let wait = Duration::from_secs(10);
    for received in queue.receive(1, wait).await? {
        let message = &received.message;
        println!("{} {}: {}", message.subject, message.id, message.payload.escape_ascii());
        queue.ack(&received.receipt).await?;
    }
    anyhow::ensure!(queue.receive(1, Duration::from_millis(50)).await?.is_empty());
    Ok(())
}
