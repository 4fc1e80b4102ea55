//! Why a database was left as it was.

/// See the [module](super).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// The address is not of a database that this program can migrate.
    #[error(transparent)]
    Address(#[from] mister_smith_actors::pool::AddressError),
    /// It cannot be opened or made.
    #[error("cannot open {store}: {source}; {cure}")]
    Open {
        /// The database.
        store: String,
        /// What to do.
        cure: &'static str,
        /// What the system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file is something else.
    #[error("{store} is not a database; give another path, or move that file away")]
    NotADatabase {
        /// The file.
        store: String,
    },
    /// A newer program was here.
    #[error(
        "{store} is at version {found}, this program knows versions up to {known}; run a newer smith, or go back with `smith migrate down --to {known}`"
    )]
    Newer {
        /// The database.
        store: String,
        /// The version of the database.
        found: u32,
        /// The newest version that this program knows.
        known: u32,
    },
    /// A text is not the one that was applied.
    #[error(
        "migrations/{kind}/{name}.up.sql changed after it was applied to {store}; restore the file, and put the change into a new migration"
    )]
    Changed {
        /// The database.
        store: String,
        /// Its kind, as the folder is called.
        kind: &'static str,
        /// The migration.
        name: String,
    },
    /// A number was added below one that was applied.
    #[error(
        "migrations/{kind}/{name}.up.sql is pending, but {store} is at version {at} already; give it a number above {at}"
    )]
    OutOfOrder {
        /// The database.
        store: String,
        /// Its kind, as the folder is called.
        kind: &'static str,
        /// The late migration.
        name: String,
        /// The version of the database.
        at: u32,
    },
    /// There is something to apply, and nobody said that it may be.
    #[error(
        "{store} needs {} ({names}), and nothing is migrated by itself in production; run `smith migrate up`",
        plural(.count)
    )]
    Pending {
        /// The database.
        store: String,
        /// How many migrations are pending.
        count: usize,
        /// Their names.
        names: String,
    },
    /// Another process migrates.
    #[error("{store} is being migrated by another process; wait until it is done, then retry")]
    Locked {
        /// The database.
        store: String,
    },
    /// A migration failed; the database is as it was before it.
    #[error("migration {name} failed, {store} is as it was before it: {source}")]
    Failed {
        /// The database.
        store: String,
        /// The migration.
        name: String,
        /// What the database said.
        source: sqlx::Error,
    },
    /// The file of read models is not as this program needs it.
    #[error("{source}; or delete {store} while no node uses it, and it is made again from the log")]
    ReadModels {
        /// The file.
        store: String,
        /// What is wrong with it.
        source: Box<MigrateError>,
    },
    /// There is no such version below.
    #[error("{store} is at version {at}; it cannot go down to {to}")]
    NoSuchVersion {
        /// The database.
        store: String,
        /// Its version.
        at: u32,
        /// What was asked for.
        to: u32,
    },
    /// The database failed outside a migration.
    #[error("{store}: {source}")]
    Database {
        /// The database.
        store: String,
        /// What it said.
        source: sqlx::Error,
    },
}

fn plural(count: &usize) -> String {
    match count {
        1 => "a migration".to_owned(),
        count => format!("{count} migrations"),
    }
}
