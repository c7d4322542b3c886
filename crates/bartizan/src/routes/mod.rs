//! The routes of the server, one file a noun. A handler is a few lines: take, one service call, answer.

mod account;
mod audit;
mod oauth;
mod sessions;
mod tenant;
mod users;
mod well_known;

use std::sync::Arc;

use axum::extract::FromRef;
use schemars::JsonSchema;
use serde::Deserialize;

use bartizan_core::input::{Cursor, PageLimit};

use crate::accounts::Accounts;
use crate::api::Api;
use crate::sessions::Sessions;
use crate::tenants::Tenants;
use crate::trail::Trail;
use crate::users::Users;

pub(crate) use well_known::Published;

/// The services the routes stand on. A handler names the one it needs. Shared: a request clones one pointer.
#[derive(Clone, Debug)]
pub(crate) struct Services(Arc<Set>);

/// The services themselves.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    pub(crate) accounts: Accounts,
    pub(crate) sessions: Sessions,
    pub(crate) users: Users,
    pub(crate) tenants: Tenants,
    pub(crate) trail: Trail,
    pub(crate) published: Published,
}

impl Services {
    pub(crate) fn new(set: Set) -> Self {
        Self(Arc::new(set))
    }

    /// The same services, publishing elsewhere; and where.
    pub(crate) fn publishing_beside(&self) -> (Self, Published) {
        let published = self.0.published.beside();
        (Self::new(Set { published: published.clone(), ..Set::clone(&self.0) }), published)
    }
}

macro_rules! from_ref {
    ($($field:ident: $type:ty;)+) => {$(
        impl FromRef<Services> for $type {
            fn from_ref(services: &Services) -> Self {
                services.0.$field.clone()
            }
        }
    )+};
}

from_ref! {
    accounts: Accounts;
    sessions: Sessions;
    users: Users;
    tenants: Tenants;
    trail: Trail;
    published: Published;
}

/// Every built-in route.
pub(crate) fn routes() -> Api<Services> {
    Api::new()
        .merge(account::routes())
        .merge(sessions::routes())
        .merge(users::routes())
        .merge(tenant::routes())
        .merge(audit::routes())
        .merge(oauth::routes())
        .merge(well_known::routes())
}

/// Where a list goes on.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Paging {
    /// The `next` of the last page; absent for the first one.
    #[serde(default)]
    pub after: Option<Cursor>,
    /// Most rows of this page.
    #[serde(default)]
    pub limit: PageLimit,
}
