//! Beside the reference implementation, for any schema and any value of it: what it writes is read
//! as it reads it, and what is written here is the same to it.

use apache_avro::Schema;
use apache_avro::types::Value;
use proptest::collection::{hash_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::any::Any;
use super::avro;
use crate::event::codec::Codec;

/// A schema that has not got its names yet.
#[derive(Debug, Clone)]
enum Shape {
    Plain(&'static str),
    Fixed(usize),
    Enum(usize),
    Array(Box<Shape>),
    Map(Box<Shape>),
    Optional(Box<Shape>),
    Union,
    Record(Vec<Shape>),
}

const PLAIN: [&str; 8] = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];

/// Branches that a value fits only one of.
const BRANCHES: [&str; 4] = ["null", "long", "double", "string"];

fn shape() -> impl Strategy<Value = Shape> {
    let leaf = prop_oneof![
        8 => select(PLAIN.to_vec()).prop_map(Shape::Plain),
        1 => (0..5_usize).prop_map(Shape::Fixed),
        1 => (1..70_usize).prop_map(Shape::Enum),
        1 => Just(Shape::Union),
    ];
    leaf.prop_recursive(4, 24, 5, |inside| {
        prop_oneof![
            1 => inside.clone().prop_map(|of| Shape::Array(of.into())),
            1 => inside.clone().prop_map(|of| Shape::Map(of.into())),
            1 => inside.clone().prop_map(|of| match of {
                // There is no union in a union, and nothing twice.
                Shape::Optional(_) | Shape::Union | Shape::Plain("null") => of,
                of => Shape::Optional(of.into()),
            }),
            3 => vec(inside, 0..6).prop_map(Shape::Record),
        ]
    })
}

fn schema(of: &Shape, names: &mut usize) -> serde_json::Value {
    *names += 1;
    let name = format!("N{names}");
    match of {
        Shape::Plain(name) => json!(name),
        Shape::Fixed(size) => json!({"type": "fixed", "name": name, "size": size}),
        Shape::Enum(count) => {
            let symbols: Vec<_> = (0..*count).map(|n| format!("S{n}")).collect();
            json!({"type": "enum", "name": name, "symbols": symbols})
        }
        Shape::Array(of) => json!({"type": "array", "items": schema(of, names)}),
        Shape::Map(of) => json!({"type": "map", "values": schema(of, names)}),
        Shape::Optional(of) => json!(["null", schema(of, names)]),
        Shape::Union => json!(BRANCHES),
        Shape::Record(fields) => {
            let field = |(at, of)| json!({"name": format!("f{at}"), "type": schema(of, names)});
            let fields: Vec<_> = fields.iter().enumerate().map(field).collect();
            json!({"type": "record", "name": name, "fields": fields})
        }
    }
}

fn plain(name: &str) -> BoxedStrategy<Value> {
    match name {
        "boolean" => any::<bool>().prop_map(Value::Boolean).boxed(),
        "int" => any::<i32>().prop_map(Value::Int).boxed(),
        "long" => any::<i64>().prop_map(Value::Long).boxed(),
        "float" => any::<f32>().prop_map(Value::Float).boxed(),
        "double" => any::<f64>().prop_map(Value::Double).boxed(),
        "bytes" => vec(any::<u8>(), 0..200).prop_map(Value::Bytes).boxed(),
        "string" => ".{0,80}".prop_map(Value::String).boxed(),
        _ => Just(Value::Null).boxed(),
    }
}

fn value(of: &Shape) -> BoxedStrategy<Value> {
    match of {
        Shape::Plain(name) => plain(name),
        Shape::Fixed(size) => {
            let size = *size;
            vec(any::<u8>(), size).prop_map(move |bytes| Value::Fixed(size, bytes)).boxed()
        }
        Shape::Enum(count) => {
            (0..*count as u32).prop_map(|index| Value::Enum(index, format!("S{index}"))).boxed()
        }
        Shape::Array(of) => vec(value(of), 0..4).prop_map(Value::Array).boxed(),
        Shape::Map(of) => hash_map("[a-z]{0,3}", value(of), 0..4).prop_map(Value::Map).boxed(),
        Shape::Optional(of) => prop_oneof![
            Just(Value::Union(0, Value::Null.into())),
            value(of).prop_map(|value| Value::Union(1, value.into())),
        ]
        .boxed(),
        Shape::Union => (0..BRANCHES.len())
            .prop_flat_map(|index| {
                plain(BRANCHES[index])
                    .prop_map(move |value| Value::Union(index as u32, value.into()))
            })
            .boxed(),
        Shape::Record(fields) => {
            let fields: Vec<_> = fields
                .iter()
                .enumerate()
                .map(|(at, of)| value(of).prop_map(move |value| (format!("f{at}"), value)))
                .collect();
            fields.prop_map(Value::Record).boxed()
        }
    }
}

fn datum() -> impl Strategy<Value = (String, Value)> {
    shape().prop_flat_map(|shape| {
        let text = schema(&shape, &mut 0).to_string();
        value(&shape).prop_map(move |value| (text.clone(), value))
    })
}

proptest! {
    #[test]
    fn what_it_writes_is_read_as_it_reads_it((text, value) in datum()) {
        let schema = Schema::parse_str(&text).unwrap();
        let bytes = apache_avro::to_avro_datum(&schema, value).unwrap();
        let read = apache_avro::from_avro_datum(&schema, &mut &bytes[..], None).unwrap();
        let theirs: Any = apache_avro::from_value(&read).unwrap();
        let codec = avro(&text);
        let ours: Any = codec.decode(&bytes).unwrap();
        prop_assert_eq!(&ours, &theirs);
        // Back again: in the order of the schema and of keys, so of the same length only.
        let written = codec.encode(&ours).unwrap();
        prop_assert_eq!(written.len(), bytes.len());
        let again = apache_avro::from_avro_datum(&schema, &mut &written[..], None).unwrap();
        prop_assert_eq!(again, read);
    }

    #[test]
    fn what_is_cut_or_changed_is_answered((text, value) in datum(), at in any::<prop::sample::Index>(), change in 1..=255_u8) {
        let schema = Schema::parse_str(&text).unwrap();
        let mut bytes = apache_avro::to_avro_datum(&schema, value).unwrap();
        if !bytes.is_empty() {
            let codec = avro(&text);
            let cut = at.index(bytes.len());
            prop_assert!(Codec::<Any>::decode(&codec, &bytes[..cut]).is_err());
            bytes[cut] ^= change;
            let _ = Codec::<Any>::decode(&codec, &bytes);
        }
    }
}
