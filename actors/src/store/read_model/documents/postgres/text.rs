//! Texts as PostgreSQL can hold them.
//!
//! It has no U+0000 in a `text` or a `jsonb`
//! (<https://www.postgresql.org/docs/15/datatype-json.html>). Anybody who may send an event may
//! send one, so it is written in another way: U+0000 as U+0001 U+0001, and U+0001 as U+0001 U+0002.
//! Nothing else changes. The order of texts stays, byte by byte, so that lists and comparisons are
//! those of SQLite, which holds any text.

use std::borrow::Cow;

/// A plain text, such as an id or an error, as it is stored.
pub(super) fn stored(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte <= 1) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        match char {
            '\0' => out.push_str("\u{1}\u{1}"),
            '\u{1}' => out.push_str("\u{1}\u{2}"),
            other => out.push(other),
        }
    }
    Cow::Owned(out)
}

/// A plain text as it was before [`stored`].
pub(super) fn read(text: &str) -> Cow<'_, str> {
    if !text.contains('\u{1}') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match (char, chars.peek()) {
            ('\u{1}', Some('\u{1}')) => out.push('\0'),
            ('\u{1}', Some('\u{2}')) => out.push('\u{1}'),
            (other, _) => {
                out.push(other);
                continue;
            }
        }
        chars.next();
    }
    Cow::Owned(out)
}

/// JSON as it is stored: its texts and names of fields as [`stored`] gives them.
pub(super) fn stored_json(json: &str) -> Cow<'_, str> {
    swap(json, |code, _| match code {
        0 => Some((r"\u0001\u0001", 0)),
        1 => Some((r"\u0001\u0002", 0)),
        _ => None,
    })
}

/// JSON as it was before [`stored_json`].
pub(super) fn read_json(json: &str) -> Cow<'_, str> {
    swap(json, |code, next| match (code, next) {
        (1, Some(1)) => Some((r"\u0000", ESCAPE)),
        (1, Some(2)) => Some((r"\u0001", ESCAPE)),
        _ => None,
    })
}

/// The length of `\u0000`.
const ESCAPE: usize = 6;

/// What is found at the beginning of `json` if it is an escape of a character below U+0010.
fn escape(json: &str) -> Option<u32> {
    let digits = json.strip_prefix("\\u000")?.get(..1)?;
    u32::from_str_radix(digits, 16).ok()
}

/// Writes some of the escapes of a JSON text in another way. `other` gets one and that behind it,
/// and answers what to write and how much to leave out behind it.
fn swap(
    json: &str,
    other: impl Fn(u32, Option<u32>) -> Option<(&'static str, usize)>,
) -> Cow<'_, str> {
    if !json.contains("\\u000") {
        return Cow::Borrowed(json);
    }
    let (mut out, mut rest) = (String::with_capacity(json.len() + 16), json);
    while let Some(at) = rest.find('\\') {
        let (before, here) = rest.split_at(at);
        out.push_str(before);
        let changed =
            escape(here).and_then(|code| other(code, here.get(ESCAPE..).and_then(escape)));
        rest = match changed {
            Some((text, left_out)) => {
                out.push_str(text);
                &here[ESCAPE + left_out..]
            }
            None => {
                // The backslash and what it is for, or a text of two of them would begin an escape.
                let two = here.char_indices().nth(2).map_or(here.len(), |(at, _)| at);
                out.push_str(&here[..two]);
                &here[two..]
            }
        };
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests;
