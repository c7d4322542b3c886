//! From where: the client's address, the network it counts as, and the networks that are kept out.
//!
//! An address is something the other side writes. What may be believed of it is decided here, once: forwarding headers
//! only from configured proxies ([`Proxies`]), one spelling per address ([`canonical`]), and IPv6 hosts by the network
//! their owner was given rather than by the address he picked from it ([`Prefix`]).

mod block;
mod client;
mod prefix;

pub use block::BlockList;
pub use client::{MOST_HOPS, Proxies};
pub use prefix::{Prefix, canonical};
