//! One's own sessions.

use bartizan_core::action::{ListSessions, RevokeSession};
use bartizan_core::id::SessionId;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Paging, Services};
use crate::api::{Api, Cache, Csrf, Done, Failure, Page, Path, Query, RateClass, Read, Service, Write, requires};
use crate::guard::Permit;
use crate::sessions::{SessionView, Sessions};

pub(super) fn routes() -> Api<Services> {
    Api::new()
        .get(
            "/v1/sessions",
            Read {
                summary: "One's own live sessions",
                access: requires(ListSessions),
                rate: RateClass::Read,
                cache: Cache::Private,
            },
            list_sessions,
        )
        .delete(
            "/v1/sessions/{id}",
            Write {
                summary: "End one of one's own sessions",
                access: requires(RevokeSession),
                rate: RateClass::Write,
                csrf: Csrf::Enforced,
                cache: Cache::Private,
            },
            revoke_session,
        )
}

/// Which session.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ById {
    pub(crate) id: SessionId,
}

async fn list_sessions(
    permit: Permit<ListSessions>,
    Service(sessions): Service<Sessions>,
    Query(paging): Query<Paging>,
) -> Result<Page<SessionView>, Failure> {
    sessions.list(&permit, paging).await
}

async fn revoke_session(
    permit: Permit<RevokeSession>,
    Service(sessions): Service<Sessions>,
    Path(path): Path<ById>,
) -> Result<Done, Failure> {
    sessions.revoke(permit, path.id).await?;
    Ok(Done)
}
