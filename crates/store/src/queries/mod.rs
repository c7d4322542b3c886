//! One file of statements per noun, with the rows they read and the functions that run them.
//!
//! Reading takes `&mut Conn`, changing takes `&mut Tx`. No statement stands outside a `statements!` list, so the
//! contract test can run every scoped one beside a second tenant.

pub mod audit;
pub mod blind_index;
pub mod blocks;
pub mod data_keys;
pub mod effects;
pub mod idempotency;
pub mod login_failures;
pub mod meta;
pub mod refresh_tokens;
pub mod sessions;
pub mod signing_keys;
pub mod tenants;
pub mod users;

use crate::sql::Scoped;

/// Every scoped statement by name (`bartizan_store::queries::users::BY_ID`): what the contract test runs.
pub fn scoped_statements() -> Vec<(&'static str, Scoped)> {
    let files = [
        audit::SCOPED,
        blind_index::SCOPED,
        blocks::SCOPED,
        data_keys::SCOPED,
        effects::SCOPED,
        idempotency::SCOPED,
        login_failures::SCOPED,
        meta::SCOPED,
        refresh_tokens::SCOPED,
        sessions::SCOPED,
        signing_keys::SCOPED,
        tenants::SCOPED,
        users::SCOPED,
    ];
    files.into_iter().flatten().copied().flatten().copied().collect()
}
