//! What a stranger can see of the whole program, one file a noun. Each test starts the real binary in a directory of
//! its own and knows nothing of its inside: these are the acceptance tests of the HTTP contract.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests: to panic with a clear message is their purpose"
)]

mod accounts;
mod admissions;
mod audit;
mod browser;
mod dev;
mod doctor;
mod faults;
mod findings;
mod fleet;
mod fleet_clocks;
mod fleet_failover;
mod fleet_history;
mod fleet_http2;
mod fleet_limits;
mod fleet_once;
mod fleet_outages;
mod fleet_reshard;
mod fleet_restarts;
mod headers;
mod idempotency;
mod input;
mod limits;
mod migration;
mod mistakes;
mod operator;
mod ops;
mod scanners;
mod secrets;
mod sessions;
mod table;
mod tokens;

use bartizan_testkit::{FleetPlan, Launch, Server};

/// A server about to be started.
fn launch() -> Launch {
    Launch::new(env!("CARGO_BIN_EXE_bartizan"))
}

/// A running server whose limits are out of the way.
async fn server() -> Server {
    launch().start().await
}

/// Several nodes about to be started. They are patient with Redis: on a busy machine a time-out of 50 ms is an outage, in
/// which other promises hold than those that most tests are about.
fn fleet() -> FleetPlan {
    impatient_fleet().set("STATE__TIMEOUT", "2s")
}

/// The same with the time-out that the program has by default.
fn impatient_fleet() -> FleetPlan {
    let mut plan = FleetPlan::new(launch());
    // Tests ask as fast as the machine can: only what a test is about may say no.
    for table in ["ADDRESS", "TIERS__FREE"] {
        plan = plan.set(&format!("LIMITS__{table}__PER_MINUTE"), "10000000");
        plan = plan.set(&format!("LIMITS__{table}__BURST"), "10000000");
    }
    plan.set("LIMITS__TIERS__FREE__TENANT_PER_MINUTE", "10000000").set("LIMITS__TIERS__FREE__TENANT_BURST", "10000000")
}

/// The root of the repository.
fn repository() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
