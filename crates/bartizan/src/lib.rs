//! Bartizan: the security layer that a multi-tenant SaaS runs behind or inside.
//!
//! [`Engine`](engine::Engine) holds the services; [`Api`](api::Api) is the only way to add a route; `guard` is the one
//! place where a request becomes a [`Permit`](guard::Permit). Nothing here is global: an application may hold two engines.

pub mod answer;
pub mod api;
pub mod guard;
pub mod hashing;
pub mod settings;
pub mod vault;
