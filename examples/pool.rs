//! Many equals behind one name: a pool with three ways to choose, a group that hears a broadcast, an
//! actor found by its name.
//!
//! `cargo run --example pool` prints
//!
//! ```text
//! in turn: 0 1 2 0
//! least loaded, while 0 has a queue: 1 2 1
//! by key, each customer always has the same: true
//! after a crash of 1, in turn: 1 2 0
//! a broadcast reached 3 of the group "couriers", and all of them heard it
//! the depot is named, wherever it stands: /back-office/depot
//! ```

use std::time::Duration;

use mister_smith::prelude::*;

/// Carries parcels, one at a time.
struct Courier {
    depot: Address<Count>,
}

#[derive(Clone)] // for the broadcast: each member gets a copy
enum Parcel {
    /// Takes this long.
    Carry(Duration),
    Who(ReplyPort<String>),
    Lose,
    /// For all of them.
    Notice,
}

impl Actor for Courier {
    type Message = Parcel;
    type Args = ();

    async fn start(_: &(), cx: &mut Context<Self>) -> Result<Self, StartError> {
        // Found by name: nobody here knows where the depot stands.
        Ok(Self { depot: cx.named("depot")? })
    }

    async fn handle(&mut self, parcel: Parcel, cx: &mut Context<Self>) -> Result<(), Failure> {
        match parcel {
            Parcel::Carry(long) => tokio::time::sleep(long).await,
            Parcel::Who(reply) => {
                let id = cx.path().as_str().rsplit('/').next();
                reply.send(id.unwrap_or_default().to_owned());
            }
            Parcel::Lose => return Err(Failure::transient("lost a parcel")),
            Parcel::Notice => self.depot.tell(Count::One).await?,
        }
        Ok(())
    }
}

/// Counts.
struct Depot(u32);

enum Count {
    One,
    All(ReplyPort<u32>),
}

impl Actor for Depot {
    type Message = Count;
    type Args = ();

    async fn start(_: &(), _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self(0))
    }

    async fn handle(&mut self, count: Count, _: &mut Context<Self>) -> Result<(), Failure> {
        match count {
            Count::One => self.0 += 1,
            Count::All(reply) => reply.send(self.0),
        }
        Ok(())
    }
}

async fn who(courier: &Address<Parcel>) -> Result<String, AskError> {
    courier.ask(Parcel::Who).await
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let depot = ChildSpec::actor::<Depot>("depot", ()).name("depot");
    let courier = ChildSpec::actor::<Courier>("courier", ()).group("couriers");
    let root = SupervisorSpec::new("post")
        .child(SupervisorSpec::new("back-office").child(depot))
        // All of a pool share its intensity, so it grows with the pool.
        .child(SupervisorSpec::pool("couriers", 3, courier).intensity(3, Duration::from_secs(5)));
    let system = ActorSystem::builder(root).start().await?;
    let pool = system.pool::<Parcel>("/couriers")?;

    let mut turns = Vec::new();
    for _ in 0..4 {
        turns.push(who(pool.round_robin()).await?);
    }
    println!("in turn: {}", turns.join(" "));

    let busy = &pool.workers()[0];
    for _ in 0..10 {
        busy.tell(Parcel::Carry(Duration::from_millis(20))).await?;
    }
    let mut free = Vec::new();
    for _ in 0..3 {
        free.push(who(pool.least_loaded()).await?);
    }
    println!("least loaded, while 0 has a queue: {}", free.join(" "));

    let customers = ["ada", "grace", "linus"];
    let same = customers.iter().all(|name| pool.by_key(name) == pool.by_key(name));
    println!("by key, each customer always has the same: {same}");

    let unlucky = &pool.workers()[1];
    unlucky.tell(Parcel::Lose).await?;
    while unlucky.life() < 2 || unlucky.state() != SlotState::Up {
        tokio::task::yield_now().await;
    }
    let mut turns = Vec::new();
    for _ in 0..3 {
        turns.push(who(pool.round_robin()).await?);
    }
    println!("after a crash of 1, in turn: {}", turns.join(" "));

    let reached = system.group("couriers").broadcast(&Parcel::Notice);
    let depot = system.named::<Count>("depot")?;
    while depot.ask(Count::All).await? < 3 {
        tokio::task::yield_now().await;
    }
    println!("a broadcast reached {reached} of the group \"couriers\", and all of them heard it");
    println!("the depot is named, wherever it stands: {}", depot.path());

    system.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
