//! Followers from outside, by name: of any node, and also while none runs.

use std::fmt;
use std::sync::Arc;

use mister_smith_supervisors::AskError;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::keep::wait_until_heard;
use super::{LOOK_EVERY, PARKED};
use crate::event::Position;
use crate::pool::PoolHandle;
use crate::store::claims::{ClaimError, Claims, Place, Request};

/// Those who follow the log on a store. Cheap to clone.
///
/// Names are `consumer.NAME`, `relay.NAME`, `timers.CATEGORY`, `sagas` and `outbox`.
#[derive(Clone)]
pub struct Followers(Way);

#[derive(Clone)]
enum Way {
    Pool(PoolHandle),
    Claims(Arc<dyn Claims>),
}

/// An event that was put aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Parked {
    /// The event.
    pub position: Position,
    /// Why.
    pub reason: String,
}

/// Why nothing is known of a follower.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowersError {
    /// There is none of that name, or the store failed.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The pool did not answer.
    #[error(transparent)]
    Pool(#[from] AskError),
}

impl Followers {
    /// Those of a node.
    #[must_use]
    pub const fn of(pool: PoolHandle) -> Self {
        Self(Way::Pool(pool))
    }

    /// Those of a store on which no node need run.
    #[must_use]
    pub const fn over(claims: Arc<dyn Claims>) -> Self {
        Self(Way::Claims(claims))
    }

    async fn claims(&self) -> Result<Arc<dyn Claims>, FollowersError> {
        match &self.0 {
            Way::Pool(pool) => Ok(pool.lease().await?.claims),
            Way::Claims(claims) => Ok(Arc::clone(claims)),
        }
    }

    /// All of them, by name. Claims of those that follow nothing are not among them.
    ///
    /// # Errors
    /// The store failed.
    pub async fn list(&self) -> Result<Vec<Place>, FollowersError> {
        let mut places = self.claims().await?.places().await?;
        places.retain(Place::follows_the_log);
        Ok(places)
    }

    /// One of them.
    ///
    /// # Errors
    /// There is none of that name, or the store failed.
    pub async fn get(&self, name: &str) -> Result<Place, FollowersError> {
        let place = self.claims().await?.place(name).await?;
        Ok(place.ok_or_else(|| ClaimError::Unknown { name: name.to_owned() })?)
    }

    /// Events that it has put aside after a position, at most so many.
    ///
    /// # Errors
    /// The store failed.
    pub async fn parked(
        &self,
        name: &str,
        after: Position,
        limit: usize,
    ) -> Result<Vec<Parked>, FollowersError> {
        let after = format!("{PARKED}{:020}", after.get());
        let notes = self.claims().await?.notes(name, &after, limit).await?;
        let parked = notes.iter().take_while(|(id, _)| id.starts_with(PARKED));
        let read = |(id, note): &(Arc<str>, bytes::Bytes)| {
            serde_json::from_slice(note).unwrap_or_else(|error| {
                let position = id.strip_prefix(PARKED).and_then(|number| number.parse().ok());
                let position = Position::new(position.unwrap_or_default());
                Parked { position, reason: format!("its note cannot be read: {error}") }
            })
        };
        Ok(parked.map(read).collect())
    }

    /// Asks its owner, and waits until it has heard; answers whether it has. Where nobody has it,
    /// that is at once: the next owner hears of it before it does anything.
    ///
    /// # Errors
    /// There is none of that name, or the store failed.
    ///
    /// # Cancel safety
    /// A dropped call may have asked.
    pub async fn ask(&self, name: &str, request: Request) -> Result<bool, FollowersError> {
        let claims = self.claims().await?;
        let number = claims.ask(name, request).await?;
        match claims.place(name).await? {
            Some(place) if place.held => Ok(wait_until_heard(&*claims, name, number).await?),
            _ => Ok(false),
        }
    }

    /// Waits until a follower has settled everything up to a position, on whichever node. It goes
    /// by what is in the store: that is at most some seconds old.
    ///
    /// # Errors
    /// The store failed.
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing.
    pub async fn wait_for(&self, name: &str, position: Position) -> Result<(), FollowersError> {
        loop {
            let place = self.claims().await?.place(name).await?;
            if place.is_some_and(|place| place.position >= position) {
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

impl fmt::Debug for Followers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Followers").finish_non_exhaustive()
    }
}
