//! What goes beyond OTP, a test each.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use mister_smith_supervisors::*;
use ractor::{ActorProcessingErr, ActorRef};

use crate::kit::*;
use crate::rules::start_error;

#[tokio::test(start_paused = true)]
async fn delays_grow_with_full_jitter_and_are_forgotten_after_health() {
    let mut seen = Vec::new();
    for seed in [1, 1, 2] {
        let delays = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&delays);
        let log = Log::default();
        let backoff = Backoff::exponential(secs(1), secs(8)).reset_after(secs(60));
        let spec = puppet("a", &log).backoff(backoff).give_up_after(100);
        let system = ActorSystem::builder(root().child(spec))
            .seed(seed)
            .observer(move |event: &LifecycleEvent| {
                if let LifecycleKind::BackingOff { delay } = event.kind {
                    written.lock().unwrap().push(delay);
                }
            })
            .start()
            .await
            .unwrap();
        let a = at(&system, "/a");
        for _ in 0..6 {
            a.try_tell(Do::Fail).unwrap();
            tokio::time::sleep(secs(10)).await;
        }
        tokio::time::sleep(secs(61)).await;
        a.try_tell(Do::Fail).unwrap();
        settle().await;
        let delays = delays.lock().unwrap().clone();
        let caps = [1, 2, 4, 8, 8, 8, 1].map(secs);
        assert_eq!(delays.len(), caps.len());
        for (delay, cap) in delays.iter().zip(caps) {
            assert!(*delay <= cap, "{delays:?}");
        }
        assert!(delays[3..6].iter().any(|delay| *delay > secs(1)), "they grow: {delays:?}");
        seen.push(delays);
    }
    assert_eq!(seen[0], seen[1], "by seed");
    assert_ne!(seen[0], seen[2], "by seed");
}

#[tokio::test(start_paused = true)]
async fn too_many_failures_in_a_row_give_up_whatever_the_intensity() {
    let log = Log::default();
    let backoff = Backoff::exponential(ms(10), ms(10)).reset_after(secs(5));
    let system = start(root().child(puppet("a", &log).backoff(backoff).give_up_after(2))).await;
    let a = at(&system, "/a");
    for _ in 0..5 {
        // Healthy in between: never two in a row.
        a.try_tell(Do::Fail).unwrap();
        tokio::time::sleep(secs(6)).await;
    }
    assert!(end_of(&system).await.is_none());
    for _ in 0..3 {
        a.try_tell(Do::Fail).unwrap();
        tokio::time::sleep(ms(20)).await;
    }
    assert!(matches!(system.ended().await, ExitReason::Escalated { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_spec_that_could_never_escalate_or_cannot_work_is_refused() {
    let log = Log::default();
    let slow = Backoff::exponential(secs(5), secs(60));
    let never = root().intensity(3, secs(5)).child(puppet("a", &log).backoff(slow));
    let error = start_error(never).await;
    assert!(error.contains("could never be exceeded"), "{error}");
    let twice = root().child(puppet("a", &log)).child(puppet("a", &log));
    assert!(start_error(twice).await.contains("declares the child \"a\" twice"));
    let unknown = root().child(puppet("a", &log).depends_on(["b"]));
    assert!(
        start_error(unknown).await.contains("depends on \"b\", which \"root\" does not declare")
    );
    let circle = SupervisorSpec::new("inner")
        .child(puppet("a", &log).depends_on(["b"]))
        .child(puppet("b", &log).depends_on(["a"]));
    let error = start_error(root().child(circle)).await;
    assert!(error.contains("a -> b -> a"), "nested, before anything starts: {error}");
    let none = root().child(puppet("a", &log).mailbox(0, Overflow::Fail));
    assert!(start_error(none).await.contains("room for at least one message"));
    assert!(start_error(root().child(puppet("", &log))).await.contains("is empty"));
    assert_eq!(log.take(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_start_that_hangs_is_a_failed_start() {
    let log = Log::default();
    let child = ChildSpec::actor::<Puppet>("a", Role::new("a", &log).starts(&["ok", "hang"]))
        .start_deadline(secs(7));
    let system = start(root().child(child)).await;
    let a = at(&system, "/a");
    a.try_tell(Do::Fail).unwrap();
    tokio::time::sleep(secs(6)).await;
    assert_eq!(a.state(), SlotState::Starting);
    tokio::time::sleep(secs(2)).await;
    assert_eq!((a.state(), a.life()), (SlotState::Up, 3));
    let tree = system.tree();
    let reason = &tree.find("/a").unwrap().last_failure.as_ref().unwrap().reason;
    assert_eq!(reason.to_string(), "start took longer than 7s");
}

#[tokio::test(start_paused = true)]
async fn dependencies_are_the_start_order_and_the_affected_set() {
    let log = Log::default();
    let system = start(
        root()
            .child(puppet("api", &log).depends_on(["cache"]))
            .child(puppet("report", &log))
            .child(puppet("cache", &log).depends_on(["pool"]))
            .child(puppet("pool", &log)),
    )
    .await;
    assert_eq!(log.take(), ["start report", "start pool", "start cache", "start api"]);
    at(&system, "/pool").try_tell(Do::Fail).unwrap();
    settle().await;
    assert_eq!(
        log.take(),
        ["stop api shutdown", "stop cache shutdown", "start pool", "start cache", "start api"]
    );
    at(&system, "/cache").try_tell(Do::Fail).unwrap();
    settle().await;
    assert_eq!(log.take(), ["stop api shutdown", "start cache", "start api"]);
}

#[tokio::test(start_paused = true)]
async fn independent_dependents_come_back_even_if_one_of_them_fails_to_start() {
    let log = Log::default();
    let b = ChildSpec::actor::<Puppet>("b", Role::new("b", &log).starts(&["ok", "fail"]));
    let system = start(
        root()
            .child(puppet("a", &log))
            .child(b.depends_on(["a"]))
            .child(puppet("c", &log).depends_on(["a"])),
    )
    .await;
    at(&system, "/a").try_tell(Do::Fail).unwrap();
    settle().await;
    for path in ["/a", "/b", "/c"] {
        assert_eq!(state(&system, path), SlotState::Up, "{path}");
    }
}

/// A component whose health and hand-over the test decides.
struct Part {
    shared: Shared,
    count: u64,
}

#[derive(Clone, Default)]
struct Shared {
    health: Arc<Mutex<Option<Health>>>,
    log: Log,
    checks: Arc<AtomicU32>,
}

impl Actor for Part {
    type Message = Do;
    type Args = Shared;

    async fn start(shared: &Shared, _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self { shared: shared.clone(), count: 0 })
    }

    async fn handle(&mut self, what: Do, _: &mut Context<Self>) -> Result<(), Failure> {
        match what {
            Do::Note(n) => {
                self.count += n;
                self.shared.log.note(format!("count {}", self.count));
                Ok(())
            }
            Do::Sleep(long, _) => {
                tokio::time::sleep(long).await;
                Ok(())
            }
            _ => Err(Failure::permanent("told to")),
        }
    }

    fn message_name(message: &Do) -> &'static str {
        match message {
            Do::Sleep(..) => "Sleep",
            _ => "Other",
        }
    }
}

impl SupervisedComponent for Part {
    type Handover = u64;

    async fn health_check(&mut self, _: &mut Context<Self>) -> Health {
        self.shared.checks.fetch_add(1, Ordering::Relaxed);
        self.shared.health.lock().unwrap().clone().unwrap_or(Health::Healthy)
    }

    async fn prepare_for_restart(&mut self, _: &mut Context<Self>) -> Option<u64> {
        self.shared.log.note("prepare");
        Some(self.count)
    }

    async fn post_restart_recovery(
        &mut self,
        handover: Option<u64>,
        _: &mut Context<Self>,
    ) -> Result<(), Failure> {
        self.shared.log.note(format!("recover {handover:?}"));
        self.count = handover.unwrap_or(1_000);
        Ok(())
    }

    fn supervision_metadata(_: &Shared) -> SupervisionMetadata {
        SupervisionMetadata::of(PART)
    }
}

const PART: ComponentType = ComponentType::new("part");

fn part(shared: &Shared) -> ChildSpec {
    ChildSpec::component::<Part>("part", shared.clone())
}

#[tokio::test(start_paused = true)]
async fn a_planned_restart_hands_over_and_a_crash_does_not() {
    let shared = Shared::default();
    let system = start(root().child(part(&shared))).await;
    let a = at(&system, "/part");
    a.try_tell(Do::Note(5)).unwrap();
    settle().await;
    system.restart("/part").await.unwrap();
    a.try_tell(Do::Note(1)).unwrap();
    settle().await;
    a.try_tell(Do::Fail).unwrap();
    // Behind the crash, and after the recovery of the next life.
    a.try_tell(Do::Note(1)).unwrap();
    settle().await;
    assert_eq!(
        shared.log.take(),
        ["count 5", "prepare", "recover Some(5)", "count 6", "recover None", "count 1001"]
    );
    assert_eq!(system.supervisor("/").unwrap().restarts_left().await.unwrap(), 999, "the crash");
}

#[tokio::test(start_paused = true)]
async fn bad_health_in_a_row_is_a_failure_and_degraded_is_not() {
    let shared = Shared::default();
    let health = HealthSpec::every(secs(10)).unhealthy_after(2);
    let system =
        start(root().intensity(1_000, secs(1_000)).child(part(&shared).health(health))).await;
    let a = at(&system, "/part");
    let say = |health| *shared.health.lock().unwrap() = Some(health);
    say(Health::degraded("slow"));
    // Off the beat of the checks, which come every ten seconds.
    tokio::time::sleep(secs(95)).await;
    assert_eq!(a.life(), 1);
    say(Health::unhealthy("no"));
    tokio::time::sleep(secs(11)).await;
    say(Health::Healthy);
    tokio::time::sleep(secs(10)).await;
    assert_eq!(a.life(), 1, "not in a row");
    say(Health::unhealthy("broken"));
    tokio::time::sleep(secs(21)).await;
    assert_eq!(a.life(), 2);
    let tree = system.tree();
    let node = tree.find("/part").unwrap();
    assert_eq!(node.last_failure.as_ref().unwrap().reason.to_string(), "unhealthy: broken");
    assert_eq!(shared.log.all()[0], "prepare", "a restart for bad health is planned");
    assert_eq!(system.supervisor("/").unwrap().restarts_left().await.unwrap(), 999, "and counted");
    assert!(shared.checks.load(Ordering::Relaxed) > 10);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_handler_is_reported_with_its_message_and_since_when() {
    let shared = Shared::default();
    let health = HealthSpec::every(secs(10)).stuck_after(secs(30)).unhealthy_after(1_000);
    let system = start(root().child(part(&shared).health(health))).await;
    at(&system, "/part").try_tell(Do::Sleep(secs(10_000), 0)).unwrap();
    tokio::time::sleep(secs(25)).await;
    let tree = system.tree();
    let node = tree.find("/part").unwrap();
    assert!(!matches!(node.health, Some(Health::Unhealthy(_))), "{:?}", node.health);
    tokio::time::sleep(secs(30)).await;
    let tree = system.tree();
    let node = tree.find("/part").unwrap();
    let health = node.health.as_ref().unwrap().to_string();
    assert!(health.starts_with("unhealthy: stuck in Sleep for "), "{health}");
    let (message, since) = node.mailbox.as_ref().unwrap().in_hand.unwrap();
    assert_eq!(message, "Sleep");
    assert!((54..=55).contains(&since.as_secs()), "{since:?}");
}

#[tokio::test(start_paused = true)]
async fn suspended_messages_wait_and_the_state_is_kept() {
    let shared = Shared::default();
    let log = Log::default();
    let system =
        start(root().strategy(Strategy::OneForAll).child(puppet("a", &log)).child(part(&shared)))
            .await;
    let a = at(&system, "/part");
    a.try_tell(Do::Note(5)).unwrap();
    settle().await;
    system.suspend("/part").await.unwrap();
    a.try_tell(Do::Note(1)).unwrap();
    settle().await;
    assert_eq!((state(&system, "/part"), a.depth()), (SlotState::Suspended, 1));
    system.resume("/part").await.unwrap();
    settle().await;
    assert_eq!(shared.log.take(), ["count 5", "count 6"]);
    // Suspended through a restart of its group, as OTP has no word for.
    system.suspend("/part").await.unwrap();
    a.try_tell(Do::Note(1)).unwrap();
    at(&system, "/a").try_tell(Do::Fail).unwrap();
    settle().await;
    assert_eq!(
        (state(&system, "/a"), state(&system, "/part")),
        (SlotState::Up, SlotState::Suspended)
    );
    system.resume("/part").await.unwrap();
    settle().await;
    assert_eq!(state(&system, "/part"), SlotState::Up);
    // What it was stopped with is handed over to the life that it is resumed with.
    assert_eq!(shared.log.all().last().unwrap(), "count 7", "{:?}", shared.log.all());
}

#[tokio::test(start_paused = true)]
async fn limits_and_policies_change_at_run_time() {
    let log = Log::default();
    let system = start(root().intensity(0, secs(9)).child(puppet("a", &log))).await;
    let root = system.supervisor("/").unwrap();
    root.set_intensity(Intensity::new(5, secs(9))).await.unwrap();
    let a = at(&system, "/a");
    a.try_tell(Do::Fail).unwrap();
    settle().await;
    assert_eq!(a.life(), 2);
    let transient = ChildPolicy { restart: RestartPolicy::Transient, ..ChildPolicy::OTP };
    root.set_policy("a", transient).await.unwrap();
    a.try_tell(Do::End).unwrap();
    settle().await;
    assert_eq!(a.state(), SlotState::Down);
}

#[tokio::test(start_paused = true)]
async fn policies_come_by_component_type() {
    let shared = Shared::default();
    let first_goes_up = ChildPolicy { give_up_after: Some(0), ..ChildPolicy::OTP };
    let system = ActorSystem::builder(root().child(part(&shared)))
        .policies(Policies::new().set(PART, first_goes_up))
        .start()
        .await
        .unwrap();
    at(&system, "/part").try_tell(Do::Fail).unwrap();
    assert!(matches!(system.ended().await, ExitReason::Escalated { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_raw_ractor_actor_can_be_a_child() {
    struct Raw(Log);
    impl ractor::Actor for Raw {
        type Msg = String;
        type State = ();
        type Arguments = ();
        async fn pre_start(
            &self,
            myself: ActorRef<String>,
            (): (),
        ) -> Result<(), ActorProcessingErr> {
            self.0.note("start");
            let _ = myself.send_message("hello".to_owned());
            Ok(())
        }
        async fn handle(
            &self,
            _: ActorRef<String>,
            message: String,
            (): &mut (),
        ) -> Result<(), ActorProcessingErr> {
            self.0.note(message);
            if self.0.all().len() == 2 { Err("told to".into()) } else { Ok(()) }
        }
    }
    let log = Log::default();
    let made = log.clone();
    let system = start(root().child(ChildSpec::raw("raw", move || (Raw(made.clone()), ())))).await;
    settle().await;
    assert_eq!(log.take(), ["start", "hello", "start", "hello"]);
    let tree = system.tree();
    let node = tree.find("/raw").unwrap();
    assert_eq!((node.kind, node.restarts), (SlotKind::Raw, 1));
    assert!(matches!(system.suspend("/raw").await, Err(SupervisorError::Unsupported { .. })));
    log.note("so that it does not fail again");
    system.kill("/raw").unwrap();
    settle().await;
    assert_eq!(log.take()[1..], ["start", "hello"]);
    system.stop("/raw").await.unwrap();
    assert_eq!(state(&system, "/raw"), SlotState::Down);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_kept_with_message_place_and_backtrace() {
    let log = Log::default();
    let system = start(root().child(puppet("a", &log))).await;
    at(&system, "/a").try_tell(Do::Panic).unwrap();
    settle().await;
    let tree = system.tree();
    let failure = tree.find("/a").unwrap().last_failure.clone().unwrap();
    let panic = failure.reason.panic().unwrap();
    assert_eq!(panic.message, "told to panic");
    assert!(panic.location.as_ref().unwrap().contains("kit.rs:"));
    assert!(panic.backtrace.to_string().contains("Puppet"), "{}", panic.backtrace);
    assert_eq!((failure.life, failure.message_in_hand), (1, Some("kit::Do")));
}

#[tokio::test(start_paused = true)]
async fn every_restart_names_its_cause() {
    let log = Log::default();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&seen);
    let system = ActorSystem::builder(
        root().strategy(Strategy::OneForAll).child(puppet("a", &log)).child(puppet("b", &log)),
    )
    .observer(move |event: &LifecycleEvent| written.lock().unwrap().push(event.clone()))
    .start()
    .await
    .unwrap();
    at(&system, "/a").try_tell(Do::Fail).unwrap();
    settle().await;
    let seen = seen.lock().unwrap();
    let failed = seen.iter().find(|event| event.kind.name() == "failed").unwrap().seq;
    for event in seen.iter().filter(|event| event.seq > failed) {
        assert_eq!(event.cause_seq, Some(failed), "{event}");
    }
    let seqs: Vec<u64> = seen.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (1..=seen.len() as u64).collect::<Vec<_>>(), "without holes");
}

#[tokio::test(start_paused = true)]
async fn two_systems_do_not_know_of_each_other() {
    let (left_log, right_log) = (Log::default(), Log::default());
    let left = start(root().child(puppet("a", &left_log))).await;
    let right = start(root().child(puppet("a", &right_log))).await;
    at(&left, "/a").try_tell(Do::Fail).unwrap();
    settle().await;
    left.shutdown(secs(5)).await;
    assert_eq!(at(&right, "/a").ask(Do::Life).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn ids_with_slashes_and_percent_signs_are_found() {
    let log = Log::default();
    let system = start(root().child(SupervisorSpec::dynamic("d").intensity(99, secs(9)))).await;
    let d = system.supervisor("/d").unwrap();
    for id in ["octo/repo", "50%", "a%2Fb", "ü — ☃"] {
        let a = d.spawn::<Puppet>(id, Role::new(id, &log)).await.unwrap();
        assert_eq!(at(&system, a.path().as_str()).path(), a.path());
        assert!(d.child::<Do>(id).is_some());
        assert!(system.kill(a.path().as_str()).unwrap().is_some());
        assert_eq!(system.look(a.path().as_str(), Depth::ALL).unwrap().root.id, id);
    }
    assert!(system.find::<Do>("/d/octo/repo").is_ok(), "not escaped");
    assert!(matches!(system.find::<u8>("/d/50%25"), Err(LookupError::WrongType { .. })));
    assert!(matches!(system.find::<Do>("/x"), Err(LookupError::NotFound { .. })));
}

#[tokio::test(start_paused = true)]
async fn the_picture() {
    let log = Log::default();
    let system = start(
        SupervisorSpec::new("shop")
            .strategy(Strategy::RestForOne)
            .intensity(9, secs(1))
            .child(puppet("pool", &log))
            .child(
                SupervisorSpec::dynamic("orders").child(puppet("7", &log)).child(puppet("8", &log)),
            )
            .child(SupervisorSpec::new("edge").child(puppet("http", &log))),
    )
    .await;
    at(&system, "/edge/http").try_tell(Do::Fail).unwrap();
    settle().await;
    system.suspend("/orders/8").await.unwrap();
    at(&system, "/orders/8").try_tell(Do::Note(1)).unwrap();
    tokio::time::sleep(secs(3)).await;
    let expected = "\
shop       rest_for_one   up 3 s
├─ pool    up
├─ orders  dynamic      2 live
│  ├─ 7    up
│  └─ 8    suspended   1 waiting
└─ edge    one_for_one
   └─ http up   restarts 1   last: permanent: told to
";
    let picture = system.tree().to_string();
    let squeeze = |text: &str| {
        text.lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
    };
    assert_eq!(squeeze(&picture), squeeze(expected), "\n{picture}");
}
