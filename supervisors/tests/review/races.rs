//! Ends, kills and closes that meet a life in the wrong moment.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context as Poll0, Poll, Waker};

use mister_smith_supervisors::*;
use ractor::{ActorProcessingErr, ActorRef};

use crate::kit::*;
use crate::workers::*;

fn now<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Poll0::from_waker(Waker::noop()))
}

#[test]
fn a_message_in_the_line_of_a_mailbox_that_closes_comes_back() {
    real(2, async {
        let log = Log::default();
        let gate = Gate::default();
        let spec =
            worker("a", &log).mailbox(1, Overflow::Wait(secs(60))).shutdown(Shutdown::BrutalKill);
        let system = start(root().child(spec)).await;
        let a = to(&system, "/a");
        a.tell(blocks("a", &log, &gate)).await.unwrap();
        gate.reached().await;
        a.tell(noted("a", &log)).await.unwrap();
        let mut waits = pin!(a.tell(noted("a", &log)));
        assert!(now(waits.as_mut()).is_pending());
        // It is given up as stuck, and its mailbox closes.
        soon("terminate", system.supervisor("/").unwrap().terminate_child("a")).await.unwrap();
        gate.open();
        until("it lets go", || seen(&system, "/a").0 == SlotState::Down).await;
        let told = now(waits);
        assert!(
            matches!(&told, Poll::Ready(Err(TellError::Stopped { .. }))),
            "nobody will handle it, but: {:?}",
            told.map(|told| told.map_err(|error| error.to_string()))
        );
    });
}

struct Hangs(Arc<AtomicU32>);

struct Count(Arc<AtomicU32>);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl ractor::Actor for Hangs {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        let _here = Count(Arc::clone(&self.0));
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn the_start_of_a_raw_actor_that_took_too_long_is_cut_off() {
    let log = Log::default();
    let system = start(root().child(puppet("b", &log))).await;
    let cut = Arc::new(AtomicU32::new(0));
    let given = Arc::clone(&cut);
    let raw = ChildSpec::raw("a", move || (Hangs(Arc::clone(&given)), ())).start_deadline(secs(1));
    let started = answered("start", system.supervisor("/").unwrap().start_child(raw)).await;
    assert!(matches!(started, Err(SupervisorError::StartFailed { .. })), "{started:?}");
    settle().await;
    assert_eq!(cut.load(Ordering::SeqCst), 1, "nobody waits for it");
}

#[test]
fn a_panic_of_a_helper_is_the_reason_also_of_a_busy_life() {
    real(3, async {
        let log = Log::default();
        let system = start(root().child(worker("a", &log))).await;
        let a = to(&system, "/a");
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let (runs, ran) = tokio::sync::oneshot::channel::<()>();
        a.tell(call(move |cx| {
            let helper = cx.spawn_guard(async {
                drop(runs);
                let _ = gone.await;
                panic!("told to panic");
            });
            cx.keep(helper);
        }))
        .await
        .unwrap();
        // A task that a blocked worker has spawned and not begun is nobody else's to run.
        let _ = soon("the helper runs", ran).await;
        a.tell(call(move |cx| {
            std::thread::spawn(move || go.send(()));
            // Busy until the panic has told the life to end.
            while !cx.is_stopping() {
                std::thread::yield_now();
            }
        }))
        .await
        .unwrap();
        until("the next life", || seen(&system, "/a").1 == 2).await;
        let failures = system.actor("/a").unwrap().failures;
        let reason = &failures.last().unwrap().reason;
        assert!(matches!(reason, ExitReason::Panic(_)), "{reason:?}");
    });
}

#[tokio::test(start_paused = true)]
async fn what_is_put_aside_keeps_the_count_of_its_attempts() {
    let log = Log::default();
    let handled = Arc::new(AtomicU32::new(0));
    let spec = ChildSpec::actor::<Poisoned>("a", Arc::clone(&handled))
        .on_crash(OnCrash::redeliver::<Poison>(3));
    let (hook, graves) = graves();
    let root = root().child(spec).child(puppet("b", &log));
    let system = ActorSystem::builder(root).dead_letters(hook).start().await.unwrap();
    system.find::<Poison>("/a").unwrap().tell(Poison).await.unwrap();
    settle().await;
    assert_eq!(graves.all().len(), 1, "it is buried after three attempts");
    assert_eq!(handled.load(Ordering::SeqCst), 3);
}

#[derive(Clone)]
struct Poison;

/// Puts each message aside first, and dies of it then.
struct Poisoned {
    handled: Arc<AtomicU32>,
    seen: bool,
}

impl Actor for Poisoned {
    type Message = Poison;
    type Args = Arc<AtomicU32>;

    async fn start(handled: &Arc<AtomicU32>, _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self { handled: Arc::clone(handled), seen: false })
    }

    async fn handle(&mut self, poison: Poison, cx: &mut Context<Self>) -> Result<(), Failure> {
        if !std::mem::replace(&mut self.seen, true) {
            let _ = cx.stash(poison);
            cx.unstash_all();
            return Ok(());
        }
        if self.handled.fetch_add(1, Ordering::SeqCst) > 20 {
            // Enough is known.
            return Ok(());
        }
        Err(Failure::permanent("poisoned"))
    }
}
