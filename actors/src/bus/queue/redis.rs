//! Queues on Redis streams (7.0 and later): a stream per queue, a consumer group per group.
//!
//! Redis has no time for each delivery and no delay: a message that somebody has had for too long
//! is claimed by the next member that asks, and "later" is a claim that makes it look as old as it
//! has to, or a note of when it is due.
//!
//! A server that evicts keys under memory pressure can take whole queues; `noeviction` is the
//! setting for queues. What the notes beside the stream say (`NAME:count`, `NAME:last`,
//! `NAME:id:*`) is also found without them, except which ids were sent lately.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, LuaInterface};
use fred::types::config::{Config, ReconnectPolicy, UnresponsiveConfig};
use fred::types::{Builder, FromValue, Value};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::expiry::Unexpired;
use super::{
    GroupStatus, Queue, QueueError, QueueOptions, Receiver, Retention, Sender, check_name,
};
use crate::event::Timestamp;

mod receive;
mod scripts;
mod send;

use receive::RedisReceiver;
use send::RedisSender;

/// How long the server may take for a command. fred's own default is forever.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(3);

/// A member of a group without a message that gave no sign for this long is forgotten.
const GONE_AFTER: Duration = Duration::from_secs(600);

/// See the [module](self).
#[derive(Clone)]
pub struct RedisQueue(Arc<Opened>);

/// What a queue's sender and receivers share.
struct Opened {
    client: Client,
    config: Config,
    options: QueueOptions,
}

impl RedisQueue {
    /// Begins to connect, and returns at once: a server that is down may come later.
    ///
    /// # Errors
    /// The address cannot be used.
    pub async fn open(url: &str, options: QueueOptions) -> Result<Self, QueueError> {
        let config =
            Config::from_url(url).map_err(|_| QueueError::Unknown { url: url.to_owned() })?;
        let client = client(config.clone(), COMMAND_TIMEOUT, &options).await?;
        Ok(Self(Arc::new(Opened { client, config, options })))
    }
}

impl Opened {
    fn fault(&self, error: &Error) -> QueueError {
        let (queue, reason) = (self.options.name.clone(), error.to_string());
        let away = ["NOGROUP", "LOADING", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN"];
        match error.kind() {
            _ if reason.contains("OOM") => QueueError::Full { queue, detail: reason },
            ErrorKind::IO
            | ErrorKind::Timeout
            | ErrorKind::Canceled
            | ErrorKind::Backpressure
            | ErrorKind::Unknown => QueueError::Unreachable { queue, reason },
            _ if away.iter().any(|word| reason.contains(word)) => {
                QueueError::Unreachable { queue, reason }
            }
            _ => QueueError::Refused { queue, reason },
        }
    }

    /// The key of a note beside the stream.
    fn key(&self, note: &str) -> String {
        format!("{}:{note}", self.options.name)
    }

    /// Where it is noted when what rests is due.
    fn pauses(&self, group: &str) -> String {
        self.key(&format!("later:{group}"))
    }

    async fn run<T: FromValue>(
        &self,
        script: &'static str,
        notes: Vec<String>,
        args: Vec<Value>,
    ) -> Result<T, QueueError> {
        let mut keys = vec![self.options.name.clone()];
        keys.extend(notes);
        let answer: Result<T, Error> = self.client.eval(script, keys, args).await;
        answer.map_err(|error| self.fault(&error))
    }

    async fn trim(&self) {
        if self.options.retention != Retention::Work {
            return;
        }
        let args = vec![millis(GONE_AFTER.max(self.options.ack_within * 10)).into()];
        let trimmed = self.run::<Value>(scripts::TRIM, vec![self.key("groups")], args).await;
        if let Err(error) = trimmed {
            tracing::debug!(queue = self.options.name, %error, "not trimmed");
        }
    }

    async fn groups(&self) -> Result<Vec<GroupStatus>, QueueError> {
        let all: Vec<(String, u64, u64, i64, i64)> =
            self.run(scripts::STATUS, Vec::new(), Vec::new()).await?;
        let status = |(name, waiting, in_flight, idle, now): (String, u64, u64, i64, i64)| {
            let seen = (idle >= 0).then(|| Timestamp::from_micros((now - idle) * 1_000));
            GroupStatus { name, waiting, in_flight, seen }
        };
        let mut all: Vec<_> = all.into_iter().map(status).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    async fn remove_group(&self, group: &str) -> Result<bool, QueueError> {
        let notes = vec![self.key("groups"), self.pauses(group)];
        let known: u64 = self.run(scripts::REMOVE, notes, vec![group.into()]).await?;
        Ok(known > 0)
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

async fn client(
    mut config: Config,
    timeout: Duration,
    options: &QueueOptions,
) -> Result<Client, QueueError> {
    // Else a client whose first try fails never tries again.
    config.fail_fast = false;
    let mut builder = Builder::from_config(config);
    builder
        .with_performance_config(|performance| performance.default_command_timeout = timeout)
        .with_connection_config(|connection| {
            connection.connection_timeout = Duration::from_secs(2);
            connection.internal_command_timeout = Duration::from_secs(2);
            // A command that may have had its effect is not sent again behind our back.
            connection.max_command_attempts = 1;
            connection.reconnect_on_auth_error = true;
            connection.unresponsive = UnresponsiveConfig {
                max_timeout: Some(timeout + Duration::from_secs(2)),
                interval: Duration::from_secs(1),
            };
        })
        // 0: it never gives up.
        .set_policy(ReconnectPolicy::new_exponential(0, 50, 2_000, 2));
    let refused = |error: Error| QueueError::Refused {
        queue: options.name.clone(),
        reason: error.to_string(),
    };
    let client = builder.build().map_err(refused)?;
    // The task ends with the last clone of the client.
    drop(client.connect());
    let _ = tokio::time::timeout(Duration::from_secs(2), client.wait_for_connect()).await;
    Ok(client)
}

impl Queue for RedisQueue {
    fn sender(&self) -> Arc<dyn Sender> {
        Arc::new(RedisSender::new(Arc::clone(&self.0)))
    }

    fn receiver(&self, group: &str) -> Result<Arc<dyn Receiver>, QueueError> {
        check_name(group)?;
        Ok(Arc::new(Unexpired(RedisReceiver::new(Arc::clone(&self.0), group))))
    }

    fn groups(&self) -> BoxFuture<'_, Result<Vec<GroupStatus>, QueueError>> {
        self.0.groups().boxed()
    }

    fn remove_group<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<bool, QueueError>> {
        self.0.remove_group(group).boxed()
    }
}

impl fmt::Debug for RedisQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisQueue").field("queue", &self.0).finish()
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("name", &self.options.name).finish_non_exhaustive()
    }
}
