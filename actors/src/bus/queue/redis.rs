//! Queues on Redis streams: a stream a queue, a consumer group a group.
//!
//! Redis has no time for each delivery and no delay: a message that somebody has had for too long
//! is claimed by the next who asks, and "later" is a claim that makes it look as old as it has to.
//! Nothing is trimmed that a group has not handled: a full stream refuses.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, LuaInterface, StreamsInterface};
use fred::types::Builder;
use fred::types::Value;
use fred::types::config::{Config, ReconnectPolicy, UnresponsiveConfig};
use fred::types::streams::{XReadResponse, XReadValue};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{
    Keep, MessageQueue, QueueError, QueueOptions, Receipt, Received, Reject, SendError, SentAll,
};
use crate::bus::wire::WireMessage;

/// Messages that are on their way at once.
const WINDOW: usize = 256;

/// How long the server may take for a command. fred's own default is for ever.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(3);

/// Handled messages are removed after this many acknowledgements.
const TRIM_EVERY: u64 = 256;

/// Puts a message in, unless it is there or there is no room. Answers how many were put in so far
/// in all, and whether this one was; or -1 if there is no room, and -2 if the one that it has to
/// follow is not there.
///
/// KEYS: stream, number of messages ever, the last message's id, the message's id. ARGV: most
/// messages, dedupe time in ms, id, subject, headers, payload, the id before or nothing.
const PUT: &str = r"
local known = redis.call('GET', KEYS[4])
if known then return {tonumber(known), 1} end
if ARGV[7] ~= '' and redis.call('GET', KEYS[3]) ~= ARGV[7] then return {-2, 0} end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return {-1, 0} end
redis.call('XADD', KEYS[1], '*', 'id', ARGV[3], 'subject', ARGV[4], 'headers', ARGV[5], 'payload', ARGV[6])
local number = redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[4], number, 'PX', ARGV[2])
redis.call('SET', KEYS[3], ARGV[3])
return {number, 0}
";

/// Removes what all groups have handled. KEYS: stream.
const TRIM: &str = r"
local function before(a, b)
  local a1, a2 = string.match(a, '(%d+)-(%d+)')
  local b1, b2 = string.match(b, '(%d+)-(%d+)')
  a1, a2, b1, b2 = tonumber(a1), tonumber(a2), tonumber(b1), tonumber(b2)
  return a1 < b1 or (a1 == b1 and a2 < b2)
end
local least = nil
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local info = {}
  for i = 1, #group, 2 do info[group[i]] = group[i + 1] end
  local at = info['last-delivered-id']
  local exclusive = true
  local pending = redis.call('XPENDING', KEYS[1], info['name'])
  if pending[1] > 0 and not before(at, pending[2]) then at, exclusive = pending[2], false end
  if exclusive then
    local ms, seq = string.match(at, '(%d+)-(%d+)')
    at = ms .. '-' .. string.format('%d', tonumber(seq) + 1)
  end
  if least == nil or before(at, least) then least = at end
end
if least then return redis.call('XTRIM', KEYS[1], 'MINID', least) end
return 0
";

/// See the [module](self).
pub struct RedisQueue {
    client: Client,
    /// Reads that wait hold a connection of their own.
    reader: Client,
    options: QueueOptions,
    consumer: String,
    made: AtomicBool,
    acks: AtomicU64,
}

impl RedisQueue {
    /// Begins to connect, and returns at once: a server that is down may come later.
    ///
    /// # Errors
    /// The address is none.
    pub async fn open(url: &str, options: QueueOptions) -> Result<Self, QueueError> {
        let config =
            Config::from_url(url).map_err(|_| QueueError::Unknown { url: url.to_owned() })?;
        let client = client(config.clone(), COMMAND_TIMEOUT, &options).await?;
        let reader = client_for_reads(config, &options).await?;
        // The client has made up a name for itself.
        let consumer = format!("{}-{}", std::process::id(), reader.id());
        Ok(Self {
            client,
            reader,
            options,
            consumer,
            made: AtomicBool::new(false),
            acks: AtomicU64::new(0),
        })
    }

    fn fault(&self, error: &Error) -> QueueError {
        let (queue, reason) = (self.options.name.clone(), error.to_string());
        if reason.contains("NOGROUP") {
            // The server came back without its data.
            self.made.store(false, Ordering::Relaxed);
        }
        match error.kind() {
            ErrorKind::IO
            | ErrorKind::Timeout
            | ErrorKind::Canceled
            | ErrorKind::Backpressure
            | ErrorKind::Unknown => QueueError::Unreachable { queue, reason },
            _ if reason.contains("NOGROUP") || reason.contains("LOADING") => {
                QueueError::Unreachable { queue, reason }
            }
            _ => QueueError::Refused { queue, reason },
        }
    }

    async fn make(&self) -> Result<(), QueueError> {
        if self.made.load(Ordering::Relaxed) {
            return Ok(());
        }
        let QueueOptions { name, group, .. } = &self.options;
        let made: Result<Value, Error> = self.client.xgroup_create(name, group, "0", true).await;
        match made {
            Ok(_) => {}
            Err(error) if error.to_string().contains("BUSYGROUP") => {}
            Err(error) => return Err(self.fault(&error)),
        }
        self.made.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn counter(&self) -> String {
        format!("{}:count", self.options.name)
    }

    async fn put(
        &self,
        message: &WireMessage,
        before: Option<&WireMessage>,
    ) -> Result<(i64, bool), QueueError> {
        let name = &self.options.name;
        let headers = serde_json::to_string(&message.headers).unwrap_or_default();
        let window =
            i64::try_from(self.options.dedupe_within.as_millis().max(1)).unwrap_or(i64::MAX);
        let most = i64::try_from(self.options.max_messages).unwrap_or(i64::MAX);
        let keys = vec![
            name.clone(),
            self.counter(),
            format!("{name}:last"),
            format!("{name}:id:{}", message.id),
        ];
        // A message whose predecessor got lost on the way is refused: it does not overtake.
        let before = before.filter(|_| self.options.sole_sender).map_or("", |before| &before.id);
        let args: Vec<Value> = vec![
            most.into(),
            window.into(),
            message.id.as_str().into(),
            message.subject.as_str().into(),
            headers.into(),
            Value::Bytes(message.payload.clone()),
            before.into(),
        ];
        let answer: Result<(i64, i64), Error> = self.client.eval(PUT, keys, args).await;
        match answer.map_err(|error| self.fault(&error))? {
            (-1, _) => {
                Err(QueueError::Full { queue: name.clone(), detail: format!("{most} messages") })
            }
            (-2, _) => Err(QueueError::Unreachable {
                queue: name.clone(),
                reason: "the message before was lost on the way".to_owned(),
            }),
            (number, known) => Ok((number, known == 1)),
        }
    }

    async fn put_all(&self, messages: &[WireMessage]) -> Result<SentAll, SendError> {
        let mut done = SentAll::default();
        let mut sent = 0;
        self.make().await.map_err(|source| SendError { sent, last: 0, source })?;
        for window in messages.chunks(WINDOW) {
            let begun = sent;
            // One connection keeps their order.
            let puts = window.iter().enumerate().map(|(n, one)| {
                let before = (begun + n).checked_sub(1).map(|before| &messages[before]);
                self.put(one, before)
            });
            let puts = futures_util::future::join_all(puts);
            for put in puts.await {
                match put {
                    Ok((number, known)) => {
                        sent += 1;
                        done.last = done.last.max(u64::try_from(number).unwrap_or(0));
                        done.duplicates += u64::from(known);
                    }
                    Err(source) => return Err(SendError { sent, last: done.last, source }),
                }
            }
        }
        Ok(done)
    }

    /// What others have had for too long.
    async fn claim(&self, max: usize) -> Result<Vec<Received>, QueueError> {
        let QueueOptions { name, group, ack_within, .. } = &self.options;
        let idle = u64::try_from(ack_within.as_millis()).unwrap_or(u64::MAX);
        let claimed: Result<(String, Vec<Entry>), Error> = self
            .client
            .xautoclaim_values(
                name,
                group,
                self.consumer.as_str(),
                idle,
                "0-0",
                Some(max as u64),
                false,
            )
            .await;
        let (_, entries) = claimed.map_err(|error| self.fault(&error))?;
        let mut found = Vec::with_capacity(entries.len());
        for (id, fields) in entries {
            let delivered = self.deliveries(&id).await?;
            found.push(self.received((id, fields), delivered));
        }
        Ok(found)
    }

    async fn deliveries(&self, id: &str) -> Result<u64, QueueError> {
        let QueueOptions { name, group, .. } = &self.options;
        let pending: Result<Vec<(String, String, u64, u64)>, Error> =
            self.client.xpending(name, group, (id, id, 1_u64)).await;
        let pending = pending.map_err(|error| self.fault(&error))?;
        Ok(pending.first().map_or(2, |(_, _, _, delivered)| *delivered))
    }

    async fn fresh(&self, max: usize, wait: Duration) -> Result<Vec<Received>, QueueError> {
        let QueueOptions { name, group, .. } = &self.options;
        let block = match wait.is_zero() {
            true => None,
            false => Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1)),
        };
        let read: Result<XReadResponse<String, String, String, Value>, Error> = self
            .reader
            .xreadgroup_map(
                group.as_str(),
                self.consumer.as_str(),
                Some(max as u64),
                block,
                false,
                name.as_str(),
                ">",
            )
            .await;
        let read = match read {
            Ok(read) => read,
            // Nothing came in time.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Parse) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(self.fault(&error)),
        };
        let entries = read.into_values().flatten();
        Ok(entries.map(|entry| self.received(entry, 1)).collect())
    }

    fn received(&self, (id, fields): Entry, delivered: u64) -> Received {
        let text = |name: &str| fields.get(name).and_then(Value::as_string).unwrap_or_default();
        let message = WireMessage {
            subject: text("subject"),
            id: text("id"),
            headers: serde_json::from_str(&text("headers")).unwrap_or_default(),
            payload: fields
                .get("payload")
                .and_then(Value::as_bytes)
                .map_or(Bytes::new(), Bytes::copy_from_slice),
        };
        self.options.unpacked(message, delivered, Receipt(Arc::new(id)))
    }

    async fn trim(&self) {
        if self.options.keep == Keep::Everything {
            return;
        }
        let trimmed: Result<Value, Error> =
            self.client.eval(TRIM, vec![self.options.name.clone()], Vec::<String>::new()).await;
        if let Err(error) = trimmed {
            tracing::debug!(queue = self.options.name, %error, "not trimmed");
        }
    }

    async fn done(&self, id: &str) -> Result<(), QueueError> {
        let QueueOptions { name, group, .. } = &self.options;
        let acked: Result<u64, Error> = self.client.xack(name, group, id).await;
        acked.map_err(|error| self.fault(&error))?;
        if self.acks.fetch_add(1, Ordering::Relaxed) % TRIM_EVERY == TRIM_EVERY - 1 {
            self.trim().await;
        }
        Ok(())
    }

    /// Makes a delivery look as if it had begun `ago` before now.
    async fn age(&self, id: &str, ago: Duration) -> Result<(), QueueError> {
        let QueueOptions { name, group, .. } = &self.options;
        let idle = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        let claimed: Result<Value, Error> = self
            .client
            .xclaim(name, group, self.consumer.as_str(), 0, id, Some(idle), None, None, false, true)
            .await;
        claimed.map(drop).map_err(|error| self.fault(&error))
    }

    fn id<'a>(&self, receipt: &'a Receipt) -> Result<&'a str, QueueError> {
        let wrong = || QueueError::Receipt { queue: self.options.name.clone() };
        receipt.0.downcast_ref::<String>().map(String::as_str).ok_or_else(wrong)
    }
}

type Entry = XReadValue<String, String, Value>;

async fn client(
    config: Config,
    timeout: Duration,
    options: &QueueOptions,
) -> Result<Client, QueueError> {
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
        // For ever.
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

/// A read may wait longer than other commands.
async fn client_for_reads(config: Config, options: &QueueOptions) -> Result<Client, QueueError> {
    client(config, Duration::from_secs(60), options).await
}

impl MessageQueue for RedisQueue {
    fn send<'a>(
        &'a self,
        messages: &'a [WireMessage],
    ) -> BoxFuture<'a, Result<SentAll, SendError>> {
        async move {
            let messages = self.options.packed(messages);
            match self.put_all(&messages).await {
                // It may be full of what is handled already.
                Err(error) if matches!(error.source, QueueError::Full { .. }) => {
                    self.trim().await;
                    let rest = self.put_all(&messages[error.sent..]).await;
                    rest.map_err(|again| again.after(&error))
                }
                done => done,
            }
        }
        .boxed()
    }

    fn receive(
        &self,
        max: usize,
        wait: Duration,
    ) -> BoxFuture<'_, Result<Vec<Received>, QueueError>> {
        async move {
            self.make().await?;
            let until = tokio::time::Instant::now() + wait;
            loop {
                let mut found = self.claim(max).await?;
                if found.len() < max {
                    found.extend(self.fresh(max - found.len(), Duration::ZERO).await?);
                }
                let left = until.saturating_duration_since(tokio::time::Instant::now());
                if !found.is_empty() || left.is_zero() {
                    return Ok(found);
                }
                // What others have had for too long is looked for now and then.
                let look = left.min(self.options.ack_within / 4).max(Duration::from_millis(1));
                let found = self.fresh(max, look).await?;
                if !found.is_empty() {
                    return Ok(found);
                }
            }
        }
        .boxed()
    }

    fn ack<'a>(&'a self, receipt: &'a Receipt) -> BoxFuture<'a, Result<(), QueueError>> {
        async move { self.done(self.id(receipt)?).await }.boxed()
    }

    fn reject<'a>(
        &'a self,
        receipt: &'a Receipt,
        reject: Reject,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        async move {
            let id = self.id(receipt)?;
            match reject {
                Reject::Never => self.done(id).await,
                // A longer pause than a receiver has time cannot be told to Redis: it is cut.
                Reject::Later(after) => {
                    self.age(id, self.options.ack_within.saturating_sub(after)).await
                }
            }
        }
        .boxed()
    }

    fn extend<'a>(&'a self, receipt: &'a Receipt) -> BoxFuture<'a, Result<(), QueueError>> {
        async move { self.age(self.id(receipt)?, Duration::ZERO).await }.boxed()
    }

    fn tail(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        async {
            let script = "return tonumber(redis.call('GET', KEYS[1]) or '0')";
            let count: Result<u64, Error> =
                self.client.eval(script, vec![self.counter()], Vec::<String>::new()).await;
            count.map_err(|error| self.fault(&error))
        }
        .boxed()
    }

    fn waiting(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        async {
            self.make().await?;
            let script = r"
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local info = {}
  for i = 1, #group, 2 do info[group[i]] = group[i + 1] end
  if info['name'] == ARGV[1] then
    local after = '(' .. info['last-delivered-id']
    return info['pending'] + #redis.call('XRANGE', KEYS[1], after, '+', 'COUNT', 100000)
  end
end
return 0";
            let keys = vec![self.options.name.clone()];
            let args = vec![self.options.group.clone()];
            let count: Result<u64, Error> = self.client.eval(script, keys, args).await;
            count.map_err(|error| self.fault(&error))
        }
        .boxed()
    }

    fn read_limit(&self) -> usize {
        self.options.read_limit
    }
}

impl fmt::Debug for RedisQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisQueue").field("name", &self.options.name).finish_non_exhaustive()
    }
}
