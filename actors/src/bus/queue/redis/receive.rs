//! Out of the stream.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, StreamsInterface};
use fred::types::Value;
use fred::types::streams::{XReadResponse, XReadValue};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::{Opened, client, millis, scripts};
use crate::bus::queue::expiry::BrokerTime;
use crate::bus::queue::upkeep::Upkeep;
use crate::bus::queue::{QueueError, Receipt, Received, Receiver, Reject};
use crate::bus::wire::WireMessage;
use crate::event::Timestamp;

/// A read may wait longer than other commands.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Where a look through what others have begins, and ends.
const BEGINNING: &str = "0-0";

/// Looks at what others have, for one call: each sees ten times as many as are wanted.
const LOOKS: usize = 32;

pub(super) struct RedisReceiver {
    queue: Arc<Opened>,
    group: String,
    /// Reads that wait hold a connection of their own.
    reader: OnceCell<Reader>,
    made: AtomicBool,
    /// Where the look through what others have goes on.
    cursor: Mutex<String>,
    upkeep: Upkeep,
}

struct Reader {
    client: Client,
    member: String,
}

/// Names one delivery.
struct Ticket {
    id: String,
    member: String,
    delivered: u64,
}

type Fields = BTreeMap<String, Value>;

impl RedisReceiver {
    pub(super) fn new(queue: Arc<Opened>, group: &str) -> Self {
        Self {
            queue,
            group: group.to_owned(),
            reader: OnceCell::new(),
            made: AtomicBool::new(false),
            cursor: Mutex::new(BEGINNING.to_owned()),
            upkeep: Upkeep::new(),
        }
    }

    async fn reader(&self) -> Result<&Reader, QueueError> {
        let open = || async {
            let Opened { config, options, .. } = &*self.queue;
            let client = client(config.clone(), READ_TIMEOUT, options).await?;
            // The client has made up a name for itself.
            let member = format!("{}-{}", std::process::id(), client.id());
            Ok(Reader { client, member })
        };
        self.reader.get_or_try_init(open).await
    }

    /// Makes the group, unless it is known to be there.
    async fn make(&self) -> Result<(), QueueError> {
        if !self.made.load(Ordering::Relaxed) {
            let (notes, args) = (vec![self.queue.key("groups")], vec![self.group.as_str().into()]);
            self.queue.run::<Value>(scripts::MAKE, notes, args).await?;
            self.made.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn noticed(&self, error: QueueError) -> QueueError {
        if error.to_string().contains("NOGROUP") {
            // The server came back without its data, or the group was removed.
            self.made.store(false, Ordering::Relaxed);
        }
        error
    }

    /// What others have had for too long, and what has rested.
    async fn claim(&self, member: &str, max: usize) -> Result<Vec<Received>, QueueError> {
        let mut found = Vec::new();
        for _ in 0..LOOKS {
            let cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let wanted = i64::try_from(max - found.len()).unwrap_or(i64::MAX);
            let args = vec![
                self.group.as_str().into(),
                member.into(),
                millis(self.queue.options.ack_within).into(),
                cursor.into(),
                wanted.into(),
            ];
            let notes = vec![self.queue.pauses(&self.group)];
            let claimed = self.queue.run(scripts::CLAIM, notes, args).await;
            let (next, taken): (String, Vec<(String, Fields, u64)>) =
                claimed.map_err(|error| self.noticed(error))?;
            let through = next == BEGINNING;
            *self.cursor.lock().unwrap_or_else(PoisonError::into_inner) = next;
            let taken = taken.into_iter();
            found.extend(taken.map(|(id, fields, n)| self.received(member, id, &fields, n)));
            if through || found.len() >= max {
                break;
            }
        }
        Ok(found)
    }

    /// What no member has had.
    async fn fresh(
        &self,
        reader: &Reader,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<Received>, QueueError> {
        let block = (!wait.is_zero()).then(|| millis(wait).max(1).unsigned_abs());
        let (group, member) = (self.group.as_str(), reader.member.as_str());
        let name = self.queue.options.name.as_str();
        let read: Result<XReadResponse<String, String, String, Value>, Error> = reader
            .client
            .xreadgroup_map(group, member, Some(max as u64), block, false, name, ">")
            .await;
        let read = match read {
            Ok(read) => read,
            // Nothing came in time.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Parse) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(self.noticed(self.queue.fault(&error))),
        };
        let received = |(id, fields): XReadValue<String, String, Value>| {
            self.received(member, id, &fields.into_iter().collect(), 1)
        };
        Ok(read.into_values().flatten().map(received).collect())
    }

    fn received(&self, member: &str, id: String, fields: &Fields, delivered: u64) -> Received {
        let options = &self.queue.options;
        let text = |name: &str| fields.get(name).and_then(Value::as_string).unwrap_or_default();
        let bytes = |value: &Value| match value {
            Value::Bytes(bytes) => Some(bytes.clone()),
            value => value.as_bytes().map(Bytes::copy_from_slice),
        };
        let mut message = WireMessage {
            subject: text("subject"),
            id: text("id"),
            headers: serde_json::from_str(&text("headers")).unwrap_or_default(),
            payload: fields.get("payload").and_then(bytes).unwrap_or_default(),
        };
        if message.id.is_empty() {
            message.id = format!("{}:{id}", options.name);
        }
        // An entry's id begins with the time in milliseconds.
        let ms = id.split_once('-').and_then(|(ms, _)| ms.parse::<i64>().ok());
        let at = ms.map(|ms| Timestamp::from_micros(ms.saturating_mul(1_000)));
        let ticket = Ticket { id, member: member.to_owned(), delivered };
        options.unpacked(message, delivered, at, Receipt(Arc::new(ticket)))
    }

    fn ticket<'a>(&self, receipt: &'a Receipt) -> Result<&'a Ticket, QueueError> {
        let wrong = || QueueError::Receipt { queue: self.queue.options.name.clone() };
        receipt.0.downcast_ref::<Ticket>().ok_or_else(wrong)
    }

    async fn done(&self, receipt: &Receipt) -> Result<(), QueueError> {
        let Ticket { id, .. } = self.ticket(receipt)?;
        let (name, group) = (self.queue.options.name.as_str(), self.group.as_str());
        let acked: Result<u64, Error> = self.queue.client.xack(name, group, id.as_str()).await;
        acked.map_err(|error| self.queue.fault(&error))?;
        self.upkeep.settled();
        Ok(())
    }

    /// Lets a delivery become due after a while, if this member still has it.
    async fn delay(&self, receipt: &Receipt, after: Duration) -> Result<(), QueueError> {
        let Ticket { id, member, delivered } = self.ticket(receipt)?;
        let args = vec![
            self.group.as_str().into(),
            member.as_str().into(),
            id.as_str().into(),
            i64::try_from(*delivered).unwrap_or(i64::MAX).into(),
            millis(after).into(),
            millis(self.queue.options.ack_within).into(),
        ];
        let notes = vec![self.queue.pauses(&self.group)];
        self.queue.run::<Value>(scripts::DELAY, notes, args).await.map(drop)
    }
}

impl BrokerTime for RedisReceiver {
    fn time(&self) -> BoxFuture<'_, Result<Timestamp, QueueError>> {
        async {
            let script = "return redis.call('TIME')";
            let (seconds, micros): (i64, i64) =
                self.queue.run(script, Vec::new(), Vec::new()).await?;
            Ok(Timestamp::from_micros(seconds * 1_000_000 + micros))
        }
        .boxed()
    }
}

impl Receiver for RedisReceiver {
    fn receive(
        &self,
        max: usize,
        wait: Duration,
    ) -> BoxFuture<'_, Result<Vec<Received>, QueueError>> {
        async move {
            let reader = self.reader().await?;
            self.make().await?;
            if self.upkeep.is_due() {
                self.queue.trim().await;
            }
            let until = Instant::now() + wait;
            loop {
                let mut found = self.claim(&reader.member, max).await?;
                if found.len() < max {
                    found.extend(self.fresh(reader, max - found.len(), Duration::ZERO).await?);
                }
                let left = until.saturating_duration_since(Instant::now());
                if !found.is_empty() || left.is_zero() {
                    return Ok(found);
                }
                // What others have had for too long is looked for now and then.
                let look = left.min(self.queue.options.ack_within / 4);
                let look = look.min(READ_TIMEOUT / 2).max(Duration::from_millis(1));
                let found = self.fresh(reader, max, look).await?;
                if !found.is_empty() {
                    return Ok(found);
                }
            }
        }
        .boxed()
    }

    fn ack<'a>(&'a self, receipt: &'a Receipt) -> BoxFuture<'a, Result<(), QueueError>> {
        self.done(receipt).boxed()
    }

    fn reject<'a>(
        &'a self,
        receipt: &'a Receipt,
        reject: Reject,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        async move {
            match reject {
                Reject::Never => self.done(receipt).await,
                Reject::Later(after) => self.delay(receipt, after).await,
            }
        }
        .boxed()
    }

    fn extend<'a>(&'a self, receipt: &'a Receipt) -> BoxFuture<'a, Result<(), QueueError>> {
        self.delay(receipt, self.queue.options.ack_within).boxed()
    }

    fn waiting(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        async {
            let groups = self.queue.groups().await?;
            if let Some(group) = groups.iter().find(|group| group.name == self.group) {
                return Ok(group.waiting);
            }
            let length: Result<u64, Error> =
                self.queue.client.xlen(self.queue.options.name.as_str()).await;
            length.map_err(|error| self.queue.fault(&error))
        }
        .boxed()
    }

    fn ack_within(&self) -> Duration {
        self.queue.options.ack_within
    }

    fn read_limit(&self) -> usize {
        self.queue.options.read_limit
    }
}

impl fmt::Debug for RedisReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisReceiver")
            .field("queue", &self.queue)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}
