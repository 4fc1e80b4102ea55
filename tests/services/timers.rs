//! Timers on nodes that share a database: set and cancelled anywhere, fired by one, whoever is
//! killed or sleeps.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mister_smith::SystemCore;
use mister_smith::actors::event::{ContentType, Timestamp};
use mister_smith::actors::timer::{
    Fired, NewTimer, Timer, TimerFilter, TimerOptions, TimerRow, TimerState,
};
use mister_smith::prelude::*;
use mister_smith_testkit::{Postgres, eventually};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::diarist::{Other, write};
use crate::node::{Counter, node, value};
use crate::server::{DEADLINE, database};

const STOP: Duration = Duration::from_secs(20);

fn soon(millis: i64) -> Timestamp {
    let now = mister_smith::runtime::wall_us();
    Timestamp::from_micros(now + millis * 1_000)
}

fn bell(name: impl Into<Arc<str>>, millis: i64) -> NewTimer {
    NewTimer::new("bell", name, soon(millis), "")
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("it comes")
}

/// Rings, and tells who did.
async fn rings(core: &SystemCore, who: &'static str, tell: &mpsc::UnboundedSender<Rang>) {
    let tell = tell.clone();
    let handler = move |timer: Timer| {
        let _ = tell.send((who, timer.name.to_string(), timer.key()));
        async { Fired::Done }
    };
    core.timers().handle("bell", TimerOptions::default(), handler).await.unwrap();
}

type Rang = (&'static str, String, String);

async fn all(core: &SystemCore) -> Vec<TimerRow> {
    core.timers().list(&TimerFilter::default(), None, 1_000).await.unwrap()
}

/// A node without the handler leaves them alone; of those that have it one fires; when it goes the
/// other takes over.
#[tokio::test(flavor = "multi_thread")]
async fn timers_are_set_anywhere_and_fired_by_one_node_that_can() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let plain = node("plain", &url).await;
    plain.timers().set(bell("early", 0)).await.unwrap();
    let (one, two) = (node("one", &url).await, node("two", &url).await);
    let (tell, mut heard) = mpsc::unbounded_channel();
    rings(&one, "one", &tell).await;
    let (who, name, _) = within(heard.recv()).await.unwrap();
    assert_eq!((who, &*name), ("one", "early"));
    rings(&two, "two", &tell).await;
    for n in 0..20 {
        let core = [&plain, &one, &two][n % 3];
        core.timers().set(bell(format!("{n}"), 300)).await.unwrap();
    }
    // Taken back on a node that does not have the claim.
    assert!(two.timers().cancel("bell", "7").await.unwrap());
    assert!(!plain.timers().cancel("bell", "7").await.unwrap());
    let mut names = BTreeMap::new();
    for _ in 0..19 {
        let (who, name, _) = within(heard.recv()).await.unwrap();
        assert_eq!(who, "one");
        *names.entry(name).or_insert(0) += 1;
    }
    assert_eq!(names.len(), 19, "each once: {names:?}");
    assert!(!names.contains_key("7"));
    eventually(DEADLINE, async || match all(&plain).await {
        left if left.is_empty() => Ok(()),
        left => Err(left),
    })
    .await;
    // It does not even say goodbye.
    for path in ["/domain", "/resources", "/messaging"] {
        one.actors().kill(path).unwrap();
    }
    plain.timers().set(bell("late", 100)).await.unwrap();
    one.stop(STOP).await;
    let (_, name, _) = within(heard.recv()).await.unwrap();
    assert_eq!(name, "late");
    eventually(DEADLINE, async || match all(&plain).await {
        left if left.is_empty() => Ok(()),
        left => Err(left),
    })
    .await;
    two.stop(STOP).await;
    plain.stop(STOP).await;
}

/// A program that does not know a timer leaves it to one that does, and everybody sees why.
#[tokio::test(flavor = "multi_thread")]
async fn a_timer_of_a_newer_program_waits_for_it() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let (old, new) = (node("old", &url).await, node("new", &url).await);
    let (tell, mut heard) = mpsc::unbounded_channel();
    let telling = tell.clone();
    let handler = move |timer: Timer| {
        let known = &*timer.name != "new";
        if known {
            let _ = telling.send(("old", timer.name.to_string(), timer.key()));
        }
        async move { if known { Fired::Done } else { Fired::unknown("what is this?") } }
    };
    old.timers().handle("bell", TimerOptions::default(), handler).await.unwrap();
    new.timers().set_all(vec![bell("new", 0), bell("known", 1)]).await.unwrap();
    assert_eq!(within(heard.recv()).await.unwrap().1, "known");
    let row = eventually(DEADLINE, async || {
        let row = new.timers().get("bell", "new").await.unwrap().unwrap();
        (row.state == TimerState::Unknown).then(|| row.clone()).ok_or(row)
    })
    .await;
    assert_eq!(row.reason, "what is this?");
    rings(&new, "new", &tell).await;
    old.stop(STOP).await;
    let (who, name, _) = within(heard.recv()).await.unwrap();
    assert_eq!((who, &*name), ("new", "new"));
    new.stop(STOP).await;
}

/// A deadline of a process, over the death of the node that has it: heard once, and cancelled ones
/// not at all.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Alarm {
    rang: u64,
}

#[derive(Debug, Clone)]
enum Hears {
    Set,
    Cancel,
    Ring,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
enum Alarmed {
    #[serde(rename = "alarm.set")]
    Set {},
    #[serde(rename = "alarm.cancelled")]
    Cancelled {},
    #[serde(rename = "alarm.rang")]
    Rang {},
}

impl Event for Alarmed {}

impl Aggregate for Alarm {
    type Command = Hears;
    type Event = Alarmed;
    type Rejection = std::convert::Infallible;
    const CATEGORY: &'static str = "alarm";

    fn decide(&self, hears: &Hears) -> Result<Vec<Alarmed>, Self::Rejection> {
        Ok(vec![match hears {
            Hears::Set => Alarmed::Set {},
            Hears::Cancel => Alarmed::Cancelled {},
            Hears::Ring => Alarmed::Rang {},
        }])
    }

    fn evolve(&mut self, event: Alarmed) {
        self.rang += u64::from(matches!(event, Alarmed::Rang {}));
    }
}

impl Process for Alarm {
    fn reacts_to() -> mister_smith::actors::store::EventFilter {
        mister_smith::actors::store::EventFilter::ALL.types(["never"])
    }

    fn on(
        _: &mister_smith::actors::event::RecordedEvent,
    ) -> Result<Option<(String, Hears)>, mister_smith::actors::event::EventCodecError> {
        Ok(None)
    }

    fn then(id: &str, event: &Alarmed) -> Vec<Effect<Self>> {
        match event {
            Alarmed::Set {} => {
                vec![Effect::after("ring", Duration::from_millis(1_500), || Hears::Ring)]
            }
            Alarmed::Cancelled {} => vec![Effect::cancel("ring")],
            Alarmed::Rang {} => vec![Effect::send::<Counter>("count", id.to_owned(), 1)],
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_of_processes_outlive_their_node() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let (one, two) = (node("one", &url).await, node("two", &url).await);
    for core in [&one, &two] {
        core.processes().start::<Alarm>(ProcessOptions::default()).await.unwrap();
    }
    let send = async |id: &str, hears: Hears| {
        let key = format!("{id} {hears:?}");
        let command = CommandEnvelope::new(hears).key(key);
        while two.commands().send::<Alarm>(id, command.clone()).await.is_err() {}
    };
    for id in ["a", "b", "c", "cancelled"] {
        send(id, Hears::Set).await;
    }
    eventually(DEADLINE, async || match all(&two).await {
        set if set.len() == 4 => Ok(()),
        set => Err(set),
    })
    .await;
    send("cancelled", Hears::Cancel).await;
    // Quiet from here on: nothing is appended that could wake anybody.
    for path in ["/domain", "/resources", "/messaging"] {
        one.actors().kill(path).unwrap();
    }
    one.stop(STOP).await;
    for id in ["a", "b", "c"] {
        eventually(DEADLINE, async || match value(&two, id).await {
            1 => Ok(()),
            count => Err(count),
        })
        .await;
    }
    eventually(DEADLINE, async || match all(&two).await {
        left if left.is_empty() => Ok(()),
        left => Err(left),
    })
    .await;
    assert_eq!(value(&two, "cancelled").await, 0);
    let counted: Vec<_> = {
        let lease = two.pool().lease().await.unwrap();
        let log = lease.store.read_all(Default::default(), 1_000).await.unwrap();
        log.iter().map(|event| event.event_type.to_string()).collect()
    };
    assert_eq!(counted.iter().filter(|name| **name == "alarm.rang").count(), 3, "{counted:?}");
    two.stop(STOP).await;
}

/// A message that is scheduled on one node is published once, by a node that has subscribers, under
/// one id.
#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_message_is_published_by_a_node_with_subscribers() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let (deaf, hears) = (node("deaf", &url).await, node("hears", &url).await);
    let message = |text: &str| {
        NewMessage::bytes("remind.order", "remind", ContentType::Json, text.to_owned()).unwrap()
    };
    deaf.schedule().after("first", Duration::ZERO, message("1")).await.unwrap();
    let far = deaf.schedule().after("far", Duration::from_secs(600), message("0"));
    far.await.unwrap();
    let (tell, mut heard) = mpsc::unbounded_channel();
    let subscription = Subscription::new("reminders", "remind.>").unwrap();
    hears
        .bus()
        .subscribe(subscription, move || {
            let tell = tell.clone();
            move |delivery: Delivery| {
                let _ = tell.send(delivery.message.encoded().unwrap().data.clone());
                async { Outcome::Ack }
            }
        })
        .await
        .unwrap();
    assert_eq!(&within(heard.recv()).await.unwrap()[..], b"1");
    deaf.schedule().cron("tick", "* * * * * *", message("2")).await.unwrap();
    for _ in 0..2 {
        assert_eq!(&within(heard.recv()).await.unwrap()[..], b"2");
    }
    assert!(hears.schedule().cancel("tick").await.unwrap());
    assert!(hears.schedule().cancel("far").await.unwrap());
    assert!(all(&deaf).await.iter().all(|row| &*row.name != "tick"));
    hears.stop(STOP).await;
    deaf.stop(STOP).await;
}

// --- nodes as processes of their own -----------------------------------------------------------

const STORE: &str = "TIMERS_STORE";

/// This test, as another process: a node that writes what it fires into a file.
fn other(url: &str, diary: &Path) -> Other {
    Other::start("timers::another_process", &[(STORE, url)], diary)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process of other tests"]
async fn another_process() {
    let Ok(url) = std::env::var(STORE) else { return };
    let core = SystemCore::embedded().name("other").store(&url).start().await.unwrap();
    let handler = |timer: Timer| async move {
        if &*timer.name == "kills" {
            write("kills");
            std::process::abort();
        }
        write(&timer.key());
        Fired::Done
    };
    core.timers().handle("bell", TimerOptions::default(), handler).await.unwrap();
    write("started");
    std::future::pending::<()>().await;
}

/// A process that was stopped past its lease and goes on fires nothing, and removes nothing that
/// another one has set since.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_slept_past_its_lease_fires_nothing() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let home = TempDir::new().unwrap();
    let sleeper = other(&url, &home.path().join("diary"));
    sleeper.writes("started").await;
    let core = node("awake", &url).await;
    let first = bell("first", 0);
    core.timers().set(first.clone()).await.unwrap();
    sleeper.writes(&format!("timer/bell/{}/first", first.due.as_micros())).await;
    // It knows of this one, and has an alarm for it.
    core.timers().set(bell("second", 2_000)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    sleeper.signal("-STOP").await;
    let (tell, mut heard) = mpsc::unbounded_channel();
    rings(&core, "awake", &tell).await;
    assert_eq!(within(heard.recv()).await.unwrap().1, "second");
    let far = bell("second", 600_000);
    core.timers().set(far.clone()).await.unwrap();
    sleeper.signal("-CONT").await;
    // It learns that it stands by; until then it could have done something.
    let claims = core.pool().lease().await.unwrap().claims;
    eventually(DEADLINE, async || {
        let place = claims.place("timer.bell").await.unwrap().unwrap();
        place.owner.starts_with("awake").then_some(()).ok_or(place)
    })
    .await;
    core.timers().set(bell("third", 0)).await.unwrap();
    assert_eq!(within(heard.recv()).await.unwrap().1, "third");
    assert_eq!(sleeper.lines().len(), 2, "{:?}", sleeper.lines());
    let row = core.timers().get("bell", "second").await.unwrap().unwrap();
    assert_eq!(row.due, far.due);
    core.stop(STOP).await;
}

/// Processes that are killed while they set, fire and remove: every timer fires, at each try under
/// its one key, and none is left.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_every_timer_fires_under_one_key() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let home = TempDir::new().unwrap();
    let diary = home.path().join("diary");
    let core = node("setter", &url).await;
    let (mut keys, seed) = (Vec::new(), mister_smith::runtime::wall_us().cast_unsigned());
    println!("seed {seed}");
    let mut random = seed;
    for round in 0..6 {
        let other = other(&url, &diary);
        let timers: Vec<_> = (0..300).map(|n| bell(format!("{round}.{n}"), n % 50)).collect();
        keys.extend(
            timers.iter().map(|one| format!("timer/bell/{}/{}", one.due.as_micros(), one.name)),
        );
        core.timers().set_all(timers).await.unwrap();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let enough = (random >> 33) % 200;
        let lines = eventually(DEADLINE, async || {
            let count = other.lines().len() as u64;
            (count > enough).then_some(count).ok_or(count)
        });
        lines.await;
        other.signal("-KILL").await;
    }
    let last = other(&url, &diary);
    eventually(DEADLINE, async || match all(&core).await {
        left if left.is_empty() => Ok(()),
        left => Err(left.len()),
    })
    .await;
    let lines = last.lines();
    for key in &keys {
        assert!(lines.contains(key), "{key} never fired");
    }
    let fired: std::collections::BTreeSet<_> =
        lines.iter().filter(|line| line.starts_with("timer/")).collect();
    assert_eq!(fired.len(), keys.len(), "and under no other key");
    core.stop(STOP).await;
}

/// A timer that aborts the process is found out and becomes a dead letter; the rest fires.
#[tokio::test(flavor = "multi_thread")]
async fn a_timer_that_kills_the_process_is_a_dead_letter_after_some_starts() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let home = TempDir::new().unwrap();
    let diary = home.path().join("diary");
    let core = node("setter", &url).await;
    core.timers().set_all(vec![bell("kills", 0), bell("behind", 1)]).await.unwrap();
    let mut deaths = 0;
    let gone = async || {
        eventually(DEADLINE * 2, async || match all(&core).await {
            left if left.is_empty() => Ok(()),
            left => Err(left),
        })
        .await;
    };
    let other = loop {
        let mut other = other(&url, &diary);
        tokio::select! {
            biased;
            status = other.child.wait() => {
                assert!(!status.unwrap().success());
                deaths += 1;
                assert!(deaths < 8, "{:?}", other.lines());
            }
            () = gone() => break other,
        }
    };
    assert!((3..=6).contains(&deaths), "{deaths}");
    assert!(other.lines().iter().any(|line| line.ends_with("/behind")));
    let letter = eventually(DEADLINE, async || {
        let letters = core.dead_letters().list(Some("timer.bell"), None, 10).await.unwrap();
        letters.first().cloned().ok_or("none yet")
    })
    .await;
    assert!(letter.1.reason.contains("processes died"), "{letter:?}");
    core.stop(STOP).await;
}

/// What was set is there after the server has died, and what was fired does not hold anybody up.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_outlives_the_death_of_the_server() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let core = node("one", &url).await;
    let heard = Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));
    let counting = Arc::clone(&heard);
    let handler = move |timer: Timer| {
        *counting.lock().unwrap().entry(timer.name.to_string()).or_default() += 1;
        async { Fired::Done }
    };
    core.timers().handle("bell", TimerOptions::default(), handler).await.unwrap();
    for round in 0..3 {
        let timers = (0..50).map(|n| bell(format!("{round}.{n}"), 200 + n * 10));
        core.timers().set_all(timers.collect()).await.unwrap();
        server.kill9().await;
        server.restart().await;
        eventually(DEADLINE, async || {
            core.pool().lease().await.map(drop).map_err(|error| error.to_string())
        })
        .await;
        let set = async || core.timers().set(bell(format!("after {round}"), 0)).await;
        eventually(DEADLINE, async || set().await.map_err(|error| error.to_string())).await;
    }
    eventually(DEADLINE, async || match heard.lock().unwrap().len() {
        153 => Ok(()),
        count => Err(count),
    })
    .await;
    core.stop(STOP).await;
}
