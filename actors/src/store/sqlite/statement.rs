//! Statements over many rows, in few sizes, for writers that speak sqlx.
//!
//! A statement of 100 rows is 1.5 to 1.8 times faster than 100 of one row, but a statement of a
//! new size has to be prepared first, which costs more than it saves. So there are four sizes,
//! prepared once, and every number of rows is made of them. Between 1 and 20 there is one more
//! because each statement is a round trip to the connection's thread: 64 rows are 4 of them and
//! not 7.

use std::sync::Arc;

use sqlx::{
    AssertSqlSafe, SqlSafeStr, SqlStr,
    sqlite::{SqliteArguments, SqliteConnection},
};

const SIZES: [usize; 4] = [100, 20, 4, 1];

/// One statement in each of the fixed sizes.
#[derive(Debug, Clone)]
pub(crate) struct Sized {
    texts: [Arc<str>; SIZES.len()],
    columns: usize,
}

impl Sized {
    /// `before`, then `row` as often as the size says, then `after`.
    pub(crate) fn new(before: &str, row: &str, after: &str) -> Self {
        let text = |size| {
            let rows = vec![row; size].join(",");
            Arc::from(format!("{before} {rows} {after}"))
        };
        Self { texts: SIZES.map(text), columns: row.matches('?').count() }
    }

    /// Writes all `rows`, the large statements first.
    pub(crate) async fn write<T>(
        &self,
        connection: &mut SqliteConnection,
        mut rows: &[T],
        mut bind: impl FnMut(&mut Row, &T),
    ) -> sqlx::Result<()> {
        for (size, text) in SIZES.into_iter().zip(&self.texts) {
            while let Some((chunk, rest)) = rows.split_at_checked(size) {
                let arguments = self.arguments(chunk, size, &mut bind)?;
                sqlx::query_with(sql(text), arguments).execute(&mut *connection).await?;
                rows = rest;
            }
        }
        Ok(())
    }

    fn arguments<T>(
        &self,
        chunk: &[T],
        size: usize,
        bind: &mut impl FnMut(&mut Row, &T),
    ) -> sqlx::Result<SqliteArguments> {
        let mut row = Row::with_capacity(size * self.columns);
        for item in chunk {
            bind(&mut row, item);
        }
        row.finish()
    }
}

fn sql(text: &Arc<str>) -> SqlStr {
    // The text is made of literals of this crate; values are only ever bound.
    AssertSqlSafe(Arc::clone(text)).into_sql_str()
}

/// The values of one or more rows, in the order of the columns.
#[derive(Debug)]
pub(crate) struct Row {
    arguments: SqliteArguments,
    failed: Option<sqlx::error::BoxDynError>,
}

impl Row {
    pub(crate) fn with_capacity(values: usize) -> Self {
        use sqlx::Arguments;
        let mut arguments = SqliteArguments::default();
        arguments.reserve(values, 0);
        Self { arguments, failed: None }
    }

    pub(crate) fn integer(&mut self, value: i64) -> &mut Self {
        self.value(value)
    }

    /// A counter. SQLite's integers end at 2^63, which no log reaches.
    pub(crate) fn counter(&mut self, value: u64) -> &mut Self {
        self.value(saturated(value))
    }

    pub(crate) fn text(&mut self, value: Arc<str>) -> &mut Self {
        self.value(value)
    }

    pub(crate) fn finish(self) -> sqlx::Result<SqliteArguments> {
        match self.failed {
            None => Ok(self.arguments),
            Some(error) => Err(sqlx::Error::Encode(error)),
        }
    }

    fn value<'v, T>(&mut self, value: T) -> &mut Self
    where
        T: sqlx::Encode<'v, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        use sqlx::Arguments;
        if let Err(error) = self.arguments.add(value) {
            self.failed.get_or_insert(error);
        }
        self
    }
}

/// A counter as SQLite's integer. A read after a place beyond the last possible one finds nothing.
pub(crate) fn saturated(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
