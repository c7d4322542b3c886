//! What operators see: counters, gauges and latencies in the Prometheus text format.
//!
//! Base units, no label a client can choose, no tenant label: the number of series is fixed by the route table.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use bartizan_core::error::Code;
use bartizan_core::token::Rejection;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::api::{Row, Table};

/// One fixed label: enough for a closed list of words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Word(pub &'static str, pub &'static str);

impl EncodeLabelSet for Word {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        (self.0, self.1).encode(encoder.encode_label())
    }
}

use prometheus_client::encoding::EncodeLabel as _;

/// Labels of one route: its template, never the path a client sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RouteLabels {
    method: String,
    route: String,
    status: &'static str,
}

impl EncodeLabelSet for RouteLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        ("http_request_method", self.method.as_str()).encode(encoder.encode_label())?;
        ("http_route", self.route.as_str()).encode(encoder.encode_label())?;
        ("http_response_status_code", self.status).encode(encoder.encode_label())
    }
}

/// Every metric of the engine. Clones of the single families are cheap and share their values.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    durations: Durations,
    unmatched: [Histogram; 5],
    /// Login attempts by outcome: `succeeded`, `failed`, `limited`, `busy`.
    pub logins: Family<Word, Counter>,
    /// Refused tokens by reason.
    pub token_rejections: Family<Word, Counter>,
    /// Decisions of the limits: counted several times a request, so each series is at hand.
    pub limit_decisions: LimitDecisions,
    /// Requests refused for lack of permission, by reason.
    pub denied: Family<Word, Counter>,
    /// Requests refused because of what was sent, by error code.
    pub refused: Family<Word, Counter>,
    /// Access tokens issued: by `login`, by `refresh`.
    pub tokens_issued: Family<Word, Counter>,
    /// Revocations by cause.
    pub revocations: Family<Word, Counter>,
    /// Spent refresh tokens that came back.
    pub refresh_reuse: Counter,
    /// Handlers that panicked.
    pub panics: Counter,
    /// Faults: answers with status 500.
    pub faults: Counter,
    /// Audit rows written.
    pub audit_events: Counter,
    /// Audit rows of refusals that could not be written.
    pub audit_dropped: Counter,
    /// Answers that waited out the bound of revocation because the shared state could not be told.
    pub announcements_waited: Counter,
    /// 1 while the shared state answers, or is embedded.
    pub state_up: Gauge,
    /// What the shared state did since the start, by kind.
    pub state_activity: Family<Word, Gauge>,
    /// Nodes that share the state.
    pub state_nodes: Gauge,
    /// How old this node's copy of the revocations is, in milliseconds.
    pub revocation_lag: Gauge,
    /// The number of the last effect in force here.
    pub revocation_sequence: Gauge,
    /// Round trips to the shared state.
    pub state_round_trip: Histogram,
    /// How far the system's clock is behind the engine's, in milliseconds.
    pub clock_behind: Gauge,
    /// Live entries of the in-memory tables.
    pub entries: Family<Word, Gauge>,
    /// Bytes of the in-memory tables.
    pub bytes: Family<Word, Gauge>,
    /// 1 while the database answers.
    pub storage_up: Gauge,
    /// Password hashes being computed or waiting.
    pub hashing: Family<Word, Gauge>,
    /// 1 while the counters of the limits cannot be written to disk.
    pub snapshot_failing: Gauge,
}

type Durations = Family<RouteLabels, Histogram, fn() -> Histogram>;

fn series(durations: &Durations, method: &str, route: &str) -> [Histogram; 5] {
    STATUS.map(|status| {
        let labels = RouteLabels { method: method.into(), route: route.into(), status };
        durations.get_or_create_owned(&labels)
    })
}

/// The decisions of the limits.
#[derive(Clone, Debug)]
pub struct LimitDecisions {
    /// Within every limit.
    pub admitted: Counter,
    /// Over a limit.
    pub denied: Counter,
    /// Refused because of a ban.
    pub banned: Counter,
    /// A ban began.
    pub ban_began: Counter,
}

impl LimitDecisions {
    fn of(family: &Family<Word, Counter>) -> Self {
        let series = |word| family.get_or_create_owned(&Word("decision", word));
        Self {
            admitted: series("admitted"),
            denied: series("denied"),
            banned: series("banned"),
            ban_began: series("ban_began"),
        }
    }
}

const STATUS: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Why credentials were ended before their time.
const REVOCATIONS: &[&str] = &[
    "logout",
    "logout_everywhere",
    "session_revoked",
    "oauth_revoke",
    "password_changed",
    "role_changed",
    "user_disabled",
    "user_deleted",
    "tenant_status",
    "refresh_reuse",
    "operator",
];

/// From fifty microseconds to the time-out and a little more.
const ROUND_TRIP: [f64; 10] = [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.06];

/// From a quarter of a millisecond to eight seconds.
fn latency() -> Histogram {
    Histogram::new([0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 8.0])
}

impl Metrics {
    /// Registers everything but the routes' latencies, which are added with a table.
    pub fn new(version: &'static str) -> Self {
        let mut registry = Registry::default();
        let durations = Durations::new_with_constructor(latency);
        registry.register_with_unit(
            "http_server_request_duration",
            "Time from the request's head to the answer's head",
            Unit::Seconds,
            durations.clone(),
        );
        let unmatched = series(&durations, "_OTHER", "");
        let ours = registry.sub_registry_with_prefix("bartizan");
        macro_rules! register {
            ($($name:literal, $help:literal, $metric:expr;)+) => {($({
                let metric = $metric;
                ours.register($name, $help, metric.clone());
                metric
            },)+)};
        }
        let (logins, token_rejections, limit_decisions, denied, refused, tokens_issued, revocations) = register! {
            "auth_attempts", "Login attempts by outcome", Family::<Word, Counter>::default();
            "token_rejections", "Access tokens refused, by reason", Family::<Word, Counter>::default();
            "ratelimit_decisions", "Decisions of the rate limits", Family::<Word, Counter>::default();
            "authz_denied", "Requests refused for lack of permission, by error code", Family::<Word, Counter>::default();
            "requests_refused", "Requests refused, by error code", Family::<Word, Counter>::default();
            "tokens_issued", "Access tokens issued", Family::<Word, Counter>::default();
            "tokens_revoked", "Revocations by cause", Family::<Word, Counter>::default();
        };
        let (refresh_reuse, panics, faults, audit_events, audit_dropped) = register! {
            "refresh_reuse", "Spent refresh tokens that came back", Counter::default();
            "panics", "Handlers that panicked", Counter::default();
            "faults", "Answers with status 500", Counter::default();
            "audit_events", "Audit rows written", Counter::default();
            "audit_dropped", "Audit rows of refusals that could not be written", Counter::default();
        };
        let (clock_behind, entries, bytes, storage_up, hashing, snapshot_failing) = register! {
            "clock_behind_milliseconds", "How far the system clock is behind the engine's", Gauge::default();
            "memory_entries", "Live entries of the in-memory tables", Family::<Word, Gauge>::default();
            "memory_bytes", "Bytes of the in-memory tables", Family::<Word, Gauge>::default();
            "storage_up", "1 while the database answers", Gauge::default();
            "password_hashing", "Password hashes running and waiting", Family::<Word, Gauge>::default();
            "limits_snapshot_failing", "1 while the counters of the limits cannot be written to disk", Gauge::default();
        };
        let (announcements_waited, state_up, state_activity, state_nodes, revocation_lag, revocation_sequence) = register! {
            "revocation_waited", "Answers that waited out the bound of revocation", Counter::default();
            "state_up", "1 while the shared state answers, or is embedded", Gauge::default();
            "state_activity", "What the shared state did since the start", Family::<Word, Gauge>::default();
            "state_nodes", "Nodes that share the state", Gauge::default();
            "revocation_lag_milliseconds", "How old this node's copy of the revocations is", Gauge::default();
            "revocation_sequence", "The number of the last effect in force on this node", Gauge::default();
        };
        let state_round_trip = Histogram::new(ROUND_TRIP);
        ours.register_with_unit(
            "state_round_trip",
            "Round trips to the shared state",
            Unit::Seconds,
            state_round_trip.clone(),
        );
        let build = Family::<Word, Gauge>::default();
        build.get_or_create(&Word("version", version)).set(1);
        ours.register("build_info", "The running version", build);
        storage_up.set(1);
        let metrics = Self {
            registry: Mutex::new(registry),
            durations,
            unmatched,
            logins,
            token_rejections,
            limit_decisions: LimitDecisions::of(&limit_decisions),
            denied,
            refused,
            tokens_issued,
            revocations,
            refresh_reuse,
            panics,
            faults,
            audit_events,
            audit_dropped,
            announcements_waited,
            state_up,
            state_activity,
            state_nodes,
            revocation_lag,
            revocation_sequence,
            state_round_trip,
            clock_behind,
            entries,
            bytes,
            storage_up,
            hashing,
            snapshot_failing,
        };
        metrics.begin();
        metrics
    }

    /// A series that appears only with its first event cannot be alarmed on: begin all of them at zero.
    fn begin(&self) {
        for (family, label, words) in [
            (&self.logins, "outcome", &["succeeded", "failed", "limited", "busy"][..]),
            (&self.denied, "code", &[Code::PermissionDenied.as_str()]),
            (&self.tokens_issued, "by", &["login", "refresh"]),
            (&self.revocations, "cause", REVOCATIONS),
        ] {
            for word in words {
                let _begun = family.get_or_create_owned(&Word(label, word));
            }
        }
        for reason in Rejection::ALL.iter().map(|rejection| rejection.as_str()).chain(["revoked"]) {
            let _begun = self.token_rejections.get_or_create_owned(&Word("reason", reason));
        }
        for code in Code::ALL.iter().filter(|code| code.status() < 500) {
            let _begun = self.refused.get_or_create_owned(&Word("code", code.as_str()));
        }
    }

    /// One series for each route of `table` and class of status, prepared so that counting an answer looks nothing up.
    /// Tables that have a route in common count it together.
    pub(crate) fn of(&self, table: &Table) -> RouteMetrics {
        let mut rows: Vec<&Row> = table.rows().iter().collect();
        rows.sort_by_key(|row| row.index);
        let known = |row: &Row| {
            let series = series(&self.durations, row.method.as_str(), &row.path);
            Known { name: row.name(), series }
        };
        RouteMetrics { rows: rows.into_iter().map(known).collect(), unmatched: self.unmatched.clone() }
    }

    /// Everything in the Prometheus text format (OpenMetrics 1.0).
    pub fn render(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if prometheus_client::encoding::text::encode(&mut text, &registry).is_err() {
            text.clear();
            let _ = writeln!(text, "# EOF");
        }
        text
    }
}

/// The latencies of one table of routes.
#[derive(Debug)]
pub(crate) struct RouteMetrics {
    /// In order of [`Row::index`].
    rows: Vec<Known>,
    unmatched: [Histogram; 5],
}

#[derive(Debug)]
struct Known {
    name: String,
    series: [Histogram; 5],
}

impl RouteMetrics {
    /// Counts one answer. `row` is the place in the route table, `None` for what matched no route.
    pub(crate) fn answered(&self, row: Option<usize>, status: u16, took: Duration) {
        let series = row.and_then(|row| self.rows.get(row)).map_or(&self.unmatched, |known| &known.series);
        if let Some(histogram) = series.get(usize::from(status / 100).saturating_sub(1)) {
            histogram.observe(took.as_secs_f64());
        }
    }

    /// Method and path of a row, for the log.
    pub(crate) fn name(&self, row: usize) -> Option<&str> {
        self.rows.get(row).map(|known| known.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_what_was_counted() {
        let metrics = Metrics::new("1.2.3");
        metrics.of(&table()).answered(Some(999), 200, Duration::from_millis(3));
        metrics.logins.get_or_create(&Word("outcome", "failed")).inc();
        let text = metrics.render();
        assert!(text.contains("bartizan_auth_attempts_total{outcome=\"failed\"} 1"), "{text}");
        assert!(text.contains("http_server_request_duration_seconds_count{http_request_method=\"_OTHER\""), "{text}");
        assert!(text.contains("bartizan_build_info{version=\"1.2.3\"} 1"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    fn table() -> Table {
        crate::engine::table().unwrap()
    }
}
