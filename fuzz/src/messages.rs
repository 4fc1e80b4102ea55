//! What arrives from the network: messages, events, names.

use std::sync::Arc;

use mister_smith::actors::aggregate::Aggregate;
use mister_smith::actors::bus::wire::WireMessage;
use mister_smith::actors::bus::{Pattern, Subject};
use mister_smith::actors::dead_letter::{DeadLetter, LetterEvent};
use mister_smith::actors::event::{ContentType, Event, Metadata, StreamId};
use mister_smith::http::body::decode_body;
use mister_smith::http::cloudevents::{self, Data, Limits};

use super::{any::Any, parts};

/// A message of a broker: subject, id, and lines of headers, with a NUL between; then the payload.
pub fn wire(data: &[u8]) {
    let [subject, id, headers, payload] = parts(data);
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let mut message = WireMessage::answer(payload.to_vec());
    (message.subject, message.id) = (text(subject), text(id));
    for line in text(headers).lines() {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        message.headers.insert(name.to_owned(), value.to_owned());
    }
    let _ = message.size();
    let as_it_is = message.to_message_as_it_is();
    let plain = message.to_message();
    assert!(plain.is_err() || as_it_is.is_ok());
    if let Ok(message) = message.decompress(1 << 20) {
        assert!(message.payload.len() <= (1 << 20).max(payload.len()));
    }
}

const CODECS: [ContentType; 5] = [
    ContentType::Json,
    ContentType::MessagePack,
    ContentType::Protobuf,
    ContentType::Avro,
    ContentType::Raw,
];

/// Events of dead letters as a log holds them: codec, type, schema version, payload.
pub fn events(data: &[u8]) {
    const TYPES: [&str; 5] = [
        "dead_letter.kept",
        "dead_letter.requeued",
        "dead_letter.returned",
        "dead_letter.settled",
        "dead_letter.purged",
    ];
    let [codec, of, version, data @ ..] = data else { return };
    let codec = CODECS[usize::from(*codec) % CODECS.len()];
    let of = TYPES[usize::from(*of) % TYPES.len()];
    let Ok(event) = LetterEvent::decode(of, u16::from(*version), codec, data) else { return };
    let encoded = event.encode().expect("what was read can be written");
    DeadLetter::default().evolve(event);
    LetterEvent::decode(&encoded.event_type, encoded.schema_version, encoded.codec, &encoded.data)
        .expect("what was written can be read");
}

/// Metadata as a log holds them.
pub fn metadata(data: &[u8]) {
    let read = Metadata::from_bytes(data);
    assert_eq!(Metadata::from_bytes(&read.to_bytes()), read);
}

/// Names that others choose: a subject, a pattern, a stream, a media type.
pub fn names(data: &[u8]) {
    let [subject, pattern, stream, rest] = parts(data);
    let text = |bytes| -> Arc<str> { String::from_utf8_lossy(bytes).into() };
    let (subject, pattern) = (Subject::new(text(subject)), Pattern::new(text(pattern)));
    if let (Ok(subject), Ok(pattern)) = (&subject, &pattern) {
        let _ = pattern.matches(subject);
        assert!(Pattern::all().matches(subject) || subject.is_system());
        let exact = Pattern::new(subject.to_shared()).expect("a subject is a pattern");
        assert!(exact.matches(subject));
    }
    let made = Subject::of([&*text(stream), &*text(rest)]);
    assert_eq!(Subject::new(made.as_str()).as_ref(), Ok(&made));
    if let Ok(stream) = StreamId::new(text(stream)) {
        assert!(stream.as_str().starts_with(stream.category()));
    }
    let _ = ContentType::from_media_type(&text(rest));
}

/// The body of an ingest request, and whether it is compressed.
pub fn cloudevents(data: &[u8]) {
    const TYPES: [&str; 3] = [
        "application/cloudevents+json",
        "application/cloudevents-batch+json",
        "application/x-ndjson",
    ];
    let Some((first, data)) = data.split_first() else { return };
    let content_type = TYPES[usize::from(*first) % TYPES.len()];
    let encoding = (*first >= 128).then_some("gzip");
    let Ok(body) = decode_body(encoding, data, 1 << 20) else { return };
    let Ok(parsed) = cloudevents::parse(Some(content_type), &body, &Limits::default()) else {
        return;
    };
    for item in parsed.items {
        let Ok(event) = item.event else { continue };
        let _ = StreamId::new(event.stream_name());
        if let Some(Data::Json(raw)) = event.data {
            let _: Result<Any, _> = serde_json::from_str(raw.get());
        }
    }
}
