//! CloudEvents 1.0 in JSON, as HTTP brings them: bytes in, checked events out.
//!
//! [`parse`] takes a body in one of three forms and gives one [`Item`] per event, in the order of
//! the body. An event that breaks a rule is a [`Reject`] in its place and costs its neighbours
//! nothing: a batch is never half lost in silence.
//!
//! | content type | body | malformed JSON |
//! |---|---|---|
//! | `application/cloudevents+json` | one object | nothing is taken |
//! | `application/cloudevents-batch+json` | an array of objects | nothing is taken |
//! | `application/x-ndjson` | an object a line, blank lines skipped | that line is rejected |
//!
//! Everything borrows from the body. `data` stays the bytes that were sent ([`RawValue`]): no
//! number is read and written again, so none loses digits.
//!
//! The rules are those of the [CloudEvents 1.0.2] core and JSON format; an attribute that is
//! `null` counts as absent, as the JSON format says. Names are looked at in the event itself only:
//! an object inside `data` may repeat a key, because nobody reads it here.
//!
//! [CloudEvents 1.0.2]: https://github.com/cloudevents/spec/tree/v1.0.2/cloudevents
//!
//! ```
//! use mister_smith::http::cloudevents::{Limits, parse};
//!
//! let body = br#"{"specversion":"1.0","id":"1","source":"/shop","type":"order.placed","data":{"eur":1.10}}
//! {"specversion":"1.0","id":"2","source":"/shop"}"#;
//! let parsed = parse(Some("application/x-ndjson"), body, &Limits::default())?;
//!
//! let first = parsed.items[0].event.as_ref().expect("the first line is complete");
//! assert_eq!(first.stream_name(), "/shop");
//! let second = parsed.items[1].event.as_ref().expect_err("the second line has no type");
//! assert_eq!(second.to_string(), "type is missing; send what happened, such as com.example.order.placed");
//! assert_eq!(parsed.items[1].line, Some(2));
//! # Ok::<(), mister_smith::http::cloudevents::ParseError>(())
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

mod attributes;
mod batch;
mod draft;
mod error;
mod ndjson;
#[cfg(test)]
mod tests;
mod time;

pub use error::{ParseError, Reject};
pub use time::Time;

/// The longest stream name, in bytes. Names are keys of the store and parts of paths.
pub const MAX_STREAM_NAME_BYTES: usize = 512;

/// Bounds on what one request may hold.
///
/// The size of the whole body is bounded before, by [`decode_body`](super::body::decode_body).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Events in one request, good and bad ones. Default 10,000; one more refuses the request.
    pub max_events: usize,
    /// Bytes of one event as sent. Default 1 MiB; a larger one is rejected.
    pub max_event_bytes: usize,
    /// Levels of nesting of one event, its own object being the first. Default 127, the deepest
    /// that serde_json with its default limit of 128 reads back; a deeper one is rejected.
    pub max_depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_events: 10_000, max_event_bytes: 1024 * 1024, max_depth: 127 }
    }
}

/// The form of a body, told by its content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One event: `application/cloudevents+json`.
    Single,
    /// An array of events: `application/cloudevents-batch+json`.
    Batch,
    /// One event a line: `application/x-ndjson`.
    Ndjson,
}

impl Mode {
    /// The form that a `Content-Type` header names; parameters and case do not matter.
    ///
    /// # Errors
    ///
    /// [`ParseError::UnsupportedMediaType`] for any other type, and for none.
    pub fn from_content_type(content_type: Option<&str>) -> Result<Self, ParseError> {
        let given = content_type.unwrap_or_default();
        let essence = given.split(';').next().unwrap_or_default().trim();
        let is = |name: &str| essence.eq_ignore_ascii_case(name);
        if is("application/cloudevents+json") {
            Ok(Self::Single)
        } else if is("application/cloudevents-batch+json") {
            Ok(Self::Batch)
        } else if is("application/x-ndjson") {
            Ok(Self::Ndjson)
        } else {
            Err(ParseError::UnsupportedMediaType { found: error::shown(essence) })
        }
    }
}

/// The events of one body, in its order.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Parsed<'a> {
    /// The form of the body: a reject of a single event is the whole answer, others are listed.
    pub mode: Mode,
    /// One item per event, good or bad.
    pub items: Vec<Item<'a>>,
}

/// One event of a body, or why it is none.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Item<'a> {
    /// Place among the events of the body, from 0.
    pub index: usize,
    /// Line of the body, from 1 and counting blank ones; NDJSON only.
    pub line: Option<usize>,
    /// The event, or the first rule that it breaks.
    pub event: Result<CloudEvent<'a>, Reject>,
}

/// An event that keeps every rule of CloudEvents 1.0, borrowed from its body.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CloudEvent<'a> {
    /// Identifies the event together with `source`; not empty.
    pub id: Cow<'a, str>,
    /// Where it happened, a URI reference; not empty.
    pub source: Cow<'a, str>,
    /// What happened; not empty.
    pub type_: Cow<'a, str>,
    /// What it happened to, within the source; not empty where present.
    pub subject: Option<Cow<'a, str>>,
    /// When it happened.
    pub time: Option<Time<'a>>,
    /// Media type of the data; JSON where absent.
    pub datacontenttype: Option<Cow<'a, str>>,
    /// URI of the schema that the data keeps.
    pub dataschema: Option<Cow<'a, str>>,
    /// The payload.
    pub data: Option<Data<'a>>,
    /// Attributes that the specification does not know, by name.
    pub extensions: BTreeMap<Cow<'a, str>, ExtensionValue<'a>>,
}

impl CloudEvent<'_> {
    /// The stream that the event belongs to: its subject, or its source when there is none.
    ///
    /// At most [`MAX_STREAM_NAME_BYTES`] long, not empty, without control characters.
    pub fn stream_name(&self) -> &str {
        match &self.subject {
            Some(subject) if !subject.is_empty() => subject,
            _ => &self.source,
        }
    }
}

/// The payload of an event: `data` or `data_base64`, never both.
#[derive(Debug, Clone)]
pub enum Data<'a> {
    /// The JSON value as sent, byte for byte, without the white space around it; `null` is one.
    Json(&'a RawValue),
    /// The decoded bytes of `data_base64`.
    Binary(Vec<u8>),
}

/// The value of an extension attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtensionValue<'a> {
    /// A string.
    String(Cow<'a, str>),
    /// A number, in the digits that were sent.
    Number(&'a str),
    /// `true` or `false`.
    Bool(bool),
}

/// Reads a decompressed body into events.
///
/// A byte order mark in front is skipped, as RFC 8259 allows. Positions in errors count from 1,
/// columns in bytes.
///
/// # Errors
///
/// Only what concerns the body as a whole, in which case no event of it may be taken: an unknown
/// content type, malformed JSON outside NDJSON, too many events. Everything else is a [`Reject`]
/// of one event.
pub fn parse<'a>(
    content_type: Option<&str>,
    body: &'a [u8],
    limits: &Limits,
) -> Result<Parsed<'a>, ParseError> {
    let mode = Mode::from_content_type(content_type)?;
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let items = match mode {
        Mode::Single => batch::single(body, limits)?,
        Mode::Batch => batch::array(body, limits)?,
        Mode::Ndjson => ndjson::lines(body, limits)?,
    };
    Ok(Parsed { mode, items })
}
