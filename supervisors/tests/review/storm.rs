//! Everything at once, on real threads: no message gets lost, and nobody waits for nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mister_smith_supervisors::*;

use crate::kit::*;
use crate::workers::*;

#[derive(Clone, Default)]
struct Counts {
    handled: Arc<AtomicU64>,
    buried: Arc<AtomicU64>,
    told: Arc<AtomicU64>,
}

enum Said {
    Plain,
    Fail,
    Panic,
    Wait,
    Ask(ReplyPort<u64>),
    KeepAsk(ReplyPort<u64>),
    HelpAsk(ReplyPort<u64>),
    Stash,
}

struct Counter {
    counts: Counts,
    kept: Vec<ReplyPort<u64>>,
}

impl Actor for Counter {
    type Message = Said;
    type Args = Counts;

    async fn start(counts: &Counts, cx: &mut Context<Self>) -> Result<Self, StartError> {
        if cx.random_u64().is_multiple_of(8) {
            tokio::task::yield_now().await;
        }
        Ok(Self { counts: counts.clone(), kept: Vec::new() })
    }

    async fn handle(&mut self, said: Said, cx: &mut Context<Self>) -> Result<(), Failure> {
        let is_told = !matches!(said, Said::Ask(_) | Said::KeepAsk(_) | Said::HelpAsk(_));
        match said {
            Said::Plain => {}
            Said::Fail => return Err(Failure::transient("told to")),
            Said::Panic => std::panic::resume_unwind(Box::new("told to")),
            Said::Wait => tokio::task::yield_now().await,
            Said::Ask(port) => port.send(cx.life()),
            Said::KeepAsk(port) => self.kept.push(port),
            Said::HelpAsk(port) => {
                let life = cx.life();
                let helper = cx.spawn(async move {
                    tokio::task::yield_now().await;
                    port.send(life);
                });
                cx.keep(helper);
            }
            Said::Stash => {
                // Handled when it comes back.
                if cx.stashed() == 0 && cx.random_u64().is_multiple_of(2) {
                    return cx.stash(Said::Stash).map_err(|_| Failure::permanent("no room"));
                }
                cx.unstash_all();
            }
        }
        self.counts.handled.fetch_add(u64::from(is_told), Ordering::SeqCst);
        Ok(())
    }
}

fn said(n: u64) -> Said {
    match n % 32 {
        0 => Said::Fail,
        1 => Said::Panic,
        2..6 => Said::Wait,
        6 => Said::Stash,
        _ => Said::Plain,
    }
}

fn child(id: &str, counts: &Counts) -> ChildSpec {
    ChildSpec::actor::<Counter>(id, counts.clone())
        .mailbox(8, Overflow::Wait(secs(20)))
        .shutdown(Shutdown::After(secs(2)))
}

fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

const PATHS: [&str; 6] = ["/s/a", "/s/b", "/d/c", "/d/d", "/k/e", "/k/f"];

async fn tells(system: ActorSystem, counts: Counts, over: Arc<AtomicBool>, mut seed: u64) {
    while !over.load(Ordering::SeqCst) {
        let n = next(&mut seed);
        let Ok(to) = system.find::<Said>(PATHS[usize::try_from(n % 6).unwrap()]) else {
            tokio::task::yield_now().await;
            continue;
        };
        let n = next(&mut seed);
        let told = match n % 8 {
            0 => to.try_tell(said(n / 8)).is_ok(),
            1 => to.tell_urgent(said(n / 8)).is_ok(),
            2..6 => to.tell(said(n / 8)).await.is_ok(),
            _ => {
                let answer = match n % 5 {
                    0 => to.ask_within(ms(50), Said::KeepAsk).await,
                    1 => to.ask_within(secs(10), Said::HelpAsk).await,
                    _ => to.ask_within(secs(10), Said::Ask).await,
                };
                if !n.is_multiple_of(5) {
                    let late = matches!(answer, Err(AskError::Timeout { .. }));
                    assert!(
                        !late,
                        "{answer:?} ({}): {:?} in life {}, {} waiting",
                        n % 5,
                        to.state(),
                        to.life(),
                        to.depth()
                    );
                }
                false
            }
        };
        counts.told.fetch_add(u64::from(told), Ordering::SeqCst);
    }
}

async fn disturbs(system: ActorSystem, counts: Counts, over: Arc<AtomicBool>, mut seed: u64) {
    while !over.load(Ordering::SeqCst) {
        let n = next(&mut seed);
        let path = PATHS[usize::try_from(n % 6).unwrap()];
        let (parent, id) = path.rsplit_once('/').unwrap();
        let _ = match (n / 8) % 10 {
            0..3 => system.kill(path).map(|_| ()),
            3 => system.restart(path).await,
            4 => {
                let done = system.suspend(path).await;
                tokio::task::yield_now().await;
                // Its supervisor may be down now; who is held stays so.
                while let Err(SupervisorError::Down { .. }) = system.resume(path).await {
                    tokio::task::yield_now().await;
                }
                done
            }
            5 => system.kill(parent).map(|_| ()),
            6 => match system.supervisor(parent) {
                Ok(s) => {
                    let done = s.terminate_child(id).await;
                    let _ = s.restart_child(id).await;
                    let _ = s.start_child(child(id, &counts)).await;
                    done
                }
                Err(_) => Ok(()),
            },
            _ => {
                tokio::time::sleep(std::time::Duration::from_micros(n % 500)).await;
                Ok(())
            }
        };
    }
}

fn storm(seed: u64) {
    real(4, async move {
        let counts = Counts::default();
        let buried = Arc::clone(&counts.buried);
        let supervisor = |spec: SupervisorSpec| spec.intensity(1_000_000, secs(1));
        let tree = SupervisorSpec::new("root")
            .intensity(1_000_000, secs(1))
            .child(
                supervisor(SupervisorSpec::new("s").strategy(Strategy::RestForOne))
                    .child(child("a", &counts))
                    .child(child("b", &counts)),
            )
            .child(
                supervisor(SupervisorSpec::dynamic("d"))
                    .child(child("c", &counts))
                    .child(child("d", &counts)),
            )
            .child(
                supervisor(SupervisorSpec::dynamic("k").keep_children())
                    .child(child("e", &counts))
                    .child(child("f", &counts)),
            );
        let system = ActorSystem::builder(tree)
            .backtraces(false)
            .history(1_000)
            .dead_letters(move |letter: DeadLetter| {
                // A question is counted by its asker.
                let asks =
                    letter.message.as_ref().and_then(|message| message.downcast_ref::<Said>());
                let asks = asks.is_some_and(|said| {
                    matches!(said, Said::Ask(_) | Said::KeepAsk(_) | Said::HelpAsk(_))
                });
                if !asks {
                    buried.fetch_add(1, Ordering::SeqCst);
                }
            })
            .start()
            .await
            .unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for n in 0..6 {
            let (system, counts, over) = (system.clone(), counts.clone(), Arc::clone(&over));
            tasks.push(tokio::spawn(tells(system, counts, over, seed * 100 + n + 1)));
        }
        for n in 0..2 {
            let (system, counts, over) = (system.clone(), counts.clone(), Arc::clone(&over));
            tasks.push(tokio::spawn(disturbs(system, counts, over, seed * 100 + n + 51)));
        }
        tokio::time::sleep(ms(1_500)).await;
        over.store(true, Ordering::SeqCst);
        for task in tasks {
            tokio::time::timeout(secs(40), task)
                .await
                .expect("somebody waits for nothing")
                .unwrap();
        }
        system.shutdown(secs(30)).await;
        let gone = || counts.handled.load(Ordering::SeqCst) + counts.buried.load(Ordering::SeqCst);
        tokio::time::sleep(ms(200)).await;
        let told = counts.told.load(Ordering::SeqCst);
        assert_eq!(gone(), told, "each message that was taken is handled or buried, once");
    });
}

#[test]
fn no_message_is_lost_in_a_storm() {
    for seed in 1..4 {
        storm(seed);
    }
}
