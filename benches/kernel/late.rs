//! How late a `sleep(1 ms)` is beside busy actors: whether a life gives its worker back.
//!
//! Four loads, each with handlers that take 0, 100 and 1,000 µs, on one worker and on two: an actor
//! whose mailbox of 1,024 is kept full by a sender; one that keeps it full by telling itself; eight
//! of those; two actors that hand 1,024 messages to each other and back.
//!
//! A load lasts a fixed time, so that a sleep which the load never lets through is as late as the
//! load was long, and the row ends.

use std::time::{Duration, Instant};

use mister_smith::supervisors::{
    Actor, ActorSystem, Address, ChildSpec, Context, DeadLetter, Failure, Overflow, StartError,
    SupervisorSpec,
};

const MAILBOX: usize = 1_024;
const NAP: Duration = Duration::from_millis(1);

#[derive(Clone, Copy)]
enum Load {
    Sender,
    /// So many actors, each of which tells itself.
    Themselves(usize),
    EachOther,
}

const LOADS: [(Load, &str); 4] = [
    (Load::Sender, "an actor fed by a sender"),
    (Load::Themselves(1), "an actor that tells itself"),
    (Load::Themselves(8), "eight that tell themselves"),
    (Load::EachOther, "two that tell each other"),
];

/// A message that keeps a handler busy, and is passed on while the load lasts.
#[derive(Clone)]
enum Token {
    Work,
    PassOn(Address<Token>),
}

/// How long a handler takes, and when the load ends.
#[derive(Clone, Copy)]
struct Busy {
    handler: Duration,
    until: Instant,
}

struct Worker(Busy);

impl Actor for Worker {
    type Message = Token;
    type Args = Busy;

    async fn start(busy: &Busy, _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self(*busy))
    }

    async fn handle(&mut self, token: Token, cx: &mut Context<Self>) -> Result<(), Failure> {
        let began = Instant::now();
        if began >= self.0.until {
            return Ok(());
        }
        while began.elapsed() < self.0.handler {
            std::hint::spin_loop();
        }
        if let Token::PassOn(next) = token {
            let _ = next.try_tell(Token::PassOn(cx.address()));
        }
        Ok(())
    }
}

/// Fills the mailbox of `first`, which passes each message on to `next`.
fn fill(first: &Address<Token>, next: &Address<Token>) {
    for _ in 0..MAILBOX {
        let _ = first.try_tell(Token::PassOn(next.clone()));
    }
}

/// Milliseconds that the worst sleep and the 99th of 100 were late.
async fn lateness(load: Load, handler: Duration, length: Duration) -> [f64; 2] {
    let busy = Busy { handler, until: Instant::now() + length };
    let mut root = SupervisorSpec::new("root");
    for id in 0..8 {
        let worker = ChildSpec::actor::<Worker>(id.to_string(), busy);
        root = root.child(worker.mailbox(MAILBOX, Overflow::Wait(length * 10)));
    }
    let system = ActorSystem::builder(root).dead_letters(|_: DeadLetter| {}).start().await.unwrap();
    let workers: Vec<Address<Token>> =
        (0..8).map(|id| system.find(&format!("/{id}")).unwrap()).collect();
    let mut sender = None;
    match load {
        Load::Sender => {
            let worker = workers[0].clone();
            sender = Some(tokio::spawn(async move {
                while Instant::now() < busy.until && worker.tell(Token::Work).await.is_ok() {}
            }));
        }
        Load::Themselves(actors) => workers[..actors].iter().for_each(|each| fill(each, each)),
        Load::EachOther => fill(&workers[0], &workers[1]),
    }
    let mut late = Vec::new();
    while Instant::now() < busy.until {
        let began = Instant::now();
        tokio::time::sleep(NAP).await;
        late.push(began.elapsed().saturating_sub(NAP).as_secs_f64() * 1e3);
    }
    if let Some(sender) = sender {
        sender.await.unwrap();
    }
    system.shutdown(Duration::from_secs(10)).await;
    late.sort_by(f64::total_cmp);
    let last = late.len() - 1;
    [late[last], late[last * 99 / 100]]
}

/// Prints the rows; returns the worst lateness of all, in milliseconds.
pub(crate) fn rows(length: Duration) -> f64 {
    println!(
        "{:<48} {:>18} {:>18} {:>18}",
        "sleep(1 ms) late, ms: worst (p99); handlers of", "0 µs", "100 µs", "1,000 µs"
    );
    let mut worst_of_all = 0.0_f64;
    for workers in [1, 2] {
        for (load, name) in LOADS {
            let plural = if workers == 1 { "" } else { "s" };
            print!("{:<48}", format!("  beside {name}, {workers} worker{plural}"));
            for handler in [0, 100, 1_000] {
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(workers)
                    .enable_all()
                    .build()
                    .unwrap();
                let task = lateness(load, Duration::from_micros(handler), length);
                let [worst, p99] = runtime.block_on(async { tokio::spawn(task).await.unwrap() });
                runtime.shutdown_timeout(Duration::from_secs(10));
                print!(" {:>18}", format!("{worst:.1} ({p99:.1})"));
                worst_of_all = worst_of_all.max(worst);
            }
            println!();
        }
    }
    worst_of_all
}
