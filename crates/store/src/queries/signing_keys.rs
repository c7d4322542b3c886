//! The keys that sign access tokens, of the whole installation.

use bartizan_core::time::Millis;

use crate::db::{Conn, Tx};
use crate::error::StoreError;
use crate::scope::Border;
use crate::sql::statements;
use crate::value::{args, rows};
use crate::words::KeyState;

rows! {
    /// A signing key.
    SigningKeyRow {
        /// Its name in token headers.
        kid: String,
        /// Its one algorithm, such as `EdDSA`.
        alg: String,
        /// Where it is in its life.
        state: KeyState,
        /// The public half, as published.
        public_jwk: String,
        /// The private half, wrapped.
        private_wrapped: Vec<u8>,
        /// The key that wraps it.
        kek: String,
        /// When it was created.
        created_at: Millis,
        /// When it began to sign.
        activated_at: Option<Millis>,
        /// When it stopped signing.
        retired_at: Option<Millis>,
    }
}

statements! {
    global INSERT = "INSERT INTO signing_keys (kid, alg, state, public_jwk, private_wrapped, kek, created_at, \
        activated_at, retired_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    global ALL = "SELECT kid, alg, state, public_jwk, private_wrapped, kek, created_at, activated_at, retired_at \
        FROM signing_keys ORDER BY created_at, kid";
    global ACTIVATE = "UPDATE signing_keys SET state = 'active', activated_at = $2 WHERE kid = $1 AND state = 'pending'";
    global RETIRE = "UPDATE signing_keys SET state = 'retired', retired_at = $2 WHERE kid = $1 AND state = 'active'";
    global COMPROMISE = "UPDATE signing_keys SET state = 'compromised', retired_at = COALESCE(retired_at, $2) \
        WHERE kid = $1 AND state <> 'compromised'";
    global DELETE = "DELETE FROM signing_keys WHERE kid = $1 AND state IN ('retired', 'compromised')";
}

/// Adds a key. Fails with `Duplicate("signing key")` when the name is taken.
pub async fn insert<S: Border>(tx: &mut Tx<S>, key: &SigningKeyRow) -> Result<(), StoreError> {
    let args = args![
        key.kid.as_str(),
        key.alg.as_str(),
        key.state,
        key.public_jwk.as_str(),
        key.private_wrapped.as_slice(),
        key.kek.as_str(),
        key.created_at,
        key.activated_at,
        key.retired_at,
    ];
    tx.run(INSERT, args).await.map(drop).map_err(|error| error.naming("signing key"))
}

/// All keys, oldest first.
pub async fn all<S: Border>(conn: &mut Conn<S>) -> Result<Vec<SigningKeyRow>, StoreError> {
    conn.rows(ALL, args![]).await
}

/// Moves a key to `to`, if that is a legal move from where it is (see [`KeyState`]); returns whether it moved.
pub async fn advance<S: Border>(tx: &mut Tx<S>, kid: &str, to: KeyState, now: Millis) -> Result<bool, StoreError> {
    let statement = match to {
        KeyState::Pending => return Ok(false),
        KeyState::Active => ACTIVATE,
        KeyState::Retired => RETIRE,
        KeyState::Compromised => COMPROMISE,
    };
    Ok(tx.run(statement, args![kid, now]).await? == 1)
}

/// Removes a key that verifies nothing any more; refuses one that is pending or active.
pub async fn delete<S: Border>(tx: &mut Tx<S>, kid: &str) -> Result<bool, StoreError> {
    Ok(tx.run(DELETE, args![kid]).await? == 1)
}
