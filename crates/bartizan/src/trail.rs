//! Reading the audit trail. Reading is itself recorded.

use bartizan_core::action::ReadAudit;
use bartizan_core::audit::AuditRead;
use bartizan_core::error::Code;
use bartizan_core::id::{EventId, RequestId, SessionId, UserId};
use bartizan_core::input::{AuditActionFilter, Cursor, PageLimit};
use bartizan_core::time::Millis;
use bartizan_store::audit::{self, AuditRow, Filter};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::api::{Failure, Page};
use crate::ground::{Begun, Ground};
use crate::guard::Permit;
use crate::paging;

/// Who did it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct ActorView {
    /// `user`, `anonymous`, `operator` or `system`.
    #[serde(rename = "type")]
    kind: String,
    /// The user, or the name of the job.
    id: Option<String>,
    session: Option<SessionId>,
}

/// A row of the trail.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct EventView {
    id: EventId,
    /// Its number in the tenant, without gaps.
    seq: i64,
    at: Millis,
    action: String,
    /// `ok` or `denied`.
    outcome: String,
    actor: ActorView,
    /// What it was done to, most specific first.
    targets: Vec<String>,
    /// The rest, as a small flat object.
    details: serde_json::Map<String, Value>,
    ip: Option<String>,
    request: Option<RequestId>,
}

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Trail {
    ground: Ground,
}

impl Trail {
    pub(crate) fn new(ground: Ground) -> Self {
        Self { ground }
    }

    /// Rows of the tenant's trail, oldest first.
    pub(crate) async fn page(
        &self,
        permit: Permit<ReadAudit>,
        after: Option<Cursor>,
        limit: PageLimit,
        action: Option<AuditActionFilter>,
        actor: Option<UserId>,
    ) -> Result<Page<EventView>, Failure> {
        let after = paging::position::<i64>(after.as_ref())?.unwrap_or(0);
        if after < 0 {
            return Err(Code::CursorInvalid.into());
        }
        let limit = limit.number();
        let actor = actor.map(|id| id.to_string());
        let filter = Filter { action: action.as_ref().map(AuditActionFilter::as_str), actor: actor.as_deref() };
        let rows = {
            let mut reader = self.ground.read(permit.grant()).await?;
            audit::page(&mut reader, after, filter, paging::one_more(limit)).await?
        };
        let page = paging::page(rows, limit, |row| row.tseq.unwrap_or(0).to_string(), |row| Ok(view(row)))?;
        // The reader sees the page only once it is written down that he saw it.
        let Begun::New(change) = self.ground.change(&permit).await? else { return Ok(page) };
        change.commit(AuditRead { rows: page.items.len() }, ()).await?;
        Ok(page)
    }
}

fn view(row: AuditRow) -> EventView {
    let targets = match row.targets {
        Value::Array(ids) => ids.into_iter().filter_map(|id| id.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    };
    let details = match row.details {
        Value::Object(members) => members,
        _ => serde_json::Map::new(),
    };
    EventView {
        id: row.id,
        seq: row.tseq.unwrap_or(0),
        at: row.at,
        action: row.action,
        outcome: row.outcome,
        actor: ActorView { kind: row.actor_type, id: row.actor_id, session: row.actor_session },
        targets,
        details,
        ip: row.ip,
        request: row.request,
    }
}
