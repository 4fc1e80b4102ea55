//! Who is let in: options of `smith run`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::http::access::Token;
use crate::system::AccessOptions;

/// Who is let in over HTTP.
#[derive(Clone, Debug, Args)]
pub(super) struct AccessArgs {
    /// File of tokens, a line each, as `smith token` prints them
    #[arg(long, value_name = "FILE", env = "SMITH_TOKENS")]
    tokens: Option<PathBuf>,
    /// Callers on loopback may act without a token, in production, too
    #[arg(long, env = "SMITH_OPERATOR")]
    operator: bool,
    /// A name that callers know this node by; may be given more than once
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// A proxy in front of this node has the certificate; what arrives here is plain HTTP
    #[arg(long)]
    insecure_behind_proxy: bool,
    /// Certificate for HTTPS, with those of its issuers behind it, in PEM
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "FILE", requires = "tls_key", env = "SMITH_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    /// Its key, in PEM
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "SMITH_TLS_KEY")]
    tls_key: Option<PathBuf>,
}

impl AccessArgs {
    pub(super) fn options(&self) -> anyhow::Result<AccessOptions> {
        let mut options = AccessOptions::default()
            .operator(self.operator)
            .behind_proxy(self.insecure_behind_proxy);
        if let Some(file) = &self.tokens {
            let named = || format!("--tokens {}", file.display());
            let text = std::fs::read_to_string(file).with_context(named)?;
            options = options.tokens(Token::read(&text).with_context(named)?);
        }
        for host in &self.hosts {
            options = options.host(host);
        }
        #[cfg(feature = "tls")]
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            options = options.tls(crate::http::tls::Tls::load(certificate, key)?);
        }
        Ok(options)
    }
}
