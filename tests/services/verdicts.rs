//! Two nodes on one database: nothing that one of them has answered contradicts the log.

use std::time::Duration;

use futures_util::future::join_all;
use mister_smith::SystemCore;
use mister_smith::actors::event::ContentType;
use mister_smith::actors::event::{Decoder, StreamId, Timestamp, Version};
use mister_smith::actors::ingest::{Incoming, Refused};
use mister_smith::actors::store::notes::{Notes as _, conformance};
use mister_smith::actors::store::{EventStore as _, IdempotencyKey};
use mister_smith::prelude::*;
use mister_smith_testkit::Postgres;
use proptest::prelude::*;
use proptest::strategy::{Strategy as _, ValueTree};
use proptest::test_runner::TestRunner;
use serde::{Deserialize, Serialize};
use sqlx::{Connection as _, PgConnection};

use crate::server::{database, numbered, open, store};

/// A switch that is turned on and off, and says how often it was.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Switch {
    on: bool,
    turns: u64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Turn {
    /// Refused if it is on.
    On,
    /// Refused if it is off.
    Off,
    /// Nothing to do if it is on.
    BeOn,
    /// Nothing to do if it is off.
    BeOff,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Turned {
    #[serde(rename = "switch.on")]
    On,
    #[serde(rename = "switch.off")]
    Off,
}

impl Event for Turned {}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("it is {on} after {turns} turns")]
struct IsSo {
    on: bool,
    turns: u64,
}

impl Aggregate for Switch {
    type Command = Turn;
    type Event = Turned;
    type Rejection = IsSo;
    const CATEGORY: &'static str = "switch";

    fn decide(&self, turn: &Turn) -> Result<Vec<Turned>, IsSo> {
        let refused = IsSo { on: self.on, turns: self.turns };
        match (turn, self.on) {
            (Turn::On, true) | (Turn::Off, false) => Err(refused),
            (Turn::BeOn, true) | (Turn::BeOff, false) => Ok(vec![]),
            (Turn::On | Turn::BeOn, false) => Ok(vec![Turned::On]),
            (Turn::Off | Turn::BeOff, true) => Ok(vec![Turned::Off]),
        }
    }

    fn evolve(&mut self, event: Turned) {
        self.on = event == Turned::On;
        self.turns += 1;
    }
}

async fn node(name: &str, url: &str) -> SystemCore {
    let core = SystemCore::embedded().name(name).store(url).aggregate::<Switch>();
    core.start().await.unwrap()
}

async fn version(core: &SystemCore, id: &str) -> u64 {
    let stream = StreamId::new(format!("switch-{id}")).unwrap();
    let store = core.pool().lease().await.unwrap().store;
    store.stream_version(&stream).await.unwrap().get()
}

/// What was answered, and how far the stream was before it was asked and after it was answered.
#[derive(Debug)]
struct Said {
    id: String,
    before: u64,
    after: u64,
    turn: Option<Turn>,
    what: What,
}

#[derive(Debug)]
enum What {
    Done { version: u64, events: u64 },
    Refused(IsSo),
    Looked(Switch, u64),
}

async fn say(core: &SystemCore, id: &str, turn: Option<Turn>) -> Said {
    let before = version(core, id).await;
    let what = match turn {
        None => {
            let look = |state: &Switch, version: Version| (state.clone(), version.get());
            let (state, version) = core.commands().look(id, look).await.unwrap();
            What::Looked(state, version)
        }
        Some(turn) => loop {
            match core.commands().send::<Switch>(id, turn).await {
                Ok(done) => {
                    break What::Done { version: done.version.get(), events: done.events };
                }
                Err(error) => match error.rejection::<IsSo>() {
                    Some(refused) => break What::Refused(refused.clone()),
                    // Too many conflicts: it was not written.
                    None => assert_eq!(error.class(), ErrorClass::Transient, "{error}"),
                },
            }
        },
    };
    let after = version(core, id).await;
    Said { id: id.to_owned(), before, after, turn, what }
}

/// Thousands of commands and looks, left and right in random order and at once; then each answer is
/// held against the log: it has to be the answer of a state that the stream had between the
/// question and the answer. Before there was a check, every second refusal was of an older one.
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_acknowledge_nothing_that_the_log_contradicts() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let nodes = [node("left", &url).await, node("right", &url).await];
    let turn = prop_oneof![
        Just(Some(Turn::On)),
        Just(Some(Turn::Off)),
        Just(Some(Turn::BeOn)),
        Just(Some(Turn::BeOff)),
        Just(None),
    ];
    let one = (0..2_usize, 0..3_u8, turn);
    // Alone, or some at once.
    let groups = prop::collection::vec(
        prop_oneof![3 => prop::collection::vec(one.clone(), 1), 1 => prop::collection::vec(one, 2..8)],
        900..901,
    );
    let groups = groups.new_tree(&mut TestRunner::default()).unwrap().current();
    let mut said = Vec::new();
    for group in groups {
        let sent = group.into_iter().map(|(side, id, turn)| {
            let core = &nodes[side];
            async move { say(core, &id.to_string(), turn).await }
        });
        said.extend(join_all(sent).await);
    }
    assert!(said.len() > 1_500, "{}", said.len());
    let mut kinds = [0; 4];
    for id in ["0", "1", "2"] {
        let stream = StreamId::new(format!("switch-{id}")).unwrap();
        let lease = nodes[0].pool().lease().await.unwrap();
        let log = lease.store.read_stream(&stream, Version::ZERO, 5_000).await.unwrap();
        let mut states = vec![Switch::default()];
        for event in &log {
            let mut state = states.last().unwrap().clone();
            state.evolve(Decoder::new().decode(event).unwrap());
            states.push(state);
        }
        let mut written = std::collections::BTreeSet::new();
        for one in said.iter().filter(|one| one.id == id) {
            let in_time = |version: u64| one.before <= version && version <= one.after;
            match &one.what {
                What::Done { version, events: 1 } => {
                    kinds[0] += 1;
                    assert!(written.insert(*version), "{one:?}");
                    let before = &states[*version as usize - 1];
                    let decided = before.decide(&one.turn.unwrap()).unwrap();
                    let happened: Turned =
                        Decoder::new().decode(&log[*version as usize - 1]).unwrap();
                    assert_eq!(decided, [happened], "{one:?}");
                    assert!(in_time(*version), "{one:?}");
                }
                What::Done { version, .. } => {
                    kinds[1] += 1;
                    assert!(in_time(*version), "nothing to do on an old state: {one:?}");
                    assert_eq!(states[*version as usize].decide(&one.turn.unwrap()), Ok(vec![]));
                }
                What::Refused(refused) => {
                    kinds[2] += 1;
                    // The version is the number of turns.
                    assert!(in_time(refused.turns), "refused on an old state: {one:?}");
                    assert_eq!(states[refused.turns as usize].on, refused.on);
                }
                What::Looked(state, version) => {
                    kinds[3] += 1;
                    assert!(in_time(*version), "an old state: {one:?}");
                    assert_eq!(&states[*version as usize], state);
                }
            }
        }
        assert_eq!(written.len(), log.len(), "each event was acknowledged to one");
    }
    assert!(kinds.iter().all(|count| *count > 50), "{kinds:?}");
    for core in nodes {
        core.stop(Duration::from_secs(20)).await;
    }
}

/// What the documented use of two nodes did: after an acknowledged turn on the left, the right
/// refused, or had nothing to do, on what it had in memory, in every second case.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_left_has_acknowledged_the_right_knows() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let nodes = [node("left", &url).await, node("right", &url).await];
    for n in 0..100_usize {
        let (turn, be) = match n % 2 {
            0 => (Turn::On, Turn::BeOn),
            _ => (Turn::Off, Turn::BeOff),
        };
        let done = nodes[n % 2].commands().send::<Switch>("a", turn).await.unwrap();
        let other = nodes[(n + 1) % 2].commands();
        let nothing = other.send::<Switch>("a", be).await.unwrap();
        assert_eq!((nothing.events, nothing.version), (0, done.version));
        other.send::<Switch>("a", turn).await.unwrap_err();
        assert_eq!(other.look("a", |s: &Switch, _| s.turns).await.unwrap(), n as u64 + 1);
    }
    for core in nodes {
        core.stop(Duration::from_secs(20)).await;
    }
}

/// The node that takes events in has no such aggregate; the other one has.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_owns_the_other_does_not_let_in() {
    let server = Postgres::start().await;
    conformance::run(async || store(&server).await).await;
    conformance::nothing_gets_past_an_owner(&store(&server).await).await;
    let url = database(&server).await;
    let gate = SystemCore::embedded().name("gate").store(&url).start().await.unwrap();
    let works = node("works", &url).await;
    let forged = |key: &str| Incoming {
        event_type: "switch.on".into(),
        codec: ContentType::Json,
        data: b"null".as_slice().into(),
        meta: b"".as_slice().into(),
        key: IdempotencyKey::of([key]),
    };
    let stream = StreamId::new("switch-a").unwrap();
    let done = gate.ingest().ingest(&stream, [forged("1")]).await.unwrap();
    assert!(matches!(&done[0], Err(Refused::Owned { .. })), "{done:?}");
    let other = StreamId::new("order-a").unwrap();
    assert!(gate.ingest().ingest(&other, [forged("1")]).await.unwrap()[0].is_ok());
    assert!(!works.commands().look("a", |s: &Switch, _| s.on).await.unwrap());
    for core in [gate, works] {
        core.stop(Duration::from_secs(20)).await;
    }
}

/// `analyze`, and the check of a partition that is put back, keep the log from a new owner for
/// minutes. Appends waited behind it all that time.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_owner_that_has_to_wait_lets_appends_through() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let store = open(&url).await;
    let mut analyzes = PgConnection::connect(&url).await.unwrap();
    let lock = "begin; lock table only ms_framework.events in share update exclusive mode";
    sqlx::raw_sql(lock).execute(&mut analyzes).await.unwrap();
    let owning = store.own("order", "somebody", Timestamp::from_micros(0));
    let append = async {
        let mut looks = PgConnection::connect(&url).await.unwrap();
        let waiting = "select exists (select from pg_locks where not granted \
                       and mode = 'ShareLock' and relation = 'ms_framework.events'::regclass)";
        while !sqlx::query_scalar::<_, bool>(waiting).fetch_one(&mut looks).await.unwrap() {}
        store.append_batch([numbered("free-1", 1)].into()).await
    };
    tokio::pin!(owning);
    tokio::select! {
        biased;
        owned = &mut owning => panic!("it did not wait any longer: {owned:?}"),
        written = append => assert!(written.unwrap()[0].is_ok()),
    }
    sqlx::raw_sql("rollback").execute(&mut analyzes).await.unwrap();
    assert_eq!(owning.await.unwrap(), "somebody");
}
