//! The operators' listener: `/healthz`, `/readyz` and `/metrics`.

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bartizan_store::meta;
use bartizan_store::shared::SharedState;
use bartizan_store::shared::link::LinkState;
use http::{StatusCode, header};
use serde::Serialize;

use crate::api::Failure;
use crate::engine::ROOT_KEY;
use crate::ground::Ground;
use crate::guard::Authenticator;
use crate::hashing::HashingPool;
use crate::metrics::Word;

/// What the operators' listener speaks of.
#[derive(Clone, Debug)]
pub(crate) struct Ops {
    pub(crate) ground: Ground,
    pub(crate) authenticator: Authenticator,
    pub(crate) hashing: HashingPool,
}

impl Ops {
    pub(crate) fn router(self) -> axum::Router {
        axum::Router::new()
            .route("/healthz", get(async || (StatusCode::OK, "ok\n")))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics_text))
            .with_state(self)
    }
}

/// What `/readyz` says.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    storage: &'static str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation: Option<Lag>,
}

/// How far behind the database this node is.
#[derive(Serialize)]
struct Lag {
    fresh: bool,
    lag_ms: u64,
    bound_ms: u64,
    sequence: i64,
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Whether requests can be served: the database answers, and what other nodes ended is known.
async fn ready(State(ops): State<Ops>) -> Response {
    let asked = async {
        let mut reader = ops.ground.read_platform("readiness: does the database answer").await?;
        Ok::<_, Failure>(meta::find(&mut reader, ROOT_KEY).await?)
    };
    let up = matches!(tokio::time::timeout(Duration::from_secs(2), asked).await, Ok(Ok(_)));
    ops.ground.metrics.storage_up.set(i64::from(up));
    let fresh = ops.ground.is_fresh();
    let shared = ops.ground.shared.as_ref();
    let (state, error) = match shared.map(|shared| shared.link().state()) {
        None => ("embedded", None),
        Some(LinkState::Up) => ("up", None),
        Some(LinkState::Down { why, .. }) => ("down", Some(why.to_string())),
    };
    let answer = Readiness {
        ready: up && fresh,
        storage: if up { "up" } else { "down" },
        state,
        state_error: error,
        nodes: shared.map(SharedState::live_nodes),
        revocation: ops.ground.following.as_ref().map(|following| Lag {
            fresh,
            lag_ms: millis(following.age()),
            bound_ms: millis(following.bound()),
            sequence: following.applied(),
        }),
    };
    // Without the shared state requests are still decided, by this node: it stays in service.
    let status = if up && fresh { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CONTENT_TYPE, "application/json")], serde_json::to_string(&answer).unwrap_or_default())
        .into_response()
}

async fn metrics_text(State(ops): State<Ops>) -> Response {
    let metrics = &ops.ground.metrics;
    let counts = ops.ground.state.counts();
    let gauge = |family: &prometheus_client::metrics::family::Family<Word, _>, label, word, value: usize| {
        let gauge: &prometheus_client::metrics::gauge::Gauge = &family.get_or_create_owned(&Word(label, word));
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    };
    gauge(&metrics.entries, "table", "limited_keys", counts.limited_keys);
    gauge(&metrics.entries, "table", "bans", counts.ban_records);
    gauge(&metrics.entries, "table", "ended", counts.ended);
    gauge(&metrics.entries, "table", "raised_epochs", counts.raised);
    gauge(&metrics.entries, "table", "verified_tokens", ops.authenticator.remembered());
    gauge(&metrics.bytes, "table", "hot_state", counts.memory_bytes);
    shared_metrics(&ops.ground);
    let load = ops.hashing.load();
    gauge(&metrics.hashing, "state", "running", load.running);
    gauge(&metrics.hashing, "state", "waiting", load.waiting);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (StatusCode::OK, [(header::CONTENT_TYPE, kind)], metrics.render()).into_response()
}

/// What the shared state and the follower say of themselves, at the scrape.
fn shared_metrics(ground: &Ground) {
    let metrics = &ground.metrics;
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    if let Some(following) = &ground.following {
        metrics.revocation_lag.set(i64::try_from(following.age().as_millis()).unwrap_or(i64::MAX));
        metrics.revocation_sequence.set(following.applied());
    }
    let up = ground.shared.as_ref().is_none_or(|shared| shared.link().state() == LinkState::Up);
    metrics.state_up.set(i64::from(up));
    let shared = ground.shared.as_ref();
    metrics.state_nodes.set(shared.map_or(1, |shared| i64::from(shared.live_nodes())));
    // Without one all are zero, and there: what appears only with its first event cannot be alarmed on.
    let (counts, link) = shared.map(|shared| (shared.counts(), shared.link().counts())).unwrap_or_default();
    for (kind, value) in [
        ("round_trips", counts.round_trips),
        ("failures", counts.failures),
        ("timeouts", link.timeouts),
        ("reconnects", link.reconnects),
        ("breaker_opened", link.breaker_opened),
        ("scripts_loaded", link.scripts_loaded),
        ("denials_cached", counts.denials_cached),
        ("leased", counts.leased),
        ("lease_units_granted", counts.lease_units_granted),
        ("lease_units_returned", counts.lease_units_returned),
        ("decided_locally", counts.decided_locally),
        ("admitted_open", counts.admitted_open),
        ("refused_away", counts.refused_away),
        ("away_milliseconds", counts.away_millis),
        ("replayed", counts.replayed),
        ("replay_lost", counts.replay_lost),
    ] {
        metrics.state_activity.get_or_create_owned(&Word("kind", kind)).set(number(value));
    }
}
