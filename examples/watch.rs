//! Who has ended, and who only crashes: `Context::watch`, `Context::unwatch`, `Address::ended`.
//!
//! `cargo run --example watch` prints
//!
//! ```text
//! anna crashed and is back in life 2: nobody is told, because a restart is not an end
//! foreman: /crew/anna ended in life 2: normal
//! foreman: /crew/ben ended in life 1: transient: dropped the hammer
//! foreman: stops watching carl: true
//! main: /crew/carl ended in life 1: shutdown
//! foreman: /crew/carl ended in life 1: shutdown
//! ```

use std::time::Duration;

use mister_smith::prelude::*;
use tokio::sync::mpsc;

/// Works until its job is done, or goes wrong.
struct Worker;

enum Job {
    Finish,
    Fail,
}

impl Actor for Worker {
    type Message = Job;
    type Args = ();

    async fn start(_: &(), _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(&mut self, job: Job, cx: &mut Context<Self>) -> Result<(), Failure> {
        match job {
            Job::Finish => cx.stop(),
            Job::Fail => return Err(Failure::transient("dropped the hammer")),
        }
        Ok(())
    }
}

/// Watches workers, and says what it hears of them.
struct Foreman {
    says: mpsc::UnboundedSender<String>,
}

enum Order {
    Watch(Address<Job>),
    Unwatch(Address<Job>, ReplyPort<bool>),
    /// What a watch tells: one more message of the foreman's own.
    Gone(Ended),
}

impl Actor for Foreman {
    type Message = Order;
    type Args = mpsc::UnboundedSender<String>;

    async fn start(says: &Self::Args, _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self { says: says.clone() })
    }

    async fn handle(&mut self, order: Order, cx: &mut Context<Self>) -> Result<(), Failure> {
        match order {
            Order::Watch(worker) => cx.watch(&worker, Order::Gone),
            Order::Unwatch(worker, reply) => reply.send(cx.unwatch(&worker)),
            Order::Gone(end) => self.says.send(format!("foreman: {}", told(&end)))?,
        }
        Ok(())
    }
}

fn told(end: &Ended) -> String {
    format!("{} ended in life {}: {}", end.path, end.life, end.reason)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (says, mut said) = mpsc::unbounded_channel();
    let mut next = async || said.recv().await.expect("the foreman lives");

    // Transient: back after a failure, and down for good once the work is done.
    let worker = |id| ChildSpec::actor::<Worker>(id, ());
    let crew = SupervisorSpec::new("crew")
        .child(worker("anna").restart(RestartPolicy::Transient))
        .child(worker("ben").restart(RestartPolicy::Temporary))
        .child(worker("carl"));
    let root =
        SupervisorSpec::new("site").child(ChildSpec::actor::<Foreman>("foreman", says)).child(crew);
    let system = ActorSystem::builder(root).start().await?;
    let foreman = system.find::<Order>("/foreman")?;
    let [anna, ben, carl] = ["/crew/anna", "/crew/ben", "/crew/carl"].map(|path| system.find(path));
    let (anna, ben, carl) = (anna?, ben?, carl?);
    for worker in [&anna, &ben, &carl] {
        foreman.tell(Order::Watch(worker.clone())).await?;
    }

    anna.tell(Job::Fail).await?;
    while anna.life() < 2 {
        tokio::task::yield_now().await;
    }
    println!(
        "anna crashed and is back in life {}: nobody is told, because a restart is not an end",
        anna.life()
    );
    anna.tell(Job::Finish).await?;
    println!("{}", next().await);

    ben.tell(Job::Fail).await?; // temporary: no other life follows
    println!("{}", next().await);

    let was_watched = foreman.ask(|reply| Order::Unwatch(carl.clone(), reply)).await?;
    println!("foreman: stops watching carl: {was_watched}");
    system.stop("/crew/carl").await?;
    println!("main: {}", told(&carl.ended().await)); // outside of any actor

    // Whoever watches too late is told at once.
    foreman.tell(Order::Watch(carl)).await?;
    println!("{}", next().await);

    system.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
