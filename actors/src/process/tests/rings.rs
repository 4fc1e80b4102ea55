//! Deadlines and effects over two versions of a program, and over what goes wrong.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{DEADLINE, place};
use crate::aggregate::Aggregate;
use crate::bus::RetryPolicy;
use crate::command::CommandEnvelope;
use crate::event::{Event, EventCodecError, Position, RecordedEvent};
use crate::process::{Effect, Process, ProcessOptions};
use crate::saga::StepError;
use crate::store::EventFilter;
use crate::store::claims::{Claimed, Save};
use crate::store::timers::{TimerFilter, TimerState};
use crate::tests::world::World;

/// Hears what its deadlines say. `V` is the version of the program.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Ring<const V: u8> {
    heard: Vec<String>,
}

#[derive(Debug, Clone)]
enum Command {
    /// Something happens.
    Do(&'static str),
    /// Only the second version knows it.
    Arm,
    Hear(&'static str),
    Ignore,
}

#[derive(Debug, Serialize, Deserialize)]
enum Old {
    #[serde(rename = "ring.done")]
    Done { what: String },
    #[serde(rename = "ring.heard")]
    Heard { what: String },
}

#[derive(Debug, Serialize, Deserialize)]
enum New {
    #[serde(rename = "ring.done")]
    Done { what: String },
    #[serde(rename = "ring.heard")]
    Heard { what: String },
    #[serde(rename = "ring.armed")]
    Armed {},
}

impl Event for Old {}
impl Event for New {}

#[derive(Debug, thiserror::Error)]
#[error("it does not want to hear that")]
struct Deaf;

impl Aggregate for Ring<1> {
    type Command = Command;
    type Event = Old;
    type Rejection = Deaf;
    const CATEGORY: &'static str = "ring";

    fn decide(&self, command: &Command) -> Result<Vec<Old>, Deaf> {
        Ok(match command {
            Command::Do(what) => vec![Old::Done { what: (*what).to_owned() }],
            Command::Hear("refused") => return Err(Deaf),
            Command::Hear(what) => vec![Old::Heard { what: (*what).to_owned() }],
            Command::Arm | Command::Ignore => vec![],
        })
    }

    fn evolve(&mut self, event: Old) {
        if let Old::Heard { what } = event {
            self.heard.push(what);
        }
    }
}

impl Aggregate for Ring<2> {
    type Command = Command;
    type Event = New;
    type Rejection = Deaf;
    const CATEGORY: &'static str = "ring";

    fn decide(&self, command: &Command) -> Result<Vec<New>, Deaf> {
        Ok(match command {
            Command::Do(what) => vec![New::Done { what: (*what).to_owned() }],
            Command::Arm => vec![New::Armed {}],
            Command::Hear(what) => vec![New::Heard { what: (*what).to_owned() }],
            Command::Ignore => vec![],
        })
    }

    fn evolve(&mut self, event: New) {
        if let New::Heard { what } = event {
            self.heard.push(what);
        }
    }
}

/// The names under which calls were made, by the id of the process.
fn calls() -> &'static Mutex<BTreeMap<String, Vec<String>>> {
    static CALLS: OnceLock<Mutex<BTreeMap<String, Vec<String>>>> = OnceLock::new();
    CALLS.get_or_init(Mutex::default)
}

fn called(id: &str) -> Vec<String> {
    // Without the position.
    let calls = calls().lock().unwrap();
    let short = |key: &String| {
        let parts: Vec<_> = key.split('/').collect();
        [&parts[..2], &parts[3..]].concat().join("/")
    };
    calls.get(id).into_iter().flatten().map(short).collect()
}

fn call<P: Process<Command = Command>>(name: &'static str, id: &str) -> Effect<P> {
    let id = id.to_owned();
    Effect::call(name, move |cx| async move {
        calls().lock().unwrap().entry(id).or_default().push(cx.key);
        match name {
            "bad" => Err(StepError::refused("no such account")),
            "hangs" => std::future::pending().await,
            _ => Ok(None),
        }
    })
}

fn effects<P: Process<Command = Command>>(version: u8, id: &str, what: &str) -> Vec<Effect<P>> {
    let soon = Duration::from_millis(50);
    match what {
        "rings" => vec![Effect::after("t", soon, || Command::Hear("t"))],
        "far" => vec![
            Effect::after("t", Duration::from_secs(3_600), || Command::Hear("t")),
            Effect::after("u", Duration::from_secs(3_600), || Command::Hear("u")),
        ],
        "cancel" => vec![Effect::cancel("t")],
        "panics" => vec![Effect::after("t", soon, || panic!("no command"))],
        "refused" => vec![Effect::after("t", soon, || Command::Hear("refused"))],
        "ship" if version == 1 => vec![call("charge", id), call("hangs", id)],
        "ship" => vec![call("check", id), call("charge", id), call("hangs", id)],
        "bad" => vec![call("bad", id), call("hangs", id), call("good", id)],
        "twice" => vec![call("same", id), call("same", id)],
        "one" => vec![call("one", id)],
        "then panics" => panic!("in then"),
        _ => vec![],
    }
}

impl Process for Ring<1> {
    fn reacts_to() -> EventFilter {
        EventFilter::ALL.types(["order.placed"])
    }

    fn on(_: &RecordedEvent) -> Result<Option<(String, Command)>, EventCodecError> {
        Ok(Some(("on".to_owned(), Command::Ignore)))
    }

    fn then(id: &str, event: &Old) -> Vec<Effect<Self>> {
        match event {
            Old::Done { what } => effects(1, id, what),
            Old::Heard { .. } => vec![],
        }
    }
}

impl Process for Ring<2> {
    fn reacts_to() -> EventFilter {
        EventFilter::ALL.types(["order.placed"])
    }

    fn on(_: &RecordedEvent) -> Result<Option<(String, Command)>, EventCodecError> {
        Ok(Some(("on".to_owned(), Command::Ignore)))
    }

    fn then(id: &str, event: &New) -> Vec<Effect<Self>> {
        match event {
            New::Done { what } => effects(2, id, what),
            New::Armed {} => {
                vec![Effect::after("armed", Duration::ZERO, || Command::Hear("armed"))]
            }
            New::Heard { .. } => vec![],
        }
    }
}

async fn eventually<T>(what: &str, check: impl AsyncFn() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("{what}"))
}

macro_rules! hears {
    ($world:expr, $version:literal, $id:expr, $wanted:expr) => {{
        let wanted: &[&str] = &$wanted;
        eventually("it is heard", async || {
            let look = |state: &Ring<$version>, _| state.heard.clone();
            let heard = $world.commands.look::<Ring<$version>, _>($id, look).await.ok()?;
            (heard == wanted).then_some(())
        })
        .await
    }};
}

async fn send<const V: u8>(world: &World, id: &str, command: Command)
where
    Ring<V>: Aggregate<Command = Command>,
{
    world.commands.send::<Ring<V>>(id, CommandEnvelope::new(command)).await.unwrap();
}

async fn timers(world: &World) -> Vec<(String, TimerState, String)> {
    let rows = world.timers.list(&TimerFilter::default(), None, 100).await.unwrap();
    rows.into_iter().map(|row| (row.name.to_string(), row.state, row.reason)).collect()
}

async fn letters(world: &World, origin: &str) -> Vec<String> {
    let letters = world.letters.list(Some(origin), None, 10).await.unwrap();
    letters.into_iter().map(|(_, letter)| letter.reason).collect()
}

/// H11: a deadline that an event of a newer program sets was lost when an older node read it.
#[tokio::test]
async fn an_event_that_this_program_cannot_read_keeps_its_deadlines() {
    let world = World::new().await;
    send::<2>(&world, "a", Command::Arm).await;
    let world = world.again(Vec::new()).await;
    world.processes.start::<Ring<1>>(ProcessOptions::default()).await.unwrap();
    // Others are not held up.
    send::<1>(&world, "b", Command::Do("rings")).await;
    hears!(world, 1, "b", ["t"]);
    let waiting = eventually("it waits, in sight", async || {
        timers(&world).await.into_iter().find(|(_, state, _)| *state == TimerState::Unknown)
    })
    .await;
    assert!(waiting.2.contains("ring.armed"), "{waiting:?}");
    // The place has passed it.
    let world = world.again(Vec::new()).await;
    world.processes.start::<Ring<2>>(ProcessOptions::default()).await.unwrap();
    hears!(world, 2, "a", ["armed"]);
    eventually("it is gone", async || timers(&world).await.is_empty().then_some(())).await;
}

/// Deadlines that programs before had as notes of their follower.
#[tokio::test]
async fn deadlines_of_earlier_programs_are_carried_over() {
    let world = World::new().await;
    send::<1>(&world, "a", Command::Do("rings")).await;
    send::<1>(&world, "b", Command::Do("far")).await;
    let lease = world.lease().await;
    let log = lease.store.read_all(Position::ZERO, 10).await.unwrap();
    let note = |event: &RecordedEvent, name: &str, due: i64| {
        let due = crate::event::Timestamp::from_micros(event.recorded_at.as_micros() + due);
        let data = serde_json::json!({ "due": due, "position": event.position, "name": name });
        let id = format!("{:020}/{name}", event.position.get());
        (id.into(), Some(data.to_string().into()))
    };
    let notes = [
        note(&log[0], "t", 50_000),
        note(&log[1], "t", 3_600_000_000),
        ("x".into(), Some("of a newer program".into())),
    ];
    let claimed = lease.claims.claim("timers.ring", "old", DEADLINE).await.unwrap();
    let Claimed::Yes(claim) = claimed else { panic!("{claimed:?}") };
    let save = Save::renewal(DEADLINE).to(log[1].position).notes(notes);
    lease.claims.save(&claim.fence, save).await.unwrap();
    lease.claims.release(&claim.fence).await.unwrap();
    world.processes.start::<Ring<1>>(ProcessOptions::default()).await.unwrap();
    hears!(world, 1, "a", ["t"]);
    let left = lease.claims.notes("timers.ring", "$\u{10ffff}", 10).await.unwrap();
    assert_eq!(left.iter().map(|(id, _)| &**id).collect::<Vec<_>>(), ["x"]);
    // It is the timer that it would be now.
    let waiting = timers(&world).await;
    assert_eq!(waiting[0].0, format!("b/t/{:020}", log[1].position.get()));
    send::<1>(&world, "b", Command::Do("cancel")).await;
    eventually("it can be cancelled", async || timers(&world).await.is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_deadline_that_is_cancelled_does_not_come() {
    let world = World::new().await;
    world.processes.start::<Ring<1>>(ProcessOptions::default()).await.unwrap();
    for id in ["a", "a/t", "b"] {
        send::<1>(&world, id, Command::Do("far")).await;
    }
    eventually("they are set", async || (timers(&world).await.len() == 6).then_some(())).await;
    send::<1>(&world, "a", Command::Do("cancel")).await;
    eventually("one is gone", async || (timers(&world).await.len() == 5).then_some(())).await;
    let names: Vec<_> = timers(&world).await.into_iter().map(|(name, ..)| name).collect();
    let left: Vec<_> = names.iter().map(|name| name.rsplit_once('/').unwrap().0).collect();
    assert_eq!(left, ["a%2ft/t", "a%2ft/u", "a/u", "b/t", "b/u"], "that one, and no other's");
    // It can be set again.
    send::<1>(&world, "a", Command::Do("far")).await;
    eventually("it is set", async || (timers(&world).await.len() == 7).then_some(())).await;
}

/// After another node has taken over, what cancels may be behind what fires.
#[tokio::test]
async fn a_deadline_whose_cancelling_was_not_heard_yet_does_not_come() {
    use crate::process::timers::{Deadlines, kind_of};
    use crate::timer::{Fired, TimerHandler, letter};
    let world = World::new().await;
    world.processes.timers_of::<Ring<1>>().await.unwrap();
    send::<1>(&world, "a", Command::Do("far")).await;
    eventually("they are set", async || (timers(&world).await.len() == 2).then_some(())).await;
    let filter = TimerFilter::default().kind(kind_of::<Ring<1>>());
    let rows = world.timers.list(&filter, None, 9).await.unwrap();
    send::<1>(&world, "a", Command::Do("nothing")).await;
    send::<1>(&world, "a", Command::Do("cancel")).await;
    let deadlines = Deadlines::<Ring<1>> {
        pool: crate::pool::PoolHandle::new(world.system.find(crate::tests::world::POOL).unwrap()),
        commands: world.commands.clone(),
        timers: world.timers.clone(),
        process: std::marker::PhantomData,
    };
    for row in rows {
        assert_eq!(deadlines.fire(letter::timer(&row)).await, Fired::Done);
    }
    hears!(world, 1, "a", ["u"]);
}

/// H5c: one panic stopped all deadlines of the kind. H11: a refused one was removed without a
/// trace.
#[tokio::test]
async fn a_deadline_that_fails_is_a_dead_letter_and_holds_up_nobody() {
    let world = World::new().await;
    world.processes.start::<Ring<1>>(ProcessOptions::default()).await.unwrap();
    send::<1>(&world, "panics", Command::Do("panics")).await;
    send::<1>(&world, "refused", Command::Do("refused")).await;
    send::<1>(&world, "then", Command::Do("then panics")).await;
    send::<1>(&world, "rings", Command::Do("rings")).await;
    hears!(world, 1, "rings", ["t"]);
    let mut reasons = eventually("they are dead letters", async || {
        let letters = letters(&world, "timer.process.ring").await;
        (letters.len() == 3).then_some(letters)
    })
    .await;
    reasons.sort();
    assert_eq!(
        reasons,
        [
            "its handler crashed: panic: in then",
            "its handler crashed: panic: no command",
            "user: refused: it does not want to hear that",
        ]
    );
    eventually("they are gone", async || timers(&world).await.is_empty().then_some(())).await;
    // Sent again they are set again; the second version wants to hear it.
    let world = world.again(Vec::new()).await;
    world.processes.start::<Ring<2>>(ProcessOptions::default()).await.unwrap();
    world.settled().await;
    world.letters.requeue_all(Some("timer.process.ring"), "test").await.unwrap();
    hears!(world, 2, "refused", ["refused"]);
    eventually("two are left", async || {
        world.settled().await;
        (letters(&world, "timer.process.ring").await.len() == 2).then_some(())
    })
    .await;
}

/// M20: effects were named by their places in the list, so that a version with one more had them
/// under each other's names.
#[tokio::test]
async fn a_version_with_one_more_effect_has_each_under_its_own_name() {
    let world = World::new().await;
    world.processes.start::<Ring<1>>(ProcessOptions::default()).await.unwrap();
    send::<1>(&world, "m20", Command::Do("ship")).await;
    eventually("it hangs", async || (called("m20").len() == 2).then_some(())).await;
    assert_eq!(called("m20"), ["process/ring/do/charge", "process/ring/do/hangs"]);
    let world = world.again(Vec::new()).await;
    world.processes.start::<Ring<2>>(ProcessOptions::default()).await.unwrap();
    eventually("it hangs", async || (called("m20").len() == 5).then_some(())).await;
    assert_eq!(
        called("m20")[2..],
        ["process/ring/do/check", "process/ring/do/charge", "process/ring/do/hangs"]
    );
}

/// What a program before has done under the places of a list is not done under names.
#[tokio::test]
async fn effects_of_events_of_earlier_programs_keep_their_names() {
    let world = World::new().await;
    // A program that does not name its effects has had the process.
    send::<1>(&world, "early", Command::Do("one")).await;
    let lease = world.lease().await;
    let claimed = lease.claims.claim("timers.ring", "old", DEADLINE).await.unwrap();
    let Claimed::Yes(claim) = claimed else { panic!("{claimed:?}") };
    lease.claims.save(&claim.fence, Save::renewal(DEADLINE).to(Position::new(1))).await.unwrap();
    lease.claims.release(&claim.fence).await.unwrap();
    world.processes.start::<Ring<1>>(ProcessOptions::default()).await.unwrap();
    eventually("it is had", async || (called("early").len() == 1).then_some(())).await;
    assert_eq!(called("early"), ["process/ring/0"]);
    send::<1>(&world, "late", Command::Do("one")).await;
    eventually("it is had", async || (called("late").len() == 1).then_some(())).await;
    assert_eq!(called("late"), ["process/ring/do/one"]);
    // It stays so.
    let world = world.again(Vec::new()).await;
    world.processes.start::<Ring<2>>(ProcessOptions::default()).await.unwrap();
    send::<2>(&world, "later", Command::Do("one")).await;
    eventually("it is had", async || (called("later").len() == 1).then_some(())).await;
    assert_eq!(called("later"), ["process/ring/do/one"]);
}

/// The second half of M20: an effect that is given up took those behind it along, in silence.
#[tokio::test]
async fn an_effect_that_is_given_up_holds_back_none_behind_it() {
    let impatient = ProcessOptions::default()
        .deadline(Duration::from_millis(50))
        .retry(RetryPolicy::attempts(2));
    let world = World::new().await;
    world.processes.start::<Ring<1>>(impatient).await.unwrap();
    send::<1>(&world, "bad", Command::Do("bad")).await;
    send::<1>(&world, "twice", Command::Do("twice")).await;
    let mut reasons = eventually("they are dead letters", async || {
        let letters = letters(&world, "ring.effects").await;
        (letters.len() == 2).then_some(letters)
    })
    .await;
    reasons.sort();
    assert!(reasons[0].starts_with("bad: "), "{reasons:?}");
    assert!(reasons[0].contains("; hangs: it took longer than 50ms"), "{reasons:?}");
    assert!(reasons[1].contains("named \"same\""), "{reasons:?}");
    assert_eq!(called("bad").last().unwrap(), "process/ring/do/good");
    assert!(called("twice").is_empty(), "nothing is done under a name that is two's");
}

/// L32: each reaction to nothing left a stream behind.
#[tokio::test]
async fn a_reaction_to_nothing_leaves_no_stream_and_is_known_all_the_same() {
    let world = World::new().await;
    let process = world.processes.start::<Ring<1>>(ProcessOptions::default()).await.unwrap();
    place(&world, "nothing").await;
    let head = *world.head.borrow();
    process.reactions().wait_for(head).await;
    let lease = world.lease().await;
    let log = lease.store.read_all(Position::ZERO, 100).await.unwrap();
    let streams: Vec<_> = log.iter().map(|event| event.stream.as_str()).collect();
    assert_eq!(streams, ["order-nothing"]);
    let known = lease.messages.was_handled("process/ring/nothing", "1").await.unwrap();
    assert!(known, "when it comes again it is not decided again");
    assert!(!lease.messages.was_handled("process/ring/nothing", "2").await.unwrap());
}
