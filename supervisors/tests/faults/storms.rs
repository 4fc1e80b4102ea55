//! Random trees of actors whose code panics, blocks, dawdles and gives orders to supervisors, its own
//! among them, at any point of a life; with orders, kills and verdicts on health racing.
//!
//! Whatever happens: every order is answered, every supervisor is up unless it was told to stop,
//! bystanders are in their first life, no two lives of a slot overlap, every message is handled once
//! or a dead letter once or handed back, and the shutdown ends.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, mpsc};
use std::time::Duration;

use mister_smith_supervisors::{
    Actor, ActorSystem, Backoff, ChildSpec, Context, DeadLetter, DeadLetterCause, ExitReason,
    Failure, Health, HealthSpec, LifecycleEvent, LifecycleKind, ReplyPort, RestartPolicy, Shutdown,
    SlotKind, SlotState, StartError, Strategy, SupervisedComponent, SupervisorError, SupervisorRef,
    SupervisorSpec,
};
use proptest::collection::vec;
use proptest::prelude::{
    Just, ProptestConfig, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use proptest::strategy::Strategy as Generate;
use proptest::test_runner::TestCaseError;

use crate::kit::{ms, secs};

/// How long an order may take when nothing else happens any more. All that the code of an actor does
/// here is over within a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the code of an actor does at one point of its life.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Nothing,
    Fail,
    Panic,
    /// Waits, and can be killed meanwhile.
    Dawdle(u64),
    /// Blocks its thread.
    Block(u64),
    /// Ends the life in order.
    End,
    /// Asks another actor, by its number.
    Ask(usize),
    /// Gives an order about a slot, by its number.
    Order(Order, usize),
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Terminate,
    Restart,
    PlannedRestart,
    Suspend,
    Resume,
}

fn order() -> impl Generate<Value = Order> {
    prop_oneof![
        3 => Just(Order::Terminate),
        2 => Just(Order::Restart),
        4 => Just(Order::PlannedRestart),
        1 => Just(Order::Suspend),
        2 => Just(Order::Resume),
    ]
}

fn deed() -> impl Generate<Value = Deed> {
    prop_oneof![
        4 => Just(Deed::Nothing),
        2 => Just(Deed::Fail),
        2 => Just(Deed::Panic),
        2 => (1u64..300).prop_map(Deed::Dawdle),
        1 => (1u64..4).prop_map(Deed::Block),
        1 => Just(Deed::End),
        2 => (0usize..64).prop_map(Deed::Ask),
        5 => (order(), 0usize..64).prop_map(|(order, at)| Deed::Order(order, at)),
    ]
}

/// One worker on paper: what it does at its later starts, its stops, its drops and its checks.
#[derive(Clone, Debug)]
struct Paper {
    restart: RestartPolicy,
    brutal: bool,
    backoff: bool,
    starts: Vec<Deed>,
    stops: Vec<Deed>,
    drops: Vec<Deed>,
    unhealthy: Vec<bool>,
}

fn paper() -> impl Generate<Value = Paper> {
    let restart = prop_oneof![
        5 => Just(RestartPolicy::Permanent),
        1 => Just(RestartPolicy::Transient),
        1 => Just(RestartPolicy::Temporary),
    ];
    let drops = prop_oneof![
        2 => Just(Deed::Nothing),
        1 => Just(Deed::Panic),
        1 => (1u64..4).prop_map(Deed::Block),
    ];
    let code = (vec(deed(), 0..3), vec(deed(), 0..3), vec(drops, 0..2), vec(any::<bool>(), 0..4));
    (restart, any::<bool>(), any::<bool>(), code).prop_map(
        |(restart, brutal, backoff, (starts, stops, drops, unhealthy))| Paper {
            restart,
            brutal,
            backoff,
            starts,
            stops,
            drops,
            unhealthy,
        },
    )
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Static(Strategy),
    Dynamic { keep: bool },
}

#[derive(Clone, Debug)]
struct Group {
    kind: Kind,
    intensity: u32,
    workers: Vec<Paper>,
    below: Option<(Strategy, Vec<Paper>)>,
}

fn strategy() -> impl Generate<Value = Strategy> {
    prop_oneof![Just(Strategy::OneForOne), Just(Strategy::RestForOne), Just(Strategy::OneForAll)]
}

fn group() -> impl Generate<Value = Group> {
    let kind = prop_oneof![
        3 => strategy().prop_map(Kind::Static),
        1 => any::<bool>().prop_map(|keep| Kind::Dynamic { keep }),
    ];
    let below = proptest::option::of((strategy(), vec(paper(), 1..3)));
    (kind, 0u32..20, vec(paper(), 1..4), below)
        .prop_map(|(kind, intensity, workers, below)| Group { kind, intensity, workers, below })
}

#[derive(Clone, Debug)]
enum Event {
    Tell(usize, Deed),
    Kill(usize),
    Order(Order, usize),
    Wait(u64),
}

fn event() -> impl Generate<Value = Event> {
    prop_oneof![
        8 => (0usize..64, deed()).prop_map(|(at, deed)| Event::Tell(at, deed)),
        2 => (0usize..64).prop_map(Event::Kill),
        3 => (order(), 0usize..64).prop_map(|(order, at)| Event::Order(order, at)),
        3 => (1u64..200).prop_map(Event::Wait),
    ]
}

/// What all actors of one storm share.
#[derive(Default)]
struct World {
    /// Supervisors and workers that orders may be about, with their parents.
    targets: Vec<(String, String)>,
    /// Orders that actors have given and that are not answered; one whose asker is gone counts as
    /// answered.
    open: AtomicI64,
    /// What was told to stop.
    stopped: Mutex<BTreeSet<String>>,
    /// By message: how often its handling began, and how often it was a dead letter that waited or
    /// was handed back.
    begun: Mutex<Vec<u32>>,
    unhandled: Mutex<Vec<u32>>,
    finished: AtomicU64,
    lost_in_hand: AtomicU64,
    overlaps: AtomicU64,
    seqs: Mutex<Vec<u64>>,
    /// Supervisors that failed by something else than a kill, a child or too many restarts.
    harmed: Mutex<Vec<String>>,
}

impl World {
    fn hear(&self, event: &LifecycleEvent) {
        self.seqs.lock().unwrap().push(event.seq);
        let supervisor = matches!(event.slot, SlotKind::Supervisor | SlotKind::DynamicSupervisor);
        if let LifecycleKind::Failed { reason } = &event.kind
            && supervisor
            && !matches!(
                reason,
                ExitReason::Killed | ExitReason::Escalated { .. } | ExitReason::ChildStart { .. }
            )
        {
            self.harmed.lock().unwrap().push(event.to_string());
        }
    }

    fn target(&self, n: usize) -> (&str, &str) {
        let (parent, id) = &self.targets[n % self.targets.len()];
        (parent, id)
    }

    fn path(&self, n: usize) -> String {
        let (parent, id) = self.target(n);
        format!("{}/{id}", parent.trim_end_matches('/'))
    }

    fn note_stop(&self, order: Order, n: usize) {
        if matches!(order, Order::Terminate) {
            self.stopped.lock().unwrap().insert(self.path(n));
        }
    }
}

async fn carry_out(
    supervisor: &SupervisorRef,
    order: Order,
    id: &str,
) -> Result<(), SupervisorError> {
    match order {
        Order::Terminate => supervisor.terminate_child(id).await,
        Order::Restart => supervisor.restart_child(id).await,
        Order::PlannedRestart => supervisor.planned_restart(id).await,
        Order::Suspend => supervisor.suspend(id).await,
        Order::Resume => supervisor.resume(id).await,
    }
}

/// Counts an order until it is answered or its asker is gone.
struct Open(Arc<World>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

enum Message {
    Do { n: usize, deed: Deed },
    Ping(ReplyPort<()>),
}

/// What a worker is started from.
#[derive(Clone)]
struct Args {
    world: Arc<World>,
    lives: Arc<AtomicI64>,
    script: Arc<Mutex<Script>>,
}

#[derive(Default)]
struct Script {
    starts: VecDeque<Deed>,
    stops: VecDeque<Deed>,
    drops: VecDeque<Deed>,
    unhealthy: VecDeque<bool>,
}

/// A life of a slot, from the beginning of its start to the end of its drop.
struct Presence(Arc<AtomicI64>);

impl Presence {
    fn of(args: &Args) -> Self {
        if args.lives.fetch_add(1, Ordering::SeqCst) != 0 {
            args.world.overlaps.fetch_add(1, Ordering::SeqCst);
        }
        Self(Arc::clone(&args.lives))
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Stormy {
    args: Args,
    _presence: Presence,
}

fn block(millis: u64) {
    let (_still_here, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(ms(millis));
}

async fn act(deed: Deed, world: &Arc<World>, cx: &mut Context<Stormy>) -> Result<(), Failure> {
    match deed {
        Deed::Nothing => {}
        Deed::Fail => return Err(Failure::transient("planned")),
        Deed::Panic => panic!("planned"),
        Deed::Dawdle(millis) => tokio::time::sleep(ms(millis)).await,
        Deed::Block(millis) => block(millis),
        Deed::End => cx.stop(),
        Deed::Ask(n) => {
            if let Ok(other) = cx.find::<Message>(&world.path(n)) {
                let _ = other.ask_within(ms(300), Message::Ping).await;
            }
        }
        Deed::Order(order, n) => {
            world.note_stop(order, n);
            let (parent, id) = world.target(n);
            let supervisor = if cx.supervisor().path().as_str() == parent {
                cx.supervisor().clone()
            } else {
                match cx.find_supervisor(parent) {
                    Ok(supervisor) => supervisor,
                    Err(_) => return Ok(()),
                }
            };
            world.open.fetch_add(1, Ordering::SeqCst);
            let _open = Open(Arc::clone(world));
            let _ = carry_out(&supervisor, order, id).await;
        }
    }
    Ok(())
}

impl Actor for Stormy {
    type Message = Message;
    type Args = Args;

    async fn start(args: &Args, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let presence = Presence::of(args);
        // The first start is good, or there would be no system.
        if cx.life() > 1 {
            let deed = args.script.lock().unwrap().starts.pop_front();
            act(deed.unwrap_or(Deed::Nothing), &args.world, cx)
                .await
                .map_err(StartError::Failed)?;
        }
        Ok(Self { args: args.clone(), _presence: presence })
    }

    async fn handle(&mut self, message: Message, cx: &mut Context<Self>) -> Result<(), Failure> {
        match message {
            Message::Ping(port) => port.send(()),
            Message::Do { n, deed } => {
                let world = Arc::clone(&self.args.world);
                world.begun.lock().unwrap()[n] += 1;
                act(deed, &world, cx).await?;
                world.finished.fetch_add(1, Ordering::SeqCst);
            }
        }
        Ok(())
    }

    async fn stop(&mut self, _: &ExitReason, cx: &mut Context<Self>) {
        let deed = self.args.script.lock().unwrap().stops.pop_front();
        let _ = act(deed.unwrap_or(Deed::Nothing), &self.args.world.clone(), cx).await;
    }
}

impl SupervisedComponent for Stormy {
    type Handover = ();

    async fn health_check(&mut self, _: &mut Context<Self>) -> Health {
        match self.args.script.lock().unwrap().unhealthy.pop_front() {
            Some(true) => Health::unhealthy("planned"),
            _ => Health::Healthy,
        }
    }
}

impl Drop for Stormy {
    fn drop(&mut self) {
        let deed = self.args.script.lock().unwrap().drops.pop_front();
        match deed {
            Some(Deed::Block(millis)) => block(millis),
            Some(Deed::Panic) if !std::thread::panicking() => panic!("planned"),
            _ => {}
        }
    }
}

/// Does nothing, and must not notice anything.
struct Calm;

impl Actor for Calm {
    type Message = ();
    type Args = ();

    async fn start((): &(), _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(&mut self, (): (), _: &mut Context<Self>) -> Result<(), Failure> {
        Ok(())
    }
}

fn calm() -> ChildSpec {
    ChildSpec::actor::<Calm>("calm", ())
}

fn stormy(id: String, paper: &Paper, world: &Arc<World>) -> ChildSpec {
    let script = Script {
        starts: paper.starts.clone().into(),
        stops: paper.stops.clone().into(),
        drops: paper.drops.clone().into(),
        unhealthy: paper.unhealthy.clone().into(),
    };
    let args = Args {
        world: Arc::clone(world),
        lives: Arc::default(),
        script: Arc::new(Mutex::new(script)),
    };
    let shutdown = if paper.brutal { Shutdown::BrutalKill } else { Shutdown::After(ms(200)) };
    let spec = ChildSpec::component::<Stormy>(id, args)
        .restart(paper.restart)
        .shutdown(shutdown)
        .start_deadline(ms(250))
        .health(HealthSpec::every(ms(100)).deadline(ms(100)).unhealthy_after(1));
    if paper.backoff {
        spec.backoff(Backoff::exponential(ms(20), ms(100))).give_up_after(1_000)
    } else {
        spec
    }
}

/// The slots of the storm: what orders may be about.
fn targets(groups: &[Group]) -> Vec<(String, String)> {
    let mut targets = Vec::new();
    for (g, group) in groups.iter().enumerate() {
        let path = format!("/g{g}");
        targets.push(("/".to_owned(), format!("g{g}")));
        targets.extend((0..group.workers.len()).map(|w| (path.clone(), format!("w{w}"))));
        if let Some((_, workers)) = &group.below {
            targets.push((path.clone(), "below".to_owned()));
            let below = format!("{path}/below");
            targets.extend((0..workers.len()).map(|w| (below.clone(), format!("w{w}"))));
        }
    }
    targets
}

/// Thousands of planned panics are not worth a line each, let alone a stack.
fn hush() {
    static HUSHED: Once = Once::new();
    HUSHED.call_once(|| {
        let earlier = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&"planned") {
                earlier(info);
            }
        }));
    });
}

async fn begin(groups: &[Group], messages: usize) -> (ActorSystem, Arc<World>) {
    hush();
    let world = Arc::new(World {
        targets: targets(groups),
        begun: Mutex::new(vec![0; messages]),
        unhandled: Mutex::new(vec![0; messages]),
        ..World::default()
    });
    let mut root = SupervisorSpec::new("root").intensity(1_000_000, secs(1)).child(calm());
    let mut later = Vec::new();
    for (g, group) in groups.iter().enumerate() {
        let id = format!("g{g}");
        let spec = match group.kind {
            Kind::Static(strategy) => SupervisorSpec::new(id).strategy(strategy),
            Kind::Dynamic { keep: true } => SupervisorSpec::dynamic(id).keep_children(),
            Kind::Dynamic { keep: false } => SupervisorSpec::dynamic(id),
        };
        let spec = spec.intensity(group.intensity, secs(10)).child(calm());
        let mut children: Vec<ChildSpec> = Vec::new();
        children.extend(
            (0..).zip(&group.workers).map(|(w, paper)| stormy(format!("w{w}"), paper, &world)),
        );
        if let Some((strategy, workers)) = &group.below {
            let below = SupervisorSpec::new("below").strategy(*strategy).intensity(5, secs(10));
            let below = (0..).zip(workers).fold(below.child(calm()), |below, (w, paper)| {
                below.child(stormy(format!("w{w}"), paper, &world))
            });
            children.push(below.into());
        }
        root = root.child(match group.kind {
            Kind::Static(_) => children.into_iter().fold(spec, SupervisorSpec::child),
            Kind::Dynamic { .. } => {
                later.extend(children.into_iter().map(|child| (format!("/g{g}"), child)));
                spec
            }
        });
    }
    let (buried, heard) = (Arc::clone(&world), Arc::clone(&world));
    let system = ActorSystem::builder(root)
        .dead_letters(move |letter: DeadLetter| match (letter.cause, letter.message) {
            (DeadLetterCause::InHand(_), _) => {
                buried.lost_in_hand.fetch_add(1, Ordering::SeqCst);
            }
            (_, Some(message)) => {
                if let Ok(message) = message.downcast::<Message>()
                    && let Message::Do { n, .. } = *message
                {
                    buried.unhandled.lock().unwrap()[n] += 1;
                }
            }
            _ => {}
        })
        .observer(move |event: &LifecycleEvent| heard.hear(event))
        .backtraces(false)
        .start()
        .await
        .unwrap();
    for (parent, child) in later {
        // A health check may have ended one of them already, and its supervisor with it.
        let _ = system.supervisor(&parent).unwrap().start_child(child).await;
    }
    (system, world)
}

/// Gives all orders, kills and messages, and returns the orders that are under way.
async fn rage(
    system: &ActorSystem,
    world: &Arc<World>,
    events: &[Event],
) -> Vec<(String, tokio::task::JoinHandle<()>)> {
    let mut orders = Vec::new();
    for (n, event) in events.iter().enumerate() {
        match event {
            Event::Tell(at, deed) => {
                let told = match system.find::<Message>(&world.path(*at)) {
                    Ok(worker) => worker.try_tell(Message::Do { n, deed: *deed }).is_ok(),
                    Err(_) => false,
                };
                world.unhandled.lock().unwrap()[n] += u32::from(!told);
            }
            Event::Kill(at) => drop(system.kill(&world.path(*at))),
            Event::Order(order, at) => {
                world.note_stop(*order, *at);
                let (parent, id) = world.target(*at);
                let (order, id) = (*order, id.to_owned());
                if let Ok(supervisor) = system.supervisor(parent) {
                    let task = async move { drop(carry_out(&supervisor, order, &id).await) };
                    orders.push((format!("{event:?}"), tokio::spawn(task)));
                }
            }
            Event::Wait(millis) => tokio::time::sleep(ms(*millis)).await,
        }
    }
    orders
}

/// Waits until something holds, in virtual or real time.
async fn within_patience(holds: impl Fn() -> bool) -> bool {
    tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(ms(20)).await;
        }
    })
    .await
    .is_ok()
}

fn is_supervisor(node: &mister_smith_supervisors::NodeView) -> bool {
    node.supervisor.is_some()
}

/// What holds once nobody does anything any more. Says what does not.
fn whole(system: &ActorSystem, world: &World, groups: &[Group]) -> Result<(), String> {
    let tree = system.tree();
    let stopped = world.stopped.lock().unwrap();
    // What was told to stop, what is below it, and its group: as in OTP, a stop that meets the retry of
    // a group's start takes the retry with it.
    let excused = |path: &str| {
        stopped.iter().any(|stopped| {
            let (parent, _) = stopped.rsplit_once('/').unwrap_or_default();
            let group = tree.find(parent).and_then(|node| node.supervisor);
            let grouped = group.is_some_and(|group| group.strategy != "one_for_one");
            let reach = if grouped { parent } else { stopped };
            path == stopped || path.starts_with(&format!("{reach}/"))
        })
    };
    if (tree.root.state, tree.root.life) != (SlotState::Up, 1) {
        return Err(format!("the root is {:?} in life {}", tree.root.state, tree.root.life));
    }
    for node in tree.walk() {
        let (path, state) = (node.path.as_str(), node.state);
        let permanent = is_supervisor(node) || node.restart == RestartPolicy::Permanent;
        let good = match state {
            SlotState::Up => true,
            SlotState::Down => !permanent || excused(path),
            // Below a supervisor that is down nobody can resume it.
            SlotState::Suspended => excused(path),
            _ => false,
        };
        if !good {
            return Err(format!("{path} is {state:?}\n{tree}"));
        }
    }
    // The supervisors whose strategy spares a first child.
    let mut spared = vec![String::new()];
    for (g, group) in groups.iter().enumerate() {
        if group.kind != Kind::Static(Strategy::OneForAll) {
            spared.push(format!("/g{g}"));
        }
        if let Some((Strategy::OneForOne | Strategy::RestForOne, _)) = group.below {
            spared.push(format!("/g{g}/below"));
        }
    }
    for supervisor in spared {
        let life = match tree.find(&supervisor) {
            Some(node) if node.state == SlotState::Up => node.life,
            _ => continue,
        };
        if let Some(calm) = tree.find(&format!("{supervisor}/calm"))
            && calm.life > life
        {
            return Err(format!("{} is in life {} of {life}\n{tree}", calm.path, calm.life));
        }
    }
    Ok(())
}

/// `calm_for`: nothing begins any more when this long nothing has.
async fn check(
    groups: Vec<Group>,
    events: Vec<Event>,
    calm_for: Duration,
) -> Result<(), TestCaseError> {
    let (system, world) = begin(&groups, events.len()).await;
    let orders = rage(&system, &world, &events).await;
    within_patience(|| orders.iter().all(|(_, task)| task.is_finished())).await;
    for (order, task) in &orders {
        prop_assert!(task.is_finished(), "{order} is not answered:\n{}", system.tree());
    }
    let answered = within_patience(|| world.open.load(Ordering::SeqCst) == 0).await;
    prop_assert!(answered, "an actor's order is not answered:\n{}", system.tree());

    // What is held comes back, and may give orders again.
    for _ in 0..20 {
        tokio::time::sleep(calm_for).await;
        let tree = system.tree();
        let held: Vec<_> = tree.walk().filter(|node| node.suspended).collect();
        if whole(&system, &world, &groups).is_ok() {
            break;
        }
        for node in held {
            let resumed = tokio::time::timeout(PATIENCE, system.resume(node.path.as_str())).await;
            prop_assert!(resumed.is_ok(), "{} is not resumed:\n{}", node.path, system.tree());
        }
    }
    let answered = within_patience(|| world.open.load(Ordering::SeqCst) == 0).await;
    prop_assert!(answered, "an actor's order is not answered:\n{}", system.tree());
    if let Err(wrong) = whole(&system, &world, &groups) {
        prop_assert!(false, "{wrong}");
    }

    let ended = tokio::time::timeout(PATIENCE, system.shutdown(secs(3_600))).await;
    prop_assert!(ended.is_ok(), "the shutdown does not end:\n{}", system.tree());
    let settled = within_patience(|| {
        let begun: u64 = world.begun.lock().unwrap().iter().map(|n| u64::from(*n)).sum();
        let ended =
            world.finished.load(Ordering::SeqCst) + world.lost_in_hand.load(Ordering::SeqCst);
        begun == ended && world.seqs.lock().unwrap().len() as u64 >= system.timeline().last()
    })
    .await;
    let (begun, unhandled) = (world.begun.lock().unwrap(), world.unhandled.lock().unwrap());
    for (n, event) in events.iter().enumerate() {
        if let Event::Tell(..) = event {
            let fates = (begun[n], unhandled[n]);
            prop_assert!(
                fates == (1, 0) || fates == (0, 1),
                "message {n} {event:?}: handled {}, handed back or buried {}",
                fates.0,
                fates.1
            );
        }
    }
    let all: u64 = begun.iter().map(|n| u64::from(*n)).sum();
    let finished = world.finished.load(Ordering::SeqCst);
    let lost = world.lost_in_hand.load(Ordering::SeqCst);
    prop_assert_eq!(all, finished + lost, "begun; {} finished, {} lost in hand", finished, lost);
    let harmed = world.harmed.lock().unwrap();
    prop_assert!(harmed.is_empty(), "supervisors were harmed: {harmed:?}");
    prop_assert_eq!(world.overlaps.load(Ordering::SeqCst), 0, "two lives of a slot at once");
    let seqs = world.seqs.lock().unwrap();
    prop_assert!(settled, "{} of {} events told", seqs.len(), system.timeline().last());
    prop_assert!(seqs.iter().copied().eq(1..=system.timeline().last()), "events out of order");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, max_shrink_iters: 300, ..ProptestConfig::default() })]

    /// Actors that panicked in `Drop`, that asked their own supervisor, or that asked each other while
    /// they stopped, took supervisors, siblings or all the time of a shutdown with them. On a paused
    /// clock, so a blocked thread blocks everybody, and the order of events is by seed.
    #[test]
    fn whatever_user_code_does_the_tree_stays_whole(
        groups in vec(group(), 1..4),
        events in vec(event(), 1..24),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(check(groups, events, secs(10)))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 0, ..ProptestConfig::default() })]

    /// The same in real time on two threads, where blocked threads and real races meet.
    #[test]
    fn whatever_user_code_does_the_tree_stays_whole_on_two_threads(
        groups in vec(group(), 1..4),
        events in vec(event(), 1..24),
    ) {
        let mut outcome = Ok(());
        crate::workers::real(2, async {
            outcome = check(groups, events, ms(300)).await;
        });
        outcome?;
    }
}
