//! Who breaks what: one victim after the other, by the seed.

use std::time::Duration;

use mister_smith_supervisors::{Act, Action, ActorSystem, Look, Origin, SlotState};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::Options;
use super::agents::{self, Mishap, Talk};
use super::luck::Luck;

/// Nobody watches for longer without anything happening.
const FIRST: Duration = Duration::from_millis(1_500);

/// Children of one dynamic supervisor that are considered: with all of its baskets, nobody but
/// baskets would be struck.
const VICTIMS: usize = 4;

/// How agents end by themselves.
const MISHAPS: [Mishap; 6] = [
    Mishap::Error("the model does not answer"),
    Mishap::Error("lost the thread"),
    Mishap::Error("the answer contradicts itself"),
    Mishap::Panic("index out of bounds: the plan has no step 7"),
    Mishap::Panic("called a tool that is not there"),
    Mishap::Panic("attempt to divide by zero"),
];

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// An agent fails or panics.
    Mishap,
    /// An agent is killed.
    Agent,
    /// The connections to the store are killed, and with them who writes.
    Pool,
    /// Somebody below this path is killed.
    Below(&'static str),
}

/// Whether somebody panics with this because the storm told them to.
pub(crate) fn is_ordered(panic: &str) -> bool {
    MISHAPS.iter().any(|mishap| matches!(mishap, Mishap::Panic(text) if *text == panic))
}

/// Breaks something now and then, for ever.
pub(super) async fn storm(actors: &ActorSystem, options: Options) {
    let mut luck = Luck::of(options.seed, "storm");
    let every = options.crash_every;
    let mut clock = interval_at(Instant::now() + FIRST.min(every), every);
    // After a pause of the machine there is one blow, and not all that were missed.
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let names: Vec<String> = agents::names(options.agents).collect();
    for number in 1_u64.. {
        clock.tick().await;
        // A victim that ended in this moment is a blow into the air.
        strike(actors, &mut luck, &names, number).await;
    }
}

fn blow(luck: &mut Luck, number: u64) -> Blow {
    match (number, luck.below(100)) {
        // What everybody should see early.
        (1, _) => Blow::Mishap,
        (2, _) => Blow::Pool,
        (_, ..45) => Blow::Mishap,
        (_, 45..60) => Blow::Agent,
        (_, 60..75) => Blow::Below("/domain"),
        (_, 75..85) => Blow::Below("/messaging"),
        (_, 85..93) => Blow::Pool,
        _ => Blow::Below("/resources"),
    }
}

async fn strike(actors: &ActorSystem, luck: &mut Luck, names: &[String], number: u64) {
    let path = match blow(luck, number) {
        Blow::Mishap => {
            let mishap = *luck.pick(&MISHAPS).expect("there are six");
            if let Some(agent) = luck.pick(names).map(|name| agents::path(name))
                && let Ok(agent) = actors.find::<Talk>(&agent)
            {
                let _ = agent.tell(Talk::Crash(mishap)).await;
            }
            return;
        }
        Blow::Agent => luck.pick(names).map(|name| agents::path(name)),
        Blow::Pool => below(actors, luck, "/resources", "/pool."),
        Blow::Below(top) => below(actors, luck, top, ""),
    };
    let Some(path) = path else { return };
    let origin = Origin::new("the demo").because(format!("crash {number}"));
    let _ = actors.act(&path, Act::new(Action::Kill).by(origin)).await;
}

/// Somebody who is up below `top`, with `part` in the path.
fn below(actors: &ActorSystem, luck: &mut Luck, top: &str, part: &str) -> Option<String> {
    let tree = actors.look_for(&Look::at(top).children(VICTIMS))?;
    let paths: Vec<String> = tree
        .walk()
        .filter(|node| node.state == SlotState::Up)
        // Not all of it: with it the page would be away for as long as it takes to start.
        .filter(|node| node.path.as_str() != top && node.path.as_str().contains(part))
        .map(|node| node.path.to_string())
        .collect();
    luck.pick(&paths).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_who_is_struck() {
        let blows = |seed| {
            let mut luck = Luck::of(seed, "storm");
            (1..40).map(|number| blow(&mut luck, number)).collect::<Vec<_>>()
        };
        assert_eq!(blows(42), blows(42));
        assert_ne!(blows(42), blows(43));
        assert_eq!(blows(7)[..2], [Blow::Mishap, Blow::Pool]);
    }
}
