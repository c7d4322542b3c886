//! What must survive: the SQL façade, the schema, and one file of queries per noun.
//!
//! SQL is the truth. Nothing outside this room names a table, and nothing inside it can run a text that did not say
//! which border it respects: see [`sql`]. A change is kept only by [`Tx::commit`], which takes the audit event, so the
//! change, its row in the trail and its effects on live credentials are one transaction.
//!
//! Not here: encryption. Personal data arrives sealed and leaves sealed.

pub mod db;
pub mod error;
mod queries;
pub mod scope;
pub mod shared;
pub mod sql;
pub mod state;
pub mod value;
pub mod words;

pub use db::{Committed, Conn, Db, DbOptions, EFFECT_LIFE, InForce, Pruned, Reader, Tx};
pub use error::{StoreError, StoreErrorKind};
pub use queries::{
    audit, blind_index, blocks, data_keys, effects, idempotency, login_failures, meta, refresh_tokens,
    scoped_statements, sessions, signing_keys, tenants, users,
};
pub use scope::{Border, PlatformScope, Scope};
pub use sql::{Global, Platform, Scoped, Statement, global, platform, scoped};
pub use value::Value;
