//! What an aggregate has decided and not answered, as a value without I/O.
//!
//! ```text
//! answered │ request (with the committer) │ line (decided meanwhile)
//!          ▲ committed                                             ▲ assumed
//! ```
//!
//! The state is the one at `assumed`. A command is answered when everything before it, and it
//! itself, is in the log.

use std::collections::VecDeque;

use mister_smith_supervisors::Picture;
use serde_json::json;

use super::{Look, executed};
use crate::aggregate::Aggregate;
use crate::aggregate::loading::snapshot_of;
use crate::command::{CommandError, Executed, Request};
use crate::event::{Event, EventId, NewEvent, RecordedEvent, StreamId, Timestamp, Version};
use crate::store::committer::{MAX_BATCH_BYTES, MAX_BATCH_EVENTS};
use crate::store::snapshot::Snapshot;
use crate::store::{
    Append, AppendError, AppendOutcome, Appended, ExpectedVersion, MAX_APPEND_EVENTS,
};

/// A command, and what was tried.
pub(super) struct Work<A: Aggregate> {
    /// It, and who waits.
    pub(super) request: Request<A>,
    /// How often it was decided and not written.
    failures: u32,
    /// Appends of it of which nobody knows whether they are in the log, or will be: the version
    /// that they expected, the id of their first event, and how many they are.
    doubtful: Vec<(Version, EventId, u64)>,
    /// What to answer when it must not be tried again.
    error: Option<CommandError>,
}

/// What a command led to.
enum What {
    /// Events, to be appended.
    Append(Append),
    /// Nothing: it was refused, there was nothing to do, or it was a repeat.
    Nothing(Answer),
}

/// The answer to a command.
pub(super) type Answer = Result<Executed, CommandError>;

/// A command that waits for its answer.
struct Item<A: Aggregate> {
    work: Work<A>,
    what: What,
}

impl<A: Aggregate> Item<A> {
    const fn append(&self) -> Option<&Append> {
        match &self.what {
            What::Append(append) => Some(append),
            What::Nothing(_) => None,
        }
    }
}

/// See the [module](self).
pub(super) struct Pipeline<A: Aggregate> {
    stream: StreamId,
    state: A,
    assumed: Version,
    committed: Version,
    /// With the committer. Only commands that append.
    request: VecDeque<Item<A>>,
    line: VecDeque<Item<A>>,
    /// To be decided again.
    again: VecDeque<Work<A>>,
    /// Looks at the state, which need it to be in the log; commands that come after them wait.
    looks: Vec<Look<A>>,
    postponed: VecDeque<Work<A>>,
    committed_bytes: u64,
    held: Option<Snapshot>,
}

impl<A: Aggregate> Pipeline<A> {
    pub(super) fn new(stream: StreamId, state: A, version: Version) -> Self {
        Self {
            stream,
            state,
            assumed: version,
            committed: version,
            request: VecDeque::new(),
            line: VecDeque::new(),
            again: VecDeque::new(),
            looks: Vec::new(),
            postponed: VecDeque::new(),
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
        self.request.len()
            + self.line.len()
            + self.again.len()
            + self.looks.len()
            + self.postponed.len()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.unanswered() == 0
    }

    pub(super) fn take_committed_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.committed_bytes)
    }

    /// Takes a command in; it comes back if it is to be decided now.
    pub(super) fn admit(&mut self, request: Request<A>) -> Option<Work<A>> {
        let work = Work { request, failures: 0, doubtful: Vec::new(), error: None };
        if self.looks.is_empty() {
            return Some(work);
        }
        self.postponed.push_back(work);
        None
    }

    /// Takes a look in.
    pub(super) fn look(&mut self, look: Look<A>) {
        self.looks.push(look);
    }

    /// Decides a command. If it leads to events the state moves on and the command is in line;
    /// otherwise it comes back with its answer, for [`line_up`](Self::line_up).
    pub(super) fn decide(
        &mut self,
        work: Work<A>,
        at: Timestamp,
        id: impl Fn() -> EventId,
    ) -> Option<(Work<A>, Answer)> {
        let events = match self.state.decide(&work.request.command) {
            Err(rejection) => return Some((work, Err(CommandError::rejected(rejection)))),
            Ok(events) => events,
        };
        if events.is_empty() {
            let answer = Executed {
                stream: self.stream.clone(),
                events: 0,
                version: self.assumed,
                position: None,
                duplicate: false,
            };
            return Some((work, Ok(answer)));
        }
        if events.len() > MAX_APPEND_EVENTS {
            return Some((work, Err(CommandError::TooManyEvents { count: events.len() })));
        }
        let meta = work.request.metadata.to_bytes();
        let encode = |event: &A::Event| {
            event.encode().map(|encoded| NewEvent {
                id: id(),
                event_type: encoded.event_type,
                schema_version: encoded.schema_version,
                codec: encoded.codec,
                data: encoded.data,
                meta: meta.clone(),
                recorded_at: at,
            })
        };
        let encoded = match events.iter().map(encode).collect::<Result<Vec<_>, _>>() {
            Err(error) => return Some((work, Err(CommandError::from(error)))),
            Ok(encoded) => encoded,
        };
        let expected = ExpectedVersion::Exact(self.assumed);
        let mut append = Append::new(self.stream.clone(), expected, encoded);
        append.key = work.request.key;
        self.assumed = self.assumed.plus(events.len() as u64);
        for event in events {
            self.state.evolve(event);
        }
        self.line.push_back(Item { work, what: What::Append(append) });
        None
    }

    /// Puts a command in line that leads to nothing: its answer waits for what it was decided on.
    pub(super) fn line_up(&mut self, work: Work<A>, answer: Answer) {
        self.line.push_back(Item { work, what: What::Nothing(answer) });
    }

    /// While no request is with the committer: answers what waits for nothing. What looks had held
    /// up comes back, to be decided.
    pub(super) fn answer_ready(&mut self) -> VecDeque<Work<A>> {
        while let Some(item) = self.line.pop_front_if(|item| item.append().is_none()) {
            if let What::Nothing(answer) = item.what {
                item.work.request.answer(answer);
            }
        }
        if !self.line.is_empty() {
            return VecDeque::new();
        }
        for look in self.looks.drain(..) {
            look(&self.state, self.committed);
        }
        std::mem::take(&mut self.postponed)
    }

    /// The appends of the next request: as much of the line as fits into one commit. Each is
    /// linked to the one before.
    pub(super) fn next_request(&mut self) -> Vec<Append> {
        let mut appends: Vec<Append> = Vec::new();
        let (mut events, mut bytes) = (0, 0);
        while let Some(append) = self.line.front().and_then(Item::append) {
            events += append.events.len();
            bytes += append.events.iter().map(NewEvent::size).sum::<usize>();
            if !appends.is_empty() && (events > MAX_BATCH_EVENTS || bytes > MAX_BATCH_BYTES) {
                break;
            }
            appends.push(Append { linked: !appends.is_empty(), ..append.clone() });
            self.request.extend(self.line.pop_front());
        }
        appends
    }

    /// Answers the request. Whether all of it was written; if not, what may be tried again waits
    /// for [`restart`](Self::restart).
    pub(super) fn settle(&mut self, outcomes: Vec<AppendOutcome>) -> bool {
        let mut all = true;
        for outcome in outcomes {
            let Some(Item { mut work, what }) = self.request.pop_front() else { break };
            match outcome {
                Ok(appended) => {
                    if appended.duplicate {
                        // A repeat has moved the state, and should not have.
                        all = false;
                    } else {
                        self.written(appended.last_version, &what);
                    }
                    work.request.answer(Ok(executed(appended)));
                }
                Err(error @ AppendError::Conflict { .. }) => {
                    work.failures += 1;
                    work.error = Some(error.into());
                    self.again.push_back(work);
                    all = false;
                }
                Err(error) => {
                    work.request.answer(Err(error.into()));
                    all = false;
                }
            }
        }
        all
    }

    fn written(&mut self, version: Version, what: &What) {
        self.committed = version;
        if let What::Append(append) = what {
            let bytes = append.events.iter().map(NewEvent::size).sum::<usize>();
            self.committed_bytes += bytes as u64;
        }
    }

    /// Answers the whole request with an error: nothing of it was written.
    pub(super) fn refuse_request(&mut self, error: &CommandError) {
        for item in self.request.drain(..) {
            item.work.request.answer(Err(error.clone()));
        }
    }

    /// Takes the request back without knowing whether it was written.
    pub(super) fn doubt_request(&mut self, error: &CommandError) {
        for Item { mut work, what } in self.request.drain(..) {
            if let What::Append(Append {
                expected: ExpectedVersion::Exact(version), events, ..
            }) = what
            {
                let count = events.len() as u64;
                work.doubtful.extend(events.first().map(|event| (version, event.id, count)));
            }
            work.failures += 1;
            work.error = Some(error.clone());
            self.again.push_back(work);
        }
    }

    /// Where to look for doubtful appends: after this version of the stream.
    pub(super) fn doubtful_after(&self) -> Option<Version> {
        let doubtful = self.again.iter().flat_map(|work| &work.doubtful);
        doubtful.map(|(expected, ..)| *expected).min()
    }

    /// Answers the commands whose doubtful appends are among these events of the stream.
    pub(super) fn settle_found(&mut self, events: &[RecordedEvent]) {
        let mut open = VecDeque::with_capacity(self.again.len());
        for work in self.again.drain(..) {
            let found = work.doubtful.iter().find_map(|(_, id, count)| {
                events.iter().find(|event| event.id == *id).map(|event| (event, count - 1))
            });
            let Some((first, more)) = found else {
                open.push_back(work);
                continue;
            };
            work.request.answer(Ok(executed(Appended {
                stream: self.stream.clone(),
                first_version: first.version,
                last_version: first.version.plus(more),
                first_position: first.position,
                last_position: first.position.plus(more),
                duplicate: false,
            })));
        }
        self.again = open;
    }

    /// Begins again with a state that is in the log. What is to be decided again comes back, in
    /// order; what failed more than `retries` times is answered.
    pub(super) fn restart(
        &mut self,
        state: A,
        version: Version,
        retries: u32,
    ) -> VecDeque<Work<A>> {
        self.state = state;
        self.assumed = version;
        self.committed = version;
        self.committed_bytes = 0;
        self.held = None;
        let mut again = std::mem::take(&mut self.again);
        again.extend(self.line.drain(..).map(|item| item.work));
        let mut open = VecDeque::with_capacity(again.len());
        for mut work in again {
            match work.error.take_if(|error| work.failures > retries || !error.is_worth_a_retry()) {
                Some(error) => work.request.answer(Err(error)),
                None => open.push_back(work),
            }
        }
        open
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

    /// A snapshot of the state as it is assumed now; `None` if it cannot be written.
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
