//! What the commands write: for people, or as JSON.

use std::fmt;
use std::io::{ErrorKind, Write, stdout};

use base64::Engine as _;
use mister_smith_actors::event::typed::payload_value;
use mister_smith_actors::event::{ContentType, Metadata, RecordedEvent};
use serde::Serialize;
use serde_json::{Value, json};

/// Writes to whoever reads. Nobody may be reading any more (`smith … | head -1`): that ends the
/// command and is no error.
pub(super) fn write(text: fmt::Arguments<'_>) -> anyhow::Result<Flow> {
    let mut out = stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Ok(()) => Ok(Flow::Continue),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Flow::End),
        Err(error) => Err(error.into()),
    }
}

/// Whether somebody still reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    End,
}

/// A value as JSON on lines of its own.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<Flow> {
    write(format_args!("{}\n", serde_json::to_string_pretty(value)?))
}

/// The lines of a page of a list, and how the next one is asked for; or that there is nothing.
pub(super) fn page(lines: String, answer: &Value, what: &str) -> String {
    match answer["next"].as_str() {
        Some(next) => format!("{lines}there are more: --after {next}\n"),
        None if lines.is_empty() => format!("no {what}\n"),
        None => lines,
    }
}

/// An event with its payload as JSON, whatever it is stored as; what is none is base64.
pub(super) fn event(event: &RecordedEvent) -> Value {
    let payload = match payload_value(&event.event_type, event.codec, &event.data) {
        Ok(value) => value,
        Err(error) => json!({
            "base64": base64::prelude::BASE64_STANDARD.encode(&event.data),
            "unreadable": error.to_string(),
        }),
    };
    json!({
        "position": event.position,
        "stream": event.stream,
        "version": event.version,
        "type": event.event_type,
        "schema_version": event.schema_version,
        "id": event.id,
        "recorded_at": event.recorded_at.to_string(),
        "codec": event.codec,
        "metadata": metadata(event),
        "payload": payload,
    })
}

/// What is known of an event besides its payload: ours, or what its sender gave.
fn metadata(event: &RecordedEvent) -> Value {
    if event.meta.is_empty() {
        return Value::Null;
    }
    let ours = Metadata::from_bytes(&event.meta);
    if !ours.is_empty() {
        return serde_json::to_value(ours).unwrap_or_default();
    }
    let value = serde_json::from_slice(&event.meta).ok();
    value.or_else(|| payload_value("", Default::default(), &event.meta).ok()).unwrap_or_default()
}

/// One line for people: place, time, stream and version, type, and the payload as far as it fits.
pub(super) fn line(event: &RecordedEvent) -> String {
    let payload = match payload_value(&event.event_type, event.codec, &event.data) {
        Ok(value) => value.to_string(),
        Err(_) if event.codec == ContentType::Raw => format!("{} bytes", event.data.len()),
        Err(_) => format!("{} bytes of {}", event.data.len(), event.codec),
    };
    let mut shown: String = payload.chars().take(100).collect();
    if shown.len() < payload.len() {
        shown.push('…');
    }
    format!(
        "{:>8}  {}  {}/{}  {}  {shown}",
        event.position.get(),
        event.recorded_at,
        event.stream,
        event.version,
        event.event_type
    )
}
