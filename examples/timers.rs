//! Time: an interval that every life sets anew, a timer that is replaced by its key, a timeout when
//! nothing comes.
//!
//! `cargo run --example timers` prints
//!
//! ```text
//! life 1: tick 1
//! life 1: tick 2
//! life 1: tick 3, and it crashes
//! life 2: tick 1
//! life 2: tick 2
//! life 2: tick 3
//! reminder: the second one
//! cancelled: true, and again: false
//! nothing came for a while
//! ```

use std::time::Duration;

use mister_smith::prelude::*;
use tokio::sync::mpsc;

const SHORT: Duration = Duration::from_millis(20);

type Lines = mpsc::UnboundedSender<String>;

/// Ticks. The timer belongs to the life that set it: after a crash the next life sets its own, and
/// a tick of the old one that was still waiting is thrown away.
struct Ticker {
    ticks: u32,
    lines: Lines,
}

struct Tick;

impl Actor for Ticker {
    type Message = Tick;
    type Args = Lines;

    async fn start(lines: &Lines, cx: &mut Context<Self>) -> Result<Self, StartError> {
        cx.periodic("tick", SHORT, || Tick);
        Ok(Self { ticks: 0, lines: lines.clone() })
    }

    async fn handle(&mut self, _: Tick, cx: &mut Context<Self>) -> Result<(), Failure> {
        self.ticks += 1;
        let (life, tick) = (cx.life(), self.ticks);
        if (life, tick) == (1, 3) {
            self.lines.send(format!("life {life}: tick {tick}, and it crashes"))?;
            return Err(Failure::transient("it is the third tick"));
        }
        self.lines.send(format!("life {life}: tick {tick}"))?;
        if tick == 3 {
            cx.stop();
        }
        Ok(())
    }
}

/// Is reminded, and notices silence.
struct Desk {
    lines: Lines,
}

enum Note {
    Remind(&'static [&'static str]),
    Cancel,
    Reminder(&'static str),
    Watch,
    Silence,
}

impl Actor for Desk {
    type Message = Note;
    type Args = Lines;

    async fn start(lines: &Lines, _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self { lines: lines.clone() })
    }

    async fn handle(&mut self, note: Note, cx: &mut Context<Self>) -> Result<(), Failure> {
        let line = match note {
            Note::Remind(whats) => {
                for what in whats {
                    // Takes the place of the one before it, even if that has rung and waits.
                    cx.timer("reminder", SHORT, Note::Reminder(what));
                }
                return Ok(());
            }
            Note::Reminder(what) => format!("reminder: {what}"),
            Note::Cancel => {
                cx.timer("reminder", SHORT, Note::Reminder("never heard"));
                let (first, again) = (cx.cancel_timer("reminder"), cx.cancel_timer("reminder"));
                format!("cancelled: {first}, and again: {again}")
            }
            Note::Watch => {
                cx.set_receive_timeout(Some(SHORT), || Note::Silence);
                return Ok(());
            }
            Note::Silence => {
                cx.set_receive_timeout(None, || Note::Silence);
                "nothing came for a while".to_owned()
            }
        };
        Ok(self.lines.send(line)?)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (lines, mut written) = mpsc::unbounded_channel();
    let mut print = async |count: usize| {
        for _ in 0..count {
            println!("{}", written.recv().await.expect("somebody writes"));
        }
    };
    let ticker = ChildSpec::actor::<Ticker>("ticker", lines.clone());
    let root = SupervisorSpec::new("clocks")
        .child(ticker.restart(RestartPolicy::Transient))
        .child(ChildSpec::actor::<Desk>("desk", lines));
    let system = ActorSystem::builder(root).start().await?;
    print(6).await;

    let desk = system.find::<Note>("/desk")?;
    desk.tell(Note::Remind(&["the first one", "the second one"])).await?;
    print(1).await;
    desk.tell(Note::Cancel).await?;
    print(1).await;
    desk.tell(Note::Watch).await?;
    print(1).await;

    system.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
