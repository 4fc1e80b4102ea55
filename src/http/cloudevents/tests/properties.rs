//! Laws that hold for any body.

use base64::Engine as _;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

/// A JSON value of modest size.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            btree_map("\\PC{0,6}", inner, 0..6).prop_map(|map| Value::Object(Map::from_iter(map))),
        ]
    })
}

#[derive(Debug, Clone)]
struct Sent {
    id: String,
    source: String,
    type_: String,
    subject: Option<String>,
    time: Option<jiff::Timestamp>,
    data: Option<Result<Value, Vec<u8>>>,
    extensions: std::collections::BTreeMap<String, Value>,
}

/// Any event that keeps the rules.
fn any_event() -> impl Strategy<Value = Sent> {
    let known = ["id", "source", "type", "subject", "time", "data", "dataschema"];
    let known = move |name: &String| !known.contains(&name.as_str());
    let value = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    let data = prop_oneof![any_json().prop_map(Ok), any::<Vec<u8>>().prop_map(Err)];
    (
        "\\PC{1,20}",
        "[!-~äß]{1,40}",
        "\\PC{1,20}",
        option::of("\\PC{1,40}"),
        option::of(
            (0..4_000_000_000_000_i64)
                .prop_map(|ms| jiff::Timestamp::from_millisecond(ms).unwrap()),
        ),
        option::of(data),
        btree_map(
            "[a-z0-9]{1,9}".prop_filter("an attribute of the specification", known),
            value,
            0..4,
        ),
    )
        .prop_map(|(id, source, type_, subject, time, data, extensions)| Sent {
            id,
            source,
            type_,
            subject,
            time,
            data,
            extensions,
        })
}

impl Sent {
    fn to_json(&self) -> Value {
        let mut event = json!({
            "specversion": "1.0", "id": self.id, "source": self.source, "type": self.type_,
            // Absent ones go out as null, which says the same.
            "subject": self.subject, "time": self.time,
        });
        for (name, value) in &self.extensions {
            event[name] = value.clone();
        }
        match &self.data {
            None => {}
            Some(Ok(json)) => event["data"] = json.clone(),
            Some(Err(bytes)) => {
                let text = base64::engine::general_purpose::STANDARD.encode(bytes);
                event["data_base64"] = text.into();
            }
        }
        event
    }

    fn assert_is(&self, event: &CloudEvent<'_>) {
        assert_eq!((&*event.id, &*event.source), (&*self.id, &*self.source));
        assert_eq!(event.type_, self.type_);
        assert_eq!(event.subject, self.subject.as_deref().map(Cow::Borrowed));
        assert_eq!(event.stream_name(), self.subject.as_ref().unwrap_or(&self.source));
        assert_eq!(event.time.as_ref().map(Time::timestamp), self.time);
        match (&self.data, &event.data) {
            (None, None) => {}
            (Some(Ok(sent)), Some(Data::Json(got))) => assert_eq!(got.get(), sent.to_string()),
            (Some(Err(sent)), Some(Data::Binary(got))) => assert_eq!(got, sent),
            (sent, got) => panic!("sent {sent:?}, got {got:?}"),
        }
        let got = event.extensions.iter().map(|(name, value)| {
            let value = match value {
                ExtensionValue::String(text) => json!(text),
                ExtensionValue::Number(digits) => digits.parse::<i32>().unwrap().into(),
                ExtensionValue::Bool(bool) => json!(bool),
            };
            (name.to_string(), value)
        });
        assert!(got.eq(self.extensions.clone()));
    }
}

proptest! {
    #[test]
    fn an_event_comes_out_as_it_went_in(sent in any_event()) {
        let text = sent.to_json().to_string();
        let batch = format!("[{text} ,{text}]");
        for (content_type, body, count) in [(SINGLE, &text, 1), (NDJSON, &text, 1), (BATCH, &batch, 2)] {
            let parsed = parse(content_type, body.as_bytes(), &Limits::default()).unwrap();
            prop_assert_eq!(parsed.items.len(), count);
            for item in parsed.items {
                sent.assert_is(&item.event.unwrap());
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(body: Vec<u8>) {
        for content_type in [SINGLE, BATCH, NDJSON] {
            let _ = parse(content_type, &body, &Limits::default());
        }
    }

    /// Nearer to the truth than noise: a good body with a few bytes changed.
    #[test]
    fn damaged_bodies_never_panic(
        events in vec(any_event(), 1..3),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let texts: Vec<_> = events.iter().map(|event| event.to_json().to_string()).collect();
        for (content_type, body) in [
            (SINGLE, texts[0].clone()),
            (BATCH, format!("[{}]", texts.join(","))),
            (NDJSON, texts.join("\n")),
        ] {
            let mut body = body.into_bytes();
            for (place, byte) in &damage {
                let place = place.index(body.len());
                body[place] = *byte;
            }
            let _ = parse(content_type, &body, &Limits::default());
        }
    }

    /// Whatever is broken in some lines, each line has its item, in its place.
    #[test]
    fn as_many_items_as_lines(
        lines in vec(prop_oneof![
            any_event().prop_map(|event| (Some(event.clone()), event.to_json().to_string().into_bytes())),
            any_event().prop_map(|event| {
                let text = event.to_json().to_string();
                (None, text.as_bytes()[..text.len() - 1].to_vec())
            }),
            "[^{\r\n]\\PC{0,20}".prop_filter("blank", |text| !text.trim().is_empty() && !text.starts_with('\u{feff}'))
                .prop_map(|text| (None, text.into_bytes())),
            // A byte order mark at the very beginning is none of the lines.
            vec(128..=255_u8, 1..9).prop_filter("BOM", |bytes| !bytes.starts_with(&[0xef, 0xbb, 0xbf]))
                .prop_map(|bytes| (None, bytes)),
        ], 0..12),
        ending in prop_oneof![Just("\n"), Just("\r\n"), Just("\n\n")],
    ) {
        let body: Vec<u8> = lines.iter().flat_map(|(_, line)| [line, ending.as_bytes()].concat()).collect();
        let parsed = parse(NDJSON, &body, &Limits::default()).unwrap();
        prop_assert_eq!(parsed.items.len(), lines.len());
        for (index, (item, (sent, _))) in parsed.items.iter().zip(&lines).enumerate() {
            prop_assert_eq!(item.index, index);
            prop_assert_eq!(item.line, Some(1 + index * ending.matches('\n').count()));
            match (&item.event, sent) {
                (Ok(event), Some(sent)) => sent.assert_is(event),
                (Err(_), None) => {}
                (event, sent) => panic!("sent {sent:?}, got {event:?}"),
            }
        }
    }

    /// The fast bound and the exact count agree with a parser that counts by recursion.
    #[test]
    fn depth_is_what_it_is(data in any_json(), limit in 1..6_usize) {
        fn depth(value: &Value) -> usize {
            match value {
                Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
                Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
                _ => 0,
            }
        }
        let body = event_with(&format!(r#""data":{data}"#));
        let limits = Limits { max_depth: limit, ..Limits::default() };
        let parsed = parse(SINGLE, body.as_bytes(), &limits).unwrap();
        let fits = !matches!(parsed.items[0].event, Err(Reject::TooDeep { .. }));
        // The event's own object is one level more.
        prop_assert_eq!(fits, depth(&data) < limit);
    }
}
