//! Commands, verdicts and questions that meet a stop or a start under way.

use std::sync::Arc;

use mister_smith_supervisors::*;
use tokio::time::Instant;

use crate::kit::*;
use crate::workers::*;

fn word<T>(answer: &Result<T, SupervisorError>) -> &'static str {
    match answer {
        Ok(_) => "ok",
        Err(SupervisorError::Stopping { .. }) => "stopping",
        Err(_) => "refused",
    }
}

/// A message that makes an actor ask its own supervisor, and note the answer.
fn asks_its_supervisor(to_restart: bool, child: &'static str, log: &Log) -> Job {
    let log = log.clone();
    job(move |cx| {
        Box::pin(async move {
            let supervisor = cx.supervisor().clone();
            let answer = match to_restart {
                true => supervisor.planned_restart(child).await,
                false => supervisor.terminate_child(child).await,
            };
            log.note(format!("answer {}", word(&answer)));
            Ok(())
        })
    })
}

/// An actor that asked its supervisor to stop or restart it waited for its own end: its supervisor
/// waited for it, until the shutdown time ran out and the actor was killed; for good without one.
#[tokio::test(start_paused = true)]
async fn an_actor_that_makes_its_supervisor_stop_it_is_answered_at_once() {
    for dynamic in [false, true] {
        for shutdown in [Shutdown::After(secs(5)), Shutdown::Infinity] {
            for to_restart in [false, true] {
                let case = format!("dynamic {dynamic}, {shutdown:?}, restart {to_restart}");
                let log = Log::default();
                let s =
                    if dynamic { SupervisorSpec::dynamic("s") } else { SupervisorSpec::new("s") };
                let system = start(root().child(s)).await;
                let s = system.supervisor("/s").unwrap();
                s.start_child(worker("me", &log).shutdown(shutdown)).await.unwrap();
                s.start_child(puppet("b", &log)).await.unwrap();
                let me = to(&system, "/s/me");
                me.try_tell(asks_its_supervisor(to_restart, "me", &log)).unwrap();
                settle().await;
                let (mut expected, state, life) = match to_restart {
                    true => (vec!["answer stopping", "stop me", "start me"], SlotState::Up, 2),
                    false => (vec!["answer stopping", "stop me"], SlotState::Down, 1),
                };
                expected.splice(0..0, ["start me", "start b"]);
                assert_eq!(log.all(), expected, "{case}");
                assert_eq!((me.state(), me.life()), (state, life), "{case}");
                at(&system, "/s/b").try_tell(Do::Fail).unwrap();
                settle().await;
                assert_eq!(seen(&system, "/s/b"), (SlotState::Up, 2), "{case}");
            }
        }
    }
}

/// The same when it asks for the restart of a sibling whose group it belongs to.
#[tokio::test(start_paused = true)]
async fn an_actor_that_makes_its_supervisor_restart_its_group_is_answered_at_once() {
    for (strategy, me_first) in [(Strategy::OneForAll, true), (Strategy::RestForOne, false)] {
        let log = Log::default();
        let (me, b) = (worker("me", &log), puppet("b", &log));
        let (first, second) = if me_first { (me, b) } else { (b, me) };
        let s = SupervisorSpec::new("s").strategy(strategy).child(first).child(second);
        let system = start(root().child(s)).await;
        to(&system, "/s/me").try_tell(asks_its_supervisor(true, "b", &log)).unwrap();
        settle().await;
        assert_eq!(seen(&system, "/s/me"), (SlotState::Up, 2), "{strategy:?}: {:?}", log.all());
        assert_eq!(seen(&system, "/s/b"), (SlotState::Up, 2), "{strategy:?}");
        for line in ["answer stopping", "stop me", "stop b shutdown"] {
            assert!(log.all().iter().any(|l| l == line), "{strategy:?}, {line}: {:?}", log.all());
        }
    }
}

/// A shutdown that replaced a restart under way forgot who waited for its answer: the asker could
/// not stop either, and was killed.
#[tokio::test(start_paused = true)]
async fn who_waits_for_a_restart_that_a_shutdown_replaces_is_answered() {
    for dynamic in [false, true] {
        let log = Log::default();
        let s = if dynamic { SupervisorSpec::dynamic("s") } else { SupervisorSpec::new("s") };
        let system = start(root().child(s)).await;
        let s = system.supervisor("/s").unwrap();
        s.start_child(worker("asker", &log)).await.unwrap();
        let slow = Role { stop_takes: secs(2), ..Role::new("slow", &log) };
        s.start_child(ChildSpec::actor::<Puppet>("slow", slow)).await.unwrap();
        to(&system, "/s/asker").try_tell(asks_its_supervisor(true, "slow", &log)).unwrap();
        settle().await;
        let (in_order, took) = timed("the shutdown", system.shutdown(secs(60))).await;
        assert!(took < secs(3), "dynamic {dynamic}: it took {took:?}");
        assert!(in_order, "dynamic {dynamic}");
        assert!(log.all().iter().any(|line| line == "stop asker"), "{dynamic}: {:?}", log.all());
    }
}

/// A component that is unhealthy in its first life and takes half a second to stop.
struct Sick {
    log: Log,
}

impl Actor for Sick {
    type Message = ();
    type Args = Log;

    async fn start(log: &Log, _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self { log: log.clone() })
    }

    async fn handle(&mut self, (): (), _: &mut Context<Self>) -> Result<(), Failure> {
        Ok(())
    }

    async fn stop(&mut self, _: &ExitReason, cx: &mut Context<Self>) {
        tokio::time::sleep(ms(500)).await;
        self.log.note(format!("stop {}#{}", cx.path(), cx.life()));
    }
}

impl SupervisedComponent for Sick {
    type Handover = ();

    async fn health_check(&mut self, cx: &mut Context<Self>) -> Health {
        if cx.life() == 1 { Health::unhealthy("in its first life") } else { Health::Healthy }
    }
}

fn sick(id: &'static str, log: &Log) -> ChildSpec {
    let health = HealthSpec::every(secs(1)).unhealthy_after(1);
    ChildSpec::component::<Sick>(id, log.clone()).health(health)
}

/// A verdict on the health of one life waited in line while its group was restarted, and then hit
/// the next life: the group restarted twice, which is one restart more than OTP's default allows.
#[tokio::test(start_paused = true)]
async fn bad_health_of_one_life_does_not_end_the_next() {
    for strategy in [Strategy::OneForAll, Strategy::OneForOne, Strategy::RestForOne] {
        let log = Log::default();
        let s = SupervisorSpec::new("s")
            .strategy(strategy)
            .intensity(2, secs(5))
            .child(sick("a", &log))
            .child(sick("b", &log));
        let system = start(root().child(s)).await;
        tokio::time::sleep(secs(10)).await;
        assert_eq!(seen(&system, "/s"), (SlotState::Up, 1), "{strategy:?}");
        assert_eq!(seen(&system, "/s/a"), (SlotState::Up, 2), "{strategy:?}: {:?}", log.all());
        assert_eq!(seen(&system, "/s/b"), (SlotState::Up, 2), "{strategy:?}: {:?}", log.all());
    }
    let log = Log::default();
    let s = SupervisorSpec::new("s").strategy(Strategy::OneForAll);
    let Heard { system, events, .. } =
        heard(root().child(s.child(sick("a", &log)).child(sick("b", &log)))).await;
    tokio::time::sleep(secs(10)).await;
    assert!(!events.all().contains(&"/s#1 escalated".to_owned()), "{:?}", events.all());
    assert_eq!(seen(&system, "/s"), (SlotState::Up, 1), "one restart is enough");
}

fn nested(b_starts: &[&'static str], log: &Log) -> SupervisorSpec {
    let b = ChildSpec::actor::<Puppet>("b", Role::new("b", log).starts(b_starts));
    SupervisorSpec::new("s").intensity(99, secs(1)).child(puppet("a", log)).child(b)
}

/// A shutdown while a supervisor was being started killed what it had started so far: those
/// children got no `stop`, and what they depend on was stopped without waiting for them.
#[tokio::test(start_paused = true)]
async fn a_shutdown_while_a_supervisor_starts_stops_what_it_has_started() {
    let log = Log::default();
    let system =
        start(root().child(puppet("first", &log)).child(nested(&["ok", "hang"], &log))).await;
    log.take();
    system.kill("/s").unwrap();
    settle().await;
    let (_, took) = timed("the shutdown", system.shutdown(secs(60))).await;
    assert_eq!(log.take(), ["start a", "stop a shutdown", "stop first shutdown"]);
    assert!(took < secs(6), "{took:?}");
    let timeline = system.timeline();
    let past = timeline.at(timeline.last()).unwrap();
    for node in past.nodes().filter(|node| !node.path.is_root()) {
        assert_ne!(node.state, SlotState::Up, "{} ended, as the events tell", node.path);
    }
}

/// Control: without the hanging start, and with the whole system stopped by the operator of one
/// child, everything stops in order.
#[tokio::test(start_paused = true)]
async fn a_shutdown_after_a_supervisor_started_stops_all_in_order() {
    let log = Log::default();
    let system = start(root().child(puppet("first", &log)).child(nested(&[], &log))).await;
    system.kill("/s").unwrap();
    settle().await;
    log.take();
    assert!(system.shutdown(secs(60)).await);
    assert_eq!(log.take(), ["stop b shutdown", "stop a shutdown", "stop first shutdown"]);
}

/// The same when the supervisor's start took longer than its deadline.
#[tokio::test(start_paused = true)]
async fn a_supervisor_whose_start_times_out_stops_what_it_has_started() {
    let log = Log::default();
    let s = ChildSpec::from(nested(&["ok", "hang"], &log)).start_deadline(secs(1));
    let system = start(root().child(puppet("first", &log)).child(s)).await;
    log.take();
    system.kill("/s").unwrap();
    tokio::time::sleep(secs(20)).await;
    assert_eq!(log.take(), ["start a", "stop a shutdown", "start a", "start b"]);
    assert_eq!(seen(&system, "/s/b").0, SlotState::Up);
    assert_eq!(seen(&system, "/first"), (SlotState::Up, 1));
}

/// To stop a supervisor that is being started is no different from a shutdown.
#[tokio::test(start_paused = true)]
async fn a_stop_of_a_supervisor_that_starts_stops_what_it_has_started() {
    let log = Log::default();
    let system =
        start(root().child(puppet("first", &log)).child(nested(&["ok", "hang"], &log))).await;
    log.take();
    system.kill("/s").unwrap();
    settle().await;
    let _ = answered("the stop", system.stop("/s")).await;
    assert_eq!(log.take(), ["start a", "stop a shutdown"]);
    assert_eq!(seen(&system, "/s").0, SlotState::Down);
}

/// A supervisor's resume let go of a child that was held on its own account: it was shown as
/// suspended and handled messages.
#[tokio::test(start_paused = true)]
async fn a_child_is_held_until_all_that_hold_it_let_go() {
    for child_first in [true, false] {
        let log = Log::default();
        let system = start(root().child(SupervisorSpec::new("s").child(puppet("a", &log)))).await;
        let a = at(&system, "/s/a");
        let order = if child_first { ["/s/a", "/s"] } else { ["/s", "/s/a"] };
        for path in order {
            system.suspend(path).await.unwrap();
        }
        a.try_tell(Do::Note(1)).unwrap();
        for (n, path) in order.into_iter().rev().enumerate() {
            settle().await;
            assert_eq!(log.notes("a"), Vec::<u64>::new(), "{n} of {order:?} let go");
            system.resume(path).await.unwrap();
        }
        settle().await;
        assert_eq!(log.notes("a"), [1]);
        // In the order in which they were suspended.
        for path in order {
            system.suspend(path).await.unwrap();
        }
        a.try_tell(Do::Note(2)).unwrap();
        system.resume(order[0]).await.unwrap();
        settle().await;
        assert_eq!(log.notes("a"), [1], "{} still holds it", order[1]);
        system.resume(order[1]).await.unwrap();
        settle().await;
        assert_eq!(log.notes("a"), [1, 2]);
    }
}

/// A child that was spawned below a suspended supervisor, or restarted there, was not held.
#[tokio::test(start_paused = true)]
async fn what_starts_below_a_suspended_supervisor_is_held() {
    let log = Log::default();
    let d = SupervisorSpec::dynamic("d").intensity(99, secs(1));
    let system = start(root().child(SupervisorSpec::new("s").child(d))).await;
    let d = system.supervisor("/s/d").unwrap();
    d.start_child(puppet("old", &log)).await.unwrap();
    for held in ["/s/d", "/s"] {
        system.suspend(held).await.unwrap();
        let spawned = async { d.start_child(puppet("new", &log)).await };
        answered("the spawn", spawned).await.unwrap();
        at(&system, "/s/d/new").try_tell(Do::Note(1)).unwrap();
        at(&system, "/s/d/old").try_tell(Do::Note(2)).unwrap();
        system.kill("/s/d/old").unwrap();
        settle().await;
        assert_eq!(log.notes("new"), Vec::<u64>::new(), "{held} is held");
        assert_eq!(log.notes("old"), Vec::<u64>::new(), "{held} is held");
        system.resume(held).await.unwrap();
        settle().await;
        assert_eq!((log.notes("new"), log.notes("old")), (vec![1], vec![2]), "{held}");
        system.stop("/s/d/new").await.unwrap();
        log.take();
    }
}

/// Who asked for the restart of a dynamic supervisor's child was not answered when the child was
/// suspended while it stopped.
#[tokio::test(start_paused = true)]
async fn a_restart_that_is_overtaken_by_a_suspension_is_answered() {
    for dynamic in [false, true] {
        let log = Log::default();
        let s = if dynamic { SupervisorSpec::dynamic("s") } else { SupervisorSpec::new("s") };
        let system = start(root().child(s)).await;
        let slow = Role { stop_takes: secs(2), ..Role::new("a", &log) };
        let s = system.supervisor("/s").unwrap();
        s.start_child(ChildSpec::actor::<Puppet>("a", slow)).await.unwrap();
        let restart = {
            let system = system.clone();
            tokio::spawn(async move { drop(system.restart("/s/a").await) })
        };
        tokio::time::sleep(secs(1)).await;
        let suspend = {
            let system = system.clone();
            tokio::spawn(async move { system.suspend("/s/a").await })
        };
        tokio::time::sleep(secs(30)).await;
        assert!(restart.is_finished(), "dynamic {dynamic}: the restart is not answered");
        assert!(suspend.is_finished(), "dynamic {dynamic}: the suspension is not answered");
        assert!(seen(&system, "/s/a").0 == SlotState::Suspended);
        answered("the resume", system.resume("/s/a")).await.unwrap();
        settle().await;
        assert_eq!(seen(&system, "/s/a").0, SlotState::Up);
    }
}

/// A dynamic supervisor refused to terminate a child that was being started or stopped, and said
/// that the child was being restarted or that it was stopping itself; a static one waited.
#[tokio::test(start_paused = true)]
async fn a_child_that_starts_or_stops_can_be_terminated() {
    for dynamic in [false, true] {
        for starting in [false, true] {
            let case = format!("dynamic {dynamic}, starting {starting}");
            let log = Log::default();
            let s = if dynamic { SupervisorSpec::dynamic("s") } else { SupervisorSpec::new("s") };
            let system = start(root().child(s)).await;
            let s = system.supervisor("/s").unwrap();
            let slow = plan("a", &log).on_start(|cx| {
                let wait = if cx.life() > 1 { secs(2) } else { secs(0) };
                Box::pin(async move {
                    tokio::time::sleep(wait).await;
                    Ok(())
                })
            });
            let slow = slow.on_stop(|_| Box::pin(tokio::time::sleep(secs(2))));
            s.start_child(slow.spec()).await.unwrap();
            if starting {
                to(&system, "/s/a").try_tell(failure()).unwrap();
            } else {
                let system = system.clone();
                tokio::spawn(async move { drop(system.stop("/s/a").await) });
            }
            tokio::time::sleep(ms(500)).await;
            let (answer, took) = timed("terminate_child", s.terminate_child("a")).await;
            assert!(answer.is_ok() || !starting && dynamic && gone(&answer), "{case}: {answer:?}");
            assert!(took < secs(5), "{case}: {took:?}");
            settle().await;
            match system.look("/s/a", Depth::ALL) {
                Some(a) => assert_eq!((a.root.state, dynamic), (SlotState::Down, false), "{case}"),
                None => assert!(dynamic, "{case}"),
            }
        }
    }
}

/// It was there when it was asked for, and forgotten when it had stopped.
fn gone(answer: &Result<(), SupervisorError>) -> bool {
    matches!(answer, Err(SupervisorError::NotFound { .. }))
}

/// A worker that asks the actor at `next` while it stops, and notes what it says.
fn asks_while_it_stops(id: &'static str, next: String, log: &Log) -> ChildSpec {
    let said = log.clone();
    let stop = plan(id, log).on_stop(move |cx| {
        let (next, said) = (cx.find::<Job>(&next), said.clone());
        Box::pin(async move {
            if let Ok(next) = next {
                let answer = next.ask(ping).await;
                said.note(match answer {
                    Ok(()) => format!("{id} was answered"),
                    Err(AskError::Stopped { .. }) => format!("{id} heard stopped"),
                    Err(error) => format!("{id} heard {error}"),
                });
            }
        })
    });
    stop.spec()
}

const CHAIN: [&str; 6] = ["c0", "c1", "c2", "c3", "c4", "c5"];

fn chain(strategy: Strategy, log: &Log) -> SupervisorSpec {
    let s = SupervisorSpec::new("s").strategy(strategy).intensity(99, secs(1));
    (0..6).fold(s, |s, n| {
        s.child(asks_while_it_stops(CHAIN[n], format!("/s/{}", CHAIN[(n + 1) % 6]), log))
    })
}

fn stops(log: &Log) -> Vec<String> {
    log.all().into_iter().filter(|line| line.starts_with("stop ")).collect()
}

/// The mailbox of a child that was stopped stayed open until the whole supervisor had stopped, so a
/// sibling that asked it while it stopped itself waited for the deadline: five seconds for each of
/// them, one after the other.
#[tokio::test(start_paused = true)]
async fn siblings_that_ask_each_other_while_they_stop_lose_no_time() {
    let log = Log::default();
    let system = start(root().child(chain(Strategy::OneForOne, &log))).await;
    log.take();
    let (in_order, took) = timed("the shutdown", system.shutdown(secs(3_600))).await;
    assert_eq!(stops(&log), ["stop c5", "stop c4", "stop c3", "stop c2", "stop c1", "stop c0"]);
    assert!(took < ms(100), "{took:?}: {:?}", log.all());
    for id in &CHAIN[..5] {
        let heard = format!("{id} heard stopped");
        assert!(log.all().contains(&heard), "{heard}: {:?}", log.all());
    }
    assert!(in_order);
}

/// The same in the restart of a group: nobody would answer before the asker had stopped.
#[tokio::test(start_paused = true)]
async fn a_group_that_restarts_loses_no_time_by_questions_in_stop() {
    for operator in [false, true] {
        let log = Log::default();
        let system = start(root().child(chain(Strategy::OneForAll, &log))).await;
        log.take();
        let began = Instant::now();
        if operator {
            answered("the restart", system.restart("/s/c0")).await.unwrap();
        } else {
            to(&system, "/s/c0").try_tell(failure()).unwrap();
            settle().await;
        }
        assert!(began.elapsed() < ms(100), "{:?}: {:?}", began.elapsed(), log.all());
        let down: &[&str] = if operator {
            &["stop c5", "stop c4", "stop c3", "stop c2", "stop c1", "stop c0"]
        } else {
            &["stop c5", "stop c4", "stop c3", "stop c2", "stop c1"]
        };
        assert_eq!(stops(&log), down);
        for id in CHAIN {
            assert_eq!(seen(&system, &format!("/s/{id}")), (SlotState::Up, 2), "{id}");
        }
    }
}

/// The same among cousins, below two supervisors.
#[tokio::test(start_paused = true)]
async fn cousins_that_ask_each_other_while_they_stop_lose_no_time() {
    let log = Log::default();
    let p = SupervisorSpec::new("p")
        .child(asks_while_it_stops("a", "/p/b".to_owned(), &log))
        .child(asks_while_it_stops("b", "/q/c".to_owned(), &log));
    let q = SupervisorSpec::new("q").child(asks_while_it_stops("c", "/p/a".to_owned(), &log));
    let system = start(root().child(p).child(q)).await;
    log.take();
    let (_, took) = timed("the shutdown", system.shutdown(secs(3_600))).await;
    assert_eq!(stops(&log), ["stop c", "stop b", "stop a"]);
    assert!(took < ms(100), "{took:?}: {:?}", log.all());
}

/// The same in a ring of children that a dynamic supervisor stops all at once.
#[tokio::test(start_paused = true)]
async fn a_ring_that_stops_at_once_loses_no_time() {
    let log = Log::default();
    let system = start(root().child(SupervisorSpec::dynamic("d"))).await;
    let d = system.supervisor("/d").unwrap();
    let ids: Vec<&'static str> = (0..100).map(|n| &*format!("c{n}").leak()).collect();
    for (n, id) in ids.iter().enumerate() {
        let next = format!("/d/{}", ids[(n + 1) % ids.len()]);
        d.start_child(asks_while_it_stops(id, next, &log)).await.unwrap();
    }
    let (_, took) = timed("the shutdown", system.shutdown(secs(3_600))).await;
    assert_eq!(stops(&log).len(), 100);
    assert!(took < ms(100), "{took:?}");
}

/// A message that asks `path` after `delay`, and notes how that ends.
fn asks(path: &'static str, delay: std::time::Duration, log: &Log) -> Job {
    let log = log.clone();
    job(move |cx| {
        let target = cx.find::<Job>(path).unwrap();
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            let word = if target.ask(ping).await.is_ok() { "answered" } else { "refused" };
            log.note(format!("asker {word}"));
            Ok(())
        })
    })
}

/// A message that waits, and then fails its life.
fn fails_after(delay: std::time::Duration) -> Job {
    job(move |_| {
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            Err(Failure::permanent("told to"))
        })
    })
}

/// A user of a connection waited for the next life of the connection, which its supervisor would
/// start only when the user had stopped: the group was down until the question's deadline.
#[tokio::test(start_paused = true)]
async fn a_partner_that_asks_what_it_is_restarted_with_loses_no_time() {
    for strategy in [Strategy::RestForOne, Strategy::OneForAll] {
        // Just before the connection fails, and just after.
        for delay in [5, 11] {
            let log = Log::default();
            let g = SupervisorSpec::new("g")
                .strategy(strategy)
                .child(worker("conn", &log))
                .child(worker("mailer", &log).shutdown(Shutdown::After(secs(60))));
            let system = start(root().child(g)).await;
            to(&system, "/g/conn").try_tell(fails_after(ms(10))).unwrap();
            to(&system, "/g/mailer").try_tell(asks("/g/conn", ms(delay), &log)).unwrap();
            tokio::time::sleep(ms(13)).await;
            let case = format!("{strategy:?}, {delay} ms: {:?}", log.all());
            assert_eq!(seen(&system, "/g/conn"), (SlotState::Up, 2), "{case}");
            assert_eq!(seen(&system, "/g/mailer"), (SlotState::Up, 2), "{case}");
            assert!(log.all().contains(&"asker refused".to_owned()), "{case}");
            assert!(log.all().contains(&"stop mailer".to_owned()), "{case}");
        }
    }
}

/// The same when the two live below supervisors that are restarted together.
#[tokio::test(start_paused = true)]
async fn a_cousin_that_asks_what_it_is_restarted_with_loses_no_time() {
    for kill in ["/resources", "/resources/pool"] {
        let log = Log::default();
        let resources = SupervisorSpec::new("resources").intensity(0, secs(1));
        let system = start(
            root()
                .strategy(Strategy::RestForOne)
                .child(resources.child(worker("pool", &log)))
                .child(SupervisorSpec::new("domain").child(worker("user", &log))),
        )
        .await;
        // Busy, so that the question waits in its mailbox.
        to(&system, "/resources/pool").try_tell(fails_after(secs(3_600))).unwrap();
        to(&system, "/domain/user").try_tell(asks("/resources/pool", ms(0), &log)).unwrap();
        settle().await;
        system.kill(kill).unwrap();
        tokio::time::sleep(ms(2)).await;
        for path in ["/resources", "/resources/pool", "/domain", "/domain/user"] {
            let now = seen(&system, path);
            assert_eq!(now, (SlotState::Up, 2), "{path}, {kill} killed: {:?}", log.all());
        }
        assert!(log.all().contains(&"asker refused".to_owned()), "{kill}: {:?}", log.all());
    }
}

/// Control: with a question to somebody who is not restarted with it, the asker is answered, and
/// then restarted.
#[tokio::test(start_paused = true)]
async fn a_partner_that_asks_somebody_else_is_answered() {
    let log = Log::default();
    let g = SupervisorSpec::new("g").strategy(Strategy::RestForOne);
    let g = g.child(worker("conn", &log)).child(worker("mailer", &log));
    let system = start(root().child(worker("clock", &log)).child(g)).await;
    to(&system, "/g/conn").try_tell(fails_after(ms(10))).unwrap();
    to(&system, "/g/mailer").try_tell(asks("/clock", ms(11), &log)).unwrap();
    tokio::time::sleep(ms(13)).await;
    assert!(log.all().contains(&"asker answered".to_owned()), "{:?}", log.all());
    assert_eq!(seen(&system, "/g/mailer"), (SlotState::Up, 2));
}

/// An actor that asked a later sibling while its group was started again waited for the deadline:
/// the sibling was not to be started before the asker was up.
#[tokio::test(start_paused = true)]
async fn a_start_that_asks_a_later_sibling_loses_no_time() {
    let log = Log::default();
    let said = log.clone();
    let first = plan("first", &log).on_start(move |cx| {
        let (life, later, said) = (cx.life(), cx.find::<Job>("/g/later"), said.clone());
        Box::pin(async move {
            if life > 1
                && let Ok(later) = later
            {
                let word = if later.ask(ping).await.is_ok() { "answered" } else { "refused" };
                said.note(format!("asker {word}"));
            }
            Ok(())
        })
    });
    let g = SupervisorSpec::new("g").strategy(Strategy::OneForAll);
    let system = start(root().child(g.child(first.spec()).child(worker("later", &log)))).await;
    to(&system, "/g/later").try_tell(failure()).unwrap();
    settle().await;
    assert_eq!(seen(&system, "/g/first"), (SlotState::Up, 2), "{:?}", log.all());
    assert_eq!(seen(&system, "/g/later"), (SlotState::Up, 2), "{:?}", log.all());
    assert!(log.all().contains(&"asker refused".to_owned()), "{:?}", log.all());
}

/// A question to a child that its operator stops for good waits in its mailbox while the child
/// finishes its message: it is refused at once, and so is one that was asked before.
#[tokio::test(start_paused = true)]
async fn a_question_to_a_child_that_stops_for_good_is_refused_at_once() {
    let log = Log::default();
    let system = start(root().child(worker("a", &log).shutdown(Shutdown::Infinity))).await;
    let a = to(&system, "/a");
    a.try_tell(job(|_| {
        Box::pin(async {
            tokio::time::sleep(secs(2)).await;
            Ok(())
        })
    }))
    .unwrap();
    let early = {
        let a = a.clone();
        tokio::spawn(async move { timed("the early question", a.ask(ping)).await })
    };
    settle().await;
    let stopping = {
        let system = system.clone();
        tokio::spawn(async move { system.stop("/a").await })
    };
    settle().await;
    let (late, took) = timed("the late question", a.ask(ping)).await;
    assert!(matches!(late, Err(AskError::Stopped { .. })), "{late:?}");
    assert!(took < ms(10), "{took:?}");
    let (early, took) = early.await.unwrap();
    assert!(matches!(early, Err(AskError::Stopped { .. })), "{early:?}");
    // Nobody can see whether it is the message in flight: it fails when the actor has ended.
    assert!(took < ms(2_010), "{took:?}");
    answered("the stop", stopping).await.unwrap().unwrap();
    let stopped = Arc::new(log.all());
    assert_eq!(*stopped, ["start a", "stop a"], "it finished its message and stopped in order");
}

/// Control: children that end by themselves, by a panic or by their supervisor's order, all at the
/// same time, end once each, and who orders it is told so or that there is no such child.
#[test]
fn children_that_end_while_they_are_terminated_end_once() {
    for dynamic in [false, true] {
        real(2, async {
            let log = Log::default();
            let s = if dynamic { SupervisorSpec::dynamic("s") } else { SupervisorSpec::new("s") };
            let Heard { system, events, .. } = heard(root().child(s)).await;
            let s = system.supervisor("/s").unwrap();
            let mut orders = tokio::task::JoinSet::new();
            let ids: Vec<&'static str> = (0..300).map(|n| &*format!("c{n}").leak()).collect();
            for (n, id) in ids.iter().copied().enumerate() {
                let child = worker(id, &log).restart(RestartPolicy::Temporary);
                let child = s.spawn_spec::<Job>(child).await.unwrap();
                let end =
                    if n % 2 == 0 { call(|cx| cx.stop()) } else { call(|_| panic!("told to")) };
                child.try_tell(end).unwrap();
                let s = s.clone();
                orders.spawn(async move { s.terminate_child(id).await });
            }
            while let Some(answer) = soon("an order", orders.join_next()).await {
                let answer = answer.unwrap();
                assert!(answer.is_ok() || gone(&answer), "{answer:?}");
            }
            until("all are gone", || s.count() == 0).await;
            soon("the shutdown", system.shutdown(secs(10))).await;
            for id in ids {
                let of = events.all().into_iter().filter(|e| e.starts_with(&format!("/s/{id}#")));
                let ends = of.filter(|e| e.ends_with("failed") || e.ends_with("stopped"));
                assert_eq!(ends.count(), 1, "dynamic {dynamic}: {id}");
            }
        });
    }
}
