//! On whose behalf the database is asked: one tenant, or, spelled out and with a reason, all of them.

use bartizan_core::id::TenantId;

use crate::value::Value;

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Scope {}
    impl Sealed for super::PlatformScope {}
}

/// What a connection may reach. Complete by nature: [`Scope`] and [`PlatformScope`] are all there is.
pub trait Border: sealed::Sealed + Send + Sync {
    /// Whether an event of `tenant` may be written from inside this border.
    fn admits(&self, tenant: Option<TenantId>) -> bool;
}

/// One tenant, and nothing else. The façade binds it as `$1` of every [`Scoped`](crate::Scoped) statement.
///
/// It is deliberately not `From<TenantId>`: an id that came in with a request is not yet a permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    tenant: TenantId,
}

impl Scope {
    /// Opens the border of `tenant`. Only the guard calls this, and the services on its permit; a source test checks
    /// it. A sign-up grants itself the tenant it is about to create.
    pub fn granted(tenant: TenantId) -> Self {
        Self { tenant }
    }

    /// The tenant, for use as associated data of what is sealed.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    pub(crate) fn bound(&self) -> Value {
        Value::from(self.tenant)
    }
}

impl Border for Scope {
    fn admits(&self, tenant: Option<TenantId>) -> bool {
        tenant == Some(self.tenant)
    }
}

/// All tenants at once: for the operator, for start-up, and for finding the tenant before there is a scope.
#[derive(Clone, Debug)]
pub struct PlatformScope {
    reason: &'static str,
}

impl PlatformScope {
    /// Crosses the border for a stated reason, such as `"login: find the tenant by its slug"`. Only the guard, the
    /// local admin socket and start-up call this; a source test checks it.
    pub fn granted(reason: &'static str) -> Self {
        Self { reason }
    }

    /// Why the border is crossed.
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}

impl Border for PlatformScope {
    fn admits(&self, _: Option<TenantId>) -> bool {
        true
    }
}
