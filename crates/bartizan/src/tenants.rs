//! The tenant itself.

use bartizan_core::action::{ReadTenant, UpdateTenant};
use bartizan_core::audit::TenantUpdated;
use bartizan_core::cipher::FieldRef;
use bartizan_core::error::Code;
use bartizan_core::id::TenantId;
use bartizan_core::input::HumanName;
use bartizan_core::principal::Tier;
use bartizan_core::time::Millis;
use bartizan_store::tenants::{self, TenantRow};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::Failure;
use crate::ground::{Begun, Ground, again};
use crate::guard::Permit;
use crate::vault::TenantKeys;

const NAME: FieldRef = FieldRef::new("tenants", "name");

/// A tenant as its users see it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct TenantView {
    id: TenantId,
    slug: String,
    /// Its name for people; `null` until one is given.
    name: Option<String>,
    tier: Tier,
    created_at: Millis,
}

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Tenants {
    ground: Ground,
}

impl Tenants {
    pub(crate) fn new(ground: Ground) -> Self {
        Self { ground }
    }

    /// One's own tenant.
    pub(crate) async fn read(&self, permit: &Permit<ReadTenant>) -> Result<TenantView, Failure> {
        let mut reader = self.ground.read(permit.grant()).await?;
        let row = tenants::own(&mut reader).await?.ok_or(Code::NotFound)?;
        let keys = self.ground.keys(&mut reader).await?;
        view(&keys, row)
    }

    /// Gives the tenant another name for people.
    pub(crate) async fn update(
        &self,
        permit: Permit<UpdateTenant>,
        name: Option<HumanName>,
    ) -> Result<TenantView, Failure> {
        let mut change = match self.ground.change(&permit).await? {
            Begun::New(change) => change,
            Begun::Again(answer) => return again(&answer),
        };
        let keys = self.ground.keys(&mut change).await?;
        let tenant = change.scope().tenant().to_string();
        let mut fields = Vec::new();
        if let Some(name) = &name {
            let sealed = keys.seal(NAME, &tenant, name.as_str().as_bytes())?;
            tenants::set_name(&mut change, Some(&sealed), self.ground.now()).await?;
            fields.push("name");
        }
        let row = tenants::own(&mut change).await?.ok_or(Code::NotFound)?;
        let view = view(&keys, row)?;
        if fields.is_empty() {
            change.cancel().await?;
            return Ok(view);
        }
        change.commit(TenantUpdated { fields }, view).await
    }
}

fn view(keys: &TenantKeys, row: TenantRow) -> Result<TenantView, Failure> {
    let id = row.id.to_string();
    let name = row.name_sealed.as_deref().map(|sealed| keys.open_text(NAME, &id, sealed)).transpose()?;
    let name = name.map(|name| name.expose().clone());
    Ok(TenantView { id: row.id, slug: row.slug, name, tier: row.tier, created_at: row.created_at })
}
