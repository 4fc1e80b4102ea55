//! What becomes of a request, and of everything that was decided on a state that is no longer good.

use std::collections::VecDeque;

use super::super::check::Earlier;
use super::super::work::{Answer, Item, Lookup, What, Work, executed};
use super::{Checking, First, Pipeline};
use crate::aggregate::Aggregate;
use crate::command::{CommandError, Executed, Freshness};
use crate::event::{RecordedEvent, Version};
use crate::store::{AppendError, AppendOutcome, Appended};

impl<A: Aggregate> Pipeline<A> {
    /// Answers the request. Whether all of it was written; if not, what may be tried again waits
    /// for [`restart`](Self::restart).
    pub(in crate::aggregate::actor) fn settle(&mut self, outcomes: Vec<AppendOutcome>) -> bool {
        let is_written = |outcome: &AppendOutcome| matches!(outcome, Ok(done) if !done.duplicate);
        // The stream was where the first append expected it, after all of these came.
        let proven = outcomes.first().is_some_and(is_written);
        let mut outcomes = outcomes.into_iter();
        let mut all = true;
        for Item { mut work, what } in std::mem::take(&mut self.request) {
            let sent = match what {
                // What was decided before it is in the log.
                What::Verdict(verdict) if all && proven => {
                    self.proven_unless(false, work, verdict);
                    continue;
                }
                What::Verdict(_) | What::Append(_) => {
                    self.again.push_back(work);
                    continue;
                }
                What::Sent(sent) => sent,
            };
            match outcomes.next() {
                Some(Ok(appended)) if appended.duplicate => {
                    // A repeat has moved the state, and should not have.
                    all = false;
                    match work.request.fingerprint {
                        None => self.answer(work, Ok(executed(appended))),
                        Some(_) => self.repeated.push((work, appended)),
                    }
                }
                Some(Ok(appended)) => {
                    self.committed = appended.last_version;
                    self.committed_bytes += sent.bytes as u64;
                    self.answer(work, Ok(executed(appended)));
                }
                Some(Err(error @ AppendError::Conflict { .. })) => {
                    work.failures += 1;
                    work.error = Some(error.into());
                    self.again.push_back(work);
                    all = false;
                }
                Some(Err(error)) => {
                    self.answer(work, Err(error.into()));
                    all = false;
                }
                // An answer to each append is promised.
                None => {
                    self.again.push_back(work);
                    all = false;
                }
            }
        }
        all
    }

    /// Answers a command that led to events, and the repeats of it.
    fn answer(&mut self, work: Work<A>, answer: Answer) {
        if let Some(key) = work.request.key
            && let Some(First { repeats, .. }) = self.keyed.remove(&key)
        {
            self.repeats -= repeats.len();
            for repeat in repeats {
                let answer = answer.clone();
                repeat.answer(answer.map(|first| Executed { duplicate: true, ..first }));
            }
        }
        work.request.answer(answer);
    }

    /// Answers the appends of the request with an error: nothing of it was written.
    pub(in crate::aggregate::actor) fn refuse_request(&mut self, error: &CommandError) {
        for Item { work, what } in std::mem::take(&mut self.request) {
            match what {
                What::Verdict(_) => self.again.push_back(work),
                What::Append(_) | What::Sent(_) => self.answer(work, Err(error.clone())),
            }
        }
    }

    /// Takes the request back without knowing whether it was written.
    pub(in crate::aggregate::actor) fn doubt_request(&mut self, error: &CommandError) {
        for Item { mut work, what } in self.request.drain(..) {
            if let What::Sent(sent) = what {
                work.doubtful.push(sent);
                work.failures += 1;
                work.error = Some(error.clone());
            }
            self.again.push_back(work);
        }
    }

    /// Where to look for doubtful appends: after this version of the stream.
    pub(in crate::aggregate::actor) fn doubtful_after(&self) -> Option<Version> {
        let doubtful = self.again.iter().flat_map(|work| &work.doubtful);
        doubtful.map(|sent| sent.expected).min()
    }

    /// Answers the commands whose doubtful appends are among these events of the stream.
    pub(in crate::aggregate::actor) fn settle_found(&mut self, events: &[RecordedEvent]) {
        for work in std::mem::take(&mut self.again) {
            let found = work.doubtful.iter().find_map(|sent| {
                let first = events.iter().find(|event| event.id == sent.first);
                first.map(|first| (first, sent.events - 1))
            });
            let Some((first, more)) = found else {
                self.again.push_back(work);
                continue;
            };
            let appended = Appended {
                stream: self.stream.clone(),
                first_version: first.version,
                last_version: first.version.plus(more),
                first_position: first.position,
                last_position: first.position.plus(more),
                duplicate: false,
            };
            self.answer(work, Ok(executed(appended)));
        }
    }

    /// Repeats of what is in the log, of which it has to be seen whether they are the same command.
    pub(in crate::aggregate::actor) fn repeated_firsts(&mut self) -> Vec<(Lookup, Appended)> {
        let lookup = |(work, first): &(Work<A>, Appended)| {
            let fingerprint = work.request.fingerprint;
            work.request.key.map(|key| (Lookup { key, fingerprint }, first.clone()))
        };
        self.repeated.iter().filter_map(lookup).collect()
    }

    /// Answers these repeats.
    pub(in crate::aggregate::actor) fn settle_repeated(&mut self, earlier: Vec<Earlier>) {
        for ((work, _), earlier) in std::mem::take(&mut self.repeated).into_iter().zip(earlier) {
            let answer = self.repeat(&earlier);
            self.answer(work, answer);
        }
    }

    /// Begins again with a state that is in the log. What is to be decided again comes back, in
    /// order; what failed more than `retries` times is answered.
    pub(in crate::aggregate::actor) fn restart(
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
        let mut open = VecDeque::with_capacity(self.unanswered());
        for mut work in self.withdraw() {
            match work.error.take_if(|error| work.failures > retries || !error.is_worth_a_retry()) {
                Some(error) => self.answer(work, Err(error)),
                None => open.push_back(work),
            }
        }
        // They find their first again, or are decided for themselves if it leads to nothing now.
        self.repeats = 0;
        let repeats = std::mem::take(&mut self.keyed).into_values().flat_map(|first| first.repeats);
        open.extend(repeats.map(Work::new));
        // They came before the log was read, and the state only goes on from there. Asked again,
        // a stream that another node writes to all the time would never be found where it was.
        for look in self.looks.iter_mut().chain(&mut self.postponed_looks) {
            look.freshness = Freshness::InMemory;
        }
        open
    }

    /// Answers everything with an error, because the log cannot be read.
    pub(in crate::aggregate::actor) fn give_up(&mut self, error: &CommandError) {
        for (work, appended) in std::mem::take(&mut self.repeated) {
            // It is in the log; that it is another command is not known.
            self.answer(work, Ok(executed(appended)));
        }
        let mut given_up = self.withdraw();
        given_up.extend(self.lookups.drain(..).map(|(work, _)| work));
        given_up.append(&mut self.postponed);
        for mut work in given_up {
            // What may be in the log says so.
            let error = work.error.take().unwrap_or_else(|| error.clone());
            self.answer(work, Err(error));
        }
        for look in self.looks.drain(..).chain(self.postponed_looks.drain(..)) {
            (look.look)(Err(error.clone()));
        }
    }

    /// Takes back what was decided on a state that is no longer good.
    fn withdraw(&mut self) -> VecDeque<Work<A>> {
        let mut again = std::mem::take(&mut self.again);
        // The answer to this question will be about another state.
        self.check += 1;
        if let Some(Checking { verdicts, looks }) = self.checking.take() {
            for (work, verdict, _) in verdicts {
                match verdict.unproven {
                    true => again.push_back(work),
                    false => self.lookups.push_back((work, verdict)),
                }
            }
            self.looks.splice(0..0, looks);
        }
        again.extend(self.line.drain(..).map(|item| item.work));
        self.appends = 0;
        again
    }
}
