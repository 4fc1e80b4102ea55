//! What is wrong with a value or with bytes, for serde.

use std::fmt;

use super::shape::Shape;

/// Why something cannot be written or read. One that does not fit is common and cheap: of a union
/// the branches are tried.
#[derive(Debug)]
pub(super) enum Fault {
    Mismatch { what: What, wanted: &'static str },
    Other(String),
}

/// What did not fit.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    Number(i64),
    Unsigned(u64),
    Kind(&'static str),
}

impl Fault {
    /// A value that the schema has no place for.
    pub(super) const fn misfit(what: What, shape: &Shape) -> Self {
        Self::Mismatch { what, wanted: shape.name() }
    }

    /// Something of the schema that the type does not take.
    pub(super) const fn expected(wanted: &'static str, shape: &Shape) -> Self {
        Self::Mismatch { what: What::Kind(shape.name()), wanted }
    }

    /// With the name of the field in front.
    pub(super) fn at(self, name: &str) -> Self {
        Self::Other(format!("{name}: {self}"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mismatch { what, wanted } => match what {
                What::Number(number) => write!(f, "{number} is not {wanted}"),
                What::Unsigned(number) => write!(f, "{number} is not {wanted}"),
                What::Kind(kind) => write!(f, "{kind} is not {wanted}"),
            },
            Self::Other(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Fault {}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Other(reason)
    }
}

impl serde::ser::Error for Fault {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self::Other(reason.to_string())
    }
}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self::Other(reason.to_string())
    }
}
