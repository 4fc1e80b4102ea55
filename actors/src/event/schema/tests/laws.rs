//! What holds for every pair of schemas, and that the verdict is true: what is called compatible
//! is really read, and what is not has a payload that is not.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use super::super::compatibility::Incompatibility;
use super::*;

/// The verdict on a step from `old` to `new`, without direction.
fn verdict(mode: CompatibilityMode, old: &Schema, new: &Schema) -> Vec<Problem> {
    check(mode, new, [(1, old)]).into_iter().map(|found| found.problem).collect()
}

fn assert_laws(a: &Schema, b: &Schema) {
    for mode in CompatibilityMode::ALL {
        assert_eq!(verdict(mode, a, a), [], "{mode}: a schema is compatible with itself");
        let reread: Schema = serde_json::from_str(&serde_json::to_string(a).unwrap()).unwrap();
        assert_eq!(reread.problems_with(a), []);
    }
    use CompatibilityMode::{Backward, Forward, Full, FullTransitive};
    assert_eq!(verdict(Backward, a, b), verdict(Forward, b, a), "backward is forward, reversed");
    let mut both = verdict(Backward, a, b);
    both.extend(verdict(Forward, a, b));
    assert_eq!(verdict(Full, a, b), both, "full is both");
    assert_eq!(verdict(FullTransitive, a, b), both, "of one version, all is the last");
    for found in check(Full, b, [(1, a)]) {
        let Incompatibility { problem, .. } = &found;
        assert!(!problem.detail.is_empty() && !found.cure().is_empty());
    }
}

/// A property of a simple JSON record.
#[derive(Debug, Clone)]
struct Property {
    schema: Value,
    /// Values that it takes, the extreme ones among them.
    values: Vec<Value>,
}

fn property() -> impl Strategy<Value = Property> {
    let bounded = (-3..3_i64, 0..4_i64).prop_map(|(min, more)| Property {
        schema: json!({"type": "integer", "minimum": min, "maximum": min + more}),
        values: vec![json!(min), json!(min + more)],
    });
    let lengths = (0..3_usize, 0..3_usize).prop_map(|(min, more)| Property {
        schema: json!({"type": "string", "minLength": min, "maxLength": min + more}),
        values: vec![json!("x".repeat(min)), json!("x".repeat(min + more))],
    });
    let listed = subsequence(vec![json!("a"), json!("bb"), json!(1), json!(null)], 1..=4)
        .prop_map(|values| Property { schema: json!({"enum": values}), values });
    let plain = select(vec![
        Property {
            schema: json!({"type": "integer"}),
            values: vec![json!(-99), json!(0), json!(99)],
        },
        Property {
            schema: json!({"type": "number"}),
            values: vec![json!(-99), json!(0.5), json!(99)],
        },
        Property {
            schema: json!({"type": "string"}),
            values: vec![json!(""), json!("long enough")],
        },
        Property { schema: json!({"type": "boolean"}), values: vec![json!(true), json!(false)] },
        Property {
            schema: json!({"type": ["string", "null"]}),
            values: vec![json!(""), json!("long enough"), json!(null)],
        },
    ]);
    let leaf = prop_oneof![bounded, lengths, listed, plain];
    (leaf, 0..4_u8).prop_map(|(Property { schema, values }, shape)| match shape {
        0 => Property {
            schema: json!({"type": "array", "items": schema}),
            values: values.iter().map(|value| json!([value])).chain([json!([])]).collect(),
        },
        1 => {
            let mut nullable = values;
            nullable.push(json!(null));
            Property { schema: json!({"anyOf": [schema, {"type": "null"}]}), values: nullable }
        }
        _ => Property { schema, values },
    })
}

#[derive(Debug, Clone)]
struct JsonRecord {
    properties: BTreeMap<&'static str, (Property, bool)>,
    closed: bool,
}

fn json_record() -> impl Strategy<Value = JsonRecord> {
    let names = select(vec!["a", "b", "c"]);
    let properties = proptest::collection::btree_map(names, (property(), any::<bool>()), 0..4);
    (properties, any::<bool>()).prop_map(|(properties, closed)| JsonRecord { properties, closed })
}

/// A record and one that grew out of it, so that many pairs are compatible.
fn json_pair() -> impl Strategy<Value = (JsonRecord, JsonRecord)> {
    (json_record(), json_record(), any::<[bool; 3]>()).prop_map(|(one, mut other, kept)| {
        for (name, kept) in ["a", "b", "c"].into_iter().zip(kept) {
            match one.properties.get(name) {
                Some(property) if kept => drop(other.properties.insert(name, property.clone())),
                _ => {}
            }
        }
        (one, other)
    })
}

impl JsonRecord {
    fn schema(&self) -> Schema {
        let properties: Map<String, Value> = self
            .properties
            .iter()
            .map(|(name, (property, _))| ((*name).to_owned(), property.schema.clone()))
            .collect();
        let required: Vec<_> = self
            .properties
            .iter()
            .filter(|(_, (_, required))| *required)
            .map(|(name, _)| *name)
            .collect();
        let mut schema = json!({"type": "object", "properties": properties, "required": required});
        if self.closed {
            schema["additionalProperties"] = json!(false);
        }
        Schema::json(schema.to_string()).unwrap()
    }

    /// Documents of this schema: each value of each property, with all others and with only those
    /// that are required, and something that nobody declares if it is open.
    fn documents(&self) -> Vec<Value> {
        let all = || self.properties.iter();
        let full: Map<String, Value> =
            all().map(|(name, (of, _))| ((*name).to_owned(), of.values[0].clone())).collect();
        let mut least = full.clone();
        least.retain(|name, _| self.properties[name.as_str()].1);
        let mut documents = vec![full.clone(), least.clone()];
        for (name, (of, _)) in all() {
            for value in &of.values {
                for base in [&full, &least] {
                    let mut document = base.clone();
                    document.insert((*name).to_owned(), value.clone());
                    documents.push(document);
                }
            }
        }
        if !self.closed {
            full.clone_into(&mut least);
            least.insert("undeclared".to_owned(), json!(1));
            documents.push(least);
        }
        documents.into_iter().map(Value::Object).collect()
    }
}

proptest! {
    #[test]
    fn json_schemas_keep_the_laws((a, b) in json_pair()) {
        assert_laws(&a.schema(), &b.schema());
    }

    #[test]
    fn the_verdict_on_json_is_what_the_validator_does((old, new) in json_pair()) {
        let (writer, reader) = (old.schema(), new.schema());
        let problems = reader.problems_with(&writer);
        let mut refused = Vec::new();
        for document in old.documents() {
            let text = document.to_string();
            writer.validate(text.as_bytes()).unwrap();
            if reader.validate(text.as_bytes()).is_err() {
                refused.push(text);
            }
        }
        prop_assert_eq!(
            problems.is_empty(), refused.is_empty(),
            "{:?} and {:?}\nwriter {:?}\nreader {:?}", problems, refused, writer.text(), reader.text()
        );
    }

    #[test]
    fn protobuf_messages_keep_the_laws(a in proto_fields(), b in proto_fields()) {
        let schema = |fields: &BTreeMap<i32, _>| {
            let field = |(number, of): (&i32, &_)| protobuf::field(&format!("f{number}"), *number, *of);
            protobuf::message("M", fields.iter().map(field))
        };
        let (one, other) = (schema(&a), schema(&b));
        assert_laws(&one, &other);
        // The smallest payload of each field is read, if the types are of the same wire.
        let payload: Vec<u8> = a.iter().flat_map(|(number, of)| wire(*number, *of)).collect();
        one.validate(&payload).unwrap();
        if other.problems_with(&one).is_empty() {
            other.validate(&payload).unwrap();
        }
    }
}

fn proto_fields() -> impl Strategy<Value = BTreeMap<i32, protobuf::Type>> {
    use super::protobuf::Type;
    let of = select(vec![
        Type::Int32,
        Type::Int64,
        Type::Bool,
        Type::String,
        Type::Bytes,
        Type::Double,
        Type::Fixed32,
    ]);
    proptest::collection::btree_map(1..6_i32, of, 0..6)
}

/// A field's tag and a value.
fn wire(number: i32, of: protobuf::Type) -> Vec<u8> {
    use super::protobuf::Type;
    let (wire_type, value): (u8, &[u8]) = match of {
        Type::Double => (1, &[0; 8]),
        Type::Fixed32 => (5, &[0; 4]),
        Type::String | Type::Bytes => (2, b"\x02ok"),
        _ => (0, &[1]),
    };
    let mut bytes = vec![number as u8 * 8 + wire_type];
    bytes.extend(value);
    bytes
}

/// The type of a field in a simple Avro record.
#[derive(Debug, Clone)]
enum AvroType {
    Primitive(&'static str),
    Enum(Vec<&'static str>, bool),
    Array(Box<AvroType>),
    Map(Box<AvroType>),
    Nullable(Box<AvroType>),
}

impl AvroType {
    /// `name` keeps the names of enums apart.
    fn schema(&self, name: &str) -> Value {
        match self {
            Self::Primitive(of) => json!(of),
            Self::Enum(symbols, default) => {
                let mut schema =
                    json!({"type": "enum", "name": format!("E_{name}"), "symbols": symbols});
                if *default {
                    schema["default"] = json!(symbols[0]);
                }
                schema
            }
            Self::Array(of) => json!({"type": "array", "items": of.schema(name)}),
            Self::Map(of) => json!({"type": "map", "values": of.schema(name)}),
            Self::Nullable(of) => json!(["null", of.schema(name)]),
        }
    }

    #[cfg(feature = "codec-avro")]
    fn forget_defaults(&mut self) {
        match self {
            Self::Primitive(_) => {}
            Self::Enum(_, default) => *default = false,
            Self::Array(of) | Self::Map(of) | Self::Nullable(of) => of.forget_defaults(),
        }
    }

    fn default(&self) -> Value {
        match self {
            Self::Primitive("boolean") => json!(false),
            Self::Primitive("string" | "bytes") => json!(""),
            Self::Primitive(_) => json!(0),
            Self::Enum(symbols, _) => json!(symbols[0]),
            Self::Array(_) => json!([]),
            Self::Map(_) => json!({}),
            Self::Nullable(_) => Value::Null,
        }
    }
}

fn avro_type() -> impl Strategy<Value = AvroType> {
    let primitives = select(vec!["boolean", "int", "long", "float", "double", "bytes", "string"]);
    let symbols = subsequence(vec!["A", "B", "C"], 1..=3);
    let leaf = prop_oneof![
        3 => primitives.prop_map(AvroType::Primitive),
        1 => (symbols, any::<bool>()).prop_map(|(symbols, default)| AvroType::Enum(symbols, default)),
    ];
    (leaf, 0..6_u8).prop_map(|(of, shape)| match shape {
        0 => AvroType::Array(Box::new(of)),
        1 => AvroType::Map(Box::new(of)),
        2 => AvroType::Nullable(Box::new(of)),
        _ => of,
    })
}

type AvroFields = BTreeMap<&'static str, (AvroType, bool)>;

fn avro_fields() -> impl Strategy<Value = AvroFields> {
    let names = select(vec!["a", "b", "c"]);
    proptest::collection::btree_map(names, (avro_type(), any::<bool>()), 0..4)
}

fn avro_schema(fields: &AvroFields) -> Schema {
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, (of, default))| {
            let mut field = json!({"name": name, "type": of.schema(name)});
            if *default {
                field["default"] = of.default();
            }
            field
        })
        .collect();
    Schema::avro(json!({"type": "record", "name": "R", "fields": fields}).to_string()).unwrap()
}

proptest! {
    #[test]
    fn avro_schemas_keep_the_laws(a in avro_fields(), b in avro_fields()) {
        assert_laws(&avro_schema(&a), &avro_schema(&b));
    }
}

#[cfg(feature = "codec-avro")]
mod decoded {
    use apache_avro::types::Value as Datum;

    use super::*;

    /// Values of a type, one of each branch and symbol among them.
    fn data(of: &AvroType) -> Vec<Datum> {
        match of {
            AvroType::Primitive("boolean") => vec![Datum::Boolean(true)],
            AvroType::Primitive("int") => vec![Datum::Int(i32::MIN), Datum::Int(7)],
            AvroType::Primitive("long") => vec![Datum::Long(i64::MAX), Datum::Long(7)],
            AvroType::Primitive("float") => vec![Datum::Float(0.5)],
            AvroType::Primitive("double") => vec![Datum::Double(0.1)],
            AvroType::Primitive("bytes") => vec![Datum::Bytes(b"ok".to_vec())],
            AvroType::Primitive(_) => vec![Datum::String("ok".to_owned())],
            AvroType::Enum(symbols, _) => (0..)
                .zip(symbols)
                .map(|(index, symbol)| Datum::Enum(index, (*symbol).to_owned()))
                .collect(),
            AvroType::Array(of) => {
                let full = Datum::Array(data(of));
                vec![Datum::Array(Vec::new()), full]
            }
            AvroType::Map(of) => {
                let keyed = data(of).into_iter().enumerate();
                vec![Datum::Map(keyed.map(|(key, value)| (key.to_string(), value)).collect())]
            }
            AvroType::Nullable(of) => {
                let some = data(of).into_iter().map(|value| Datum::Union(1, Box::new(value)));
                some.chain([Datum::Union(0, Box::new(Datum::Null))]).collect()
            }
        }
    }

    /// Each value of each field at least once.
    fn payloads(schema: &Schema, fields: &AvroFields) -> Vec<Vec<u8>> {
        let schema = apache_avro::Schema::parse_str(schema.text().unwrap()).unwrap();
        let columns: Vec<_> = fields.iter().map(|(name, (of, _))| (*name, data(of))).collect();
        let most = columns.iter().map(|(_, values)| values.len()).max().unwrap_or(1);
        let record = |row: usize| {
            let cell = |(name, values): &(&str, Vec<Datum>)| {
                ((*name).to_owned(), values[row % values.len()].clone())
            };
            Datum::Record(columns.iter().map(cell).collect())
        };
        (0..most).map(|row| apache_avro::to_avro_datum(&schema, record(row)).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn what_is_called_compatible_is_decoded(old in avro_fields(), new in avro_fields(), kept in any::<[bool; 3]>()) {
            let mut new = new;
            for (name, kept) in ["a", "b", "c"].into_iter().zip(kept) {
                if let (Some(field), true) = (old.get(name), kept) {
                    new.insert(name, field.clone());
                }
            }
            let (writer, reader) = (avro_schema(&old), avro_schema(&new));
            let problems = reader.problems_with(&writer);
            for payload in payloads(&writer, &old) {
                writer.validate(&payload).unwrap();
                let read = reader.read(&writer, &payload);
                if problems.is_empty() {
                    prop_assert!(
                        read.is_ok(), "{:?}\nwriter {:?}\nreader {:?}", read, writer.text(), reader.text()
                    );
                }
                // The decoder fills in no field that has no default, whatever it is.
                if problems.iter().any(|problem| problem.rule == Rule::FieldWithoutDefault) {
                    prop_assert!(read.is_err(), "writer {:?}\nreader {:?}", writer.text(), reader.text());
                }
            }
        }
    }

    #[test]
    fn the_verdict_is_that_of_the_reference_implementation() {
        use apache_avro::schema_compatibility::SchemaCompatibility;
        proptest!(|(mut old in avro_fields(), mut new in avro_fields())| {
            // It does not see the default of an enum in a union, which its own decoder uses.
            let of = |fields: &mut AvroFields| {
                fields.values_mut().for_each(|(of, _)| of.forget_defaults());
            };
            of(&mut old);
            of(&mut new);
            let (writer, reader) = (avro_schema(&old), avro_schema(&new));
            let parse = |schema: &Schema| apache_avro::Schema::parse_str(schema.text().unwrap()).unwrap();
            let theirs = SchemaCompatibility::can_read(&parse(&writer), &parse(&reader));
            let ours = reader.problems_with(&writer);
            prop_assert_eq!(
                ours.is_empty(), theirs.is_ok(),
                "{:?} and {:?}\nwriter {:?}\nreader {:?}", ours, theirs, writer.text(), reader.text()
            );
        });
    }
}
