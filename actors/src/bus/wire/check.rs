//! What no broker can carry, found before a client is asked: some answer with a panic.

use super::WireMessage;
use crate::bus::subject::{InvalidSubject, Subject};

/// Why a message cannot be sent, by whatever broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unsendable {
    /// A header's name cannot be written.
    #[error(
        "header {name:?} has a name that cannot be sent; use visible ASCII characters without \
         colons"
    )]
    HeaderName {
        /// The name.
        name: String,
    },
    /// A header of the server's own, which would be obeyed or taken away.
    #[error("header {name:?} belongs to the server; use a name that does not begin with Nats-")]
    HeaderOfServer {
        /// The name.
        name: String,
    },
    /// A header's value would begin another line.
    #[error("header {name:?} has a value with a line end or a NUL; encode it")]
    HeaderValue {
        /// The header's name.
        name: String,
    },
    /// The id would begin another line.
    #[error("id {id:?} has a line end or a NUL; use other characters")]
    Id {
        /// The id.
        id: String,
    },
    /// The subject cannot be published to.
    #[error(transparent)]
    Subject(#[from] InvalidSubject),
}

fn is_a_line(text: &str) -> bool {
    !text.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0))
}

impl WireMessage {
    /// Whether every broker can carry it, but for its size.
    ///
    /// # Errors
    /// What cannot be carried, and the cure.
    pub fn check(&self) -> Result<(), Unsendable> {
        Subject::check(&self.subject)?;
        if !is_a_line(&self.id) {
            return Err(Unsendable::Id { id: self.id.clone() });
        }
        self.check_headers()
    }

    /// The same for one that needs no subject, an answer.
    pub(in crate::bus) fn check_headers(&self) -> Result<(), Unsendable> {
        for (name, value) in &self.headers {
            let bytes = name.as_bytes();
            if name.is_empty() || !bytes.iter().all(|b| b.is_ascii_graphic() && *b != b':') {
                return Err(Unsendable::HeaderName { name: name.clone() });
            }
            if bytes.get(..5).is_some_and(|begin| begin.eq_ignore_ascii_case(b"nats-")) {
                return Err(Unsendable::HeaderOfServer { name: name.clone() });
            }
            if !is_a_line(value) {
                return Err(Unsendable::HeaderValue { name: name.clone() });
            }
        }
        Ok(())
    }
}
