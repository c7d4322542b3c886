//! The audit trail: written only by [`Tx::commit`](crate::Tx::commit) and [`Tx::record`](crate::Tx::record), read
//! page by page.

use bartizan_core::audit::{Actor, AuditEvent, Outcome};
use bartizan_core::id::{EventId, RequestId, SessionId, TenantId};
use bartizan_core::time::Millis;

use crate::db::Conn;
use crate::error::StoreError;
use crate::scope::{Border, PlatformScope};
use crate::sql::statements;
use crate::value::{Value, args, rows};

rows! {
    /// A row of the trail.
    AuditRow {
        /// Its number in the whole installation.
        seq: i64,
        /// Its number in the tenant, without gaps; `None` for what concerns the whole server.
        tseq: Option<i64>,
        /// Names the event everywhere.
        id: EventId,
        /// When.
        at: Millis,
        /// In which tenant.
        tenant_id: Option<TenantId>,
        /// `user`, `anonymous`, `operator` or `system`.
        actor_type: String,
        /// The user, or the name of the job.
        actor_id: Option<String>,
        /// The user's session.
        actor_session: Option<SessionId>,
        /// What, as a dotted name.
        action: String,
        /// `ok` or `denied`.
        outcome: String,
        /// What it was done to: a JSON array of ids, most specific first.
        targets: serde_json::Value,
        /// The rest: a small flat JSON object.
        details: serde_json::Value,
        /// The client's address.
        ip: Option<String>,
        /// The request.
        request: Option<RequestId>,
        /// The node.
        node: String,
    }
}

macro_rules! columns {
    () => {
        "seq, tseq, id, at, tenant_id, actor_type, actor_id, actor_session, action, outcome, targets, details, ip, \
         request, node"
    };
}

statements! {
    // The tenant's row is locked by this until the commit: the numbers have no gaps, on either database.
    scoped NUMBER = "INSERT INTO audit_heads (tenant_id, tseq) VALUES ($1, 1) \
        ON CONFLICT (tenant_id) DO UPDATE SET tseq = audit_heads.tseq + 1 RETURNING tseq";
    scoped APPEND = "INSERT INTO audit (tenant_id, tseq, id, at, actor_type, actor_id, actor_session, action, outcome, \
        targets, details, ip, request, node) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) \
        RETURNING seq";
    scoped PAGE = concat!("SELECT ", columns!(), " FROM audit WHERE tenant_id = $1 AND tseq > $2 \
        ORDER BY tseq LIMIT $3");
    scoped PAGE_BY_ACTION = concat!("SELECT ", columns!(), " FROM audit WHERE tenant_id = $1 AND tseq > $2 \
        AND action = $4 ORDER BY tseq LIMIT $3");
    scoped PAGE_BY_ACTOR = concat!("SELECT ", columns!(), " FROM audit WHERE tenant_id = $1 AND tseq > $2 \
        AND actor_id = $4 ORDER BY tseq LIMIT $3");
    scoped PAGE_BY_BOTH = concat!("SELECT ", columns!(), " FROM audit WHERE tenant_id = $1 AND tseq > $2 \
        AND actor_id = $4 AND action = $5 ORDER BY tseq LIMIT $3");
    platform("the operator follows the whole trail")
        SINCE = concat!("SELECT ", columns!(), " FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2");
    platform("the operator reads the newest rows of the whole trail")
        NEWEST = concat!("SELECT ", columns!(), " FROM audit ORDER BY seq DESC LIMIT $1");
}

/// Which rows of the tenant's trail to show.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// Only this action.
    pub action: Option<&'a str>,
    /// Only this actor: a user's id, or the name of a job.
    pub actor: Option<&'a str>,
}

/// Writes the row of `event` and returns its number. Called by the transaction alone, which has checked that its
/// border admits the event's tenant.
pub(crate) async fn append<S: Border>(conn: &mut Conn<S>, event: &AuditEvent) -> Result<i64, StoreError> {
    let tseq = match event.tenant {
        Some(tenant) => conn.append::<(i64,)>(NUMBER, args![tenant]).await?.into_iter().next(),
        None => None,
    };
    let (actor_type, actor_id, actor_session) = match &event.actor {
        Actor::User { id, session } => ("user", Value::from(*id), Value::from(*session)),
        Actor::Anonymous => ("anonymous", Value::Null, Value::Null),
        Actor::Operator => ("operator", Value::Null, Value::Null),
        Actor::System { job } => ("system", Value::from(job.as_str()), Value::Null),
    };
    let outcome = match event.kind.outcome() {
        Outcome::Ok => "ok",
        Outcome::Denied => "denied",
    };
    let mut values = args![event.tenant, tseq.map(|(tseq,)| tseq), event.id, event.at, actor_type];
    values.extend([actor_id, actor_session]);
    values.extend(args![
        event.kind.action(),
        outcome,
        serde_json::Value::from(event.kind.targets()).to_string(),
        event.kind.details().to_string(),
        event.origin.ip.map(|ip| ip.to_string()),
        event.origin.request,
        event.origin.node.as_str(),
    ]);
    let row = conn.append::<(i64,)>(APPEND, values).await.map_err(|error| error.naming("event id"))?;
    row.first().map(|(seq,)| *seq).ok_or_else(|| StoreError::misuse("an audit row without a number"))
}

/// The tenant's rows after the number `after`, oldest first.
pub async fn page(conn: &mut Conn, after: i64, filter: Filter<'_>, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
    match (filter.actor, filter.action) {
        (None, None) => conn.rows(PAGE, args![after, limit]).await,
        (None, Some(action)) => conn.rows(PAGE_BY_ACTION, args![after, limit, action]).await,
        (Some(actor), None) => conn.rows(PAGE_BY_ACTOR, args![after, limit, actor]).await,
        (Some(actor), Some(action)) => conn.rows(PAGE_BY_BOTH, args![after, limit, actor, action]).await,
    }
}

/// All rows after the installation-wide number `after`, oldest first. On PostgreSQL changes of different tenants run side
/// by side, so a row may appear a moment after one with a higher number: who follows asks again from a little before. A
/// tenant's own numbers ([`page`]) appear in order.
pub async fn since(conn: &mut Conn<PlatformScope>, after: i64, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
    conn.rows(SINCE, args![after, limit]).await
}

/// The newest rows of the installation, oldest of them first.
pub async fn newest(conn: &mut Conn<PlatformScope>, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
    let mut rows: Vec<AuditRow> = conn.rows(NEWEST, args![limit]).await?;
    rows.reverse();
    Ok(rows)
}
