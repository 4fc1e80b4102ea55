//! A broker in the memory of this process. What is in it outlives the connection's actor, as it
//! would on a server, and not the process.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mister_smith_supervisors::Clock;

use super::{BrokerError, Connect, Connected, Glance};
use crate::bus::key_value::in_process::Buckets;
use crate::bus::key_value::{BucketOptions, KeyValue, KeyValueError};
use crate::bus::queue::in_process::Broker as Queues;
use crate::bus::queue::{Queue, QueueError, QueueOptions};
use crate::bus::remote::Remote;
use crate::bus::remote::in_process::Network;

/// Queues, members and buckets. Cheap to clone; all clones have the same.
#[derive(Debug, Clone)]
pub struct Memory {
    queues: Queues,
    network: Network,
    buckets: Buckets,
}

impl Default for Memory {
    fn default() -> Self {
        let buckets = Buckets::new(Clock::starting_at(0));
        Self { queues: Queues::default(), network: Network::default(), buckets }
    }
}

impl Connect for Memory {
    fn connect(&self, clock: Clock) -> BoxFuture<'_, Result<Arc<dyn Connected>, BrokerError>> {
        let (queues, buckets) = (self.queues.at(clock), self.buckets.at(clock));
        let network = self.network.clone();
        async move { Ok(Arc::new(Self { queues, network, buckets }) as Arc<dyn Connected>) }.boxed()
    }

    fn url(&self) -> &str {
        "memory:"
    }
}

impl Connected for Memory {
    fn queue(&self, options: QueueOptions) -> Result<Arc<dyn Queue>, QueueError> {
        options.check()?;
        Ok(Arc::new(self.queues.queue(options)))
    }

    fn remote(&self) -> Arc<dyn Remote> {
        Arc::new(self.network.clone())
    }

    fn bucket(&self, options: BucketOptions) -> Result<Arc<dyn KeyValue>, KeyValueError> {
        Ok(Arc::new(self.buckets.bucket(options)?))
    }

    fn glance(&self) -> Glance {
        Glance { connected: true, version: None, keeps: true, made: 1 }
    }

    fn round_trip(&self) -> BoxFuture<'_, Result<Duration, String>> {
        async { Ok(Duration::ZERO) }.boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}
