//! The place: how far everything is settled, and how that is kept.

use std::sync::Arc;

use super::keep::until;
use super::{Cursor, Follower, LEASE, PARKED, State};
use crate::event::{Position, RecordedEvent};
use crate::store::claims::{ClaimError, Note, Orders, Save};

impl Follower {
    /// Everything up to here is settled. A cursor of another turn moves nothing.
    pub fn settle(&self, cursor: Cursor, position: Position) {
        let moved = self.change(|state| {
            let moved = state.turn == cursor.turn && position > state.settled;
            if moved {
                state.settled = position;
            }
            moved
        });
        if moved {
            self.0.shown.moved(position);
        }
    }

    /// Writes the place, with notes. A cursor of another turn writes nothing: what it speaks of
    /// was forgotten.
    ///
    /// # Errors
    /// The claim is lost, or the store failed.
    ///
    /// # Cancel safety
    /// A dropped call has written all of it or nothing.
    pub async fn save(
        &self,
        cursor: Cursor,
        notes: impl IntoIterator<Item = Note>,
    ) -> Result<(), ClaimError> {
        self.put(cursor, None, notes.into_iter().collect(), true).await
    }

    /// Settles everything up to a position together with notes. A renewal that comes meanwhile
    /// writes the old place or both, so that the place is never kept without them.
    ///
    /// # Errors
    /// See [`save`](Self::save). Nothing is settled then.
    ///
    /// # Cancel safety
    /// See [`save`](Self::save).
    pub async fn save_at(
        &self,
        cursor: Cursor,
        position: Position,
        notes: impl IntoIterator<Item = Note>,
    ) -> Result<(), ClaimError> {
        self.put(cursor, Some(position), notes.into_iter().collect(), true).await
    }

    /// [`save_at`](Self::save_at) for notes that are as good as the place: a crash of the database
    /// may take both.
    ///
    /// # Errors
    /// See [`save`](Self::save).
    ///
    /// # Cancel safety
    /// See [`save`](Self::save).
    pub async fn save_lightly(
        &self,
        cursor: Cursor,
        position: Position,
        notes: impl IntoIterator<Item = Note>,
    ) -> Result<(), ClaimError> {
        self.put(cursor, Some(position), notes.into_iter().collect(), false).await
    }

    pub(super) async fn put(
        &self,
        cursor: Cursor,
        at: Option<Position>,
        notes: Vec<Note>,
        durable: bool,
    ) -> Result<(), ClaimError> {
        let _saving = self.0.saving.lock().await;
        let mut save = {
            let state = self.state();
            if state.turn != cursor.turn {
                return Ok(());
            }
            self.place_of(&state)
        };
        let durable = durable && !notes.is_empty();
        save.to = save.to.map(|to| at.map_or(to, |at| to.max(at)));
        self.write(Save { notes, durable, ..save }).await?;
        if let Some(at) = at {
            self.settle(cursor, at);
        }
        Ok(())
    }

    pub(super) async fn renew(&self) -> Result<(), ClaimError> {
        let _saving = self.0.saving.lock().await;
        let save = self.place_of(&self.state());
        self.write(save).await
    }

    pub(super) async fn renew_and_hear(&self) -> Result<(), ClaimError> {
        self.renew().await?;
        let news = {
            let state = self.state();
            state.asked > state.heard
        };
        if news {
            self.hear().await?;
            // Whoever asked waits for this.
            self.renew().await?;
        }
        Ok(())
    }

    pub(super) fn place_of(&self, state: &State) -> Save {
        let mut save = Save { heard: state.heard, ..Save::renewal(LEASE) };
        if !self.0.follow.own_place {
            save.to = Some(state.settled);
        }
        save
    }

    /// With `saving` held.
    pub(super) async fn write(&self, mut save: Save) -> Result<(), ClaimError> {
        let lost = || ClaimError::Lost { name: self.0.follow.name.to_string() };
        if !self.0.follow.claimed {
            return Ok(());
        }
        let fence = self.fence().ok_or_else(lost)?;
        let to = save.to;
        let passed: Vec<(Position, Arc<str>)> = match to {
            Some(to) => {
                let state = self.state();
                state.skips.range(..=to).map(|(at, id)| (*at, Arc::clone(id))).collect()
            }
            None => Vec::new(),
        };
        save.notes.extend(passed.iter().map(|(_, id)| (Arc::clone(id), None)));
        let before = self.now();
        let Orders { paused, asked } = self.0.source.claims.save(&fence, save).await?;
        let (was, news) = self.change(|state| {
            state.good_until = until(before);
            state.saved = to.unwrap_or(state.settled);
            for (at, _) in &passed {
                state.skips.remove(at);
            }
            state.asked = asked;
            (std::mem::replace(&mut state.paused, paused), asked > state.heard)
        });
        if was != paused {
            self.0.shown.pauses(paused);
        }
        if news {
            self.0.poke.notify_one();
        }
        Ok(())
    }

    /// Puts an event aside: a note that stays, with the reason. To be settled by the user.
    ///
    /// # Errors
    /// The claim is lost, or the store failed.
    ///
    /// # Cancel safety
    /// See [`save`](Self::save).
    pub async fn park(
        &self,
        cursor: Cursor,
        event: &RecordedEvent,
        reason: &str,
    ) -> Result<(), ClaimError> {
        tracing::error!(
            follower = &*self.0.follow.name, position = %event.position, reason, "put aside"
        );
        self.put(cursor, None, vec![parked(event.position, reason)], true).await
    }
}

/// The note of an event that was put aside.
pub(super) fn parked(position: Position, reason: &str) -> Note {
    let note = serde_json::json!({ "position": position, "reason": reason });
    (format!("{PARKED}{:020}", position.get()).into(), Some(note.to_string().into()))
}
