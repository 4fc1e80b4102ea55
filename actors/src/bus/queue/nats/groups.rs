//! The groups of a queue, and what they let go.

use async_nats::jetstream::consumer::Info;
use futures_util::StreamExt;

use super::{GroupStatus, Opened, QueueError, Retention};
use crate::event::Timestamp;

impl Opened {
    async fn consumers(&self) -> Result<Vec<Info>, QueueError> {
        let stream = self.stream().await?;
        let (mut all, mut consumers) = (Vec::new(), stream.consumers());
        while let Some(consumer) = consumers.next().await {
            all.push(consumer.map_err(|error| self.judge(error))?);
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    pub(super) async fn groups(&self) -> Result<Vec<GroupStatus>, QueueError> {
        Ok(self.consumers().await?.into_iter().map(status).collect())
    }

    pub(super) async fn remove_group(&self, group: &str) -> Result<bool, QueueError> {
        if !self.consumers().await?.iter().any(|info| info.name == group) {
            return Ok(false);
        }
        let stream = self.stream().await?;
        let deleted = stream.delete_consumer(group).await.map_err(|error| self.judge(error))?;
        Ok(deleted.success)
    }

    /// Removes what all groups have handled.
    pub(super) async fn purge(&self) {
        if self.options.retention != Retention::Work {
            return;
        }
        // Without all of them it is unknown what may go.
        let Ok(consumers) = self.consumers().await else { return };
        let floors = consumers.iter().map(|info| info.ack_floor.stream_sequence);
        let Some(least) = floors.min().filter(|least| *least > 0) else { return };
        let Ok(stream) = self.stream().await else { return };
        if let Err(error) = stream.purge().sequence(least + 1).await {
            tracing::debug!(queue = self.options.name, %error, "not purged");
        }
    }
}

fn status(info: Info) -> GroupStatus {
    let in_flight = u64::try_from(info.num_ack_pending).unwrap_or(0);
    let seen = [info.delivered.last_active, info.ack_floor.last_active];
    let seen = seen.into_iter().flatten().map(|time| time.unix_timestamp_nanos() / 1_000).max();
    GroupStatus {
        name: info.name,
        waiting: info.num_pending + in_flight,
        in_flight,
        seen: seen.and_then(|micros| i64::try_from(micros).ok()).map(Timestamp::from_micros),
    }
}
