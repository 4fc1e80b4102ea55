//! Parked events, applied again.
//!
//! Anybody may ask for it, on any node or while none runs: the document is marked as due in the
//! database. The partition that has it does some of them at a time, before it goes on with the
//! log, so that they cannot grow faster than they are applied. Before an event is tried that is
//! noted: if the process dies of it, the document is not due any more when the next one starts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::kept::{decode, encode};
use super::parked::UNKNOWN;
use super::plan::{ids_of, kept_id};
use super::track::{Track, applied};
use super::{Projection, ProjectionError};
use crate::event::{Position, RecordedEvent};
use crate::guarded::guarded;
use crate::pool::Lease;
use crate::store::StoreError;
use crate::store::read_model::documents::{Changed, Commit, Document, Parked, ParkedQuery};

/// What is noted of an event before it is tried.
pub(super) const TRYING: &str = "its process ended while it was tried again";

/// Events that are applied again in one transaction.
const PAGE: usize = 500;

/// Parked events are read together with those between them, if those are no more than this.
const GAP: u64 = 100;

/// Events that are read at a time, with those between them.
const SPAN: u64 = 5_000;

/// A document after some of its parked events.
struct Again {
    data: Option<Bytes>,
    /// The last event that was applied, and how many were.
    done: Option<(Position, u64)>,
    /// The event that cannot be applied, and why.
    fault: Option<(Position, String)>,
}

impl<P: Projection> Track<P> {
    /// Applies some parked events of a document that is due; nothing if none is.
    pub(super) async fn retry(
        &mut self,
        projection: &P,
        lease: &Lease,
        until: Duration,
    ) -> Result<Option<Vec<Changed>>, ProjectionError> {
        match self.try_again(projection, lease, until).await {
            // Somebody was faster.
            Err(ProjectionError::LeftOut { .. }) => {
                self.look_for_parked(lease).await?;
                Ok(Some(Vec::new()))
            }
            other => other,
        }
    }

    async fn try_again(
        &mut self,
        projection: &P,
        lease: &Lease,
        until: Duration,
    ) -> Result<Option<Vec<Changed>>, ProjectionError> {
        let Some(id) = self.parked.due().map(Arc::clone) else { return Ok(None) };
        let query = ParkedQuery { id: Some(Arc::clone(&id)), after: None, limit: PAGE };
        let waiting = lease.documents.parked(self.build(), &query).await?;
        let Some(first) = waiting.first() else {
            self.unparked(&id);
            return Ok(Some(Vec::new()));
        };
        let tried = |position, error: &str| Parked {
            id: Arc::clone(&id),
            position,
            attempts: 1,
            error: error.to_owned(),
        };
        let commit = |track: &Self| Commit {
            again: Some((Arc::clone(&id), first.position)),
            ..track.commit(track.at, until)
        };
        let mut trying = commit(self);
        trying.park.push(tried(first.position, TRYING));
        self.write(lease, trying).await?;

        let mut again = self.again(projection, lease, &id, &waiting, false).await?;
        if again.fault.is_some() {
            // Up to the event that is to blame, which is found by writing after each.
            again = self.again(projection, lease, &id, &waiting, true).await?;
        }
        let mut done = commit(self);
        if let Some((last, _)) = again.done {
            done.changes.push((Arc::clone(&id), again.data.take(), last));
            done.unpark.push((Arc::clone(&id), last));
        }
        if let Some((position, reason)) = &again.fault {
            done.park.push(tried(*position, reason));
        }
        let changes = done.changes.clone();
        match self.write(lease, done).await {
            Ok(()) => {}
            Err(ProjectionError::Refused { reason, .. }) => {
                let mut refused = commit(self);
                refused.park.push(tried(first.position, &reason));
                self.write(lease, refused).await?;
                self.parked.tried(&id);
                return Ok(Some(Vec::new()));
            }
            Err(error) => return Err(error),
        }
        self.parked.done(&id, again.done.map_or(0, |(_, count)| count));
        match again.fault {
            Some(_) => self.parked.tried(&id),
            None if waiting.len() < PAGE => self.unparked(&id),
            None => {}
        }
        Ok(Some(changes))
    }

    /// Nothing of a document is parked any more. What is kept of it is from before.
    fn unparked(&mut self, id: &str) {
        self.parked.remove(id);
        self.kept.clear();
    }

    /// Applies events to the document that there is. It is written after `each` event, or after
    /// the last.
    async fn again(
        &mut self,
        projection: &P,
        lease: &Lease,
        id: &Arc<str>,
        waiting: &[Parked],
        each: bool,
    ) -> Result<Again, ProjectionError> {
        let mut again = Again { data: None, done: None, fault: None };
        let found = lease.documents.load(self.build(), std::slice::from_ref(id)).await?;
        let mut document = match found.first().map(|Document { data, .. }| decode(data)) {
            None => Ok(None),
            Some(Ok(document)) => Ok(Some(document)),
            Some(Err(reason)) => Err(reason),
        };
        let mut read = VecDeque::new();
        for (index, Parked { position, .. }) in waiting.iter().enumerate() {
            if read.is_empty() {
                read = match events(lease, &waiting[index..]).await {
                    Err(error @ StoreError::Archived { .. }) => {
                        again.fault = Some((*position, error.to_string()));
                        break;
                    }
                    read => read?,
                };
            }
            let applied = document.and_then(|before| match read.pop_front().flatten() {
                None => Err("it is not in the log".to_owned()),
                Some(event) => once(projection, &event, id, before),
            });
            let written = applied.and_then(|after| {
                let data = match each || index + 1 == waiting.len() {
                    true => after.as_ref().map(encode).transpose()?,
                    false => None,
                };
                Ok((after, data))
            });
            match written {
                Ok((after, data)) => {
                    document = Ok(after);
                    again.data = data;
                    again.done = Some((*position, index as u64 + 1));
                }
                Err(reason) => {
                    again.fault = Some((*position, reason));
                    document = Ok(None);
                    break;
                }
            }
        }
        if let Err(panic) = guarded(move || drop(document)) {
            tracing::warn!(panic, "a document of a projection panicked when it was dropped");
        }
        Ok(again)
    }
}

/// Applies an event to a document.
fn once<P: Projection>(
    projection: &P,
    event: &RecordedEvent,
    id: &str,
    before: Option<P::Document>,
) -> Result<Option<P::Document>, String> {
    if id == UNKNOWN {
        return Err("the documents of the event were not known when it came, and other events \
                    have been applied to them since; skip it, or rebuild the projection"
            .to_owned());
    }
    let ids = ids_of(projection, event)?;
    let mut fault = None;
    let is_of = |one: Arc<str>| match kept_id(one) {
        Ok(one) => &*one == id,
        Err((short, reason)) => {
            let same = &*short == id;
            fault = same.then_some(reason);
            same
        }
    };
    let wanted = ids.into_iter().any(is_of);
    if let Some(reason) = fault {
        return Err(reason);
    }
    // The program may have been mended so that the event is not for this document.
    if wanted { applied(projection, event, id, before) } else { Ok(before) }
}

/// The first of the parked events, as many as can be read at a time; `None` for one that the log
/// does not have.
async fn events(
    lease: &Lease,
    parked: &[Parked],
) -> Result<VecDeque<Option<RecordedEvent>>, StoreError> {
    let positions: Vec<_> = parked.iter().map(|parked| parked.position.get()).collect();
    let near = |pair: &[u64]| pair[1] - pair[0] <= GAP && pair[1] - positions[0] < SPAN;
    let run = 1 + positions.windows(2).take_while(|pair| near(pair)).count();
    let (first, last) = (positions[0], positions[run - 1]);
    let limit = usize::try_from(last - first + 1).unwrap_or(1);
    let page = lease.store.read_all(parked[0].position.minus(1), limit).await?;
    // A page may end early, because it is large.
    let read_to = page.last().map_or(first, |event| event.position.get()).max(first);
    let mut page = page.into_iter().peekable();
    let mut found = VecDeque::new();
    for position in positions.into_iter().take(run).take_while(|position| *position <= read_to) {
        while page.next_if(|event| event.position.get() < position).is_some() {}
        found.push_back(page.next_if(|event| event.position.get() == position));
    }
    Ok(found)
}
