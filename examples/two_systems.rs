//! Two nodes side by side in one process: nothing is global, so they do not know of each other.
//!
//! `cargo run --example two_systems`

use std::time::Duration;

use mister_smith::prelude::*;

struct Echo;

#[derive(Debug)]
enum Message {
    Say(String, ReplyPort<String>),
    Crash,
}

impl Actor for Echo {
    type Message = Message;
    type Args = &'static str;

    async fn start(_: &&'static str, _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(&mut self, message: Message, cx: &mut Context<Self>) -> Result<(), Failure> {
        match message {
            Message::Say(text, reply) => reply.send(format!("{text}, from life {}", cx.life())),
            Message::Crash => return Err(Failure::permanent("told to")),
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let node = async |name: &str| {
        let store = directory.path().join(name).join("smith.db");
        let listen = "127.0.0.1:0".parse().expect("an address");
        SystemCore::embedded()
            .name(name)
            .store(store.to_string_lossy())
            .listen(listen)
            .start()
            .await
    };
    let (left, right) = (node("left").await?, node("right").await?);

    // The same name in both, and a crash in one of them.
    let here = left.spawn::<Echo>("echo", "left").await?;
    let there = right.spawn::<Echo>("echo", "right").await?;
    here.tell(Message::Crash).await?;

    // A question that waits behind the crash is answered by the next life.
    let answers = (
        here.ask(|reply| Message::Say("left".into(), reply)).await?,
        there.ask(|reply| Message::Say("right".into(), reply)).await?,
    );
    println!("{}\n{}", answers.0, answers.1);
    assert_eq!(answers.0, "left, from life 2");
    assert_eq!(answers.1, "right, from life 1");

    print!("\n{}\n{}", left.tree(), right.tree());
    left.stop(Duration::from_secs(5)).await;
    assert_eq!(
        there.ask(|reply| Message::Say("still here".into(), reply)).await?,
        "still here, from life 1"
    );
    right.stop(Duration::from_secs(5)).await;
    Ok(())
}
