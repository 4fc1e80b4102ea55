//! One rule for failures, restarts on purpose, dependencies and commands.

use std::sync::{Arc, Mutex};

use mister_smith_supervisors::*;

use crate::kit::*;
use crate::workers::*;

fn slow_backoff() -> Backoff {
    Backoff::exponential(secs(10), secs(10)).reset_after(secs(1_000))
}

/// The place of the last line that says this.
fn last_of(log: &Log, line: &str) -> Option<usize> {
    log.all().iter().rposition(|l| l == line)
}

/// A child that depends on two siblings was started again with the second one while the first one
/// still waited for its backoff; and it kept the old life of the first one afterwards.
#[tokio::test(start_paused = true)]
async fn a_dependent_starts_only_when_all_that_it_needs_are_up() {
    let log = Log::default();
    let a = puppet("a", &log).backoff(slow_backoff()).give_up_after(100);
    let d = puppet("d", &log).depends_on(["a", "e"]);
    let system = start(root().child(a).child(puppet("e", &log)).child(d)).await;
    at(&system, "/a").try_tell(Do::Fail).unwrap();
    settle().await;
    assert_eq!(seen(&system, "/a"), (SlotState::Backoff, 1));
    at(&system, "/e").try_tell(Do::Fail).unwrap();
    settle().await;
    assert_eq!(seen(&system, "/e"), (SlotState::Up, 2));
    assert_eq!(seen(&system, "/a"), (SlotState::Backoff, 1));
    assert_ne!(seen(&system, "/d").0, SlotState::Up, "a is not up");
    tokio::time::sleep(secs(60)).await;
    for path in ["/a", "/e", "/d"] {
        assert_eq!(seen(&system, path).0, SlotState::Up, "{path}");
    }
    let d = last_of(&log, "start d");
    assert!(d > last_of(&log, "start a") && d > last_of(&log, "start e"), "{:?}", log.all());
}

/// A command started a child although a sibling that it depends on was down.
#[tokio::test(start_paused = true)]
async fn no_command_starts_a_dependent_without_what_it_needs() {
    for suspended in [false, true] {
        let log = Log::default();
        let d = puppet("d", &log).depends_on(["a"]);
        let system = start(root().child(puppet("a", &log)).child(d)).await;
        system.stop("/d").await.unwrap();
        if suspended {
            system.suspend("/a").await.unwrap();
            system.kill("/a").unwrap();
            settle().await;
        } else {
            system.stop("/a").await.unwrap();
        }
        let _ = answered("restart_child", system.supervisor("/").unwrap().restart_child("d")).await;
        let _ = answered("the restart", system.restart("/d")).await;
        let (a, d) = (seen(&system, "/a").1, seen(&system, "/d"));
        let a_runs = log.all().iter().filter(|line| *line == "start a").count() > 1;
        assert!(d.0 != SlotState::Up || a_runs, "d is {d:?}, a in life {a}: {:?}", log.all());
    }
}

/// A supervisor that ends with its last significant child counted one that waited for its backoff
/// as ended. In OTP such a child is alive, and comes back.
#[tokio::test(start_paused = true)]
async fn a_significant_child_in_its_backoff_has_not_ended() {
    for backoff in [true, false] {
        let log = Log::default();
        let child = |id| puppet(id, &log).restart(RestartPolicy::Transient).significant();
        let a = match backoff {
            true => child("a").backoff(slow_backoff()).give_up_after(100),
            false => child("a"),
        };
        let s = SupervisorSpec::new("s").auto_shutdown(AutoShutdown::AllSignificant);
        let system = start(root().child(s.child(a).child(child("b")))).await;
        at(&system, "/s/a").try_tell(Do::Fail).unwrap();
        settle().await;
        at(&system, "/s/b").try_tell(Do::End).unwrap();
        tokio::time::sleep(secs(60)).await;
        assert_eq!(seen(&system, "/s"), (SlotState::Up, 1), "backoff {backoff}: {:?}", log.all());
        assert_eq!(seen(&system, "/s/a"), (SlotState::Up, 2), "backoff {backoff}");
        at(&system, "/s/a").try_tell(Do::End).unwrap();
        settle().await;
        assert_ne!(seen(&system, "/s").1, 1, "now all have ended, and so has the supervisor");
    }
}

/// A child restarted on purpose was stopped last, after siblings that had been started before it.
#[tokio::test(start_paused = true)]
async fn a_restart_on_purpose_stops_its_group_in_reverse_start_order() {
    for culprit in ["db", "cache", "api"] {
        let log = Log::default();
        let all = root().strategy(Strategy::OneForAll);
        let all = ["db", "cache", "api"].into_iter().fold(all, |s, id| s.child(puppet(id, &log)));
        let system = start(all).await;
        log.take();
        let path = format!("/{culprit}");
        let plan = system.plan(&path, Action::Restart).unwrap();
        system.restart(&path).await.unwrap();
        let stops = ["api", "cache", "db"].map(|id| format!("stop {id} shutdown"));
        let starts = ["db", "cache", "api"].map(|id| format!("start {id}"));
        assert_eq!(log.take(), [stops, starts].concat(), "{path}");
        let planned: Vec<_> = plan.stops.iter().map(|stop| stop.path.to_string()).collect();
        assert_eq!(planned, ["/api", "/cache", "/db"], "the plan for {path}");
    }
}

/// A dynamic supervisor that keeps its children lost the one whose failure made it give up, with all
/// messages that waited for it.
#[tokio::test(start_paused = true)]
async fn kept_children_come_back_also_the_one_that_was_to_blame() {
    let log = Log::default();
    let d = SupervisorSpec::dynamic("d").keep_children().intensity(0, secs(1));
    let Heard { system, graves, .. } = heard(root().child(d)).await;
    let d = system.supervisor("/d").unwrap();
    for id in ["a", "b"] {
        d.start_child(puppet(id, &log)).await.unwrap();
    }
    let a = at(&system, "/d/a");
    a.try_tell(Do::Fail).unwrap();
    a.try_tell(Do::Note(7)).unwrap();
    settle().await;
    assert_eq!(seen(&system, "/d"), (SlotState::Up, 2));
    let mut children = d.which_children();
    children.sort();
    assert_eq!(children, ["a", "b"]);
    assert_eq!((a.state(), a.life()), (SlotState::Up, 2));
    assert_eq!(log.notes("a"), [7]);
    assert_eq!(graves.all().len(), 1, "the message that failed: {:?}", graves.all());
}

/// The same when the child failed to start again.
#[tokio::test(start_paused = true)]
async fn kept_children_come_back_also_the_one_that_did_not_start() {
    let log = Log::default();
    let d = SupervisorSpec::dynamic("d").keep_children().intensity(1, secs(1));
    let system = start(root().child(d)).await;
    let d = system.supervisor("/d").unwrap();
    let role = Role::new("a", &log).starts(&["ok", "fail"]);
    d.start_child(ChildSpec::actor::<Puppet>("a", role)).await.unwrap();
    let a = at(&system, "/d/a");
    a.try_tell(Do::Fail).unwrap();
    a.try_tell(Do::Note(7)).unwrap();
    settle().await;
    assert_eq!(d.which_children(), ["a"]);
    assert_eq!((a.state(), log.notes("a")), (SlotState::Up, vec![7]));
}

/// An actor that ended itself while it started went on until its first message.
#[tokio::test(start_paused = true)]
async fn an_actor_can_end_itself_while_it_starts() {
    let log = Log::default();
    let a = plan("a", &log).on_start(|cx| {
        cx.stop();
        Box::pin(async { Ok(()) })
    });
    let Heard { system, events, .. } =
        heard(root().child(a.spec().restart(RestartPolicy::Transient))).await;
    settle().await;
    assert_eq!(seen(&system, "/a"), (SlotState::Down, 1));
    assert_eq!(log.all(), ["start a", "stop a"]);
    assert_eq!(system.tree().root.children.len(), 1);
    let of_a: Vec<_> = events.all().into_iter().filter(|e| e.starts_with("/a#")).collect();
    assert_eq!(of_a, ["/a#1 started", "/a#1 stopped"]);
}

/// What the lives of a component leave to each other.
#[derive(Clone)]
struct Will {
    log: Log,
    /// Starts, from the first on; `ok` afterwards.
    starts: Arc<Mutex<Vec<&'static str>>>,
    ends_in_recovery: bool,
}

struct Heir(Will);

impl Actor for Heir {
    type Message = Do;
    type Args = Will;

    async fn start(will: &Will, _: &mut Context<Self>) -> Result<Self, StartError> {
        let how = {
            let mut starts = will.starts.lock().unwrap();
            if starts.is_empty() { "ok" } else { starts.remove(0) }
        };
        match how {
            "fail" => Err(Failure::transient("told to").into()),
            "panic" => panic!("told to"),
            "hang" => std::future::pending().await,
            _ => Ok(Self(will.clone())),
        }
    }

    async fn handle(&mut self, _: Do, _: &mut Context<Self>) -> Result<(), Failure> {
        Err(Failure::permanent("told to"))
    }
}

impl SupervisedComponent for Heir {
    type Handover = u64;

    async fn prepare_for_restart(&mut self, _: &mut Context<Self>) -> Option<u64> {
        Some(42)
    }

    async fn post_restart_recovery(
        &mut self,
        handover: Option<u64>,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        self.0.log.note(format!("recover {handover:?}"));
        if self.0.ends_in_recovery {
            cx.stop();
        }
        Ok(())
    }
}

fn heir(starts: &[&'static str], log: &Log) -> Will {
    let starts = Arc::new(Mutex::new(starts.to_vec()));
    Will { log: log.clone(), starts, ends_in_recovery: false }
}

/// What one life left to the next was lost when the next one failed to start; the one after it
/// recovered without.
#[tokio::test(start_paused = true)]
async fn a_handover_survives_starts_that_fail() {
    let cases: [&[&'static str]; 5] = [
        &["ok"],
        &["ok", "fail"],
        &["ok", "panic"],
        &["ok", "hang"],
        &["ok", "fail", "hang", "panic"],
    ];
    for starts in cases {
        let log = Log::default();
        let spec = ChildSpec::component::<Heir>("a", heir(starts, &log)).start_deadline(secs(1));
        let system = start(root().child(spec)).await;
        let _ = answered("the restart", system.restart("/a")).await;
        tokio::time::sleep(secs(10)).await;
        assert_eq!(log.take(), ["recover Some(42)"], "{starts:?}");
        // A crash hands nothing over, and an old hand-over is not found again.
        at(&system, "/a").try_tell(Do::Fail).unwrap();
        settle().await;
        assert_eq!(log.take(), ["recover None"], "{starts:?}");
    }
}

/// An actor that ended itself while it recovered went on until its first message.
#[tokio::test(start_paused = true)]
async fn a_component_can_end_itself_while_it_recovers() {
    let log = Log::default();
    let will = Will { ends_in_recovery: true, ..heir(&[], &log) };
    let spec = ChildSpec::component::<Heir>("a", will).restart(RestartPolicy::Transient);
    let system = start(root().child(spec)).await;
    system.kill("/a").unwrap();
    settle().await;
    assert_eq!(seen(&system, "/a"), (SlotState::Down, 2));
}

/// A child whose start was refused, because one of that id runs, overwrote the terms of the one that
/// runs: the tree showed another restart policy, and plans another kind of stop.
#[tokio::test(start_paused = true)]
async fn a_start_that_is_refused_changes_nothing() {
    for dynamic in [false, true] {
        let log = Log::default();
        let s = if dynamic { SupervisorSpec::dynamic("s") } else { SupervisorSpec::new("s") };
        let system = start(root().child(s)).await;
        let s = system.supervisor("/s").unwrap();
        let a = puppet("a", &log).restart(RestartPolicy::Transient);
        s.start_child(a).await.unwrap();
        let other = puppet("a", &log).restart(RestartPolicy::Permanent);
        let refused = s.start_child(other.shutdown(Shutdown::BrutalKill)).await;
        assert!(matches!(refused, Err(SupervisorError::AlreadyStarted { .. })), "{refused:?}");
        assert_eq!(system.tree().find("/s/a").unwrap().restart, RestartPolicy::Transient);
        assert_eq!(system.actor("/s/a").unwrap().policy.restart, RestartPolicy::Transient);
        let plan = system.plan("/s/a", Action::Stop).unwrap();
        assert_eq!(plan.stops[0].how, PlannedEnd::Stopped, "dynamic {dynamic}");
    }
}

/// A child started later could depend on siblings that do not exist.
#[tokio::test(start_paused = true)]
async fn a_child_that_is_started_later_depends_on_siblings_that_exist() {
    let log = Log::default();
    let system = start(root().child(puppet("a", &log))).await;
    let supervisor = system.supervisor("/").unwrap();
    let answer = supervisor.start_child(puppet("b", &log).depends_on(["nobody"])).await;
    let unknown = SpecError::UnknownDependency {
        supervisor: "root".to_owned(),
        child: "b".to_owned(),
        dependency: "nobody".to_owned(),
    };
    assert!(
        matches!(&answer, Err(SupervisorError::Spec(error)) if *error == unknown),
        "{answer:?}"
    );
    assert_eq!(supervisor.which_children(), ["a"]);
    supervisor.start_child(puppet("c", &log).depends_on(["a"])).await.unwrap();
}

/// A child that was started with the wrong message type was reported as not started, and ran.
#[tokio::test(start_paused = true)]
async fn a_child_that_is_started_with_the_wrong_message_type_does_not_run() {
    for dynamic in [false, true] {
        let log = Log::default();
        let s = if dynamic { SupervisorSpec::dynamic("s") } else { SupervisorSpec::new("s") };
        let system = start(root().child(s)).await;
        let s = system.supervisor("/s").unwrap();
        assert!(s.spawn_spec::<String>(puppet("a", &log)).await.is_err());
        settle().await;
        assert_eq!(s.which_children(), Vec::<String>::new(), "dynamic {dynamic}");
        let starts = log.all().iter().filter(|line| line.starts_with("start")).count();
        let stops = log.all().iter().filter(|line| line.starts_with("stop")).count();
        assert_eq!(starts, stops, "dynamic {dynamic}: {:?}", log.all());
        s.spawn_spec::<Do>(puppet("a", &log)).await.unwrap();
    }
}

/// Ticks ten times a second: each tick arms the next one and keeps its guard.
#[derive(Clone)]
struct Ticks {
    log: Log,
    guards: Arc<Mutex<Vec<TaskGuard>>>,
}

struct Ticker(Ticks);

impl Ticker {
    fn arm(ticks: &Ticks, cx: &Context<Self>) {
        ticks.guards.lock().unwrap().push(cx.tell_after(ms(100), ()));
    }
}

impl Actor for Ticker {
    type Message = ();
    type Args = Ticks;

    async fn start(ticks: &Ticks, cx: &mut Context<Self>) -> Result<Self, StartError> {
        ticks.guards.lock().unwrap().clear();
        Self::arm(ticks, cx);
        Ok(Self(ticks.clone()))
    }

    async fn handle(&mut self, (): (), cx: &mut Context<Self>) -> Result<(), Failure> {
        self.0.log.note("tick");
        Self::arm(&self.0, cx);
        Ok(())
    }
}

/// A timer's message that waited in the mailbox when its life ended was handled by the next life,
/// which has timers of its own: after a hundred such restarts an actor ticked a hundred times as
/// often.
#[tokio::test(start_paused = true)]
async fn a_timer_of_one_life_does_not_tick_in_the_next() {
    for suspended in [false, true] {
        let ticks = Ticks { log: Log::default(), guards: Arc::default() };
        let system = start(root().child(ChildSpec::actor::<Ticker>("a", ticks.clone()))).await;
        for n in 1..=100 {
            if suspended {
                system.suspend("/a").await.unwrap();
            }
            tokio::time::sleep(ms(150)).await;
            assert_eq!(system.kill("/a").unwrap(), Some(n));
            settle().await;
            if suspended {
                system.resume("/a").await.unwrap();
            }
            settle().await;
        }
        tokio::time::sleep(secs(1)).await;
        ticks.log.take();
        tokio::time::sleep(secs(10)).await;
        let rate = ticks.log.take().len();
        assert!((99..=101).contains(&rate), "suspended {suspended}: {rate} ticks in 10 s");
    }
}

/// Control: messages that come while a child backs off, and while its supervisor is killed
/// meanwhile, are each handled once and in order.
#[tokio::test(start_paused = true)]
async fn messages_that_come_in_a_backoff_are_handled_once_in_order() {
    for attempts in [1, 3] {
        for killed_in in [None, Some(0), Some(1)] {
            let log = Log::default();
            let on_crash = match attempts {
                1 => OnCrash::dead_letter(),
                n => OnCrash::redeliver::<Do>(n),
            };
            let backoff = Backoff::exponential(ms(200), ms(200));
            let a = puppet("a", &log).on_crash(on_crash).backoff(backoff).give_up_after(100);
            let Heard { system, graves, .. } =
                heard(root().child(SupervisorSpec::new("s").intensity(99, secs(1)).child(a))).await;
            let a = at(&system, "/s/a");
            a.try_tell(Do::Fail).unwrap();
            settle().await;
            for round in 0..2 {
                a.try_tell(Do::Panic).unwrap();
                for n in 0..50 {
                    a.try_tell(Do::Note(round * 50 + n)).unwrap();
                }
                if killed_in == Some(round) {
                    system.kill("/s").unwrap();
                }
                settle().await;
            }
            tokio::time::sleep(secs(10)).await;
            let case = format!("{attempts} attempts, killed in {killed_in:?}");
            assert_eq!(log.notes("a"), (0..100).collect::<Vec<_>>(), "{case}");
            assert_eq!(graves.all().len(), 3, "{case}: {:?}", graves.all());
            assert_eq!(a.depth(), 0, "{case}");
        }
    }
}
