//! The types of JSON values as a set.

use std::fmt;

use serde_json::{Map, Value};

/// A set of types. An integer is a number; so "number" is two of them: integers and the rest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Types(u8);

const NAMES: [(&str, Types); 7] = [
    ("null", Types::NULL),
    ("boolean", Types::BOOLEAN),
    ("object", Types::OBJECT),
    ("array", Types::ARRAY),
    ("string", Types::STRING),
    ("number", Types::NUMBER),
    ("integer", Types::INTEGER),
];

impl Types {
    const NULL: Self = Self(1);
    const BOOLEAN: Self = Self(2);
    pub(super) const OBJECT: Self = Self(4);
    pub(super) const ARRAY: Self = Self(8);
    pub(super) const STRING: Self = Self(16);
    pub(super) const INTEGER: Self = Self(32);
    pub(super) const NUMBER: Self = Self(32 | 64);
    const ALL: Self = Self(127);

    /// The types that a schema allows by its `type`, `enum` and `const`.
    pub(super) fn of(schema: &Map<String, Value>) -> Self {
        let named = schema.get("type").map_or(Self::ALL, Self::named);
        match finite(schema) {
            Some(values) => {
                let of_values = values.iter().map(Self::of_value);
                named.and(of_values.fold(Self(0), Self::or))
            }
            None => named,
        }
    }

    fn named(names: &Value) -> Self {
        let one = |name: &Value| {
            let known = NAMES.iter().find(|(known, _)| Some(*known) == name.as_str());
            known.map_or(Self(0), |(_, types)| *types)
        };
        match names {
            Value::Array(names) => names.iter().map(one).fold(Self(0), Self::or),
            name => one(name),
        }
    }

    fn of_value(value: &Value) -> Self {
        match value {
            Value::Null => Self::NULL,
            Value::Bool(_) => Self::BOOLEAN,
            Value::Object(_) => Self::OBJECT,
            Value::Array(_) => Self::ARRAY,
            Value::String(_) => Self::STRING,
            Value::Number(number) => match number.as_f64() {
                Some(float) if float.fract() != 0.0 => Self(64),
                _ => Self::INTEGER,
            },
        }
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn has(self, other: Self) -> bool {
        !self.and(other).is_empty()
    }

    pub(super) const fn within(self, other: Self) -> bool {
        self.without(other).is_empty()
    }

    /// The types of which there are so few values that they can be listed.
    pub(super) const FINITE: Self = Self::NULL.or(Self::BOOLEAN);

    /// The values of those of these types that have few.
    pub(super) fn values(self) -> Vec<Value> {
        let all = [Value::Null, Value::Bool(false), Value::Bool(true)];
        all.into_iter().filter(|value| Self::of_value(value).within(self)).collect()
    }

    /// Each of them for itself, by the name that a schema gives it.
    pub(super) fn each(self) -> Vec<&'static str> {
        let mut rest = self;
        let mut names = Vec::new();
        for (name, types) in NAMES {
            if types.within(rest) {
                rest = rest.without(types);
                names.push(name);
            }
        }
        names
    }

    /// Whether a value is of one of them.
    pub(super) fn admit(self, value: &Value) -> bool {
        Self::of_value(value).within(self)
    }
}

impl fmt::Display for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = self.each();
        if Self(64).within(*self) && !Self::INTEGER.within(*self) {
            names.push("fraction");
        }
        match names.as_slice() {
            [] => f.write_str("nothing"),
            _ if *self == Self::ALL => f.write_str("anything"),
            names => f.write_str(&names.join(" or ")),
        }
    }
}

/// The values that a schema lists; `None` if it lists none.
pub(super) fn finite(schema: &Map<String, Value>) -> Option<Vec<Value>> {
    let listed = match (schema.get("const"), schema.get("enum").and_then(Value::as_array)) {
        (Some(one), _) => vec![one.clone()],
        (None, Some(list)) => list.clone(),
        (None, None) => return None,
    };
    let named = schema.get("type").map_or(Types::ALL, Types::named);
    Some(listed.into_iter().filter(|value| named.admit(value)).collect())
}
