//! What browsers are told, and what is believed of what they say. Decisions only; the layers carry them out.
//!
//! 1. [`SecurityHeaders`]: the headers of every answer, chosen by its kind, errors included.
//! 2. [`cross_site`]: whether a state-changing request came from somebody else's page.
//! 3. [`CorsPolicy`]: which other origins may read answers; a list that would be dangerous does not start.
//!
//! Deployment caveats: HSTS is sent only when told that browsers arrive over TLS, so a proxy that ends TLS must be
//! declared. A proxy that rewrites `Host` makes [`cross_site`] refuse browsers without Fetch Metadata unless the
//! public origin is configured. A proxy must not strip `Sec-Fetch-Site`, `Origin` or `Vary`.

mod cors;
mod cross_site;
mod headers;
mod origin;
mod removal;

pub use cors::{CorsPolicy, Credentials};
pub use cross_site::{Carried, Provenance, cross_site};
pub use headers::{Cache, ResponseClass, SecurityHeaders, Transport};
pub use origin::Origin;
pub use removal::{REMOVED, is_removed};
