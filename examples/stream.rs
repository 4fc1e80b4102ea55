//! A source, a stream, batches: a supervised task reads from outside, an actor has the stream attached
//! to its mailbox and writes what waits in one go. Nobody has to say how fast: a full mailbox makes
//! the stream wait, and a full channel the source.
//!
//! `cargo run --example stream` prints
//!
//! ```text
//! the source lost its connection after 400 readings; its supervisor started it again
//! 1000 readings were written, in order: true
//! written in batches: true; never more than the mailbox holds: true
//! the source is done: it is down, and the meter is up
//! ```

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use mister_smith::prelude::*;
use tokio::sync::{Mutex, mpsc, watch};

const READINGS: u64 = 1_000;
const MAILBOX: usize = 64;

/// Where the source is, for its next life: what is precious does not live in a life.
type Place = Arc<watch::Sender<u64>>;

/// Reads from outside, until there is nothing more. An error is a crash like an actor's.
async fn read(cx: TaskContext, place: Place, readings: mpsc::Sender<u64>) -> Result<(), Failure> {
    let from = *place.borrow();
    for reading in from..READINGS {
        if reading == 400 && cx.life() == 1 {
            return Err(Failure::transient("the connection is gone"));
        }
        readings.send(reading).await?;
        place.send_replace(reading + 1);
    }
    Ok(())
}

/// Writes readings down, as many at a time as wait.
struct Meter {
    written: Vec<u64>,
    largest: usize,
    writes: usize,
}

enum Meters {
    Reading(u64),
    Show(ReplyPort<Shown>),
}

struct Shown {
    count: u64,
    in_order: bool,
    writes: usize,
    largest: usize,
}

impl Actor for Meter {
    type Message = Meters;
    type Args = Arc<Mutex<mpsc::Receiver<u64>>>;

    async fn start(readings: &Self::Args, cx: &mut Context<Self>) -> Result<Self, StartError> {
        // The receiver outlives this life, so the next one can go on with it.
        let readings = stream::unfold(Arc::clone(readings), |readings| async move {
            let reading = readings.lock().await.recv().await?;
            Some((reading, readings))
        });
        let attached = cx.attach(readings, Meters::Reading);
        cx.keep(attached);
        Ok(Self { written: Vec::new(), largest: 0, writes: 0 })
    }

    async fn handle(&mut self, message: Meters, cx: &mut Context<Self>) -> Result<(), Failure> {
        let mut batch = Vec::new();
        let mut next = Some(message);
        while let Some(message) = next {
            match message {
                Meters::Reading(reading) => batch.push(reading),
                Meters::Show(reply) => reply.send(self.shown()),
            }
            next = if batch.len() < MAILBOX { cx.next_waiting() } else { None };
        }
        if !batch.is_empty() {
            // One write for all of them.
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.writes += 1;
            self.largest = self.largest.max(batch.len());
            self.written.append(&mut batch);
        }
        Ok(())
    }
}

impl Meter {
    fn shown(&self) -> Shown {
        Shown {
            count: self.written.len() as u64,
            in_order: self.written.is_sorted(),
            writes: self.writes,
            largest: self.largest,
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (send, receive) = mpsc::channel(16);
    let place = Place::new(watch::Sender::new(0));
    let source = {
        let place = Arc::clone(&place);
        ChildSpec::task("source", move |cx| read(cx, Arc::clone(&place), send.clone()))
    };
    let meter = ChildSpec::actor::<Meter>("meter", Arc::new(Mutex::new(receive)))
        .mailbox(MAILBOX, Overflow::Wait(Duration::from_secs(5)));
    let root = SupervisorSpec::new("plant").child(meter).child(source);
    let system = ActorSystem::builder(root).start().await?;

    let meter = system.find::<Meters>("/meter")?;
    let shown = loop {
        let shown = meter.ask(Meters::Show).await?;
        if shown.count == READINGS {
            break shown;
        }
        tokio::task::yield_now().await;
    };
    let tree = system.tree();
    let source = tree.find("/source").expect("declared above");
    println!(
        "the source lost its connection after 400 readings; its supervisor started it {}",
        if source.restarts == 1 { "again" } else { "too often" }
    );
    println!("{} readings were written, in order: {}", shown.count, shown.in_order);
    println!(
        "written in batches: {}; never more than the mailbox holds: {}",
        (shown.writes as u64) < READINGS,
        shown.largest <= MAILBOX
    );
    while system.tree().find("/source").is_some_and(|source| source.state != SlotState::Down) {
        tokio::task::yield_now().await;
    }
    println!("the source is done: it is down, and the meter is {}", meter.state().as_str());

    system.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
