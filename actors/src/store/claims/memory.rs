//! Claims in memory, for tests and simulations: leases run by tokio's clock, so that a test with
//! paused time decides when they end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use tokio::time::Instant;

use super::{
    Claim, ClaimError, Claimed, Claims, Fence, Found, Orders, Place, Request, Save, asked, parts,
};
use crate::store::read_model::Epoch;

/// [`Claims`] that several owners in one process share.
#[derive(Debug, Default)]
pub struct MemoryClaims {
    rows: Mutex<BTreeMap<Arc<str>, Row>>,
}

#[derive(Debug)]
struct Row {
    place: Place,
    epoch: u64,
    until: Option<Instant>,
    notes: BTreeMap<Arc<str>, Bytes>,
}

impl Row {
    fn place(&self) -> Place {
        let held = self.until.is_some_and(|until| until > Instant::now());
        Place { held, ..self.place.clone() }
    }

    fn is_of(&self, fence: &Fence) -> bool {
        self.epoch == fence.epoch.get() && self.place.owner == fence.owner
    }
}

impl MemoryClaims {
    /// No claims.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a fence still stands, for what is written beside the claims.
    pub(crate) fn stands(&self, fence: &Fence) -> bool {
        self.rows().get(&fence.name).is_some_and(|row| row.is_of(fence))
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Row>> {
        // No call below leaves a row half changed.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, name: &str, owner: &str, lease: Duration) -> Claimed {
        let mut rows = self.rows();
        let name: Arc<str> = name.into();
        let row = rows.entry(Arc::clone(&name)).or_insert_with(|| Row {
            place: Place::new(Arc::clone(&name)),
            epoch: 0,
            until: None,
            notes: BTreeMap::new(),
        });
        let seen = row.place();
        if seen.held && &*seen.owner != owner {
            return Claimed::Held(seen);
        }
        super::count_deaths(&mut row.place, owner);
        row.epoch += 1;
        row.place.owner = owner.into();
        row.until = Some(Instant::now() + lease);
        let fence = Fence { name, owner: owner.into(), epoch: Epoch::new(row.epoch) };
        Claimed::Yes(Claim { fence, place: row.place() })
    }

    fn write(&self, fence: &Fence, save: Save) -> Result<Orders, ClaimError> {
        let mut rows = self.rows();
        let row = rows.get_mut(&fence.name).filter(|row| row.is_of(fence));
        let row = row.ok_or_else(|| ClaimError::Lost { name: fence.name.to_string() })?;
        row.until = Some(Instant::now() + save.lease);
        row.place.apply(&save);
        for (id, data) in save.notes {
            match data {
                Some(data) => _ = row.notes.insert(id, data),
                None => _ = row.notes.remove(&id),
            }
        }
        Ok(Orders { paused: row.place.paused, asked: row.place.asked })
    }

    fn request(&self, name: &str, request: Request) -> Result<u64, ClaimError> {
        let mut rows = self.rows();
        let row = rows.get_mut(name);
        let row = row.ok_or_else(|| ClaimError::Unknown { name: name.to_owned() })?;
        row.place.asked += 1;
        let (paused, note) = parts(request);
        row.place.paused = paused.unwrap_or(row.place.paused);
        if let Some(note) = note {
            row.notes.insert(asked(row.place.asked), note);
        }
        Ok(row.place.asked)
    }
}

impl Claims for MemoryClaims {
    fn claim<'a>(
        &'a self,
        name: &'a str,
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Claimed, ClaimError>> {
        ready(Ok(self.take(name, owner, lease))).boxed()
    }

    fn save<'a>(
        &'a self,
        fence: &'a Fence,
        save: Save,
    ) -> BoxFuture<'a, Result<Orders, ClaimError>> {
        ready(self.write(fence, save)).boxed()
    }

    fn release<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<(), ClaimError>> {
        if let Some(row) = self.rows().get_mut(&fence.name).filter(|row| row.is_of(fence)) {
            row.until = None;
            row.place.owner = "".into();
        }
        ready(Ok(())).boxed()
    }

    fn place<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Place>, ClaimError>> {
        ready(Ok(self.rows().get(name).map(Row::place))).boxed()
    }

    fn places(&self) -> BoxFuture<'_, Result<Vec<Place>, ClaimError>> {
        ready(Ok(self.rows().values().map(Row::place).collect())).boxed()
    }

    fn notes<'a>(
        &'a self,
        name: &'a str,
        after: &'a str,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Found>, ClaimError>> {
        let rows = self.rows();
        let notes = rows.get(name).into_iter().flat_map(|row| &row.notes);
        let page = notes.filter(|(id, _)| &***id > after).take(limit);
        ready(Ok(page.map(|(id, data)| (Arc::clone(id), data.clone())).collect())).boxed()
    }

    fn note<'a>(
        &'a self,
        name: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Bytes>, ClaimError>> {
        ready(Ok(self.rows().get(name).and_then(|row| row.notes.get(id).cloned()))).boxed()
    }

    fn ask<'a>(
        &'a self,
        name: &'a str,
        request: Request,
    ) -> BoxFuture<'a, Result<u64, ClaimError>> {
        ready(self.request(name, request)).boxed()
    }
}
