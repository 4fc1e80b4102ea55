//! What is known about an event besides what happened: who, because of what, in which context.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The metadata of an event or a command.
///
/// Written as MessagePack with field names; empty metadata is no bytes at all. What other programs
/// put beside it stays in [`headers`](Self::headers) if it is text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Metadata {
    /// What all messages of one conversation share: set by its first, copied by the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<Uuid>,
    /// The message that directly caused this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<Uuid>,
    /// Who asked for it: a user, a service, an agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// What the command was that led to it, if it came with a
    /// [strict key](crate::command::CommandEnvelope::strict_key).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<u64>,
    /// Anything else.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

impl Metadata {
    /// The metadata of what this message causes: the same conversation and actor, and this
    /// message as the cause. A conversation that has no id yet gets this message's.
    #[must_use]
    pub fn caused_by(&self, id: Uuid) -> Self {
        Self {
            correlation_id: Some(self.correlation_id.unwrap_or(id)),
            causation_id: Some(id),
            actor: self.actor.clone(),
            fingerprint: None,
            headers: BTreeMap::new(),
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Its bytes in the log.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        if self.is_empty() {
            return Bytes::new();
        }
        // Most have two ids and nothing else: about 150 bytes with the names.
        let mut bytes = Vec::with_capacity(192);
        rmp_serde::encode::write_named(&mut bytes, self)
            .expect("texts and UUIDs can be written, and memory does not fail");
        Bytes::from(bytes)
    }

    /// Reads what the log holds; empty metadata if it is not of this kind (ingested events keep
    /// what their sender gave).
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self::default();
        }
        rmp_serde::from_slice(bytes).unwrap_or_default()
    }
}
