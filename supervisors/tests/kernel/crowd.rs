//! 100,000 children under one dynamic supervisor.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mister_smith_supervisors::*;

use crate::kit::*;

const CROWD: usize = 100_000;

/// Counts and says nothing.
struct Quiet(u64);

impl Actor for Quiet {
    type Message = ReplyPort<u64>;
    /// How long it takes to stop.
    type Args = std::time::Duration;

    async fn start(_: &Self::Args, _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self(0))
    }

    async fn handle(&mut self, m: ReplyPort<u64>, _: &mut Context<Self>) -> Result<(), Failure> {
        self.0 += 1;
        m.send(self.0);
        Ok(())
    }
}

/// Never stops by itself.
struct Deaf;

impl Actor for Deaf {
    type Message = ();
    type Args = ();

    async fn start((): &(), _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(&mut self, (): (), _: &mut Context<Self>) -> Result<(), Failure> {
        Ok(())
    }

    async fn stop(&mut self, _: &ExitReason, _: &mut Context<Self>) {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_children_come_go_and_stop_together() {
    let system = start(root().child(SupervisorSpec::dynamic("crowd"))).await;
    let crowd = system.supervisor("/crowd").unwrap();
    for n in 0..CROWD {
        crowd.spawn::<Quiet>(n.to_string(), secs(0)).await.unwrap();
    }
    assert_eq!(crowd.count(), CROWD);
    // Found, asked, removed and crashed in the middle of all the others.
    for n in (0..CROWD).step_by(1_000) {
        let one = crowd.child::<ReplyPort<u64>>(&n.to_string()).unwrap();
        assert_eq!(one.ask(|reply| reply).await.unwrap(), 1);
        assert!(system.look(&format!("/crowd/{n}"), Depth::ALL).is_some());
    }
    for n in (0..CROWD).step_by(10_000) {
        crowd.terminate_child(&n.to_string()).await.unwrap();
    }
    system.kill("/crowd/77777").unwrap();
    settle().await;
    assert_eq!(crowd.count(), CROWD - 10);
    assert_eq!(system.look("/crowd/77777", Depth::ALL).unwrap().root.restarts, 1);
    // The summary is a summary.
    let folded = system.look("/", Depth::FOLDED).unwrap();
    assert_eq!(folded.walk().count(), 2 + Depth::FOLDED.dynamic_children);
    assert_eq!(folded.find("/crowd").unwrap().supervisor.unwrap().children, CROWD - 10);

    let before = tokio::time::Instant::now();
    assert!(system.shutdown(secs(3_600)).await);
    assert_eq!(before.elapsed().as_secs(), 0, "nobody waits for anybody");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_that_do_not_stop_are_killed_under_one_deadline() {
    let system = start(root().child(SupervisorSpec::dynamic("crowd"))).await;
    let crowd = system.supervisor("/crowd").unwrap();
    for n in 0..1_000 {
        let deaf = ChildSpec::actor::<Deaf>(n.to_string(), ());
        crowd.start_child(deaf.shutdown(Shutdown::After(secs(5)))).await.unwrap();
    }
    let before = tokio::time::Instant::now();
    assert!(!system.shutdown(secs(3_600)).await, "they had to be killed");
    assert_eq!(before.elapsed().as_secs(), 5, "one deadline for all");
}

#[tokio::test(start_paused = true)]
async fn a_full_house_takes_no_more() {
    let system = start(root().child(SupervisorSpec::dynamic("crowd").max_children(2))).await;
    let crowd = system.supervisor("/crowd").unwrap();
    for id in ["a", "b"] {
        crowd.spawn::<Quiet>(id, secs(0)).await.unwrap();
    }
    let third = crowd.spawn::<Quiet>("c", secs(0)).await;
    assert!(matches!(third, Err(SupervisorError::MaxChildren { max: 2, .. })));
    crowd.terminate_child("a").await.unwrap();
    crowd.spawn::<Quiet>("c", secs(0)).await.unwrap();
}

/// A crowd that was kept was started in one go, and stopped in one go: nobody else ran meanwhile.
#[tokio::test(start_paused = true)]
async fn others_run_while_a_crowd_starts_and_stops() {
    const MANY: usize = 10_000;
    let crowd = SupervisorSpec::dynamic("crowd").keep_children();
    let system = start(root().child(crowd)).await;
    let supervisor = system.supervisor("/crowd").unwrap();
    for n in 0..MANY {
        supervisor.start_child(ChildSpec::actor::<Quiet>(n.to_string(), secs(0))).await.unwrap();
    }
    let turns = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&turns);
    let beside = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    system.restart("/crowd").await.unwrap();
    let taken = turns.load(Ordering::Relaxed);
    beside.abort();
    assert_eq!(supervisor.count(), MANY);
    assert!(taken > 2 * 10_000 / 256, "{taken} turns");
}
