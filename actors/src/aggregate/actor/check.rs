//! What an aggregate asks the log before it answers without having written anything.
//!
//! On a store that other nodes write to, a refusal (or "nothing to do", or a look) that was decided
//! on the state in memory is right only if the stream is still where that state is. One read tells
//! it for all that wait, and it begins after they came. Keys are looked up after the version: a
//! first command of the same key that another node has written is either part of that version, or
//! found.

use std::time::Duration;

use mister_smith_supervisors::{Address, ErrorClass};

use super::work::{Lookup, differ};
use crate::command::CommandError;
use crate::event::{Metadata, StreamId, Version};
use crate::pool::{Lease, PoolMessage};
use crate::store::{Appended, StoreError};

/// How long the log may take to answer. The commands behind a look wait for it.
const WITHIN: Duration = Duration::from_secs(5);

/// What to ask.
#[derive(Debug)]
pub(super) struct Check {
    /// Which one of this life.
    pub(super) number: u64,
    /// Whether the stream's version is asked for.
    pub(super) version: bool,
    pub(super) lookups: Vec<Lookup>,
}

/// What the log says.
#[derive(Debug)]
pub struct Checked {
    pub(super) number: u64,
    pub(super) result: Result<Seen, CommandError>,
}

#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) version: Option<Version>,
    /// One for each lookup, in their order.
    pub(super) earlier: Vec<Earlier>,
}

/// What the log holds under a key.
#[derive(Debug, Clone)]
pub(super) enum Earlier {
    /// Nothing.
    Nothing,
    /// The events of the same command, as far as one knows.
    Same(Appended),
    /// The events of another command.
    Other,
}

impl Check {
    /// Asks the log. Never fails the actor: an error is part of the answer.
    pub(super) async fn run(self, pool: Address<PoolMessage>, stream: StreamId) -> Checked {
        let number = self.number;
        let asking = tokio::time::timeout(WITHIN, self.ask(&pool, &stream)).await;
        let result = asking.unwrap_or_else(|_| {
            let reason = format!("the store did not answer within {WITHIN:?}");
            Err(CommandError::Unchecked { reason, class: ErrorClass::Transient })
        });
        Checked { number, result }
    }

    async fn ask(
        self,
        pool: &Address<PoolMessage>,
        stream: &StreamId,
    ) -> Result<Seen, CommandError> {
        let lease = pool.ask(PoolMessage::Lease).await.map_err(|error| {
            CommandError::Unchecked { reason: error.to_string(), class: ErrorClass::Transient }
        })?;
        let mut seen = Seen::default();
        if self.version {
            seen.version = Some(lease.store.stream_version(stream).await.map_err(unchecked)?);
        }
        for lookup in self.lookups {
            seen.earlier.push(lookup.run(&lease).await.map_err(unchecked)?);
        }
        Ok(seen)
    }
}

impl Lookup {
    async fn run(self, lease: &Lease) -> Result<Earlier, StoreError> {
        match lease.store.answer(self.key).await? {
            None => Ok(Earlier::Nothing),
            Some(first) => self.compare(lease, first).await,
        }
    }

    /// Whether the events that were written under the key came of the same command. Those of a
    /// command without a fingerprint, and those that were archived, are taken to.
    pub(super) async fn compare(
        self,
        lease: &Lease,
        first: Appended,
    ) -> Result<Earlier, StoreError> {
        if self.fingerprint.is_none() {
            return Ok(Earlier::Same(first));
        }
        let before = first.first_version.minus(1);
        let events = lease.store.read_stream(&first.stream, before, 1).await?;
        let written = events.first().filter(|event| event.version == first.first_version);
        let written = written.and_then(|event| Metadata::from_bytes(&event.meta).fingerprint);
        Ok(match differ(written, self.fingerprint) {
            true => Earlier::Other,
            false => Earlier::Same(first),
        })
    }
}

/// The store's error as the answer to a command of which nothing was written.
pub(super) fn unchecked(error: StoreError) -> CommandError {
    let class = match error {
        // Closed for this lease; the next one is good.
        StoreError::Closed { .. } => ErrorClass::Transient,
        ref other => other.class(),
    };
    CommandError::Unchecked { reason: error.to_string(), class }
}
