//! An agent that crashes and comes back at the same address.
//!
//! `cargo run --example agent`

use mister_smith::prelude::*;

struct Counter(u64); // an actor handles one message at a time

impl Actor for Counter {
    type Message = u64;
    type Args = ();

    async fn start(_: &(), _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self(0))
    }

    async fn handle(&mut self, add: u64, _: &mut Context<Self>) -> Result<(), Failure> {
        self.0 = self.0.checked_add(add).ok_or(Failure::permanent("overflow"))?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let store = directory.path().join("smith.db");
    let system = SystemCore::embedded().store(store.to_string_lossy()).start().await?;

    let counter = system.spawn::<Counter>("counter", ()).await?;
    counter.tell(u64::MAX).await?;
    counter.tell(1).await?; // crashes; its supervisor restarts it
    counter.tell(2).await?; // same address, new life

    while counter.life() < 2 || counter.depth() > 0 {
        tokio::task::yield_now().await;
    }
    print!("{}", system.tree());
    assert_eq!(counter.life(), 2);
    system.stop(std::time::Duration::from_secs(5)).await;
    Ok(())
}
