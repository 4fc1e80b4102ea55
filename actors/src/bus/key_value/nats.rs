//! Buckets on NATS JetStream: a stream `KV_NAME`, as every NATS client understands it.
//!
//! The client's own way to make a bucket asks for the account's limits in a form that a server 2.9
//! does not give, and fails. So the stream is made by hand, as [ADR-8] says: one subject a key, the
//! last values of each kept, nothing else removed. That is a bucket for every client.
//!
//! Deletions and conditions are headers of an ordinary publish. A watch is an ordered consumer
//! that, when it breaks, is made again behind the last revision that was seen.
//!
//! [ADR-8]: https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-8.md

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::push::{Ordered, OrderedConfig};
use async_nats::jetstream::consumer::{DeliverPolicy, ReplayPolicy};
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::stream::{
    Config, DirectGetErrorKind, DiscardPolicy, LastRawMessageErrorKind, StorageType, Stream,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use super::{
    BucketOptions, Entry, From, KeyValue, KeyValueError, Operation, Watch, check_key, check_pattern,
};
use crate::bus::broker::nats::Connection;
use crate::event::Timestamp;

/// What was done, in a header.
const OPERATION: &str = "KV-Operation";

/// Which change of the subject has to be the last.
const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";

/// What replaces all values of the subject before it.
const ROLLUP: &str = "Nats-Rollup";

/// How long a list of what is there may make no progress.
const SILENCE: Duration = Duration::from_secs(10);

/// The pause before a watch is made again.
const PAUSE: Duration = Duration::from_millis(200);

impl Connection {
    /// A bucket. It is made, or brought to these options, with the first call.
    ///
    /// # Errors
    /// The options are wrong.
    pub fn bucket(&self, options: BucketOptions) -> Result<NatsBucket, KeyValueError> {
        options.check()?;
        Ok(NatsBucket(Arc::new(Inner {
            connection: self.clone(),
            prefix: format!("$KV.{}.", options.name),
            options,
            open: Mutex::new(None),
            stale: AtomicBool::new(false),
        })))
    }
}

/// See the [module](self). Cheap to clone.
#[derive(Clone)]
pub struct NatsBucket(Arc<Inner>);

struct Inner {
    connection: Connection,
    options: BucketOptions,
    /// What stands before a key in a subject.
    prefix: String,
    open: Mutex<Option<Stream>>,
    /// The server did not know the stream: it is made again.
    stale: AtomicBool,
}

impl Inner {
    fn unreachable(&self, reason: impl ToString) -> KeyValueError {
        // Something is not as it was: look again before the next call.
        self.stale.store(true, Ordering::Relaxed);
        let bucket = self.options.name.clone();
        KeyValueError::Unreachable { bucket, reason: reason.to_string() }
    }

    /// What the server said no to, and what did not reach it.
    fn judge(&self, reason: impl ToString) -> KeyValueError {
        let reason = reason.to_string();
        let lost = ["timed out", "no responders", "broken pipe", "disconnected", "unavailable"];
        match lost.iter().any(|word| reason.contains(word)) {
            true => self.unreachable(reason),
            false => {
                self.stale.store(true, Ordering::Relaxed);
                KeyValueError::Refused { bucket: self.options.name.clone(), reason }
            }
        }
    }

    fn config(&self) -> Config {
        let BucketOptions { name, history, max_age, max_bytes, max_value_bytes, replicas } =
            &self.options;
        // The server counts a message's headers, too.
        let message_bytes = max_value_bytes.saturating_add(1_024);
        Config {
            name: format!("KV_{name}"),
            subjects: vec![format!("$KV.{name}.>")],
            max_messages_per_subject: i64::from(*history),
            max_bytes: i64::try_from(*max_bytes).unwrap_or(i64::MAX),
            max_age: max_age.unwrap_or_default(),
            max_message_size: i32::try_from(message_bytes).unwrap_or(i32::MAX),
            storage: StorageType::File,
            num_replicas: *replicas,
            discard: DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            // A copy on another server may be behind: then only the leader is asked.
            allow_direct: *replicas == 1,
            ..Config::default()
        }
    }

    async fn open(&self) -> Result<Stream, KeyValueError> {
        if !self.connection.is_connected() {
            return Err(self.unreachable(format!("no connection to {}", self.connection.url)));
        }
        let mut open = self.open.lock().await;
        if let Some(open) = &*open
            && !self.stale.load(Ordering::Relaxed)
        {
            return Ok(open.clone());
        }
        let (context, wanted) = (&self.connection.context, self.config());
        let made = context.get_or_create_stream(wanted.clone()).await;
        let mut stream = made.map_err(|error| self.judge(error))?;
        if differs(&stream.cached_info().config, &wanted) {
            context.update_stream(&wanted).await.map_err(|error| self.judge(error))?;
            stream.info().await.map_err(|error| self.judge(error))?;
        }
        self.stale.store(false, Ordering::Relaxed);
        *open = Some(stream.clone());
        Ok(stream)
    }

    fn publish_error(&self, key: &str, error: &PublishError, expected: u64) -> KeyValueError {
        let source = std::error::Error::source(error).map(ToString::to_string);
        let text = source.map_or(error.to_string(), |source| format!("{error}: {source}"));
        match error.kind() {
            PublishErrorKind::WrongLastSequence => {
                KeyValueError::Conflict { key: key.to_owned(), expected }
            }
            PublishErrorKind::Other if text.contains("exceeded") => {
                KeyValueError::Full { bucket: self.options.name.clone(), detail: text }
            }
            PublishErrorKind::MaxPayloadExceeded => self.judge(text),
            _ => self.unreachable(text),
        }
    }

    /// Writes a change; answers its revision.
    async fn change(
        &self,
        key: &str,
        value: Bytes,
        operation: Operation,
        expected: Option<u64>,
    ) -> Result<u64, KeyValueError> {
        self.options.check_value(key, &value)?;
        self.open().await?;
        let mut headers = HeaderMap::new();
        match operation {
            Operation::Put => {}
            Operation::Delete => headers.insert(OPERATION, "DEL"),
            Operation::Purge => {
                headers.insert(OPERATION, "PURGE");
                headers.insert(ROLLUP, "sub");
            }
        }
        if let Some(expected) = expected {
            headers.insert(EXPECTED, expected.to_string());
        }
        let subject = format!("{}{key}", self.prefix);
        let failed =
            |error: PublishError| self.publish_error(key, &error, expected.unwrap_or_default());
        let context = &self.connection.context;
        let sent = context.publish_with_headers(subject, headers, value).await.map_err(failed)?;
        Ok(sent.await.map_err(failed)?.sequence)
    }

    /// The last change of a key, a deletion included.
    async fn last(&self, key: &str) -> Result<Option<Entry>, KeyValueError> {
        check_key(key)?;
        let stream = self.open().await?;
        let subject = format!("{}{key}", self.prefix);
        let found = if stream.cached_info().config.allow_direct {
            match stream.direct_get_last_for_subject(subject).await {
                Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(None),
                found => found.map_err(|error| self.unreachable(error))?,
            }
        } else {
            match stream.get_last_raw_message_by_subject(&subject).await {
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                    return Ok(None);
                }
                found => found.map_err(|error| self.judge(error))?,
            }
        };
        Ok(Some(Entry {
            key: key.to_owned(),
            value: found.payload,
            revision: found.sequence,
            operation: operation_of(Some(&found.headers)),
            at: timestamp(found.time.unix_timestamp_nanos()),
        }))
    }

    /// Changes, in order, and how many of them are there now.
    async fn follow(
        &self,
        keys: &str,
        from: DeliverPolicy,
        headers_only: bool,
    ) -> Result<(u64, Ordered), KeyValueError> {
        let stream = self.open().await?;
        let consumer = stream.create_consumer(OrderedConfig {
            deliver_subject: self.connection.client.new_inbox(),
            filter_subject: format!("{}{keys}", self.prefix),
            replay_policy: ReplayPolicy::Instant,
            deliver_policy: from,
            headers_only,
            ..OrderedConfig::default()
        });
        let consumer = consumer.await.map_err(|error| self.judge(error))?;
        let initial = consumer.cached_info().num_pending;
        let changes = consumer.messages().await.map_err(|error| self.judge(error))?;
        Ok((initial, changes))
    }

    /// A change, and how many come after it.
    fn entry(
        &self,
        message: &async_nats::jetstream::Message,
    ) -> Result<(Entry, u64), KeyValueError> {
        let info = message.info().map_err(|error| self.unreachable(error))?;
        let entry = Entry {
            key: message.subject.strip_prefix(&*self.prefix).unwrap_or_default().to_owned(),
            value: message.payload.clone(),
            revision: info.stream_sequence,
            operation: operation_of(message.headers.as_ref()),
            at: timestamp(info.published.unix_timestamp_nanos()),
        };
        Ok((entry, info.pending))
    }

    /// All that is there now.
    async fn collect(
        &self,
        keys: &str,
        from: DeliverPolicy,
        headers_only: bool,
    ) -> Result<Vec<Entry>, KeyValueError> {
        let (mut pending, mut changes) = self.follow(keys, from, headers_only).await?;
        let mut found = Vec::new();
        while pending > 0 {
            let next = timeout(SILENCE, changes.next()).await;
            let silent = || self.unreachable("the server is silent");
            let message = next.map_err(|_| silent())?.ok_or_else(silent)?;
            let (entry, left) = self.entry(&message.map_err(|error| self.unreachable(error))?)?;
            found.push(entry);
            pending = left;
        }
        Ok(found)
    }
}

/// Whether a stream has to be changed to be as it is wanted.
fn differs(is: &Config, wanted: &Config) -> bool {
    is.subjects != wanted.subjects
        || is.max_messages_per_subject != wanted.max_messages_per_subject
        || is.max_bytes != wanted.max_bytes
        || is.max_age != wanted.max_age
        || is.max_message_size != wanted.max_message_size
        || is.num_replicas != wanted.num_replicas
        || is.discard != wanted.discard
        || is.allow_rollup != wanted.allow_rollup
        || is.allow_direct != wanted.allow_direct
}

fn operation_of(headers: Option<&HeaderMap>) -> Operation {
    match headers.and_then(|headers| headers.get(OPERATION)).map(|value| value.as_str()) {
        Some("DEL") => Operation::Delete,
        Some("PURGE") => Operation::Purge,
        _ => Operation::Put,
    }
}

fn timestamp(nanos: i128) -> Timestamp {
    Timestamp::from_micros(i64::try_from(nanos / 1_000).unwrap_or(0))
}

impl KeyValue for NatsBucket {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, KeyValueError>> {
        async move {
            let last = self.0.last(key).await?;
            Ok(last.filter(|entry| entry.operation == Operation::Put))
        }
        .boxed()
    }

    fn get_revision<'a>(
        &'a self,
        key: &'a str,
        revision: u64,
    ) -> BoxFuture<'a, Result<Option<Entry>, KeyValueError>> {
        async move {
            // A revision can be another key's; what is kept of this one is short.
            let kept = self.history(key).await?;
            Ok(kept.into_iter().find(|entry| entry.revision == revision))
        }
        .boxed()
    }

    fn put<'a>(&'a self, key: &'a str, value: Bytes) -> BoxFuture<'a, Result<u64, KeyValueError>> {
        self.0.change(key, value, Operation::Put, None).boxed()
    }

    fn create<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
    ) -> BoxFuture<'a, Result<u64, KeyValueError>> {
        async move {
            let exists = || KeyValueError::Exists { key: key.to_owned() };
            match self.0.change(key, value.clone(), Operation::Put, Some(0)).await {
                Err(KeyValueError::Conflict { .. }) => {}
                done => return done,
            }
            // What is there may be a deletion, or be gone meanwhile.
            let last = match self.0.last(key).await? {
                Some(entry) if entry.operation == Operation::Put => return Err(exists()),
                last => last.map_or(0, |entry| entry.revision),
            };
            match self.0.change(key, value, Operation::Put, Some(last)).await {
                Err(KeyValueError::Conflict { .. }) => Err(exists()),
                done => done,
            }
        }
        .boxed()
    }

    fn update<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        revision: u64,
    ) -> BoxFuture<'a, Result<u64, KeyValueError>> {
        self.0.change(key, value, Operation::Put, Some(revision)).boxed()
    }

    fn delete<'a>(
        &'a self,
        key: &'a str,
        revision: Option<u64>,
    ) -> BoxFuture<'a, Result<(), KeyValueError>> {
        async move { self.0.change(key, Bytes::new(), Operation::Delete, revision).await.map(drop) }
            .boxed()
    }

    fn purge<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), KeyValueError>> {
        async move { self.0.change(key, Bytes::new(), Operation::Purge, None).await.map(drop) }
            .boxed()
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<String>, KeyValueError>> {
        async {
            let current = self.0.collect(">", DeliverPolicy::LastPerSubject, true).await?;
            let mut there = std::collections::BTreeMap::new();
            // One that is changed meanwhile can come twice; the later one counts.
            for entry in current {
                there.insert(entry.key, entry.operation == Operation::Put);
            }
            Ok(there.into_iter().filter(|(_, there)| *there).map(|(key, _)| key).collect())
        }
        .boxed()
    }

    fn history<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<Entry>, KeyValueError>> {
        async move {
            check_key(key)?;
            self.0.collect(key, DeliverPolicy::All, false).await
        }
        .boxed()
    }

    fn watch<'a>(
        &'a self,
        keys: &'a str,
        from: From,
    ) -> BoxFuture<'a, Result<Watch, KeyValueError>> {
        async move {
            check_pattern(keys)?;
            let mut made = self.0.connection.made.clone();
            made.mark_unchanged();
            let stream = self.0.open().await?;
            let info = stream.get_info().await.map_err(|error| self.0.judge(error))?;
            let last = info.state.last_sequence;
            let (policy, next) = match from {
                // By its number: what is changed before there is a consumer is not missed.
                From::Now => (starting_at(last + 1), last + 1),
                From::Current => (DeliverPolicy::LastPerSubject, 1),
                From::History => (DeliverPolicy::All, 1),
                From::Revision(first) => (starting_at(first.max(1)), first.max(1)),
            };
            let (initial, changes) = self.0.follow(keys, policy, false).await?;
            let watching = Watching {
                bucket: Arc::clone(&self.0),
                keys: keys.to_owned(),
                next,
                known: last,
                changes: Some(changes),
                made,
            };
            let changes = stream::unfold(watching, |mut watching| async move {
                let next = watching.next().await;
                Some((next, watching))
            });
            Ok(Watch { initial, changes: changes.boxed() })
        }
        .boxed()
    }
}

fn starting_at(start_sequence: u64) -> DeliverPolicy {
    DeliverPolicy::ByStartSequence { start_sequence }
}

/// A watch that survives its consumer.
struct Watching {
    bucket: Arc<Inner>,
    keys: String,
    /// The first revision that was not seen.
    next: u64,
    /// A revision that the bucket had.
    known: u64,
    changes: Option<Ordered>,
    /// A new connection: the client goes on where it was, also on a server that has lost its data
    /// and will not be as far for long. So the consumer is made again by us, who look.
    made: watch::Receiver<u64>,
}

impl Watching {
    /// The next change, or why there is none now; after an error one may ask again.
    async fn next(&mut self) -> Result<Entry, KeyValueError> {
        loop {
            let Some(changes) = &mut self.changes else {
                self.again().await?;
                continue;
            };
            let change = tokio::select! {
                biased;
                change = changes.next() => change,
                Ok(()) = self.made.changed() => {
                    self.changes = None;
                    continue;
                }
            };
            let error = match change {
                Some(Ok(message)) => match self.bucket.entry(&message) {
                    Ok((entry, _)) if entry.revision < self.next => continue,
                    Ok((entry, _)) => {
                        self.next = entry.revision + 1;
                        self.known = self.known.max(entry.revision);
                        return Ok(entry);
                    }
                    Err(error) => error,
                },
                Some(Err(error)) => self.bucket.unreachable(error),
                None => self.bucket.unreachable("the consumer has ended"),
            };
            tracing::debug!(bucket = self.bucket.options.name, %error, "a watch is made again");
            self.changes = None;
        }
    }

    /// A new consumer behind what was seen.
    async fn again(&mut self) -> Result<(), KeyValueError> {
        tokio::time::sleep(PAUSE).await;
        let stream = self.bucket.open().await?;
        let info = stream.get_info().await.map_err(|error| self.bucket.judge(error))?;
        let last = info.state.last_sequence;
        // A server that came back without its data counts from the beginning.
        let policy = match last < self.known {
            true => {
                self.next = 1;
                DeliverPolicy::LastPerSubject
            }
            false => starting_at(self.next),
        };
        let (_, changes) = self.bucket.follow(&self.keys, policy, false).await?;
        (self.known, self.changes) = (last, Some(changes));
        Ok(())
    }
}

impl fmt::Debug for NatsBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsBucket")
            .field("name", &self.0.options.name)
            .field("connection", &self.0.connection)
            .finish_non_exhaustive()
    }
}
