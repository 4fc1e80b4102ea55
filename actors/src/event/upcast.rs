//! Upcasting: old payloads, read as if they had been written today.
//!
//! Nothing in the log is ever rewritten. A type whose schema changed gets a higher version and a
//! step from the version before; a payload of any older version goes through all steps between.
//! [`check`] finds out at the start, before the first command, whether the log holds a version
//! that no chain of steps leads away from.
//!
//! ```
//! use mister_smith_actors::event::upcast::Upcasters;
//! use serde_json::{Value, json};
//!
//! let steps = Upcasters::none()
//!     // Version 1 had one name, version 2 has two.
//!     .step("user.registered", 1, |mut payload: Value| {
//!         let name = payload["name"].as_str().unwrap_or_default().to_owned();
//!         let (first, last) = name.split_once(' ').unwrap_or((&name, ""));
//!         payload["first_name"] = json!(first);
//!         payload["last_name"] = json!(last);
//!         payload
//!     });
//! let (_, now) = steps.upcast("user.registered", 1, 2, json!({"name": "Ada Lovelace"}))?;
//! assert_eq!(now["last_name"], "Lovelace");
//! # Ok::<(), mister_smith_actors::event::upcast::UpcastError>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::{Event, EventCodecError};

/// From one schema version to the next one.
#[derive(Clone)]
enum Step {
    Change(Arc<dyn Fn(Value) -> Value + Send + Sync>),
    /// Whoever reads the newer version reads this one too.
    None,
}

/// The steps from older schema versions to newer ones, by type. Cheap to clone.
///
/// A step is a pure function of the payload as JSON, and cannot fail: what it does not know it
/// leaves alone, and the decoding at the end says what is wrong. Bytes in a MessagePack payload
/// cannot pass through a step; a type that holds bytes needs a new name instead of a new version.
#[derive(Clone, Default)]
pub struct Upcasters {
    steps: BTreeMap<Arc<str>, BTreeMap<u16, Step>>,
    renamed: BTreeMap<Arc<str>, Arc<str>>,
}

impl Upcasters {
    /// No steps: every type is at its first version.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// A step for a type, from version `from` to the one after it.
    #[must_use]
    pub fn step(
        mut self,
        event_type: impl Into<Arc<str>>,
        from: u16,
        step: impl Fn(Value) -> Value + Send + Sync + 'static,
    ) -> Self {
        let step = Step::Change(Arc::new(step));
        self.steps.entry(event_type.into()).or_default().insert(from, step);
        self
    }

    /// Says that what reads a type's version after `from` reads `from` as well: Protobuf by its
    /// rules of compatibility, Avro by resolving the schemas. A step could not change these: it
    /// sees values, and they are bytes.
    #[must_use]
    pub fn by_codec(mut self, event_type: impl Into<Arc<str>>, from: u16) -> Self {
        self.steps.entry(event_type.into()).or_default().insert(from, Step::None);
        self
    }

    /// Reads a type under another name: events of the log that are called `old` are `new` ones,
    /// with the same schema versions.
    #[must_use]
    pub fn rename(mut self, old: impl Into<Arc<str>>, new: impl Into<Arc<str>>) -> Self {
        self.renamed.insert(old.into(), new.into());
        self
    }

    /// The name that a type of the log has today.
    #[must_use]
    pub fn current_name<'a>(&'a self, event_type: &'a str) -> &'a str {
        // A chain of renames ends: each name is followed once at most.
        let mut name = event_type;
        for _ in 0..=self.renamed.len() {
            match self.renamed.get(name) {
                Some(next) => name = next,
                None => break,
            }
        }
        name
    }

    /// Brings a payload of schema version `from` to version `to`.
    ///
    /// # Errors
    /// The version is newer than `to`, or a step is missing.
    pub fn upcast(
        &self,
        event_type: &str,
        from: u16,
        to: u16,
        payload: Value,
    ) -> Result<(Arc<str>, Value), UpcastError> {
        let name = self.current_name(event_type);
        self.check(name, from, to)?;
        let steps = self.steps.get(name).into_iter().flat_map(|steps| steps.range(from..to));
        let payload = steps.fold(payload, |payload, (_, step)| match step {
            Step::Change(change) => change(payload),
            Step::None => payload,
        });
        Ok((Arc::from(name), payload))
    }

    /// The name of a type today, if its codec reads version `from` as version `to`.
    pub(super) fn by_codec_alone<'a>(
        &'a self,
        event_type: &'a str,
        from: u16,
        to: u16,
    ) -> Result<&'a str, UpcastError> {
        let name = self.current_name(event_type);
        self.check(name, from, to)?;
        let mut steps = self.steps.get(name).into_iter().flat_map(|steps| steps.range(from..to));
        match steps.find(|(_, step)| matches!(step, Step::Change(_))) {
            Some((at, _)) => Err(UpcastError::Bytes { event_type: name.to_owned(), at: *at }),
            None => Ok(name),
        }
    }

    fn check(&self, event_type: &str, from: u16, to: u16) -> Result<(), UpcastError> {
        let event_type = || event_type.to_owned();
        if from > to {
            return Err(UpcastError::Newer { event_type: event_type(), found: from, known: to });
        }
        let steps = self.steps.get(&*event_type());
        let missing = (from..to).find(|at| steps.is_none_or(|steps| !steps.contains_key(at)));
        match missing {
            Some(at) => Err(UpcastError::Gap { event_type: event_type(), from, to, missing: at }),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Upcasters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = self.steps.iter().map(|(name, steps)| (name, steps.keys()));
        f.debug_map().entries(steps.map(|(name, keys)| (name, keys.collect::<Vec<_>>()))).finish()
    }
}

/// Why a payload cannot be brought to the current version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UpcastError {
    /// A newer program wrote it.
    #[error(
        "{event_type} has schema version {found}, this program knows versions up to {known}; \
         run the newer program"
    )]
    Newer {
        /// The type.
        event_type: String,
        /// The version in the log.
        found: u16,
        /// The version that this program writes.
        known: u16,
    },
    /// A step is missing.
    #[error(
        "{event_type} cannot be brought from schema version {from} to {to}: there is no step from \
         version {missing}; add `.step({event_type:?}, {missing}, …)` to its upcasters"
    )]
    Gap {
        /// The type.
        event_type: String,
        /// The version in the log, or the first one.
        from: u16,
        /// The version that this program writes.
        to: u16,
        /// The first version without a step.
        missing: u16,
    },
    /// The step is for values, and the payload is in a codec that has none.
    #[error(
        "the step of {event_type} from schema version {at} changes values, but the payload is in a \
         codec that is read by its own schema; use `.by_codec({event_type:?}, {at})`, or read the \
         version in `decode_payload`"
    )]
    Bytes {
        /// The type.
        event_type: String,
        /// The version that the step is from.
        at: u16,
    },
}

/// Checks an enum's chains: from version 1 of each of its types to the current one, and from
/// every version of its types that a log holds.
///
/// # Errors
/// The first gap, or a version of a newer program. The enum's shape, if it is not what events are.
pub fn check<E: Event>(
    recorded: impl IntoIterator<Item = (Arc<str>, u16)>,
) -> Result<(), EventCodecError> {
    let types = E::event_types()?;
    let upcasters = E::upcasters();
    for name in types {
        upcasters.check(name, 1, E::schema_version(name))?;
    }
    for (name, version) in recorded {
        let name = upcasters.current_name(&name);
        if types.contains(&name) {
            upcasters.check(name, version, E::schema_version(name))?;
        }
    }
    Ok(())
}
