//! Who waits for whom, and the circles in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::actor::slot::AnySlot;
use crate::path::Path;
use crate::tree::walk;

/// One actor waits for the answer of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitEdge {
    /// Who waits.
    pub from: Path,
    /// For whom.
    pub to: Path,
    /// The message that was asked.
    pub message: &'static str,
    /// For how long.
    pub waiting: Duration,
}

/// The questions of actors to actors that have no answer yet.
///
/// A question of a task that is no actor's is not here, nor is one that is answered at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Actors that wait for each other in a circle: nothing but a deadline ends that. Each begins
    /// with its smallest path.
    pub cycles: Vec<Vec<Path>>,
    /// All of them: those within circles first, then the longest first.
    pub edges: Vec<WaitEdge>,
}

impl Waits {
    pub(crate) fn of(root: &Arc<dyn AnySlot>) -> Self {
        let mut edges = Vec::new();
        walk(root, &mut |slot| {
            let from = &slot.cell().path;
            edges.extend(slot.cell().waits().into_iter().map(|wait| WaitEdge {
                from: from.clone(),
                to: wait.on,
                message: wait.message,
                waiting: wait.waiting,
            }));
        });
        let cycles = cycles(&edges);
        edges.sort_by_key(|edge| {
            let circular = cycles.iter().any(|c| c.contains(&edge.from) && c.contains(&edge.to));
            (!circular, std::cmp::Reverse(edge.waiting))
        });
        Self { cycles, edges }
    }
}

/// A circle for every edge that leads back to where the walk came from.
fn cycles(edges: &[WaitEdge]) -> Vec<Vec<Path>> {
    let mut targets: BTreeMap<&Path, Vec<&Path>> = BTreeMap::new();
    for edge in edges {
        targets.entry(&edge.from).or_default().push(&edge.to);
    }
    let mut done: BTreeMap<&Path, bool> = BTreeMap::new();
    let mut found: Vec<Vec<Path>> = Vec::new();
    for &start in targets.keys() {
        // The way from `start`, each with how many of its targets were followed.
        let mut way: Vec<(&Path, usize)> = vec![(start, 0)];
        if done.insert(start, false).is_some() {
            continue;
        }
        while let Some((at, followed)) = way.last_mut() {
            let next = targets.get(*at).and_then(|to| to.get(*followed)).copied();
            *followed += 1;
            match next {
                None => {
                    done.insert(*at, true);
                    way.pop();
                }
                Some(next) => match done.get(next) {
                    None => {
                        done.insert(next, false);
                        way.push((next, 0));
                    }
                    Some(false) => {
                        let from = way.iter().position(|(at, _)| *at == next).unwrap_or_default();
                        let mut cycle: Vec<Path> =
                            way[from..].iter().map(|(at, _)| (*at).clone()).collect();
                        let least = cycle.iter().enumerate().min_by_key(|(_, path)| *path);
                        let least = least.map_or(0, |(at, _)| at);
                        cycle.rotate_left(least);
                        if !found.contains(&cycle) {
                            found.push(cycle);
                        }
                    }
                    Some(true) => {}
                },
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(pairs: &[(&str, &str)]) -> Vec<WaitEdge> {
        let edge = |(from, to): &(&str, &str)| WaitEdge {
            from: Path::parse(from),
            to: Path::parse(to),
            message: "m",
            waiting: Duration::ZERO,
        };
        pairs.iter().map(edge).collect()
    }

    #[test]
    fn circles_are_found_and_chains_are_none() {
        assert!(cycles(&edges(&[("/a", "/b"), ("/b", "/c"), ("/d", "/c")])).is_empty());
        let found = cycles(&edges(&[("/c", "/b"), ("/b", "/c"), ("/a", "/c"), ("/x", "/x")]));
        let paths = |cycle: &[&str]| cycle.iter().map(|p| Path::parse(p)).collect::<Vec<_>>();
        assert_eq!(found, [paths(&["/b", "/c"]), paths(&["/x"])]);
    }
}
