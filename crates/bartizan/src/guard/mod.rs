//! The guard: where a request becomes a principal, and a principal a permit. Nothing else reads a credential.

mod credential;
mod permit;
mod verified;

pub use permit::{Admission, Grant, Permit};
