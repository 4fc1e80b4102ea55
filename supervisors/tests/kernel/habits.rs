//! What users of other runtimes look for: watches, timers, pools, groups, tasks, streams.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mister_smith_supervisors::*;

use crate::kit::*;

/// An actor whose messages are code.
struct Scripted(Log);

type Job = Box<dyn FnOnce(&Log, &mut Context<Scripted>) + Send>;

enum Message {
    Do(Job),
    Note(String),
    Fail,
}

impl From<u64> for Message {
    fn from(n: u64) -> Self {
        Self::Note(n.to_string())
    }
}

impl Actor for Scripted {
    type Message = Message;
    type Args = Log;

    async fn start(log: &Log, _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self(log.clone()))
    }

    async fn handle(&mut self, message: Message, cx: &mut Context<Self>) -> Result<(), Failure> {
        match message {
            Message::Do(job) => job(&self.0, cx),
            Message::Note(text) => self.0.note(text),
            Message::Fail => return Err(Failure::permanent("told to")),
        }
        Ok(())
    }

    fn inspect(&self) -> Option<Picture> {
        Some(Picture::of(self.0.all()))
    }
}

fn scripted(id: &str, log: &Log) -> ChildSpec {
    ChildSpec::actor::<Scripted>(id, log.clone())
}

fn run(
    address: &Address<Message>,
    job: impl FnOnce(&Log, &mut Context<Scripted>) + Send + 'static,
) {
    address.try_tell(Message::Do(Box::new(job))).unwrap();
}

fn find(system: &ActorSystem, path: &str) -> Address<Message> {
    system.find(path).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_end_of_another_actor_is_told_once_with_its_reason_and_a_restart_is_none() {
    let log = Log::default();
    let b = scripted("b", &log).restart(RestartPolicy::Transient);
    let system = start(root().child(scripted("a", &log)).child(b)).await;
    let (a, b) = (find(&system, "/a"), find(&system, "/b"));
    let watched = b.clone();
    run(&a, move |_, cx| {
        cx.watch(&watched, |end| {
            Message::Note(format!("{} life {}: {}", end.path, end.life, end.reason))
        });
    });
    b.try_tell(Message::Fail).unwrap();
    settle().await;
    assert_eq!((b.life(), log.take()), (2, vec![]), "a restart is not an end");
    run(&b, |_, cx| cx.stop());
    settle().await;
    assert_eq!(log.take(), ["/b life 2: normal"]);
    // Gone already.
    assert_eq!(b.ended().await.life, 2);
    let watched = b.clone();
    run(&a, move |_, cx| cx.watch(&watched, |end| Message::Note(format!("late {}", end.reason))));
    settle().await;
    assert_eq!(log.take(), ["late normal"]);
}

#[tokio::test(start_paused = true)]
async fn an_unwatched_end_is_not_told_and_a_watch_ends_with_its_life() {
    let log = Log::default();
    let b = scripted("b", &log).restart(RestartPolicy::Temporary);
    let c = scripted("c", &log).restart(RestartPolicy::Temporary);
    let system = start(root().child(scripted("a", &log)).child(b).child(c)).await;
    let (a, b, c) = (find(&system, "/a"), find(&system, "/b"), find(&system, "/c"));
    for other in [b.clone(), c.clone()] {
        run(&a, move |_, cx| cx.watch(&other, |end| Message::Note(end.path.to_string())));
    }
    let other = b.clone();
    run(&a, move |log, cx| log.note(format!("{}", cx.unwatch(&other))));
    settle().await;
    a.try_tell(Message::Fail).unwrap();
    settle().await;
    for gone in [&b, &c] {
        run(gone, |_, cx| cx.stop());
    }
    settle().await;
    assert_eq!(log.take(), ["true"], "neither the one unwatched nor that of an earlier life");
}

#[tokio::test(start_paused = true)]
async fn actors_of_different_types_stand_in_one_list() {
    let log = Log::default();
    let system = start(root().child(scripted("a", &log)).child(puppet("b", &log))).await;
    let all: Vec<Recipient<u64>> =
        vec![find(&system, "/a").recipient(), at(&system, "/b").map(Do::Note)];
    log.take();
    for recipient in &all {
        recipient.tell(7).await.unwrap();
    }
    settle().await;
    assert_eq!(log.take(), ["7", "b 7"]);
    assert_ne!(all[0], all[1]);
    assert_eq!(all[0], find(&system, "/a").map(|n: u64| Message::Note(format!("{n}!"))));
    let known: std::collections::BTreeMap<_, _> = [(find(&system, "/a").path().clone(), 1)].into();
    assert_eq!(known.len(), 1);
    assert_eq!(find(&system, "/a"), find(&system, "/a"));
    system.stop("/b").await.unwrap();
    assert!(matches!(all[1].tell(8).await, Err(RecipientError::Stopped { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_keyed_timer_replaces_the_one_before_also_its_queued_message() {
    let log = Log::default();
    let system = start(root().child(scripted("a", &log))).await;
    let a = find(&system, "/a");
    run(&a, |_, cx| cx.timer("t", ms(10), Message::Note("first".into())));
    settle().await;
    system.suspend("/a").await.unwrap();
    tokio::time::sleep(ms(50)).await;
    assert_eq!(a.depth(), 1, "it waits in the mailbox");
    run(&a, |_, _| {});
    a.tell_urgent(Message::Do(Box::new(|_, cx| {
        cx.timer("t", ms(10), Message::Note("second".into()));
    })))
    .unwrap();
    system.resume("/a").await.unwrap();
    tokio::time::sleep(ms(50)).await;
    assert_eq!(log.take(), ["second"]);
    run(&a, |log, cx| {
        cx.timer("t", ms(10), Message::Note("third".into()));
        log.note(cx.cancel_timer("t").to_string());
    });
    tokio::time::sleep(ms(50)).await;
    assert_eq!(log.take(), ["true"]);
}

#[tokio::test(start_paused = true)]
async fn an_interval_ticks_evenly_and_leaves_out_what_is_late() {
    let log = Log::default();
    let ticks = Arc::new(AtomicU64::new(0));
    let system = start(root().child(scripted("a", &log))).await;
    let a = find(&system, "/a");
    let counted = Arc::clone(&ticks);
    run(&a, move |_, cx| {
        cx.periodic("tick", ms(100), move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Message::Note("tick".into())
        });
    });
    tokio::time::sleep(ms(1_050)).await;
    assert_eq!(log.take().len(), 10);
    system.suspend("/a").await.unwrap();
    tokio::time::sleep(secs(10)).await;
    assert!(a.depth() <= 1, "ticks do not pile up");
    assert!(a.kill_handle().kill());
    system.resume("/a").await.unwrap();
    tokio::time::sleep(secs(1)).await;
    assert!(log.take().is_empty(), "a tick does not outlive its life");
}

#[tokio::test(start_paused = true)]
async fn silence_is_told_again_after_each_message() {
    let log = Log::default();
    let system = start(root().child(scripted("a", &log))).await;
    let a = find(&system, "/a");
    run(&a, |_, cx| cx.set_receive_timeout(Some(secs(1)), || Message::Note("silence".into())));
    tokio::time::sleep(ms(900)).await;
    a.try_tell(Message::Note("word".into())).unwrap();
    tokio::time::sleep(ms(900)).await;
    assert_eq!(log.take(), ["word"]);
    tokio::time::sleep(ms(200)).await;
    assert_eq!(log.take(), ["silence"]);
    run(&a, |_, cx| cx.set_receive_timeout(None, || unreachable!()));
    tokio::time::sleep(secs(10)).await;
    assert!(log.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_task_is_restarted_when_it_fails_and_not_when_it_is_done() {
    let lives = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&lives);
    let log = Log::default();
    let written = log.clone();
    let task = ChildSpec::task("t", move |cx| {
        let (lives, log) = (Arc::clone(&counted), written.clone());
        async move {
            match lives.fetch_add(1, Ordering::SeqCst) {
                0 => return Err(Failure::transient("first")),
                1 => panic!("second"),
                _ => {}
            }
            log.note(format!("life {}", cx.life()));
            cx.stopping().await;
            log.note("told to stop");
            Ok(())
        }
    });
    let done = ChildSpec::task("done", |_| async { Ok(()) });
    let deaf = ChildSpec::task("deaf", |_| std::future::pending());
    let system = start(root().child(task).child(done).child(deaf)).await;
    settle().await;
    assert_eq!(log.take(), ["life 3"]);
    assert_eq!((state(&system, "/t"), state(&system, "/done")), (SlotState::Up, SlotState::Down));
    let before = tokio::time::Instant::now();
    assert!(system.shutdown(secs(60)).await);
    assert_eq!(log.take(), ["told to stop"]);
    assert!(before.elapsed() < ms(100), "one that does not ask is cut off");
}

#[tokio::test(start_paused = true)]
async fn a_pool_shares_its_work_and_a_key_always_finds_the_same_worker() {
    let log = Log::default();
    let pool = SupervisorSpec::pool("pool", 4, puppet("x", &log).group("workers"));
    let system = start(root().child(pool)).await;
    let pool = system.pool::<Do>("/pool").unwrap();
    let paths = |pick: &dyn Fn() -> String| (0..8).map(|_| pick()).collect::<Vec<_>>();
    let turns = paths(&|| pool.round_robin().path().to_string());
    assert_eq!(turns[..4], ["/pool/0", "/pool/1", "/pool/2", "/pool/3"]);
    assert_eq!(turns[..4], turns[4..]);
    let keyed = paths(&|| pool.by_key("ada").path().to_string());
    assert!(keyed.iter().all(|path| *path == keyed[0]));
    system.suspend("/pool").await.unwrap();
    for n in [0, 1, 2] {
        pool.workers()[n].try_tell(Do::Note(1)).unwrap();
    }
    assert_eq!(pool.least_loaded().path().as_str(), "/pool/3");
    system.resume("/pool").await.unwrap();
    let group = system.group::<Do>("workers");
    assert_eq!(group.broadcast(&Do::Note(9)), 4);
    settle().await;
    assert_eq!(log.take().iter().filter(|line| line.ends_with(" 9")).count(), 4);
    at(&system, "/pool/1").try_tell(Do::Fail).unwrap();
    settle().await;
    assert_eq!(system.group::<Do>("workers").members().len(), 4, "a restart changes nothing");
    system.supervisor("/pool").unwrap().terminate_child("2").await.unwrap();
    system.supervisor("/pool").unwrap().delete_child("2").await.unwrap();
    assert_eq!(system.group::<Do>("workers").members().len(), 3, "one that is forgotten leaves");
}

#[tokio::test(start_paused = true)]
async fn a_name_finds_its_actor_and_belongs_to_one() {
    let log = Log::default();
    let system =
        start(root().child(puppet("a", &log).name("boss")).child(SupervisorSpec::dynamic("d")))
            .await;
    assert_eq!(system.named::<Do>("boss").unwrap().path().as_str(), "/a");
    assert!(matches!(system.named::<Do>("nobody"), Err(LookupError::NoSuchName { .. })));
    let d = system.supervisor("/d").unwrap();
    let second = d.start_child(puppet("b", &log).name("boss")).await;
    assert!(
        matches!(&second, Err(SupervisorError::Spec(SpecError::NameTaken { holder, .. })) if holder == "/a"),
        "{second:?}"
    );
    d.start_child(puppet("b", &log).name("other")).await.unwrap();
    d.terminate_child("b").await.unwrap();
    d.start_child(puppet("c", &log).name("other")).await.unwrap();
    assert_eq!(system.named::<Do>("other").unwrap().path().as_str(), "/d/c");
}

#[tokio::test(start_paused = true)]
async fn a_crowd_in_parts_finds_each_child_where_it_put_it() {
    let log = Log::default();
    let part = SupervisorSpec::dynamic("part").keep_children();
    let system = start(root().child(SupervisorSpec::partitioned("crowd", 3, part))).await;
    let crowd = system.partitions("/crowd").unwrap();
    for n in 0..30 {
        let id = format!("c{n}");
        crowd.spawn::<Puppet>(id.as_str(), Role::new(&id, &log)).await.unwrap();
    }
    assert_eq!(crowd.count(), 30);
    assert!(crowd.parts().iter().all(|part| part.count() > 0));
    assert!(crowd.child::<Do>("c7").is_some());
    crowd.terminate_child("c7").await.unwrap();
    assert!(crowd.child::<Do>("c7").is_none());
    assert_eq!(crowd.count(), 29);
}

#[tokio::test(start_paused = true)]
async fn what_is_stashed_comes_back_in_order_also_after_a_crash() {
    let log = Log::default();
    let system = start(root().child(scripted("a", &log))).await;
    let a = find(&system, "/a");
    run(&a, |_, cx| {
        for n in 1..=3 {
            assert!(cx.stash(Message::Note(n.to_string())).is_ok());
        }
    });
    a.try_tell(Message::Note("4".into())).unwrap();
    settle().await;
    assert_eq!(log.take(), ["4"]);
    run(&a, |_, cx| cx.unstash_all());
    settle().await;
    assert_eq!(log.take(), ["1", "2", "3"]);
    run(&a, |_, cx| assert!(cx.stash(Message::Note("kept".into())).is_ok()));
    a.try_tell(Message::Fail).unwrap();
    a.try_tell(Message::Note("after".into())).unwrap();
    settle().await;
    assert_eq!(log.take(), ["kept", "after"]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_taken_at_once_and_a_crash_loses_none_of_it_silently() {
    let log = Log::default();
    let graves = Log::default();
    let buried = graves.clone();
    let system = ActorSystem::builder(root().child(scripted("a", &log)))
        .dead_letters(move |letter: DeadLetter| buried.note(letter.cause.to_string()))
        .start()
        .await
        .unwrap();
    let a = find(&system, "/a");
    run(&a, |log, cx| {
        let mut taken = 0;
        while let Some(Message::Note(_)) = cx.next_waiting() {
            taken += 1;
        }
        log.note(format!("took {taken}"));
    });
    for n in 0..5 {
        a.try_tell(Message::Note(n.to_string())).unwrap();
    }
    settle().await;
    assert_eq!(log.take(), ["took 5"]);
    run(&a, |_, cx| {
        while cx.next_waiting().is_some() {}
        panic!("with all of it");
    });
    for n in 0..3 {
        a.try_tell(Message::Note(n.to_string())).unwrap();
    }
    settle().await;
    assert_eq!(graves.take().len(), 4, "the one in flight, and the three taken besides");
}

#[tokio::test(start_paused = true)]
async fn urgent_messages_overtake_and_are_bounded() {
    let log = Log::default();
    let system = start(root().child(scripted("a", &log))).await;
    let a = find(&system, "/a");
    system.suspend("/a").await.unwrap();
    for n in 1..=3 {
        a.try_tell(Message::Note(n.to_string())).unwrap();
    }
    for n in 0..URGENT_CAPACITY {
        a.tell_urgent(Message::Note(format!("urgent {n}"))).unwrap();
    }
    assert!(matches!(a.tell_urgent(Message::Fail), Err(TellError::Full { .. })));
    system.resume("/a").await.unwrap();
    settle().await;
    let seen = log.take();
    assert_eq!(seen[0], "urgent 0");
    assert_eq!(seen[URGENT_CAPACITY - 1], format!("urgent {}", URGENT_CAPACITY - 1));
    assert_eq!(seen[URGENT_CAPACITY..], ["1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn items_of_a_stream_arrive_as_messages() {
    struct Count(u64);
    impl futures_core::Stream for Count {
        type Item = u64;
        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<u64>> {
            self.0 += 1;
            std::task::Poll::Ready((self.0 <= 5_000).then_some(self.0))
        }
    }
    let log = Log::default();
    let system = start(root().child(scripted("a", &log))).await;
    run(&find(&system, "/a"), |_, cx| {
        let stream = cx.attach(Count(0), Message::from);
        cx.keep(stream);
    });
    settle().await;
    let numbers: Vec<u64> = log.take().iter().map(|n| n.parse().unwrap()).collect();
    assert_eq!(numbers, (1..=5_000).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_picture_of_the_state_is_shown_on_request() {
    let log = Log::default();
    let system = start(root().child(scripted("a", &log)).child(puppet("b", &log))).await;
    log.take();
    find(&system, "/a").tell(Message::Note("seen".into())).await.unwrap();
    settle().await;
    let picture = find(&system, "/a").inspect(secs(1)).await.unwrap().unwrap();
    assert_eq!(serde_json::to_string(&picture).unwrap(), r#"["seen"]"#);
    assert!(at(&system, "/b").inspect(secs(1)).await.unwrap().is_none(), "it shows nothing");
}

#[test]
fn threads_outside_the_runtime_tell_and_ask() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let log = Log::default();
    let system = runtime.block_on(start(root().child(puppet("a", &log))));
    let a = at(&system, "/a");
    std::thread::spawn(move || {
        a.blocking_tell(Do::Note(1)).unwrap();
        assert_eq!(a.blocking_ask(Do::Life).unwrap(), 1);
    })
    .join()
    .unwrap();
    assert_eq!(log.notes("a"), [1]);
    runtime.block_on(system.shutdown(secs(5)));
}

#[test]
fn work_on_a_pool_is_bounded_counted_and_its_panic_is_an_error() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let system = ActorSystem::builder(root())
            .thread_pool(Work::Compute, ThreadPoolSpec::new(1, 1))
            .start()
            .await
            .unwrap();
        let (open, shut) = std::sync::mpsc::channel::<()>();
        let shut = Arc::new(Mutex::new(shut));
        let piece = || {
            let (system, shut) = (system.clone(), Arc::clone(&shut));
            tokio::spawn(async move {
                system.run_on(Work::Compute, move || shut.lock().unwrap().recv().unwrap()).await
            })
        };
        let (first, second) = (piece(), piece());
        let compute = || system.thread_pools().into_iter().find(|p| p.name == "compute").unwrap();
        while (compute().running, compute().queued) != (1, 1) {
            tokio::task::yield_now().await;
        }
        let third = system.run_on(Work::Compute, || ()).await;
        assert!(matches!(third, Err(ComputeError::Rejected { queue: 1, .. })), "{third:?}");
        open.send(()).unwrap();
        open.send(()).unwrap();
        first.await.unwrap().unwrap();
        second.await.unwrap().unwrap();
        let panicked = system.run_on(Work::Compute, || panic!("told to")).await;
        assert!(matches!(panicked, Err(ComputeError::Panicked { .. })), "{panicked:?}");
        let view = compute();
        assert_eq!((view.done, view.rejected, view.panicked, view.running), (2, 1, 1, 0));
        system.shutdown(secs(5)).await;
    });
}

/// A child of one branch that needs a child of another: stopped first, started last.
#[tokio::test(start_paused = true)]
async fn what_depends_on_another_branch_is_stopped_first_and_started_last() {
    let log = Log::default();
    let resources = SupervisorSpec::new("resources").child(puppet("pool", &log));
    let app = SupervisorSpec::new("app")
        .child(puppet("free", &log))
        .child(puppet("user", &log).depends_on(["/resources/pool"]));
    let system = start(root().child(resources).child(app)).await;
    assert_eq!(log.take(), ["start pool", "start free", "start user"]);
    let line = |text: &str| text.to_owned();
    let turn = [
        line("stop user shutdown"),
        line("stop pool shutdown"),
        line("start pool"),
        line("start user"),
    ];

    system.restart("/resources/pool").await.unwrap();
    settle().await;
    assert_eq!(log.take(), turn, "a planned restart");

    at(&system, "/resources/pool").try_tell(Do::Fail).unwrap();
    settle().await;
    assert_eq!(log.take(), ["start pool", "stop user shutdown", "start user"], "a crash");

    system.restart("/resources").await.unwrap();
    settle().await;
    assert_eq!(log.take(), turn, "the branch of what it needs");

    system.stop("/resources/pool").await.unwrap();
    at(&system, "/app/user").try_tell(Do::Note(1)).unwrap();
    system.restart("/app").await.unwrap();
    settle().await;
    let seen = log.take();
    assert!(!seen.contains(&line("start user")), "not without what it needs: {seen:?}");
    system.supervisor("/resources").unwrap().restart_child("pool").await.unwrap();
    settle().await;
    assert_eq!(log.take(), ["start pool", "start user", "user 1"], "its messages waited");
    assert!(system.shutdown(secs(60)).await);
}

#[test]
fn dependencies_across_branches_that_cannot_be_are_refused() {
    let log = Log::default();
    let branch = |id: &'static str, child: ChildSpec| SupervisorSpec::new(id).child(child);
    let late = root()
        .child(branch("app", puppet("user", &log).depends_on(["/resources/pool"])))
        .child(branch("resources", puppet("pool", &log)));
    let circle = root()
        .child(branch("a", puppet("x", &log).depends_on(["/b/y"])))
        .child(branch("b", puppet("y", &log).depends_on(["/a/x"])));
    for wrong in [late, circle] {
        let refused = check(&wrong, &Policies::new());
        assert!(matches!(refused, Err(SpecError::DependencyOrder { .. })), "{refused:?}");
    }
    let unknown = root().child(branch("app", puppet("user", &log).depends_on(["/nowhere"])));
    assert!(matches!(check(&unknown, &Policies::new()), Err(SpecError::UnknownDependency { .. })));
}
