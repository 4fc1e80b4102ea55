//! Raw ractor: a supervisor by hand that starts a child again when it fails.

use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::{mpsc, oneshot};

use super::measure::{Sample, resident};

enum Message {
    Add(u64),
    Ask(oneshot::Sender<u64>),
    Fail,
    Panic,
}

struct Worker;

impl Actor for Worker {
    type Msg = Message;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Message>, (): ()) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        _: ActorRef<Message>,
        message: Message,
        total: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Add(n) => *total += n,
            Message::Ask(reply) => drop(reply.send(*total)),
            Message::Fail => return Err("told to".into()),
            Message::Panic => panic!("told to"),
        }
        Ok(())
    }
}

/// Hands out each new life of its one child.
struct Supervisor(mpsc::UnboundedSender<ActorRef<Message>>);

impl Actor for Supervisor {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<()>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(..) = event {
            let (child, _) = Actor::spawn_linked(None, Worker, (), myself.get_cell()).await?;
            self.0.send(child)?;
        }
        Ok(())
    }
}

async fn supervised()
-> (ActorRef<()>, ActorRef<Message>, mpsc::UnboundedReceiver<ActorRef<Message>>) {
    let (tell, told) = mpsc::unbounded_channel();
    let (supervisor, _) = Actor::spawn(None, Supervisor(tell), ()).await.unwrap();
    let (worker, _) = Actor::spawn_linked(None, Worker, (), supervisor.get_cell()).await.unwrap();
    (supervisor, worker, told)
}

async fn question(worker: &ActorRef<Message>) -> u64 {
    let (reply, answer) = oneshot::channel();
    worker.send_message(Message::Ask(reply)).unwrap();
    tokio::time::timeout(Duration::from_secs(5), answer).await.unwrap().unwrap()
}

async fn flood(worker: ActorRef<Message>, count: u64) {
    for _ in 0..count {
        worker.send_message(Message::Add(1)).unwrap();
    }
}

pub(crate) async fn tell(count: u64, senders: u64) -> Sample {
    let (supervisor, worker, _told) = supervised().await;
    let sample = Sample::of(count, async {
        let others: Vec<_> =
            (1..senders).map(|_| tokio::spawn(flood(worker.clone(), count / senders))).collect();
        flood(worker.clone(), count / senders).await;
        for other in others {
            other.await.unwrap();
        }
        assert_eq!(question(&worker).await, count);
        Vec::new()
    })
    .await;
    supervisor.kill();
    sample
}

pub(crate) async fn ask(count: u64) -> Sample {
    let (supervisor, worker, _told) = supervised().await;
    let sample = Sample::of(count, async {
        let mut each = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let began = Instant::now();
            question(&worker).await;
            each.push(began.elapsed());
        }
        each
    })
    .await;
    supervisor.kill();
    sample
}

pub(crate) async fn spawn(count: u64) -> Sample {
    let (supervisor, _worker, _told) = supervised().await;
    let sample = Sample::settled(count, async {
        for _ in 0..count {
            Actor::spawn_linked(None, Worker, (), supervisor.get_cell()).await.unwrap();
        }
    })
    .await;
    supervisor.kill();
    sample
}

pub(crate) async fn crash(count: u64, panics: bool) -> Sample {
    let (supervisor, mut worker, mut told) = supervised().await;
    let sample = Sample::of(count, async {
        let mut each = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let began = Instant::now();
            let how = if panics { Message::Panic } else { Message::Fail };
            worker.send_message(how).unwrap();
            worker = told.recv().await.unwrap();
            question(&worker).await;
            each.push(began.elapsed());
        }
        each
    })
    .await;
    supervisor.kill();
    sample
}

pub(crate) async fn grow(count: u64) -> u64 {
    let (supervisor, _worker, _told) = supervised().await;
    let before = resident();
    for _ in 0..count {
        Actor::spawn_linked(None, Worker, (), supervisor.get_cell()).await.unwrap();
    }
    resident() - before
}
