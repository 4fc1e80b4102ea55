//! The manager: sees to it that every saga that is open goes on.
//!
//! It follows the log for sagas that begin, are resumed or aborted, and wakes those whose time has
//! come. When it starts it finds the open ones in their read model, page by page, and begins many
//! at once. Who runs, who waits for a turn and who sleeps until when is on the
//! [board](super::board), which the sagas' actors share. It never waits for one of them: where
//! there is no room for more actors, sagas wait for their turn, and everything else goes on.
//!
//! Where that read model is being made again (a new version of it, or SQLite's migration 8, which
//! leaves it to be made in another file), it goes by the log from the beginning, and wakes every
//! saga that ever began. That costs the reading of each one's stream, once: whether something is to
//! be done, a saga decides on its own events alone.
//!
//! Where several nodes share a store, one of them has the sagas: the manager follows the log under a
//! claim, which is renewed beside it, and the others stand by. A claim that is lost ends its life,
//! and the sagas end with it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use mister_smith_supervisors::{
    Actor, ChildSpec, Context, ErrorClass, ExitReason, Failure, RestartPolicy, StartError,
    SupervisedComponent, SupervisionMetadata, SupervisorError, SupervisorRef, TaskGuard,
};
use tokio::sync::watch;

use super::actor::{AGAIN, ASIDE, NAP, SagaActor, SagaArgs, SagaMessage, later};
use super::board::{Begun, Board};
use super::summary::{OpenSagas, SagaSummary};
use super::{Definitions, SagaStatus};
use crate::component;
use crate::event::{Position, RecordedEvent, StreamId, Timestamp};
use crate::pool::{Lease, lease_at_start, store_failure};
use crate::projection::{Compare, ListQuery, Projection, ProjectionError};
use crate::store::EventFilter;
use crate::store::claims::ClaimError;
use crate::store::follow::{self, Cursor, Follow, Follower, Shown, Step};
use crate::store::read_model::documents::{Document, Documents};

/// Under which name the claim is kept.
const CLAIM: &str = "sagas";

/// Sagas of one page when it starts, and events of one page later.
const PAGE: usize = 500;

/// Sagas that are begun together.
const BATCH: usize = 64;

/// How many batches are being begun, at most.
const BATCHES: usize = 4;

/// When it is tried again to begin sagas that there was no room for.
const NO_ROOM: Duration = Duration::from_millis(20);

/// When an actor is looked for again that is about to end.
const ENDING: Duration = Duration::from_millis(1);

/// What makes a saga go on.
const TYPES: [&str; 3] = ["saga.started", "saga.resumed", "saga.abort_requested"];

/// What the manager can be told. It tells all of it to itself.
#[derive(Debug)]
pub enum ManagerMessage {
    /// What comes next in the log.
    Next(Box<Result<Step, ClaimError>>),
    /// Sagas that are open.
    Open(Box<Listed>),
    /// Sagas have been begun, or could not be, by the life of this number.
    Begun(u64, Room),
    /// There may be room for more.
    Again,
    /// Some may have to be woken.
    Due,
    /// The next one is to be woken sooner.
    Sooner,
    /// Another node has taken over, or the store is gone.
    Lost(ClaimError),
}

/// A page of the list of open sagas.
#[derive(Debug)]
pub struct Listed {
    /// Which reading of it.
    number: u64,
    /// How far the list was when that began.
    from: Position,
    page: Result<Vec<(StreamId, Option<Timestamp>)>, ProjectionError>,
    /// What comes after it.
    after: Option<Arc<str>>,
}

/// Whether there is room for more actors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// As far as is known.
    Yes,
    /// Not now.
    No,
}

/// What a fresh start needs.
#[derive(Clone, Debug)]
pub struct ManagerArgs {
    /// Path of the pool.
    pub pool: Arc<str>,
    /// Path of the committer.
    pub committer: Arc<str>,
    /// Path of the dynamic supervisor under which the sagas' actors live.
    pub running: Arc<str>,
    /// Who this node is to the others on its store.
    pub owner: Arc<str>,
    /// The end of the log.
    pub head: watch::Receiver<Position>,
    /// Whether it stands by, for those who look.
    pub shown: Arc<Shown>,
    /// What sagas do.
    pub definitions: Definitions,
}

/// The actor.
pub struct SagaManager {
    args: ManagerArgs,
    lease: Lease,
    board: Board,
    follower: Follower,
    cursor: Cursor,
    paused: bool,
    /// Those that were open at the beginning have been found.
    begun: bool,
    /// Batches that are being begun.
    beginning: usize,
    /// Counts how often the open ones were looked for.
    listings: u64,
    listing: Option<TaskGuard>,
    following: Option<TaskGuard>,
    no_room: Option<TaskGuard>,
    alarm: Option<(Timestamp, TaskGuard)>,
    _sooner: TaskGuard,
    _keeping: TaskGuard,
}

impl Actor for SagaManager {
    type Message = ManagerMessage;
    type Args = ManagerArgs;

    async fn start(args: &ManagerArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let lease = lease_at_start(cx, &args.pool).await?;
        let (shown, board) = (Arc::clone(&args.shown), Board::default());
        let (standing, counted) = (Arc::clone(&shown), board.clone());
        cx.describe(move || {
            let standing = standing.standing();
            if standing.standby {
                return "standby: another node has the sagas".to_owned();
            }
            let paused = if standing.paused { "paused   " } else { "" };
            let counts = counted.counts();
            match counts.ready {
                0 => format!("{paused}{} asleep", counts.asleep),
                ready => format!("{paused}{} asleep   {ready} wait for a turn", counts.asleep),
            }
        });
        let filter = EventFilter::ALL.categories([super::CATEGORY]).types(TYPES);
        let follow = Follow::new(CLAIM, Arc::clone(&args.owner)).filter(filter);
        let follower = Follower::new(follow, &lease, args.head.clone(), cx.clock(), shown);
        let kept = follower.clone();
        let mut manager = Self {
            args: args.clone(),
            lease,
            _sooner: sooner(&board, cx),
            board,
            // The supervisor of the sagas starts after this.
            _keeping: cx.spawn_tell(async move { ManagerMessage::Lost(kept.keep().await) }),
            follower,
            cursor: Cursor::default(),
            paused: false,
            begun: false,
            beginning: 0,
            listings: 0,
            listing: None,
            following: None,
            no_room: None,
            alarm: None,
        };
        manager.go_on(cx);
        Ok(manager)
    }

    async fn handle(
        &mut self,
        message: ManagerMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        match message {
            ManagerMessage::Next(step) => {
                self.take((*step).map_err(follow::failure)?, cx)?;
                self.go_on(cx);
            }
            ManagerMessage::Open(listed) => self.found(*listed, cx)?,
            // A life before this one began them; its count is gone with it.
            ManagerMessage::Begun(life, _) if life != cx.life() => {}
            ManagerMessage::Begun(_, room) => {
                self.beginning = self.beginning.saturating_sub(1);
                if room == Room::No {
                    self.no_room = Some(cx.tell_after(NO_ROOM, ManagerMessage::Again));
                }
            }
            ManagerMessage::Again => self.no_room = None,
            ManagerMessage::Due => self.alarm = None,
            ManagerMessage::Sooner => self._sooner = sooner(&self.board, cx),
            ManagerMessage::Lost(error) => return Err(follow::failure(error)),
        }
        if !self.paused {
            self.board.wake(now(cx));
            self.begin(cx);
        }
        self.set_alarm(cx);
        Ok(())
    }

    async fn stop(&mut self, _: &ExitReason, _: &mut Context<Self>) {
        // The sagas' actors come after this one in the tree, and have ended.
        self.follower.release().await;
    }

    fn message_name(message: &ManagerMessage) -> &'static str {
        match message {
            ManagerMessage::Next(_) => "Next",
            ManagerMessage::Open(_) => "Open",
            ManagerMessage::Begun(..) => "Begun",
            ManagerMessage::Again => "Again",
            ManagerMessage::Due => "Due",
            ManagerMessage::Sooner => "Sooner",
            ManagerMessage::Lost(_) => "Lost",
        }
    }
}

impl SagaManager {
    /// Takes what comes next in the log.
    fn take(&mut self, step: Step, cx: &Context<Self>) -> Result<(), Failure> {
        let next = step.cursor();
        match step {
            Step::Begin(_) => {
                (self.cursor, self.begun, self.listing) = (next, false, None);
                self.paused = self.args.shown.standing().paused;
                self.list(None, cx);
                return Ok(());
            }
            _ if !next.is_turn_of(self.cursor) => return Ok(()),
            Step::Page(events, _) => events.iter().for_each(|event| self.heard(event, cx)),
            // It does nothing but wake its saga; that one is guarded by itself.
            Step::Poison(event, ..) => self.heard(&event, cx),
            // What runs goes on; nothing else is begun.
            Step::Paused(paused, _) => {
                (self.cursor, self.paused) = (next, paused);
                if !self.begun && self.listing.is_none() {
                    self.list(None, cx);
                }
                return Ok(());
            }
        }
        self.follower.settle(next, next.position());
        self.cursor = next;
        Ok(())
    }

    fn heard(&self, event: &RecordedEvent, cx: &Context<Self>) {
        if self.board.heard(event)
            && let Ok(supervisor) = cx.find_supervisor(&self.args.running)
            && let Some(actor) = supervisor.child::<SagaMessage>(event.stream.as_str())
        {
            // With a full mailbox it has enough to look at its stream for.
            let _ = actor.try_tell(SagaMessage::Changed);
        }
    }

    fn go_on(&mut self, cx: &Context<Self>) {
        let (follower, cursor) = (self.follower.clone(), self.cursor);
        // What is asked for is heard also before the open ones are found.
        let limit = if self.begun { PAGE } else { 0 };
        self.following = Some(cx.spawn_tell(async move {
            ManagerMessage::Next(Box::new(follower.next(cursor, limit).await))
        }));
    }

    /// Reads the next page of the open sagas; from the beginning without a page before.
    fn list(&mut self, before: Option<(Position, Arc<str>)>, cx: &Context<Self>) {
        if self.paused {
            return;
        }
        if before.is_none() {
            self.listings += 1;
            self.board.forget();
        }
        let (documents, number) = (Arc::clone(&self.lease.documents), self.listings);
        let now = now(cx);
        self.listing = Some(cx.spawn_tell(async move {
            let listed = match before {
                Some((from, after)) => open(&*documents, number, from, Some(after), now).await,
                None => match progress(&*documents).await {
                    Ok(from) => open(&*documents, number, from, None, now).await,
                    Err(error) => {
                        Listed { number, from: Position::ZERO, page: Err(error), after: None }
                    }
                },
            };
            ManagerMessage::Open(Box::new(listed))
        }));
    }

    /// Takes in open sagas, and goes on with the events after them when it has them all.
    fn found(&mut self, listed: Listed, cx: &Context<Self>) -> Result<(), Failure> {
        let Listed { number, from, page, after } = listed;
        if self.begun || number != self.listings {
            return Ok(());
        }
        self.listing = None;
        for (stream, wake_at) in page.map_err(failure)? {
            self.board.found(&stream, wake_at);
        }
        match after {
            Some(after) => self.list(Some((from, after)), cx),
            None => {
                (self.cursor, self.begun) = (self.cursor.after(from), true);
                // What the documents tell was looked at; a follower that is careful waits for all
                // before.
                self.follower.settle(self.cursor, from);
                self.go_on(cx);
            }
        }
        Ok(())
    }

    /// Begins those whose turn it is.
    fn begin(&mut self, cx: &mut Context<Self>) {
        while self.beginning < BATCHES && self.no_room.is_none() {
            let Ok(supervisor) = cx.find_supervisor(&self.args.running) else {
                self.no_room = Some(cx.tell_after(NO_ROOM, ManagerMessage::Again));
                return;
            };
            let taken = self.board.take(BATCH);
            if taken.is_empty() {
                return;
            }
            let args = taken.into_iter().map(|(stream, begun)| self.args_of(stream, begun));
            let (all, board, clock) = (args.collect(), self.board.clone(), cx.clock());
            let life = cx.life();
            let task = cx.spawn_tell(async move {
                let now = move || Timestamp::from_micros(clock.wall_us());
                ManagerMessage::Begun(life, begin_all(&supervisor, &board, all, &now).await)
            });
            cx.keep(task);
            self.beginning += 1;
        }
    }

    fn args_of(&self, stream: StreamId, begun: Begun) -> SagaArgs {
        SagaArgs {
            stream,
            begun,
            pool: Arc::clone(&self.args.pool),
            committer: Arc::clone(&self.args.committer),
            board: self.board.clone(),
            claim: Some(self.follower.clone()),
            definitions: self.args.definitions.clone(),
        }
    }

    fn set_alarm(&mut self, cx: &Context<Self>) {
        let due = self.board.next_due().filter(|_| !self.paused);
        if due != self.alarm.as_ref().map(|(at, _)| *at) {
            self.alarm = due.map(|due| (due, cx.tell_at(due.as_micros(), ManagerMessage::Due)));
        }
    }
}

fn now(cx: &Context<SagaManager>) -> Timestamp {
    Timestamp::from_micros(cx.clock().wall_us())
}

fn sooner(board: &Board, cx: &Context<SagaManager>) -> TaskGuard {
    let board = board.clone();
    cx.spawn_tell(async move {
        board.changed().await;
        ManagerMessage::Sooner
    })
}

/// How far the list of open sagas is. Asked for before it is read, so that it is at least as far.
async fn progress(documents: &dyn Documents) -> Result<Position, ProjectionError> {
    let progress = documents.progress(OpenSagas::NAME).await?;
    let active = progress.iter().filter(|part| part.active);
    Ok(active.map(|part| part.position).min().unwrap_or_default())
}

/// A page of the list of open sagas.
async fn open(
    documents: &dyn Documents,
    number: u64,
    from: Position,
    after: Option<Arc<str>>,
    now: Timestamp,
) -> Listed {
    let mut query = ListQuery::first(PAGE).filter("open", Compare::Eq, true);
    if let Some(after) = after {
        query = query.after(&*after);
    }
    let page = documents.list(OpenSagas::NAME, &query).await;
    let after = match &page {
        Ok(page) if page.len() == PAGE => page.last().map(|last| Arc::clone(&last.id)),
        _ => None,
    };
    let wanted = |document: Document| {
        let summary = serde_json::from_slice::<SagaSummary>(&document.data).ok();
        // Until a person decides, and that is heard, a parked one has nothing to do.
        if summary.as_ref().is_some_and(|summary| summary.status == SagaStatus::Parked) {
            return None;
        }
        let wake_at = summary.and_then(|summary| summary.goes_on_at());
        let late = wake_at.filter(|at| *at > later(now, NAP));
        Some((StreamId::new(document.id).ok()?, late))
    };
    let page = page.map(|page| page.into_iter().filter_map(wanted).collect());
    Listed { number, from, page, after }
}

/// Starts the actors of sagas, side by side.
async fn begin_all(
    supervisor: &SupervisorRef,
    board: &Board,
    all: Vec<SagaArgs>,
    now: &(dyn Fn() -> Timestamp + Sync),
) -> Room {
    let rooms = join_all(all.into_iter().map(|args| begin_one(supervisor, board, args, now))).await;
    rooms.into_iter().find(|room| *room == Room::No).unwrap_or(Room::Yes)
}

async fn begin_one(
    supervisor: &SupervisorRef,
    board: &Board,
    args: SagaArgs,
    now: &(dyn Fn() -> Timestamp + Sync),
) -> Room {
    let stream = args.stream.clone();
    // An actor that was killed when it was about to end has begun another life by itself.
    while !board.is_alive(&stream) {
        let spec = ChildSpec::actor::<SagaActor>(stream.as_str(), args.clone())
            .component_type(component::SAGA)
            .restart(RestartPolicy::Transient);
        match supervisor.spawn_spec::<SagaMessage>(spec).await {
            Ok(_) => break,
            // It is just ending.
            Err(SupervisorError::AlreadyStarted { .. }) => tokio::time::sleep(ENDING).await,
            Err(
                SupervisorError::MaxChildren { .. }
                | SupervisorError::Down { .. }
                | SupervisorError::Stopping { .. },
            ) => {
                board.put_back(&stream);
                return Room::No;
            }
            Err(error) => {
                let passing = error.class() == ErrorClass::Transient;
                tracing::error!(%stream, %error, "a saga cannot be begun; it is tried again");
                board.again(&stream, later(now(), if passing { AGAIN } else { ASIDE }));
                break;
            }
        }
    }
    Room::Yes
}

impl SupervisedComponent for SagaManager {
    type Handover = ();

    fn supervision_metadata(_: &ManagerArgs) -> SupervisionMetadata {
        SupervisionMetadata::of(component::SAGA)
    }
}

impl fmt::Debug for SagaManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SagaManager")
            .field("follower", &self.follower)
            .field("sagas", &self.board.counts())
            .finish_non_exhaustive()
    }
}

fn failure(error: ProjectionError) -> Failure {
    match error {
        ProjectionError::Store(error) => store_failure(error),
        other => Failure::wrap(ErrorClass::Transient, other),
    }
}
