//! Who gets a subject: a trie of tokens, and the answers it gave last.
//!
//! Publishing asks the cache first; an answer is good until the next subscription comes or goes.
//! With more subjects than it holds those that are asked for often stay in it (S3-FIFO: Yang and
//! others, "FIFO queues are all you need for cache eviction", SOSP 2023).
//! The trie is that of nats-server (`server/sublist.go`): tokens, with `*` and `>` beside them.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use indexmap::IndexMap;
use quick_cache::sync::Cache;

use super::sink::Route;
use super::subject::{Pattern, Subject};

/// Answers that are kept. A node with more subjects than this asks the trie for some of them.
const CACHED: usize = 4_096;

/// The routes of one bus.
pub(super) struct Routes {
    trie: RwLock<Trie>,
    /// Counts changes of the trie: answers of another generation are stale.
    generation: AtomicU64,
    cache: Cache<Subject, Known>,
}

/// Who gets a subject, as of a generation.
#[derive(Clone, Default)]
pub(super) struct Known {
    generation: u64,
    pub(super) targets: Arc<Targets>,
}

/// Who gets a message.
#[derive(Default)]
pub(super) struct Targets {
    /// Each of these, in the order in which they subscribed.
    pub(super) each: Vec<Arc<Route>>,
    /// One of each of these.
    pub(super) groups: Vec<Group>,
}

/// Subscriptions that share the messages.
pub(super) struct Group {
    pub(super) members: Vec<Arc<Route>>,
    /// Who is asked first among those with equal queues.
    pub(super) turn: AtomicUsize,
}

#[derive(Default)]
struct Trie {
    root: Node,
    by_name: IndexMap<Arc<str>, Arc<Route>>,
}

#[derive(Default)]
struct Node {
    tokens: IndexMap<Box<str>, Node>,
    one: Option<Box<Node>>,
    here: Vec<Arc<Route>>,
    /// Patterns that end with `>` here.
    rest: Vec<Arc<Route>>,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.one.is_none() && self.here.is_empty() && self.rest.is_empty()
    }

    fn insert(&mut self, tokens: &mut std::str::Split<'_, char>, route: Arc<Route>) {
        match tokens.next() {
            None => self.here.push(route),
            Some(">") => self.rest.push(route),
            Some("*") => self.one.get_or_insert_default().insert(tokens, route),
            Some(token) => self.tokens.entry(token.into()).or_default().insert(tokens, route),
        }
    }

    fn remove(&mut self, tokens: &mut std::str::Split<'_, char>, name: &str) {
        match tokens.next() {
            None => self.here.retain(|route| &*route.name != name),
            Some(">") => self.rest.retain(|route| &*route.name != name),
            Some("*") => {
                if let Some(one) = &mut self.one {
                    one.remove(tokens, name);
                    if one.is_empty() {
                        self.one = None;
                    }
                }
            }
            Some(token) => {
                if let Some(node) = self.tokens.get_mut(token) {
                    node.remove(tokens, name);
                    if node.is_empty() {
                        self.tokens.swap_remove(token);
                    }
                }
            }
        }
    }

    fn collect(&self, mut tokens: std::str::Split<'_, char>, into: &mut Vec<Arc<Route>>) {
        let Some(token) = tokens.next() else {
            into.extend_from_slice(&self.here);
            return;
        };
        into.extend_from_slice(&self.rest);
        if let Some(node) = self.tokens.get(token) {
            node.collect(tokens.clone(), into);
        }
        if let Some(one) = &self.one {
            one.collect(tokens, into);
        }
    }
}

impl Routes {
    pub(super) fn new() -> Self {
        // An answer of the generation 0 is one that nobody has asked for yet.
        let generation = AtomicU64::new(1);
        Self { trie: RwLock::default(), generation, cache: Cache::new(CACHED) }
    }

    /// Adds a subscription. `false` if there is one of that name.
    pub(super) fn insert(&self, route: Arc<Route>) -> bool {
        let mut trie = self.trie.write().unwrap_or_else(PoisonError::into_inner);
        if trie.by_name.contains_key(&route.name) {
            return false;
        }
        trie.by_name.insert(Arc::clone(&route.name), Arc::clone(&route));
        let pattern = route.pattern.clone();
        trie.root.insert(&mut pattern.as_str().split('.'), route);
        self.changed();
        true
    }

    /// Removes a subscription by name.
    pub(super) fn remove(&self, name: &str) -> Option<Arc<Route>> {
        let mut trie = self.trie.write().unwrap_or_else(PoisonError::into_inner);
        let route = trie.by_name.shift_remove(name)?;
        trie.root.remove(&mut route.pattern.as_str().split('.'), name);
        self.changed();
        Some(route)
    }

    /// Removes all.
    pub(super) fn clear(&self) {
        *self.trie.write().unwrap_or_else(PoisonError::into_inner) = Trie::default();
        self.changed();
        self.cache.clear();
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// A subscription by name.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Route>> {
        self.trie.read().unwrap_or_else(PoisonError::into_inner).by_name.get(name).cloned()
    }

    /// All subscriptions, in the order in which they came.
    pub(super) fn all(&self) -> Vec<Arc<Route>> {
        let trie = self.trie.read().unwrap_or_else(PoisonError::into_inner);
        trie.by_name.values().cloned().collect()
    }

    /// Who gets a message to a subject.
    pub(super) fn targets(&self, subject: &Subject) -> Arc<Targets> {
        // Read before the trie: an answer is at least as new as its generation says.
        let generation = self.generation.load(Ordering::Acquire);
        if let Some(known) = self.cache.get(subject)
            && known.generation == generation
        {
            return known.targets;
        }
        let targets = Arc::new(self.search(subject));
        self.cache.insert(subject.clone(), Known { generation, targets: Arc::clone(&targets) });
        targets
    }

    /// The same for somebody who keeps the answer himself.
    pub(super) fn refresh(&self, subject: &Subject, known: &mut Known) {
        let generation = self.generation.load(Ordering::Acquire);
        if known.generation != generation {
            *known = Known { generation, targets: self.targets(subject) };
        }
    }

    fn search(&self, subject: &Subject) -> Targets {
        let mut found = Vec::new();
        let trie = self.trie.read().unwrap_or_else(PoisonError::into_inner);
        match subject.is_system() {
            false => trie.root.collect(subject.as_str().split('.'), &mut found),
            true => {
                let mut tokens = subject.as_str().split('.');
                let node = tokens.next().and_then(|token| trie.root.tokens.get(token));
                if let Some(node) = node {
                    node.collect(tokens, &mut found);
                }
            }
        }
        drop(trie);
        found.sort_unstable_by_key(|route| route.number);
        let mut targets = Targets::default();
        let mut groups: IndexMap<Arc<str>, Vec<Arc<Route>>> = IndexMap::new();
        for route in found {
            match &route.group {
                None => targets.each.push(route),
                Some(group) => groups.entry(Arc::clone(group)).or_default().push(route),
            }
        }
        let group = |members| Group { members, turn: AtomicUsize::new(0) };
        targets.groups = groups.into_values().map(group).collect();
        targets
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patterns: Vec<Pattern> = self.all().iter().map(|route| route.pattern.clone()).collect();
        f.debug_struct("Routes").field("patterns", &patterns).finish_non_exhaustive()
    }
}
