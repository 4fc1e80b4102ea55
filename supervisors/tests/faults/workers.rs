//! An actor whose messages are code, and ways to wait for it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use mister_smith_supervisors::*;

use crate::kit::{Log, ms, secs};

pub(crate) type Run<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

type Code = Box<dyn for<'a> FnOnce(&'a mut Context<Worker>) -> Run<'a, Result<(), Failure>> + Send>;
type OnStart =
    Arc<dyn for<'a> Fn(&'a mut Context<Worker>) -> Run<'a, Result<(), StartError>> + Send + Sync>;
type OnStop = Arc<dyn for<'a> Fn(&'a mut Context<Worker>) -> Run<'a, ()> + Send + Sync>;
type OnDrop = Arc<dyn Fn(u64) + Send + Sync>;

/// A message that says itself how it is handled.
pub(crate) struct Job(Code);

/// A message that runs `code`.
pub(crate) fn job(
    code: impl for<'a> FnOnce(&'a mut Context<Worker>) -> Run<'a, Result<(), Failure>> + Send + 'static,
) -> Job {
    Job(Box::new(code))
}

/// A message that runs `code`, which does not wait.
pub(crate) fn call(code: impl FnOnce(&mut Context<Worker>) + Send + 'static) -> Job {
    job(move |cx| {
        Box::pin(async move {
            code(cx);
            Ok(())
        })
    })
}

/// A message that fails its life.
pub(crate) fn failure() -> Job {
    job(|_| Box::pin(async { Err(Failure::permanent("told to")) }))
}

/// A message that notes `id` and the life that handled it.
pub(crate) fn noted(id: &'static str, log: &Log) -> Job {
    let log = log.clone();
    call(move |cx| log.note(format!("{id} {}", cx.life())))
}

/// A message, and a future that is done when it was handled or dropped.
pub(crate) fn last() -> (Job, impl Future<Output = ()>) {
    let (done, waits) = tokio::sync::oneshot::channel::<()>();
    let waits = async move {
        let _ = waits.await;
    };
    (call(move |_| drop(done)), waits)
}

/// A question that is answered at once when it is handled.
pub(crate) fn ping(port: ReplyPort<()>) -> Job {
    call(move |_| port.send(()))
}

/// What the worker of one slot does besides its messages.
#[derive(Clone)]
pub(crate) struct Plan {
    id: &'static str,
    log: Log,
    on_start: Option<OnStart>,
    on_stop: Option<OnStop>,
    on_drop: Option<OnDrop>,
}

/// A worker that notes `start id` and `stop id`.
pub(crate) fn plan(id: &'static str, log: &Log) -> Plan {
    Plan { id, log: log.clone(), on_start: None, on_stop: None, on_drop: None }
}

/// The same as a child.
pub(crate) fn worker(id: &'static str, log: &Log) -> ChildSpec {
    plan(id, log).spec()
}

impl Plan {
    pub(crate) fn on_start(
        mut self,
        code: impl for<'a> Fn(&'a mut Context<Worker>) -> Run<'a, Result<(), StartError>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.on_start = Some(Arc::new(code));
        self
    }

    pub(crate) fn on_stop(
        mut self,
        code: impl for<'a> Fn(&'a mut Context<Worker>) -> Run<'a, ()> + Send + Sync + 'static,
    ) -> Self {
        self.on_stop = Some(Arc::new(code));
        self
    }

    /// Given the number of the life that is dropped.
    pub(crate) fn on_drop(mut self, code: impl Fn(u64) + Send + Sync + 'static) -> Self {
        self.on_drop = Some(Arc::new(code));
        self
    }

    pub(crate) fn spec(self) -> ChildSpec {
        ChildSpec::actor::<Worker>(self.id, self)
    }
}

pub(crate) struct Worker {
    plan: Plan,
    life: u64,
}

impl Actor for Worker {
    type Message = Job;
    type Args = Plan;

    async fn start(plan: &Plan, cx: &mut Context<Self>) -> Result<Self, StartError> {
        if let Some(code) = &plan.on_start {
            code(cx).await?;
        }
        plan.log.note(format!("start {}", plan.id));
        Ok(Self { plan: plan.clone(), life: cx.life() })
    }

    async fn handle(&mut self, job: Job, cx: &mut Context<Self>) -> Result<(), Failure> {
        (job.0)(cx).await
    }

    async fn stop(&mut self, _: &ExitReason, cx: &mut Context<Self>) {
        self.plan.log.note(format!("stop {}", self.plan.id));
        if let Some(code) = &self.plan.on_stop {
            code(cx).await;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(code) = &self.plan.on_drop {
            code(self.life);
        }
    }
}

pub(crate) fn to(system: &ActorSystem, path: &str) -> Address<Job> {
    system.find(path).unwrap()
}

/// State and life of the slot at `path`.
pub(crate) fn seen(system: &ActorSystem, path: &str) -> (SlotState, u64) {
    let root = system.look(path, Depth::FOLDED).unwrap().root;
    (root.state, root.life)
}

/// Counts dead letters.
pub(crate) fn graves() -> (impl DeadLetters, Log) {
    let log = Log::default();
    let written = log.clone();
    let hook = move |letter: DeadLetter| {
        written.note(format!("{}#{} {}", letter.path, letter.life, letter.cause));
    };
    (hook, log)
}

/// A system whose events and dead letters are written down.
pub(crate) struct Heard {
    pub(crate) system: ActorSystem,
    pub(crate) events: Log,
    pub(crate) graves: Log,
}

pub(crate) async fn heard(root: SupervisorSpec) -> Heard {
    let (observer, events) = crate::kit::events();
    let (hook, graves) = graves();
    let builder = ActorSystem::builder(root).observer(observer).dead_letters(hook);
    Heard { system: builder.start().await.unwrap(), events, graves }
}

/// Waits for an answer on a paused clock, or fails: nothing here takes an hour.
pub(crate) async fn answered<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(secs(3_600), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: no answer within an hour"),
    }
}

/// How long it takes on a paused clock.
pub(crate) async fn timed<T>(what: &str, future: impl Future<Output = T>) -> (T, Duration) {
    let began = tokio::time::Instant::now();
    let value = answered(what, future).await;
    (value, began.elapsed())
}

/// Waits for an answer in real time.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(secs(15), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within 15 s"),
    }
}

/// Waits in real time until something holds.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    soon(what, async {
        while !holds() {
            tokio::time::sleep(ms(1)).await;
        }
    })
    .await;
}

/// Runs a test in real time on this many workers; on the test's own thread for 0.
///
/// A test that fails may leave threads that are blocked for good, so nobody waits for them.
pub(crate) fn real(workers: usize, test: impl Future<Output = ()>) {
    let mut builder = match workers {
        0 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if workers > 0 {
        builder.worker_threads(workers);
    }
    let runtime = builder.enable_all().build().unwrap();
    let pulse = (workers > 0).then(|| Pulse::of(&runtime));
    let ended = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async { tokio::time::timeout(secs(120), test).await })
    }));
    drop(pulse);
    runtime.shutdown_background();
    match ended {
        Ok(done) => done.expect("the test hangs"),
        Err(panic) => resume_unwind(panic),
    }
}

/// Gives a runtime a task now and then: while one of its workers is blocked, another one that sleeps
/// may not notice that timers are due.
struct Pulse(Arc<AtomicBool>);

impl Pulse {
    fn of(runtime: &tokio::runtime::Runtime) -> Self {
        let (handle, over) = (runtime.handle().clone(), Arc::new(AtomicBool::new(false)));
        let pulse = Self(Arc::clone(&over));
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                handle.spawn(async {});
                std::thread::sleep(ms(5));
            }
        });
        pulse
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Holds back threads that come to it, until the test opens it or ends.
#[derive(Default)]
pub(crate) struct Gate(Arc<Bar>);

/// The side of a [`Gate`] that blocks.
#[derive(Clone)]
pub(crate) struct Shut(Arc<Bar>);

#[derive(Default)]
struct Bar {
    /// How many came, and whether it is open.
    state: Mutex<(u32, bool)>,
    opened: Condvar,
}

impl Gate {
    pub(crate) fn shut(&self) -> Shut {
        Shut(Arc::clone(&self.0))
    }

    /// Waits until somebody stands before it.
    pub(crate) async fn reached(&self) {
        until("somebody at the gate", || self.0.state.lock().unwrap().0 > 0).await;
    }

    pub(crate) fn open(&self) {
        self.0.state.lock().unwrap().1 = true;
        self.0.opened.notify_all();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

impl Shut {
    /// Blocks this thread, as code does that never yields.
    pub(crate) fn block(&self) {
        let mut state = self.0.state.lock().unwrap();
        state.0 += 1;
        while !state.1 {
            state = self.0.opened.wait(state).unwrap();
        }
    }
}

/// A message that notes `id` and its life, and then blocks.
pub(crate) fn blocks(id: &'static str, log: &Log, gate: &Gate) -> Job {
    let (log, shut) = (log.clone(), gate.shut());
    call(move |cx| {
        log.note(format!("{id} {}", cx.life()));
        shut.block();
    })
}
