//! Many actors behind one name, and what is supervised without being an actor.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mister_smith_supervisors::*;

use crate::kit::*;
use crate::workers::*;

fn ids(workers: impl IntoIterator<Item = Address<Do>>) -> Vec<String> {
    workers.into_iter().map(|worker| worker.path().to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_pool_is_asked_in_turn_by_load_or_by_key() {
    let log = Log::default();
    let slow = Backoff::exponential(secs(100), secs(100));
    let spec = puppet("x", &log).backoff(slow).give_up_after(9);
    let system = start(root().child(SupervisorSpec::pool("p", 3, spec))).await;
    let pool = system.pool::<Do>("/p").unwrap();
    assert_eq!(ids(pool.workers().to_vec()), ["/p/0", "/p/1", "/p/2"]);
    let clone = pool.clone();
    let turns = [&pool, &clone, &pool, &clone].map(|pool| pool.round_robin().clone());
    assert_eq!(ids(turns), ["/p/0", "/p/1", "/p/2", "/p/0"], "clones share the turn");
    pool.workers()[1].try_tell(Do::Fail).unwrap();
    settle().await;
    assert_eq!(state(&system, "/p/1"), SlotState::Backoff);
    let turns: Vec<_> = (0..4).map(|_| pool.round_robin().path().to_string()).collect();
    assert!(!turns.contains(&"/p/1".to_owned()), "passed over: {turns:?}");
    for n in 0..3 {
        pool.workers()[0].try_tell(Do::Sleep(secs(1), n)).unwrap();
    }
    for _ in 0..4 {
        assert_eq!(pool.least_loaded().path().as_str(), "/p/2", "{:?}", pool.workers()[0].depth());
    }
    for key in 0..100 {
        assert_eq!(pool.by_key(&key), clone.by_key(&key));
    }
    let used = (0..100).map(|key| pool.by_key(&key).path().to_string());
    assert_eq!(used.collect::<std::collections::BTreeSet<_>>().len(), 3, "all have keys");
    assert!(matches!(system.pool::<u8>("/p"), Err(LookupError::NotFound { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_crowd_in_parts_finds_each_child_where_it_put_it() {
    let log = Log::default();
    let part = SupervisorSpec::dynamic("part").keep_children();
    let system = start(root().child(SupervisorSpec::partitioned("crowd", 4, part))).await;
    let crowd = system.partitions("/crowd").unwrap();
    for n in 0..100 {
        let id = n.to_string();
        crowd.spawn::<Puppet>(&*id, Role::new("x", &log)).await.unwrap();
    }
    assert_eq!((crowd.count(), crowd.parts().len()), (100, 4));
    assert!(crowd.parts().iter().all(|part| part.count() > 10), "each has some");
    let seven = crowd.child::<Do>("7").unwrap();
    // One part ends and comes back; the others do not notice.
    let part = crowd.part("7").path().clone();
    system.kill(part.as_str()).unwrap();
    settle().await;
    assert_eq!((seven.life(), crowd.count()), (2, 100));
    crowd.terminate_child("7").await.unwrap();
    assert!(crowd.child::<Do>("7").is_none() && crowd.count() == 99);
}

#[tokio::test(start_paused = true)]
async fn a_name_belongs_to_one_actor_until_it_is_forgotten() {
    let log = Log::default();
    let named = |id| puppet(id, &log).name("clock");
    let system = start(root().child(SupervisorSpec::dynamic("d"))).await;
    let d = system.supervisor("/d").unwrap();
    d.start_child(named("a")).await.unwrap();
    let clock = system.named::<Do>("clock").unwrap();
    assert_eq!(clock.path().as_str(), "/d/a");
    let taken = d.start_child(named("b")).await;
    let Err(SupervisorError::Spec(SpecError::NameTaken { holder, .. })) = &taken else {
        panic!("{taken:?}")
    };
    assert_eq!(holder, "/d/a");
    assert_eq!(d.count(), 1);
    clock.try_tell(Do::Fail).unwrap();
    settle().await;
    assert_eq!(system.named::<Do>("clock").unwrap(), clock, "a restart changes nothing");
    assert!(matches!(system.named::<u8>("clock"), Err(LookupError::WrongType { .. })));
    d.terminate_child("a").await.unwrap();
    assert!(matches!(system.named::<Do>("clock"), Err(LookupError::NoSuchName { .. })));
    d.start_child(named("b")).await.unwrap();
    assert_eq!(system.named::<Do>("clock").unwrap().path().as_str(), "/d/b");
}

#[tokio::test(start_paused = true)]
async fn a_group_has_the_members_that_say_so_in_their_spec() {
    let log = Log::default();
    let system = start(
        root()
            .child(SupervisorSpec::new("s").child(puppet("b", &log).group("all").group("some")))
            .child(puppet("a", &log).group("all"))
            .child(worker("c", &log).group("all")),
    )
    .await;
    assert_eq!(ids(system.group("all").members().to_vec()), ["/a", "/s/b"], "of one type, by path");
    assert_eq!(ids(system.group("some").members().to_vec()), ["/s/b"]);
    assert_eq!(system.group("all").broadcast(&Do::Note(1)), 2);
    settle().await;
    assert_eq!((log.notes("a"), log.notes("b")), (vec![1], vec![1]));
    system.stop("/a").await.unwrap();
    assert_eq!(system.group("all").broadcast(&Do::Note(2)), 1, "one takes no messages");
    assert!(system.group::<Do>("nobody").members().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_task_lives_by_the_rules_of_any_child() {
    let log = Log::default();
    let lives = Arc::new(AtomicU32::new(0));
    let (said, counted) = (log.clone(), Arc::clone(&lives));
    let task = ChildSpec::task("t", move |cx| {
        let (said, life) = (said.clone(), counted.fetch_add(1, Ordering::SeqCst) + 1);
        async move {
            assert_eq!(cx.life(), u64::from(life));
            said.note(format!("life {life}"));
            match life {
                1 => Err(Failure::transient("told to")),
                2 => panic!("told to panic"),
                3 => Ok(()),
                _ => std::future::pending().await,
            }
        }
    });
    let system = start(root().child(task)).await;
    settle().await;
    assert_eq!(log.take(), ["life 1", "life 2", "life 3"]);
    assert_eq!(seen(&system, "/t"), (SlotState::Down, 3), "done, and transient");
    assert_eq!(system.look("/t", Depth::ALL).unwrap().root.kind, SlotKind::Task);
    system.supervisor("/").unwrap().restart_child("t").await.unwrap();
    assert_eq!(system.kill("/t").unwrap(), Some(4));
    settle().await;
    assert_eq!(seen(&system, "/t"), (SlotState::Up, 5));
    let (stopped, took) = timed("the stop", system.stop("/t")).await;
    assert!(stopped.is_ok() && took < ms(10), "cut off at its next await: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_asks_has_the_shutdown_time_to_end_by_itself() {
    for (needs, allowed, in_order) in [(2, 5, true), (9, 5, false)] {
        let log = Log::default();
        let said = log.clone();
        let task = ChildSpec::task("t", move |cx| {
            let said = said.clone();
            async move {
                cx.stopping().await;
                tokio::time::sleep(secs(needs)).await;
                said.note("done");
                Ok(())
            }
        });
        let system = start(root().child(task.shutdown(Shutdown::After(secs(allowed))))).await;
        settle().await;
        let (orderly, took) = timed("the shutdown", system.shutdown(secs(60))).await;
        assert_eq!((orderly, took.as_secs()), (in_order, needs.min(allowed)));
        assert_eq!(log.take().len(), usize::from(in_order));
    }
}

#[tokio::test(start_paused = true)]
async fn a_tasks_own_word_is_its_health() {
    let health = HealthSpec::every(secs(10)).unhealthy_after(1);
    let task = ChildSpec::task("t", |cx| async move {
        if cx.life() == 1 {
            cx.set_health(Health::unhealthy("no signal"));
        }
        std::future::pending().await
    });
    let system = start(root().child(task.health(health))).await;
    tokio::time::sleep(secs(60)).await;
    assert_eq!(seen(&system, "/t"), (SlotState::Up, 2));
}

/// A pool of threads runs so many at once, lets so many wait, and refuses the next one.
#[test]
fn a_thread_pool_says_no_when_too_much_waits() {
    real(2, async {
        let builder = ActorSystem::builder(root());
        let builder = builder.thread_pool(Work::Compute, ThreadPoolSpec::new(1, 1));
        let system = builder.start().await.unwrap();
        let gate = Gate::default();
        let run = |gate: &Gate| {
            let (system, shut) = (system.clone(), gate.shut());
            tokio::spawn(async move { system.run_on(Work::Compute, move || shut.block()).await })
        };
        let first = run(&gate);
        gate.reached().await;
        let second = run(&gate);
        while system.thread_pools().iter().all(|pool| pool.queued == 0) {
            tokio::task::yield_now().await;
        }
        let refused = system.run_on(Work::Compute, || ()).await;
        let full = ComputeError::Rejected { pool: "compute", queue: 1 };
        assert_eq!(refused, Err(full));
        assert_eq!(system.run_on(Work::Io, || 7).await, Ok(7), "another pool is not full");
        gate.open();
        assert_eq!(soon("the first", first).await.unwrap(), Ok(()));
        assert_eq!(soon("the second", second).await.unwrap(), Ok(()));
        let panicked = system.run_on(Work::Compute, || panic!("told to")).await;
        let Err(ComputeError::Panicked { message, .. }) = panicked else { panic!("{panicked:?}") };
        assert_eq!(message, "told to");
        assert_eq!(system.run_on(Work::Compute, || 8).await, Ok(8), "the thread is there again");
    });
}
