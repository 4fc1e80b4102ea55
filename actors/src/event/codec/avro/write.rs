//! A value as the bytes of a schema. The same value gives the same bytes: maps by key, arrays and
//! maps in one block.

use apache_avro::types::Value;
use bytes::Bytes;

use super::MAX_DEPTH;
use super::shape::{Shape, Shapes};

impl Shapes {
    pub(super) fn write(&self, value: &Value) -> Result<Bytes, String> {
        let mut out = Vec::with_capacity(128);
        self.put(self.root(), value, 0, &mut out)?;
        Ok(out.into())
    }

    fn put(
        &self,
        shape: &Shape,
        value: &Value,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("values are nested deeper than {MAX_DEPTH}"));
        }
        match (shape, value) {
            (Shape::Union(branches), value) => return self.branch(branches, value, depth, out),
            // serde's `Some`.
            (shape, Value::Union(_, inner)) => return self.put(shape, inner, depth, out),
            (Shape::Null, Value::Null) => {}
            (Shape::Boolean, Value::Boolean(value)) => out.push(u8::from(*value)),
            (Shape::Int, Value::Int(number)) => long(i64::from(*number), out),
            (Shape::Int, Value::Long(number)) if i32::try_from(*number).is_ok() => {
                long(*number, out);
            }
            (Shape::Long, Value::Int(number)) => long(i64::from(*number), out),
            (Shape::Long, Value::Long(number)) => long(*number, out),
            (Shape::Float, Value::Float(number)) => out.extend(number.to_le_bytes()),
            (Shape::Double, Value::Float(number)) => out.extend(f64::from(*number).to_le_bytes()),
            (Shape::Double, Value::Double(number)) => out.extend(number.to_le_bytes()),
            (Shape::String | Shape::Uuid, Value::String(text)) => counted(text.as_bytes(), out),
            (Shape::Uuid, Value::Bytes(bytes) | Value::Fixed(_, bytes)) if bytes.len() == 16 => {
                let id = uuid::Uuid::from_slice(bytes).map_err(|error| error.to_string())?;
                counted(id.to_string().as_bytes(), out);
            }
            (Shape::Bytes | Shape::BigDecimal | Shape::Fixed(_), value) => {
                let bytes = bytes(value).ok_or_else(|| mismatch(shape, value))?;
                match shape {
                    Shape::Fixed(size) if *size == bytes.len() => out.extend(bytes),
                    Shape::Fixed(size) => {
                        return Err(format!("{} bytes are not the {size} it has", bytes.len()));
                    }
                    _ => counted(&bytes, out),
                }
            }
            (Shape::Enum(symbols), Value::String(name) | Value::Enum(_, name)) => {
                let index = symbols.iter().position(|symbol| symbol == name);
                long(index.ok_or_else(|| format!("there is no symbol {name}"))? as i64, out);
            }
            (Shape::Array(of), Value::Array(items)) => {
                block(items.len(), out);
                for item in items {
                    self.put(self.at(*of), item, depth + 1, out)?;
                }
                out.push(0);
            }
            (Shape::Map(of), Value::Map(_)) => {
                let entries = fields(value);
                block(entries.len(), out);
                for (key, value) in &entries {
                    counted(key.as_bytes(), out);
                    self.put(self.at(*of), value, depth + 1, out)?;
                }
                out.push(0);
            }
            (Shape::Record(of), Value::Record(_) | Value::Map(_)) => {
                self.record(of, &fields(value), depth, out)?;
            }
            _ => return Err(mismatch(shape, value)),
        }
        Ok(())
    }

    fn record(
        &self,
        of: &[(String, usize)],
        given: &[(&str, &Value)],
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        if let Some((name, _)) = given.iter().find(|(name, _)| of.iter().all(|(of, _)| of != name))
        {
            return Err(format!("the schema has no field {name}"));
        }
        for (name, of) in of {
            let at = given.binary_search_by_key(&name.as_str(), |(name, _)| *name);
            // One that was left out may be null.
            let value = at.map_or(&Value::Null, |at| given[at].1);
            self.put(self.at(*of), value, depth + 1, out).map_err(|reason| match at {
                Ok(_) => format!("{name}: {reason}"),
                Err(_) => format!("{name}: the value has no such field, and it may not be null"),
            })?;
        }
        Ok(())
    }

    fn branch(
        &self,
        branches: &[usize],
        value: &Value,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let begin = out.len();
        let mut last = "there is none".to_owned();
        for (index, branch) in branches.iter().enumerate() {
            long(index as i64, out);
            match self.put(self.at(*branch), value, depth + 1, out) {
                Ok(()) => return Ok(()),
                Err(reason) => last = reason,
            }
            out.truncate(begin);
        }
        Err(format!("no alternative fits, nor the last: {last}"))
    }
}

/// The fields or entries of a value by name.
fn fields(value: &Value) -> Vec<(&str, &Value)> {
    let mut all: Vec<_> = match value {
        Value::Record(fields) => fields.iter().map(|(name, value)| (&**name, value)).collect(),
        Value::Map(entries) => entries.iter().map(|(name, value)| (&**name, value)).collect(),
        _ => Vec::new(),
    };
    all.sort_unstable_by_key(|(name, _)| *name);
    all
}

/// Bytes, however serde has seen them; a `Vec<u8>` is a sequence of numbers to it.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Bytes(bytes) | Value::Fixed(_, bytes) => Some(bytes.clone()),
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::Int(number) => u8::try_from(*number).ok(),
                _ => None,
            })
            .collect(),
        _ => None,
    }
}

fn block(count: usize, out: &mut Vec<u8>) {
    if count > 0 {
        long(count as i64, out);
    }
}

fn counted(bytes: &[u8], out: &mut Vec<u8>) {
    long(bytes.len() as i64, out);
    out.extend_from_slice(bytes);
}

fn long(number: i64, out: &mut Vec<u8>) {
    let mut left = ((number << 1) ^ (number >> 63)) as u64;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn mismatch(shape: &Shape, value: &Value) -> String {
    let shape = match shape {
        Shape::Null => "null",
        Shape::Boolean => "a boolean",
        Shape::Int => "an int",
        Shape::Long => "a long",
        Shape::Float => "a float",
        Shape::Double => "a double",
        Shape::Bytes => "bytes",
        Shape::String => "a string",
        Shape::Uuid => "a UUID",
        Shape::BigDecimal => "a big decimal",
        Shape::Fixed(_) => "fixed bytes",
        Shape::Array(_) => "an array",
        Shape::Map(_) => "a map",
        Shape::Union(_) => "a union",
        Shape::Record(_) => "a record",
        Shape::Enum(_) => "an enum",
    };
    let mut text = format!("{value:?}");
    if text.len() > 60 {
        text = text.chars().take(60).chain(['…']).collect();
    }
    format!("{text} is not {shape}")
}
