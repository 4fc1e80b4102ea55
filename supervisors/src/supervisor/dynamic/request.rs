//! What a dynamic supervisor is asked to do.

use std::sync::Arc;

use super::DynamicDriver;
use super::child::{Phase, Then, Waiting};
use crate::actor::slot::AnySlot;
use crate::environment::lock;
use crate::error::SupervisorError;
use crate::supervisor::machine::Key;
use crate::supervisor::spec::{ChildSpec, check_child};
use crate::supervisor::{Answer, Ask, Change, Request};

impl DynamicDriver {
    pub(super) fn request(&mut self, request: Request) {
        let stopping = self.ending.is_some() || self.is_stopping_caller(&request);
        match request.ask {
            Ask::Start(_, answer) if stopping => drop(answer.send(Err(self.stopping_error()))),
            Ask::Change(_, _, answer) if stopping => {
                drop(answer.send(Err(self.stopping_error())));
            }
            Ask::Start(spec, answer) => self.add(*spec, answer),
            Ask::Change(change, id, answer) => match self.ids.get(&id) {
                Some(&key) => match self.common.refusal(&id, request.given) {
                    Some(error) => drop(answer.send(Err(error))),
                    None => self.change(key, change, answer, request.given.cause_seq),
                },
                None => drop(answer.send(Err(self.not_found(&id)))),
            },
            Ask::SetIntensity(intensity, answer) => {
                self.common.set_intensity(intensity);
                drop(answer.send(Ok(())));
            }
            Ask::SetPolicy(id, policy, answer) => {
                let result = match self.ids.get(&id) {
                    Some(&key) => {
                        self.common.lives.set_policy(key, policy);
                        Ok(())
                    }
                    None => Err(self.not_found(&id)),
                };
                drop(answer.send(result));
            }
            Ask::RestartsLeft(answer) => {
                let intensity = self.common.spec.intensity;
                let left = lock(&self.common.link.window).left(self.now(), intensity);
                drop(answer.send(Ok(left)));
            }
        }
    }

    /// Looks only at the one child that could be the caller: there may be 100,000 others.
    fn is_stopping_caller(&self, request: &Request) -> bool {
        let Some(caller) = &request.caller else { return false };
        let own = self.common.path().segments().count();
        let Some(segment) = caller.segments().nth(own) else { return false };
        if !caller.is_within(self.common.path()) {
            return false;
        }
        let id = crate::path::unescape(segment);
        let key = self.ids.get(&*id).copied();
        let child = key.and_then(|key| self.children.get(&key));
        child.is_some_and(|child| matches!(child.phase, Phase::Stopping(_)))
    }

    fn add(&mut self, spec: ChildSpec, answer: Answer<Arc<dyn AnySlot>>) {
        let refusal = if let Err(error) =
            check_child(&spec, &self.common.spec, self.common.lives.policies())
        {
            Some(error.into())
        } else if self.ids.contains_key(&spec.id) {
            Some(SupervisorError::AlreadyStarted { path: self.common.path().child(&spec.id) })
        } else if self.children.len() >= self.max_children {
            Some(SupervisorError::MaxChildren {
                supervisor: self.common.path().clone(),
                max: self.max_children,
            })
        } else {
            None
        };
        if let Some(error) = refusal {
            drop(answer.send(Err(error)));
            return;
        }
        let slot =
            spec.child.slot(&spec, self.common.path().child(&spec.id), &self.common.lives.env);
        self.insert(spec, slot, Some(Waiting::Slot(answer)), false, None);
    }

    fn change(&mut self, key: Key, change: Change, answer: Answer<()>, cause_seq: Option<u64>) {
        let path = self.path_of(key);
        let Some(child) = self.children.get_mut(&key) else { return };
        match (change, child.phase) {
            (Change::Terminate | Change::PlannedRestart, Phase::Starting { .. }) => {
                drop(answer.send(Err(SupervisorError::Restarting { path })));
            }
            (Change::Terminate | Change::PlannedRestart, Phase::Stopping(_)) => {
                drop(answer.send(Err(self.stopping_error())));
            }
            (Change::Terminate, _) => {
                child.waiting = Some(Waiting::Done(answer));
                self.common.lives.because(key, cause_seq);
                self.stop(key, Then::Forget);
            }
            (Change::PlannedRestart, _) => {
                child.waiting = Some(Waiting::Done(answer));
                self.unsuspend(key, cause_seq);
                self.common.lives.because(key, cause_seq);
                self.stop(key, Then::Start);
            }
            (Change::Restart | Change::Delete, Phase::Waiting) => {
                drop(answer.send(Err(SupervisorError::Restarting { path })));
            }
            (Change::Restart | Change::Delete, _) => {
                drop(answer.send(Err(SupervisorError::Running { path })));
            }
            (Change::Suspend, phase) => {
                child.suspended = true;
                if phase == Phase::Waiting {
                    child.phase = Phase::Held;
                    child.epoch += 1;
                    self.common.lives.cancel_retry(key);
                }
                self.common.lives.suspend(key, true, cause_seq);
                drop(answer.send(Ok(())));
            }
            (Change::Resume, phase) => {
                self.unsuspend(key, cause_seq);
                if phase == Phase::Held {
                    if cause_seq.is_some() {
                        self.common.lives.because(key, cause_seq);
                    }
                    if let Some(child) = self.children.get_mut(&key) {
                        child.waiting = Some(Waiting::Done(answer));
                    }
                    self.start(key);
                } else {
                    drop(answer.send(Ok(())));
                }
            }
        }
    }

    fn unsuspend(&mut self, key: Key, cause_seq: Option<u64>) {
        let Some(child) = self.children.get_mut(&key) else { return };
        if std::mem::take(&mut child.suspended) {
            self.common.lives.suspend(key, false, cause_seq);
        }
    }

    pub(super) fn answer(&mut self, key: Key, result: Result<(), SupervisorError>) {
        let waiting = self.children.get_mut(&key).and_then(|child| child.waiting.take());
        match (waiting, result) {
            (Some(Waiting::Done(answer)), result) => drop(answer.send(result)),
            (Some(Waiting::Slot(answer)), Err(error)) => drop(answer.send(Err(error))),
            // A start that is answered without a slot was taken back.
            (Some(Waiting::Slot(answer)), Ok(())) => {
                drop(answer.send(Err(self.stopping_error())));
            }
            (None, _) => {}
        }
    }
}
