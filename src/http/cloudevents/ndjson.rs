//! One event a line: a broken line is one reject, and the lines after it are read as ever.

use memchr::memchr;

use super::draft::read_event;
use super::{CloudEvent, Item, Limits, ParseError, Reject};

pub(super) fn lines<'a>(body: &'a [u8], limits: &Limits) -> Result<Vec<Item<'a>>, ParseError> {
    let mut items = Vec::new();
    let mut rest = body;
    let mut number = 0;
    while !rest.is_empty() {
        number += 1;
        let line;
        (line, rest) = match memchr(b'\n', rest) {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => (rest, &rest[rest.len()..]),
        };
        // JSON's own white space; so a CR in front of the newline needs no care further down.
        if line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')) {
            continue;
        }
        if items.len() == limits.max_events {
            return Err(ParseError::TooManyEvents { limit: limits.max_events });
        }
        items.push(Item { index: items.len(), line: Some(number), event: event(line, limits) });
    }
    Ok(items)
}

fn event<'a>(line: &'a [u8], limits: &Limits) -> Result<CloudEvent<'a>, Reject> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > limits.max_event_bytes {
        return Err(Reject::TooLarge { bytes: line.len(), limit: limits.max_event_bytes });
    }
    let text = std::str::from_utf8(line).map_err(|error| Reject::from_utf8(&error))?;
    read_event(text, limits).unwrap_or_else(|error| Err(Reject::from_json(&error)))
}
