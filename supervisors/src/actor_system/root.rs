//! The top of a system: who starts the root, hears of its end, and tidies up behind it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::actor::slot::AnySlot;
use crate::actor::state::SlotState;
use crate::environment::{Environment, spawn};
use crate::error::ExitReason;
use crate::lifecycle::dispatch::Dispatch;
use crate::supervisor::child::Reports;

/// How long the end of a system waits for an observer that does not return.
const OBSERVERS: Duration = Duration::from_secs(1);

/// Knows when the root has ended, and everything with it.
#[derive(Clone)]
pub(crate) struct RootWatch {
    ended: watch::Receiver<Option<ExitReason>>,
    tell: Arc<Tell>,
}

/// Given away once.
struct Tell(std::sync::Mutex<Option<Root>>);

/// The root's report.
pub(crate) struct Root {
    slot: Arc<dyn AnySlot>,
    ended: watch::Sender<Option<ExitReason>>,
    dispatch: Option<Dispatch>,
    started: Option<oneshot::Sender<()>>,
    reason: Option<ExitReason>,
}

impl RootWatch {
    /// Begins to watch a root that is about to be started.
    pub(crate) fn begin(slot: &Arc<dyn AnySlot>) -> Self {
        let (tell, ended) = watch::channel(None);
        let dispatch = Some(Dispatch::begin(&slot.cell().env));
        let slot = Arc::clone(slot);
        let root = Root { slot, ended: tell, dispatch, started: None, reason: None };
        Self { ended, tell: Arc::new(Tell(std::sync::Mutex::new(Some(root)))) }
    }

    /// What the root reports to, and what hears that it is up.
    pub(crate) fn report(&self) -> (Root, oneshot::Receiver<()>) {
        let (started, is_started) = oneshot::channel();
        let mut root = crate::sync::lock(&self.tell.0).take().expect("a root is started once");
        root.started = Some(started);
        (root, is_started)
    }

    pub(crate) async fn ended(&self) -> ExitReason {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(ExitReason::Killed),
            // The runtime took it down.
            Err(_) => ExitReason::Killed,
        }
    }
}

impl Reports for Root {
    fn up(&mut self) {
        self.slot.cell().set_state(SlotState::Up);
        if let Some(started) = self.started.take() {
            let _ = started.send(());
        }
    }

    fn end(&mut self, reason: ExitReason) {
        self.reason = Some(reason);
    }
}

impl Drop for Root {
    /// The root is gone, whoever ended it.
    fn drop(&mut self) {
        let reason = self.reason.take().unwrap_or(ExitReason::Killed);
        let cell = self.slot.cell();
        let life = cell.life();
        cell.record_exit(life, reason.clone());
        cell.life_ended(life, false);
        cell.set_state(SlotState::Down);
        let slot = Arc::clone(&self.slot);
        let (ended, dispatch) = (self.ended.clone(), self.dispatch.take());
        let env: Arc<Environment> = Arc::clone(&cell.env);
        let started = self.started.take();
        spawn(&env, async move {
            // Lives that were killed with their supervisors are about to end.
            crate::tree::lives_ended(&slot, crate::supervisor::KILL_GRACE).await;
            slot.close(&reason);
            crate::tree::walk(&slot, &mut |slot| {
                if let Some(link) = slot.supervisor() {
                    link.forget_specs();
                }
            });
            if let Some(dispatch) = dispatch {
                dispatch.finish(OBSERVERS).await;
            }
            ended.send_replace(Some(reason));
            drop(started);
        });
    }
}
