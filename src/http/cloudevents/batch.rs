//! Bodies that are one JSON text: a single event, or an array of them.
//!
//! The text is well-formed as a whole or nothing of it is taken.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::draft::{kind, read_event};
use super::{Item, Limits, ParseError, Reject};

pub(super) fn single<'a>(body: &'a [u8], limits: &Limits) -> Result<Vec<Item<'a>>, ParseError> {
    let text = utf8(body)?;
    let event = if text.len() > limits.max_event_bytes {
        Err(Reject::TooLarge { bytes: text.len(), limit: limits.max_event_bytes })
    } else {
        read_event(text, limits).map_err(|error| ParseError::from_json(&error))?
    };
    Ok(vec![Item { index: 0, line: None, event }])
}

pub(super) fn array<'a>(body: &'a [u8], limits: &Limits) -> Result<Vec<Item<'a>>, ParseError> {
    let text = utf8(body)?;
    let malformed = |error| ParseError::from_json(&error);
    if !text.trim_start().starts_with('[') {
        let other: &RawValue = serde_json::from_str(text).map_err(malformed)?;
        return Err(ParseError::NotAnArray { found: kind(other) });
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let texts = json.deserialize_seq(Elements { limit: limits.max_events }).map_err(malformed)?;
    json.end().map_err(malformed)?;
    let texts = texts.ok_or(ParseError::TooManyEvents { limit: limits.max_events })?;

    let mut items = Vec::with_capacity(texts.len());
    for (index, text) in texts.into_iter().enumerate() {
        let text = text.get();
        let event = if text.len() > limits.max_event_bytes {
            Err(Reject::TooLarge { bytes: text.len(), limit: limits.max_event_bytes })
        } else {
            read_event(text, limits).expect("an element of a well-formed array is well-formed")
        };
        items.push(Item { index, line: None, event });
    }
    Ok(items)
}

fn utf8(body: &[u8]) -> Result<&str, ParseError> {
    std::str::from_utf8(body).map_err(|error| ParseError::from_utf8(body, &error))
}

/// Collects the elements of an array unread, so that the whole array is known to be well-formed
/// before any of them is judged. Keeps at most `limit`: an array of small values must not grow a
/// list many times its own size. `None` if there were more.
struct Elements {
    limit: usize,
}

impl<'a> Visitor<'a> for Elements {
    type Value = Option<Vec<&'a RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        let mut more = false;
        while let Some(element) = seq.next_element()? {
            if elements.len() < self.limit {
                elements.push(element);
            } else {
                more = true;
            }
        }
        Ok((!more).then_some(elements))
    }
}
