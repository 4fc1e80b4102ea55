//! How a PostgreSQL database is opened: options by builder, or by the parameters of its address.

use std::{str::FromStr, time::Duration};

use sqlx::postgres::PgConnectOptions;

/// How a node hears that another one has appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Wake {
    /// By `LISTEN` and `NOTIFY`, with a look once a second behind it.
    #[default]
    Notify,
    /// By a look once a second only: for connections through a pooler, where `LISTEN` hears
    /// nothing.
    Poll,
}

/// How to open a PostgreSQL database. Parameters in its address override these.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PgOptions {
    /// Connections for reading and for read models that are kept open; default: 5. Parameter
    /// `pool_min`.
    pub min_connections: u32,
    /// How many of them there may be, at least 2; default: 25. The writer, the listener and the
    /// health check have one each besides. Parameter `pool_max`.
    pub connections: u32,
    /// How long to wait for a free one of them; default: 30 s. Parameter `acquire_timeout_s`.
    pub acquire_timeout: Duration,
    /// How long one above the minimum may be unused before it is closed; default: 600 s. Parameter
    /// `idle_timeout_s`.
    pub idle_timeout: Duration,
    /// How old one may become; default: 1,800 s. Parameter `max_lifetime_s`.
    pub max_lifetime: Duration,
    /// How long a statement may run before the server cancels it; default: 30 s. Parameter
    /// `statement_timeout_s`.
    pub statement_timeout: Duration,
    /// How long an append tries to reach a database that has gone, before it fails; default: 10 s.
    /// Parameter `reconnect_s`.
    pub reconnect_for: Duration,
    /// How other nodes' appends are heard of. Parameter `wake`: `notify` or `poll`.
    pub wake: Wake,
    /// How long the answers to idempotency keys are kept; default: 7 days. A repeat that comes
    /// later is written again. Parameter `keep_keys_s`.
    pub keep_keys: Duration,
}

impl Default for PgOptions {
    fn default() -> Self {
        Self {
            min_connections: 5,
            connections: 25,
            acquire_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(600),
            max_lifetime: Duration::from_secs(1_800),
            statement_timeout: Duration::from_secs(30),
            reconnect_for: Duration::from_secs(10),
            wake: Wake::Notify,
            keep_keys: Duration::from_secs(7 * 24 * 60 * 60),
        }
    }
}

impl PgOptions {
    /// Sets how many connections are kept open.
    #[must_use]
    pub const fn min_connections(mut self, connections: u32) -> Self {
        self.min_connections = connections;
        self
    }

    /// Sets how many connections read.
    #[must_use]
    pub const fn connections(mut self, connections: u32) -> Self {
        self.connections = connections;
        self
    }

    /// Sets how long to wait for a free connection.
    #[must_use]
    pub const fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// Sets how long a connection above the minimum may be unused.
    #[must_use]
    pub const fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Sets how old a connection may become.
    #[must_use]
    pub const fn max_lifetime(mut self, lifetime: Duration) -> Self {
        self.max_lifetime = lifetime;
        self
    }

    /// Sets how long a statement may run.
    #[must_use]
    pub const fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// Sets how long an append tries to reach a database that has gone.
    #[must_use]
    pub const fn reconnect_for(mut self, time: Duration) -> Self {
        self.reconnect_for = time;
        self
    }

    /// Sets how other nodes' appends are heard of.
    #[must_use]
    pub const fn wake(mut self, wake: Wake) -> Self {
        self.wake = wake;
        self
    }

    /// Sets how long the answers to idempotency keys are kept.
    #[must_use]
    pub const fn keep_keys(mut self, time: Duration) -> Self {
        self.keep_keys = time;
        self
    }

    /// The most connections of the pool.
    pub(super) fn most(&self) -> u32 {
        self.connections.max(2)
    }

    /// How long an answer of the server is waited for. The server cancels a statement before
    /// that; who is still silent then is gone.
    pub(super) fn answer_within(&self) -> Duration {
        self.statement_timeout + Duration::from_secs(5)
    }

    /// Takes a parameter of the address; whether it is one of these.
    fn set(&mut self, name: &str, value: &str) -> Result<bool, PgAddressError> {
        let number = || {
            let wrong =
                |_| PgAddressError::Number { name: name.to_owned(), value: value.to_owned() };
            value.parse::<u32>().map_err(wrong)
        };
        let seconds = || number().map(|seconds| Duration::from_secs(seconds.into()));
        match name {
            "pool_min" => self.min_connections = number()?,
            "pool_max" => self.connections = number()?,
            "acquire_timeout_s" => self.acquire_timeout = seconds()?,
            "idle_timeout_s" => self.idle_timeout = seconds()?,
            "max_lifetime_s" => self.max_lifetime = seconds()?,
            "statement_timeout_s" => self.statement_timeout = seconds()?,
            "reconnect_s" => self.reconnect_for = seconds()?,
            "keep_keys_s" => self.keep_keys = seconds()?,
            "wake" => {
                self.wake = match value {
                    "notify" => Wake::Notify,
                    "poll" => Wake::Poll,
                    _ => return Err(PgAddressError::Wake { value: value.to_owned() }),
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Parameters that the driver takes.
const OF_THE_DRIVER: [&str; 16] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
];

/// Why an address of PostgreSQL cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PgAddressError {
    /// It cannot be read.
    #[error("give postgres://USER:PASSWORD@HOST:PORT/DATABASE ({0})")]
    Malformed(sqlx::Error),
    /// A parameter that nobody knows: most often a slip that would leave a setting undone.
    #[error(
        "unknown parameter `{name}`; there are sslmode, sslrootcert, sslcert, sslkey, host, port, \
         user, password, dbname, options, pool_min, pool_max, acquire_timeout_s, idle_timeout_s, \
         max_lifetime_s, statement_timeout_s, reconnect_s, wake, keep_keys_s"
    )]
    Unknown {
        /// Its name.
        name: String,
    },
    /// A number that cannot be read.
    #[error("parameter `{name}` is {value:?}; give a whole number, as in {name}=30")]
    Number {
        /// The parameter.
        name: String,
        /// What was given.
        value: String,
    },
    /// Not a way to hear of others.
    #[error("parameter `wake` is {value:?}; give `notify` or `poll`")]
    Wake {
        /// What was given.
        value: String,
    },
}

/// Reads the `postgres://` address of a database: how it is connected to, and the options that
/// its parameters set over those given.
///
/// # Errors
///
/// It cannot be read, or has a parameter that is not known.
pub fn read_address(
    url: &str,
    mut options: PgOptions,
) -> Result<(PgConnectOptions, PgOptions), PgAddressError> {
    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    let mut left = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if options.set(name, value)? {
            continue;
        }
        // `options[name]`, whose brackets may be encoded.
        if !OF_THE_DRIVER.contains(&name)
            && name != "application_name"
            && !name.starts_with("options")
        {
            return Err(PgAddressError::Unknown { name: name.to_owned() });
        }
        left.push(parameter);
    }
    let url = format!("{place}?{}", left.join("&"));
    let connect = PgConnectOptions::from_str(&url).map_err(PgAddressError::Malformed)?;
    Ok((connect, options))
}

#[cfg(test)]
mod tests;
