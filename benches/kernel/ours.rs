//! Our side.

use std::time::{Duration, Instant};

use mister_smith::supervisors::{
    Actor, ActorSystem, Address, ChildSpec, Context, DeadLetter, Failure, Look, Overflow,
    ReplyPort, StartError, SupervisorRef, SupervisorSpec,
};

use super::measure::{Sample, resident};

pub(crate) enum Message {
    Add(u64),
    Ask(ReplyPort<u64>),
    Fail,
    Panic,
}

struct Worker(u64);

impl Actor for Worker {
    type Message = Message;
    type Args = ();

    async fn start(_: &(), _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self(0))
    }

    async fn handle(&mut self, message: Message, _: &mut Context<Self>) -> Result<(), Failure> {
        match message {
            Message::Add(n) => self.0 += n,
            Message::Ask(reply) => reply.send(self.0),
            Message::Fail => return Err(Failure::permanent("told to")),
            Message::Panic => panic!("told to"),
        }
        Ok(())
    }
}

const FOREVER: Duration = Duration::from_secs(3_600);

async fn system() -> ActorSystem {
    let worker = ChildSpec::actor::<Worker>("worker", ()).mailbox(1_024, Overflow::Wait(FOREVER));
    let root = SupervisorSpec::new("root")
        .intensity(1_000_000, Duration::from_millis(1))
        .child(worker)
        .child(SupervisorSpec::dynamic("crowd"));
    ActorSystem::builder(root).dead_letters(|_: DeadLetter| {}).start().await.unwrap()
}

async fn flood(worker: Address<Message>, count: u64) {
    for _ in 0..count {
        if let Err(error) = worker.try_tell(Message::Add(1)) {
            worker.tell(error.into_message()).await.unwrap();
        }
    }
}

pub(crate) async fn tell(count: u64, senders: u64) -> Sample {
    let system = system().await;
    let worker = system.find::<Message>("/worker").unwrap();
    let sample = Sample::of(count, async {
        let others: Vec<_> =
            (1..senders).map(|_| tokio::spawn(flood(worker.clone(), count / senders))).collect();
        flood(worker.clone(), count / senders).await;
        for other in others {
            other.await.unwrap();
        }
        assert_eq!(worker.ask_within(FOREVER, Message::Ask).await.unwrap(), count);
        Vec::new()
    })
    .await;
    system.shutdown(Duration::from_secs(10)).await;
    sample
}

pub(crate) async fn ask(count: u64) -> Sample {
    let system = system().await;
    let worker = system.find::<Message>("/worker").unwrap();
    let sample = Sample::of(count, async {
        let mut each = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let began = Instant::now();
            worker.ask(Message::Ask).await.unwrap();
            each.push(began.elapsed());
        }
        each
    })
    .await;
    system.shutdown(Duration::from_secs(10)).await;
    sample
}

pub(crate) async fn spawn(count: u64) -> Sample {
    let system = system().await;
    let crowd = system.supervisor("/crowd").unwrap();
    let ids: Vec<String> = (0..count).map(|n| n.to_string()).collect();
    let sample = Sample::settled(count, async {
        for id in ids {
            crowd.spawn::<Worker>(id, ()).await.unwrap();
        }
    })
    .await;
    system.shutdown(Duration::from_secs(10)).await;
    sample
}

pub(crate) async fn crash(count: u64, panics: bool) -> Sample {
    let system = system().await;
    let worker = system.find::<Message>("/worker").unwrap();
    let sample = Sample::of(count, async {
        let mut each = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let began = Instant::now();
            let how = if panics { Message::Panic } else { Message::Fail };
            assert!(worker.try_tell(how).is_ok());
            worker.ask(Message::Ask).await.unwrap();
            each.push(began.elapsed());
        }
        each
    })
    .await;
    assert_eq!(worker.life(), count + 1);
    system.shutdown(Duration::from_secs(10)).await;
    sample
}

pub(crate) async fn grow(count: u64) -> u64 {
    let system = system().await;
    let crowd = system.supervisor("/crowd").unwrap();
    let before = resident();
    for n in 0..count {
        crowd.spawn::<Worker>(n.to_string(), ()).await.unwrap();
    }
    resident() - before
}

/// Idle actors, spread over dynamic supervisors.
pub(crate) struct Crowd {
    system: ActorSystem,
    groups: Vec<SupervisorRef>,
}

impl Crowd {
    /// How many actors there are, by the supervisors' own count.
    pub(crate) fn count(&self) -> usize {
        self.groups.iter().map(SupervisorRef::count).sum()
    }

    /// The summary: every group with its 50 worst.
    pub(crate) fn look(&self) {
        drop(self.system.look_for(&Look::at("/")));
    }
}

/// Spawns `count` actors, a task for each supervisor.
pub(crate) async fn crowd(count: u64, supervisors: u64) -> Crowd {
    let mut root = SupervisorSpec::new("root");
    for group in 0..supervisors {
        root = root.child(SupervisorSpec::dynamic(format!("crowd-{group}")));
    }
    let system = ActorSystem::builder(root).dead_letters(|_: DeadLetter| {}).start().await.unwrap();
    let groups: Vec<_> = (0..supervisors)
        .map(|group| system.supervisor(&format!("/crowd-{group}")).unwrap())
        .collect();
    let tasks: Vec<_> = groups
        .iter()
        .cloned()
        .map(|group| {
            tokio::spawn(async move {
                for n in 0..count / supervisors {
                    group.spawn::<Worker>(n.to_string(), ()).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    Crowd { system, groups }
}

/// Looks at a crowd: the 50 worst, those that match, all as bytes. Milliseconds each.
pub(crate) async fn look(count: u64) -> [f64; 3] {
    let system = system().await;
    let crowd = system.supervisor("/crowd").unwrap();
    for n in 0..count {
        crowd.spawn::<Worker>(n.to_string(), ()).await.unwrap();
    }
    let text = (count / 2).to_string();
    let ms = |look: &dyn Fn()| {
        let mut each: Vec<f64> = (0..9)
            .map(|_| {
                let began = Instant::now();
                look();
                began.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        each.sort_by(f64::total_cmp);
        each[4]
    };
    let times = [
        ms(&|| drop(system.look_for(&Look::at("/")))),
        ms(&|| drop(system.look_for(&Look::at("/").text(&*text)))),
        ms(&|| drop(system.heat())),
    ];
    system.shutdown(Duration::from_secs(60)).await;
    times
}
