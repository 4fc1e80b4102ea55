//! Dependencies across branches: a child that needs something another supervisor looks after.
//!
//! Siblings that depend on each other are one supervisor's business. Where the needed one lives in
//! another branch, two supervisors have to take turns: before the needed one is stopped, its
//! dependents are stopped, in reverse start order; when it is up again, they are started. If it
//! ends by itself they are stopped as soon as that is known. While they wait they are like siblings
//! whose dependency is down: their messages wait with them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::actor::state::SlotState;
use crate::environment::{Environment, spawn};
use crate::error::SpecError;
use crate::path::{Path, unescape};
use crate::supervisor::spec::SupervisorSpec;
use crate::supervisor::{Change, SupervisorMessage};
use crate::sync::lock;

/// How long something that is to be stopped waits for its dependents to stop.
const DEPENDENTS: Duration = Duration::from_secs(30);

/// Who depends on whom, by path.
#[derive(Default)]
pub(crate) struct Across(Mutex<BTreeMap<Path, Vec<Path>>>);

/// Whether a dependency is meant for another branch.
pub(crate) fn is_path(dependency: &str) -> bool {
    dependency.starts_with('/')
}

impl Across {
    /// `dependent` needs `needed`.
    pub(crate) fn add(&self, needed: Path, dependent: Path) {
        let mut known = lock(&self.0);
        let dependents = known.entry(needed).or_default();
        // Last started, first stopped.
        dependents.retain(|other| *other != dependent);
        dependents.push(dependent);
    }

    /// Its spec is gone.
    pub(crate) fn forget(&self, dependent: &Path) {
        lock(&self.0).retain(|_, dependents| {
            dependents.retain(|other| other != dependent);
            !dependents.is_empty()
        });
    }

    /// Who needs what lives at `path` or below it, in start order. Those below `path` themselves
    /// stop with it.
    fn dependents(&self, path: &Path) -> Vec<Path> {
        let known = lock(&self.0);
        if known.is_empty() {
            return Vec::new();
        }
        let needed = known.iter().filter(|(needed, _)| needed.is_within(path));
        let mut all: Vec<Path> = Vec::new();
        for dependent in needed.flat_map(|(_, dependents)| dependents) {
            if !all.contains(dependent) && !dependent.is_within(path) {
                all.push(dependent.clone());
            }
        }
        all
    }

    pub(crate) fn has_dependents(&self, path: &Path) -> bool {
        !self.dependents(path).is_empty()
    }
}

impl Environment {
    /// What lives at `path` has ended: its dependents are stopped.
    pub(crate) fn across_down(self: &Arc<Self>, path: &Path) {
        if self.across.has_dependents(path) {
            let (env, path) = (Arc::clone(self), path.clone());
            spawn(self, async move { env.block_dependents(&path).await });
        }
    }

    /// What lives at `path` is up: its dependents are started, if nothing else is missing.
    pub(crate) fn across_up(self: &Arc<Self>, path: &Path) {
        let dependents = lock(&self.across.0).get(path).cloned().unwrap_or_default();
        if !dependents.is_empty() {
            let env = Arc::clone(self);
            spawn(self, async move {
                for dependent in dependents {
                    if env.across_missing(&dependent).is_none() {
                        env.change_across(Change::Unblock, &dependent).await;
                    }
                }
            });
        }
    }

    /// Stops the dependents of what lives at `path`, the last one first, and returns when they have.
    pub(crate) async fn block_dependents(&self, path: &Path) {
        let stopped = async {
            for dependent in self.across.dependents(path).iter().rev() {
                self.change_across(Change::Block, dependent).await;
            }
        };
        if tokio::time::timeout(DEPENDENTS, stopped).await.is_err() {
            tracing::error!(actor.path = %path, "its dependents did not stop in time; it stops first");
        }
    }

    /// What a dependent needs and is not up.
    pub(crate) fn across_missing(&self, dependent: &Path) -> Option<Path> {
        let root = self.root()?;
        let known = lock(&self.across.0);
        let needed = known.iter().filter(|(_, dependents)| dependents.contains(dependent));
        let needed: Vec<Path> = needed.map(|(needed, _)| needed.clone()).collect();
        drop(known);
        needed.into_iter().find(|needed| {
            root.find(needed).is_none_or(|slot| slot.cell().state() != SlotState::Up)
        })
    }

    async fn change_across(&self, change: Change, dependent: &Path) {
        let Some(parent) = dependent.parent() else { return };
        let supervisor = self.root().and_then(|root| root.supervisor(&parent).ok());
        let id = dependent.segments().last().map(unescape).unwrap_or_default();
        if let Some(supervisor) = supervisor {
            // A supervisor that is down or stopping has stopped it, or does.
            let _ = supervisor.change(change, &id).await;
        }
    }
}

/// Tells a supervisor to go on with a stop, once the dependents are down.
pub(crate) fn stop_after_dependents(
    env: &Arc<Environment>,
    to: ractor::ActorRef<SupervisorMessage>,
    path: Path,
    message: SupervisorMessage,
) {
    let waits = Arc::clone(env);
    spawn(env, async move {
        waits.block_dependents(&path).await;
        // A supervisor that is gone has killed it.
        let _ = to.send_message(message);
    });
}

/// Checks the dependencies across the branches of a declared tree: each must exist, and start before
/// whoever needs it, which also rules out circles.
pub(crate) fn check(root: &SupervisorSpec) -> Result<(), SpecError> {
    let mut order = Vec::new();
    walk(&root.in_start_order(), &Path::root(), &mut order);
    for (at, (path, needs)) in order.iter().enumerate() {
        for needed in needs {
            let needed = Path::parse(needed);
            let other = order.iter().position(|(path, _)| *path == needed);
            match other {
                None => {
                    return Err(SpecError::UnknownDependency {
                        supervisor: root.id.to_string(),
                        child: path.to_string(),
                        dependency: needed.to_string(),
                    });
                }
                Some(other) if other >= at || path.is_within(&needed) => {
                    return Err(SpecError::DependencyOrder {
                        child: path.to_string(),
                        dependency: needed.to_string(),
                    });
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// Every declared child in start order, a supervisor after its children, as it is up after them.
fn walk(spec: &SupervisorSpec, path: &Path, order: &mut Vec<(Path, Vec<String>)>) {
    for child in &spec.children {
        let path = path.child(&child.id);
        if let Some(below) = child.child.supervisor() {
            walk(&below.in_start_order(), &path, order);
        }
        let needs = child.metadata.depends_on.iter().filter(|id| is_path(id)).cloned().collect();
        order.push((path, needs));
    }
}
