//! What handles the messages, and has effects: aggregates, a saga, a process, handlers.

use std::path::Path;
use std::time::Duration;

use mister_smith::SystemCore;
use mister_smith::actors::bus::wire::WireMessage;
use mister_smith::actors::event::codec::{Avro, Codec, Protobuf};
use mister_smith::actors::event::{EventCodecError, RecordedEvent};
use mister_smith::actors::store::EventFilter;
use mister_smith::actors::store::messages::postgres::first_time;
use mister_smith::prelude::*;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio::sync::watch;

use super::items::{Item, Kind, LARGE, NAME, kind_of, number_of};

/// An effect of a handler: it is in the log once for each key.
#[derive(Debug, Clone)]
pub(super) struct Note {
    handler: String,
    what: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Noted {
    #[serde(rename = "tally.noted")]
    Noted { handler: String, what: String },
}

impl Event for Noted {}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Tally {}

impl Aggregate for Tally {
    type Command = Note;
    type Event = Noted;
    type Rejection = std::convert::Infallible;
    const CATEGORY: &'static str = "tally";

    fn decide(&self, note: &Note) -> Result<Vec<Noted>, Self::Rejection> {
        let Note { handler, what } = note.clone();
        Ok(vec![Noted::Noted { handler, what }])
    }

    fn evolve(&mut self, _: Noted) {}
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Placed {
    #[serde(rename = "order.placed")]
    Placed { what: String, blob: String },
}

impl Event for Placed {}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Order {}

impl Aggregate for Order {
    type Command = Item;
    type Event = Placed;
    type Rejection = std::convert::Infallible;
    const CATEGORY: &'static str = "order";

    fn decide(&self, item: &Item) -> Result<Vec<Placed>, Self::Rejection> {
        let bytes = if item.kind == Kind::Large { LARGE } else { 0 };
        Ok(vec![Placed::Placed { what: item.to_string(), blob: "x".repeat(bytes) }])
    }

    fn evolve(&mut self, _: Placed) {}
}

/// Waits for a moment, for every fourth order that is good, and then rings.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Watch {}

pub(super) enum Hears {
    Order,
    Time(String),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Watched {
    #[serde(rename = "watch.set")]
    Set {},
    #[serde(rename = "watch.rang")]
    Rang { what: String },
}

impl Event for Watched {}

impl Aggregate for Watch {
    type Command = Hears;
    type Event = Watched;
    type Rejection = std::convert::Infallible;
    const CATEGORY: &'static str = "watch";

    fn decide(&self, heard: &Hears) -> Result<Vec<Watched>, Self::Rejection> {
        Ok(vec![match heard {
            Hears::Order => Watched::Set {},
            Hears::Time(what) => Watched::Rang { what: what.clone() },
        }])
    }

    fn evolve(&mut self, _: Watched) {}
}

/// Whether a watch is set for an order of this name.
pub(super) fn is_watched(name: &str) -> bool {
    number_of(name).is_multiple_of(4)
}

impl Process for Watch {
    fn reacts_to() -> EventFilter {
        EventFilter::ALL.types(["order.placed"])
    }

    fn on(event: &RecordedEvent) -> Result<Option<(String, Hears)>, EventCodecError> {
        let name = Metadata::from_bytes(&event.meta).headers.remove(NAME).unwrap_or_default();
        Ok(is_watched(&name).then_some((name, Hears::Order)))
    }

    fn then(id: &str, event: &Watched) -> Vec<Effect<Self>> {
        match event {
            Watched::Set {} => {
                let wait = Duration::from_millis(number_of(id) * 37 % 3_000);
                let what = id.to_owned();
                vec![Effect::after("time", wait, move || Hears::Time(what))]
            }
            Watched::Rang { what } => {
                let note = Note { handler: "bell".into(), what: what.clone() };
                vec![Effect::send::<Tally>("ring", "bell", note)]
            }
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Trip {
    pub(super) what: String,
}

/// The node, for handlers that are made before it is up.
pub(super) type Node = watch::Receiver<Option<SystemCore>>;

async fn up(node: &Node) -> SystemCore {
    let mut node = node.clone();
    let up = node.wait_for(Option::is_some).await.expect("it is kept");
    up.clone().expect("it is some")
}

/// Has an effect, once for a key, as often as it is tried.
async fn effect(core: &SystemCore, handler: &str, what: &str, key: &str) -> Outcome {
    loop {
        let note = Note { handler: handler.to_owned(), what: what.to_owned() };
        let command = CommandEnvelope::new(note).key(key);
        match core.commands().send::<Tally>(handler, command).await {
            Ok(_) => return Outcome::Ack,
            Err(error) => match error.class() {
                // Tries are for poison; what a kill takes away is waited for, up to the deadline.
                ErrorClass::Transient | ErrorClass::System => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                _ => return Outcome::fail(error),
            },
        }
    }
}

pub(super) fn trip(node: &Node) -> Saga<Trip> {
    let step = |name: &'static str, last: bool| {
        let node = node.clone();
        Step::new(name, move |cx: StepContext<Trip>| {
            let node = node.clone();
            async move {
                if last && kind_of(&cx.data.what) == "fail" {
                    return Err(StepError::refused("no seats"));
                }
                match effect(&up(&node).await, name, &cx.data.what, &cx.key).await {
                    Outcome::Ack => Ok(cx.data),
                    other => Err(StepError::retry(format!("{other:?}"))),
                }
            }
        })
    };
    let undo = node.clone();
    let reserve = step("reserve", false).undo(move |cx: StepContext<Trip>| {
        let node = undo.clone();
        async move {
            match effect(&up(&node).await, "undo", &cx.data.what, &cx.key).await {
                Outcome::Ack => Ok(()),
                other => Err(StepError::retry(format!("{other:?}"))),
            }
        }
    });
    Saga::new("trip").step(reserve).step(step("pay.trip", true))
}

// --- handlers ------------------------------------------------------------------------------------

fn name_of(delivery: &Delivery) -> String {
    delivery.headers().get(NAME).cloned().unwrap_or_default()
}

#[derive(Clone, PartialEq, prost::Message)]
struct Small {
    #[prost(string, tag = "1")]
    name: String,
}

/// What the handlers do about poison; `None` if it is none.
fn poison(delivery: &Delivery, home: &Path) -> Option<Outcome> {
    let name = name_of(delivery);
    let payload = || delivery.message.encoded().map(|encoded| encoded.data.clone());
    match kind_of(&name) {
        "panic" => panic!("{name} is poison"),
        "fail" => match &*delivery.message.encoded().ok()?.event_type {
            "foreign.odd" => Some(Outcome::fail(delivery.message.event::<Placed>().unwrap_err())),
            _ => Some(Outcome::fail("it is meant to fail")),
        },
        "avro" => {
            let codec = Avro::new(r#"{"type": "array", "items": "null"}"#).ok()?;
            let read: Result<Vec<()>, _> = codec.decode(&payload().ok()?);
            Some(Outcome::fail(read.map(|all| all.len()).expect_err("a bomb is no array")))
        }
        "protobuf" => {
            let read: Result<Small, _> = Protobuf::new().decode(&payload().ok()?);
            Some(Outcome::fail(read.expect_err("a bomb is no message")))
        }
        "exit" => {
            let mark = home.join(format!("exit {} {name}", delivery.handler));
            if !mark.exists() {
                std::fs::write(&mark, "").expect("the directory can be written");
                std::process::abort();
            }
            None
        }
        _ => None,
    }
}

pub(super) fn tries() -> RetryPolicy {
    let backoff = Backoff::exponential(Duration::from_millis(20), Duration::from_millis(300));
    RetryPolicy::attempts(15).backoff(backoff)
}

/// A handler that has its effect by a command.
pub(super) fn by_command(core: &SystemCore, home: &Path) -> impl Handler + Clone {
    let (core, home) = (core.clone(), home.to_owned());
    move |delivery: Delivery| {
        let (core, home) = (core.clone(), home.clone());
        async move {
            if let Some(outcome) = poison(&delivery, &home) {
                return Handled::from(outcome);
            }
            let (name, key) = (name_of(&delivery), delivery.key());
            let outcome = effect(&core, &delivery.handler, &name, &key).await;
            if outcome == Outcome::Ack && &*delivery.handler == "bill" {
                let subject = Subject::of(["bills", "n"]);
                return Handled::with(vec![WireMessage::new(&subject, key, "").header(NAME, name)]);
            }
            outcome.into()
        }
    }
}

/// A handler that has the effects of a batch in one transaction, with the inbox.
pub(super) fn by_inbox(pool: &PgPool, home: &Path) -> impl Handler {
    let (pool, home) = (pool.clone(), home.to_owned());
    Batch::new(20, Duration::from_millis(10), move |batch: Vec<Delivery>| {
        let (pool, home) = (pool.clone(), home.clone());
        async move {
            let judged: Vec<_> = batch.iter().map(|one| poison(one, &home)).collect();
            let good = batch.iter().zip(&judged).filter(|(_, poison)| poison.is_none());
            let good: Vec<_> = good.map(|(one, _)| (one.key(), name_of(one))).collect();
            while let Err(error) = together(&pool, &good).await {
                tracing::debug!(%error, "the batch is tried again");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            judged.into_iter().map(|poison| poison.unwrap_or(Outcome::Ack)).collect::<Vec<_>>()
        }
    })
}

async fn together(pool: &PgPool, good: &[(String, String)]) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    for (key, name) in good {
        if first_time(&mut transaction, "audit", key).await? {
            sqlx::query("insert into soak.effects (handler, what) values ('audit', $1)")
                .bind(name.clone())
                .execute(&mut *transaction)
                .await?;
        }
    }
    transaction.commit().await
}
