//! Schemas that hold together (`allOf`, a `$ref` with something beside it) as one.

use serde_json::{Map, Value};

use super::numbers::compare;
use super::side::Side;
use super::values::Listed;

/// Why two schemas cannot be made one.
pub(super) type NotMerged = String;

/// Keywords that say nothing about what is valid.
const ANNOTATIONS: [&str; 19] = [
    "$schema",
    "$id",
    "id",
    "$anchor",
    "$dynamicAnchor",
    "$vocabulary",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
];

/// How deep references and `allOf`s are followed before they count as endless.
const MAX_DEPTH: usize = 32;

/// Whether a schema takes everything.
pub(super) fn is_open(schema: &Value) -> bool {
    match schema {
        Value::Bool(open) => *open,
        Value::Object(map) => map.keys().all(|key| is_annotation(key)),
        _ => false,
    }
}

/// Whether a keyword says nothing about what is valid.
pub(super) fn is_annotation(key: &str) -> bool {
    ANNOTATIONS.contains(&key)
}

/// A schema without `$ref` and `allOf`: `None` if it takes nothing, the keywords otherwise.
pub(super) fn flatten(
    schema: Side<'_>,
    part: &Value,
) -> Result<Option<Map<String, Value>>, NotMerged> {
    flatten_at(schema, part, 0)
}

fn flatten_at(
    schema: Side<'_>,
    part: &Value,
    depth: usize,
) -> Result<Option<Map<String, Value>>, NotMerged> {
    if depth > MAX_DEPTH {
        return Err("its references have no end".to_owned());
    }
    if !schema.work.go_on(1) {
        return Err("the schemas are too large or too deep".to_owned());
    }
    let map = match part {
        Value::Bool(true) => return Ok(Some(Map::new())),
        Value::Object(map) => map,
        _ => return Ok(None),
    };
    if let Some(key) = ["$dynamicRef", "$recursiveRef"].iter().find(|key| map.contains_key(**key)) {
        // Of whichever draft: not worth the difference.
        return Err(format!("it has a {key}"));
    }
    let mut merged = schema.keywords(map);
    let mut parts = Vec::new();
    if let Some(reference) = merged.remove("$ref").as_ref().and_then(Value::as_str) {
        let target = schema.resolve(reference);
        let target = target.ok_or_else(|| format!("{reference} leads out of the schema"))?;
        if schema.is_legacy() {
            return flatten_at(schema, target, depth + 1);
        }
        parts.push(target);
    }
    let all = merged.remove("allOf");
    parts.extend(all.iter().filter_map(Value::as_array).flatten());
    for part in parts {
        let Some(part) = flatten_at(schema, part, depth + 1)? else { return Ok(None) };
        let Some(both) = intersect(merged, part)? else { return Ok(None) };
        merged = both;
    }
    Ok(Some(merged))
}

/// What is valid for both; `None` if nothing is.
pub(super) fn intersect(
    one: Map<String, Value>,
    other: Map<String, Value>,
) -> Result<Option<Map<String, Value>>, NotMerged> {
    let constrained = |map: &Map<String, Value>| map.keys().any(|key| !is_annotation(key));
    if !constrained(&other) {
        return Ok(Some(one));
    }
    if !constrained(&one) {
        return Ok(Some(other));
    }
    for map in [&one, &other] {
        if let Some(key) = map.iter().find_map(|(key, value)| of_neighbours(key, value)) {
            return Err(format!("{key} beside other schemas that hold, too"));
        }
    }
    let mut merged = one;
    for (key, value) in other {
        if is_annotation(&key) {
            continue;
        }
        let value = match merged.remove(&key) {
            None => value,
            Some(first) if first == value => value,
            Some(first) => match both(&key, first, value)? {
                Some(value) => value,
                None => return Ok(None),
            },
        };
        merged.insert(key, value);
    }
    Ok(Some(merged))
}

/// A keyword whose meaning depends on the keywords beside it.
fn of_neighbours<'a>(key: &'a str, value: &Value) -> Option<&'a str> {
    let depends = match key {
        "additionalProperties" | "additionalItems" => !is_open(value),
        "exclusiveMinimum" | "exclusiveMaximum" => value.is_boolean(),
        "patternProperties" | "prefixItems" | "if" | "then" | "else" | "contains"
        | "minContains" | "maxContains" => true,
        "items" => value.is_array(),
        key => key.starts_with("unevaluated"),
    };
    depends.then_some(key)
}

fn both(key: &str, first: Value, second: Value) -> Result<Option<Value>, NotMerged> {
    Ok(Some(match (key, first, second) {
        ("type", first, second) => {
            let wrapped = |types: Value| Map::from_iter([("type".to_owned(), types)]);
            let types = super::types::Types::of(&wrapped(first))
                .and(super::types::Types::of(&wrapped(second)));
            if types.is_empty() {
                return Ok(None);
            }
            types.each().into()
        }
        ("properties", Value::Object(mut first), Value::Object(second)) => {
            for (name, value) in second {
                let value = match first.remove(&name) {
                    Some(other) => all_of(other, value),
                    None => value,
                };
                first.insert(name, value);
            }
            Value::Object(first)
        }
        ("items" | "propertyNames", first, second) => all_of(first, second),
        ("required", Value::Array(mut first), Value::Array(second)) => {
            first.extend(second);
            Value::Array(first)
        }
        ("enum", Value::Array(first), Value::Array(second)) => {
            let known = Listed::of(&second);
            let kept: Vec<Value> = first.into_iter().filter(|one| known.has(one)).collect();
            if kept.is_empty() {
                return Ok(None);
            }
            Value::Array(kept)
        }
        (
            "minimum" | "exclusiveMinimum" | "minLength" | "minItems" | "minProperties",
            Value::Number(first),
            Value::Number(second),
        ) => Value::Number(if compare(&first, &second).is_ge() { first } else { second }),
        (
            "maximum" | "exclusiveMaximum" | "maxLength" | "maxItems" | "maxProperties",
            Value::Number(first),
            Value::Number(second),
        ) => Value::Number(if compare(&first, &second).is_le() { first } else { second }),
        ("uniqueItems", first, second) => Value::Bool(first == true || second == true),
        (key, ..) => return Err(format!("two different {key} hold together")),
    }))
}

/// Two schemas that hold together, each part of them once: with all repetitions, a recursive schema
/// would double with each level.
fn all_of(first: Value, second: Value) -> Value {
    let mut parts = Vec::new();
    collect(first, &mut parts);
    collect(second, &mut parts);
    Value::Object(Map::from_iter([("allOf".to_owned(), Value::Array(parts))]))
}

fn collect(schema: Value, parts: &mut Vec<Value>) {
    match schema {
        Value::Object(mut map) if map.len() == 1 && map.contains_key("allOf") => {
            let Some(Value::Array(all)) = map.remove("allOf") else { return };
            all.into_iter().for_each(|part| collect(part, parts));
        }
        part if parts.contains(&part) => {}
        part => parts.push(part),
    }
}
