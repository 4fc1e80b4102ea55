//! The groups of a queue, how far they are, and what they let go.
//!
//! A server that was killed can come back without a consumer: its group would begin anew, and who
//! goes by the list of consumers alone would remove what that group has not seen. So the groups of
//! a queue are also written down, in a bucket: name, and a time before which it has handled
//! everything. That is a time and not a number, because a stream that has lost its end numbers
//! what comes then like what it has lost.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, Info, PullConsumer, pull};
use async_nats::jetstream::stream::{State, Stream};
use futures_util::StreamExt;
use tokio::time::Instant;

use super::{GroupStatus, Opened, QueueError, Retention};
use crate::bus::key_value::{BucketOptions, Entry, KeyValue, KeyValueError};
use crate::event::Timestamp;

/// The bucket: a key per queue.
const BUCKET: &str = "smith-groups";

/// Messages of a group that may be in flight at once.
const MAX_IN_FLIGHT: i64 = 20_000;

/// The key that is written to learn the time. No queue has this name.
const CLOCK: &str = "the.time";

/// How often the server's time is asked for, as long as something expires.
const ASK_TIME_EVERY: Duration = Duration::from_secs(60);

/// How long a new stream keeps what was handled, or for as long as a receiver may take, if that is
/// longer: members with something in hand have told about it by then.
const YOUNG: Duration = Duration::from_secs(60);

/// Others may write at the same time.
const TRIES: usize = 10;

/// Groups by name, and before which time each has handled everything, in microseconds.
type Known = BTreeMap<String, Option<i64>>;

impl Opened {
    fn bucket(&self) -> Result<impl KeyValue, QueueError> {
        self.connection.bucket(BucketOptions::new(BUCKET)).map_err(|error| self.fault(error))
    }

    fn fault(&self, error: KeyValueError) -> QueueError {
        match error {
            KeyValueError::Unreachable { reason, .. } => self.unreachable(reason),
            error => self.unreachable(error),
        }
    }

    async fn known(&self) -> Result<(Known, Option<Entry>), QueueError> {
        let entry = self.bucket()?.get(&self.options.name).await;
        let entry = entry.map_err(|error| self.fault(error))?;
        let known = entry.as_ref().map(|entry| serde_json::from_slice(&entry.value));
        let known = known.transpose().map_err(|error| QueueError::Refused {
            queue: self.options.name.clone(),
            reason: format!(
                "its groups cannot be read ({error}); remove key {} of bucket {BUCKET}",
                self.options.name
            ),
        })?;
        Ok((known.unwrap_or_default(), entry))
    }

    /// Changes what is written down; answers what `change` does, which may be asked again.
    async fn note<T>(
        &self,
        mut change: impl FnMut(&mut Known) -> T + Send,
    ) -> Result<T, QueueError> {
        let bucket = self.bucket()?;
        for _ in 0..TRIES {
            let (before, entry) = self.known().await?;
            let mut known = before.clone();
            let answer = change(&mut known);
            if known == before {
                return Ok(answer);
            }
            let value = serde_json::to_vec(&known).map_err(|error| self.unreachable(error))?.into();
            let written = match entry {
                Some(entry) => bucket.update(&self.options.name, value, entry.revision).await,
                None => bucket.create(&self.options.name, value).await,
            };
            match written {
                Ok(_) => return Ok(answer),
                Err(KeyValueError::Conflict { .. } | KeyValueError::Exists { .. }) => {}
                Err(error) => return Err(self.fault(error)),
            }
        }
        Err(self.unreachable("too many write its groups at the same time"))
    }

    async fn consumers(&self, stream: &Stream) -> Result<Vec<Info>, QueueError> {
        let (mut all, mut consumers) = (Vec::new(), stream.consumers());
        while let Some(consumer) = consumers.next().await {
            all.push(consumer.map_err(|error| self.judge(error))?);
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    pub(super) async fn groups(&self) -> Result<Vec<GroupStatus>, QueueError> {
        let stream = self.stream().await?;
        Ok(self.consumers(&stream).await?.into_iter().map(status).collect())
    }

    pub(super) async fn remove_group(&self, group: &str) -> Result<bool, QueueError> {
        let stream = self.stream().await?;
        let there = self.consumers(&stream).await?.iter().any(|info| info.name == group);
        // First what is written down: a consumer alone is not made again by others.
        let known = self.note(|known| known.remove(group).is_some()).await?;
        if there {
            stream.delete_consumer(group).await.map_err(|error| self.judge(error))?;
        }
        Ok(known || there)
    }

    /// The consumer of a group. One that is not there is made, where the group is known to be, or
    /// at the oldest message, and written down.
    pub(super) async fn consumer(&self, group: &str) -> Result<PullConsumer, QueueError> {
        let stream = self.stream().await?;
        let place = self.note(|known| *known.entry(group.to_owned()).or_default()).await?;
        let is = self.consumers(&stream).await?.into_iter().find(|info| info.name == group);
        // Where it began cannot be changed.
        let deliver_policy = match &is {
            Some(info) => info.config.deliver_policy,
            None => place.map_or(DeliverPolicy::All, since),
        };
        let config = pull::Config {
            durable_name: Some(group.to_owned()),
            deliver_policy,
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.options.ack_within,
            // The receiver counts deliveries and gives up by itself, so that nothing is dropped
            // by the server without a dead letter.
            max_deliver: -1,
            max_ack_pending: MAX_IN_FLIGHT,
            ..pull::Config::default()
        };
        stream.create_consumer(config).await.map_err(|error| self.judge(error))
    }

    /// What the server's clock shows. It is in no answer but in what the server stores, so it is
    /// asked for now and then with a note.
    pub(super) async fn server_time(&self) -> Result<Timestamp, QueueError> {
        let mut asked = self.time.lock().await;
        let (at, time) = match *asked {
            Some((at, time)) if at.elapsed() < ASK_TIME_EVERY => (at, time),
            _ => {
                let bucket = self.bucket()?;
                let noted = async {
                    bucket.put(CLOCK, bytes::Bytes::new()).await?;
                    bucket.get(CLOCK).await
                };
                let noted = noted.await.map_err(|error| self.fault(error))?;
                let gone = || self.unreachable(format!("{CLOCK} is gone from bucket {BUCKET}"));
                *asked.insert((Instant::now(), noted.ok_or_else(gone)?.at))
            }
        };
        let since = i64::try_from(at.elapsed().as_micros()).unwrap_or(i64::MAX);
        Ok(Timestamp::from_micros(time.as_micros().saturating_add(since)))
    }

    /// Removes what all groups have handled, and writes down how far they are. Failing is no
    /// matter: it is done again.
    ///
    /// A stream that is [`YOUNG`] may be one that the server had lost with all that it knew, and a
    /// group whose members have their hands full is not there again yet: from such a one nothing
    /// is removed unless it is full.
    pub(super) async fn tidy(&self, full: bool) {
        if let Err(error) = self.try_tidy(full).await {
            tracing::debug!(queue = self.options.name, %error, "not tidied");
        }
    }

    async fn try_tidy(&self, full: bool) -> Result<(), QueueError> {
        let stream = self.stream().await?;
        let (known, _) = self.known().await?;
        let consumers = self.consumers(&stream).await?;
        let lost = |group: &&String| consumers.iter().all(|info| info.name != **group);
        let lost: Vec<_> = known.keys().filter(lost).collect();
        if !lost.is_empty() {
            // Nothing is removed before they are there again.
            for group in lost {
                tracing::warn!(queue = self.options.name, group, "its consumer was lost");
                self.consumer(group).await?;
            }
            return Ok(());
        }
        let info = stream.get_info().await.map_err(|error| self.judge(error))?;
        let (created, state) = (info.created, info.state);
        let mut places = Vec::new();
        for info in consumers.iter().filter(|info| known.contains_key(&info.name)) {
            let place = Self::place(&stream, &state, info).await;
            if place > known[&info.name] {
                places.push((info.name.clone(), place));
            }
        }
        if !places.is_empty() {
            let change = |known: &mut Known| {
                for (group, place) in &places {
                    // One that was removed meanwhile stays so.
                    if let Some(known) = known.get_mut(group) {
                        *known = (*known).max(*place);
                    }
                }
            };
            self.note(change).await?;
        }
        let least = consumers.iter().map(|info| info.ack_floor.stream_sequence).min();
        let age = state.last_timestamp.unix_timestamp_nanos() - created.unix_timestamp_nanos();
        let young = age < YOUNG.max(self.options.ack_within).as_nanos().cast_signed();
        if let Some(least) = least.filter(|least| *least > 0)
            && (full || !young)
            && self.options.retention == Retention::Work
        {
            let purged = stream.purge().sequence(least + 1).await;
            purged.map_err(|error| self.judge(error))?;
        }
        Ok(())
    }

    /// Before which time a group has handled everything; `None` if that cannot be said now.
    async fn place(stream: &Stream, state: &State, info: &Info) -> Option<i64> {
        let floor = info.ack_floor.stream_sequence;
        let time = match floor {
            0 => return None,
            floor if floor >= state.last_sequence => state.last_timestamp,
            // It may have been removed since.
            floor => {
                let next = (floor + 1).max(state.first_sequence);
                stream.get_raw_message(next).await.ok()?.time
            }
        };
        Some(micros(time.unix_timestamp_nanos()))
    }
}

fn micros(nanos: i128) -> i64 {
    i64::try_from(nanos / 1_000).unwrap_or(i64::MAX)
}

fn since(micros: i64) -> DeliverPolicy {
    let time = Timestamp::from_micros(micros).to_string();
    let policy = serde_json::json!({ "deliver_policy": "by_start_time", "opt_start_time": time });
    // All of them is right as well, only more.
    serde_json::from_value(policy).unwrap_or(DeliverPolicy::All)
}

fn status(info: Info) -> GroupStatus {
    let in_flight = u64::try_from(info.num_ack_pending).unwrap_or(0);
    let seen = [info.delivered.last_active, info.ack_floor.last_active];
    let seen = seen.into_iter().flatten().map(|time| micros(time.unix_timestamp_nanos())).max();
    GroupStatus {
        name: info.name,
        waiting: info.num_pending + in_flight,
        in_flight,
        seen: seen.map(Timestamp::from_micros),
    }
}
