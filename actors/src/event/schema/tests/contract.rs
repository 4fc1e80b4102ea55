use std::fs;
use std::path::Path;

use serde_json::json;

use super::super::contract::{Contract, ContractError};
use super::*;
use crate::event::ContentType;
use crate::event::upcast::Upcasters;

const V1: &str =
    r#"{"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}"#;
const V2: &str =
    r#"{"type": "object", "properties": {"first": {"type": "string"}}, "required": ["first"]}"#;

fn v(text: &str) -> Schema {
    Schema::json(text).unwrap()
}

fn write(directory: &Path, path: &str, data: impl AsRef<[u8]>) {
    let path = directory.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, data).unwrap();
}

#[test]
fn old_payloads_and_schemas_that_can_be_read_pass() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "user.registered/1.json", r#"{"name": "Ada"}"#);
    write(directory.path(), "user.registered/v1.schema.json", V1);
    let packed = rmp_serde::to_vec_named(&json!({"name": "Ada", "more": 1})).unwrap();
    write(directory.path(), "user.registered/2.with-more.msgpack", packed);
    let checked =
        Contract::new().schema("user.registered", 2, v(V1)).assert_directory(directory.path());
    assert_eq!((checked.payloads, checked.schemas), (2, 1));
}

#[test]
fn a_contract_that_breaks_says_everything() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "user.registered/1.json", r#"{"name": "Ada"}"#);
    write(directory.path(), "user.registered/1.schema.json", V1);
    write(directory.path(), "user.gone/1.json", "{}");
    let contract = Contract::new().schema("user.registered", 2, v(V2));
    let error = contract.directory(directory.path()).unwrap().check().unwrap_err();
    assert_eq!(error.class(), ErrorClass::Permanent);
    let message = error.to_string();
    for part in [
        "old events would become unreadable:\n",
        "user.registered: first: the reader requires it, and the writer may leave it out",
        "make it optional in the new schema",
        "1.json: user.registered version 1 cannot be read with version 2",
        "the application has no schema of user.gone",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
#[should_panic(expected = "old events would become unreadable")]
fn an_assertion_fails_with_what_would_break() {
    let contract = Contract::new().schema("s", 2, v(V2));
    contract.payload("the first order", "s", 1, ContentType::Json, *b"{}").assert();
}

#[test]
fn payloads_go_through_the_steps_of_the_application() {
    let steps = Upcasters::none().step("user.registered", 1, |mut payload| {
        payload["first"] = payload["name"].take();
        payload
    });
    let contract = Contract::new()
        .schema("user.registered", 2, v(V2))
        .earlier("user.registered", 1, v(V1))
        .payload("Ada", "user.registered", 1, ContentType::Json, *br#"{"name": "Ada"}"#);
    assert!(contract.check().is_err());
    assert_eq!(contract.clone().upcasters(steps).assert().payloads, 1);
    let error = contract.upcasters(Upcasters::none()).check().unwrap_err();
    assert!(error.to_string().contains("there is no step from version 1"), "{error}");
}

#[test]
fn a_contract_that_checks_nothing_fails() {
    let directory = tempfile::tempdir().unwrap();
    let contract = || Contract::new().schema("s", 1, v(V1));
    assert!(matches!(contract().check(), Err(ContractError::Nothing)));
    let missing = contract().directory(directory.path().join("missing"));
    assert!(matches!(missing, Err(ContractError::Unreadable { .. })));
    write(directory.path(), "s/one.json", "{}");
    let error = contract().directory(directory.path()).unwrap_err();
    assert!(matches!(error, ContractError::FileName { .. }), "{error}");
}

#[cfg(feature = "codec-avro")]
#[test]
fn avro_is_read_with_the_schema_of_its_version() {
    let directory = tempfile::tempdir().unwrap();
    let old = record(A);
    let new = record(&format!("{A}, {B_DEFAULT}"));
    write(directory.path(), "s/1.avro", [4]);
    let contract = || Contract::new().schema("s", 2, new.clone());
    let error = contract().directory(directory.path()).unwrap().check().unwrap_err();
    assert!(error.to_string().contains("add 1.avsc"), "{error}");
    write(directory.path(), "s/1.avsc", old.text().unwrap());
    contract().assert_directory(directory.path());
}

#[test]
fn protobuf_is_read_from_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let of = |of| protobuf::message("M", [protobuf::field("a", 1, of)]);
    let old = of(protobuf::Type::Int32);
    write(directory.path(), "s/1.binpb", [0x08, 5]);
    write(directory.path(), "s/1.protoset", old.as_bytes());
    let checked = Contract::new()
        .schema("s", 2, of(protobuf::Type::Int64))
        .assert_directory(directory.path());
    assert_eq!((checked.payloads, checked.schemas), (1, 1));
    let contract = Contract::new().schema("s", 2, of(protobuf::Type::String));
    let error = contract.directory(directory.path()).unwrap().check().unwrap_err().to_string();
    assert!(error.contains("a: wire type 0 is no string"), "{error}");
    assert!(error.contains("rule wire_type"), "{error}");
}
