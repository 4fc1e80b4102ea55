//! Actors killed by seed while messages come in: each is handled once, or is a dead letter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mister_smith_supervisors::*;

use crate::kit::*;

async fn storm(seed: u64) -> (Vec<Kill>, Vec<String>) {
    let log = Log::default();
    let lost = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&lost);
    let group = |id: &'static str, strategy| {
        SupervisorSpec::new(id)
            .strategy(strategy)
            .intensity(1_000, secs(1))
            .child(puppet("a", &log))
            .child(puppet("b", &log))
    };
    let spared = SupervisorSpec::new("spared").child(puppet("c", &log));
    let system = ActorSystem::builder(
        root()
            .child(group("one", Strategy::OneForOne))
            .child(group("rest", Strategy::RestForOne))
            .child(group("all", Strategy::OneForAll))
            .child(spared),
    )
    .dead_letters(move |_: DeadLetter| {
        counted.fetch_add(1, Ordering::SeqCst);
    })
    .start()
    .await
    .unwrap();
    let paths = ["/one/a", "/one/b", "/rest/a", "/rest/b", "/all/a", "/all/b"];
    let mut killer = ActorKiller::new(seed).sparing("/spared");
    let (mut kills, mut sent) = (Vec::new(), 0);
    for n in 0..600 {
        let to = at(&system, paths[n % paths.len()]);
        for message in [Do::Note(sent), Do::Sleep(ms(3), sent + 1)] {
            to.tell(message).await.unwrap();
            sent += 1;
        }
        if n % 3 == 0 {
            kills.extend(killer.kill_one(&system));
        }
        settle().await;
    }
    tokio::time::sleep(secs(60)).await;
    assert_eq!(at(&system, "/spared/c").life(), 1);
    let mut handled: Vec<u64> = ["a", "b"].iter().flat_map(|id| log.notes(id)).collect();
    let total = handled.len();
    handled.sort_unstable();
    handled.dedup();
    assert_eq!(handled.len(), total, "none twice");
    assert_eq!(total as u64 + lost.load(Ordering::SeqCst), sent, "none lost without a word");
    (kills, log.take())
}

#[tokio::test(start_paused = true)]
async fn messages_are_handled_once_or_are_dead_letters_while_actors_are_killed_by_seed() {
    let (kills, seen) = storm(11).await;
    assert!(kills.len() > 150, "{} kills", kills.len());
    let supervisors = kills.iter().filter(|kill| kill.path.as_str().matches('/').count() == 1);
    assert!(supervisors.count() > 10, "supervisors too");
    assert_eq!((kills.clone(), seen), storm(11).await, "the seed replays it");
    assert_ne!(kills, storm(12).await.0, "another seed, another storm");
}

#[tokio::test(start_paused = true)]
async fn a_killer_stays_where_it_is_told_to() {
    let log = Log::default();
    let inner = SupervisorSpec::new("inner").intensity(99, secs(1)).child(puppet("a", &log));
    let system = start(root().child(inner).child(puppet("b", &log))).await;
    let mut killer = ActorKiller::new(1).below("/inner/a");
    for _ in 0..5 {
        assert_eq!(killer.kill_one(&system).unwrap().path.as_str(), "/inner/a");
        settle().await;
    }
    assert_eq!(ActorKiller::new(1).below("/nothing").kill_one(&system), None);
}
