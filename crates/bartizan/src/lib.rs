//! Bartizan: the security layer that a multi-tenant SaaS runs behind or inside.
//!
//! [`Engine`](engine::Engine) holds the services; [`Api`](api::Api) is the only way to add a route; `guard` is the one
//! place where a request becomes a [`Permit`](guard::Permit). Nothing here is global: an application may hold two engines.

mod accounts;
pub mod answer;
pub mod api;
pub mod application;
pub mod carrying;
pub mod clock;
mod embed;
pub mod engine;
mod entropy;
mod failure;
mod following;
mod front;
mod ground;
pub mod guard;
pub mod hashing;
pub mod journal;
mod limits;
pub mod metrics;
pub mod noted_time;
pub mod operator;
mod ops;
mod paging;
mod refusals;
mod routes;
mod sessions;
pub mod settings;
mod signing;
mod successor;
mod tenants;
mod trail;
mod upkeep;
mod users;
pub mod vault;

pub use front::{Peer, Visitor};
