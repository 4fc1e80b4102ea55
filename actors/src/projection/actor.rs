//! The actor of one partition of a projection: follows the log and keeps its documents.
//!
//! It lives under `projections`. A start claims its partition of the builds that this program may
//! write (which fences whoever had it before) and goes on after its checkpoint. Each page is a
//! message to itself, so a kill, a stop or a health check waits for one page at most. The claim is
//! renewed by a task of its own, however long a page takes, and given back when it stops in order.
//!
//! While another build is made, the actor writes both: whatever is new goes to the new build
//! first, so that once the new one has caught up it is never behind, and can take the place of the
//! old one at any moment.
//!
//! | what is found | what this node does |
//! |---|---|
//! | its own version | claims it, and follows the log |
//! | the same, claimed by another node | stands by, and shows how far that one is |
//! | an older version | makes its own beside it; switched in when it is as far and as sound |
//! | a newer version | stands by, and shows so |

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mister_smith_supervisors::{
    Actor, Context, ErrorClass, ExitReason, Failure, StartError, SupervisedComponent,
    SupervisionMetadata, TaskGuard,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::cache::DocumentCache;
use super::pages::Pages;
use super::shown::{How, Shown};
use super::track::{Step, Track};
use super::{Projection, ProjectionError, wanted_by};
use crate::component;
use crate::event::Position;
use crate::guarded::guarded;
use crate::pool::{Lease, lease_at_start, store_failure};
use crate::store::EventFilter;
use crate::store::claims::{ClaimError, Save};
pub use crate::store::follow::LEASE;
use crate::store::read_model::documents::builds::Found;
use crate::store::read_model::documents::{Activation, Build, Builds, Part, Wanted};

/// How often a claim is renewed, and how often a node looks for what others have changed: builds
/// that were begun or reset, parked events to be retried, a claim that can be had.
pub const LOOK_EVERY: Duration = Duration::from_millis(1_500);

/// How often it looks while somebody waits for what another node writes.
const LOOK_SOON: Duration = Duration::from_millis(50);

/// The pause before an event is tried again, doubled with each try.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// The least time between a page that was not full and the next one. What comes at once after a
/// pause is applied at once; a busy log gives full pages then, and a transaction for each handful
/// of events would take what the log itself needs.
const PACE: Duration = Duration::from_millis(50);

/// Documents of old builds that are removed at a time.
const PRUNE: usize = 1_000;

/// How often a start looks again whose builds were changed by somebody else meanwhile.
const STARTS: usize = 5;

/// What the projection can be told.
#[derive(Debug)]
pub enum ProjectionMessage {
    /// There may be more to do.
    Continue,
}

/// What the partitions of a projection share with each other and with those who ask.
#[derive(Debug, Clone, Default)]
pub struct Shared {
    pub(super) cache: DocumentCache,
    pub(super) pages: Pages,
    /// Changes when the database is to be looked at: builds, parked events, who waits.
    pub(super) look: Arc<watch::Sender<u64>>,
}

impl Shared {
    /// Lets all partitions look what has changed.
    pub(super) fn look(&self) {
        self.look.send_modify(|count| *count += 1);
    }

    pub(super) fn builds_changed(&self) {
        self.cache.clear();
        self.look();
    }
}

/// What a fresh start needs.
pub struct ProjectionArgs<P: Projection> {
    pub(super) projection: Arc<P>,
    pub(super) partition: u16,
    pub(super) pool: Arc<str>,
    pub(super) owner: Arc<str>,
    pub(super) head: watch::Receiver<Position>,
    pub(super) shown: Arc<Shown>,
    pub(super) shared: Shared,
}

impl<P: Projection> Clone for ProjectionArgs<P> {
    fn clone(&self) -> Self {
        Self {
            projection: Arc::clone(&self.projection),
            partition: self.partition,
            pool: Arc::clone(&self.pool),
            owner: Arc::clone(&self.owner),
            head: self.head.clone(),
            shown: Arc::clone(&self.shown),
            shared: self.shared.clone(),
        }
    }
}

/// The actor.
pub struct ProjectionActor<P: Projection> {
    args: ProjectionArgs<P>,
    filter: EventFilter,
    lease: Lease,
    /// `None` while another node has it, or it is of another version.
    active: Option<Written<P>>,
    building: Option<Written<P>>,
    /// The builds that there were at the last look.
    found: Found,
    look: watch::Receiver<u64>,
    looked_at: Instant,
    begun_at: Instant,
    /// Whose turn it is while the new build is behind.
    turn: bool,
    /// There may be documents that nobody reads.
    pruning: bool,
    standby: Option<String>,
    /// Why a build stands still.
    trouble: Option<String>,
    /// Why the new build does not take the place of the old one, although it is as far.
    unsound: Option<String>,
    /// It is not compared again before the next look.
    compared: bool,
    /// When the page that comes next may be asked for.
    not_before: Option<Instant>,
    /// Waits for the log to grow.
    waiting: Option<TaskGuard>,
}

/// A build that this node writes.
struct Written<P: Projection> {
    track: Track<P>,
    /// Renews the claim for as long as this lives.
    _renewal: Option<TaskGuard>,
}

impl<P: Projection> Actor for ProjectionActor<P> {
    type Message = ProjectionMessage;
    type Args = ProjectionArgs<P>;

    async fn start(args: &ProjectionArgs<P>, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let lease = lease_at_start(cx, &args.pool).await?;
        let (head, shown) = (args.head.clone(), Arc::clone(&args.shown));
        cx.describe(move || shown.line(*head.borrow()));
        let filter = guarded(|| args.projection.filter()).map_err(|reason| {
            let reason = format!("`filter` of projection {}: {reason}", P::NAME);
            Failure::new(ErrorClass::Permanent, reason)
        })?;
        let mut projection = Self {
            look: args.shared.look.subscribe(),
            args: args.clone(),
            filter,
            lease,
            active: None,
            building: None,
            found: Found::default(),
            looked_at: Instant::now(),
            begun_at: Instant::now(),
            turn: false,
            pruning: true,
            standby: None,
            trouble: None,
            unsound: None,
            compared: false,
            not_before: None,
            waiting: None,
        };
        projection.begin(cx).await.map_err(projection_failure)?;
        projection.wait(cx);
        Ok(projection)
    }

    async fn handle(
        &mut self,
        ProjectionMessage::Continue: ProjectionMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        self.go_on(cx).await.map_err(projection_failure)
    }

    async fn stop(&mut self, _: &ExitReason, _: &mut Context<Self>) {
        let tracks = [self.active.take(), self.building.take()];
        for Written { mut track, .. } in tracks.into_iter().flatten() {
            // Another node waits out the lease if this does not reach the database.
            let _ = track.save(&self.lease, LEASE).await;
            let _ = track.release(&self.lease).await;
        }
    }

    fn message_name(message: &ProjectionMessage) -> &'static str {
        match message {
            ProjectionMessage::Continue => "Continue",
        }
    }
}

impl<P: Projection> ProjectionActor<P> {
    /// Claims this partition of the builds that are this program's to write.
    async fn begin(&mut self, cx: &Context<Self>) -> Result<(), ProjectionError> {
        for _ in 1..STARTS {
            match self.try_to_begin(cx).await {
                // Somebody has retired a build between the look and the claim.
                Err(ProjectionError::Fenced { .. }) => {}
                other => return other,
            }
        }
        self.try_to_begin(cx).await
    }

    async fn try_to_begin(&mut self, cx: &Context<Self>) -> Result<(), ProjectionError> {
        let wanted = wanted_by::<P>();
        let builds = self.lease.documents.builds(P::NAME, wanted).await?;
        let Builds { active, building } = builds.clone();
        self.found = Found { active: Some(active), building };
        self.begun_at = Instant::now();
        self.looked_at = self.begun_at;
        self.pruning = true;
        let may_write = builds.may_write_active(wanted);
        let active = may_write.then_some(&builds.active);
        self.active.take_if(|written| active.is_none_or(|build| build.id != written.track.build()));
        if let (Some(build), None) = (active, &self.active) {
            self.active = self.claim(build, cx).await?;
        }
        // A rebuild is made by whoever has what is read.
        let building = builds.building_of(wanted).filter(|_| !may_write || self.active.is_some());
        self.building
            .take_if(|written| building.is_none_or(|build| build.id != written.track.build()));
        if let (Some(build), None) = (building, &self.building) {
            self.building = self.claim(build, cx).await?;
        }
        if self.building.is_none() {
            self.unsound = None;
        }
        self.standby = match &self.active {
            Some(active) => {
                self.args.shown.is_done(active.track.at);
                None
            }
            None => Some(match builds.newer_than(wanted) {
                Some(newer) => {
                    format!("standby: a newer version has it ({})", described(newer, wanted))
                }
                None if may_write => "standby: another node has it".to_owned(),
                None => format!("{} is read", described(&builds.active, wanted)),
            }),
        };
        if self.active.is_none() {
            self.see_others().await?;
        }
        Ok(())
    }

    async fn claim(
        &self,
        build: &Build,
        cx: &Context<Self>,
    ) -> Result<Option<Written<P>>, ProjectionError> {
        let part = Part { build: build.id, partition: self.args.partition };
        let claimed =
            Track::claim(&self.lease, part, build.partitions, &self.args.owner, LEASE).await?;
        let Ok(track) = claimed else { return Ok(None) };
        let renewal = self.lease.shared.then(|| {
            let documents = Arc::clone(&self.lease.documents);
            let (fence, shared) = (track.writer.fence(), self.args.shared.clone());
            cx.spawn_guard(async move {
                loop {
                    tokio::time::sleep(LOOK_EVERY).await;
                    // A database that is away is found by whoever writes next.
                    let renewed = documents.claims().save(&fence, Save::renewal(LEASE)).await;
                    if let Err(ClaimError::Lost { .. }) = renewed {
                        shared.look();
                        break;
                    }
                }
            })
        });
        Ok(Some(Written { track, _renewal: renewal }))
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
    fn is_time_to_look(&self) -> bool {
        let every = match self.active.is_none() && self.args.shown.is_awaited() {
            true => LOOK_SOON,
            false => LOOK_EVERY,
        };
        self.look.has_changed().unwrap_or(false) || self.looked_at.elapsed() >= every
    }

    /// Looks what others have changed: builds, parked events, how far they are.
    async fn look(&mut self, cx: &Context<Self>) -> Result<(), ProjectionError> {
        self.look.mark_unchanged();
        self.looked_at = Instant::now();
        self.compared = false;
        let found = self.lease.documents.look(P::NAME).await?;
        if found != self.found {
            self.args.shared.cache.clear();
            return self.begin(cx).await;
        }
        if self.lacks_a_claim() && self.begun_at.elapsed() >= LOOK_EVERY {
            return self.begin(cx).await;
        }
        let tracks = [&mut self.active, &mut self.building];
        for Written { track, .. } in tracks.into_iter().flatten() {
            track.hear(&self.lease, LEASE).await?;
            if !track.parked.is_empty() {
                track.look_for_parked(&self.lease).await?;
            }
        }
        if self.active.is_none() {
            self.see_others().await?;
        }
        self.prune_some().await
    }

    /// Whether another node has what this one could write.
    fn lacks_a_claim(&self) -> bool {
        let is_ours = |build: &Option<Build>| {
            build.as_ref().is_some_and(|build| build.made_as() == wanted_by::<P>())
        };
        (self.active.is_none() && is_ours(&self.found.active))
            || (self.building.is_none() && is_ours(&self.found.building))
    }

    async fn go_on(&mut self, cx: &Context<Self>) -> Result<(), ProjectionError> {
        let worked = async {
            if self.is_time_to_look() {
                self.look(cx).await?;
            }
            self.work().await
        };
        match worked.await {
            Ok(None) => {}
            Ok(Some(pause)) => {
                self.show();
                self.waiting = Some(cx.tell_after(pause, ProjectionMessage::Continue));
                return Ok(());
            }
            // Somebody reset it, or another build took its place, or another node its claim.
            Err(ProjectionError::Fenced { part }) => {
                tracing::info!(projection = P::NAME, part, "the builds have changed");
                self.args.shared.cache.clear();
                self.active = None;
                self.building = None;
                self.begin(cx).await?;
            }
            Err(error) => return Err(error),
        }
        self.show();
        self.wait(cx);
        Ok(())
    }

    fn show(&self) {
        let building = self.building.as_ref().map(|building| &building.track);
        let active = self.active.as_ref().map(|active| &active.track);
        self.args.shown.show(How {
            standby: self.standby.clone(),
            building: building.map(|track| track.at),
            parked: active.or(building).map_or(0, |track| track.parked.documents()),
            trouble: self.trouble.clone().or_else(|| self.unsound.clone()),
            paused: self.is_paused(),
        });
    }

    fn is_paused(&self) -> bool {
        self.active.iter().chain(&self.building).any(|written| written.track.paused)
    }

    /// One page of one of the builds. A pause, if that is what is needed.
    async fn work(&mut self) -> Result<Option<Duration>, ProjectionError> {
        if self.is_paused() {
            self.prune_some().await?;
            return Ok(None);
        }
        let for_new = self.next_is_for_the_new_build();
        let track = if for_new { &mut self.building } else { &mut self.active };
        let Some(Written { track, .. }) = track else {
            self.prune_some().await?;
            return Ok(None);
        };
        let (projection, pages) = (&*self.args.projection, &self.args.shared.pages);
        let build = track.build();
        let lease = &self.lease;
        let step = match track.retry(projection, lease, LEASE).await? {
            Some(changes) => Step::Done(changes),
            None => track.step(projection, &self.filter, lease, pages, LEASE).await?,
        };
        self.not_before = track.small.then(|| Instant::now() + PACE);
        let at = track.at;
        let mut trouble = None;
        match step {
            Step::Done(changes) if !for_new => {
                self.args.shared.cache.written(build, &changes);
                self.args.shown.is_done(at);
            }
            Step::Done(_) | Step::Shorter => {}
            Step::Nothing => self.prune_some().await?,
            Step::Again { attempts } => return Ok(Some(FIRST_PAUSE * 2_u32.pow(attempts))),
            Step::StandsStill(why) => {
                let whose = if for_new { "the new build " } else { "" };
                trouble = Some(format!("{whose}{why}"));
            }
        }
        self.trouble = trouble;
        self.try_to_switch().await?;
        Ok(None)
    }

    /// The build that is behind goes first, the new one if both are as far; while the new one
    /// catches up they take turns.
    fn next_is_for_the_new_build(&mut self) -> bool {
        let (active, building) = (&self.active, &self.building);
        let (active, building) = match (active, building) {
            (_, None) => return false,
            (None, Some(_)) => return true,
            (Some(active), Some(building)) => (&active.track, &building.track),
        };
        // One that stands still leaves the turn to the other.
        let stands_still =
            |track: &Track<P>| track.parked.full().is_some() && track.parked.due().is_none();
        if stands_still(building) || stands_still(active) {
            return !stands_still(building);
        }
        if building.at < active.at {
            let head = *self.args.head.borrow();
            self.turn = !self.turn;
            return self.turn || active.at >= head;
        }
        building.at <= active.at
    }

    async fn try_to_switch(&mut self) -> Result<(), ProjectionError> {
        let Some(Written { track: building, .. }) = &mut self.building else { return Ok(()) };
        let as_far = match &self.active {
            Some(active) => building.at >= active.track.at,
            None => building.at >= self.args.shown.done(),
        };
        if !as_far || self.compared {
            return Ok(());
        }
        // The database compares the checkpoints.
        building.save(&self.lease, LEASE).await?;
        let build = building.build();
        match self.lease.documents.activate(P::NAME, build).await? {
            Activation::Active => {
                tracing::info!(projection = P::NAME, build, "switched");
                self.args.shown.is_done(building.at);
                self.active = self.building.take();
                self.found = Found { active: self.found.building.take(), building: None };
                self.standby = None;
                self.unsound = None;
                self.pruning = true;
                self.args.shared.builds_changed();
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
                let part = building.writer.part.to_string();
                return Err(ProjectionError::Fenced { part });
            }
        }
        Ok(())
    }

    /// Removes some of what is no longer read. The first partition does it, on every node: builds
    /// are retired by any node that is asked to.
    async fn prune_some(&mut self) -> Result<(), ProjectionError> {
        if self.pruning {
            let ours = self.args.partition == 0;
            self.pruning = ours && self.lease.documents.prune(P::NAME, PRUNE).await?;
        }
        Ok(())
    }

    /// Goes on at once while there is something to do, else when there may be.
    fn wait(&mut self, cx: &Context<Self>) {
        let mut head = self.args.head.clone();
        let mut look = self.look.clone();
        let tracks = || self.active.iter().chain(&self.building).map(|written| &written.track);
        let stands_still = |track: &Track<P>| track.parked.full().is_some();
        let stands_still_somewhere = tracks().any(stands_still);
        let paused = self.is_paused();
        let due = !paused && tracks().any(|track| track.parked.due().is_some());
        let at = tracks().filter(|track| !stands_still(track)).map(|track| track.at).min();
        let at = at.filter(|_| !paused).unwrap_or_else(|| Position::new(u64::MAX));
        // A build that is as far takes the place of the other also when no event comes any more.
        let may_switch =
            self.building.is_some() && self.trouble.is_none() && !self.compared && !paused;
        let soon = self.pruning || due || may_switch;
        let awaited = self.active.is_none() && self.args.shown.is_awaited();
        let again = if soon {
            Some(FIRST_PAUSE)
        } else if awaited {
            Some(LOOK_SOON)
        } else {
            // Where nobody else writes, nothing changes that is not told.
            let others = self.lease.shared || self.active.is_none() || self.building.is_some();
            (others || stands_still_somewhere).then_some(LOOK_EVERY)
        };
        let not_before = self.not_before;
        self.waiting = Some(cx.spawn_tell(async move {
            let again = async {
                match again {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // The senders live as long as the node; without them there is nothing to wait for.
                _ = head.wait_for(|head| *head > at) => {}
                _ = look.changed() => {}
                () = again => {}
            }
            if let Some(at) = not_before {
                sleep_until(at).await;
            }
            ProjectionMessage::Continue
        }));
    }
}

/// A build, by what it has other than this program.
fn described(build: &Build, ours: Wanted) -> String {
    match build.version == ours.version {
        true => format!("version {} in {} partitions", build.version, build.partitions),
        false => format!("version {}", build.version),
    }
}

impl<P: Projection> SupervisedComponent for ProjectionActor<P> {
    type Handover = ();

    fn supervision_metadata(_: &ProjectionArgs<P>) -> SupervisionMetadata {
        SupervisionMetadata::of(component::PROJECTION)
    }
}

impl<P: Projection> fmt::Debug for ProjectionActor<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectionActor")
            .field("projection", &P::NAME)
            .field("partition", &self.args.partition)
            .field("at", &self.active.as_ref().map(|active| active.track.at))
            .finish_non_exhaustive()
    }
}

impl<P: Projection> fmt::Debug for ProjectionArgs<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectionArgs")
            .field("projection", &P::NAME)
            .field("partition", &self.partition)
            .finish_non_exhaustive()
    }
}

fn projection_failure(error: ProjectionError) -> Failure {
    match error {
        ProjectionError::Store(error) => store_failure(error),
        // Somebody else has it now: a new life looks again.
        other @ ProjectionError::Fenced { .. } => Failure::wrap(ErrorClass::Transient, other),
        other => Failure::wrap(other.class(), other),
    }
}
