//! The rules of an Avro schema declaration.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{Field, Named, Primitive, Shape, Type, invalid, text};
use crate::event::schema::SchemaError;
use crate::event::schema::compatibility::{any_member, member};

/// Logical types whose units a reader has to know; others are ignored, as the specification has
/// it.
const UNITS: [&str; 11] = [
    "date",
    "time-millis",
    "time-micros",
    "timestamp-millis",
    "timestamp-micros",
    "timestamp-nanos",
    "local-timestamp-millis",
    "local-timestamp-micros",
    "local-timestamp-nanos",
    "duration",
    "uuid",
];

/// Reads a declaration and adds the types that it names.
pub(super) fn parse(
    value: &Value,
    named: &mut BTreeMap<String, Named>,
) -> Result<Type, SchemaError> {
    Parser { named, begun: BTreeSet::new() }.parse(value, "", "")
}

struct Parser<'a> {
    named: &'a mut BTreeMap<String, Named>,
    /// Names of types that are declared, also of those whose end is not read yet: a record may
    /// have a field of itself.
    begun: BTreeSet<String>,
}

impl Parser<'_> {
    fn parse(&mut self, value: &Value, namespace: &str, path: &str) -> Result<Type, SchemaError> {
        match value {
            Value::String(name) => self.reference(name, namespace, path),
            Value::Array(branches) => self.union(branches, namespace, path),
            Value::Object(map) => self.declaration(map, namespace, path),
            _ => Err(invalid(path, "a type is a name, an array (a union) or an object")),
        }
    }

    fn reference(&self, name: &str, namespace: &str, path: &str) -> Result<Type, SchemaError> {
        if let Some(primitive) = Primitive::named(name) {
            return Ok(Type::Primitive(primitive, None));
        }
        let full = qualified(name, namespace);
        match self.begun.contains(&full) {
            true => Ok(Type::Named(full)),
            false => Err(invalid(path, format!("the type {full} is not declared before its use"))),
        }
    }

    fn union(
        &mut self,
        branches: &[Value],
        namespace: &str,
        path: &str,
    ) -> Result<Type, SchemaError> {
        let mut types = Vec::with_capacity(branches.len());
        let mut kinds = BTreeSet::new();
        for branch in branches {
            let branch = self.parse(branch, namespace, path)?;
            let kind = match &branch {
                Type::Union(_) => {
                    return Err(invalid(
                        path,
                        "a union has no unions in it; put their branches there",
                    ));
                }
                Type::Primitive(primitive, _) => primitive.as_str(),
                Type::Array(_) => "array",
                Type::Map(_) => "map",
                Type::Named(name) => name,
            };
            if !kinds.insert(kind.to_owned()) {
                return Err(invalid(path, format!("the union has {kind} twice; remove one")));
            }
            types.push(branch);
        }
        Ok(Type::Union(types))
    }

    fn declaration(
        &mut self,
        map: &Map<String, Value>,
        namespace: &str,
        path: &str,
    ) -> Result<Type, SchemaError> {
        let kind = map.get("type").ok_or_else(|| invalid(path, "there is no \"type\""))?;
        let Value::String(kind) = kind else { return self.parse(kind, namespace, path) };
        let inner = |key: &str| {
            map.get(key).ok_or_else(|| invalid(path, format!("the {kind} has no {key:?}")))
        };
        match kind.as_str() {
            "array" => {
                let items = self.parse(inner("items")?, namespace, &format!("{path}[]"))?;
                Ok(Type::Array(Box::new(items)))
            }
            "map" => {
                let values = self.parse(inner("values")?, namespace, &any_member(path))?;
                Ok(Type::Map(Box::new(values)))
            }
            "record" | "error" | "enum" | "fixed" => self.named(kind, map, namespace, path),
            other => match Primitive::named(other) {
                Some(primitive) => Ok(Type::Primitive(primitive, logical(map, primitive.as_str()))),
                None => self.reference(other, namespace, path),
            },
        }
    }

    fn named(
        &mut self,
        kind: &str,
        map: &Map<String, Value>,
        namespace: &str,
        path: &str,
    ) -> Result<Type, SchemaError> {
        let name =
            text(map, "name").ok_or_else(|| invalid(path, format!("the {kind} has no name")))?;
        let full = match text(map, "namespace") {
            Some(own) => qualified(name, own),
            None => qualified(name, namespace),
        };
        if full.len() > MAX_NAME {
            let reason = format!("the name of a type is longer than {MAX_NAME} bytes");
            return Err(invalid(path, reason));
        }
        if !full.split('.').all(is_name) {
            return Err(invalid(path, format!("{full:?} is no name: use letters, digits and _")));
        }
        if Primitive::named(&full).is_some() || !self.begun.insert(full.clone()) {
            return Err(invalid(path, format!("the name {full} is taken; choose another")));
        }
        let namespace = full.rsplit_once('.').map_or("", |(namespace, _)| namespace);
        let aliases = names(map, "aliases").map(|alias| qualified(alias, namespace)).collect();
        let shape = match kind {
            "enum" => enumeration(map, path)?,
            "fixed" => {
                let size = map.get("size").and_then(Value::as_u64);
                let size = size.ok_or_else(|| invalid(path, "the fixed has no size in bytes"))?;
                Shape::Fixed { size, logical: logical(map, "fixed") }
            }
            _ => Shape::Record(self.fields(map, namespace, path)?),
        };
        self.named.insert(full.clone(), Named { aliases, shape });
        Ok(Type::Named(full))
    }

    fn fields(
        &mut self,
        map: &Map<String, Value>,
        namespace: &str,
        path: &str,
    ) -> Result<Vec<Field>, SchemaError> {
        let fields = map.get("fields").and_then(Value::as_array);
        let fields = fields.ok_or_else(|| invalid(path, "the record has no array of fields"))?;
        let mut names_seen = BTreeSet::new();
        let mut read = Vec::with_capacity(fields.len());
        for field in fields {
            let name = field.get("name").and_then(Value::as_str);
            let name = name.filter(|name| is_name(name));
            let name =
                name.ok_or_else(|| invalid(path, "a field has no name in letters, digits and _"))?;
            let path = member(path, name);
            if !names_seen.insert(name) {
                return Err(invalid(&path, "the record has this field twice; rename one"));
            }
            let of = field.get("type").ok_or_else(|| invalid(&path, "the field has no type"))?;
            // Not only names: `"type": "array", "items": …` beside a field's name is a common slip,
            // and refused as an unknown name.
            let of = self.parse(of, namespace, &path)?;
            let aliases = field.as_object().map(|field| names(field, "aliases"));
            read.push(Field {
                name: name.to_owned(),
                aliases: aliases.into_iter().flatten().map(str::to_owned).collect(),
                of,
                default: field.get("default").cloned(),
            });
        }
        Ok(read)
    }
}

fn enumeration(map: &Map<String, Value>, path: &str) -> Result<Shape, SchemaError> {
    let symbols: Vec<String> = names(map, "symbols").map(str::to_owned).collect();
    if !map.get("symbols").is_some_and(Value::is_array) {
        return Err(invalid(path, "the enum has no array of symbols"));
    }
    let unique: BTreeSet<_> = symbols.iter().collect();
    if unique.len() < symbols.len() || !symbols.iter().all(|symbol| is_name(symbol)) {
        return Err(invalid(path, "symbols are different names of letters, digits and _"));
    }
    let default = text(map, "default").map(str::to_owned);
    if default.as_ref().is_some_and(|default| !symbols.contains(default)) {
        return Err(invalid(path, "the enum's default is none of its symbols; add it"));
    }
    Ok(Shape::Enum { symbols, default })
}

fn names<'a>(map: &'a Map<String, Value>, key: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    map.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// A name with its namespace. A name with a dot in it has one already.
fn qualified(name: &str, namespace: &str) -> String {
    match name.contains('.') || namespace.is_empty() {
        true => name.trim_start_matches('.').to_owned(),
        false => format!("{namespace}.{name}"),
    }
}

/// How long a name is, at most, in bytes: each type in a namespace has it in its own name.
const MAX_NAME: usize = 1_024;

fn is_name(name: &str) -> bool {
    let mut characters = name.chars();
    name.len() <= MAX_NAME
        && characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|character| character.is_ascii_alphanumeric() || character == '_')
}

/// A logical type as far as readers have to agree on it; what is not well-formed is ignored, as
/// the specification has it.
fn logical(map: &Map<String, Value>, of: &str) -> Option<String> {
    let name = text(map, "logicalType")?;
    if name == "decimal" && matches!(of, "bytes" | "fixed") {
        let precision = map.get("precision").and_then(Value::as_u64)?;
        let scale = map.get("scale").map_or(Some(0), Value::as_u64)?;
        return Some(format!("decimal({precision}, {scale})"));
    }
    UNITS.contains(&name).then(|| name.to_owned())
}
