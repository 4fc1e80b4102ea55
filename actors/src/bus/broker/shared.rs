//! What a [`Broker`] gives: the same over all connections that its actor makes.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::watch;

use super::{Broker, Live};
use crate::bus::key_value::{BucketOptions, Entry, From, KeyValue, KeyValueError, Watch};
use crate::bus::queue::{
    self as port, GroupStatus, QueueError, QueueOptions, Receipt, Received, Receiver, Reject,
    SendError, Sender, SentAll,
};
use crate::bus::remote::{Asked, Remote, RemoteError, Requests};
use crate::bus::subject::Pattern;
use crate::bus::wire::WireMessage;

/// What is said while there is no connection.
const NO_LIFE: &str = "its connection is being restarted";

/// The pause before a watch is made again.
const PAUSE: Duration = Duration::from_millis(100);

/// Something that was made on one connection, and is made again on the next.
#[derive(Debug)]
struct Made<T: ?Sized>(Mutex<Option<(u64, Arc<T>)>>);

impl<T: ?Sized> Made<T> {
    const fn new() -> Self {
        Self(Mutex::new(None))
    }

    fn on<E>(
        &self,
        live: &Live,
        make: impl FnOnce(&Live) -> Result<Arc<T>, E>,
    ) -> Result<Arc<T>, E> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((number, made)) = &*made
            && *number == live.number
        {
            return Ok(Arc::clone(made));
        }
        let fresh = make(live)?;
        *made = Some((live.number, Arc::clone(&fresh)));
        Ok(fresh)
    }
}

/// A queue over all connections.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    broker: Broker,
    options: Arc<QueueOptions>,
}

impl Queue {
    pub(super) fn new(broker: Broker, options: QueueOptions) -> Self {
        Self { broker, options: options.into() }
    }

    fn live(&self) -> Result<Live, QueueError> {
        let unreachable = || QueueError::Unreachable {
            queue: self.options.name.clone(),
            reason: NO_LIFE.to_owned(),
        };
        self.broker.live().ok_or_else(unreachable)
    }

    fn on(&self, live: &Live) -> Result<Arc<dyn port::Queue>, QueueError> {
        live.connection.queue((*self.options).clone())
    }

    fn now(&self) -> Result<Arc<dyn port::Queue>, QueueError> {
        self.on(&self.live()?)
    }
}

impl port::Queue for Queue {
    fn sender(&self) -> Arc<dyn Sender> {
        Arc::new(SharedSender { queue: self.clone(), made: Made::new() })
    }

    fn receiver(&self, group: &str) -> Result<Arc<dyn Receiver>, QueueError> {
        port::check_name(group)?;
        Ok(Arc::new(SharedReceiver {
            queue: self.clone(),
            group: group.to_owned(),
            made: Made::new(),
        }))
    }

    fn groups(&self) -> BoxFuture<'_, Result<Vec<GroupStatus>, QueueError>> {
        async move { self.now()?.groups().await }.boxed()
    }

    fn remove_group<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<bool, QueueError>> {
        async move { self.now()?.remove_group(group).await }.boxed()
    }
}

#[derive(Debug)]
struct SharedSender {
    queue: Queue,
    made: Made<dyn Sender>,
}

impl SharedSender {
    fn now(&self) -> Result<Arc<dyn Sender>, QueueError> {
        self.made.on(&self.queue.live()?, |live| Ok(self.queue.on(live)?.sender()))
    }
}

impl Sender for SharedSender {
    fn send<'a>(
        &'a self,
        messages: &'a [WireMessage],
    ) -> BoxFuture<'a, Result<SentAll, SendError>> {
        async move { self.now().map_err(SendError::at_once)?.send(messages).await }.boxed()
    }

    fn tail(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        async move { self.now()?.tail().await }.boxed()
    }
}

#[derive(Debug)]
struct SharedReceiver {
    queue: Queue,
    group: String,
    made: Made<dyn Receiver>,
}

impl SharedReceiver {
    fn now(&self) -> Result<Arc<dyn Receiver>, QueueError> {
        self.made.on(&self.queue.live()?, |live| self.queue.on(live)?.receiver(&self.group))
    }
}

impl Receiver for SharedReceiver {
    fn receive(
        &self,
        max: usize,
        wait: Duration,
    ) -> BoxFuture<'_, Result<Vec<Received>, QueueError>> {
        async move { self.now()?.receive(max, wait).await }.boxed()
    }

    fn ack<'a>(&'a self, receipt: &'a Receipt) -> BoxFuture<'a, Result<(), QueueError>> {
        async move { self.now()?.ack(receipt).await }.boxed()
    }

    fn reject<'a>(
        &'a self,
        receipt: &'a Receipt,
        reject: Reject,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        async move { self.now()?.reject(receipt, reject).await }.boxed()
    }

    fn extend<'a>(&'a self, receipt: &'a Receipt) -> BoxFuture<'a, Result<(), QueueError>> {
        async move { self.now()?.extend(receipt).await }.boxed()
    }

    fn waiting(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        async move { self.now()?.waiting().await }.boxed()
    }

    fn ack_within(&self) -> Duration {
        self.queue.options.ack_within
    }

    fn read_limit(&self) -> usize {
        self.queue.options.read_limit
    }
}

impl Broker {
    fn remote_now(&self) -> Result<(Live, Arc<dyn Remote>), RemoteError> {
        let unreachable = || RemoteError::Unreachable { reason: NO_LIFE.to_owned() };
        let live = self.live().ok_or_else(unreachable)?;
        let remote = live.connection.remote();
        Ok((live, remote))
    }
}

impl Remote for Broker {
    fn request<'a>(
        &'a self,
        message: &'a WireMessage,
        within: Duration,
    ) -> BoxFuture<'a, Result<WireMessage, RemoteError>> {
        async move { self.remote_now()?.1.request(message, within).await }.boxed()
    }

    fn serve<'a>(
        &'a self,
        subjects: &'a Pattern,
        group: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Requests>, RemoteError>> {
        async move {
            let (live, remote) = self.remote_now()?;
            let inner = remote.serve(subjects, group).await?;
            let lives = self.0.live.subscribe();
            Ok(Box::new(SharedRequests { inner, lives, number: live.number }) as Box<dyn Requests>)
        }
        .boxed()
    }
}

/// Requests of one connection: they end with it.
struct SharedRequests {
    inner: Box<dyn Requests>,
    lives: watch::Receiver<Option<Live>>,
    number: u64,
}

/// Waits until a connection is not that of the life that runs.
async fn ended(lives: &mut watch::Receiver<Option<Live>>, number: u64) {
    let other = |live: &Option<Live>| live.as_ref().is_none_or(|live| live.number != number);
    let _ = lives.wait_for(other).await;
}

impl Requests for SharedRequests {
    fn next(&mut self) -> BoxFuture<'_, Option<Asked>> {
        async {
            tokio::select! {
                biased;
                asked = self.inner.next() => asked,
                () = ended(&mut self.lives, self.number) => None,
            }
        }
        .boxed()
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

impl fmt::Debug for SharedRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRequests").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
pub(super) struct Bucket(Arc<BucketInner>);

#[derive(Debug)]
struct BucketInner {
    broker: Broker,
    options: BucketOptions,
    made: Made<dyn KeyValue>,
}

impl Bucket {
    pub(super) fn new(broker: Broker, options: BucketOptions) -> Self {
        Self(Arc::new(BucketInner { broker, options, made: Made::new() }))
    }

    fn now(&self) -> Result<Arc<dyn KeyValue>, KeyValueError> {
        Ok(self.on_life()?.1)
    }

    fn on_life(&self) -> Result<(u64, Arc<dyn KeyValue>), KeyValueError> {
        let bucket = self.0.options.name.clone();
        let live = self.0.broker.live();
        let live = live.ok_or(KeyValueError::Unreachable { bucket, reason: NO_LIFE.to_owned() })?;
        let made = self.0.made.on(&live, |live| live.connection.bucket(self.0.options.clone()))?;
        Ok((live.number, made))
    }
}

impl KeyValue for Bucket {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, KeyValueError>> {
        async move { self.now()?.get(key).await }.boxed()
    }

    fn get_revision<'a>(
        &'a self,
        key: &'a str,
        revision: u64,
    ) -> BoxFuture<'a, Result<Option<Entry>, KeyValueError>> {
        async move { self.now()?.get_revision(key, revision).await }.boxed()
    }

    fn put<'a>(&'a self, key: &'a str, value: Bytes) -> BoxFuture<'a, Result<u64, KeyValueError>> {
        async move { self.now()?.put(key, value).await }.boxed()
    }

    fn create<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
    ) -> BoxFuture<'a, Result<u64, KeyValueError>> {
        async move { self.now()?.create(key, value).await }.boxed()
    }

    fn update<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        revision: u64,
    ) -> BoxFuture<'a, Result<u64, KeyValueError>> {
        async move { self.now()?.update(key, value, revision).await }.boxed()
    }

    fn delete<'a>(
        &'a self,
        key: &'a str,
        revision: Option<u64>,
    ) -> BoxFuture<'a, Result<(), KeyValueError>> {
        async move { self.now()?.delete(key, revision).await }.boxed()
    }

    fn purge<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), KeyValueError>> {
        async move { self.now()?.purge(key).await }.boxed()
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<String>, KeyValueError>> {
        async move { self.now()?.keys().await }.boxed()
    }

    fn history<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<Entry>, KeyValueError>> {
        async move { self.now()?.history(key).await }.boxed()
    }

    fn watch<'a>(
        &'a self,
        keys: &'a str,
        from: From,
    ) -> BoxFuture<'a, Result<Watch, KeyValueError>> {
        async move {
            let (number, bucket) = self.on_life()?;
            let Watch { initial, changes } = bucket.watch(keys, from).await?;
            let watching = Watching {
                bucket: self.clone(),
                lives: self.0.broker.0.live.subscribe(),
                keys: keys.to_owned(),
                from,
                now: Some((number, changes)),
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

/// A watch that goes on over the next connection.
struct Watching {
    bucket: Bucket,
    lives: watch::Receiver<Option<Live>>,
    keys: String,
    /// Where it goes on.
    from: From,
    now: Option<(u64, BoxStream<'static, Result<Entry, KeyValueError>>)>,
}

impl Watching {
    async fn next(&mut self) -> Result<Entry, KeyValueError> {
        loop {
            if let Some((number, changes)) = &mut self.now {
                let change = tokio::select! {
                    biased;
                    change = changes.next() => change,
                    () = ended(&mut self.lives, *number) => None,
                };
                match change {
                    Some(Ok(entry)) => {
                        self.from = From::Revision(entry.revision + 1);
                        return Ok(entry);
                    }
                    Some(Err(error)) => return Err(error),
                    None => self.now = None,
                }
            }
            tokio::time::sleep(PAUSE).await;
            let (number, bucket) = self.bucket.on_life()?;
            // What was changed between two connections is not missed by who began with `Now`: the
            // last change of each key comes, maybe once too often.
            let from = match self.from {
                From::Now => From::Current,
                from => from,
            };
            self.now = Some((number, bucket.watch(&self.keys, from).await?.changes));
        }
    }
}
