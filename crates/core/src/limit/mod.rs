//! How often: rate limits as arithmetic.
//!
//! The rule is GCRA, the leaky bucket as a meter: of each limit only one moment is kept, the [`Tat`] (theoretical
//! arrival time: when the bucket will be empty again). The [`Quota`] travels with each call, so a change of tier acts
//! on the next request without touching what is stored, and a refused call costs nothing.
//!
//! What holds, for every clock and every schedule (the tests below name each):
//! 1. In every interval of length L the admitted cost is at most `burst + L × count / period`, with no error term:
//!    whole numbers throughout, the fraction of a millisecond is kept exactly.
//! 2. Several limits are charged together or not at all ([`take_all`]).
//! 3. Waiting exactly `retry_after` is admitted, one millisecond less is not (while nobody else takes).
//! 4. A clock set back locks nobody out for longer than a whole burst takes to drain.
//!
//! Nothing here keeps state: the hot state does (`bartizan-store`).

pub mod fields;
mod gcra;
mod key;
#[cfg(test)]
mod model;
mod quota;

pub use gcra::{Decision, Limit, Tat, Verdict, refund, take, take_all};
pub use key::{Key, KeyMaker, KeyedDigest};
pub use quota::{InvalidQuota, Quota, Ticks};
