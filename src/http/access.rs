//! Who may do what over HTTP.
//!
//! | role | may |
//! |---|---|
//! | viewer | read, without payloads |
//! | operator | act: kill, restart, requeue, hand events in |
//! | admin | read payloads, too |
//!
//! On loopback a caller without a token is an admin in development, an operator if the node was
//! told so, and else a viewer who may read. Any other address wants a token of everybody: a long
//! random text, of which the node knows only the Argon2id hash. A token is hashed once; then the
//! node keeps its SHA-256 digest, in memory, so that a page that asks four times a second costs
//! nothing.
//!
//! Who fails too often waits: Argon2id is made to cost, and must not be what takes the node down.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::time::Instant;

#[cfg(test)]
mod tests;

/// Wrong tokens of one address within [`WINDOW`]; the next one waits.
const FAILURES: u32 = 10;

/// Over which time they are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// Addresses whose failures are remembered.
const ADDRESSES: usize = 4_096;

/// Tokens that are hashed at once, of all callers: each takes some 20 ms of a core and 19 MiB.
const HASHING: usize = 2;

/// What a token begins with, so that one that leaks is found by whoever searches for it.
const PREFIX: &str = "smith_";

/// Random bytes of a token.
const SECRET_BYTES: usize = 32;

/// What a caller may do.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Read, without payloads.
    Viewer,
    /// Act.
    Operator,
    /// Read payloads, too.
    Admin,
}

impl Role {
    /// One word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        [Self::Viewer, Self::Operator, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| TokenError::Role { text: text.to_owned() })
    }
}

/// Why a line is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The role is none.
    #[error("{text:?} is no role; give viewer, operator or admin")]
    Role {
        /// What was given.
        text: String,
    },
    /// The name is none.
    #[error("{text:?} is no name; use letters, digits, '-' and '.'")]
    Name {
        /// What was given.
        text: String,
    },
    /// Two tokens have one name.
    #[error("there are two tokens named {name}")]
    Twice {
        /// The name.
        name: String,
    },
    /// The line has other parts.
    #[error("line {line} is no token; write `ROLE NAME HASH` as `smith token` prints it")]
    Line {
        /// Which, from 1.
        line: usize,
    },
    /// The hash is none.
    #[error("the hash of {name} is no Argon2id hash: {reason}; make one with `smith token`")]
    Hash {
        /// Whose.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A token as the node knows it: what it cannot be made from.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    role: Role,
    name: String,
    /// In PHC form: `$argon2id$v=19$m=…$SALT$HASH`.
    hash: String,
}

impl Token {
    /// A token for a role, made of random bytes: the text that the caller shows, and what the
    /// node keeps.
    ///
    /// # Errors
    /// The name is none.
    pub fn create(role: Role, name: &str, random: [u8; 48]) -> Result<(String, Self), TokenError> {
        check_name(name)?;
        let (secret, salt) = random.split_at(SECRET_BYTES);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let text = format!("{PREFIX}{name}_{}", hex(secret));
        let hash = Argon2::default().hash_password_with_salt(text.as_bytes(), salt);
        let hash = hash.map_err(|error| TokenError::Hash {
            name: name.to_owned(),
            reason: error.to_string(),
        })?;
        Ok((text, Self { role, name: name.to_owned(), hash: hash.to_string() }))
    }

    /// The tokens of a file: a line each, `ROLE NAME HASH`; empty lines and those that begin with
    /// `#` are left out.
    ///
    /// # Errors
    /// Which line is wrong, and why.
    pub fn read(text: &str) -> Result<Vec<Self>, TokenError> {
        let mut tokens: Vec<Self> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut parts = line.split_whitespace();
            let (Some(role), Some(name), Some(hash), None) =
                (parts.next(), parts.next(), parts.next(), parts.next())
            else {
                return Err(TokenError::Line { line: index + 1 });
            };
            check_name(name)?;
            let parsed = PasswordHash::new(hash).map_err(|error| error.to_string());
            let wrong = match parsed {
                Err(reason) => Some(reason),
                Ok(parsed) if parsed.algorithm.as_str() != "argon2id" => {
                    Some(format!("it is {}", parsed.algorithm))
                }
                Ok(_) => None,
            };
            if let Some(reason) = wrong {
                return Err(TokenError::Hash { name: name.to_owned(), reason });
            }
            if tokens.iter().any(|one| one.name == name) {
                return Err(TokenError::Twice { name: name.to_owned() });
            }
            tokens.push(Self { role: role.parse()?, name: name.to_owned(), hash: hash.to_owned() });
        }
        Ok(tokens)
    }

    fn fits(&self, text: &str) -> bool {
        PasswordHash::new(&self.hash)
            .is_ok_and(|hash| Argon2::default().verify_password(text.as_bytes(), &hash).is_ok())
    }
}

/// The line of a token file.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.role.as_str(), self.name, self.hash)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} {})", self.role.as_str(), self.name)
    }
}

/// Part of a token, and ended by `_` there.
fn check_name(name: &str) -> Result<(), TokenError> {
    let odd = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '.');
    match name.is_empty() || name.len() > 64 || name.contains(odd) {
        true => Err(TokenError::Name { text: name.to_owned() }),
        false => Ok(()),
    }
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Caller {
    pub(crate) role: Role,
    /// The token's name; `None` without one.
    pub(crate) name: Option<Arc<str>>,
}

/// Why a caller is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Denied {
    /// There is no token, and one is wanted.
    Missing,
    /// The token is wrong.
    Wrong,
    /// There were too many wrong ones; seconds to wait.
    TooMany(u64),
}

/// Decides who calls. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Access(Arc<Inner>);

struct Inner {
    tokens: Vec<Token>,
    /// Who a caller without a token is.
    open: Option<Role>,
    hashing: Semaphore,
    /// Digests of tokens that were right.
    known: Mutex<Vec<([u8; 32], Caller)>>,
    failures: Mutex<IndexMap<IpAddr, Failures>>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    since: Instant,
}

impl Access {
    pub(crate) fn new(tokens: Vec<Token>, open: Option<Role>) -> Self {
        Self(Arc::new(Inner {
            tokens,
            open,
            hashing: Semaphore::new(HASHING),
            known: Mutex::default(),
            failures: Mutex::default(),
        }))
    }

    /// Who calls from an address, with the value of an `Authorization` header.
    pub(crate) async fn caller(
        &self,
        from: IpAddr,
        authorization: Option<&str>,
    ) -> Result<Caller, Denied> {
        let Some(authorization) = authorization else {
            return match self.0.open {
                Some(role) => Ok(Caller { role, name: None }),
                None => Err(Denied::Missing),
            };
        };
        let token = authorization
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, text)) = token else { return Err(Denied::Missing) };
        let text = text.trim();
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        if let Some(caller) = self.known(&digest) {
            return Ok(caller);
        }
        self.wait_for(from)?;
        match self.verify(text).await {
            Some(caller) => {
                let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
                // Two requests may have come with it at once.
                known.retain(|(one, _)| *one != digest);
                known.push((digest, caller.clone()));
                Ok(caller)
            }
            None => {
                self.failed(from);
                Err(Denied::Wrong)
            }
        }
    }

    fn known(&self, digest: &[u8; 32]) -> Option<Caller> {
        let known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.iter().find(|(one, _)| bool::from(one.ct_eq(digest)));
        found.map(|(_, caller)| caller.clone())
    }

    async fn verify(&self, text: &str) -> Option<Caller> {
        // The name is no secret: it says which hash to compare with.
        let name = text.strip_prefix(PREFIX)?.split_once('_')?.0;
        let token = self.0.tokens.iter().find(|token| token.name == name)?.clone();
        let _permit = self.0.hashing.acquire().await.ok()?;
        let caller = Caller { role: token.role, name: Some(token.name.as_str().into()) };
        let text = text.to_owned();
        let fits = tokio::task::spawn_blocking(move || token.fits(&text)).await;
        fits.ok()?.then_some(caller)
    }

    fn wait_for(&self, from: IpAddr) -> Result<(), Denied> {
        let failures = self.0.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.get(&from) {
            Some(failed) if failed.count >= FAILURES && failed.since.elapsed() < WINDOW => {
                Err(Denied::TooMany((WINDOW - failed.since.elapsed()).as_secs() + 1))
            }
            _ => Ok(()),
        }
    }

    fn failed(&self, from: IpAddr) {
        let mut failures = self.0.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let entry = failures.entry(from).or_insert(Failures { count: 0, since: now });
        if entry.since.elapsed() >= WINDOW {
            *entry = Failures { count: 0, since: now };
        }
        entry.count += 1;
        if failures.len() > ADDRESSES {
            failures.shift_remove_index(0);
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("tokens", &self.0.tokens)
            .field("open", &self.0.open)
            .finish_non_exhaustive()
    }
}
