//! The rules of CloudEvents 1.0, attribute by attribute.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::value::RawValue;

use super::draft::{Draft, kind, string};
use super::{CloudEvent, Data, ExtensionValue, MAX_STREAM_NAME_BYTES, Reject, Time};

impl<'a> Draft<'a> {
    /// The event, if it keeps all rules; else the first one that it breaks.
    pub(super) fn check(self) -> Result<CloudEvent<'a>, Reject> {
        specversion(self.specversion)?;
        let event = CloudEvent {
            id: name("id", self.id, "send one that is unique within its source, such as a UUID")?,
            source: source(self.source)?,
            type_: name(
                "type",
                self.type_,
                "send what happened, such as com.example.order.placed",
            )?,
            subject: subject(self.subject)?,
            time: time(self.time)?,
            datacontenttype: datacontenttype(self.datacontenttype)?,
            dataschema: dataschema(self.dataschema)?,
            data: data(self.data, self.data_base64)?,
            extensions: extensions(self.extensions)?,
        };
        stream_name(&event)?;
        Ok(event)
    }
}

fn specversion(raw: Option<&RawValue>) -> Result<(), Reject> {
    const CURE: &str = r#"send "specversion":"1.0""#;
    let version = required("specversion", raw, CURE)?;
    if version != "1.0" {
        let problem = format!("is {:?}, a version not known here", super::error::shown(&version));
        return Err(Reject::invalid("specversion", problem, CURE));
    }
    Ok(())
}

fn source(raw: Option<&RawValue>) -> Result<Cow<'_, str>, Reject> {
    let source =
        required("source", raw, "send the URI of what produced the event, such as /orders/eu")?;
    uri_reference("source", &source)?;
    Ok(source)
}

fn subject(raw: Option<&RawValue>) -> Result<Option<Cow<'_, str>>, Reject> {
    let subject = optional("subject", raw)?;
    if subject.as_ref().is_some_and(|subject| subject.is_empty()) {
        return Err(Reject::invalid("subject", "is empty", "leave it out, or name the subject"));
    }
    Ok(subject)
}

fn time(raw: Option<&RawValue>) -> Result<Option<Time<'_>>, Reject> {
    let Some(text) = optional("time", raw)? else { return Ok(None) };
    Time::parse(text).map(Some).map_err(|problem| {
        Reject::invalid("time", problem, "send a time such as 2026-01-31T12:34:56.789Z")
    })
}

fn datacontenttype(raw: Option<&RawValue>) -> Result<Option<Cow<'_, str>>, Reject> {
    let text = optional("datacontenttype", raw)?;
    if text.as_ref().is_some_and(|text| !is_media_type(text)) {
        let problem = "is not a media type as in RFC 2046";
        return Err(Reject::invalid(
            "datacontenttype",
            problem,
            "send type/subtype, such as application/json",
        ));
    }
    Ok(text)
}

fn dataschema(raw: Option<&RawValue>) -> Result<Option<Cow<'_, str>>, Reject> {
    let text = optional("dataschema", raw)?;
    if let Some(text) = &text {
        if text.is_empty() {
            let cure = "leave it out, or send the URI of the schema";
            return Err(Reject::invalid("dataschema", "is empty", cure));
        }
        uri_reference("dataschema", text)?;
    }
    Ok(text)
}

fn data<'a>(
    json: Option<&'a RawValue>,
    base64: Option<&'a RawValue>,
) -> Result<Option<Data<'a>>, Reject> {
    const NAME: &str = "data_base64";
    let Some(text) = optional(NAME, base64)? else { return Ok(json.map(Data::Json)) };
    if json.is_some() {
        return Err(Reject::invalid(
            NAME,
            "stands next to data",
            "send one of them: data for JSON and text, data_base64 for bytes",
        ));
    }
    match BASE64.decode(text.as_bytes()) {
        Ok(bytes) => Ok(Some(Data::Binary(bytes))),
        Err(error) => Err(Reject::invalid(
            NAME,
            format!("is not base64: {}", error.to_string().to_lowercase().trim_end_matches('.')),
            "encode the bytes as in RFC 4648 section 4, with padding",
        )),
    }
}

fn extensions<'a>(
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
) -> Result<BTreeMap<Cow<'a, str>, ExtensionValue<'a>>, Reject> {
    let mut extensions = BTreeMap::new();
    for (name, raw) in members {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            let problem = "is not a name that an attribute may have";
            let shown = if name.is_empty() { "the empty string" } else { name.as_ref() };
            return Err(Reject::invalid(shown, problem, "use only a-z and 0-9"));
        }
        // `null` says that the attribute is absent, but it still occupies the name.
        let value = extension(&name, raw)?;
        match extensions.entry(name) {
            Entry::Vacant(entry) => _ = entry.insert(value),
            Entry::Occupied(entry) => {
                return Err(Reject::Duplicate { attribute: super::error::shown(entry.key()) });
            }
        }
    }
    Ok(extensions.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
}

fn extension<'a>(name: &str, raw: &'a RawValue) -> Result<Option<ExtensionValue<'a>>, Reject> {
    let text = raw.get();
    Ok(Some(match text.as_bytes().first() {
        Some(b'n') => return Ok(None),
        Some(b't' | b'f') => ExtensionValue::Bool(text == "true"),
        Some(b'-' | b'0'..=b'9') => ExtensionValue::Number(text),
        Some(b'"') => ExtensionValue::String(string(raw).ok_or_else(|| half_pair(name))?),
        _ => {
            let problem = format!("is {}", kind(raw));
            return Err(Reject::invalid(
                name,
                problem,
                "send a string, a number or a boolean, and structure in data",
            ));
        }
    }))
}

fn stream_name(event: &CloudEvent<'_>) -> Result<(), Reject> {
    let name = event.stream_name();
    let attribute = if event.subject.is_some() { "subject" } else { "source" };
    if name.len() > MAX_STREAM_NAME_BYTES {
        let problem = format!(
            "has {} bytes and names the stream, whose limit is {MAX_STREAM_NAME_BYTES}",
            name.len()
        );
        return Err(Reject::invalid(attribute, problem, "send a shorter subject"));
    }
    no_control(attribute, name)
}

/// A required string that is a name: not empty, and fit to be printed on one line.
fn name<'a>(
    attribute: &'static str,
    raw: Option<&'a RawValue>,
    cure: &'static str,
) -> Result<Cow<'a, str>, Reject> {
    let text = required(attribute, raw, cure)?;
    no_control(attribute, &text)?;
    Ok(text)
}

fn required<'a>(
    attribute: &'static str,
    raw: Option<&'a RawValue>,
    cure: &'static str,
) -> Result<Cow<'a, str>, Reject> {
    match optional(attribute, raw)? {
        None => Err(Reject::Missing { attribute, cure }),
        Some(text) if text.is_empty() => Err(Reject::invalid(attribute, "is empty", cure)),
        Some(text) => Ok(text),
    }
}

fn optional<'a>(
    attribute: &'static str,
    raw: Option<&'a RawValue>,
) -> Result<Option<Cow<'a, str>>, Reject> {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Ok(None) };
    match string(raw) {
        Some(text) => Ok(Some(text)),
        None if raw.get().starts_with('"') => Err(half_pair(attribute)),
        None => {
            let problem = format!("is {}, not a string", kind(raw));
            Err(Reject::invalid(attribute, problem, "put its value in quotes"))
        }
    }
}

fn half_pair(attribute: &str) -> Reject {
    Reject::invalid(attribute, "has half a surrogate pair", "escape both halves, or send UTF-8")
}

/// Control characters are no part of a CloudEvents string, and in a name they break log lines.
fn no_control(attribute: &str, text: &str) -> Result<(), Reject> {
    match text.chars().find(|c| c.is_control()) {
        None => Ok(()),
        Some(c) => {
            let problem = format!("contains the control character U+{:04X}", u32::from(c));
            Err(Reject::invalid(attribute, problem, "remove it"))
        }
    }
}

/// Neither white space nor control characters: what tells a URI reference from prose. The rest of
/// RFC 3986 is left alone, because producers send internationalised references too.
fn uri_reference(attribute: &str, text: &str) -> Result<(), Reject> {
    no_control(attribute, text)?;
    if text.contains(char::is_whitespace) {
        let problem = "is not a URI reference: it contains white space";
        return Err(Reject::invalid(attribute, problem, "encode it as %20, or remove it"));
    }
    Ok(())
}

/// `type/subtype`, then parameters of printable text.
fn is_media_type(text: &str) -> bool {
    let (essence, parameters) = match text.split_once(';') {
        Some((essence, parameters)) => (essence.trim_end(), parameters),
        None => (text, ""),
    };
    let Some((type_, subtype)) = essence.split_once('/') else { return false };
    is_token(type_) && is_token(subtype) && !parameters.contains(char::is_control)
}

/// A token of RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(token)
}
