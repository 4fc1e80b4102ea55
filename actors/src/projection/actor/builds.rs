//! Which builds there are, which of them this node writes, and when one takes the place of another.

use mister_smith_supervisors::Context;
use tokio::time::Instant;

use super::{LOOK_EVERY, LOOK_SOON, PRUNE, ProjectionActor, Which};
use crate::projection::written::Written;
use crate::projection::{Projection, ProjectionError, wanted_by};
use crate::store::follow::Cursor;
use crate::store::follow::LEASE;
use crate::store::read_model::documents::builds::Found;
use crate::store::read_model::documents::{Activation, Build, Builds, Wanted};

impl<P: Projection> ProjectionActor<P> {
    /// Finds the builds that this program may write.
    pub(super) async fn begin(&mut self, cx: &Context<Self>) -> Result<(), ProjectionError> {
        let Builds { active, building } =
            self.lease.documents.builds(P::NAME, wanted_by::<P>()).await?;
        self.found = Found { active: Some(active), building };
        self.looked_at = Instant::now();
        self.pruning = true;
        self.arrange(cx);
        match self.track(Which::Active) {
            Some(track) => self.args.shown.is_done(track.at),
            None => self.see_others().await?,
        }
        Ok(())
    }

    /// Follows the log for those builds that are found and this program's to write.
    fn arrange(&mut self, cx: &Context<Self>) {
        let ours = |build: &&Build| build.made_as() == wanted_by::<P>();
        let active = self.found.active.as_ref().filter(ours);
        self.active.take_if(|written| active.is_none_or(|build| build.id != written.build.id));
        if let (Some(build), None) = (active, &self.active) {
            self.active = Some(self.follow(build, cx));
        }
        // A rebuild is made by whoever has what is read.
        let may = active.is_none() || self.track(Which::Active).is_some();
        let building = self.found.building.as_ref().filter(ours).filter(|_| may);
        self.building.take_if(|written| building.is_none_or(|build| build.id != written.build.id));
        if let (Some(build), None) = (building, &self.building) {
            self.building = Some(self.follow(build, cx));
        }
        if self.building.is_none() {
            self.unsound = None;
        }
    }

    fn follow(&self, build: &Build, cx: &Context<Self>) -> Written<P> {
        Written::new(&self.args, &self.filter, &self.lease, build.clone(), cx)
    }

    /// The claim on a build was taken: this node writes it from now on.
    pub(super) async fn claimed(
        &mut self,
        which: Which,
        cursor: Cursor,
        cx: &Context<Self>,
    ) -> Result<(), ProjectionError> {
        // Somebody may have retired it just before: then there is nothing to write.
        let found = self.lease.documents.look(P::NAME).await?;
        let lease = self.lease.clone();
        let Some(written) = self.written(which) else { return Ok(()) };
        if [&found.active, &found.building].into_iter().flatten().all(|one| *one != written.build) {
            written.follower.release().await;
            let part = format!("build {}", written.build.id);
            return Err(ProjectionError::Fenced { part });
        }
        written.begin(&lease, cursor).await?;
        self.turn = None;
        if found != self.found {
            self.args.shared.cache.clear();
            return self.begin(cx).await;
        }
        if which == Which::Active {
            self.args.shown.is_done(cursor.position());
            self.arrange(cx);
        }
        Ok(())
    }

    /// How far the documents are that another node or another version writes.
    async fn see_others(&mut self) -> Result<(), ProjectionError> {
        let progress = self.lease.documents.progress(P::NAME).await?;
        let active: Vec<_> = progress.iter().filter(|part| part.active).collect();
        let ours = active.iter().find(|part| part.partition == self.args.partition);
        let at = match ours {
            Some(ours) if active.len() == usize::from(wanted_by::<P>().partitions) => ours.position,
            _ => active.iter().map(|part| part.position).min().unwrap_or_default(),
        };
        self.args.shown.is_done(at);
        Ok(())
    }

    /// Whether it is time to look what others have changed.
    pub(super) fn is_time_to_look(&self) -> bool {
        let every = match self.track(Which::Active).is_none() && self.args.shown.is_awaited() {
            true => LOOK_SOON,
            false => LOOK_EVERY,
        };
        self.look.has_changed().unwrap_or(false) || self.looked_at.elapsed() >= every
    }

    /// Looks what others have changed: builds, parked events, how far they are.
    pub(super) async fn look(&mut self, cx: &Context<Self>) -> Result<(), ProjectionError> {
        let told = self.look.has_changed().unwrap_or(false);
        self.look.mark_unchanged();
        self.looked_at = Instant::now();
        self.compared = false;
        if told {
            // Of a build that stays, too, when others have changed: on a store that is this node's
            // alone nobody asks again.
            let written = self.active.iter().chain(&self.building);
            written.for_each(|written| written.follower.hear_now());
        }
        let found = self.lease.documents.look(P::NAME).await?;
        if found != self.found {
            self.args.shared.cache.clear();
            return self.begin(cx).await;
        }
        for written in [&mut self.active, &mut self.building].into_iter().flatten() {
            let Some(track) = &mut written.track else { continue };
            if !track.parked.is_empty() {
                track.look_for_parked(&self.lease).await?;
            }
        }
        if self.track(Which::Active).is_none() {
            self.see_others().await?;
        }
        self.prune_some().await
    }

    pub(super) async fn try_to_switch(
        &mut self,
        cx: &Context<Self>,
    ) -> Result<(), ProjectionError> {
        let wanted = match self.track(Which::Active) {
            Some(active) => active.at,
            None => self.args.shown.done(),
        };
        let lease = self.lease.clone();
        let Some(building) = self.building.as_mut() else { return Ok(()) };
        let (build, Some(track)) = (building.build.id, &mut building.track) else {
            return Ok(());
        };
        if track.at < wanted || self.compared {
            return Ok(());
        }
        // The database compares the checkpoints.
        track.save(&lease, LEASE).await?;
        let at = track.at;
        match lease.documents.activate(P::NAME, build).await? {
            Activation::Active => {
                tracing::info!(projection = P::NAME, build, "switched");
                self.args.shown.is_done(at);
                self.active = self.building.take();
                self.found = Found { active: self.found.building.take(), building: None };
                self.turn = None;
                self.unsound = None;
                self.pruning = true;
                self.args.shared.builds_changed();
                self.arrange(cx);
            }
            Activation::Behind => {}
            Activation::Unsound { parked, before } => {
                self.compared = true;
                let why = format!(
                    "version {} is not switched in: {parked} of its documents stand still, \
                     {before} of those in use; mend it, or retry or skip their events",
                    P::VERSION
                );
                if self.unsound.as_ref() != Some(&why) {
                    tracing::error!(projection = P::NAME, build, why);
                }
                self.unsound = Some(why);
            }
            Activation::Gone => {
                let part = format!("build {build}");
                return Err(ProjectionError::Fenced { part });
            }
        }
        Ok(())
    }

    /// Removes some of what is no longer read. The first partition does it, on every node: builds
    /// are retired by any node that is asked to.
    pub(super) async fn prune_some(&mut self) -> Result<(), ProjectionError> {
        if self.pruning {
            let ours = self.args.partition == 0;
            self.pruning = ours && self.lease.documents.prune(P::NAME, PRUNE).await?;
        }
        Ok(())
    }
}

/// A build, by what it has other than this program.
pub(super) fn described(build: &Build, ours: Wanted) -> String {
    match build.version == ours.version {
        true => format!("version {} in {} partitions", build.version, build.partitions),
        false => format!("version {}", build.version),
    }
}
