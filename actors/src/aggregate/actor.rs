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
//!    looks at the state wait for what they were decided on.
//! 4. On a store that other nodes write to, those are answered only if the stream was still where
//!    they were decided: the next append shows it, or the stream's version is read
//!    (`actor/check.rs`), once for all that wait. The mailbox does not wait for that read, and an
//!    error of it is an answer.
//! 5. If another node was faster the state is thrown away and read again, and what was not written
//!    is decided again, a bounded number of times.
//!
//! A life that cannot be made for good (an event that cannot be applied) is one all the same: it
//! answers all that wait with the reason, and ends (`actor/broken.rs`).
//!
//! A kill or a crash loses the state and the requests in flight, and nothing that was answered. A
//! sender that repeats its command with the same key gets the first answer, if there was one; while
//! the first is on its way, the repeat waits for it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mister_smith_supervisors::{
    Actor, Address, Context, ErrorClass, ExitReason, Failure, Path, Picture, StartError, TaskGuard,
};

use super::Aggregate;
use super::live::{LiveAggregates, Membership};
use super::loading::{Loaded, load};
use super::snapshot_policy::Since;
use crate::command::{CommandError, Freshness, Request};
use crate::event::{Decoder, EventId, StreamId, Timestamp, Version};
use crate::pool::{Lease, PoolMessage, store_failure};
use crate::store::MAX_PAGE;
use crate::store::committer::{CommitError, Committed, CommitterHandle, CommitterMessage};
use crate::store::notes::Owners;
use crate::store::notes::owners::ClaimError;
use broken::{answer_all, patience, why_not};
use check::{Checked, unchecked};
use pipeline::{Next, Pipeline};
use saving::Saving;
use work::Work;

mod broken;
mod check;
mod pipeline;
mod saving;
mod work;

/// Commands and looks that one aggregate has not answered, at most. More are refused.
pub const MAX_UNANSWERED: usize = 2_000;

/// What an aggregate can be told.
pub enum AggregateMessage<A: Aggregate> {
    /// Decide this command.
    Execute(Request<A>),
    /// Look at the state, once everything before is durable.
    Look(Look<A>),
    /// A request is done. Sent by the actor to itself.
    Done(Committed),
    /// The log has answered. Sent by the actor to itself.
    Checked(Checked),
    /// A snapshot is written, or not. Sent by the actor to itself.
    Saved,
    /// Time to see whether anybody still needs it.
    IdleCheck,
    /// Make room for another.
    Passivate,
}

/// A look at a state that is in the log.
pub struct Look<A> {
    pub(crate) freshness: Freshness,
    pub(crate) look: LookFn<A>,
}

type LookFn<A> = Box<dyn FnOnce(Result<LookAt<'_, A>, CommandError>) + Send>;

/// What a look sees.
pub struct LookAt<'a, A> {
    pub(crate) state: &'a A,
    pub(crate) version: Version,
}

impl<A> fmt::Debug for Look<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Look").field("freshness", &self.freshness).finish_non_exhaustive()
    }
}

impl<A> fmt::Debug for LookAt<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LookAt").field("version", &self.version).finish_non_exhaustive()
    }
}

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
    /// Whose the streams are.
    pub owners: Owners,
}

/// The actor.
pub struct AggregateActor<A: Aggregate> {
    args: AggregateArgs,
    pool: Address<PoolMessage>,
    committer: CommitterHandle,
    decoder: Decoder<A::Event>,
    pipeline: Pipeline<A>,
    in_flight: Option<TaskGuard>,
    /// The question to the log that is under way.
    asking: Option<TaskGuard>,
    shown: Arc<AtomicU64>,
    membership: Membership,
    used: bool,
    leaving: bool,
    timer: Option<TaskGuard>,
    since: SinceSnapshot,
    saving: Saving,
    /// No state could be made, and no try will; everything is answered with this.
    broken: Option<CommandError>,
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
        let loading = async {
            claim::<A>(&args.owners, &lease, now(cx)).await?;
            load::<A>(&lease, &args.stream, &decoder).await
        };
        let (loaded, broken) = match loading.await {
            Ok(loaded) => (loaded, None),
            // Its supervisor would try on and on, and who asks would wait for that.
            Err(failure) if failure.class() == ErrorClass::Permanent => {
                (Loaded::nothing(), Some(why_not(cx.path(), failure)))
            }
            Err(failure) => return Err(failure.into()),
        };
        if loaded.discarded {
            args.live.snapshot_discarded();
        }
        let shown = Arc::new(AtomicU64::new(loaded.version.get()));
        let own = cx.address();
        let ask_to_leave = move || own.try_tell(AggregateMessage::Passivate).is_ok();
        match &broken {
            None => {
                let version = Arc::clone(&shown);
                cx.describe(move || format!("version {}", version.load(Ordering::Relaxed)));
            }
            Some(error) => {
                tracing::error!(stream = %args.stream, %error, "an aggregate cannot be read");
                let error = error.to_string();
                cx.describe(move || error.clone());
            }
        }
        let timer = match &broken {
            None => cx.tell_after(args.idle_after, AggregateMessage::IdleCheck),
            Some(_) => cx.tell_after(patience(cx.life()), AggregateMessage::IdleCheck),
        };
        Ok(Self {
            since: SinceSnapshot {
                version: loaded.snapshot,
                at: loaded.snapshot_at,
                bytes: loaded.bytes,
            },
            pipeline: Pipeline::new(
                args.stream.clone(),
                loaded.state,
                loaded.version,
                lease.shared,
            ),
            membership: args.live.enter(&args.stream, ask_to_leave),
            args: args.clone(),
            pool,
            committer: CommitterHandle::new(committer),
            decoder,
            in_flight: None,
            asking: None,
            shown,
            used: true,
            leaving: false,
            timer: Some(timer),
            saving: Saving::default(),
            broken,
        })
    }

    async fn handle(
        &mut self,
        message: AggregateMessage<A>,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        if let Some(error) = &self.broken {
            answer_all(message, error, cx);
            return Ok(());
        }
        match message {
            AggregateMessage::Execute(request) => self.execute(request, cx),
            AggregateMessage::Look(look) => {
                self.used = true;
                match self.pipeline.unanswered() {
                    waiting @ MAX_UNANSWERED.. => {
                        (look.look)(Err(CommandError::Overloaded { waiting }));
                    }
                    _ => self.pipeline.look(look),
                }
            }
            AggregateMessage::Done(committed) => self.done(committed, cx).await,
            AggregateMessage::Checked(Checked { number, result }) => {
                if !self.pipeline.checked(number, result) {
                    self.recover(cx).await;
                }
            }
            AggregateMessage::Saved => self.saving.saved(&self.pool, &self.args.stream, cx),
            AggregateMessage::IdleCheck => self.idle_check(cx),
            AggregateMessage::Passivate => self.leaving = true,
        }
        while self.go_on(cx).await {}
        if self.leaving && self.pipeline.is_settled() {
            cx.stop();
        }
        Ok(())
    }

    async fn stop(&mut self, _: &ExitReason, cx: &mut Context<Self>) {
        let now = now(cx);
        // A write that is under way ends with this life; what it would have kept is in this one.
        let due = A::snapshots().is_due_at_the_end(self.since(now)) || self.saving.is_under_way();
        if self.broken.is_none()
            && self.pipeline.is_in_the_log()
            && due
            && let Some(snapshot) = self.pipeline.snapshot(now)
        {
            saving::save(self.pool.clone(), self.args.stream.clone(), snapshot).await;
        }
    }

    fn message_name(message: &AggregateMessage<A>) -> &'static str {
        match message {
            AggregateMessage::Execute(_) => "Execute",
            AggregateMessage::Look(_) => "Look",
            AggregateMessage::Done(_) => "Done",
            AggregateMessage::Checked(_) => "Checked",
            AggregateMessage::Saved => "Saved",
            AggregateMessage::IdleCheck => "IdleCheck",
            AggregateMessage::Passivate => "Passivate",
        }
    }

    fn inspect(&self) -> Option<Picture> {
        Some(match &self.broken {
            None => self.pipeline.picture(),
            Some(error) => Picture::of(serde_json::json!({ "unreadable": error.to_string() })),
        })
    }
}

impl<A: Aggregate> AggregateActor<A> {
    fn execute(&mut self, request: Request<A>, cx: &Context<Self>) {
        self.used = true;
        self.membership.touch();
        let waiting = self.pipeline.unanswered();
        if waiting >= MAX_UNANSWERED {
            request.answer(Err(CommandError::Overloaded { waiting }));
        } else if let Some(work) = self.pipeline.admit(request) {
            self.decide(work, false, cx);
        }
    }

    fn decide(&mut self, work: Work<A>, fresh: bool, cx: &Context<Self>) {
        let at = now(cx);
        let id = || EventId::at(at, cx.random_u64(), cx.random_u64());
        self.pipeline.decide(work, at, fresh, id);
    }

    /// Answers what waits for nothing, hands the next request to the committer, asks the log what
    /// has to be known. Whether there is more to do at once.
    async fn go_on(&mut self, cx: &mut Context<Self>) -> bool {
        match self.pipeline.next(self.in_flight.is_some()) {
            Next::Nothing => false,
            Next::Decide(postponed) => {
                for work in postponed {
                    self.decide(work, false, cx);
                }
                true
            }
            Next::Check(check) => {
                let asking = check.run(self.pool.clone(), self.args.stream.clone());
                let asking = async { AggregateMessage::Checked(asking.await) };
                self.asking = Some(cx.spawn_tell(asking));
                true
            }
            Next::Commit(appends) => {
                self.hold_snapshot(cx);
                match self.committer.submit(appends).await {
                    Ok(pending) => {
                        let done = async { AggregateMessage::Done(pending.durable().await) };
                        self.in_flight = Some(cx.spawn_tell(done));
                    }
                    // Nothing of it is in the log, so the state is ahead of it.
                    Err(error) => {
                        self.pipeline.refuse_request(&CommandError::from(error));
                        self.recover(cx).await;
                    }
                }
                true
            }
        }
    }

    async fn done(&mut self, committed: Committed, cx: &mut Context<Self>) {
        self.in_flight = None;
        match committed {
            Ok(outcomes) => {
                let all_written = self.pipeline.settle(outcomes);
                self.committed(cx);
                if all_written {
                    return;
                }
            }
            Err(error @ (CommitError::Overloaded { .. } | CommitError::Unavailable { .. })) => {
                self.pipeline.refuse_request(&CommandError::from(error));
            }
            // It may be in the log, or still get there: `recover` looks.
            Err(error) => self.pipeline.doubt_request(&CommandError::from(error)),
        }
        self.recover(cx).await;
    }

    /// After a commit: what the tree shows, and the snapshot that was held for it.
    fn committed(&mut self, cx: &Context<Self>) {
        self.shown.store(self.pipeline.committed().get(), Ordering::Relaxed);
        self.since.bytes += self.pipeline.take_committed_bytes();
        if let Some(snapshot) = self.pipeline.ripe_snapshot() {
            let at = Some(now(cx));
            self.since = SinceSnapshot { version: snapshot.version, at, bytes: 0 };
            self.saving.save(&self.pool, &self.args.stream, snapshot, cx);
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

    /// Reads the state again, and decides again what is not in the log. If the log cannot be read
    /// everything is answered with that, and the next command starts another life.
    async fn recover(&mut self, cx: &mut Context<Self>) {
        match self.read_again(cx.path()).await {
            Ok(again) => {
                for work in again {
                    self.decide(work, true, cx);
                }
            }
            Err(error) => {
                self.pipeline.give_up(&error);
                cx.stop();
            }
        }
    }

    async fn read_again(&mut self, path: &Path) -> Result<VecDeque<Work<A>>, CommandError> {
        let lease = self.pool.ask(PoolMessage::Lease).await.map_err(|error| {
            CommandError::Unchecked { reason: error.to_string(), class: ErrorClass::Transient }
        })?;
        // Before the state is read: what is found here is in the state then.
        if let Some(mut after) = self.pipeline.doubtful_after() {
            loop {
                let page = lease.store.read_stream(&self.args.stream, after, MAX_PAGE).await;
                let page = page.map_err(unchecked)?;
                let Some(last) = page.last() else { break };
                after = last.version;
                self.pipeline.settle_found(&page);
            }
        }
        let mut earlier = Vec::new();
        for (lookup, first) in self.pipeline.repeated_firsts() {
            earlier.push(lookup.compare(&lease, first).await.map_err(unchecked)?);
        }
        self.pipeline.settle_repeated(earlier);
        let loaded = load::<A>(&lease, &self.args.stream, &self.decoder).await;
        let loaded = loaded.map_err(|failure| match failure.class() {
            ErrorClass::Permanent => why_not(path, failure),
            class => CommandError::Unchecked { reason: failure.to_string(), class },
        })?;
        self.since =
            SinceSnapshot { version: loaded.snapshot, at: loaded.snapshot_at, bytes: loaded.bytes };
        if loaded.discarded {
            self.args.live.snapshot_discarded();
        }
        self.shown.store(loaded.version.get(), Ordering::Relaxed);
        Ok(self.pipeline.restart(loaded.state, loaded.version, self.args.retries))
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

/// Says to all nodes whose the streams are.
async fn claim<A: Aggregate>(owners: &Owners, lease: &Lease, at: Timestamp) -> Result<(), Failure> {
    let claiming = owners.claim(&*lease.notes, A::CATEGORY, A::OWNER, at).await;
    claiming.map_err(|error| match error {
        ClaimError::Store(error) => store_failure(error),
        ClaimError::Owned(owned) => Failure::wrap(ErrorClass::Permanent, owned),
    })
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
