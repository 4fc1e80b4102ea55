//! Whether the names in a schema are names: the reference implementation panics where they are
//! not.

use serde_json::Value;

/// How long a name is, at most, in bytes: each type in a namespace has it in its own name.
const MAX_NAME: usize = 1_024;

/// What is wrong with the schema, if a name in it cannot be one. Everything else the reference
/// implementation says itself.
pub(in crate::event) fn check(text: &str) -> Result<(), String> {
    let schema: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    of_type(&schema)
}

fn of_type(schema: &Value) -> Result<(), String> {
    match schema {
        Value::String(name) => full(name),
        Value::Array(branches) => branches.iter().try_for_each(of_type),
        Value::Object(map) => {
            for key in ["name", "namespace"] {
                match map.get(key) {
                    Some(Value::String(name)) if key == "namespace" && name.is_empty() => {}
                    Some(Value::String(name)) => full(name)?,
                    _ => {}
                }
            }
            let aliases = map.get("aliases").and_then(Value::as_array).into_iter().flatten();
            aliases.filter_map(Value::as_str).try_for_each(full)?;
            let fields = map.get("fields").and_then(Value::as_array).into_iter().flatten();
            let inside = ["type", "items", "values"].iter().filter_map(|key| map.get(*key));
            inside.chain(fields).try_for_each(of_type)
        }
        _ => Ok(()),
    }
}

/// A name, with the names of its namespace in front. One that begins with a dot is in none.
fn full(name: &str) -> Result<(), String> {
    let is_name = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && part.chars().all(|one| one.is_ascii_alphanumeric() || one == '_')
    };
    if name.len() > MAX_NAME {
        return Err(format!("a name is longer than {MAX_NAME} bytes"));
    }
    match name.strip_prefix('.').unwrap_or(name).split('.').all(is_name) {
        true => Ok(()),
        false => Err(format!("{name:?} is not a valid name; use letters, digits and _")),
    }
}
