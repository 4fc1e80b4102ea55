//! Laws of the two machines alone: whatever comes in, at whatever point, and however long anything
//! takes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::world::{Make, World, child};
use crate::error::{ExitReason, Failure};
use crate::supervisor::orders::{Input, Key, Order, StartOutcome, Token};
use crate::supervisor::{AutoShutdown, Change, Intensity, Policy, RestartPolicy, Strategy as Rule};

const CHANGES: [Change; 6] = [
    Change::Terminate,
    Change::Restart,
    Change::Delete,
    Change::PlannedRestart,
    Change::Suspend,
    Change::Resume,
];

#[derive(Clone, Debug)]
enum Happens {
    /// What was begun first is done: a start (well or not), or a stop.
    Done(bool),
    Crash(usize),
    Ends(usize),
    Unhealthy(usize),
    /// A verdict about the life before.
    Late(usize),
    Retry(usize),
    Ask(Option<usize>, usize, usize),
    Add(usize, Option<usize>),
    ShutDown,
}

fn happens() -> impl Strategy<Value = Happens> {
    let who = || 0usize..6;
    prop_oneof![
        12 => any::<bool>().prop_map(Happens::Done),
        6 => Just(Happens::Done(true)),
        4 => who().prop_map(Happens::Crash),
        1 => who().prop_map(Happens::Ends),
        2 => who().prop_map(Happens::Unhealthy),
        1 => who().prop_map(Happens::Late),
        3 => who().prop_map(Happens::Retry),
        6 => (proptest::option::of(who()), 0usize..6, who())
            .prop_map(|(from, change, whom)| Happens::Ask(from, change, whom)),
        1 => (who(), proptest::option::of(who())).prop_map(|(id, needs)| Happens::Add(id, needs)),
        1 => Just(Happens::ShutDown),
    ]
}

/// Restart, backs off, is a supervisor, significant, and what it needs of those before it.
type Shape = (RestartPolicy, bool, bool, bool, Vec<usize>);

fn shape() -> impl Strategy<Value = Shape> {
    let restart = prop_oneof![
        4 => Just(RestartPolicy::Permanent),
        1 => Just(RestartPolicy::Transient),
        1 => Just(RestartPolicy::Temporary),
    ];
    let flag = any::<bool>;
    (restart, flag(), flag(), flag(), proptest::collection::vec(0usize..6, 0..3))
}

fn make(at: usize, shape: &Shape, crowd: bool) -> Make {
    let (restart, backs_off, supervisor, significant, needs) = shape;
    let mut make = child(&format!("c{at}")).restart(*restart);
    if *backs_off {
        make = make.backs_off();
    }
    if *supervisor {
        make = make.supervisor();
    }
    if crowd {
        return make;
    }
    if *significant {
        make = make.significant();
    }
    let ids: Vec<_> = needs.iter().filter(|&&i| i < at).map(|i| format!("c{i}")).collect();
    make.needs(&ids.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A life as the world sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Starting,
    Up,
    Stopping { was_up: bool },
}

struct Law {
    world: World,
    needs: BTreeMap<Key, Vec<String>>,
    lives: BTreeMap<Key, (u64, Life)>,
    last: BTreeMap<Key, u64>,
    /// What was ordered and is not done, oldest first.
    under_way: Vec<Key>,
    open: BTreeSet<Token>,
    /// The order in which those that live were started.
    started: Vec<Key>,
    next_token: Token,
    ending: bool,
    finished: bool,
    crowd: bool,
}

impl Law {
    /// Carries out what is ordered, and checks each order.
    fn obey(&mut self) -> Result<(), TestCaseError> {
        while let Some(order) = self.world.next() {
            prop_assert!(!self.finished, "after the end: {order:?}");
            match order {
                Order::Start { key, life } => {
                    prop_assert!(!self.ending, "a start at the end");
                    prop_assert!(!self.lives.contains_key(&key), "two lives of {key}");
                    prop_assert!(self.last.get(&key).is_none_or(|last| *last < life));
                    for needed in &self.needs[&key] {
                        let up = self.world.brain.key_of(needed).and_then(|k| self.lives.get(&k));
                        prop_assert_eq!(
                            up.map(|up| up.1),
                            Some(Life::Up),
                            "{} needs {}",
                            key,
                            needed
                        );
                    }
                    self.last.insert(key, life);
                    self.lives.insert(key, (life, Life::Starting));
                    self.started.push(key);
                    self.under_way.push(key);
                }
                Order::AbortStart { key } => {
                    let was = self.lives.remove(&key);
                    prop_assert!(matches!(was, Some((_, Life::Starting))), "{was:?}");
                    self.under_way.retain(|k| *k != key);
                    self.started.retain(|k| *k != key);
                }
                Order::Stop { key, life, .. } => {
                    // It may have ended, and the news be on its way: then it is as if it went well.
                    let Some((now, state)) = self.lives.get_mut(&key) else {
                        return Err(TestCaseError::fail(format!("a stop of nobody: {key}")));
                    };
                    prop_assert_eq!(*now, life);
                    let was_up = *state == Life::Up;
                    prop_assert!(was_up || *state == Life::Starting, "stopped twice");
                    *state = Life::Stopping { was_up };
                    if !self.under_way.contains(&key) {
                        self.under_way.push(key);
                    }
                    if self.ending && !self.crowd {
                        let last = self.started.iter().max_by_key(|k| **k);
                        prop_assert_eq!(last, Some(&key), "stopped in another order");
                    }
                }
                Order::Reply { token, .. } => {
                    prop_assert!(self.open.remove(&token), "answered twice, or never asked");
                }
                Order::Ending { .. } => self.ending = true,
                Order::Finish(_) => {
                    prop_assert!(self.lives.is_empty(), "{:?} live on", self.lives);
                    self.finished = true;
                }
                Order::Forget { key, .. } | Order::Keep { key } | Order::Down { key, .. } => {
                    prop_assert!(!self.lives.contains_key(&key), "{key} lives");
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn over(&mut self, key: Key) {
        self.lives.remove(&key);
        self.under_way.retain(|k| *k != key);
        self.started.retain(|k| *k != key);
    }

    /// What was begun first is done.
    fn done(&mut self, well: bool) {
        let Some(key) = self.under_way.first().copied() else { return };
        let (life, state) = self.lives[&key];
        let failed = || StartOutcome::Failed(ExitReason::Error(Failure::permanent("planned")));
        let input = match state {
            Life::Starting if well => {
                self.under_way.remove(0);
                self.lives.insert(key, (life, Life::Up));
                Input::StartDone { key, life, outcome: StartOutcome::Started }
            }
            // A supervisor that was told to stop while it started.
            Life::Stopping { was_up: false } if well => {
                self.lives.insert(key, (life, Life::Stopping { was_up: true }));
                Input::StartDone { key, life, outcome: StartOutcome::Started }
            }
            Life::Starting | Life::Stopping { was_up: false } => {
                self.over(key);
                Input::StartDone { key, life, outcome: failed() }
            }
            Life::Stopping { was_up: true } if well => {
                self.over(key);
                Input::Ended { key, life, reason: ExitReason::Shutdown }
            }
            Life::Stopping { was_up: true } => {
                self.over(key);
                Input::Stuck { key, life }
            }
            Life::Up => return,
        };
        self.world.input(input);
    }

    fn ended(&mut self, id: &str, reason: ExitReason) {
        let Some(key) = self.world.brain.key_of(id) else { return };
        // An end that crosses a stop comes as the end of the stop.
        if let Some(&(life, Life::Up)) = self.lives.get(&key) {
            self.over(key);
            self.world.input(Input::Ended { key, life, reason });
        }
    }

    fn happen(&mut self, happens: &Happens) {
        let id = |who: usize| format!("c{who}");
        match happens {
            Happens::Done(well) => self.done(*well),
            Happens::Crash(who) => {
                self.ended(&id(*who), ExitReason::Error(Failure::permanent("planned")));
            }
            Happens::Ends(who) => self.ended(&id(*who), ExitReason::Normal),
            Happens::Unhealthy(who) | Happens::Late(who) => {
                let Some(key) = self.world.brain.key_of(&id(*who)) else { return };
                let Some(&life) = self.last.get(&key) else { return };
                let late = u64::from(matches!(happens, Happens::Late(_)));
                let reason = ExitReason::Unhealthy("ill".into());
                self.world.input(Input::Unhealthy { key, life: life - late, reason });
            }
            Happens::Retry(who) => {
                let Some(key) = self.world.brain.key_of(&id(*who)) else { return };
                let Some(&epoch) = self.world.retries.get(&key) else { return };
                self.world.input(Input::Retry { key, epoch });
            }
            Happens::Ask(from, change, whom) if !self.finished => {
                self.next_token += 1;
                self.open.insert(self.next_token);
                let from = from.map(id).filter(|from| self.world.brain.key_of(from).is_some());
                let change = CHANGES[*change];
                self.world.ask_from(self.next_token, from.as_deref(), change, &id(*whom));
            }
            Happens::Add(who, needs) if !self.finished => {
                self.next_token += 1;
                self.open.insert(self.next_token);
                let needs: Vec<String> =
                    needs.filter(|_| !self.crowd).map(id).into_iter().collect();
                let needed: Vec<&str> = needs.iter().map(String::as_str).collect();
                self.world.add(self.next_token, &child(&id(*who)).needs(&needed));
                let (&key, _) = self.world.names.last_key_value().unwrap();
                self.needs.insert(key, needs);
            }
            Happens::ShutDown => self.world.input(Input::ShutDown),
            Happens::Ask(..) | Happens::Add(..) => {}
        }
    }
}

fn holds(
    mut world: World,
    children: &[Make],
    crowd: bool,
    story: &[Happens],
) -> Result<(), TestCaseError> {
    world.now = Duration::from_secs(1);
    let needs = children
        .iter()
        .zip(1..)
        .map(|(child, key)| (key, child.0.depends_on.iter().map(ToString::to_string).collect()));
    let needs = needs.collect();
    let mut law = Law {
        world,
        needs,
        lives: BTreeMap::new(),
        last: BTreeMap::new(),
        under_way: Vec::new(),
        open: BTreeSet::new(),
        started: Vec::new(),
        next_token: 0,
        ending: false,
        finished: false,
        crowd,
    };
    law.obey()?;
    for happens in story {
        law.happen(happens);
        law.obey()?;
        // Nobody waits for who stops him.
        law.world.now += Duration::from_millis(100);
    }
    // Everything that is under way comes to its end, and everybody has an answer.
    for _ in 0..1_000 {
        if law.under_way.is_empty() {
            break;
        }
        law.done(true);
        law.obey()?;
    }
    if !law.finished {
        prop_assert!(law.open.is_empty(), "{:?} have no answer", law.open);
        law.world.input(Input::ShutDown);
        law.obey()?;
        while !law.under_way.is_empty() {
            law.done(true);
            law.obey()?;
        }
    }
    prop_assert!(law.finished);
    prop_assert!(law.open.is_empty(), "{:?} have no answer", law.open);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn a_machine_keeps_its_laws_whatever_happens_when(
        strategy in prop_oneof![Just(Rule::OneForOne), Just(Rule::RestForOne), Just(Rule::OneForAll)],
        auto in prop_oneof![
            4 => Just(AutoShutdown::Never), 1 => Just(AutoShutdown::AnySignificant),
            1 => Just(AutoShutdown::AllSignificant)
        ],
        restarts in 0u32..20,
        shapes in proptest::collection::vec(shape(), 1..6),
        story in proptest::collection::vec(happens(), 1..60),
    ) {
        let intensity = Intensity::new(restarts, Duration::from_secs(5));
        let policy = Policy { strategy, intensity, auto_shutdown: auto };
        let children: Vec<_> = shapes.iter().enumerate().map(|(i, s)| make(i, s, false)).collect();
        holds(World::fixed(policy, &children), &children, false, &story)?;
    }

    #[test]
    fn a_crowd_keeps_its_laws_whatever_happens_when(
        restarts in 0u32..20,
        keep in any::<bool>(),
        shapes in proptest::collection::vec(shape(), 0..6),
        story in proptest::collection::vec(happens(), 1..60),
    ) {
        let intensity = Intensity::new(restarts, Duration::from_secs(5));
        let children: Vec<_> = shapes.iter().enumerate().map(|(i, s)| make(i, s, true)).collect();
        holds(World::crowd(intensity, keep, &children), &children, true, &story)?;
    }
}
