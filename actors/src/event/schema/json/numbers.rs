//! Numbers of a schema, compared without losing digits.

use std::cmp::Ordering;

use serde_json::{Map, Number, Value};

/// Compares exactly where both are integers, and as floats otherwise.
pub(super) fn compare(one: &Number, other: &Number) -> Ordering {
    match (one.as_i128(), other.as_i128()) {
        (Some(one), Some(other)) => one.cmp(&other),
        _ => {
            let float = |number: &Number| number.as_f64().unwrap_or(f64::NAN);
            float(one).total_cmp(&float(other))
        }
    }
}

/// A lower or an upper bound.
#[derive(Clone, PartialEq)]
pub(super) struct Bound {
    pub(super) value: Number,
    exclusive: bool,
}

/// Which end of a range.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Lower,
    Upper,
}

impl End {
    const fn keys(self) -> (&'static str, &'static str) {
        match self {
            Self::Lower => ("minimum", "exclusiveMinimum"),
            Self::Upper => ("maximum", "exclusiveMaximum"),
        }
    }

    /// The end of the numbers that a schema takes. `integers`: it takes no others, so that
    /// "above 0" is "1 or more".
    pub(super) fn of(self, schema: &Map<String, Value>, integers: bool) -> Option<Bound> {
        let (plain, exclusive) = self.keys();
        let number = |key: &str| schema.get(key).and_then(Value::as_number).cloned();
        // In draft 4 it only says how the other is meant.
        let flag = schema.get(exclusive) == Some(&Value::Bool(true));
        let one = number(plain).map(|value| Bound { value, exclusive: flag });
        let other = number(exclusive).map(|value| Bound { value, exclusive: true });
        let bound = match (one, other) {
            (Some(one), Some(other)) if self.within(&one, &other) => one,
            (one, other) => other.or(one)?,
        };
        Some(if integers { self.inclusive(bound) } else { bound })
    }

    fn inclusive(self, bound: Bound) -> Bound {
        match bound.value.as_i64() {
            Some(value) if bound.exclusive => {
                let value = match self {
                    Self::Lower => value.saturating_add(1),
                    Self::Upper => value.saturating_sub(1),
                };
                Bound { value: value.into(), exclusive: false }
            }
            _ => bound,
        }
    }

    /// Whether what is within `inner` is within `outer`.
    pub(super) fn within(self, inner: &Bound, outer: &Bound) -> bool {
        let order = match self {
            Self::Lower => compare(&inner.value, &outer.value),
            Self::Upper => compare(&outer.value, &inner.value),
        };
        match order {
            Ordering::Greater => true,
            Ordering::Equal => inner.exclusive || !outer.exclusive,
            Ordering::Less => false,
        }
    }

    /// The bound in words.
    pub(super) fn words(self, bound: Option<&Bound>) -> String {
        let sign = match (self, bound.is_some_and(|bound| bound.exclusive)) {
            (Self::Lower, false) => ">=",
            (Self::Lower, true) => ">",
            (Self::Upper, false) => "<=",
            (Self::Upper, true) => "<",
        };
        bound.map_or_else(|| "any".to_owned(), |bound| format!("{sign} {}", bound.value))
    }
}

/// Whether every multiple of `inner` is one of `outer`. Only integers are looked at: fractions
/// are not exact.
pub(super) fn multiple_within(inner: &Number, outer: &Number) -> bool {
    match (inner.as_i64(), outer.as_i64()) {
        (Some(inner), Some(outer)) if outer > 0 => inner % outer == 0,
        _ => inner == outer,
    }
}

/// Whether two values are equal as JSON Schema has it: 1 and 1.0 are.
pub(super) fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => compare(one, other).is_eq(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| equal(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, one)| other.get(key).is_some_and(|it| equal(one, it)))
        }
        (one, other) => one == other,
    }
}
