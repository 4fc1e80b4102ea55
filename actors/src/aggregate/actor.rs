//! The actor of one live aggregate.
//!
//! It lives under the dynamic `aggregates` supervisor, is started by the first command for its id
//! and ends by itself when it was idle for a while or when room is needed. One command's way:
//!
//! 1. It is decided on the state *as it will be* when everything before it is in the log, and the
//!    state moves on at once (`actor/pipeline.rs`). So a busy aggregate does not wait for a commit
//!    before the next decision.
//! 2. One request at a time is with the committer; what is decided meanwhile goes into the next
//!    one. The appends of a request are linked: after a refused one none is written.
//! 3. It is answered when its events are durable. Refusals, commands that lead to nothing, and
//!    looks at the state wait for what they were decided on, too.
//! 4. If an append was refused (another node was faster) the state is thrown away and read again,
//!    and what was not written is decided again, a bounded number of times.
//!
//! A kill or a crash loses the state and the requests in hand, and nothing that was answered. A
//! sender that repeats its command with the same key gets the first answer, if there was one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mister_smith_supervisors::{
    Actor, Address, Context, ErrorClass, ExitReason, Failure, Picture, StartError, TaskGuard,
};

use super::Aggregate;
use super::live::{LiveAggregates, Membership};
use super::loading::load;
use super::snapshot_policy::Since;
use crate::command::{CommandError, Request};
use crate::event::{Decoder, EventId, StreamId, Timestamp, Version};
use crate::pool::{Lease, PoolMessage, store_failure};
use crate::store::committer::{CommitError, Committed, CommitterHandle, CommitterMessage};
use crate::store::snapshot::Snapshot;
use crate::store::{Appended, MAX_PAGE};
use pipeline::{Pipeline, Work};

mod pipeline;

/// Commands that one aggregate has decided and not answered, at most. More are refused.
pub const MAX_UNANSWERED: usize = 2_000;

/// What an aggregate can be told.
pub enum AggregateMessage<A: Aggregate> {
    /// Decide this command.
    Execute(Request<A>),
    /// Look at the state, once everything before is durable.
    Look(Look<A>),
    /// A request is done. Sent by the actor to itself.
    Done(Committed),
    /// Time to see whether anybody still needs it.
    IdleCheck,
    /// Make room for another.
    Passivate,
}

/// A look at a state that is in the log.
pub type Look<A> = Box<dyn FnOnce(&A, Version) + Send>;

impl<A: Aggregate> fmt::Debug for AggregateMessage<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(AggregateActor::message_name(self))
    }
}

/// What a fresh start needs.
#[derive(Clone, Debug)]
pub struct AggregateArgs {
    /// The stream.
    pub stream: StreamId,
    /// Path of the pool.
    pub pool: Arc<str>,
    /// Path of the committer.
    pub committer: Arc<str>,
    /// It ends after this long without a command.
    pub idle_after: Duration,
    /// How often a command is decided again after a conflict.
    pub retries: u32,
    /// Who else is live.
    pub live: LiveAggregates,
}

/// The actor.
pub struct AggregateActor<A: Aggregate> {
    args: AggregateArgs,
    pool: Address<PoolMessage>,
    committer: CommitterHandle,
    decoder: Decoder<A::Event>,
    pipeline: Pipeline<A>,
    in_flight: Option<TaskGuard>,
    shown: Arc<AtomicU64>,
    membership: Membership,
    used: bool,
    leaving: bool,
    timer: Option<TaskGuard>,
    since: SinceSnapshot,
    /// The write of the last snapshot.
    saving: Option<TaskGuard>,
}

#[derive(Debug, Clone, Copy)]
struct SinceSnapshot {
    version: Version,
    at: Option<Timestamp>,
    bytes: u64,
}

impl<A: Aggregate> Actor for AggregateActor<A> {
    type Message = AggregateMessage<A>;
    type Args = AggregateArgs;

    async fn start(args: &AggregateArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let pool: Address<PoolMessage> = cx.find(&args.pool)?;
        let committer: Address<CommitterMessage> = cx.find(&args.committer)?;
        let decoder = Decoder::new();
        let lease = pool.ask(PoolMessage::Lease).await?;
        let loaded = load::<A>(&lease, &args.stream, &decoder).await?;
        if loaded.discarded {
            args.live.snapshot_discarded();
        }
        let shown = Arc::new(AtomicU64::new(loaded.version.get()));
        let own = cx.address();
        let ask_to_leave = move || own.try_tell(AggregateMessage::Passivate).is_ok();
        let version = Arc::clone(&shown);
        cx.describe(move || format!("version {}", version.load(Ordering::Relaxed)));
        Ok(Self {
            since: SinceSnapshot {
                version: loaded.snapshot,
                at: loaded.snapshot_at,
                bytes: loaded.bytes,
            },
            pipeline: Pipeline::new(args.stream.clone(), loaded.state, loaded.version),
            membership: args.live.enter(&args.stream, ask_to_leave),
            args: args.clone(),
            pool,
            committer: CommitterHandle::new(committer),
            decoder,
            in_flight: None,
            shown,
            used: true,
            leaving: false,
            timer: Some(cx.tell_after(args.idle_after, AggregateMessage::IdleCheck)),
            saving: None,
        })
    }

    async fn handle(
        &mut self,
        message: AggregateMessage<A>,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        match message {
            AggregateMessage::Execute(request) => self.execute(request, cx).await?,
            AggregateMessage::Look(look) => self.pipeline.look(look),
            AggregateMessage::Done(committed) => self.done(committed, cx).await?,
            AggregateMessage::IdleCheck => self.idle_check(cx),
            AggregateMessage::Passivate => self.leaving = true,
        }
        while self.go_on(cx).await? {}
        if self.leaving && self.pipeline.is_settled() {
            cx.stop();
        }
        Ok(())
    }

    async fn stop(&mut self, _: &ExitReason, cx: &mut Context<Self>) {
        let now = now(cx);
        if self.pipeline.is_settled() && A::snapshots().is_due_at_the_end(self.since(now)) {
            let snapshot = self.pipeline.snapshot(now);
            if let (Some(snapshot), Ok(lease)) = (snapshot, self.pool.ask(PoolMessage::Lease).await)
            {
                save(&lease, &self.args.stream, snapshot).await;
            }
        }
    }

    fn message_name(message: &AggregateMessage<A>) -> &'static str {
        match message {
            AggregateMessage::Execute(_) => "Execute",
            AggregateMessage::Look(_) => "Look",
            AggregateMessage::Done(_) => "Done",
            AggregateMessage::IdleCheck => "IdleCheck",
            AggregateMessage::Passivate => "Passivate",
        }
    }

    fn inspect(&self) -> Option<Picture> {
        Some(self.pipeline.picture())
    }
}

impl<A: Aggregate> AggregateActor<A> {
    async fn execute(&mut self, request: Request<A>, cx: &Context<Self>) -> Result<(), Failure> {
        self.used = true;
        self.membership.touch();
        let waiting = self.pipeline.unanswered();
        if waiting >= MAX_UNANSWERED {
            request.answer(Err(CommandError::Overloaded { waiting }));
            return Ok(());
        }
        match self.pipeline.admit(request) {
            None => Ok(()),
            Some(work) => self.decide(work, cx).await,
        }
    }

    /// Decides a command on the state as it will be, and puts it in line.
    async fn decide(&mut self, work: Work<A>, cx: &Context<Self>) -> Result<(), Failure> {
        let at = now(cx);
        let id = || EventId::at(at, cx.random_u64(), cx.random_u64());
        let Some((work, answer)) = self.pipeline.decide(work, at, id) else { return Ok(()) };
        // The command leads to nothing now. With a key it may be a repeat of one that did.
        let first = match work.request.key {
            None => None,
            Some(key) => lease(&self.pool).await?.store.answer(key).await.map_err(store_failure)?,
        };
        let answer = match first {
            Some(first) => Ok(executed(Appended { duplicate: true, ..first })),
            None => answer,
        };
        self.pipeline.line_up(work, answer);
        Ok(())
    }

    /// Answers what waits for nothing, and hands the next request to the committer. Whether
    /// there is more to do at once.
    async fn go_on(&mut self, cx: &Context<Self>) -> Result<bool, Failure> {
        if self.in_flight.is_some() {
            return Ok(false);
        }
        let postponed = self.pipeline.answer_ready();
        if !postponed.is_empty() {
            for work in postponed {
                self.decide(work, cx).await?;
            }
            return Ok(true);
        }
        let appends = self.pipeline.next_request();
        if appends.is_empty() {
            return Ok(false);
        }
        self.hold_snapshot(cx);
        match self.committer.submit(appends).await {
            Ok(pending) => {
                let done = async { AggregateMessage::Done(pending.durable().await) };
                self.in_flight = Some(cx.spawn_tell(done));
                Ok(false)
            }
            // Nothing of it is in the log, so the state is ahead of it.
            Err(error) => {
                self.pipeline.refuse_request(&CommandError::from(error));
                self.recover(cx).await?;
                Ok(true)
            }
        }
    }

    async fn done(&mut self, committed: Committed, cx: &Context<Self>) -> Result<(), Failure> {
        self.in_flight = None;
        match committed {
            Ok(outcomes) => {
                let all_written = self.pipeline.settle(outcomes);
                self.committed(cx).await;
                if all_written { Ok(()) } else { self.recover(cx).await }
            }
            Err(error @ (CommitError::Overloaded { .. } | CommitError::Unavailable { .. })) => {
                self.pipeline.refuse_request(&CommandError::from(error));
                self.recover(cx).await
            }
            // It may be in the log, or still get there: `recover` looks.
            Err(error) => {
                self.pipeline.doubt_request(&CommandError::from(error));
                self.recover(cx).await
            }
        }
    }

    /// After a commit: what the tree shows, and the snapshot that was held for it.
    async fn committed(&mut self, cx: &Context<Self>) {
        self.shown.store(self.pipeline.committed().get(), Ordering::Relaxed);
        self.since.bytes += self.pipeline.take_committed_bytes();
        if let Some(snapshot) = self.pipeline.ripe_snapshot()
            && let Ok(lease) = lease(&self.pool).await
        {
            let at = Some(now(cx));
            self.since = SinceSnapshot { version: snapshot.version, at, bytes: 0 };
            let stream = self.args.stream.clone();
            self.saving = Some(TaskGuard::spawn(async move {
                save(&lease, &stream, snapshot).await;
            }));
        }
    }

    /// Keeps a copy of the state as it will be after the request that goes out now, if it is time
    /// for a snapshot; it is written once the request is in the log.
    fn hold_snapshot(&mut self, cx: &Context<Self>) {
        let now = now(cx);
        if A::snapshots().is_due(self.since(now)) {
            self.pipeline.hold_snapshot(now);
        }
    }

    fn since(&self, now: Timestamp) -> Since {
        let version = self.pipeline.assumed().get();
        let age = self.since.at.map_or(0, |at| now.as_micros().saturating_sub(at.as_micros()));
        Since {
            events: version.saturating_sub(self.since.version.get()),
            bytes: self.since.bytes,
            age: Duration::from_micros(u64::try_from(age).unwrap_or(0)),
        }
    }

    /// Reads the state again, and decides again what is not in the log.
    async fn recover(&mut self, cx: &Context<Self>) -> Result<(), Failure> {
        let lease = lease(&self.pool).await?;
        // Before the state is read: what is found here is in the state then.
        if let Some(mut after) = self.pipeline.doubtful_after() {
            loop {
                let page = lease.store.read_stream(&self.args.stream, after, MAX_PAGE).await;
                let page = page.map_err(store_failure)?;
                let Some(last) = page.last() else { break };
                after = last.version;
                self.pipeline.settle_found(&page);
            }
        }
        let loaded = load::<A>(&lease, &self.args.stream, &self.decoder).await?;
        self.since =
            SinceSnapshot { version: loaded.snapshot, at: loaded.snapshot_at, bytes: loaded.bytes };
        if loaded.discarded {
            self.args.live.snapshot_discarded();
        }
        self.shown.store(loaded.version.get(), Ordering::Relaxed);
        let again = self.pipeline.restart(loaded.state, loaded.version, self.args.retries);
        for work in again {
            self.decide(work, cx).await?;
        }
        Ok(())
    }

    fn idle_check(&mut self, cx: &mut Context<Self>) {
        if std::mem::take(&mut self.used) || !self.pipeline.is_settled() {
            let after = self.args.idle_after;
            self.timer = Some(cx.tell_after(after, AggregateMessage::IdleCheck));
        } else {
            self.leaving = true;
        }
    }
}

async fn lease(pool: &Address<PoolMessage>) -> Result<Lease, Failure> {
    let lease = pool.ask(PoolMessage::Lease).await;
    lease.map_err(|error| Failure::wrap(ErrorClass::Transient, error))
}

/// Writes a snapshot. It is a cache: a failure costs time, and is no reason to end a life.
async fn save(lease: &Lease, stream: &StreamId, snapshot: Snapshot) {
    let version = snapshot.version;
    if let Err(error) = lease.snapshots.save_snapshot(stream, snapshot).await {
        tracing::warn!(%stream, %version, %error, "a snapshot was not written");
    }
}

fn now<A: Actor>(cx: &Context<A>) -> Timestamp {
    Timestamp::from_micros(cx.clock().wall_us())
}

impl<A: Aggregate> fmt::Debug for AggregateActor<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AggregateActor")
            .field("stream", &self.args.stream)
            .field("version", &self.pipeline.committed())
            .field("unanswered", &self.pipeline.unanswered())
            .finish_non_exhaustive()
    }
}

/// What a caller gets for one append.
fn executed(appended: Appended) -> crate::command::Executed {
    crate::command::Executed {
        stream: appended.stream,
        events: appended.last_version.get() - appended.first_version.get() + 1,
        version: appended.last_version,
        position: Some(appended.last_position),
        duplicate: appended.duplicate,
    }
}
