//! The actor of one partition of a projection: follows the log and keeps its documents.
//!
//! It lives under `projections`, and follows the log with one [`Follower`] for each build that
//! this program may write. Each page is a message to itself, so a kill, a stop or a health check
//! waits for one page at most.
//!
//! | the [`Follower`] has | the actor has |
//! |---|---|
//! | the claim: taken, stood by for, renewed, given back | which builds there are, and are its to write |
//! | pages: read, filtered, shared, waited for; events that end processes | how many events at a time, and when: the pace, the turns, the next page while one is applied |
//! | requests: pause, resume | documents that stand still, and their events that are tried again |
//! | | the checkpoint: it changes in one transaction with the documents, so that each event has its effect once, and that transaction shows the follower's fence |
//! | | what is read: the position is that of the documents in use, whoever writes them |
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
//!
//! [`Follower`]: crate::store::follow::Follower

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mister_smith_supervisors::{
    Actor, Context, ErrorClass, ExitReason, Failure, StartError, SupervisedComponent,
    SupervisionMetadata, TaskGuard,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::cache::DocumentCache;
use super::shown::{How, Shown};
use super::track::{FULL, SAVE_EVERY, Step, Track};
use super::written::{Asked, Written};
use super::{Projection, ProjectionError, wanted_by};
use crate::component;
use crate::event::Position;
use crate::guarded::guarded;
use crate::pool::{Lease, lease_at_start, store_failure};
use crate::store::EventFilter;
use crate::store::claims::ClaimError;
pub use crate::store::follow::LEASE;
use crate::store::follow::{self, Cursor, Page, Pages};
use crate::store::read_model::documents::Changed;
use crate::store::read_model::documents::builds::Found;

mod builds;

use self::builds::described;

/// How often a node looks for what others have changed: builds that were begun or reset, parked
/// events to be retried, how far the documents are.
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

/// What the projection can be told.
#[derive(Debug)]
pub enum ProjectionMessage {
    /// There may be more to do.
    Continue,
    /// What comes next in the log for one of the builds. Sent by the actor to itself.
    Next(u64, Box<Result<follow::Step, ClaimError>>),
    /// A claim is gone. Sent by the actor to itself.
    Lost(u64, ClaimError),
}

/// What the partitions of a projection share with each other and with those who ask.
#[derive(Debug, Clone, Default)]
pub struct Shared {
    pub(super) cache: DocumentCache,
    pub(super) pages: Pages,
    /// Changes when the database is to be looked at: builds, parked events, who waits.
    pub(super) look: Arc<watch::Sender<u64>>,
    numbers: Arc<AtomicU64>,
}

impl Shared {
    /// Lets all partitions look what has changed.
    pub(super) fn look(&self) {
        self.look.send_modify(|count| *count += 1);
    }

    /// A number that no other life of a partition has used: what one of them has left in a mailbox
    /// is none of the next one's.
    pub(super) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
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
    /// What is read; `None` if it is of another version.
    active: Option<Written<P>>,
    building: Option<Written<P>>,
    /// The builds that there were at the last look.
    found: Found,
    look: watch::Receiver<u64>,
    looked_at: Instant,
    /// Whose page is next.
    turn: Option<Which>,
    /// There may be documents that nobody reads.
    pruning: bool,
    /// Why the new build does not take the place of the old one, although it is as far.
    unsound: Option<String>,
    /// It is not compared again before the next look.
    compared: bool,
    /// Waits for what is not in the log.
    waiting: Option<(Option<Duration>, TaskGuard)>,
}

/// One of the builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    /// The one that is read.
    Active,
    /// The one that is made.
    Building,
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
            turn: None,
            pruning: true,
            unsound: None,
            compared: false,
            waiting: None,
        };
        projection.begin(cx).await.map_err(projection_failure)?;
        projection.show();
        projection.go_on(cx);
        Ok(projection)
    }

    async fn handle(
        &mut self,
        message: ProjectionMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        match self.work(message, cx).await {
            Ok(()) => {}
            // Somebody reset it, or another build took its place, or another node its claim.
            Err(ProjectionError::Fenced { part }) => {
                tracing::info!(projection = P::NAME, part, "the builds have changed");
                self.args.shared.cache.clear();
                (self.active, self.building) = (None, None);
                self.begin(cx).await.map_err(projection_failure)?;
            }
            Err(error) => return Err(projection_failure(error)),
        }
        self.show();
        self.go_on(cx);
        Ok(())
    }

    async fn stop(&mut self, _: &ExitReason, _: &mut Context<Self>) {
        for written in [self.active.take(), self.building.take()].into_iter().flatten() {
            written.release(&self.lease).await;
        }
    }

    fn message_name(message: &ProjectionMessage) -> &'static str {
        match message {
            ProjectionMessage::Continue => "Continue",
            ProjectionMessage::Next(..) => "Next",
            ProjectionMessage::Lost(..) => "Lost",
        }
    }
}

impl<P: Projection> ProjectionActor<P> {
    const fn written(&mut self, which: Which) -> &mut Option<Written<P>> {
        match which {
            Which::Active => &mut self.active,
            Which::Building => &mut self.building,
        }
    }

    fn track(&self, which: Which) -> Option<&Track<P>> {
        let written = match which {
            Which::Active => &self.active,
            Which::Building => &self.building,
        };
        written.as_ref().and_then(|written| written.track.as_ref())
    }

    /// What this node writes.
    fn tracks(&self) -> impl Iterator<Item = &Track<P>> {
        [Which::Active, Which::Building].into_iter().filter_map(|which| self.track(which))
    }

    async fn work(
        &mut self,
        message: ProjectionMessage,
        cx: &Context<Self>,
    ) -> Result<(), ProjectionError> {
        if self.is_time_to_look() {
            self.look(cx).await?;
        }
        match message {
            ProjectionMessage::Continue => self.waiting = None,
            ProjectionMessage::Next(number, step) => self.take(number, *step, cx).await?,
            ProjectionMessage::Lost(number, error) => {
                let mut all = self.active.iter().chain(&self.building);
                if all.any(|written| written.number == number) {
                    return Err(error.into());
                }
            }
        }
        self.tend(cx).await
    }

    /// Takes what a follower answers.
    async fn take(
        &mut self,
        number: u64,
        step: Result<follow::Step, ClaimError>,
        cx: &Context<Self>,
    ) -> Result<(), ProjectionError> {
        let is_answer = |written: &Option<Written<P>>| {
            let asked = written.as_ref().and_then(|written| written.asked.as_ref());
            asked.is_some_and(|asked| asked.number == number)
        };
        let which = match (is_answer(&self.active), is_answer(&self.building)) {
            (true, _) => Which::Active,
            (_, true) => Which::Building,
            // Nobody waits for it any more.
            _ => return Ok(()),
        };
        let Some(written) = self.written(which) else { return Ok(()) };
        let Some(Asked { limit, .. }) = written.asked.take() else { return Ok(()) };
        let step = step?;
        let next = step.cursor();
        match step {
            follow::Step::Begin(_) => self.claimed(which, next, cx).await,
            follow::Step::Paused(..) => {
                written.cursor = next;
                Ok(())
            }
            // It was paused meanwhile: this comes again.
            _ if self.is_paused() => Ok(()),
            follow::Step::Page(page, _) => self.page(which, &page, next, limit, cx).await,
            follow::Step::Poison(event, deaths, _) => {
                let projection = Arc::clone(&self.args.projection);
                let (lease, Some(written)) = (self.lease.clone(), self.written(which)) else {
                    return Ok(());
                };
                let Some(track) = &mut written.track else { return Ok(()) };
                let step = track.poison(&projection, &event, deaths, &lease, LEASE).await?;
                self.applied(which, step, next);
                Ok(())
            }
        }
    }

    /// Applies a page.
    async fn page(
        &mut self,
        which: Which,
        page: &Page,
        next: Cursor,
        limit: usize,
        cx: &Context<Self>,
    ) -> Result<(), ProjectionError> {
        let (projection, lease) = (Arc::clone(&self.args.projection), self.lease.clone());
        let number = self.args.shared.next_number();
        let alone = self.active.is_none() || self.building.is_none();
        let Some(written) = self.written(which).as_mut().filter(|one| one.may_go_on()) else {
            return Ok(());
        };
        if alone && page.len() >= limit {
            written.read_ahead(next, limit, number, cx);
        }
        let careful = written.follower.is_careful();
        let Some(track) = &mut written.track else { return Ok(()) };
        let step = track.step(&projection, page, next.position(), &lease, LEASE).await?;
        let small = !page.is_empty() && page.len() < limit.min(FULL) && !careful;
        let paced = small && track.at == next.position();
        written.not_before = paced.then(|| Instant::now() + PACE);
        self.applied(which, step, next);
        Ok(())
    }

    /// Something was applied to a build, or is to be tried again.
    fn applied(&mut self, which: Which, step: Step, next: Cursor) {
        let Some(written) = self.written(which) else { return };
        written.settle(next);
        let (build, at) = (written.build.id, written.cursor.position());
        match step {
            Step::Done(changes) if which == Which::Active => self.changed(build, &changes, at),
            Step::Done(_) | Step::Shorter => {}
            Step::Again { attempts } => {
                written.not_before = Some(Instant::now() + FIRST_PAUSE * 2_u32.pow(attempts));
            }
        }
        self.turn = self.next_turn(which);
    }

    /// Readers see what was committed.
    fn changed(&self, build: i64, changes: &[Changed], at: Position) {
        self.args.shared.cache.written(build, changes);
        self.args.shown.is_done(at);
    }

    /// What is to be done besides the log.
    async fn tend(&mut self, cx: &Context<Self>) -> Result<(), ProjectionError> {
        let (projection, lease) = (Arc::clone(&self.args.projection), self.lease.clone());
        let paused = self.is_paused();
        for which in [Which::Active, Which::Building] {
            let Some(written) = self.written(which) else { continue };
            let build = written.build.id;
            let Some(track) = &mut written.track else { continue };
            let retried = match paused {
                true => None,
                false => track.retry(&projection, &lease, LEASE).await?,
            };
            track.save_now_and_then(&lease, LEASE).await?;
            let at = track.at;
            if let (Some(changes), Which::Active) = (retried, which) {
                self.changed(build, &changes, at);
            }
        }
        if !paused {
            self.try_to_switch(cx).await?;
        }
        let head = *self.args.head.borrow();
        match self.tracks().all(|track| track.at >= head) || paused {
            true => self.prune_some().await,
            false => Ok(()),
        }
    }

    fn show(&self) {
        let (active, building) = (self.track(Which::Active), self.track(Which::Building));
        let standby = match (&self.active, &self.found.active) {
            (None, Some(active)) if active.made_as() > wanted_by::<P>() => {
                let newer = described(active, wanted_by::<P>());
                Some(format!("standby: a newer version has it ({newer})"))
            }
            (None, Some(active)) => {
                Some(format!("{} is read", described(active, wanted_by::<P>())))
            }
            _ => None,
        };
        let whose = |track, whose: &str| {
            let why = |track: &Track<P>| track.parked.full();
            Option::and_then(track, why).map(|why| format!("{whose}{why}"))
        };
        self.args.shown.show(How {
            standby,
            followers: [&self.active, &self.building].map(|one| one.as_ref().map(Written::shown)),
            building: building.map(|track| track.at),
            parked: active.or(building).map_or(0, |track| track.parked.documents()),
            trouble: whose(active, "")
                .or_else(|| whose(building, "the new build "))
                .or_else(|| self.unsound.clone()),
            paused: self.is_paused(),
        });
    }

    /// Whether one of the builds is to stand still: both do then.
    fn is_paused(&self) -> bool {
        self.active.iter().chain(&self.building).any(|written| written.follower.is_paused())
    }

    /// Whose page comes after one of a build. The build that is behind goes first, the new one if
    /// both are as far; while the new one catches up they take turns.
    fn next_turn(&self, before: Which) -> Option<Which> {
        let can = |written: &Option<Written<P>>| written.as_ref().is_some_and(has_turns);
        match (can(&self.active), can(&self.building)) {
            (false, false) => return None,
            // One that stands still leaves the turn to the other.
            (true, false) => return Some(Which::Active),
            (false, true) => return Some(Which::Building),
            (true, true) => {}
        }
        let at = |which| self.track(which).map(|track| track.at).unwrap_or_default();
        let (active, building) = (at(Which::Active), at(Which::Building));
        let behind = building < active && active < *self.args.head.borrow();
        match building > active || (behind && before == Which::Building) {
            true => Some(Which::Active),
            false => Some(Which::Building),
        }
    }

    /// Asks for what comes next.
    fn go_on(&mut self, cx: &Context<Self>) {
        let paused = self.is_paused();
        let goes_on = |written: &Option<Written<P>>| written.as_ref().is_some_and(has_turns);
        let turn = match self.turn {
            Some(Which::Active) if goes_on(&self.active) => self.turn,
            Some(Which::Building) if goes_on(&self.building) => self.turn,
            _ => self.next_turn(Which::Active),
        };
        self.turn = turn;
        for which in [Which::Active, Which::Building] {
            let number = self.args.shared.next_number();
            let Some(written) = self.written(which) else { continue };
            let asks = !paused && (turn == Some(which) || written.is_stuck());
            let limit = match &written.track {
                Some(track) if asks && written.may_go_on() => track.limit,
                _ => 0,
            };
            written.ask(written.cursor, limit, number, cx);
        }
        self.wait(cx);
    }

    /// Goes on when there may be something that is not in the log.
    fn wait(&mut self, cx: &Context<Self>) {
        let paused = self.is_paused();
        let stands_still = self.tracks().any(|track| track.parked.full().is_some());
        let due = !paused && self.tracks().any(|track| track.parked.due().is_some());
        // A build that is as far takes the place of the other also when no event comes any more.
        let may_switch =
            self.track(Which::Building).is_some() && !(stands_still || self.compared || paused);
        let awaited = self.track(Which::Active).is_none() && self.args.shown.is_awaited();
        // Where nobody else writes, nothing changes that is not told.
        let others = self.lease.shared
            || self.track(Which::Active).is_none()
            || self.building.is_some()
            || stands_still;
        let again = if due {
            Some(Duration::ZERO)
        } else if self.pruning || may_switch {
            Some(FIRST_PAUSE)
        } else if awaited {
            Some(LOOK_SOON)
        } else if self.tracks().any(Track::is_ahead) {
            Some(SAVE_EVERY)
        } else {
            others.then_some(LOOK_EVERY)
        };
        if self.waiting.as_ref().is_some_and(|(before, _)| *before == again) {
            return;
        }
        let mut look = self.look.clone();
        let task = cx.spawn_tell(async move {
            let again = async {
                match again {
                    Some(pause) => sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // The sender lives as long as the node.
                _ = look.changed() => {}
                () = again => {}
            }
            ProjectionMessage::Continue
        });
        self.waiting = Some((again, task));
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
            .field("at", &self.track(Which::Active).map(|track| track.at))
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

/// Whether it is a build's turn now and then.
fn has_turns<P: Projection>(written: &Written<P>) -> bool {
    written.may_go_on() && !written.is_stuck()
}

fn projection_failure(error: ProjectionError) -> Failure {
    match error {
        ProjectionError::Store(error) => store_failure(error),
        // Somebody else has it now: a new life looks again.
        other @ ProjectionError::Fenced { .. } => Failure::wrap(ErrorClass::Transient, other),
        other => Failure::wrap(other.class(), other),
    }
}
