//! Who can mend an error.

use std::fmt;

/// Who can mend an error: time, nobody, the caller, or an operator.
///
/// Policies decide on the class, never on the text: a transient error is worth a retry, a
/// permanent one is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorClass {
    /// Goes away by itself; try again later.
    Transient,
    /// Will be the same at every try.
    Permanent,
    /// The caller sent something that cannot be done.
    User,
    /// The machine or a component below is at fault; an operator has to look.
    System,
}

impl ErrorClass {
    /// The word that logs, the tree and JSON use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::User => "user",
            Self::System => "system",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
