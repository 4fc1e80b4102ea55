//! From text to the members of one object, before any rule is applied.
//!
//! Reading fails only on malformed JSON. Every name and value is kept as its raw text, so that a
//! value that is JSON but no good attribute (a number out of range, half a surrogate pair) becomes
//! a reject of its event and not a fault of the body.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{CloudEvent, Limits, Reject};

/// One event from one JSON text of bounded size; the outer error is malformed JSON.
pub(super) fn read_event<'a>(
    text: &'a str,
    limits: &Limits,
) -> Result<Result<CloudEvent<'a>, Reject>, serde_json::Error> {
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
        let other: &RawValue = serde_json::from_str(text)?;
        return Ok(Err(Reject::NotAnObject { found: kind(other) }));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let draft = json.deserialize_map(Members)?;
    json.end()?;
    if is_deeper_than(text, limits.max_depth) {
        return Ok(Err(Reject::TooDeep { limit: limits.max_depth }));
    }
    Ok(draft.and_then(Draft::check))
}

/// The members of an event object, each at most once, values unread.
#[derive(Default)]
pub(super) struct Draft<'a> {
    pub(super) specversion: Option<&'a RawValue>,
    pub(super) id: Option<&'a RawValue>,
    pub(super) source: Option<&'a RawValue>,
    pub(super) type_: Option<&'a RawValue>,
    pub(super) subject: Option<&'a RawValue>,
    pub(super) time: Option<&'a RawValue>,
    pub(super) datacontenttype: Option<&'a RawValue>,
    pub(super) dataschema: Option<&'a RawValue>,
    pub(super) data: Option<&'a RawValue>,
    pub(super) data_base64: Option<&'a RawValue>,
    pub(super) extensions: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Draft<'a> {
    fn add(&mut self, name: &'a RawValue, value: &'a RawValue) -> Result<(), Reject> {
        let Some(name) = string(name) else {
            let problem = "is an attribute name with half a surrogate pair";
            return Err(Reject::invalid(name.get(), problem, "name it with letters a-z and 0-9"));
        };
        let member = match name.as_ref() {
            "specversion" => &mut self.specversion,
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.type_,
            "subject" => &mut self.subject,
            "time" => &mut self.time,
            "datacontenttype" => &mut self.datacontenttype,
            "dataschema" => &mut self.dataschema,
            "data" => &mut self.data,
            "data_base64" => &mut self.data_base64,
            _ => {
                self.extensions.push((name, value));
                return Ok(());
            }
        };
        if member.replace(value).is_some() {
            return Err(Reject::Duplicate { attribute: name.into_owned() });
        }
        Ok(())
    }
}

struct Members;

impl<'a> Visitor<'a> for Members {
    type Value = Result<Draft<'a>, Reject>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a CloudEvent")
    }

    /// Reads on after a fault: whether the text is JSON to its end decides about the whole body.
    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut draft = Draft::default();
        let mut fault = None;
        while let Some((name, value)) = map.next_entry()? {
            if fault.is_none() {
                fault = draft.add(name, value).err();
            }
        }
        Ok(fault.map_or(Ok(draft), Err))
    }
}

/// The text of a JSON string, borrowed unless it has escapes; `None` if it is no string, or none
/// that UTF-8 can hold.
pub(super) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', text.as_bytes()).is_none() {
        return Some(Cow::Borrowed(text));
    }
    serde_json::from_str(raw.get()).ok().map(Cow::Owned)
}

/// What a JSON value is, in words.
pub(super) fn kind(raw: &RawValue) -> &'static str {
    match raw.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// Whether a well-formed JSON text nests deeper than `limit`.
fn is_deeper_than(text: &str, limit: usize) -> bool {
    opening_brackets(text) > limit && depth(text) > limit
}

/// Opening brackets anywhere, in strings too: an upper bound of the depth that costs next to
/// nothing, because it compiles to vector instructions. `[` and `{` differ in one bit.
fn opening_brackets(text: &str) -> usize {
    // 255 of them fit the u8 that each lane counts in.
    let chunks = text.as_bytes().chunks(255);
    chunks
        .map(|part| usize::from(part.iter().map(|b| u8::from(b | 0x20 == b'{')).sum::<u8>()))
        .sum()
}

fn depth(text: &str) -> usize {
    let (mut now, mut deepest) = (0_usize, 0);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                now += 1;
                deepest = deepest.max(now);
            }
            b'}' | b']' => now = now.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => _ = bytes.next(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}
