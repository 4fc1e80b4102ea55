//! Looking at the health of lives, and treating what is bad for long as a failure.

use std::sync::Arc;
use std::time::Duration;

use crate::actor::TaskGuard;
use crate::actor::slot::Call;
use crate::error::ExitReason;
use crate::health::{Health, HealthSpec};
use crate::lifecycle::LifecycleKind;
use crate::supervisor::SupervisorMessage;
use crate::supervisor::lives::Lives;
use crate::supervisor::lives::clock::Alarm;
use crate::supervisor::orders::Key;

impl Lives {
    pub(super) fn check_again(&mut self, key: Key, health: HealthSpec) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let at = self.env.clock.elapsed().saturating_add(health.every);
        if let Some(before) = child.health_at.replace(at) {
            self.alarms.remove(&(before, key, Alarm::Health));
        }
        self.ring_at(at, key, Alarm::Health);
    }

    /// Time for a check. A stuck handler shows in the slot; everything else is asked of the life,
    /// and its answer comes as `HealthChecked`.
    pub(super) fn check_health(&mut self, key: Key) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let Some(health) =
            child.spec.health.as_deref().copied().filter(|_| child.up && !child.stopping)
        else {
            return;
        };
        let life = child.life;
        let cell = child.slot.cell();
        if cell.is_suspended() || cell.gate.is_held() {
            return self.check_again(key, health);
        }
        let now = self.env.clock.ticks_ns();
        let busy =
            cell.stats.began_ns().map(|since| Duration::from_nanos(now.saturating_sub(since)));
        let (reply, answer) = tokio::sync::oneshot::channel();
        let known = match busy {
            Some(busy) if busy >= health.stuck_after => Some(Health::unhealthy(format!(
                "stuck in {} for more than {:?}",
                cell.in_flight_name().unwrap_or("a message"),
                health.stuck_after
            ))),
            _ if child.slot.checks_health() && cell.call(Call::Health(reply)) => None,
            _ => Some(cell.reported_health().unwrap_or(Health::Healthy)),
        };
        let slot = Arc::clone(&child.slot);
        let myself = self.myself.clone();
        let deadline = health.deadline;
        child.health_check = Some(TaskGuard::spawn(async move {
            let health = match known {
                Some(health) => health,
                None => match tokio::time::timeout(deadline, answer).await {
                    Ok(Ok(health)) => health,
                    Ok(Err(_)) => return,
                    // It answers between two messages: a long one is no fault until it is stuck.
                    Err(_) if slot.cell().stats.began_ns().is_some() => {
                        Health::degraded(format!("busy, no answer within {deadline:?}"))
                    }
                    Err(_) => Health::unhealthy(format!("no answer within {deadline:?}")),
                },
            };
            let _ = myself.send_message(SupervisorMessage::HealthChecked { key, life, health });
        }));
    }

    /// Takes the result of a check. `Some` when it is time to treat it as a failure.
    pub(crate) fn health_checked(
        &mut self,
        key: Key,
        life: u64,
        health: Health,
    ) -> Option<ExitReason> {
        let child = self.children.get_mut(&key)?;
        let spec = *child.spec.health.as_deref()?;
        if child.life != life || !child.up || child.stopping {
            return None;
        }
        let cell = child.slot.cell();
        let was = cell.health().unwrap_or(Health::Healthy);
        if was != health {
            let healthy = !matches!(health, Health::Unhealthy(_));
            let detail = health.detail().cloned().unwrap_or_else(|| "".into());
            self.env.emit(cell, life, None, LifecycleKind::Health { healthy, detail });
        }
        cell.set_health(health.clone());
        child.failed_checks = match &health {
            Health::Unhealthy(_) => child.failed_checks + 1,
            _ => 0,
        };
        if let (Health::Unhealthy(why), true) =
            (health, child.failed_checks >= spec.unhealthy_after)
        {
            return Some(ExitReason::Unhealthy(why));
        }
        self.check_again(key, spec);
        None
    }
}
