//! Real GitHub webhooks as CloudEvents, repeated with new ids for as many as a test needs.

use std::io::Read;

use serde_json::Value;

/// `count` events as lines of JSON, each with an id of its own. Sources, types and payloads are
/// those of the recorded deliveries (`tests/data/README.md`).
pub(crate) fn lines(count: usize) -> Vec<String> {
    let gz = include_bytes!("../data/github-webhooks.cloudevents.ndjson.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&gz[..]).read_to_string(&mut text).expect("the data is gzip");
    let recorded: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("the data is JSON")).collect();
    assert_eq!(recorded.len(), 165);
    (0..count)
        .map(|i| {
            let mut event = recorded[i % recorded.len()].clone();
            let id = format!("{}-{i}", event["id"].as_str().expect("an id"));
            event["id"] = id.into();
            event.to_string()
        })
        .collect()
}
