//! The audit trail of the tenant.

use bartizan_core::action::ReadAudit;
use bartizan_core::id::UserId;
use bartizan_core::input::{AuditActionFilter, Cursor, PageLimit};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Services;
use crate::api::{Api, Cache, Failure, Page, Query, RateClass, Read, Service, requires};
use crate::guard::Permit;
use crate::trail::{EventView, Trail};

pub(super) fn routes() -> Api<Services> {
    Api::new().get(
        "/v1/audit",
        Read {
            summary: "What happened in the tenant, oldest first; reading it is itself recorded",
            access: requires(ReadAudit),
            rate: RateClass::Read,
            cache: Cache::Private,
        },
        read_audit,
    )
}

/// Which rows.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    /// The `next` of the last page; absent for the first one.
    #[serde(default)]
    pub(crate) after: Option<Cursor>,
    /// Most rows of this page.
    #[serde(default)]
    pub(crate) limit: PageLimit,
    /// Only rows of this action.
    #[serde(default)]
    pub(crate) action: Option<AuditActionFilter>,
    /// Only rows of this user.
    #[serde(default)]
    pub(crate) actor: Option<UserId>,
}

async fn read_audit(
    permit: Permit<ReadAudit>,
    Service(trail): Service<Trail>,
    Query(filter): Query<Filter>,
) -> Result<Page<EventView>, Failure> {
    trail.page(permit, filter.after, filter.limit, filter.action, filter.actor).await
}
