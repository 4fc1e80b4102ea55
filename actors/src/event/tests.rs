use proptest::prelude::*;

use super::*;

#[test]
fn a_stream_name_is_refused_for_what_it_is() {
    assert_eq!(StreamId::new(""), Err(InvalidStreamId::Empty));
    assert_eq!(StreamId::new("x".repeat(513)), Err(InvalidStreamId::TooLong { length: 513 }));
    assert_eq!(
        StreamId::new("a\nb"),
        Err(InvalidStreamId::Control { character: '\n', at: 1 }),
        "a line break would forge a line of the log"
    );
    assert!(StreamId::new("x".repeat(512)).is_ok());
    assert!(StreamId::new("org/repo'\"%🦀").is_ok());
}

#[test]
fn a_stream_name_from_json_is_checked_too() {
    assert!(serde_json::from_str::<StreamId>("\"order-1\"").is_ok());
    assert!(serde_json::from_str::<StreamId>("\"\"").is_err());
}

#[test]
fn a_time_prints_as_rfc_3339_and_reads_back() {
    let time = Timestamp::from_micros(1_738_312_200_000_001);
    assert_eq!(time.to_string(), "2025-01-31T08:30:00.000001Z");
    assert_eq!("2025-01-31T09:30:00.000001+01:00".parse::<Timestamp>().unwrap(), time);
    assert!("yesterday".parse::<Timestamp>().unwrap_err().to_string().contains("RFC 3339"));
    assert_eq!(Timestamp::from_micros(i64::MAX).to_string(), format!("{} us after 1970", i64::MAX));
}

#[test]
fn the_numbers_of_content_types_are_theirs_for_ever() {
    let all = [
        (ContentType::Raw, 0),
        (ContentType::Json, 1),
        (ContentType::MessagePack, 2),
        (ContentType::Protobuf, 3),
        (ContentType::Avro, 4),
    ];
    for (content_type, code) in all {
        assert_eq!(content_type.code(), code);
        assert_eq!(ContentType::from_code(code), Some(content_type));
        assert_eq!(ContentType::from_media_type(content_type.media_type()), Some(content_type));
    }
    assert_eq!(ContentType::from_code(5), None);
}

#[test]
fn a_media_type_is_known_by_its_other_names_too() {
    for (name, content_type) in [
        ("APPLICATION/JSON;charset=utf-8", ContentType::Json),
        (" application/x-msgpack ", ContentType::MessagePack),
        ("application/vnd.google.protobuf", ContentType::Protobuf),
        ("avro/binary", ContentType::Avro),
    ] {
        assert_eq!(ContentType::from_media_type(name), Some(content_type), "{name}");
    }
    for name in ["", ";", "application/jsonx", "application/xml", "application"] {
        assert_eq!(ContentType::from_media_type(name), None, "{name}");
    }
}

proptest! {
    #[test]
    fn every_time_survives_json_and_message_pack(micros in -60_000_000_000_000_000..250_000_000_000_000_000_i64) {
        let time = Timestamp::from_micros(micros);
        let json = serde_json::to_string(&time).unwrap();
        prop_assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), time);
        let packed = rmp_serde::to_vec(&time).unwrap();
        prop_assert_eq!(rmp_serde::from_slice::<Timestamp>(&packed).unwrap(), time);
    }
}

mod typed;
