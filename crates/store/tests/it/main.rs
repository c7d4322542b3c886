//! The store seen from outside.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests; clippy's exception for them does not reach functions that tests share"
)]

mod borders;
mod carrying;
mod changes;
mod crash;
mod link;
mod link_cluster;
mod link_sentinel;
mod lives;
mod loading;
mod many;
mod moving;
mod nouns;
mod opening;
mod opening_postgres;
mod outage;
mod resharding;
mod rules;
mod shared;
mod shared_outage;
mod together;
mod world;
