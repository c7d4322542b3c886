//! The guard: where a request becomes a principal, and a principal a permit. Nothing else reads a credential.

mod authenticate;
mod credential;
mod decide;
mod gate;
mod permit;
mod verified;

pub use authenticate::Authenticator;
pub use credential::DEVICE_COOKIE;
pub(crate) use decide::Decider;
pub use decide::{Check, Reason, RequestFacts, Verdict};
pub use gate::Guard;
pub use permit::{Admission, Grant, Permit};
pub(crate) use permit::{Client, Idempotency};
