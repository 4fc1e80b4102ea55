//! The claim: taken, renewed, given back; and what is asked of its owner.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::{
    AGAIN, ASK_DEADLINE, Follow, Follower, LEASE, LOOK_EVERY, MARK, REFUSALS, RENEW_EVERY,
    REQUESTS, Refusal,
};
use crate::error::ErrorClass;
use crate::event::Position;
use crate::store::StoreError;
use crate::store::claims::{
    ASKED, ClaimError, Claimed, Claims, Fence, Note, Place, REFUSED, Request, Save,
};

impl Follower {
    /// Takes the claim as soon as it is to be had, renews it, and hears requests. To be run in a
    /// task of its own, for as long as its user lives. Answers only when the claim is lost or the
    /// store fails for longer than a lease: its user has to end then.
    ///
    /// # Cancel safety
    /// Dropping it gives nothing back; see [`release`](Self::release).
    pub async fn keep(&self) -> ClaimError {
        match self.kept().await {
            Ok(never) => match never {},
            Err(error) => {
                self.change(|state| state.fence = None);
                error
            }
        }
    }

    async fn kept(&self) -> Result<std::convert::Infallible, ClaimError> {
        match self.0.follow.claimed {
            true => self.take().await?,
            false => self.begin_here().await?,
        }
        loop {
            let poked = tokio::select! {
                biased;
                () = self.0.poke.notified() => true,
                () = sleep(RENEW_EVERY) => false,
            };
            let idle = {
                let state = self.state();
                let kept = self.0.follow.own_place || state.settled == state.saved;
                !poked && !self.0.source.shared && kept
            };
            if idle || !self.0.follow.claimed {
                continue;
            }
            match self.renew_and_hear().await {
                Ok(()) => {}
                Err(ClaimError::Store(error))
                    if self.is_good() && error.class() == ErrorClass::Transient =>
                {
                    tracing::debug!(follower = &*self.0.follow.name, %error, "not renewed yet");
                    sleep(AGAIN).await;
                    self.0.poke.notify_one();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A place in memory.
    /// Lets a follower of every node begin at the end of the log, or where an earlier life of it
    /// was, if it has not begun. An owner that waits for this in its start misses nothing that is
    /// appended when it has started. One with a claim begins where the store says.
    ///
    /// # Errors
    /// The store failed.
    ///
    /// # Cancel safety
    /// A dropped call has begun or not.
    pub async fn begin_here(&self) -> Result<(), StoreError> {
        if self.0.follow.claimed || self.state().turn > 0 {
            return Ok(());
        }
        let at = match self.0.shown.started() {
            Some(at) => at,
            None => self.0.source.store.head().await?,
        };
        self.begin(at);
        Ok(())
    }

    async fn take(&self) -> Result<(), ClaimError> {
        let Follow { name, owner, .. } = &self.0.follow;
        let claim = loop {
            let before = self.now();
            match self.0.source.claims.claim(name, owner, LEASE).await? {
                Claimed::Yes(claim) => {
                    self.state().good_until = until(before);
                    break claim;
                }
                Claimed::Held(place) => self.0.shown.stands_by(&place),
            }
            tokio::select! {
                biased;
                () = self.0.poke.notified() => {}
                () = sleep(LOOK_EVERY) => {}
            }
        };
        let careful = claim.place.is_deadly();
        let Place { position, paused, asked, heard, deaths, trying, tries, .. } = claim.place;
        if careful {
            tracing::warn!(
                follower = &**name, %position, deaths,
                "its owners died here: events come one at a time"
            );
        }
        {
            let mut state = self.state();
            state.fence = Some(claim.fence);
            (state.settled, state.saved) = (position, position);
            (state.paused, state.asked, state.heard) = (paused, asked, heard);
            state.careful = if careful { self.0.follow.repeats } else { 0 };
            (state.trying, state.tries) = (trying, tries);
            state.skips.clear();
        }
        // Also what was asked while nobody was there, and what the owner before has not done.
        self.hear().await?;
        let at = self.state().settled;
        self.begin(at);
        Ok(())
    }

    /// Hears requests now, and not with the next renewal: somebody of this node has made one.
    pub fn hear_now(&self) {
        self.0.poke.notify_one();
    }

    pub(super) fn begin(&self, at: Position) {
        let turn = self.0.shown.next_turn();
        let paused = self.change(|state| {
            state.turn = turn;
            state.settled = at;
            state.paused
        });
        self.0.shown.follows(at, paused);
    }

    pub(super) fn now(&self) -> (Duration, i64) {
        (self.0.clock.elapsed(), self.0.clock.wall_us())
    }

    fn is_good(&self) -> bool {
        let ((elapsed, wall), state) = (self.now(), self.state());
        elapsed < state.good_until.0 && wall < state.good_until.1
    }

    /// Returns when the claim is certain to be this follower's, mostly at once. To be asked before
    /// anything is done that another owner must not do, too.
    ///
    /// # Errors
    /// Another has it, or the store cannot say.
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing.
    pub async fn assure(&self) -> Result<(), ClaimError> {
        if !self.0.follow.claimed || !self.0.source.shared || self.is_good() {
            return Ok(());
        }
        let _saving = self.0.saving.lock().await;
        // Of many that ask when a node wakes up, one has asked.
        if self.is_good() {
            return Ok(());
        }
        let save = self.place_of(&self.state());
        self.write(save).await
    }

    /// Returns when the claim is certain to be this follower's, also when the store does not answer
    /// for a while. If another has it, never: this life ends.
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing.
    pub async fn certain(&self) {
        loop {
            match self.assure().await {
                Ok(()) => return,
                Err(ClaimError::Store(_)) => sleep(AGAIN).await,
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// What to show with writes of one's own; `None` without a claim.
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        self.state().fence.clone()
    }

    /// Gives the claim back, with the place, so that another node takes over at once. For a stop in
    /// order, when nothing is under way any more.
    pub async fn release(&self) {
        let _saving = self.0.saving.lock().await;
        let (fence, save) = {
            let state = self.state();
            (state.fence.clone(), self.place_of(&state))
        };
        let Some(fence) = fence else { return };
        let released = async {
            self.0.source.claims.save(&fence, save).await?;
            self.0.source.claims.release(&fence).await
        };
        if let Err(error) = released.await {
            tracing::debug!(follower = &*self.0.follow.name, %error, "not released; it runs out");
        }
        self.change(|state| state.fence = None);
    }

    /// Reads what was asked and is not done.
    pub(super) async fn hear(&self) -> Result<(), ClaimError> {
        let name = &*self.0.follow.name;
        let asked = self.state().asked;
        let mut after = ASKED.to_owned();
        loop {
            let page = self.0.source.claims.notes(name, &after, REQUESTS).await?;
            let Some((last, _)) = page.last() else { break };
            after = last.to_string();
            let mut others = false;
            for (id, data) in page {
                match id.starts_with(ASKED) {
                    true => self.obey(id, serde_json::from_slice(&data)).await?,
                    false => others = true,
                }
            }
            if others {
                break;
            }
        }
        self.change(|state| state.heard = state.heard.max(asked));
        Ok(())
    }

    async fn obey(
        &self,
        id: Arc<str>,
        request: serde_json::Result<Request>,
    ) -> Result<(), ClaimError> {
        match request {
            Ok(Request::GoTo(_) | Request::Skip(_)) if self.0.follow.own_place => {
                let reason = "its place moves with what it makes of the events, and not without";
                self.refuse(id, reason.to_owned()).await
            }
            Ok(Request::GoTo(to)) => self.go_to(to, [(id, None)]).await,
            Ok(Request::Skip(at)) => {
                let again = {
                    let mut state = self.state();
                    // Those that were passed are removed with the next save.
                    let new = state.skips.insert(at, id).is_none();
                    new && at > state.settled && state.turn > 0
                };
                if again {
                    // It may be in hand already, and trying for long.
                    let at = self.state().settled;
                    self.begin(at);
                }
                Ok(())
            }
            // They need no note: their column says it.
            Ok(Request::Pause | Request::Resume) => {
                let _saving = self.0.saving.lock().await;
                let save = self.place_of(&self.state());
                self.write(save.notes([(id, None)])).await
            }
            Err(error) => {
                let reason = format!(
                    "its owner cannot read it ({error}), and may be older than the program that \
                     asked; ask again once it is replaced"
                );
                self.refuse(id, reason).await
            }
        }
    }

    /// Puts a request aside that cannot be done, where whoever asked finds out why.
    async fn refuse(&self, id: Arc<str>, reason: String) -> Result<(), ClaimError> {
        let (name, claims) = (&*self.0.follow.name, &self.0.source.claims);
        tracing::error!(follower = name, request = &*id, reason, "refused what was asked");
        let number = id.strip_prefix(ASKED).and_then(|number| number.parse().ok());
        let _saving = self.0.saving.lock().await;
        let mut refusals = refusals(&**claims, name).await?;
        refusals.push(Refusal { number: number.unwrap_or_default(), reason });
        let last = refusals.len().saturating_sub(REFUSALS);
        let note = serde_json::to_vec(&refusals[last..]).unwrap_or_default();
        let save = self.place_of(&self.state());
        self.write(save.notes([(id, None), (REFUSED.into(), Some(note.into()))])).await
    }

    /// Moves the place. What was handed out is to be forgotten; [`next`](Self::next) says so.
    ///
    /// # Errors
    /// The claim is lost, or the store failed.
    ///
    /// # Cancel safety
    /// A dropped call may have written the place; the life after this one begins there then.
    pub async fn go_to(
        &self,
        to: Position,
        notes: impl IntoIterator<Item = Note>,
    ) -> Result<(), ClaimError> {
        let mut notes: Vec<Note> = notes.into_iter().collect();
        // It belongs to the place that is left.
        notes.push((MARK.into(), None));
        let _saving = self.0.saving.lock().await;
        let save = Save { to: Some(to), ..self.place_of(&self.state()) }.notes(notes);
        self.write(save).await?;
        self.begin(to);
        Ok(())
    }

    /// Asks whoever has the claim, and waits until it has heard; answers whether it has. If not,
    /// the request stays and is heard by the next owner.
    ///
    /// # Errors
    /// Nobody has ever claimed the name, or the store failed.
    ///
    /// # Cancel safety
    /// A dropped call may have asked.
    pub async fn ask(&self, request: Request) -> Result<bool, ClaimError> {
        let name = &*self.0.follow.name;
        let number = loop {
            match self.0.source.claims.ask(name, request).await {
                // Its first claim is under way.
                Err(ClaimError::Unknown { .. }) if self.0.follow.claimed => sleep(AGAIN / 4).await,
                other => break other?,
            }
        };
        self.hear_now();
        wait_until_heard(&*self.0.source.claims, name, number).await
    }
}

/// What was refused of late.
async fn refusals(claims: &dyn Claims, name: &str) -> Result<Vec<Refusal>, ClaimError> {
    let note = claims.note(name, REFUSED).await?;
    // Only those who wait now read it.
    Ok(note.and_then(|note| serde_json::from_slice(&note).ok()).unwrap_or_default())
}

/// Waits until the owner of a name has heard a request; answers whether it has, in time.
///
/// # Errors
/// It has, and [refuses](ClaimError::Refused); or the store failed.
pub(crate) async fn wait_until_heard(
    claims: &dyn Claims,
    name: &str,
    number: u64,
) -> Result<bool, ClaimError> {
    let heard = async {
        loop {
            match claims.place(name).await? {
                Some(place) if place.heard >= number => break,
                // It was taken out of use meanwhile: nobody is left to hear it.
                None => return Ok(true),
                _ => sleep(AGAIN / 4).await,
            }
        }
        let refused = refusals(claims, name).await?.into_iter().find(|one| one.number == number);
        refused.map_or(Ok(true), |Refusal { reason, .. }| {
            Err(ClaimError::Refused { name: name.to_owned(), reason })
        })
    };
    tokio::time::timeout(ASK_DEADLINE, heard).await.unwrap_or(Ok(false))
}

pub(super) fn until((elapsed, wall): (Duration, i64)) -> (Duration, i64) {
    let micros = i64::try_from(LEASE.as_micros()).unwrap_or(i64::MAX);
    (elapsed.saturating_add(LEASE), wall.saturating_add(micros))
}
