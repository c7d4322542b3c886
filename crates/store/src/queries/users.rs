//! Users: the accounts inside one tenant.

use bartizan_core::id::UserId;
use bartizan_core::principal::Role;
use bartizan_core::secret::Secret;
use bartizan_core::time::Millis;

use crate::db::{Conn, Tx};
use crate::error::StoreError;
use crate::queries::blind_index::{self, Field, Tag};
use crate::sql::statements;
use crate::value::{args, rows};
use crate::words::UserStatus;

rows! {
    /// A user.
    UserRow {
        /// His id.
        id: UserId,
        /// His e-mail address, sealed.
        email_sealed: Vec<u8>,
        /// His name, sealed.
        name_sealed: Vec<u8>,
        /// What he is in the tenant.
        role: Role,
        /// Whether he may log in.
        status: UserStatus,
        /// The Argon2id hash of his password, in PHC format.
        password_hash: Secret<String>,
        /// Live tokens of his carry at least this.
        epoch: u64,
        /// When he was created.
        created_at: Millis,
        /// When he was last changed.
        updated_at: Millis,
        /// When he last logged in.
        last_login_at: Option<Millis>,
    }
}

macro_rules! columns {
    () => {
        "u.id, u.email_sealed, u.name_sealed, u.role, u.status, u.password_hash, u.epoch, u.created_at, u.updated_at, \
         u.last_login_at"
    };
}

statements! {
    scoped INSERT = "INSERT INTO users (tenant_id, id, email_sealed, name_sealed, role, status, password_hash, epoch, \
        created_at, updated_at) VALUES ($1, $2, $3, $4, $5, 'active', $6, 0, $7, $7)";
    scoped BY_ID = concat!("SELECT ", columns!(), " FROM users u WHERE u.tenant_id = $1 AND u.id = $2");
    scoped BY_TAG = concat!("SELECT ", columns!(), " FROM users u JOIN blind_index b ON b.tenant_id = u.tenant_id AND \
        b.row_id = u.id WHERE b.tenant_id = $1 AND b.tbl = 'users' AND b.col = $2 AND b.key_id = $3 AND b.tag = $4");
    scoped PAGE = concat!("SELECT ", columns!(), " FROM users u WHERE u.tenant_id = $1 AND u.id > $2 ORDER BY u.id \
        LIMIT $3");
    scoped SET_FIELDS = "UPDATE users SET email_sealed = COALESCE($3, email_sealed), \
        name_sealed = COALESCE($4, name_sealed), updated_at = $5 WHERE tenant_id = $1 AND id = $2";
    scoped SET_ROLE = "UPDATE users SET role = $3, epoch = epoch + 1, updated_at = $4 WHERE tenant_id = $1 AND id = $2 \
        RETURNING epoch";
    scoped SET_STATUS = "UPDATE users SET status = $3, epoch = epoch + 1, updated_at = $4 \
        WHERE tenant_id = $1 AND id = $2 RETURNING epoch";
    scoped SET_PASSWORD = "UPDATE users SET password_hash = $3, updated_at = $4 WHERE tenant_id = $1 AND id = $2";
    scoped LOGGED_IN = "UPDATE users SET last_login_at = $3 WHERE tenant_id = $1 AND id = $2";
    scoped BUMP_EPOCH = "UPDATE users SET epoch = epoch + 1 WHERE tenant_id = $1 AND id = $2 RETURNING epoch";
    scoped DELETE = "DELETE FROM users WHERE tenant_id = $1 AND id = $2 RETURNING epoch";
    scoped ACTIVE_OWNERS = "SELECT COUNT(*) FROM users WHERE tenant_id = $1 AND role = 'owner' AND status = 'active'";
}

/// A user about to be created.
#[derive(Clone, Debug)]
pub struct NewUser<'a> {
    /// His id: made first, because it is associated data of the sealed fields.
    pub id: UserId,
    /// His e-mail address, sealed.
    pub email_sealed: &'a [u8],
    /// Its blind-index tag, which also keeps it unique in the tenant.
    pub email_tag: Tag<'a>,
    /// His name, sealed.
    pub name_sealed: &'a [u8],
    /// What he is in the tenant.
    pub role: Role,
    /// The hash of his password, in PHC format.
    pub password_hash: &'a Secret<String>,
    /// Now.
    pub created_at: Millis,
}

/// The changed fields of a user; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct UserChange<'a> {
    /// His new e-mail address, sealed, and its tag.
    pub email: Option<(&'a [u8], Tag<'a>)>,
    /// His new name, sealed.
    pub name_sealed: Option<&'a [u8]>,
}

/// Creates a user and the index row of his address. Fails with `Duplicate("email")` when the address is taken.
pub async fn insert(tx: &mut Tx, user: &NewUser<'_>) -> Result<(), StoreError> {
    let hash = user.password_hash.expose().as_str();
    let args = args![user.id, user.email_sealed, user.name_sealed, user.role, hash, user.created_at];
    tx.run(INSERT, args).await.map_err(|error| error.naming("user id"))?;
    blind_index::insert(tx, Field::UserEmail, user.email_tag, &user.id.to_string()).await
}

/// The user of this id.
pub async fn by_id(conn: &mut Conn, id: UserId) -> Result<Option<UserRow>, StoreError> {
    conn.row(BY_ID, args![id]).await
}

/// The user whose e-mail address has this tag: what login looks for.
pub async fn by_email_tag(conn: &mut Conn, tag: Tag<'_>) -> Result<Option<UserRow>, StoreError> {
    conn.row(BY_TAG, args![Field::UserEmail.column(), tag.key_id, tag.tag]).await
}

/// Users in order of creation, after the given one.
pub async fn page(conn: &mut Conn, after: Option<UserId>, limit: u32) -> Result<Vec<UserRow>, StoreError> {
    conn.rows(PAGE, args![after.map_or_else(String::new, |id| id.to_string()), limit]).await
}

/// Changes address or name; `false` when there is no such user. Fails with `Duplicate("email")` when the new address
/// is taken.
pub async fn update(tx: &mut Tx, id: UserId, change: &UserChange<'_>, now: Millis) -> Result<bool, StoreError> {
    let email = change.email.as_ref().map(|(sealed, _)| *sealed);
    if tx.run(SET_FIELDS, args![id, email, change.name_sealed, now]).await? == 0 {
        return Ok(false);
    }
    if let Some((_, tag)) = change.email {
        let row = id.to_string();
        blind_index::delete(tx, Field::UserEmail, &row).await?;
        blind_index::insert(tx, Field::UserEmail, tag, &row).await?;
    }
    Ok(true)
}

/// Changes the role and raises the epoch, which is returned; `None` when there is no such user.
pub async fn set_role(tx: &mut Tx, id: UserId, role: Role, now: Millis) -> Result<Option<u64>, StoreError> {
    Ok(tx.row::<(u64,)>(SET_ROLE, args![id, role, now]).await?.map(|(epoch,)| epoch))
}

/// Disables or enables and raises the epoch, which is returned; `None` when there is no such user.
pub async fn set_status(tx: &mut Tx, id: UserId, status: UserStatus, now: Millis) -> Result<Option<u64>, StoreError> {
    Ok(tx.row::<(u64,)>(SET_STATUS, args![id, status, now]).await?.map(|(epoch,)| epoch))
}

/// Stores another password hash; `false` when there is no such user. Ends no session by itself.
pub async fn set_password_hash(
    tx: &mut Tx,
    id: UserId,
    hash: &Secret<String>,
    now: Millis,
) -> Result<bool, StoreError> {
    Ok(tx.run(SET_PASSWORD, args![id, hash.expose().as_str(), now]).await? == 1)
}

/// Notes a login.
pub async fn logged_in(tx: &mut Tx, id: UserId, now: Millis) -> Result<bool, StoreError> {
    Ok(tx.run(LOGGED_IN, args![id, now]).await? == 1)
}

/// Raises the epoch, which is returned: every access token issued before ends. `None` when there is no such user.
pub async fn bump_epoch(tx: &mut Tx, id: UserId) -> Result<Option<u64>, StoreError> {
    Ok(tx.row::<(u64,)>(BUMP_EPOCH, args![id]).await?.map(|(epoch,)| epoch))
}

/// Deletes a user with his index rows, sessions and refresh tokens; the audit trail keeps his id. Returns the epoch
/// that ends his access tokens; `None` when there is no such user.
pub async fn delete(tx: &mut Tx, id: UserId) -> Result<Option<u64>, StoreError> {
    // Sessions and refresh tokens follow by their foreign keys.
    let Some((epoch,)) = tx.row::<(u64,)>(DELETE, args![id]).await? else { return Ok(None) };
    blind_index::delete(tx, Field::UserEmail, &id.to_string()).await?;
    Ok(Some(epoch.saturating_add(1)))
}

/// How many active owners the tenant has: the last may be neither disabled, deleted nor demoted. Ask inside the
/// transaction that would do it.
pub async fn count_active_owners(conn: &mut Conn) -> Result<u64, StoreError> {
    Ok(conn.row::<(u64,)>(ACTIVE_OWNERS, args![]).await?.map_or(0, |(count,)| count))
}
