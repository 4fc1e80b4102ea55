//! The program that is deployed, in its versions. The second one knows an event that the first does
//! not, and makes other documents; one variant of it cannot make any.
//!
//! A lamp is turned on and off. A watch is set for every fourth time that one is turned on; when it
//! rings, that is told. A board shows each lamp, and a herald writes down every event of lamps.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use mister_smith::SystemCore;
use mister_smith::actors::event::{Decoder, EventCodecError, Position, RecordedEvent};
use mister_smith::actors::projection::handle::RequestError;
use mister_smith::actors::projection::{Projection, ProjectionFault};
use mister_smith::actors::store::EventFilter;
use mister_smith::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// What a process is told: its name, its version, its store, and the herald's diary.
pub(super) const NAME: &str = "DEPLOY_NAME";
pub(super) const VERSION: &str = "DEPLOY_VERSION";
pub(super) const STORE: &str = "DEPLOY_STORE";
pub(super) const DIARY: &str = "DEPLOY_DIARY";

/// Which program a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    One,
    Two,
    /// Its projection fails on everything.
    TwoBroken,
}

impl Version {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Two => "two",
            Self::TwoBroken => "broken",
        }
    }
}

/// What is asked of a process, one JSON text a line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Request {
    Order {
        lamp: String,
        order: Order,
    },
    Look {
        lamp: String,
    },
    /// The lamp's card, once this position is on the board.
    Read {
        lamp: String,
        after: u64,
    },
    Tree,
    Stop,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Answer {
    Done {
        version: u64,
        events: u64,
        position: Option<u64>,
    },
    Refused(IsSo),
    Looked {
        state: IsSo,
        version: u64,
    },
    Card(Option<Card>),
    Tree(String),
    Stopped(bool),
    /// Worth another try, here or elsewhere.
    Transient(String),
    /// The lamp has an event that this version cannot read: another one can.
    Unreadable(String),
    /// Nobody may ever get such an answer.
    Wrong(String),
}

// --- lamps ---------------------------------------------------------------------------------------

/// A command, with a number of its own.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) n: u64,
    pub(super) turn: Turn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Turn {
    /// Refused if it is on.
    On,
    /// Refused if it is off.
    Off,
    /// Nothing to do if it is on.
    BeOn,
    /// Nothing to do if it is off.
    BeOff,
    /// Only the second version can.
    Mark,
}

/// What can happen to a lamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    On,
    Off,
    Marked,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Turned {
    #[serde(rename = "lamp.on")]
    On { n: u64 },
    #[serde(rename = "lamp.off")]
    Off { n: u64 },
}

impl Event for Turned {}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum TurnedOrMarked {
    #[serde(rename = "lamp.on")]
    On { n: u64 },
    #[serde(rename = "lamp.off")]
    Off { n: u64 },
    #[serde(rename = "lamp.marked")]
    Marked { n: u64 },
}

impl Event for TurnedOrMarked {}

/// How a lamp is; also the reason for a refusal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("it is so: {self:?}")]
pub(super) struct IsSo {
    pub(super) on: bool,
    pub(super) turns: u64,
    pub(super) marks: u64,
}

impl IsSo {
    /// What an order changes, if anything.
    pub(super) fn decided(self, turn: Turn) -> Result<Option<Change>, Self> {
        match (turn, self.on) {
            (Turn::On, true) | (Turn::Off, false) => Err(self),
            (Turn::BeOn, true) | (Turn::BeOff, false) => Ok(None),
            (Turn::On | Turn::BeOn, false) => Ok(Some(Change::On)),
            (Turn::Off | Turn::BeOff, true) => Ok(Some(Change::Off)),
            (Turn::Mark, _) => Ok(Some(Change::Marked)),
        }
    }

    pub(super) fn changed(&mut self, change: Change) {
        match change {
            Change::On | Change::Off => {
                self.on = change == Change::On;
                self.turns += 1;
            }
            Change::Marked => self.marks += 1,
        }
    }
}

/// Each version has a shape of its own for snapshots: its name is part of it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Lamp<const V: u32>(IsSo);

impl Aggregate for Lamp<1> {
    type Command = Order;
    type Event = Turned;
    type Rejection = IsSo;
    const CATEGORY: &'static str = "lamp";

    fn decide(&self, order: &Order) -> Result<Vec<Turned>, IsSo> {
        let n = order.n;
        Ok(match self.0.decided(order.turn)? {
            Some(Change::On) => vec![Turned::On { n }],
            Some(Change::Off) => vec![Turned::Off { n }],
            // It does not know how to.
            Some(Change::Marked) => return Err(self.0),
            None => vec![],
        })
    }

    fn evolve(&mut self, event: Turned) {
        self.0.changed(match event {
            Turned::On { .. } => Change::On,
            Turned::Off { .. } => Change::Off,
        });
    }
}

impl Aggregate for Lamp<2> {
    type Command = Order;
    type Event = TurnedOrMarked;
    type Rejection = IsSo;
    const CATEGORY: &'static str = "lamp";

    fn decide(&self, order: &Order) -> Result<Vec<TurnedOrMarked>, IsSo> {
        let n = order.n;
        Ok(match self.0.decided(order.turn)? {
            Some(Change::On) => vec![TurnedOrMarked::On { n }],
            Some(Change::Off) => vec![TurnedOrMarked::Off { n }],
            Some(Change::Marked) => vec![TurnedOrMarked::Marked { n }],
            None => vec![],
        })
    }

    fn evolve(&mut self, event: TurnedOrMarked) {
        self.0.changed(match event {
            TurnedOrMarked::On { .. } => Change::On,
            TurnedOrMarked::Off { .. } => Change::Off,
            TurnedOrMarked::Marked { .. } => Change::Marked,
        });
    }
}

// --- the board -----------------------------------------------------------------------------------

/// What the board shows of a lamp. The second version has more to say; what it adds the first one
/// does not write, and passes over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Card {
    /// The version of the program.
    pub(super) made_by: u32,
    /// How many events are in it.
    pub(super) events: u64,
    pub(super) on: bool,
    pub(super) turns: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) more: Option<More>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct More {
    pub(super) marks: u64,
    /// Made of the numbers of all orders, in their order.
    pub(super) digest: u64,
}

struct Board<const V: u32, const BROKEN: bool>;

impl<const V: u32, const BROKEN: bool> Projection for Board<V, BROKEN> {
    type Document = Card;
    const NAME: &'static str = "board";
    const VERSION: u32 = V;

    fn filter(&self) -> EventFilter {
        EventFilter::ALL.categories(["lamp"])
    }

    fn ids(&self, event: &RecordedEvent) -> Vec<Arc<str>> {
        vec![event.stream.as_str().into()]
    }

    fn apply(
        &self,
        event: &RecordedEvent,
        _: &str,
        card: Option<Card>,
    ) -> Result<Option<Card>, ProjectionFault> {
        if BROKEN {
            return Err("this version can do nothing".into());
        }
        let mut card = card.unwrap_or_default();
        card.made_by = V;
        card.events += 1;
        match &*event.event_type {
            "lamp.on" | "lamp.off" => {
                card.on = &*event.event_type == "lamp.on";
                card.turns += 1;
            }
            _ if V == 1 => {}
            "lamp.marked" => card.more.get_or_insert_default().marks += 1,
            other => return Err(format!("an unknown event: {other}").into()),
        }
        if V == 2 {
            let more = card.more.get_or_insert_default();
            let n = match Decoder::<TurnedOrMarked>::new().decode(event)? {
                TurnedOrMarked::On { n }
                | TurnedOrMarked::Off { n }
                | TurnedOrMarked::Marked { n } => n,
            };
            more.digest = more.digest.wrapping_mul(31).wrapping_add(n);
        }
        Ok(Some(card))
    }
}

// --- watches -------------------------------------------------------------------------------------

/// Whether a watch is set for a lamp that this order has turned on.
pub(super) const fn is_watched(n: u64) -> bool {
    n.is_multiple_of(4)
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Watch {
    set: bool,
    rung: bool,
}

enum Hears {
    On(u64),
    Time(u64),
}

#[derive(Debug, Serialize, Deserialize)]
enum Watched {
    #[serde(rename = "watch.set")]
    Set { n: u64 },
    #[serde(rename = "watch.rang")]
    Rang { n: u64 },
}

impl Event for Watched {}

impl Aggregate for Watch {
    type Command = Hears;
    type Event = Watched;
    type Rejection = std::convert::Infallible;
    const CATEGORY: &'static str = "watch";

    fn decide(&self, heard: &Hears) -> Result<Vec<Watched>, Self::Rejection> {
        Ok(match *heard {
            Hears::On(n) if !self.set => vec![Watched::Set { n }],
            Hears::Time(n) if !self.rung => vec![Watched::Rang { n }],
            _ => vec![],
        })
    }

    fn evolve(&mut self, event: Watched) {
        match event {
            Watched::Set { .. } => self.set = true,
            Watched::Rang { .. } => self.rung = true,
        }
    }
}

impl Process for Watch {
    fn reacts_to() -> EventFilter {
        EventFilter::ALL.types(["lamp.on"])
    }

    fn on(event: &RecordedEvent) -> Result<Option<(String, Hears)>, EventCodecError> {
        let Turned::On { n } = Decoder::new().decode(event)? else { return Ok(None) };
        Ok(is_watched(n).then(|| (n.to_string(), Hears::On(n))))
    }

    fn then(_: &str, event: &Watched) -> Vec<Effect<Self>> {
        match *event {
            Watched::Set { n } => {
                let wait = Duration::from_millis(n * 37 % 2_000);
                vec![Effect::after("time", wait, move || Hears::Time(n))]
            }
            Watched::Rang { n } => vec![Effect::send::<Bell>("ring", "all", n)],
        }
    }
}

/// Hears of all watches that ring, and would count one twice.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Bell {}

#[derive(Debug, Serialize, Deserialize)]
enum Heard {
    #[serde(rename = "bell.heard")]
    Heard { n: u64 },
}

impl Event for Heard {}

impl Aggregate for Bell {
    type Command = u64;
    type Event = Heard;
    type Rejection = std::convert::Infallible;
    const CATEGORY: &'static str = "bell";

    fn decide(&self, n: &u64) -> Result<Vec<Heard>, Self::Rejection> {
        Ok(vec![Heard::Heard { n: *n }])
    }

    fn evolve(&mut self, _: Heard) {}
}

// --- the process ---------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a process of other tests"]
async fn runs() {
    let Ok(version) = std::env::var(VERSION) else { return };
    tracing_subscriber::fmt()
        .with_env_filter("warn")
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    match &*version {
        "one" => run::<1, false>().await,
        "two" => run::<2, false>().await,
        _ => run::<2, true>().await,
    }
}

async fn run<const V: u32, const BROKEN: bool>()
where
    Lamp<V>: Aggregate<Command = Order, Rejection = IsSo>,
{
    let setting = |name| std::env::var(name).unwrap();
    let core = SystemCore::embedded()
        .name(setting(NAME))
        .store(setting(STORE))
        .aggregate::<Lamp<V>>()
        .aggregate::<Bell>()
        .projection(Board::<V, BROKEN>)
        .start()
        .await
        .unwrap();
    core.processes().start::<Watch>(ProcessOptions::default()).await.unwrap();
    let diary = OpenOptions::new().append(true).open(setting(DIARY)).unwrap();
    let herald = Consumer::new("herald", move |delivery: Delivery| {
        herald(&diary, delivery.recorded().unwrap());
        async { Outcome::Ack }
    });
    let herald = herald.filter(EventFilter::ALL.categories(["lamp"])).lanes_by_stream(4);
    core.consumers().start(herald).await.unwrap();

    let (lines, mut read) = mpsc::unbounded_channel();
    // A thread that nobody waits for, as it is in a read for as long as there is somebody to ask.
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { return };
            let _ = lines.send(line);
        }
    });
    while let Some(line) = read.recv().await {
        let (number, text) = line.split_once(' ').unwrap();
        let (number, request) = (number.to_owned(), serde_json::from_str(text).unwrap());
        let core = core.clone();
        tokio::spawn(async move {
            let answer = answer::<V>(&core, request).await;
            println!("answer {number} {}", serde_json::to_string(&answer).unwrap());
            if matches!(answer, Answer::Stopped(_)) {
                std::process::exit(0);
            }
        });
    }
    // Nobody asks any more.
    std::process::exit(1);
}

/// One line at once, so that a kill leaves none that is cut off, and no two are mixed.
fn herald(mut diary: &File, event: &RecordedEvent) {
    let line = format!("{} {} {}\n", event.stream, event.version, event.position);
    diary.write_all(line.as_bytes()).unwrap();
}

async fn answer<const V: u32>(core: &SystemCore, request: Request) -> Answer
where
    Lamp<V>: Aggregate<Command = Order, Rejection = IsSo>,
{
    let failed = |class: ErrorClass, error: String| match class {
        ErrorClass::Transient => Answer::Transient(error),
        _ if error.contains("lamp.marked) cannot be applied: ") => Answer::Unreadable(error),
        _ => Answer::Wrong(format!("{class:?}: {error}")),
    };
    match request {
        Request::Order { lamp, order } => {
            let command = CommandEnvelope::new(order).key(order.n.to_string());
            match core.commands().send::<Lamp<V>>(&lamp, command).await {
                Ok(done) => Answer::Done {
                    version: done.version.get(),
                    events: done.events,
                    position: done.position.map(Position::get),
                },
                Err(error) => match error.rejection::<IsSo>() {
                    Some(refused) => Answer::Refused(*refused),
                    None => failed(error.class(), error.to_string()),
                },
            }
        }
        Request::Look { lamp } => {
            let look = |lamp: &Lamp<V>, version: mister_smith::actors::event::Version| {
                (lamp.0, version.get())
            };
            match core.commands().look(&lamp, look).await {
                Ok((state, version)) => Answer::Looked { state, version },
                Err(error) => failed(error.class(), error.to_string()),
            }
        }
        Request::Read { lamp, after } => {
            let board = core.projection("board").unwrap();
            let card = async {
                board.wait_for(Position::new(after)).await?;
                board.get::<Card>(&format!("lamp-{lamp}")).await
            };
            match card.await {
                Ok(card) => Answer::Card(card),
                // The node is on its way down.
                Err(error @ RequestError::Actor(_)) => Answer::Transient(error.to_string()),
                Err(RequestError::Store(error)) => failed(error.class(), error.to_string()),
                Err(RequestError::Projection(error)) => failed(error.class(), error.to_string()),
                Err(error) => Answer::Wrong(error.to_string()),
            }
        }
        Request::Tree => Answer::Tree(core.tree().to_string()),
        Request::Stop => Answer::Stopped(core.stop(Duration::from_secs(20)).await),
    }
}
