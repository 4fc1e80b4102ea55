//! Events that cannot be applied, in every way but an error.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use serde::Serializer;
use serde_json::Value;

use super::*;
use crate::projection::desk::ParkedDesk;
use crate::projection::parked::MAX_EVENTS;
use crate::store::claims::{Claimed, Save};
use crate::store::follow::LEASE;

/// What is odd about the document of stream `s-1`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
enum Oddity {
    #[default]
    None,
    /// It has no JSON.
    NotText,
    /// It is not read as it was written.
    NotANumber,
    Deep,
    Large,
    PanicsWhenWritten,
    PanicsWhenDropped,
    LongId,
    IdsPanic,
}

impl Serialize for Oddity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::NotText => BTreeMap::from([((1, 2), 3)]).serialize(serializer),
            Self::Deep => {
                let deep = (0..200).fold(Value::Null, |inner, _| Value::from(vec![inner]));
                deep.serialize(serializer)
            }
            Self::Large => "x".repeat(17 * 1024 * 1024).serialize(serializer),
            Self::PanicsWhenWritten => panic!("not in writing"),
            _ => serializer.serialize_unit(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Thing {
    seen: Vec<u64>,
    number: f64,
    #[serde(skip_deserializing)]
    odd: Oddity,
}

impl Drop for Thing {
    fn drop(&mut self) {
        if self.odd == Oddity::PanicsWhenDropped && !std::thread::panicking() {
            panic!("not so easily");
        }
    }
}

#[derive(Clone, Default)]
struct Odd {
    mended: Arc<AtomicBool>,
    oddity: Oddity,
    tried: Arc<AtomicU64>,
}

impl Odd {
    fn of(oddity: Oddity) -> Self {
        Self { oddity, ..Self::default() }
    }

    fn oddity(&self, id: &str) -> Oddity {
        match id.starts_with("s-1") && !self.mended.load(Ordering::Relaxed) {
            true => self.oddity,
            false => Oddity::None,
        }
    }
}

impl Projection for Odd {
    type Document = Thing;
    const NAME: &'static str = "odd";

    fn ids(&self, event: &RecordedEvent) -> Vec<Arc<str>> {
        let stream = event.stream.to_shared();
        match self.oddity(&stream) {
            Oddity::IdsPanic => panic!("whose is it?"),
            Oddity::LongId => vec![format!("{stream}{}", "x".repeat(3_000)).into()],
            // Named twice, it comes once.
            _ => vec![Arc::clone(&stream), stream],
        }
    }

    fn apply(
        &self,
        event: &RecordedEvent,
        id: &str,
        thing: Option<Thing>,
    ) -> Result<Option<Thing>, ProjectionFault> {
        self.tried.fetch_add(1, Ordering::Relaxed);
        let mut thing = thing.unwrap_or(Thing { seen: Vec::new(), number: 0.0, odd: Oddity::None });
        thing.seen.push(event.position.get());
        thing.odd = self.oddity(id);
        thing.number = if thing.odd == Oddity::NotANumber { f64::NAN } else { 1.0 };
        Ok(Some(thing))
    }
}

async fn seen(world: &World) -> BTreeMap<String, Vec<u64>> {
    let found = world.projection.list::<Value>(&ListQuery::first(1_000)).await.unwrap();
    let positions = |value: &Value| {
        value["seen"].as_array().unwrap().iter().map(|one| one.as_u64().unwrap()).collect()
    };
    found.iter().map(|(id, value)| (id.to_string(), positions(value))).collect()
}

fn expected(all: &[(&str, &[u64])]) -> BTreeMap<String, Vec<u64>> {
    all.iter().map(|(id, positions)| ((*id).to_owned(), positions.to_vec())).collect()
}

/// A document that has no JSON was applied again and again, at full speed, and nothing said so.
#[tokio::test]
async fn a_document_that_cannot_be_written_is_parked() {
    for (oddity, says) in [
        (Oddity::NotText, "the document cannot be written: key must be a string"),
        (Oddity::Deep, "the document is nested more than 127 deep"),
        (Oddity::Large, "the document has 178"),
        (Oddity::PanicsWhenWritten, "panic: not in writing"),
        (Oddity::LongId, "the id has 3003 bytes, 1024 at most"),
    ] {
        let odd = Odd::of(oddity);
        let mut world = World::new(odd.clone()).await;
        world.append(&[0, 1, 2, 1, 2]).await;
        world.caught_up().await;
        let parked = world.parked().await;
        let places: Vec<_> = parked.iter().map(|one| one.position.get()).collect();
        assert_eq!(places, [2, 4], "{oddity:?}: {parked:?}");
        assert!(parked[0].error.starts_with(says), "{oddity:?}: {parked:?}");
        assert_eq!((parked[0].attempts, parked[1].attempts), (3, 0));
        assert_eq!(seen(&world).await, expected(&[("s-0", &[1]), ("s-2", &[3, 5])]));
        assert!(odd.tried.load(Ordering::Relaxed) < 30, "it is not tried without end");
        // Still so, and said so; then mended.
        let id = parked[0].id.to_string();
        let refused = loop {
            // A large one takes its time.
            match world.projection.retry(&id).await {
                Ok(retried) => assert_eq!(retried.left, 2),
                Err(refused) => break refused.to_string(),
            }
        };
        assert!(refused.contains(says), "{refused}");
        odd.mended.store(true, Ordering::Relaxed);
        assert_eq!(world.projection.retry(&id).await.unwrap(), Retried { applied: 2, left: 0 });
        let whole: &[(&str, &[u64])] = match oddity {
            // The mended program has another document for these events.
            Oddity::LongId => &[("s-0", &[1]), ("s-2", &[3, 5])],
            _ => &[("s-0", &[1]), ("s-1", &[2, 4]), ("s-2", &[3, 5])],
        };
        assert_eq!(seen(&world).await, expected(whole), "{oddity:?}");
        world.system.shutdown(DEADLINE).await;
    }
}

/// One that is written and cannot be read again stopped the projection for good.
#[tokio::test]
async fn a_document_that_cannot_be_read_is_parked() {
    let odd = Odd::of(Oddity::NotANumber);
    let mut world = World::new(odd.clone()).await;
    world.append(&[0, 1]).await;
    world.caught_up().await;
    world.system.kill(world.projection.paths()[0].as_str()).unwrap();
    world.append(&[1, 0]).await;
    world.caught_up().await;
    let parked = world.parked().await;
    assert_eq!(parked.len(), 1, "{parked:?}");
    assert!(parked[0].error.starts_with("the document cannot be read"), "{parked:?}");
    assert_eq!(seen(&world).await["s-0"], [1, 4]);
}

/// It was a crash loop, and nothing went on.
#[tokio::test]
async fn an_event_whose_ids_cannot_be_told_is_parked() {
    let odd = Odd::of(Oddity::IdsPanic);
    let mut world = World::new(odd.clone()).await;
    world.append(&[0, 1, 2, 1, 2]).await;
    world.caught_up().await;
    let parked = world.parked().await;
    let all: Vec<_> = parked.iter().map(|one| (&*one.id, one.position.get())).collect();
    assert_eq!(all, [("$ids", 2), ("$ids", 4)]);
    assert_eq!(parked[0].error, "`ids`: panic: whose is it?");
    assert_eq!(seen(&world).await, expected(&[("s-0", &[1]), ("s-2", &[3, 5])]));
    odd.mended.store(true, Ordering::Relaxed);
    let refused = world.projection.retry("$ids").await.unwrap_err().to_string();
    assert!(refused.ends_with("skip it, or rebuild the projection"), "{refused}");
    world.projection.rebuild().await.unwrap();
    world.rebuilt().await;
    assert_eq!(world.parked().await, []);
    assert_eq!(seen(&world).await["s-1"], [2, 4]);
}

#[tokio::test]
async fn a_document_that_panics_when_it_is_dropped_ends_nothing() {
    let odd = Odd::of(Oddity::PanicsWhenDropped);
    let mut world = World::new(odd.clone()).await;
    world.append(&[0, 1]).await;
    world.caught_up().await;
    let before = odd.tried.load(Ordering::Relaxed);
    assert_eq!(before, 2, "each event comes once");
    assert_eq!(seen(&world).await, expected(&[("s-0", &[1]), ("s-1", &[2])]));
    world.system.kill(world.projection.paths()[0].as_str()).unwrap();
    world.append(&[1]).await;
    world.caught_up().await;
    assert_eq!(seen(&world).await["s-1"], [2, 3]);
}

/// Parked events had no bound: one document that stands still took every later event of the log
/// into a table, and reading or retrying them took all of them into memory.
#[tokio::test]
async fn a_projection_stops_when_too_much_is_parked_and_goes_on_when_it_is_retried() {
    let odd = Odd::of(Oddity::NotText);
    let mut world = World::new(odd.clone()).await;
    let most = usize::try_from(MAX_EVENTS).unwrap();
    // So many that the last event is in no page that goes beyond the bound.
    let appends = (most + 5_000) / 500 + 1;
    for _ in 0..appends {
        world.append(&[1; 500]).await;
    }
    let last = world.append(&[2]).await;
    world
        .until(async || {
            let tree = world.system.tree().to_string();
            tree.contains("stands still: ") && tree.contains("events of 1 documents are parked")
        })
        .await;
    let status = world.projection.status().await.unwrap();
    assert!((MAX_EVENTS..MAX_EVENTS + 5_000).contains(&status.parked_events), "{status:?}");
    let behind = world.projection.wait_for_within(last, Duration::from_millis(1)).await;
    assert!(behind.unwrap_err().to_string().contains("stands still"));
    // Anybody with the database can ask for it.
    odd.mended.store(true, Ordering::Relaxed);
    let lease = world.lease().await;
    let desk = ParkedDesk::new(Arc::clone(&lease.documents), "odd");
    assert!(desk.retry("s-1").await.unwrap());
    world.system.kill(world.projection.paths()[0].as_str()).unwrap();
    world.until(async || world.projection.wait_for(last).await.is_ok()).await;
    assert_eq!(world.parked().await, []);
    assert_eq!(seen(&world).await["s-1"].len(), 500 * appends);
    assert_eq!(seen(&world).await["s-2"], [last.get()]);
}

/// An event that ends the process ended it again at every start.
#[tokio::test]
async fn an_event_that_ends_processes_is_parked() {
    let odd = Odd::default();
    let mut world = World::new(odd.clone()).await;
    world.append(&[0]).await;
    world.caught_up().await;
    world.system.suspend("/projections/odd").await.unwrap();
    world.append(&[1, 2, 1]).await;
    let lease = world.lease().await;
    let claims = lease.documents.claims();
    for owner in ["a process", "another"] {
        let claimed = claims.claim("build 1/0", owner, LEASE).await.unwrap();
        let Claimed::Yes(claim) = claimed else { panic!("{claimed:?}") };
        let trying = Some(Position::new(2));
        let save = Save { trying, durable: true, ..Save::renewal(LEASE) };
        claims.save(&claim.fence, save).await.unwrap();
    }
    world.system.resume("/projections/odd").await.unwrap();
    world.caught_up().await;
    let parked = world.parked().await;
    let all: Vec<_> = parked.iter().map(|one| (&*one.id, one.position.get())).collect();
    assert_eq!(all, [("s-1", 2), ("s-1", 4)]);
    assert_eq!(parked[0].error, "2 processes ended while it was tried");
    assert_eq!(seen(&world).await, expected(&[("s-0", &[1]), ("s-2", &[3])]));
    assert_eq!(world.projection.retry("s-1").await.unwrap(), Retried { applied: 2, left: 0 });
}
