//! One seed, one trace; and the rules of the code that make it so.

use std::path::{Path, PathBuf};

use mister_smith_supervisors::*;

use crate::kit::{Log, ms, secs};

const ACTORS: u64 = 120;

/// Passes a number on to another actor by the system's randomness, and now and then fails.
struct Gossip(Log);

impl Actor for Gossip {
    type Message = u64;
    type Args = Log;

    async fn start(log: &Log, cx: &mut Context<Self>) -> Result<Self, StartError> {
        log.note(format!("start {}#{}", cx.path(), cx.life()));
        Ok(Self(log.clone()))
    }

    async fn handle(&mut self, left: u64, cx: &mut Context<Self>) -> Result<(), Failure> {
        self.0.note(format!("{} {left} at {:?}", cx.path(), cx.clock().elapsed()));
        let dice = cx.random_u64();
        if left == 0 {
            return Ok(());
        }
        let path = format!("/{}/{}", dice % 4, dice / 4 % (ACTORS / 4));
        if let Ok(next) = cx.find::<u64>(&path) {
            let _ = next.try_tell(left - 1);
        }
        match dice >> 32 & 31 {
            0 => return Err(Failure::transient("dice")),
            1 => panic!("dice"),
            2..=5 => tokio::time::sleep(ms(dice >> 40 & 63)).await,
            _ => {}
        }
        Ok(())
    }
}

fn run(seed: u64) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let log = Log::default();
        let written = log.clone();
        let mut root = SupervisorSpec::new("root").intensity(100_000, secs(1));
        for g in 0..4 {
            let strategy = [Strategy::OneForOne, Strategy::RestForOne, Strategy::OneForAll];
            let mut group = if g == 3 {
                SupervisorSpec::dynamic("3")
            } else {
                SupervisorSpec::new(g.to_string()).strategy(strategy[g])
            };
            group = group.intensity(100_000, secs(1));
            for n in 0..ACTORS / 4 {
                let backoff = Backoff::exponential(ms(5), ms(40));
                group = group.child(
                    ChildSpec::actor::<Gossip>(n.to_string(), log.clone())
                        .backoff(backoff)
                        .give_up_after(100_000),
                );
            }
            root = root.child(group);
        }
        let system = ActorSystem::builder(root)
            .seed(seed)
            .observer(move |event: &LifecycleEvent| {
                written.note(format!("{event} {}", event.at_us))
            })
            .dead_letters(|_: DeadLetter| {})
            .start()
            .await
            .unwrap();
        for n in 0..40 {
            let first = system.find::<u64>(&format!("/{}/{}", n % 4, n % 30)).unwrap();
            first.try_tell(60).unwrap();
        }
        tokio::time::sleep(secs(60)).await;
        system.shutdown(secs(60)).await;
        log.take()
    })
}

#[test]
fn one_seed_gives_one_trace_in_twenty_runs() {
    let first = run(7);
    let failures = first.iter().filter(|line| line.contains("dice")).count();
    assert!(first.len() > 2_000 && failures > 50, "{} lines, {failures} failures", first.len());
    for n in 2..=20 {
        let again = run(7);
        let differs = first.iter().zip(&again).position(|(a, b)| a != b);
        assert!(
            differs.is_none() && first.len() == again.len(),
            "run {n} differs at line {differs:?}: {:?} and {:?}",
            differs.map(|at| &first[at]),
            differs.map(|at| &again[at]),
        );
    }
    assert_ne!(first, run(8), "another seed is another trace");
}

fn sources(directory: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|ending| ending == "rs")
            && !path.to_string_lossy().contains("/tests")
        {
            out.push(path);
        }
    }
}

/// What would make two runs of one seed differ.
#[test]
fn the_kernel_takes_time_chance_and_tasks_from_its_system_only() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    assert!(files.len() > 25);
    // What is forbidden, and the one file that may.
    let rules = [
        ("HashMap", ""),
        ("HashSet", ""),
        ("SystemTime::now", ""),
        ("std::time::Instant", ""),
        ("Instant::now", "clock.rs"),
        ("rand::rng()", ""),
        ("from_os_rng", ""),
        ("tokio::spawn", ""),
        ("runtime.spawn", "environment.rs"),
    ];
    for file in files {
        if file.ends_with("tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for (forbidden, allowed_in) in rules {
                assert!(
                    !code.contains(forbidden) || name == allowed_in,
                    "{}:{}: {forbidden}",
                    file.display(),
                    number + 1
                );
            }
        }
        let text = text.replace(char::is_whitespace, "");
        for after in text.split("select!{").skip(1) {
            assert!(after.starts_with("biased;"), "{}: an unbiased select", file.display());
        }
    }
}
