//! What the node has said, and whether it kept its word.

use std::collections::BTreeMap;

use mister_smith_testkit::Client;
use serde_json::Value;

/// Where an event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    stream: String,
    version: u64,
    position: u64,
}

/// Every acknowledged event, by source and id.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    acknowledged: BTreeMap<String, Place>,
}

impl Ledger {
    pub(crate) fn len(&self) -> usize {
        self.acknowledged.len()
    }

    /// Takes one answer of the node for these events; says whether each one has a place now. An
    /// event that was given a place before must be given the same again.
    pub(crate) fn take(&mut self, events: &[String], answer: &Value) -> bool {
        let Some(rows) = answer["results"].as_array() else { return false };
        assert_eq!(rows.len(), events.len(), "one row an event: {answer}");
        let mut all = true;
        for (i, row) in rows.iter().enumerate() {
            assert_eq!(row["index"], i, "rows in the order of the events: {answer}");
            match row["status"].as_str() {
                Some("accepted" | "duplicate") => {
                    let place = Place {
                        stream: row["stream"].as_str().expect("a stream").to_owned(),
                        version: row["version"].as_u64().expect("a version"),
                        position: row["position"].as_u64().expect("a position"),
                    };
                    let earlier =
                        self.acknowledged.entry(name(&events[i])).or_insert(place.clone());
                    assert_eq!(*earlier, place, "the place of an event never changes: {row}");
                }
                Some("retry") => all = false,
                _ => panic!("a good event was refused: {row}"),
            }
        }
        all
    }

    /// The three properties: every acknowledged event is in the log where the node said, every
    /// event is there once and positions have no holes, and the read model agrees with the log.
    pub(crate) async fn check(&self, client: &Client) {
        let log = whole_log(client).await;
        let mut found = BTreeMap::new();
        for (i, row) in log.iter().enumerate() {
            assert_eq!(row["position"], i as u64 + 1, "positions have no holes");
            let place = Place {
                stream: row["stream"].as_str().expect("a stream").to_owned(),
                version: row["version"].as_u64().expect("a version"),
                position: row["position"].as_u64().expect("a position"),
            };
            let again = found.insert(name(&row["event"].to_string()), place);
            assert!(again.is_none(), "an event is in the log twice: {row}");
        }
        for (event, place) in &self.acknowledged {
            assert_eq!(found.get(event), Some(place), "acknowledged and not there: {event}");
        }
        check_versions(&log);
        check_read_model(client, &log).await;
    }
}

/// What makes an event the same: its source and its id.
fn name(event: &str) -> String {
    let event: Value = serde_json::from_str(event).expect("an event is JSON");
    format!("{} {}", event["source"], event["id"])
}

async fn get(client: &Client, path: &str) -> Value {
    let (status, body) = client.get(path).await.expect("the storm is over");
    assert_eq!(status, 200, "{path}: {body}");
    body
}

async fn whole_log(client: &Client) -> Vec<Value> {
    let mut log = Vec::new();
    loop {
        let page = get(client, &format!("/api/v1/events?limit=1000&after={}", log.len())).await;
        let rows = page["events"].as_array().expect("events");
        if rows.is_empty() {
            return log;
        }
        // Payloads are not looked at again, and 20,000 of them are 200 MB.
        log.extend(rows.iter().map(|row| {
            let mut row = row.clone();
            row["event"].as_object_mut().expect("an event").remove("data");
            row
        }));
    }
}

fn check_versions(log: &[Value]) {
    let mut versions: BTreeMap<&str, u64> = BTreeMap::new();
    for row in log {
        let version = versions.entry(row["stream"].as_str().expect("a stream")).or_default();
        *version += 1;
        assert_eq!(row["version"], *version, "versions have no holes: {row}");
    }
}

async fn check_read_model(client: &Client, log: &[Value]) {
    let mut expected: BTreeMap<String, (u64, BTreeMap<String, u64>)> = BTreeMap::new();
    for row in log {
        let (events, by_type) =
            expected.entry(row["stream"].as_str().expect("a stream").to_owned()).or_default();
        *events += 1;
        *by_type.entry(row["event"]["type"].as_str().expect("a type").to_owned()).or_default() += 1;
    }
    let page = get(client, "/api/v1/streams?limit=1000").await;
    assert_eq!(page["position"], log.len(), "the read model has caught up");
    let mut shown = BTreeMap::new();
    for row in page["streams"].as_array().expect("streams") {
        let by_type = serde_json::from_value(row["by_type"].clone()).expect("counts");
        let id = row["id"].as_str().expect("an id").to_owned();
        shown.insert(id, (row["events"].as_u64().expect("a count"), by_type));
    }
    assert_eq!(shown, expected, "the read model agrees with the log");
}
