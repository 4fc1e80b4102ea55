//! What an aggregate has decided and not answered, as a value without I/O.
//!
//! ```text
//! answered │ request (with the committer) │ line (decided meanwhile)
//!          ▲ committed                                             ▲ assumed
//! ```
//!
//! The state is the one at `assumed`. A command is answered when everything before it, and it
//! itself, is in the log. One that led to nothing is answered when what it was decided on is; on a
//! store that others write to, only when that was still the end of the stream after it came. An
//! append that succeeds there proves it; where none goes out the log is asked ([`Check`]).

use std::collections::{BTreeMap, VecDeque};

use mister_smith_supervisors::Picture;
use serde_json::json;

use super::check::{Check, Earlier, Seen};
use super::work::{Answer, Item, Lookup, Sent, Verdict, What, Work, differ, executed};
use super::{Look, LookAt};
use crate::aggregate::Aggregate;
use crate::aggregate::loading::snapshot_of;
use crate::command::{CommandError, Executed, Freshness, Request};
use crate::event::{Event, EventId, NewEvent, StreamId, Timestamp, Version};
use crate::store::committer::{MAX_BATCH_BYTES, MAX_BATCH_EVENTS};
use crate::store::snapshot::Snapshot;
use crate::store::{Append, Appended, ExpectedVersion, IdempotencyKey, MAX_APPEND_EVENTS};

mod settling;

/// See the [module](self).
pub(super) struct Pipeline<A: Aggregate> {
    stream: StreamId,
    state: A,
    /// Others may write to the stream.
    shared: bool,
    assumed: Version,
    committed: Version,
    /// With the committer: appends, and verdicts that stand or fall with them.
    request: VecDeque<Item<A>>,
    line: VecDeque<Item<A>>,
    /// How many appends the line has.
    appends: usize,
    /// To be decided again.
    again: VecDeque<Work<A>>,
    /// Answered from the log under their key, where it has to be seen whether it was the same
    /// command.
    repeated: Vec<(Work<A>, Appended)>,
    /// Commands that are on their way into the log, by their keys, and the repeats of them.
    keyed: BTreeMap<IdempotencyKey, First<A>>,
    repeats: usize,
    /// Verdicts that are proven, and have a key to be looked up.
    lookups: VecDeque<(Work<A>, Verdict)>,
    check: u64,
    checking: Option<Checking<A>>,
    /// Looks at the state, which need it to be in the log; what comes after them waits.
    looks: Vec<Look<A>>,
    postponed: VecDeque<Work<A>>,
    postponed_looks: Vec<Look<A>>,
    committed_bytes: u64,
    held: Option<Snapshot>,
}

/// A command that is on its way into the log.
struct First<A: Aggregate> {
    fingerprint: Option<u64>,
    repeats: Vec<Request<A>>,
}

/// What waits for the log's answer.
struct Checking<A: Aggregate> {
    /// With the number of the lookup, if it has one.
    verdicts: Vec<(Work<A>, Verdict, Option<usize>)>,
    looks: Vec<Look<A>>,
}

/// What is to be done next.
pub(super) enum Next<A: Aggregate> {
    /// Hand these to the committer.
    Commit(Vec<Append>),
    /// Ask the log, beside everything else.
    Check(Check),
    /// Decide these.
    Decide(VecDeque<Work<A>>),
    /// Wait.
    Nothing,
}

impl<A: Aggregate> Pipeline<A> {
    pub(super) fn new(stream: StreamId, state: A, version: Version, shared: bool) -> Self {
        Self {
            stream,
            state,
            shared,
            assumed: version,
            committed: version,
            request: VecDeque::new(),
            line: VecDeque::new(),
            appends: 0,
            again: VecDeque::new(),
            repeated: Vec::new(),
            keyed: BTreeMap::new(),
            repeats: 0,
            lookups: VecDeque::new(),
            check: 0,
            checking: None,
            looks: Vec::new(),
            postponed: VecDeque::new(),
            postponed_looks: Vec::new(),
            committed_bytes: 0,
            held: None,
        }
    }

    pub(super) const fn committed(&self) -> Version {
        self.committed
    }

    pub(super) const fn assumed(&self) -> Version {
        self.assumed
    }

    pub(super) fn unanswered(&self) -> usize {
        let checking = self.checking.as_ref();
        self.request.len()
            + self.line.len()
            + self.again.len()
            + self.repeated.len()
            + self.repeats
            + self.lookups.len()
            + checking.map_or(0, |checking| checking.verdicts.len() + checking.looks.len())
            + self.looks.len()
            + self.postponed.len()
            + self.postponed_looks.len()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.unanswered() == 0
    }

    /// Whether the state is one that the log has. After a commit that failed, and a log that could
    /// not be read then, all is answered and the state is still ahead.
    pub(super) fn is_in_the_log(&self) -> bool {
        self.is_settled() && self.assumed == self.committed
    }

    pub(super) fn take_committed_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.committed_bytes)
    }

    /// Takes a command in; it comes back if it is to be decided now.
    pub(super) fn admit(&mut self, request: Request<A>) -> Option<Work<A>> {
        let work = Work::new(request);
        let looked_at = self.checking.as_ref().is_some_and(|checking| !checking.looks.is_empty());
        if self.looks.is_empty() && !looked_at {
            return Some(work);
        }
        self.postponed.push_back(work);
        None
    }

    /// Takes a look in. It sees every command that came before it.
    pub(super) fn look(&mut self, look: Look<A>) {
        match self.postponed.is_empty() {
            true => self.looks.push(look),
            false => self.postponed_looks.push(look),
        }
    }

    /// Decides a command and puts it in line; if it leads to events the state moves on. `fresh`
    /// says that the state was read from the log after the command came.
    pub(super) fn decide(
        &mut self,
        work: Work<A>,
        at: Timestamp,
        fresh: bool,
        id: impl Fn() -> EventId,
    ) {
        let Some(work) = self.join(work) else { return };
        match self.append_of(&work.request, at, id) {
            Ok((append, events)) => {
                self.assumed = self.assumed.plus(events.len() as u64);
                for event in events {
                    self.state.evolve(event);
                }
                if let Some(key) = work.request.key {
                    let fingerprint = work.request.fingerprint;
                    self.keyed.insert(key, First { fingerprint, repeats: Vec::new() });
                }
                self.appends += 1;
                self.line.push_back(Item { work, what: What::Append(append) });
            }
            Err(answer) => {
                let fresh = fresh && self.assumed == self.committed;
                let verdict = Verdict {
                    answer,
                    unproven: self.shared && !fresh,
                    lookup: work
                        .request
                        .key
                        .map(|key| Lookup { key, fingerprint: work.request.fingerprint }),
                };
                self.line.push_back(Item { work, what: What::Verdict(verdict) });
            }
        }
    }

    /// A repeat of a command that is on its way is answered with it. Others come back.
    fn join(&mut self, work: Work<A>) -> Option<Work<A>> {
        let Some(first) = work.request.key.and_then(|key| self.keyed.get_mut(&key)) else {
            return Some(work);
        };
        if differ(first.fingerprint, work.request.fingerprint) {
            let stream = self.stream.clone();
            work.request.answer(Err(CommandError::KeyReused { stream }));
        } else {
            first.repeats.push(work.request);
            self.repeats += 1;
        }
        None
    }

    /// What a command leads to on the state as it will be: its append with the events, or the
    /// answer of one that leads to nothing.
    fn append_of(
        &self,
        request: &Request<A>,
        at: Timestamp,
        id: impl Fn() -> EventId,
    ) -> Result<(Append, Vec<A::Event>), Answer> {
        let events = match self.state.decide(&request.command) {
            Err(rejection) => return Err(Err(CommandError::rejected(rejection))),
            Ok(events) => events,
        };
        if events.is_empty() {
            return Err(Ok(Executed {
                stream: self.stream.clone(),
                events: 0,
                version: self.assumed,
                position: None,
                duplicate: false,
            }));
        }
        if events.len() > MAX_APPEND_EVENTS {
            return Err(Err(CommandError::TooManyEvents { count: events.len() }));
        }
        let encode = |event: &A::Event| {
            event.encode().map(|encoded| NewEvent {
                id: id(),
                event_type: encoded.event_type,
                schema_version: encoded.schema_version,
                codec: encoded.codec,
                data: encoded.data,
                meta: request.meta.clone(),
                recorded_at: at,
            })
        };
        let encoded = events.iter().map(encode).collect::<Result<Vec<_>, _>>();
        let encoded = encoded.map_err(|error| Err(CommandError::from(error)))?;
        let expected = ExpectedVersion::Exact(self.assumed);
        let mut append = Append::new(self.stream.clone(), expected, encoded);
        append.key = request.key;
        Ok((append, events))
    }

    /// What is to be done now. `busy` says that a request is with the committer.
    pub(super) fn next(&mut self, busy: bool) -> Next<A> {
        if !busy && self.appends > 0 {
            return Next::Commit(self.next_request());
        }
        if !busy {
            self.answer_ready();
        }
        if let Some(check) = self.next_check(busy) {
            return Next::Check(check);
        }
        let looked_at = self.checking.as_ref().is_some_and(|checking| !checking.looks.is_empty());
        if !busy && self.looks.is_empty() && !looked_at && !self.postponed.is_empty() {
            self.looks = std::mem::take(&mut self.postponed_looks);
            return Next::Decide(std::mem::take(&mut self.postponed));
        }
        Next::Nothing
    }

    /// Answers what waits for nothing but what was decided before it, which is in the log now.
    fn answer_ready(&mut self) {
        for _ in 0..self.line.len() {
            match self.line.pop_front() {
                Some(Item { work, what: What::Verdict(verdict) }) => {
                    self.proven_unless(verdict.unproven, work, verdict);
                }
                other => self.line.extend(other),
            }
        }
        let asked = |look: &Look<A>| self.shared && look.freshness == Freshness::Newest;
        let (ask, answer): (Vec<_>, Vec<_>) = self.looks.drain(..).partition(asked);
        self.looks = ask;
        for look in answer {
            (look.look)(Ok(LookAt { state: &self.state, version: self.committed }));
        }
    }

    /// Answers a verdict, or puts it where it waits for what is still to be known of it.
    fn proven_unless(&mut self, unproven: bool, work: Work<A>, verdict: Verdict) {
        let verdict = Verdict { unproven, ..verdict };
        if verdict.is_ready() {
            work.request.answer(verdict.answer);
        } else if unproven {
            self.line.push_back(Item { work, what: What::Verdict(verdict) });
        } else {
            self.lookups.push_back((work, verdict));
        }
    }

    /// One question to the log for all that wait. Those that come while it is asked wait for the
    /// next one: it has to begin after them.
    fn next_check(&mut self, busy: bool) -> Option<Check> {
        let waits = !self.line.is_empty() || !self.looks.is_empty();
        let ask_version = waits && !busy;
        if self.checking.is_some() || !ask_version && self.lookups.is_empty() {
            return None;
        }
        let mut waiting: Vec<_> = self.lookups.drain(..).collect();
        let mut looks = Vec::new();
        if ask_version {
            // Only verdicts are left in it.
            waiting.extend(self.line.drain(..).filter_map(|Item { work, what }| match what {
                What::Verdict(verdict) => Some((work, verdict)),
                What::Append(_) | What::Sent(_) => None,
            }));
            looks = std::mem::take(&mut self.looks);
        }
        let mut lookups = Vec::new();
        let verdicts = waiting.into_iter().map(|(work, verdict)| {
            let number = verdict.lookup.map(|lookup| {
                lookups.push(lookup);
                lookups.len() - 1
            });
            (work, verdict, number)
        });
        self.checking = Some(Checking { verdicts: verdicts.collect(), looks });
        self.check += 1;
        Some(Check { number: self.check, version: ask_version, lookups })
    }

    /// What the log said. Whether the state is as it is in the log; if not, what was decided on it
    /// waits for [`restart`](Self::restart).
    pub(super) fn checked(&mut self, number: u64, result: Result<Seen, CommandError>) -> bool {
        if number != self.check {
            return true;
        }
        let Some(Checking { verdicts, looks }) = self.checking.take() else { return true };
        let seen = match result {
            Ok(seen) => seen,
            Err(error) => {
                for (work, ..) in verdicts {
                    work.request.answer(Err(error.clone()));
                }
                for look in looks {
                    (look.look)(Err(error.clone()));
                }
                return true;
            }
        };
        // Nothing was committed since it was asked: what is unproven goes with a request.
        let stale = seen.version.is_some_and(|version| version != self.committed);
        let mut all = true;
        for (work, verdict, lookup) in verdicts {
            if stale && verdict.unproven {
                self.again.push_back(work);
                all = false;
                continue;
            }
            match lookup.and_then(|number| seen.earlier.get(number)) {
                None | Some(Earlier::Nothing) => work.request.answer(verdict.answer),
                Some(earlier) => work.request.answer(self.repeat(earlier)),
            }
        }
        if stale && !looks.is_empty() {
            self.looks.splice(0..0, looks);
            return false;
        }
        for look in looks {
            (look.look)(Ok(LookAt { state: &self.state, version: self.committed }));
        }
        all
    }

    /// The answer to a command whose key the log has.
    fn repeat(&self, earlier: &Earlier) -> Answer {
        match earlier {
            Earlier::Same(first) => Ok(executed(Appended { duplicate: true, ..first.clone() })),
            Earlier::Other | Earlier::Nothing => {
                Err(CommandError::KeyReused { stream: self.stream.clone() })
            }
        }
    }

    /// The appends of the next request: as much of the line as fits into one commit, with the
    /// verdicts between them. Each append is linked to the one before.
    fn next_request(&mut self) -> Vec<Append> {
        // Decided before any of these goes out, so their success is its proof.
        if let Some(checking) = &mut self.checking {
            let (unproven, rest): (Vec<_>, Vec<_>) =
                checking.verdicts.drain(..).partition(|(_, verdict, _)| verdict.unproven);
            checking.verdicts = rest;
            self.request.extend(
                unproven
                    .into_iter()
                    .map(|(work, verdict, _)| Item { work, what: What::Verdict(verdict) }),
            );
        }
        let mut appends: Vec<Append> = Vec::new();
        let (mut events, mut bytes) = (0, 0);
        while let Some(item) = self.line.front() {
            if let Some(append) = item.append() {
                events += append.events.len();
                bytes += append.events.iter().map(NewEvent::size).sum::<usize>();
                if !appends.is_empty() && (events > MAX_BATCH_EVENTS || bytes > MAX_BATCH_BYTES) {
                    break;
                }
            }
            let Some(Item { work, what }) = self.line.pop_front() else { break };
            let what = match what {
                What::Append(append) => {
                    let sent = Sent::of(&append);
                    appends.push(Append { linked: !appends.is_empty(), ..append });
                    What::Sent(sent)
                }
                other => other,
            };
            self.request.push_back(Item { work, what });
        }
        self.appends -= appends.len();
        appends
    }

    /// Keeps a snapshot of the state as it is assumed now.
    pub(super) fn hold_snapshot(&mut self, at: Timestamp) {
        if self.held.is_none() {
            self.held = self.snapshot(at);
        }
    }

    /// The held snapshot, if everything in it is in the log.
    pub(super) fn ripe_snapshot(&mut self) -> Option<Snapshot> {
        self.held.take_if(|held| held.version <= self.committed)
    }

    /// What people see of it: the state that the next command will find.
    pub(super) fn picture(&self) -> Picture {
        let state = serde_json::to_value(&self.state)
            .unwrap_or_else(|error| json!({ "unreadable": error.to_string() }));
        Picture::of(json!({
            "stream": self.stream.as_str(),
            "version": self.assumed.get(),
            "committed": self.committed.get(),
            "state": state,
        }))
    }

    /// A snapshot of the state as it is assumed now; `None` if it cannot be written.
    pub(super) fn snapshot(&self, at: Timestamp) -> Option<Snapshot> {
        match snapshot_of(&self.state, self.assumed, at) {
            Ok(snapshot) => Some(snapshot),
            Err(error) => {
                tracing::warn!(stream = %self.stream, %error, "the state cannot be serialized");
                None
            }
        }
    }
}
