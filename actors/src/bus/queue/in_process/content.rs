//! What is in a queue in memory, and how far its groups are. Nothing here waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use indexmap::IndexMap;
use tokio::time::Instant;

use super::{GroupStatus, QueueOptions};
use crate::bus::queue::Retention;
use crate::bus::wire::WireMessage;
use crate::event::Timestamp;

/// A message, and when it was taken: for its age, and by the time of day.
#[derive(Clone)]
pub(super) struct Kept {
    since: Instant,
    pub(super) at: Option<Timestamp>,
    pub(super) message: WireMessage,
}

impl Kept {
    fn is_expired(&self, now: Instant) -> bool {
        self.message.ttl().is_some_and(|ttl| now.duration_since(self.since) >= ttl)
    }
}

#[derive(Default)]
pub(super) struct Content {
    /// The number of the first message that is kept, from 0.
    first: u64,
    messages: VecDeque<Kept>,
    bytes: u64,
    ids: Ids,
    groups: BTreeMap<Arc<str>, Group>,
}

struct Group {
    /// The number of the next message that none of its members has had.
    next: u64,
    pending: BTreeMap<u64, Pending>,
    seen: Option<Timestamp>,
}

struct Pending {
    due: Instant,
    delivered: u64,
}

/// The ids of what was sent lately, in the order in which they came.
#[derive(Default)]
struct Ids {
    known: IndexMap<Arc<str>, u64>,
    by_age: VecDeque<(Instant, Arc<str>)>,
}

impl Ids {
    fn forget(&mut self, options: &QueueOptions, now: Instant) {
        while let Some((at, id)) = self.by_age.front()
            && now.duration_since(*at) >= options.dedupe_within
        {
            self.known.swap_remove(id);
            self.by_age.pop_front();
        }
    }

    fn learn(&mut self, id: &str, number: u64, now: Instant) {
        let id: Arc<str> = id.into();
        self.known.insert(Arc::clone(&id), number);
        self.by_age.push_back((now, id));
    }
}

impl Content {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// The number after the last message's; also how many were ever put in.
    pub(super) fn end(&self) -> u64 {
        self.first + self.messages.len() as u64
    }

    pub(super) fn detail(&self) -> String {
        format!("{} messages of {} bytes", self.messages.len(), self.bytes)
    }

    /// Removes what is too old, and what every group is done with.
    pub(super) fn trim(&mut self, options: &QueueOptions, now: Instant) {
        while let Some(kept) = self.messages.front() {
            let handled =
                |group: &Group| group.next > self.first && !group.pending.contains_key(&self.first);
            let done = options.retention == Retention::Work
                && !self.groups.is_empty()
                && self.groups.values().all(handled);
            if !done && now.duration_since(kept.since) < options.max_age {
                break;
            }
            self.drop_first();
        }
        self.ids.forget(options, now);
    }

    fn drop_first(&mut self) {
        let Some(kept) = self.messages.pop_front() else { return };
        self.bytes -= kept.message.size() as u64;
        for group in self.groups.values_mut() {
            group.pending.remove(&self.first);
            group.next = group.next.max(self.first + 1);
        }
        self.first += 1;
    }

    /// Puts a message in; answers how many were ever put in. `Err` of the same for one that is
    /// there already, `Err(0)` if there is no room.
    pub(super) fn put(
        &mut self,
        options: &QueueOptions,
        message: &WireMessage,
        now: Instant,
        at: Option<Timestamp>,
    ) -> Result<u64, u64> {
        if let Some(number) = self.ids.known.get(&*message.id) {
            return Err(*number);
        }
        let size = message.size() as u64;
        let full = |content: &Self| {
            content.messages.len() as u64 >= options.max_messages
                || content.bytes + size > options.max_bytes
        };
        while options.retention == Retention::Log && !self.messages.is_empty() && full(self) {
            self.drop_first();
        }
        if full(self) {
            return Err(0);
        }
        self.bytes += size;
        self.messages.push_back(Kept { since: now, at, message: message.clone() });
        let number = self.end();
        if !message.id.is_empty() {
            self.ids.learn(&message.id, number, now);
        }
        Ok(number)
    }

    /// Gives a member of a group what is due, and what none has had: number, delivery, message.
    pub(super) fn take(
        &mut self,
        group: &Arc<str>,
        max: usize,
        now: Instant,
        due: Instant,
        seen: Option<Timestamp>,
    ) -> Vec<(u64, u64, Kept)> {
        let (first, end) = (self.first, self.end());
        let group = self.groups.entry(Arc::clone(group)).or_insert_with(|| Group {
            next: first,
            pending: BTreeMap::new(),
            seen: None,
        });
        let again = group.pending.iter().filter(|(_, pending)| pending.due <= now);
        let mut numbers: Vec<u64> = again.map(|(number, _)| *number).take(max).collect();
        while numbers.len() < max && group.next < end {
            numbers.push(group.next);
            group.next += 1;
        }
        if !numbers.is_empty() {
            group.seen = seen;
        }
        let mut taken = Vec::with_capacity(numbers.len());
        for number in numbers {
            let pending = group.pending.entry(number).or_insert(Pending { due, delivered: 0 });
            pending.due = due;
            pending.delivered += 1;
            let at = number.checked_sub(first).and_then(|at| usize::try_from(at).ok());
            match at.and_then(|at| self.messages.get(at)) {
                Some(kept) if !kept.is_expired(now) => {
                    taken.push((number, pending.delivered, kept.clone()));
                }
                _ => drop(group.pending.remove(&number)),
            }
        }
        taken
    }

    /// When something of a group is due again.
    pub(super) fn next_due(&self, group: &str) -> Option<Instant> {
        self.groups.get(group)?.pending.values().map(|pending| pending.due).min()
    }

    /// Whether this delivery is still the last one of its message.
    pub(super) fn has(
        &mut self,
        group: &str,
        number: u64,
        delivered: u64,
        seen: Option<Timestamp>,
    ) -> bool {
        let Some(group) = self.groups.get_mut(group) else { return false };
        group.seen = seen;
        group.pending.get(&number).is_some_and(|pending| pending.delivered == delivered)
    }

    pub(super) fn done(&mut self, group: &str, number: u64) {
        if let Some(group) = self.groups.get_mut(group) {
            group.pending.remove(&number);
        }
    }

    pub(super) fn delay(&mut self, group: &str, number: u64, due: Instant) {
        let group = self.groups.get_mut(group);
        if let Some(pending) = group.and_then(|group| group.pending.get_mut(&number)) {
            pending.due = due;
        }
    }

    pub(super) fn waiting(&self, group: &str) -> u64 {
        match self.groups.get(group) {
            Some(group) => self.end() - group.next + group.pending.len() as u64,
            None => self.messages.len() as u64,
        }
    }

    pub(super) fn status(&self) -> Vec<GroupStatus> {
        let status = |(name, group): (&Arc<str>, &Group)| GroupStatus {
            name: name.to_string(),
            waiting: self.waiting(name),
            in_flight: group.pending.len() as u64,
            seen: group.seen,
        };
        self.groups.iter().map(status).collect()
    }

    pub(super) fn remove(&mut self, group: &str) -> bool {
        self.groups.remove(group).is_some()
    }
}
