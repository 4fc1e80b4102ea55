//! Which documents of a read model are asked for.

use serde_json::Value;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
use super::ProjectionError;

/// The most documents of one page; a larger limit is read as this one.
pub const MAX_LIST: usize = 1_000;

/// A page of documents, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ListQuery {
    pub(crate) filters: Vec<Filter>,
    pub(crate) after: Option<String>,
    pub(crate) descending: bool,
    pub(crate) limit: usize,
}

/// How a field is compared. A value of another JSON type than the one given never matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compare {
    /// Equal.
    Eq,
    /// Less; texts byte by byte.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
}

impl Compare {
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) const fn sql(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
        }
    }
}

/// A field of a document, compared with a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Filter {
    pub(crate) path: Vec<String>,
    pub(crate) compare: Compare,
    pub(crate) value: Value,
}

impl ListQuery {
    /// The first `limit` documents (and at most [`MAX_LIST`]).
    #[must_use]
    pub fn first(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Only documents whose field (`total` or `address.city`) compares so with a text, a number,
    /// or true or false.
    #[must_use]
    pub fn filter(mut self, field: &str, compare: Compare, value: impl Into<Value>) -> Self {
        let path = field.split('.').map(str::to_owned).collect();
        self.filters.push(Filter { path, compare, value: value.into() });
        self
    }

    /// Only documents after this id, the last one of the page before.
    #[must_use]
    pub fn after(mut self, id: impl Into<String>) -> Self {
        self.after = Some(id.into());
        self
    }

    /// From the last id to the first.
    #[must_use]
    pub fn descending(mut self) -> Self {
        self.descending = true;
        self
    }

    /// Refuses what cannot be a field or a value to compare with.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn check(&self) -> Result<(), ProjectionError> {
        for filter in &self.filters {
            let odd = |part: &String| {
                part.is_empty() || part.contains('"') || part.contains(char::is_control)
            };
            if filter.path.iter().any(odd) || filter.value.is_array() || filter.value.is_object() {
                return Err(ProjectionError::Field { field: filter.path.join(".") });
            }
        }
        Ok(())
    }
}
