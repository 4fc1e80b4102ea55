//! A build that this node writes, or would: its follower, and what becomes of the events.

use std::sync::Arc;

use mister_smith_supervisors::{Context, TaskGuard};
use tokio::time::{Instant, sleep_until};

use super::actor::{ProjectionActor, ProjectionArgs, ProjectionMessage};
use super::track::{Track, longer};
use super::{Projection, ProjectionError};
use crate::event::Position;
use crate::pool::Lease;
use crate::store::EventFilter;
use crate::store::follow::{self, Cursor, Follow, Follower, Source};
use crate::store::read_model::documents::{Build, Part, Writer};

/// See the [module](self).
pub(super) struct Written<P: Projection> {
    pub(super) build: Build,
    part: Part,
    pub(super) follower: Follower,
    /// Tells it from those before it, in messages.
    pub(super) number: u64,
    pub(super) cursor: Cursor,
    /// `None` while another node has the claim.
    pub(super) track: Option<Track<P>>,
    /// When the page that comes next may be asked for.
    pub(super) not_before: Option<Instant>,
    pub(super) asked: Option<Asked>,
    _keeping: TaskGuard,
}

/// What the follower was asked for.
pub(super) struct Asked {
    /// Tells its answer from those to others.
    pub(super) number: u64,
    from: Position,
    pub(super) limit: usize,
    _task: TaskGuard,
}

impl<P: Projection> Written<P> {
    /// Begins to follow the log for a build. The first that comes is the claim.
    pub(super) fn new(
        args: &ProjectionArgs<P>,
        filter: &EventFilter,
        lease: &Lease,
        build: Build,
        cx: &Context<ProjectionActor<P>>,
    ) -> Self {
        let part = Part { build: build.id, partition: args.partition };
        let follow = Follow::new(part.to_string(), Arc::clone(&args.owner))
            .filter(filter.clone())
            .repeats(super::track::PAGE as u64)
            .own_place();
        let follow = if build.partitions > 1 { follow.sharing(&args.shared.pages) } else { follow };
        let (store, claims) = (Arc::clone(&lease.store), lease.documents.claims());
        let source = Source { store, claims, shared: lease.shared };
        let follower = Follower::new(follow, source, args.head.clone(), cx.clock(), Arc::default());
        let (kept, number) = (follower.clone(), args.shared.next_number());
        let keeping =
            cx.spawn_tell(async move { ProjectionMessage::Lost(number, kept.keep().await) });
        Self {
            build,
            part,
            follower,
            number,
            cursor: Cursor::default(),
            track: None,
            not_before: None,
            asked: None,
            _keeping: keeping,
        }
    }

    /// The claim was taken: what is written goes on after a place.
    pub(super) async fn begin(
        &mut self,
        lease: &Lease,
        cursor: Cursor,
    ) -> Result<(), ProjectionError> {
        let part = self.part;
        let lost = || ProjectionError::Fenced { part: part.to_string() };
        let fence = self.follower.fence().ok_or_else(lost)?;
        let writer = Writer { part, owner: fence.owner, epoch: fence.epoch };
        let track = Track::begin(lease, writer, self.build.partitions, cursor.position()).await?;
        self.track = Some(track);
        (self.cursor, self.not_before) = (cursor, None);
        Ok(())
    }

    /// Whether more of the log may be applied to it.
    pub(super) fn may_go_on(&self) -> bool {
        self.track
            .as_ref()
            .is_some_and(|track| track.parked.full().is_none() && track.parked.due().is_none())
    }

    /// Whether its follower stands still, and says why: the other build does not wait for it.
    pub(super) fn is_stuck(&self) -> bool {
        self.follower.shown().standing().trouble.is_some()
    }

    /// Asks for what comes after a cursor, unless that was asked for already: at most so many
    /// events, or with 0 for none, only for what others want of the build.
    pub(super) fn ask(
        &mut self,
        cursor: Cursor,
        limit: usize,
        number: u64,
        cx: &Context<ProjectionActor<P>>,
    ) {
        let from = cursor.position();
        let same = |asked: &Asked| asked.from == from && (asked.limit > 0) == (limit > 0);
        if self.asked.as_ref().is_some_and(same) {
            return;
        }
        let (follower, not_before) = (self.follower.clone(), self.not_before);
        let task = cx.spawn_tell(async move {
            if let Some(at) = not_before.filter(|_| limit > 0) {
                sleep_until(at).await;
            }
            ProjectionMessage::Next(number, Box::new(follower.next(cursor, limit).await))
        });
        self.asked = Some(Asked { number, from, limit, _task: task });
    }

    /// Lets the next page be read while this one, which was full, is applied.
    pub(super) fn read_ahead(
        &mut self,
        next: Cursor,
        limit: usize,
        number: u64,
        cx: &Context<ProjectionActor<P>>,
    ) {
        self.not_before = None;
        self.ask(next, longer(limit), number, cx);
    }

    /// What was applied, or passed over, is settled.
    pub(super) fn settle(&mut self, next: Cursor) {
        let Some(track) = &self.track else { return };
        self.follower.settle(self.cursor, track.at);
        self.cursor = match track.at == next.position() {
            true => next,
            false => self.cursor.after(track.at),
        };
    }

    /// What is shown of the follower.
    pub(super) fn shown(&self) -> Arc<follow::Shown> {
        Arc::clone(self.follower.shown())
    }

    /// Gives it back, so that another node goes on at once.
    pub(super) async fn release(mut self, lease: &Lease) {
        self.asked = None;
        if let Some(track) = &mut self.track {
            // Another node waits out the lease if this does not reach the database.
            let _ = track.save(lease, follow::LEASE).await;
        }
        self.follower.release().await;
    }
}
