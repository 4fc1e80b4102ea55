//! kameo: supervised actors with bounded mailboxes.

use std::time::{Duration, Instant};

use kameo::actor::{ActorRef, Spawn};
use kameo::error::Infallible;
use kameo::mailbox;
use kameo::message::{Context, Message};
use kameo::prelude::Actor;

use super::measure::{Sample, resident};

struct Supervisor;

impl Actor for Supervisor {
    type Args = ();
    type Error = Infallible;

    async fn on_start((): (), _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

struct Worker(u64);

impl Actor for Worker {
    type Args = ();
    type Error = Infallible;

    async fn on_start((): (), _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Self(0))
    }
}

struct Add(u64);
struct Ask;
struct Fail;
struct Panic;

impl Message<Add> for Worker {
    type Reply = ();
    async fn handle(&mut self, message: Add, _: &mut Context<Self, ()>) {
        self.0 += message.0;
    }
}

impl Message<Ask> for Worker {
    type Reply = u64;
    async fn handle(&mut self, _: Ask, _: &mut Context<Self, u64>) -> u64 {
        self.0
    }
}

impl Message<Fail> for Worker {
    type Reply = Result<(), std::io::Error>;
    async fn handle(&mut self, _: Fail, _: &mut Context<Self, Self::Reply>) -> Self::Reply {
        Err(std::io::Error::other("told to"))
    }
}

impl Message<Panic> for Worker {
    type Reply = ();
    async fn handle(&mut self, _: Panic, _: &mut Context<Self, ()>) {
        panic!("told to")
    }
}

async fn supervised() -> (ActorRef<Supervisor>, ActorRef<Worker>) {
    let supervisor = Supervisor::spawn(());
    supervisor.wait_for_startup().await;
    let worker = Worker::supervise(&supervisor, ())
        .restart_limit(u32::MAX, Duration::from_secs(1))
        .spawn_with_mailbox(mailbox::bounded(1_024))
        .await;
    (supervisor, worker)
}

async fn flood(worker: ActorRef<Worker>, count: u64) {
    for _ in 0..count {
        worker.tell(Add(1)).await.unwrap();
    }
}

pub(crate) async fn tell(count: u64, senders: u64) -> Sample {
    let (supervisor, worker) = supervised().await;
    let sample = Sample::of(count, async {
        let others: Vec<_> =
            (1..senders).map(|_| tokio::spawn(flood(worker.clone(), count / senders))).collect();
        flood(worker.clone(), count / senders).await;
        for other in others {
            other.await.unwrap();
        }
        assert_eq!(worker.ask(Ask).await.unwrap(), count);
        Vec::new()
    })
    .await;
    supervisor.kill();
    sample
}

pub(crate) async fn ask(count: u64) -> Sample {
    let (supervisor, worker) = supervised().await;
    let sample = Sample::of(count, async {
        let mut each = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let began = Instant::now();
            worker.ask(Ask).await.unwrap();
            each.push(began.elapsed());
        }
        each
    })
    .await;
    supervisor.kill();
    sample
}

pub(crate) async fn spawn(count: u64) -> Sample {
    let (supervisor, _worker) = supervised().await;
    let sample = Sample::settled(count, async {
        for _ in 0..count {
            Worker::supervise(&supervisor, ()).spawn().await.wait_for_startup().await;
        }
    })
    .await;
    supervisor.kill();
    sample
}

pub(crate) async fn crash(count: u64, panics: bool) -> Sample {
    let (supervisor, worker) = supervised().await;
    let sample = Sample::of(count, async {
        let mut each = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let began = Instant::now();
            if panics {
                worker.tell(Panic).await.unwrap();
            } else {
                worker.tell(Fail).await.unwrap();
            }
            // A question between two lives is refused.
            while worker.ask(Ask).await.is_err() {
                tokio::task::yield_now().await;
            }
            each.push(began.elapsed());
        }
        each
    })
    .await;
    supervisor.kill();
    sample
}

pub(crate) async fn grow(count: u64) -> u64 {
    let (supervisor, _worker) = supervised().await;
    let mut kept = Vec::with_capacity(count as usize);
    let before = resident();
    for _ in 0..count {
        let child = Worker::supervise(&supervisor, ()).spawn().await;
        child.wait_for_startup().await;
        kept.push(child);
    }
    resident() - before
}
