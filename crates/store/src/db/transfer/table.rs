//! One table on its way: read in the order of its key, written in batches, compared.

use std::fmt::Write as _;

use aws_lc_rs::digest::{Context, SHA256};
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Sqlite, SqliteConnection};

use super::{Moved, corrupt, is_plain};
use crate::error::{StoreError, StoreErrorKind};
use crate::value::{Column as _, Row, Value};

/// Rows of one batch.
const BATCH: usize = 500;

/// The kinds of value a column can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Int,
    Blob,
}

/// A table as the target has it.
pub(super) struct Table {
    pub(super) name: &'static str,
    columns: Vec<(String, Kind)>,
    /// Positions in `columns` of the primary key's, in its order.
    key: Vec<usize>,
}

/// One row: a value for each column.
type Cells = Vec<Value>;

impl Table {
    pub(super) async fn describe(to: &mut PgConnection, name: &'static str) -> Result<Self, StoreError> {
        const COLUMNS: &str = "SELECT a.attname::text, format_type(a.atttypid, NULL), \
            array_position(i.indkey::int2[], a.attnum)::bigint FROM pg_catalog.pg_attribute a \
            LEFT JOIN pg_catalog.pg_index i ON i.indrelid = a.attrelid AND i.indisprimary \
            WHERE a.attrelid = ('public.' || $1)::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
        let found: Vec<(String, String, Option<i64>)> =
            sqlx::query_as(COLUMNS).bind(name).fetch_all(to).await.map_err(StoreError::postgres)?;
        let mut columns = Vec::new();
        let mut key = Vec::new();
        for (position, (column, kind, place)) in found.into_iter().enumerate() {
            let kind = match kind.as_str() {
                "text" => Kind::Text,
                "bigint" => Kind::Int,
                "bytea" => Kind::Blob,
                _ => return Err(corrupt(format!("column {name}.{column} of the target is of another kind"))),
            };
            is_plain(&column)?;
            key.extend(place.map(|place| (place, position)));
            columns.push((column, kind));
        }
        key.sort_unstable();
        let key: Vec<usize> = key.into_iter().map(|(_, position)| position).collect();
        if key.is_empty() {
            return Err(corrupt(format!("table {name} of the target has no key")));
        }
        Ok(Self { name, columns, key })
    }

    fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The key's columns, each with `suffix`.
    fn key_names(&self, suffix: &str) -> String {
        let names = self.key.iter().filter_map(|position| self.columns.get(*position));
        names.map(|(name, _)| format!("{name}{suffix}")).collect::<Vec<_>>().join(", ")
    }

    /// The next rows behind a key, or the first ones. Both databases compare text and bytes alike.
    fn next(&self, behind: Option<&Cells>) -> String {
        let mut sql = format!("SELECT {} FROM {}", self.names(), self.name);
        if let Some(behind) = behind {
            let marks: Vec<String> = (1..=behind.len()).map(|number| format!("${number}")).collect();
            // Writing to a String cannot fail.
            let _ = write!(sql, " WHERE ({}) > ({})", self.key_names(""), marks.join(", "));
        }
        let _ = write!(sql, " ORDER BY {} LIMIT {BATCH}", self.key_names(""));
        sql
    }

    fn key_of(&self, row: &Cells) -> Cells {
        self.key.iter().filter_map(|position| row.get(*position).cloned()).collect()
    }

    fn cells(&self, row: &Row) -> Result<Cells, StoreError> {
        let cell = |(index, (_, kind)): (usize, &(String, Kind))| {
            Ok(match kind {
                Kind::Text => Option::<String>::read(row, index)?.into(),
                Kind::Int => Option::<i64>::read(row, index)?.into(),
                Kind::Blob => Option::<Vec<u8>>::read(row, index)?.into(),
            })
        };
        self.columns.iter().enumerate().map(cell).collect()
    }

    async fn read_source(&self, from: &mut SqliteConnection, behind: Option<&Cells>) -> Result<Vec<Cells>, StoreError> {
        let query: Query<'_, Sqlite, SqliteArguments> = sqlx::query(AssertSqlSafe(self.next(behind)));
        let query = behind.into_iter().flatten().fold(query, |query, value| match value.clone() {
            Value::Null => query.bind(None::<i64>),
            Value::Int(number) => query.bind(number),
            Value::Text(text) => query.bind(text),
            Value::Blob(bytes) => query.bind(bytes),
        });
        let rows = query.fetch_all(from).await?;
        rows.into_iter().map(|row| self.cells(&Row::from(row))).collect()
    }

    async fn read_target(&self, to: &mut PgConnection, behind: Option<&Cells>) -> Result<Vec<Cells>, StoreError> {
        let query: Query<'_, Postgres, PgArguments> = sqlx::query(AssertSqlSafe(self.next(behind)));
        let query = behind.into_iter().flatten().fold(query, |query, value| match value.clone() {
            Value::Null => query.bind(None::<i64>),
            Value::Int(number) => query.bind(number),
            Value::Text(text) => query.bind(text),
            Value::Blob(bytes) => query.bind(bytes),
        });
        let rows = query.fetch_all(to).await.map_err(StoreError::postgres)?;
        rows.into_iter().map(|row| self.cells(&Row::from(row))).collect()
    }

    /// How many rows the target has, and the key of the last one.
    async fn reached(&self, to: &mut PgConnection) -> Result<(u64, Option<Cells>), StoreError> {
        let (rows,): (i64,) = sqlx::query_as(AssertSqlSafe(format!("SELECT count(*) FROM {}", self.name)))
            .fetch_one(&mut *to)
            .await
            .map_err(StoreError::postgres)?;
        let last = format!("SELECT {} FROM {} ORDER BY {} LIMIT 1", self.names(), self.name, self.key_names(" DESC"));
        let last = sqlx::query(AssertSqlSafe(last)).fetch_optional(to).await.map_err(StoreError::postgres)?;
        let last = last.map(|row| self.cells(&Row::from(row))).transpose()?;
        Ok((u64::try_from(rows).unwrap_or_default(), last.map(|row| self.key_of(&row))))
    }

    /// Copies what is missing. `tell` is called with the number of rows that are there.
    pub(super) async fn copy(
        &self,
        from: &mut SqliteConnection,
        to: &mut PgConnection,
        tell: &mut impl FnMut(u64),
    ) -> Result<(), StoreError> {
        let (mut done, mut behind) = self.reached(to).await?;
        tell(done);
        loop {
            let rows = self.read_source(from, behind.as_ref()).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            behind = Some(self.key_of(last));
            done += self.write(to, rows).await?;
            tell(done);
        }
    }

    /// Writes rows in one statement: one array for each column, so that any number of rows is the same text.
    async fn write(&self, to: &mut PgConnection, rows: Vec<Cells>) -> Result<u64, StoreError> {
        let wanted = rows.len();
        let mut arrays: Vec<Array> = self.columns.iter().map(|(_, kind)| Array::of(*kind)).collect();
        for row in rows {
            for (array, value) in arrays.iter_mut().zip(row) {
                array.push(value)?;
            }
        }
        let marks: Vec<String> =
            arrays.iter().enumerate().map(|(n, array)| format!("${}{}", n + 1, array.cast())).collect();
        let sql = format!("INSERT INTO {} ({}) SELECT * FROM unnest({})", self.name, self.names(), marks.join(", "));
        let query = arrays.into_iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, array| match array {
            Array::Text(values) => query.bind(values),
            Array::Int(values) => query.bind(values),
            Array::Blob(values) => query.bind(values),
        });
        let written = query.execute(to).await.map_err(StoreError::postgres)?.rows_affected();
        if usize::try_from(written) != Ok(wanted) {
            return Err(corrupt(format!("{}: {written} of {wanted} rows were written", self.name)));
        }
        Ok(written)
    }

    /// Reads both sides to their ends; they must be equal.
    pub(super) async fn compare(
        &self,
        from: &mut SqliteConnection,
        to: &mut PgConnection,
        tell: &mut impl FnMut(u64),
    ) -> Result<Moved, StoreError> {
        let (mut ours, mut theirs) = (Sum::new(), Sum::new());
        let (mut here, mut there) = (None, None);
        loop {
            let left = self.read_source(from, here.as_ref()).await?;
            let right = self.read_target(to, there.as_ref()).await?;
            left.iter().for_each(|row| ours.add(row));
            right.iter().for_each(|row| theirs.add(row));
            here = left.last().map(|row| self.key_of(row)).or(here);
            there = right.last().map(|row| self.key_of(row)).or(there);
            tell(ours.rows);
            if left.is_empty() && right.is_empty() {
                break;
            }
        }
        let (rows, found) = (ours.rows, theirs.rows);
        let digest = ours.digest();
        if found != rows || digest != theirs.digest() {
            return Err(StoreError::new(StoreErrorKind::Corrupt)
                .sentence("the two databases differ after the copy: create an empty database and run this again")
                .detail(format!("{}, {rows} rows in the source, {found} in the target", self.name)));
        }
        Ok(Moved { table: self.name, rows, digest })
    }
}

/// The values of one column.
enum Array {
    Text(Vec<Option<String>>),
    Int(Vec<Option<i64>>),
    Blob(Vec<Option<Vec<u8>>>),
}

impl Array {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Text => Array::Text(Vec::new()),
            Kind::Int => Array::Int(Vec::new()),
            Kind::Blob => Array::Blob(Vec::new()),
        }
    }

    fn cast(&self) -> &'static str {
        match self {
            Array::Text(_) => "::text[]",
            Array::Int(_) => "::bigint[]",
            Array::Blob(_) => "::bytea[]",
        }
    }

    fn push(&mut self, value: Value) -> Result<(), StoreError> {
        match (self, value) {
            (Array::Text(values), Value::Null) => values.push(None),
            (Array::Int(values), Value::Null) => values.push(None),
            (Array::Blob(values), Value::Null) => values.push(None),
            (Array::Text(values), Value::Text(text)) => values.push(Some(text)),
            (Array::Int(values), Value::Int(number)) => values.push(Some(number)),
            (Array::Blob(values), Value::Blob(bytes)) => values.push(Some(bytes)),
            _ => return Err(corrupt("a value of another kind than its column")),
        }
        Ok(())
    }
}

/// Count and digest of rows. Each value goes in with its kind and its length, so that no two tables look alike.
struct Sum {
    rows: u64,
    context: Context,
}

impl Sum {
    fn new() -> Self {
        Self { rows: 0, context: Context::new(&SHA256) }
    }

    fn add(&mut self, row: &Cells) {
        self.rows += 1;
        for value in row {
            let number;
            let (kind, bytes): (u8, &[u8]) = match value {
                Value::Null => (0, &[]),
                Value::Int(value) => {
                    number = value.to_be_bytes();
                    (1, &number)
                }
                Value::Text(text) => (2, text.as_bytes()),
                Value::Blob(bytes) => (3, bytes),
            };
            self.context.update(&[kind]);
            self.context.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            self.context.update(bytes);
        }
    }

    fn digest(self) -> String {
        hex::encode(self.context.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_tell_neighbours_and_kinds_apart() {
        let digest = |row: Cells| {
            let mut sum = Sum::new();
            sum.add(&row);
            sum.digest()
        };
        let rows = [
            vec![Value::from("ab"), Value::from("c")],
            vec![Value::from("a"), Value::from("bc")],
            vec![Value::from("ab"), Value::from(b"c".as_slice())],
            vec![Value::Null, Value::from("abc")],
            vec![Value::from(""), Value::from("abc")],
        ];
        let all: std::collections::BTreeSet<String> = rows.into_iter().map(digest).collect();
        assert_eq!(all.len(), 5);
    }
}
