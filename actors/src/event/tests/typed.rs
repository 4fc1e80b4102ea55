use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::event::upcast::{self, UpcastError, Upcasters};
use crate::event::{ContentType, EncodedEvent, Event, EventCodecError, Metadata};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Happened {
    Nothing,
    #[serde(rename = "shop.sold: \"much\"")]
    Sold {
        what: String,
        pieces: u32,
        note: Option<String>,
    },
    Wrapped(Details),
    Pair(i64, bool),
    Listed(Vec<u8>),
    Said(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Details {
    tags: BTreeMap<String, f64>,
    nested: Vec<Option<(u8, String)>>,
}

impl Event for Happened {}

fn happened() -> impl Strategy<Value = Happened> {
    let details = (
        prop::collection::btree_map(".*", -1e9..1e9_f64, 0..3),
        prop::collection::vec(prop::option::of((any::<u8>(), ".*")), 0..3),
    );
    prop_oneof![
        Just(Happened::Nothing),
        (".*", any::<u32>(), prop::option::of(".*"))
            .prop_map(|(what, pieces, note)| { Happened::Sold { what, pieces, note } }),
        details.prop_map(|(tags, nested)| Happened::Wrapped(Details { tags, nested })),
        (any::<i64>(), any::<bool>()).prop_map(|(a, b)| Happened::Pair(a, b)),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Happened::Listed),
        ".*".prop_map(Happened::Said),
    ]
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded(event in happened()) {
        let EncodedEvent { event_type, schema_version, codec, data } = event.encode().unwrap();
        prop_assert_eq!(codec, ContentType::MessagePack);
        let back = Happened::decode(&event_type, schema_version, codec, &data).unwrap();
        prop_assert_eq!(&back, &event);
        let json = super::super::typed::payload_value(&event_type, codec, &data).unwrap();
        let json = serde_json::to_vec(&json).unwrap();
        prop_assert_eq!(Happened::decode(&event_type, 1, ContentType::Json, &json).unwrap(), event);
    }

    #[test]
    fn bytes_that_are_no_event_are_refused(data in prop::collection::vec(any::<u8>(), 0..64)) {
        for codec in [ContentType::Json, ContentType::MessagePack, ContentType::Raw] {
            // Any answer but a panic.
            let _ = Happened::decode("wrapped", 1, codec, &data);
        }
    }
}

#[test]
fn names_and_payloads_are_what_serde_says() {
    assert_eq!(
        Happened::event_types().unwrap(),
        ["nothing", "shop.sold: \"much\"", "wrapped", "pair", "listed", "said"]
    );
    let sold = Happened::Sold { what: "tea".to_owned(), pieces: 3, note: None };
    let encoded = sold.encode().unwrap();
    assert_eq!(&*encoded.event_type, "shop.sold: \"much\"");
    let payload: Value = rmp_serde::from_slice(&encoded.data).unwrap();
    assert_eq!(payload, json!({"what": "tea", "pieces": 3, "note": null}));
    assert_eq!(&*Happened::Nothing.encode().unwrap().data, b"\x80");
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Readable {
    #[serde(rename = "said \u{1f600} \"so\"")]
    Said {
        text: String,
    },
    Quiet,
}

impl Event for Readable {
    fn codec(_: &str) -> ContentType {
        ContentType::Json
    }
}

#[test]
fn a_type_can_be_json() {
    let said = Readable::Said { text: "a \"b\"}".to_owned() };
    let encoded = said.encode().unwrap();
    assert_eq!(encoded.codec, ContentType::Json);
    assert_eq!(&*encoded.data, br#"{"text":"a \"b\"}"}"#);
    assert_eq!(
        Readable::decode(&encoded.event_type, 1, ContentType::Json, &encoded.data).unwrap(),
        said
    );
    let quiet = Readable::Quiet.encode().unwrap();
    assert_eq!(&*quiet.data, b"{}");
    assert_eq!(Readable::decode("Quiet", 1, ContentType::Json, b"{}").unwrap(), Readable::Quiet);
}

#[test]
fn what_is_no_event_says_so() {
    #[derive(Serialize, Deserialize)]
    struct Flat {
        a: u8,
    }
    impl Event for Flat {}
    assert!(matches!(Flat::event_types(), Err(EventCodecError::Shape { .. })));

    #[derive(Serialize, Deserialize)]
    struct Two {
        a: u8,
        b: u8,
    }
    impl Event for Two {}
    assert!(matches!(Two { a: 1, b: 2 }.encode(), Err(EventCodecError::Shape { .. })));

    #[derive(Serialize, Deserialize)]
    #[serde(tag = "type")]
    enum Inside {
        A { b: u8 },
    }
    impl Event for Inside {}
    assert!(matches!(Inside::event_types(), Err(EventCodecError::Shape { .. })));

    let error = Happened::decode("unheard", 1, ContentType::Json, b"{}").unwrap_err();
    assert!(error.to_string().contains("unheard"), "{error}");
    let error = Happened::decode("pair", 2, ContentType::Json, b"[1,true]").unwrap_err();
    assert_eq!(
        error.to_string(),
        "pair has schema version 2, this program knows versions up to 1; run the newer program"
    );
}

/// The third shape of an event whose first two are in the log for ever.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Registered {
    #[serde(rename = "user.registered")]
    Registered { first: String, last: String, country: String },
    #[serde(rename = "user.left")]
    Left,
}

impl Event for Registered {
    fn schema_version(event_type: &str) -> u16 {
        if event_type == "user.registered" { 3 } else { 1 }
    }

    fn upcasters() -> Upcasters {
        Upcasters::none()
            .rename("user.signed_up", "user.registered")
            .rename("user.gone", "user.left")
            .step("user.registered", 1, |payload| {
                let name = payload["name"].as_str().unwrap_or_default();
                let (first, last) = name.split_once(' ').unwrap_or((name, ""));
                json!({"first": first, "last": last})
            })
            .step("user.registered", 2, |mut payload| {
                payload["country"] = json!("unknown");
                payload
            })
    }
}

#[test]
fn old_payloads_stay_readable_for_ever() {
    // Never edited: these bytes are in somebody's log.
    let fixtures = include_str!("../../../tests/data/old_payloads.json");
    let fixtures: Vec<Value> = serde_json::from_str(fixtures).unwrap();
    for one in &fixtures {
        let codec = match one["codec"].as_str().unwrap() {
            "json" => ContentType::Json,
            _ => ContentType::MessagePack,
        };
        let hex = one["data_hex"].as_str().unwrap();
        let data: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        let version = u16::try_from(one["schema_version"].as_u64().unwrap()).unwrap();
        let event =
            Registered::decode(one["type"].as_str().unwrap(), version, codec, &data).unwrap();
        let expected = match one["country"].as_str() {
            None => Registered::Left,
            Some(country) => Registered::Registered {
                first: "Ada".to_owned(),
                last: "Lovelace".to_owned(),
                country: country.to_owned(),
            },
        };
        assert_eq!(event, expected, "{one}");
    }
    assert_eq!(fixtures.len(), 7);
}

#[test]
fn a_gap_is_found_before_the_first_command() {
    #[derive(Debug, Serialize, Deserialize)]
    enum Gappy {
        Moved,
    }
    impl Event for Gappy {
        fn schema_version(_: &str) -> u16 {
            4
        }
        fn upcasters() -> Upcasters {
            Upcasters::none().step("Moved", 1, |p| p).step("Moved", 3, |p| p)
        }
    }
    let error = upcast::check::<Gappy>([]).unwrap_err();
    assert!(matches!(
        error,
        EventCodecError::Upcast(UpcastError::Gap { missing: 2, from: 1, to: 4, .. })
    ));
    assert!(error.to_string().contains(".step(\"Moved\", 2, …)"), "{error}");

    upcast::check::<Registered>([("user.signed_up".into(), 2), ("other".into(), 9)]).unwrap();
    let error = upcast::check::<Registered>([("user.registered".into(), 4)]).unwrap_err();
    assert!(matches!(
        error,
        EventCodecError::Upcast(UpcastError::Newer { found: 4, known: 3, .. })
    ));
}

#[test]
fn metadata_follows_the_conversation() {
    let (command, event) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let mut first = Metadata { actor: Some("ada".to_owned()), ..Metadata::default() };
    first.headers.insert("tenant".to_owned(), "7".to_owned());
    let second = first.caused_by(command);
    assert_eq!((second.correlation_id, second.causation_id), (Some(command), Some(command)));
    let third = second.caused_by(event);
    assert_eq!((third.correlation_id, third.causation_id), (Some(command), Some(event)));
    assert_eq!(third.actor.as_deref(), Some("ada"));
    assert_eq!(Metadata::from_bytes(&first.to_bytes()), first);
    assert_eq!(Metadata::default().to_bytes().len(), 0);
    assert_eq!(Metadata::from_bytes(b"\xc1 not of ours"), Metadata::default());
}
