//! The actor of one partition of a projection: follows the log and keeps its documents.
//!
//! It lives under `projections`. A start claims its partition of the active build (which fences
//! whoever had it before) and goes on after its checkpoint. Each page is a message to itself, so a
//! kill, a stop or a health check waits for one page at most.
//!
//! While another build is made, the actor writes both: whatever is new goes to the new build
//! first, so that once the new one has caught up it is never behind, and can take the place of the
//! old one at any moment.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mister_smith_supervisors::{
    Actor, Context, ErrorClass, Failure, ReplyPort, StartError, SupervisedComponent,
    SupervisionMetadata, TaskGuard,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::cache::DocumentCache;
use super::pages::Pages;
use super::track::{MAX_PARKED, PAGE, Step, Track};
use super::{Projection, ProjectionError, partition_of};
use crate::component;
use crate::event::Position;
use crate::pool::{Lease, lease_at_start, store_failure};
use crate::store::read_model::documents::Part;

/// How long a claim is good without a sign of life, where several nodes share a store.
pub const LEASE: Duration = Duration::from_secs(5);

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
    /// Apply the parked events of a document again; the text says why one cannot be.
    Retry(String, ReplyPort<Result<usize, String>>),
}

/// What the partitions of a projection share with each other and with those who ask.
#[derive(Debug, Clone, Default)]
pub struct Shared {
    pub(super) cache: DocumentCache,
    pub(super) pages: Pages,
    /// Changes when the builds do.
    pub(super) builds: Arc<watch::Sender<u64>>,
}

impl Shared {
    pub(super) fn builds_changed(&self) {
        self.cache.clear();
        self.builds.send_modify(|count| *count += 1);
    }
}

/// What a fresh start needs.
pub struct ProjectionArgs<P: Projection> {
    pub(super) projection: Arc<P>,
    pub(super) partition: u16,
    pub(super) pool: Arc<str>,
    pub(super) owner: Arc<str>,
    pub(super) head: watch::Receiver<Position>,
    /// How far the active build is.
    pub(super) done: Arc<watch::Sender<Position>>,
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
            done: Arc::clone(&self.done),
            shared: self.shared.clone(),
        }
    }
}

/// The actor.
pub struct ProjectionActor<P: Projection> {
    args: ProjectionArgs<P>,
    lease: Lease,
    /// `None` while another node has it.
    active: Option<Track<P>>,
    building: Option<Track<P>>,
    /// Whose turn it is while the new build is behind.
    turn: bool,
    builds: watch::Receiver<u64>,
    pruning: bool,
    shown: Arc<Shown>,
    /// When the page that comes next may be asked for.
    not_before: Option<Instant>,
    /// Waits for the log to grow.
    waiting: Option<TaskGuard>,
}

/// What the tree shows.
#[derive(Debug, Default)]
struct Shown {
    standby: AtomicU64,
    building: AtomicU64,
    parked: AtomicU64,
}

impl<P: Projection> Actor for ProjectionActor<P> {
    type Message = ProjectionMessage;
    type Args = ProjectionArgs<P>;

    async fn start(args: &ProjectionArgs<P>, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let lease = lease_at_start(cx, &args.pool).await?;
        let shown = Arc::<Shown>::default();
        let (head, done, also) = (args.head.clone(), Arc::clone(&args.done), Arc::clone(&shown));
        cx.describe(move || {
            let (head, done) = (head.borrow().get(), done.borrow().get());
            if also.standby.load(Ordering::Relaxed) > 0 {
                return "standby: another node has it".to_owned();
            }
            let mut text = format!("position {done}   lag {}", head.saturating_sub(done));
            match also.building.load(Ordering::Relaxed) {
                0 => {}
                at => text.push_str(&format!("   rebuilding at {}", at - 1)),
            }
            match also.parked.load(Ordering::Relaxed) {
                0 => {}
                parked => text.push_str(&format!("   {parked} parked")),
            }
            text
        });
        let mut projection = Self {
            builds: args.shared.builds.subscribe(),
            args: args.clone(),
            lease,
            active: None,
            building: None,
            turn: false,
            pruning: false,
            shown,
            not_before: None,
            waiting: None,
        };
        projection.begin().await?;
        // What a life before this one has not removed; mostly nothing.
        projection.prune().await.map_err(projection_failure)?;
        projection.wait(cx);
        Ok(projection)
    }

    async fn handle(
        &mut self,
        message: ProjectionMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        match message {
            ProjectionMessage::Continue => self.go_on(cx).await,
            ProjectionMessage::Retry(id, reply) => {
                if let Some(active) = &mut self.active {
                    let (projection, lease) = (&self.args.projection, &self.lease);
                    let retried = active.retry(projection, lease, &id, LEASE).await;
                    self.args.shared.cache.clear();
                    reply.send(retried.map_err(projection_failure)?);
                    self.show();
                } else {
                    reply.send(Err("another node has this projection; ask there".to_owned()));
                }
                Ok(())
            }
        }
    }

    fn message_name(message: &ProjectionMessage) -> &'static str {
        match message {
            ProjectionMessage::Continue => "Continue",
            ProjectionMessage::Retry(..) => "Retry",
        }
    }
}

impl<P: Projection> ProjectionActor<P> {
    /// Claims this partition of the builds that there are.
    async fn begin(&mut self) -> Result<(), Failure> {
        self.builds.mark_unchanged();
        let documents = &self.lease.documents;
        let builds = documents.builds(P::NAME, P::VERSION, P::PARTITIONS.max(1)).await;
        let builds = builds.map_err(projection_failure)?;
        self.active = None;
        self.building = None;
        let old_code =
            builds.active.version != P::VERSION || builds.active.partitions != P::PARTITIONS.max(1);
        if old_code {
            // Documents of another version stay as they are until the new ones are as far; this
            // program does not know how to go on with them.
            let progress = documents.progress(P::NAME).await.map_err(projection_failure)?;
            let old = progress.iter().filter(|part| part.active).map(|part| part.position);
            self.args.done.send_replace(old.min().unwrap_or_default());
        } else {
            self.active = self.claim(builds.active.id, builds.active.partitions).await?;
            if let Some(active) = &self.active {
                self.args.done.send_replace(active.at);
            }
        }
        if let Some(building) = builds.building
            && (old_code || self.active.is_some())
        {
            self.building = self.claim(building.id, building.partitions).await?;
        }
        let standby = self.active.is_none() && self.building.is_none();
        self.shown.standby.store(u64::from(standby), Ordering::Relaxed);
        self.show();
        Ok(())
    }

    async fn claim(&self, build: i64, partitions: u16) -> Result<Option<Track<P>>, Failure> {
        let part = Part { build, partition: self.args.partition };
        let claimed = Track::claim(&self.lease, part, partitions, &self.args.owner, LEASE).await;
        Ok(claimed.map_err(projection_failure)?.ok())
    }

    fn show(&self) {
        let at = self.building.as_ref().map_or(0, |building| building.at.get() + 1);
        self.shown.building.store(at, Ordering::Relaxed);
        let parked = self.active.as_ref().map_or(0, Track::parked);
        self.shown.parked.store(parked as u64, Ordering::Relaxed);
    }

    async fn go_on(&mut self, cx: &Context<Self>) -> Result<(), Failure> {
        if self.builds.has_changed().unwrap_or(false)
            || (self.active.is_none() && self.building.is_none())
        {
            self.begin().await?;
        }
        match self.work().await {
            Ok(None) => {}
            Ok(Some(pause)) => {
                self.waiting = Some(cx.tell_after(pause, ProjectionMessage::Continue));
                return Ok(());
            }
            // Somebody reset it, or another build took its place.
            Err(ProjectionError::Fenced { part }) => {
                tracing::info!(projection = P::NAME, part, "the builds have changed");
                self.begin().await?;
            }
            Err(error) => return Err(projection_failure(error)),
        }
        self.show();
        self.wait(cx);
        Ok(())
    }

    /// One page of one of the builds. A pause, if that is what is needed.
    async fn work(&mut self) -> Result<Option<Duration>, ProjectionError> {
        let for_new = self.next_is_for_the_new_build();
        let track = if for_new { &mut self.building } else { &mut self.active };
        let Some(track) = track else { return Ok(None) };
        let (projection, pages) = (&*self.args.projection, &self.args.shared.pages);
        let before = track.at;
        let step = track.step(projection, &self.lease, pages, LEASE).await?;
        let passed = track.at.get() - before.get();
        let small = passed > 0 && passed < PAGE as u64;
        self.not_before = small.then(|| Instant::now() + PACE);
        match step {
            Step::Done(changes) if !for_new => {
                self.args.shared.cache.written(&changes);
                self.args.done.send_replace(track.at);
            }
            Step::Done(_) | Step::Shorter => {}
            Step::Nothing => self.idle().await?,
            Step::Again { attempts } => return Ok(Some(FIRST_PAUSE * 2_u32.pow(attempts))),
        }
        if self.active.as_ref().is_some_and(|active| active.parked() > MAX_PARKED) {
            return Err(ProjectionError::Document {
                projection: P::NAME.to_owned(),
                id: format!("more than {MAX_PARKED}"),
                reason: "their events cannot be applied".to_owned(),
            });
        }
        self.try_to_switch().await?;
        Ok(None)
    }

    /// The build that is behind goes first, the new one if both are as far; while the new one
    /// catches up they take turns.
    fn next_is_for_the_new_build(&mut self) -> bool {
        match (&self.active, &self.building) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(active), Some(building)) if building.at < active.at => {
                let head = *self.args.head.borrow();
                self.turn = !self.turn;
                self.turn || active.at >= head
            }
            (Some(active), Some(building)) => building.at <= active.at,
        }
    }

    async fn try_to_switch(&mut self) -> Result<(), ProjectionError> {
        let Some(building) = &mut self.building else { return Ok(()) };
        let as_far = match &self.active {
            Some(active) => building.at >= active.at,
            None => building.at >= *self.args.done.borrow(),
        };
        if !as_far {
            return Ok(());
        }
        // The database compares the checkpoints.
        building.save(&self.lease, LEASE).await?;
        if self.lease.documents.activate(P::NAME, building.part.build).await? {
            tracing::info!(projection = P::NAME, build = building.part.build, "switched");
            self.args.done.send_replace(building.at);
            self.active = self.building.take();
            self.pruning = true;
            self.args.shared.builds_changed();
            self.builds.mark_unchanged();
        }
        Ok(())
    }

    /// While there is nothing to apply: removes what is no longer read, and keeps the claim alive.
    async fn idle(&mut self) -> Result<(), ProjectionError> {
        if self.pruning {
            self.prune().await?;
        }
        if self.lease.shared {
            for track in self.active.iter().chain(&self.building) {
                self.lease.documents.commit(track.commit(track.at, LEASE)).await?;
            }
        }
        Ok(())
    }

    async fn prune(&mut self) -> Result<(), ProjectionError> {
        let ours = self.args.partition == 0;
        self.pruning = ours && self.lease.documents.prune(P::NAME, PRUNE).await?;
        Ok(())
    }

    /// Goes on at once while there is something to do, else when there may be.
    fn wait(&mut self, cx: &Context<Self>) {
        let mut head = self.args.head.clone();
        let mut builds = self.builds.clone();
        let tracks = || self.active.iter().chain(&self.building);
        let at = tracks().map(|track| track.at).min();
        let standby = at.is_none();
        let at = at.unwrap_or_else(|| Position::new(u64::MAX));
        // A build that is as far takes the place of the other also when no event comes any more.
        let soon = self.pruning || self.building.is_some();
        let again = self.lease.shared || standby || soon;
        let pause = if self.lease.shared && !soon { LEASE / 3 } else { FIRST_PAUSE };
        let not_before = self.not_before;
        self.waiting = Some(cx.spawn_tell(async move {
            let again = async {
                match again {
                    true => tokio::time::sleep(pause).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // The senders live as long as the node; without them there is nothing to wait for.
                _ = head.wait_for(|head| *head > at) => {}
                _ = builds.changed() => {}
                () = again => {}
            }
            if let Some(at) = not_before {
                sleep_until(at).await;
            }
            ProjectionMessage::Continue
        }));
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
            .field("at", &self.active.as_ref().map(|active| active.at))
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

/// The partition that has a document.
pub(super) fn partition_with<P: Projection>(id: &str) -> u16 {
    partition_of(id, P::PARTITIONS)
}

fn projection_failure(error: ProjectionError) -> Failure {
    match error {
        ProjectionError::Store(error) => store_failure(error),
        // Somebody else has it now: a new life looks again.
        other @ ProjectionError::Fenced { .. } => Failure::wrap(ErrorClass::Transient, other),
        other => Failure::wrap(other.class(), other),
    }
}
