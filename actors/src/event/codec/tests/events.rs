//! Events whose types are in different codecs.

use super::*;
use crate::event::upcast::{self, Upcasters};
use crate::event::{
    Decoder, Event, EventCodecError, EventId, NewEvent, Position, RecordedEvent, StreamId,
    Timestamp, Version, typed,
};

/// As `#[serde(with = …)]` of any format does it: a payload that is bytes to serde.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Mixed {
    Packed { n: u32 },
    Texted { n: u32 },
    Encoded(Bytes),
    Own(u32),
    Odd { n: u32 },
}

impl Event for Mixed {
    fn schema_version(event_type: &str) -> u16 {
        if event_type == "Encoded" { 2 } else { 1 }
    }

    fn codec(event_type: &str) -> ContentType {
        match event_type {
            "Packed" => ContentType::MessagePack,
            "Texted" => ContentType::Json,
            "Encoded" | "Odd" => ContentType::Protobuf,
            _ => ContentType::Avro,
        }
    }

    fn upcasters() -> Upcasters {
        Upcasters::none().by_codec("Encoded", 1).rename("Coded", "Encoded")
    }

    fn encode_payload(&self, _: &str, codec: ContentType) -> Result<Option<Bytes>, CodecError> {
        match self {
            Self::Own(n) if *n > 9 => Err(CodecError::encode(codec, "too large")),
            Self::Own(n) => Ok(Some(vec![b'#'; *n as usize].into())),
            _ => Ok(None),
        }
    }

    fn decode_payload(
        event_type: &str,
        _: u16,
        codec: ContentType,
        data: &[u8],
    ) -> Result<Option<Self>, CodecError> {
        match event_type {
            "Own" if data.iter().all(|byte| *byte == b'#') => {
                Ok(Some(Self::Own(data.len() as u32)))
            }
            "Own" => Err(CodecError::decode(codec, "not only #")),
            _ => Ok(None),
        }
    }
}

fn recorded(event_type: &str, version: u16, codec: ContentType, data: &Bytes) -> RecordedEvent {
    let at = Timestamp::from_micros(1);
    let mut event = NewEvent::new(EventId::default(), event_type, codec, data.clone(), at);
    event.schema_version = version;
    let stream = StreamId::new("s").unwrap();
    RecordedEvent::at(Position::new(1), stream, Version::new(1), event)
}

#[test]
fn each_type_comes_back_from_its_codec_by_either_way() {
    let decoder = Decoder::<Mixed>::new();
    for (event, codec, payload) in [
        (Mixed::Packed { n: 1 }, ContentType::MessagePack, &b"\x81\xa1n\x01"[..]),
        (Mixed::Texted { n: 1 }, ContentType::Json, br#"{"n":1}"#),
        (Mixed::Encoded(Bytes::from_static(b"\x08\x07")), ContentType::Protobuf, b"\x08\x07"),
        (Mixed::Encoded(vec![3; 300].into()), ContentType::Protobuf, &[3; 300]),
        (Mixed::Encoded(vec![3; 70_000].into()), ContentType::Protobuf, &[3; 70_000]),
        (Mixed::Encoded(Bytes::new()), ContentType::Protobuf, b""),
        (Mixed::Own(3), ContentType::Avro, b"###"),
    ] {
        let encoded = event.encode().unwrap();
        assert_eq!((encoded.codec, &encoded.data[..]), (codec, payload));
        let (name, version) = (&encoded.event_type, encoded.schema_version);
        assert_eq!(Mixed::decode(name, version, codec, payload).unwrap(), event);
        assert_eq!(decoder.decode(&recorded(name, version, codec, &encoded.data)).unwrap(), event);
    }
}

#[test]
fn what_a_codec_cannot_write_or_read_says_so() {
    let odd = Mixed::Odd { n: 1 }.encode().unwrap_err();
    assert_eq!(
        odd.to_string(),
        "event type Odd is to be written in Protobuf, but is no bytes to serde; give its variant \
         `#[serde(with = …)]`, or write it in `encode_payload`"
    );
    let own = Mixed::Own(10).encode().unwrap_err();
    assert!(own.to_string().ends_with("the value cannot be written as Avro: too large"), "{own}");
    let own = Mixed::decode("Own", 1, ContentType::Avro, b"?").unwrap_err();
    assert!(own.to_string().ends_with("not only #"), "{own}");
    let none = Mixed::decode("Packed", 1, ContentType::Avro, b"?").unwrap_err();
    assert!(none.to_string().starts_with("the payload is no Packed: in Avro: "), "{none}");
    let value = typed::payload_value("Own", ContentType::Avro, b"#").unwrap_err();
    assert_eq!(value.to_string(), "the payload is no Own: Avro cannot be read without its schema");
}

#[test]
fn older_versions_and_names_are_the_codecs_own_matter() {
    upcast::check::<Mixed>([("Encoded".into(), 1), ("Coded".into(), 2)]).unwrap();
    let data = Bytes::from_static(b"\x08\x07");
    let wanted = Mixed::Encoded(data.clone());
    for (name, version) in [("Encoded", 1), ("Coded", 1), ("Coded", 2)] {
        let proto = ContentType::Protobuf;
        assert_eq!(Mixed::decode(name, version, proto, &data).unwrap(), wanted);
        let event = recorded(name, version, proto, &data);
        assert_eq!(Decoder::<Mixed>::new().decode(&event).unwrap(), wanted);
    }
    let newer = Mixed::decode("Encoded", 3, ContentType::Protobuf, &data).unwrap_err();
    assert!(matches!(newer, EventCodecError::Upcast(_)), "{newer}");
}

#[test]
fn a_step_for_values_does_not_pass_over_bytes() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Stepped {
        Encoded(Bytes),
    }
    impl Event for Stepped {
        fn schema_version(_: &str) -> u16 {
            2
        }
        fn upcasters() -> Upcasters {
            Upcasters::none().step("Encoded", 1, |payload| payload)
        }
    }
    let error = Stepped::decode("Encoded", 1, ContentType::Protobuf, b"").unwrap_err();
    assert!(error.to_string().contains("use `.by_codec(\"Encoded\", 1)`"), "{error}");
}

#[cfg(feature = "codec-protobuf")]
#[test]
fn a_prost_message_is_a_variant() {
    use super::protobuf::{ProtoSample, proto};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Proto {
        #[serde(with = "crate::event::codec::protobuf::as_bytes")]
        Sample(ProtoSample),
    }
    impl Event for Proto {
        fn codec(_: &str) -> ContentType {
            ContentType::Protobuf
        }
    }
    let event = Proto::Sample(proto(sample(), vec![0, -1, 1, i32::MIN, i32::MAX]));
    let encoded = event.encode().unwrap();
    assert_eq!(&encoded.data[..], include_bytes!("../golden/sample.binpb"));
    let back = Proto::decode("Sample", 1, ContentType::Protobuf, &encoded.data).unwrap();
    assert_eq!(back, event);
    let cut = Proto::decode("Sample", 1, ContentType::Protobuf, &encoded.data[..5]).unwrap_err();
    assert!(cut.to_string().contains("the bytes are not this value in Protobuf"), "{cut}");
}

/// Messages of other processes are decoded as events are: what they hold is from outside.
#[test]
fn an_event_that_is_nested_too_deep_does_not_overflow_the_stack() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Deep {
        Listed(Listed),
    }
    impl Event for Deep {}
    let packed = [0x91; 100_000];
    let error = Deep::decode("Listed", 1, ContentType::MessagePack, &packed).unwrap_err();
    assert!(error.to_string().contains("depth limit"), "{error}");
    let value = typed::payload_value("Listed", ContentType::MessagePack, &packed).unwrap_err();
    assert!(value.to_string().contains("depth limit"), "{value}");
    let text = "[".repeat(100_000);
    let error = Deep::decode("Listed", 1, ContentType::Json, text.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("recursion limit"), "{error}");
    assert!(typed::payload_value("Listed", ContentType::Json, text.as_bytes()).is_err());
}
