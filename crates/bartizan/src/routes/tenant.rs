//! The caller's own tenant.

use bartizan_core::action::{ReadTenant, UpdateTenant};
use bartizan_core::input::HumanName;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Services;
use crate::api::{Api, Body, Cache, Csrf, Failure, Found, RateClass, Read, Service, Write, requires};
use crate::guard::Permit;
use crate::tenants::{TenantView, Tenants};

pub(super) fn routes() -> Api<Services> {
    Api::new()
        .get(
            "/v1/tenant",
            Read {
                summary: "One's own tenant",
                access: requires(ReadTenant),
                rate: RateClass::Read,
                cache: Cache::Private,
            },
            read_tenant,
        )
        .patch(
            "/v1/tenant",
            Write {
                summary: "Change the tenant's display name",
                access: requires(UpdateTenant),
                rate: RateClass::Write,
                csrf: Csrf::Enforced,
                cache: Cache::Private,
            },
            update_tenant,
        )
}

/// What to change; absent members stay as they are.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateTenantBody {
    #[serde(default)]
    pub(crate) name: Option<HumanName>,
}

async fn read_tenant(
    permit: Permit<ReadTenant>,
    Service(tenants): Service<Tenants>,
) -> Result<Found<TenantView>, Failure> {
    tenants.read(&permit).await.map(Found)
}

async fn update_tenant(
    permit: Permit<UpdateTenant>,
    Service(tenants): Service<Tenants>,
    Body(body): Body<UpdateTenantBody>,
) -> Result<Found<TenantView>, Failure> {
    tenants.update(permit, body.name).await.map(Found)
}
