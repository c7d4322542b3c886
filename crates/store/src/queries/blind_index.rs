//! The blind index: keyed digests by which sealed columns are found and kept unique.
//!
//! While the digest key is being rotated a row has a tag under each key; look-ups try the keys in turn.

use crate::db::{Conn, Tx};
use crate::error::StoreError;
use crate::sql::statements;
use crate::value::args;

/// A sealed column that can be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// `users.email`
    UserEmail,
}

impl Field {
    /// The table.
    pub const fn table(self) -> &'static str {
        match self {
            Field::UserEmail => "users",
        }
    }

    /// The column.
    pub const fn column(self) -> &'static str {
        match self {
            Field::UserEmail => "email",
        }
    }

    const fn taken(self) -> &'static str {
        match self {
            Field::UserEmail => "email",
        }
    }
}

/// The keyed digest of a value.
#[derive(Clone, Copy, Debug)]
pub struct Tag<'a> {
    /// The digest key.
    pub key_id: u32,
    /// The digest.
    pub tag: &'a [u8],
}

statements! {
    scoped INSERT = "INSERT INTO blind_index (tenant_id, tbl, col, key_id, tag, row_id) VALUES ($1, $2, $3, $4, $5, $6)";
    scoped FIND = "SELECT row_id FROM blind_index WHERE tenant_id = $1 AND tbl = $2 AND col = $3 AND key_id = $4 \
        AND tag = $5";
    scoped DELETE = "DELETE FROM blind_index WHERE tenant_id = $1 AND tbl = $2 AND col = $3 AND row_id = $4";
}

/// Enters a row under a tag. Fails with `Duplicate` of the field's name when the value is taken.
pub async fn insert(tx: &mut Tx, field: Field, tag: Tag<'_>, row: &str) -> Result<(), StoreError> {
    let args = args![field.table(), field.column(), tag.key_id, tag.tag, row];
    tx.run(INSERT, args).await.map(drop).map_err(|error| error.naming(field.taken()))
}

/// The row under a tag.
pub async fn find(conn: &mut Conn, field: Field, tag: Tag<'_>) -> Result<Option<String>, StoreError> {
    let args = args![field.table(), field.column(), tag.key_id, tag.tag];
    Ok(conn.row::<(String,)>(FIND, args).await?.map(|(row,)| row))
}

/// Removes a row's tags, under every key.
pub async fn delete(tx: &mut Tx, field: Field, row: &str) -> Result<(), StoreError> {
    tx.run(DELETE, args![field.table(), field.column(), row]).await.map(drop)
}
