//! What is bound and what comes back: four kinds of value, whatever the database.

use bartizan_core::id::{BlockId, EventId, RequestId, SessionId, TenantId, TokenId, UserId};
use bartizan_core::principal::{Role, Tier};
use bartizan_core::secret::Secret;
use bartizan_core::time::Millis;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Postgres, Row as _, Sqlite, Type, ValueRef as _};

use crate::error::{StoreError, StoreErrorKind};
use crate::words::{KeyState, RefreshState, TenantStatus, UserStatus};

/// A value bound to a parameter. It has no `Debug`: it may hold a hash or a sealed text.
#[derive(Clone)]
pub enum Value {
    /// Nothing.
    Null,
    /// A whole number.
    Int(i64),
    /// Text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

/// Builds the arguments of a statement, in order: `args![id, now]`.
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::value::Value::from($value)),*] };
}
pub(crate) use args;

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

impl From<u64> for Value {
    /// Saturates at the largest number both databases hold; epochs and counts do not come near it.
    fn from(value: u64) -> Self {
        Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Value::Int(value.into())
    }
}

impl From<u16> for Value {
    fn from(value: u16) -> Self {
        Value::Int(value.into())
    }
}

impl From<Millis> for Value {
    fn from(value: Millis) -> Self {
        Value::Int(value.0)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::Text(value)
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Value::Blob(value.to_vec())
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Value::Blob(value)
    }
}

impl From<[u8; 32]> for Value {
    fn from(value: [u8; 32]) -> Self {
        Value::Blob(value.to_vec())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// A type read from one column.
pub trait Column: Sized {
    /// Reads column `index`, counted from zero. Fails with [`StoreErrorKind::Corrupt`] when the stored value is none
    /// of the type's: what cannot be read is never guessed.
    fn read(row: &Row, index: usize) -> Result<Self, StoreError>;
}

/// A type read from one row, column by column in the order of the `SELECT`.
pub trait FromRow: Sized {
    /// Reads the row.
    fn from_row(row: &Row) -> Result<Self, StoreError>;
}

/// One row of an answer.
pub struct Row(Cells);

enum Cells {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl From<SqliteRow> for Row {
    fn from(row: SqliteRow) -> Self {
        Row(Cells::Sqlite(row))
    }
}

impl From<PgRow> for Row {
    fn from(row: PgRow) -> Self {
        Row(Cells::Postgres(row))
    }
}

impl Row {
    /// The number of columns.
    pub fn width(&self) -> usize {
        match &self.0 {
            Cells::Sqlite(row) => row.len(),
            Cells::Postgres(row) => row.len(),
        }
    }

    fn cell<'r, T>(&'r self, index: usize) -> Result<T, StoreError>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>,
    {
        match &self.0 {
            Cells::Sqlite(row) => row.try_get(index),
            Cells::Postgres(row) => row.try_get(index),
        }
        .map_err(|_| unreadable(index))
    }

    fn is_null(&self, index: usize) -> Result<bool, StoreError> {
        match &self.0 {
            Cells::Sqlite(row) => row.try_get_raw(index).map(|raw| raw.is_null()),
            Cells::Postgres(row) => row.try_get_raw(index).map(|raw| raw.is_null()),
        }
        .map_err(|_| unreadable(index))
    }

    pub(crate) fn columns(&self) -> Columns<'_> {
        Columns { row: self, next: 0 }
    }
}

/// Walks over the columns of a row.
pub(crate) struct Columns<'r> {
    row: &'r Row,
    next: usize,
}

impl Columns<'_> {
    pub(crate) fn take<T: Column>(&mut self) -> Result<T, StoreError> {
        let index = self.next;
        self.next += 1;
        T::read(self.row, index)
    }
}

fn unreadable(index: usize) -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt).detail(format!("column {index} holds a value this program cannot read"))
}

macro_rules! native {
    ($($type:ty),+) => {$(
        impl Column for $type {
            fn read(row: &Row, index: usize) -> Result<Self, StoreError> {
                row.cell(index)
            }
        }
    )+};
}
native!(i64, String, Vec<u8>);

macro_rules! numbers {
    ($($type:ty),+) => {$(
        impl Column for $type {
            fn read(row: &Row, index: usize) -> Result<Self, StoreError> {
                <$type>::try_from(i64::read(row, index)?).map_err(|_| unreadable(index))
            }
        }
    )+};
}
numbers!(u64, u32, u16);

/// Ids and words: stored as their text, read back through their own parser.
macro_rules! texts {
    ($($type:ty),+) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Value::Text(value.to_string())
            }
        }
        impl Column for $type {
            fn read(row: &Row, index: usize) -> Result<Self, StoreError> {
                let text: &str = row.cell(index)?;
                text.parse().map_err(|_| unreadable(index))
            }
        }
    )+};
}
texts!(TenantId, UserId, SessionId, TokenId, EventId, RequestId, BlockId);
texts!(Role, Tier, TenantStatus, UserStatus, RefreshState, KeyState);

impl Column for Millis {
    fn read(row: &Row, index: usize) -> Result<Self, StoreError> {
        i64::read(row, index).map(Millis)
    }
}

impl Column for [u8; 32] {
    fn read(row: &Row, index: usize) -> Result<Self, StoreError> {
        let bytes: &[u8] = row.cell(index)?;
        bytes.try_into().map_err(|_| unreadable(index))
    }
}

impl Column for Secret<String> {
    fn read(row: &Row, index: usize) -> Result<Self, StoreError> {
        String::read(row, index).map(Secret::new)
    }
}

impl Column for serde_json::Value {
    fn read(row: &Row, index: usize) -> Result<Self, StoreError> {
        let text: &str = row.cell(index)?;
        serde_json::from_str(text).map_err(|_| unreadable(index))
    }
}

impl<T: Column> Column for Option<T> {
    fn read(row: &Row, index: usize) -> Result<Self, StoreError> {
        if row.is_null(index)? { Ok(None) } else { T::read(row, index).map(Some) }
    }
}

impl<A: Column> FromRow for (A,) {
    fn from_row(row: &Row) -> Result<Self, StoreError> {
        Ok((A::read(row, 0)?,))
    }
}

impl<A: Column, B: Column> FromRow for (A, B) {
    fn from_row(row: &Row) -> Result<Self, StoreError> {
        Ok((A::read(row, 0)?, B::read(row, 1)?))
    }
}

/// Declares structs that are read from a row in the order of their fields.
macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)+ }

        impl $crate::value::FromRow for $name {
            fn from_row(row: &$crate::value::Row) -> Result<Self, $crate::error::StoreError> {
                let mut columns = row.columns();
                Ok(Self { $($field: columns.take()?,)+ })
            }
        }
    )+};
}
pub(crate) use rows;
