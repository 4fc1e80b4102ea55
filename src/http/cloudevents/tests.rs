use super::*;
use crate::http::body::decode_body;

mod properties;

const SINGLE: Option<&str> = Some("application/cloudevents+json");
const BATCH: Option<&str> = Some("application/cloudevents-batch+json");
const NDJSON: Option<&str> = Some("application/x-ndjson");

/// The smallest event that keeps the rules, with `more` members in it.
fn event_with(more: &str) -> String {
    let comma = if more.is_empty() { "" } else { "," };
    format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t"{comma}{more}}}"#)
}

fn parse_one<T>(body: &str, look: impl FnOnce(Result<CloudEvent<'_>, Reject>) -> T) -> T {
    let mut parsed = parse(SINGLE, body.as_bytes(), &Limits::default()).unwrap();
    assert_eq!(parsed.items.len(), 1);
    look(parsed.items.remove(0).event)
}

/// What a reject of this single event says.
#[track_caller]
fn reject(body: &str) -> String {
    parse_one(body, |event| event.expect_err(body).to_string())
}

#[track_caller]
fn accepted(body: &str) {
    parse_one(body, |event| assert!(event.is_ok(), "{body}: {}", event.unwrap_err()));
}

#[test]
fn every_attribute_is_read() {
    let body = r#" {"specversion":"1.0", "id":"A-1", "source":"https://s/1", "type":"t.x",
        "subject":"s/ü", "time":"2026-01-31T12:34:56.789+01:00", "datacontenttype":"application/json",
        "dataschema":"https://s/schema#1", "data": {"n": 1.10, "big": 12345678901234567890123} ,
        "trace1":"00-ab", "count":-1.50, "flag":true, "nothing":null} "#;
    parse_one(body, |event| {
        let event = event.unwrap();
        assert_eq!((&*event.id, &*event.source, &*event.type_), ("A-1", "https://s/1", "t.x"));
        assert_eq!(event.subject.as_deref(), Some("s/ü"));
        assert_eq!(event.stream_name(), "s/ü");
        let time = event.time.unwrap();
        assert_eq!(time.as_str(), "2026-01-31T12:34:56.789+01:00");
        assert_eq!(time.timestamp().to_string(), "2026-01-31T11:34:56.789Z");
        assert_eq!(event.datacontenttype.as_deref(), Some("application/json"));
        assert_eq!(event.dataschema.as_deref(), Some("https://s/schema#1"));
        let Some(Data::Json(data)) = event.data else { panic!("{:?}", event.data) };
        assert_eq!(data.get(), r#"{"n": 1.10, "big": 12345678901234567890123}"#);
        let extensions: Vec<_> = event.extensions.into_iter().collect();
        let expected = [
            ("count", ExtensionValue::Number("-1.50")),
            ("flag", ExtensionValue::Bool(true)),
            ("trace1", ExtensionValue::String("00-ab".into())),
        ];
        assert_eq!(extensions, expected.map(|(name, value)| (name.into(), value)));
    });
}

#[test]
fn attributes_without_escapes_are_borrowed() {
    parse_one(&event_with(r#""subject":"a\u0041\"""#), |event| {
        let event = event.unwrap();
        assert!(matches!(event.id, Cow::Borrowed("1")));
        assert!(matches!(event.subject, Some(Cow::Owned(text)) if text == "aA\""));
    });
}

#[test]
fn the_source_names_the_stream_when_there_is_no_subject() {
    for more in ["", r#""subject":null"#] {
        parse_one(&event_with(more), |event| assert_eq!(event.unwrap().stream_name(), "/s"));
    }
}

#[test]
fn bytes_come_as_base64() {
    parse_one(&event_with(r#""data_base64":"AP/+""#), |event| {
        assert!(matches!(event.unwrap().data, Some(Data::Binary(bytes)) if bytes == [0, 255, 254]));
    });
    parse_one(&event_with(r#""data_base64":null,"data":null"#), |event| {
        assert!(matches!(event.unwrap().data, Some(Data::Json(json)) if json.get() == "null"));
    });
}

#[test]
fn required_attributes() {
    for (attribute, message) in [
        ("specversion", r#"specversion is missing; send "specversion":"1.0""#),
        ("id", "id is missing; send one that is unique within its source, such as a UUID"),
        (
            "source",
            "source is missing; send the URI of what produced the event, such as /orders/eu",
        ),
        ("type", "type is missing; send what happened, such as com.example.order.placed"),
    ] {
        let members = [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "t")];
        let body = |value: Option<&str>| {
            let members = members.iter().filter_map(|(name, good)| match value {
                Some(value) if *name == attribute => Some(format!(r#""{name}":{value}"#)),
                None if *name == attribute => None,
                _ => Some(format!(r#""{name}":"{good}""#)),
            });
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        };
        assert_eq!(reject(&body(None)), message);
        assert_eq!(reject(&body(Some("null"))), message);
        let cure = message.split_once("; ").unwrap().1;
        assert_eq!(reject(&body(Some(r#""""#))), format!("{attribute} is empty; {cure}"));
        for (value, found) in [("1.0", "a number"), ("{}", "an object"), ("true", "a boolean")] {
            let told = format!("{attribute} is {found}, not a string; put its value in quotes");
            assert_eq!(reject(&body(Some(value))), told);
        }
        let attribute_of =
            |body: &str| parse_one(body, |event| event.unwrap_err().attribute().map(str::to_owned));
        assert_eq!(attribute_of(&body(None)).as_deref(), Some(attribute));
        assert_eq!(attribute_of(&body(Some("7"))).as_deref(), Some(attribute));
    }
}

#[test]
fn only_version_one_is_known() {
    for version in ["0.3", "1", "1.0.2", " 1.0"] {
        let body = event_with("").replace("1.0", version);
        let told = format!(
            r#"specversion is "{version}", a version not known here; send "specversion":"1.0""#
        );
        assert_eq!(reject(&body), told);
    }
}

/// Members that break a rule, and the reject's message.
#[test]
fn optional_attributes() {
    let half = r#" has half a surrogate pair; escape both halves, or send UTF-8"#;
    let time = "time is not a date and time as in RFC 3339; send a time such as \
                2026-01-31T12:34:56.789Z";
    let media = "datacontenttype is not a media type as in RFC 2046; send type/subtype, such as \
                 application/json";
    let name = "is not a name that an attribute may have; use only a-z and 0-9";
    for (members, told) in [
        (r#""subject":"""#, "subject is empty; leave it out, or name the subject"),
        (r#""subject":5"#, "subject is a number, not a string; put its value in quotes"),
        (r#""subject":"a\u0000b""#, "subject contains the control character U+0000; remove it"),
        (r#""subject":"\udc00""#, &format!("subject{half}")),
        (r#""time":"2026-01-31""#, time),
        (r#""time":"2026-01-31T12:34Z""#, time),
        (r#""time":"2026-01-31 12:34:56Z""#, time),
        (r#""time":"2026-01-31T12:34:56""#, time),
        (r#""time":"2026-01-31T12:34:56.Z""#, time),
        (r#""time":"2026-01-31T12:34:56,5Z""#, time),
        (r#""time":"2026-01-31T12:34:56+0100""#, time),
        (r#""time":"2026-01-31T12:34:56+24:00""#, time),
        (r#""time":"2026-01-31T12:34:56Z[UTC]""#, time),
        (r#""time":"yesterday""#, time),
        (r#""time":"""#, time),
        (r#""time":1769862896"#, "time is a number, not a string; put its value in quotes"),
        (r#""datacontenttype":"json""#, media),
        (r#""datacontenttype":"application/""#, media),
        (r#""datacontenttype":"a b/c""#, media),
        (r#""datacontenttype":"""#, media),
        (r#""dataschema":"""#, "dataschema is empty; leave it out, or send the URI of the schema"),
        (
            r#""dataschema":"a b""#,
            "dataschema is not a URI reference: it contains white space; encode it as %20, or \
             remove it",
        ),
        (
            r#""data":1,"data_base64":"AA==""#,
            "data_base64 stands next to data; send one of them: data for JSON and text, \
             data_base64 for bytes",
        ),
        (r#""data_base64":[]"#, "data_base64 is an array, not a string; put its value in quotes"),
        (r#""Upper":1"#, &format!("Upper {name}")),
        (r#""snake_case":1"#, &format!("snake_case {name}")),
        (r#""":1"#, &format!("the empty string {name}")),
        (r#""\n":1"#, &format!(r"\n {name}")),
        (
            r#""ext":{"a":1}"#,
            "ext is an object; send a string, a number or a boolean, and structure in data",
        ),
        (
            r#""ext":[]"#,
            "ext is an array; send a string, a number or a boolean, and structure in data",
        ),
        (r#""ext":"\ud800""#, &format!("ext{half}")),
        (r#""id":"2""#, "id occurs more than once; send it once"),
        (r#""\u0069d":"2""#, "id occurs more than once; send it once"),
        (r#""data":1,"data":1"#, "data occurs more than once; send it once"),
        (r#""ext":1,"ext":null"#, "ext occurs more than once; send it once"),
    ] {
        assert_eq!(reject(&event_with(members)), told, "{members}");
    }
    for text in ["AA=", "AA", "A A=", "====", "-_-_"] {
        let told = reject(&event_with(&format!(r#""data_base64":"{text}""#)));
        assert!(told.starts_with("data_base64 is not base64: "), "{told}");
        assert!(told.ends_with("; encode the bytes as in RFC 4648 section 4, with padding"));
    }
    for time in ["2026-02-30T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01T24:00:00Z"] {
        let told = reject(&event_with(&format!(r#""time":"{time}""#)));
        assert!(told.starts_with("time is not a time that exists: "), "{told}");
    }
    let long_name = "é".repeat(1000);
    assert!(reject(&event_with(&format!(r#""{long_name}":1"#))).len() < 300);
}

#[test]
fn what_looks_odd_and_is_allowed() {
    for members in [
        r#""time":"2026-01-31t12:34:56z""#,
        r#""time":"1985-04-12T23:20:50.123456789012345Z""#,
        r#""time":"1990-12-31T23:59:60Z""#,
        r#""time":"1937-01-01T12:00:27.87-00:00""#,
        r#""datacontenttype":"text/plain; charset=\"utf-8\"""#,
        r#""datacontenttype":"application/vnd.a+json;v=1""#,
        r#""dataschema":"urn:x:ä""#,
        r#""data":{"a":1,"a":2}"#,
        r#""data":"\ud800""#,
        r#""data":1e999"#,
        r#""ext":1e999"#,
        r#""ext":"line\nbreak""#,
        r#""averyveryverylongextensionname":false"#,
        r#""\u0065xt":1"#,
    ] {
        accepted(&event_with(members));
    }
}

#[test]
fn id_source_and_type_fit_on_a_line() {
    for (from, to, told) in [
        (r#""id":"1""#, r#""id":"a\nb""#, "id contains the control character U+000A; remove it"),
        (r#""t""#, r#""t\u007f""#, "type contains the control character U+007F; remove it"),
        (r#""/s""#, r#""/s\t""#, "source contains the control character U+0009; remove it"),
        (
            r#""/s""#,
            r#""/my shop""#,
            "source is not a URI reference: it contains white space; encode it as %20, or remove it",
        ),
    ] {
        assert_eq!(reject(&event_with("").replace(from, to)), told);
    }
}

#[test]
fn stream_names_are_bounded() {
    let subject = |length| event_with(&format!(r#""subject":"{}""#, "x".repeat(length)));
    accepted(&subject(512));
    assert_eq!(
        reject(&subject(513)),
        "subject has 513 bytes and names the stream, whose limit is 512; send a shorter subject"
    );
    let source = |more| event_with(more).replace("/s", &"y".repeat(513));
    assert!(reject(&source("")).starts_with("source has 513 bytes and names the stream"));
    accepted(&source(r#""subject":"short""#));
}

#[test]
fn an_event_is_bounded_in_bytes_and_depth() {
    let limits = Limits { max_event_bytes: 100, max_depth: 3, ..Limits::default() };
    let told = |body: &str| {
        let parsed = parse(SINGLE, body.as_bytes(), &limits).unwrap();
        parsed.items[0].event.as_ref().map(drop).map_err(ToString::to_string)
    };
    let padded = |bytes: usize| format!("{:bytes$}", event_with(""));
    assert_eq!(told(&padded(100)), Ok(()));
    let large = "the event has 101 bytes and the limit is 100; keep large data elsewhere and send \
                 a reference to it";
    assert_eq!(told(&padded(101)), Err(large.into()));
    assert_eq!(told(&event_with(r#""data":[[]]"#)), Ok(()));
    // Brackets in strings and side by side are not depth.
    assert_eq!(told(&event_with(r#""data":"[\"[[[[["#).replace("[[[[[", r#"[[[[""#)), Ok(()));
    assert_eq!(told(&event_with(r#""data":[[],[],{}]"#)), Ok(()));
    let deep = "the event is nested deeper than 3 levels; flatten its data";
    assert_eq!(told(&event_with(r#""data":[[{}]]"#)), Err(deep.into()));
}

/// Accepted data is given out again inside other JSON, and must not be what its readers choke on.
#[test]
fn what_is_accepted_can_be_read_by_serde_json() {
    let nested =
        |levels| event_with(&format!(r#""data":{}{}"#, "[".repeat(levels), "]".repeat(levels)));
    accepted(&nested(126));
    serde_json::from_str::<serde_json::Value>(&nested(126)).unwrap();
    assert!(reject(&nested(127)).contains("deeper than 127"));
    serde_json::from_str::<serde_json::Value>(&nested(127)).unwrap_err();
    // Far deeper than any stack.
    assert!(reject(&nested(500_000)).contains("deeper than 127"));
}

#[test]
fn content_types() {
    for (given, mode) in [
        ("application/cloudevents+json", Mode::Single),
        ("Application/CloudEvents+JSON; charset=UTF-8", Mode::Single),
        ("application/cloudevents-batch+json ;charset=utf-8", Mode::Batch),
        (" application/x-ndjson", Mode::Ndjson),
    ] {
        assert_eq!(Mode::from_content_type(Some(given)), Ok(mode), "{given}");
    }
    for given in [None, Some(""), Some("application/json"), Some("application/x-ndjsonx")] {
        let error = parse(given, b"", &Limits::default()).unwrap_err();
        assert_eq!(error.status(), 415);
        for accepted in [SINGLE, BATCH, NDJSON] {
            assert!(error.to_string().contains(accepted.unwrap()), "{error}");
        }
    }
}

/// Bodies that are no JSON, and where they stop being it.
#[test]
fn malformed_bodies_name_the_position() {
    for (content_type, body, position) in [
        (SINGLE, &b""[..], (1, 1, "EOF while parsing a value")),
        (SINGLE, b"{\"id\":}", (1, 7, "expected value")),
        (SINGLE, b"{\n  \"id\": \"1\"\n  \"x\"}", (3, 3, "expected `,` or `}`")),
        (SINGLE, b"{\"id\":\"1\"} x", (1, 12, "trailing characters")),
        (SINGLE, b"{\n\"a\":\"\xFF\"}", (2, 6, "the text is not UTF-8")),
        (SINGLE, b"nul", (1, 3, "EOF while parsing a value")),
        (BATCH, b"[{}, ]", (1, 6, "trailing comma")),
        (BATCH, b"[{},\n{]", (2, 2, "key must be a string")),
        (BATCH, b"[{}", (1, 3, "EOF while parsing a list")),
        (BATCH, b"[] []", (1, 4, "trailing characters")),
        (BATCH, b"{\"id\":1", (1, 7, "EOF while parsing an object")),
    ] {
        let error = parse(content_type, body, &Limits::default()).unwrap_err();
        assert_eq!(error.status(), 400);
        let ParseError::Malformed { line, column, message } = &error else { panic!("{error}") };
        let body = String::from_utf8_lossy(body);
        assert_eq!((*line, *column, message.as_str()), position, "{body}");
    }
}

#[test]
fn a_batch_must_be_an_array() {
    let error = parse(BATCH, event_with("").as_bytes(), &Limits::default()).unwrap_err();
    assert_eq!(error.status(), 400);
    let told = "expected a JSON array of events, found an object; send one event as \
                application/cloudevents+json";
    assert_eq!(error.to_string(), told);
}

#[test]
fn in_a_batch_bad_events_are_rejected_one_by_one() {
    let body =
        format!("[{}, 7, 1e999, {{}},\n {}, {{\"\\ud800\":1}}]", event_with(""), event_with(""));
    let parsed = parse(BATCH, body.as_bytes(), &Limits::default()).unwrap();
    let told: Vec<_> = parsed.items.iter().map(|item| (item.index, item.event.is_ok())).collect();
    assert_eq!(told, [(0, true), (1, false), (2, false), (3, false), (4, true), (5, false)]);
    assert!(parsed.items.iter().all(|item| item.line.is_none()));
    let told = parsed.items[1].event.as_ref().unwrap_err().to_string();
    assert_eq!(told, "expected a JSON object, found a number; send each event as one object");
    assert!(parse(BATCH, b" [ ] ", &Limits::default()).unwrap().items.is_empty());
}

#[test]
fn in_ndjson_a_broken_line_costs_only_itself() {
    let good = event_with("");
    let body = [
        b"\xEF\xBB\xBF".as_slice(),
        good.as_bytes(),
        b"\r\n\r\n \t\n{\"id\":}\n",
        good.as_bytes(),
        b"\n\"\xFF\"\n[]\r\n",
        good.as_bytes(),
    ]
    .concat();
    let parsed = parse(NDJSON, &body, &Limits::default()).unwrap();
    let told: Vec<_> = parsed
        .items
        .iter()
        .map(|item| {
            let event = item.event.as_ref();
            (item.index, item.line.unwrap(), event.err().map(ToString::to_string))
        })
        .collect();
    let malformed = |column, what| {
        let cure = "send one complete JSON object on each line";
        Some(format!("malformed JSON at column {column}: {what}; {cure}"))
    };
    let array = "expected a JSON object, found an array; send each event as one object";
    let expected = [
        (0, 1, None),
        (1, 4, malformed(7, "expected value")),
        (2, 5, None),
        (3, 6, malformed(2, "the text is not UTF-8")),
        (4, 7, Some(array.into())),
        (5, 8, None),
    ];
    assert_eq!(told, expected);
    assert!(parse(NDJSON, b"\n \r\n", &Limits::default()).unwrap().items.is_empty());
}

#[test]
fn too_many_events_refuse_the_request() {
    let limits = Limits { max_events: 2, ..Limits::default() };
    for (content_type, two, three) in
        [(BATCH, "[1,1]", "[1,1,1]"), (NDJSON, "1\n\n1\n\n", "1\n1\n\n1")]
    {
        assert_eq!(parse(content_type, two.as_bytes(), &limits).unwrap().items.len(), 2);
        let error = parse(content_type, three.as_bytes(), &limits).unwrap_err();
        assert_eq!(error.status(), 413);
        assert_eq!(error.to_string(), "more than 2 events in one request; send them in several");
    }
}

fn github_webhooks() -> Vec<u8> {
    let packed = include_bytes!("../../../tests/data/github-webhooks.cloudevents.ndjson.gz");
    decode_body(Some("gzip"), packed, 16 << 20).unwrap().into_owned()
}

#[test]
fn real_webhooks_are_all_accepted_and_keep_their_bytes() {
    let body = github_webhooks();
    let parsed = parse(NDJSON, &body, &Limits::default()).unwrap();
    assert_eq!(parsed.items.len(), 165);
    for (item, line) in parsed.items.iter().zip(body.split(|byte| *byte == b'\n')) {
        assert_eq!(item.line, Some(item.index + 1));
        let event = item.event.as_ref().unwrap();
        assert!(event.type_.starts_with("com.github."));
        assert_eq!(event.subject.as_deref(), Some(event.stream_name()));
        let Some(Data::Json(data)) = event.data else { panic!("{:?}", event.data) };
        let line = std::str::from_utf8(line).unwrap();
        assert!(line.contains(data.get()));
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["data"], serde_json::from_str::<serde_json::Value>(data.get()).unwrap());
    }
}

/// `cargo test --release -p mister-smith -- --ignored --nocapture throughput`
#[test]
#[ignore = "a measurement, to be read in release mode"]
fn throughput() {
    const ROUNDS: usize = 30;
    let lines = github_webhooks();
    let lines = lines.repeat((16 << 20) / lines.len());
    let events: Vec<_> = lines.trim_ascii_end().split(|byte| *byte == b'\n').collect();
    let batch = [b"[".as_slice(), &events.join(b",".as_slice()), b"]"].concat();
    for (name, content_type, body) in [("ndjson", NDJSON, &lines), ("batch", BATCH, &batch)] {
        let mut rounds: Vec<_> = (0..ROUNDS)
            .map(|_| {
                let start = std::time::Instant::now();
                let parsed = parse(content_type, body, &Limits::default()).unwrap();
                assert!(parsed.items.iter().all(|item| item.event.is_ok()));
                body.len() as f64 / 1e6 / start.elapsed().as_secs_f64()
            })
            .collect();
        rounds.sort_by(f64::total_cmp);
        let (median, best) = (rounds[ROUNDS / 2], rounds[ROUNDS - 1]);
        println!("{name:6} {} events  median {median:.0} MB/s  best {best:.0} MB/s", events.len());
    }
}
