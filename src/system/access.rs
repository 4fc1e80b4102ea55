//! Who is let in over HTTP, from settings to a door.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::SystemError;
use crate::http::Door;
use crate::http::access::{Access, Role, Token};
#[cfg(feature = "tls")]
use crate::http::tls::Tls;

/// Who is let in over HTTP.
///
/// On loopback nobody needs a token: in development one may do everything then, in production one
/// may look. Any other address needs tokens, and TLS or a proxy that has it.
#[derive(Clone, Default)]
pub struct AccessOptions {
    tokens: Vec<Token>,
    operator: bool,
    hosts: Vec<String>,
    behind_proxy: bool,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

impl AccessOptions {
    /// Adds tokens.
    #[must_use]
    pub fn tokens(mut self, tokens: impl IntoIterator<Item = Token>) -> Self {
        self.tokens.extend(tokens);
        self
    }

    /// Callers on loopback may act without a token, in production, too.
    #[must_use]
    pub fn operator(mut self, operator: bool) -> Self {
        self.operator = operator;
        self
    }

    /// A name that callers know the node by, besides those of loopback.
    #[must_use]
    pub fn host(mut self, name: impl Into<String>) -> Self {
        self.hosts.push(name.into());
        self
    }

    /// A proxy in front of the node has the certificate: what arrives is plain HTTP.
    #[must_use]
    pub fn behind_proxy(mut self, behind_proxy: bool) -> Self {
        self.behind_proxy = behind_proxy;
        self
    }

    /// Serves HTTPS.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Refuses an address that these settings would leave open.
    pub(super) fn check(&self, addr: SocketAddr) -> Result<(), SystemError> {
        if addr.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        if self.tokens.is_empty() {
            return Err(SystemError::NoToken { addr });
        }
        match self.has_tls() || self.behind_proxy {
            true => Ok(()),
            false => Err(SystemError::NoTls { addr }),
        }
    }

    #[cfg(feature = "tls")]
    fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_self, reason = "the other form needs it")]
    fn has_tls(&self) -> bool {
        false
    }

    pub(super) fn door(mut self, addr: SocketAddr, production: bool) -> Door {
        let loopback = addr.ip().to_canonical().is_loopback();
        let open = match (loopback, production) {
            (false, _) => None,
            // Whoever set tokens up wants to be asked for them.
            (true, false) if self.tokens.is_empty() => Some(Role::Admin),
            (true, _) if self.operator => Some(Role::Operator),
            (true, _) => Some(Role::Viewer),
        };
        let unspecified = addr.ip() == IpAddr::from([0; 4]) || addr.ip() == IpAddr::from([0; 16]);
        if !loopback && !unspecified {
            self.hosts.push(addr.ip().to_string());
        }
        Door {
            https: self.has_tls() || self.behind_proxy,
            access: Access::new(self.tokens, open),
            hosts: self.hosts,
            #[cfg(feature = "tls")]
            tls: self.tls,
        }
    }
}

impl fmt::Debug for AccessOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessOptions")
            .field("tokens", &self.tokens)
            .field("operator", &self.operator)
            .field("hosts", &self.hosts)
            .field("behind_proxy", &self.behind_proxy)
            .finish_non_exhaustive()
    }
}
