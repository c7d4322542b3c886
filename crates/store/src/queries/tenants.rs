//! Tenants: the border itself.

use bartizan_core::id::TenantId;
use bartizan_core::principal::Tier;
use bartizan_core::time::Millis;

use crate::db::{Conn, Tx};
use crate::error::StoreError;
use crate::scope::PlatformScope;
use crate::sql::statements;
use crate::value::{args, rows};
use crate::words::TenantStatus;

rows! {
    /// A tenant.
    TenantRow {
        /// Its id.
        id: TenantId,
        /// Its name in addresses and at login; unique in the installation.
        slug: String,
        /// Its name for people, sealed.
        name_sealed: Option<Vec<u8>>,
        /// What it pays for.
        tier: Tier,
        /// Whether it may work.
        status: TenantStatus,
        /// Live tokens carry at least this.
        epoch: u64,
        /// When it was created.
        created_at: Millis,
        /// When it was last changed.
        updated_at: Millis,
    }
}

macro_rules! columns {
    () => {
        "tenant_id, slug, name_sealed, tier, status, epoch, created_at, updated_at"
    };
}

statements! {
    scoped INSERT = "INSERT INTO tenants (tenant_id, slug, name_sealed, tier, status, epoch, created_at, updated_at) \
        VALUES ($1, $2, $3, $4, 'active', 0, $5, $5)";
    scoped OWN = concat!("SELECT ", columns!(), " FROM tenants WHERE tenant_id = $1");
    platform("login knows a slug and no tenant yet")
        BY_SLUG = concat!("SELECT ", columns!(), " FROM tenants WHERE slug = $1");
    platform("the operator lists tenants")
        PAGE = concat!("SELECT ", columns!(), " FROM tenants WHERE tenant_id > $1 ORDER BY tenant_id LIMIT $2");
    scoped SET_TIER = "UPDATE tenants SET tier = $2, updated_at = $3 WHERE tenant_id = $1";
    scoped SET_STATUS = "UPDATE tenants SET status = $2, epoch = epoch + 1, updated_at = $3 WHERE tenant_id = $1 \
        RETURNING epoch";
    scoped SET_NAME = "UPDATE tenants SET name_sealed = $2, updated_at = $3 WHERE tenant_id = $1";
}

/// A tenant about to be created; its id is the scope's.
#[derive(Clone, Debug)]
pub struct NewTenant<'a> {
    /// Its name in addresses and at login.
    pub slug: &'a str,
    /// Its name for people, sealed.
    pub name_sealed: Option<&'a [u8]>,
    /// What it pays for.
    pub tier: Tier,
    /// Now.
    pub created_at: Millis,
}

/// Creates the scope's tenant. Fails with `Duplicate("slug")` when the slug is taken.
pub async fn insert(tx: &mut Tx, tenant: &NewTenant<'_>) -> Result<(), StoreError> {
    let args = args![tenant.slug, tenant.name_sealed, tenant.tier, tenant.created_at];
    tx.run(INSERT, args).await.map(drop).map_err(|error| error.naming("slug"))
}

/// The scope's tenant.
pub async fn own(conn: &mut Conn) -> Result<Option<TenantRow>, StoreError> {
    conn.row(OWN, args![]).await
}

/// The tenant of a slug: what login begins with.
pub async fn by_slug(conn: &mut Conn<PlatformScope>, slug: &str) -> Result<Option<TenantRow>, StoreError> {
    conn.row(BY_SLUG, args![slug]).await
}

/// Tenants in order of creation, after the given one.
pub async fn page(
    conn: &mut Conn<PlatformScope>,
    after: Option<TenantId>,
    limit: u32,
) -> Result<Vec<TenantRow>, StoreError> {
    conn.rows(PAGE, args![after.map_or_else(String::new, |id| id.to_string()), limit]).await
}

/// Moves the tenant to another tier; `false` when there is no such tenant.
pub async fn set_tier(tx: &mut Tx, tier: Tier, now: Millis) -> Result<bool, StoreError> {
    Ok(tx.run(SET_TIER, args![tier, now]).await? == 1)
}

/// Suspends or resumes the tenant and raises its epoch, which is returned; `None` when there is no such tenant.
pub async fn set_status(tx: &mut Tx, status: TenantStatus, now: Millis) -> Result<Option<u64>, StoreError> {
    Ok(tx.row::<(u64,)>(SET_STATUS, args![status, now]).await?.map(|(epoch,)| epoch))
}

/// Gives the tenant another name; `false` when there is no such tenant.
pub async fn set_name(tx: &mut Tx, name_sealed: Option<&[u8]>, now: Millis) -> Result<bool, StoreError> {
    Ok(tx.run(SET_NAME, args![name_sealed, now]).await? == 1)
}
