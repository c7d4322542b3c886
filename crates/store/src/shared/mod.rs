//! Limits and bans of all nodes together, in Redis.
//!
//! The store keeps of each limit one moment, and decides in one script; the quota travels with each call. So there is one
//! counter however many nodes ask, and nothing to agree on between them.
//!
//! **What holds**, for any number of nodes (`tests/it/shared.rs` and `shared_outage.rs` name each):
//! 1. Over-admission is zero: in every interval of length L the admitted cost is at most `burst + L × rate`. The only clock
//!    is the store's; a node's clock decides nothing.
//! 2. A request is one round trip: bans, all limits of all groups, and the revocation sequence; those that come together
//!    share it. It is none for whoever is known to be refused, and none while leases pay for all of its limits.
//! 3. A refusal charges nothing.
//!
//! **Leases** (`lease.rs` says why they are safe): a key above 200 requests a second on a node is paid
//! for in advance. At most `burst / (4 × live nodes)` a node, used within a second, given back when idle and on
//! [`SharedState::shutdown`]. A node that is killed takes its leases along: up to `nodes × lease` units are under-admitted,
//! until the buckets have drained. While a lease pays, bans given on another node are heard of within a second. Only
//! [`SharedState::admit`] uses leases, since what [`SharedState::take`] took may be given back: a key is for one of the two.
//!
//! **When the store is away** ([`Policy`]): with [`Policy::Local`] each node counts by itself at `limit / live nodes`, from
//! the bucket as it last saw it, so that all nodes together stay within the limit. What was admitted so is charged to the
//! store when it is back, before this node's next decision about the key. Three exceptions, each bounded by one share of
//! a node: every node has at least one unit; a key that others used up and this node did not see has this node's share;
//! and a node that alone is cut off admits its share beside what the store admits to the others. A call without an answer
//! may have been charged: it is decided locally all the same, so less may be admitted, never more.
//!
//! **On a cluster** each key is asked where it lives, all at once; when one refuses, the others are given back what they
//! took. What drained meanwhile is not given back: less may be admitted, never more. While a slot is being moved, a bucket
//! and a ban record in it are asked for one by one, for they may not be in one place: one round trip more, and no outage.
//!
//! **After a failover** the new primary may lack the last writes: at most a burst for each key is admitted once more.
//!
//! **Upkeep by the caller:** [`SharedState::tend`] about once a second.

mod batch;
mod carrying;
mod deciding;
#[cfg(test)]
mod differential;
mod lease;
pub mod link;
#[cfg(test)]
mod models;
mod names;
mod node;
mod outage;
mod request;
mod scripts;
mod tending;

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bartizan_core::limit::{self, Key, KeyMaker, Quota, Tat, Verdict};
use bartizan_core::store_life::StoreLife;
use bartizan_core::time::Millis;
use futures_util::future::join_all;

use self::batch::Batches;
use self::lease::Lease;
use self::link::{Link, LinkState, Script, Unavailable};
use self::names::Names;
use self::node::{Ban, Believe, Denial, Node, Owed};
use self::request::{Leased, Part, Request};
use self::scripts::{Doubles, Said, Taken};
use crate::state::{Admission, Ask, BanPolicy, EmbeddedState};

pub use self::carrying::{Carried, CarryError, Load, carry};
pub use self::names::NoNames;
pub use self::outage::Policy;

/// How it is set up.
#[derive(Clone, Debug)]
pub struct SharedOptions {
    /// This node's name among the live ones; no other node's.
    pub node: String,
    /// How many nodes to reckon with at least, when the store is away before it could be asked.
    pub least_nodes: u32,
    /// Who decides while the store is away.
    pub on_store_error: Policy,
    /// Whether hot keys are paid for in advance.
    pub leases: bool,
    /// Most keys counted locally while the store is away; and an eighth of it, most keys about which something is
    /// remembered meanwhile. Bounds the memory: about 48 bytes each, and 400 for an eighth of them.
    pub max_keys: usize,
    /// When refusals turn into a ban.
    pub bans: BanPolicy,
    /// Before every key, so that others may use the same store. Braces are left out: they would say where a cluster keeps it.
    pub prefix: String,
}

impl SharedOptions {
    /// Sensible ones for a node.
    pub fn new(node: impl Into<String>, bans: BanPolicy) -> Self {
        Self {
            node: node.into(),
            least_nodes: 1,
            on_store_error: Policy::Local,
            leases: true,
            max_keys: 1_000_000,
            bans,
            prefix: "bz:".into(),
        }
    }
}

/// Whose request it is in one respect, such as his address or his account: whose refusals count together, and his limits.
#[derive(Debug)]
pub struct Group<'a> {
    /// Who is refused while banned, and charged the refusal when one of these limits is the first violated.
    pub who: Key,
    /// The limits. Afterwards each tells its decision.
    pub asks: &'a mut [Ask],
}

/// What a caller wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Whether it is admitted.
    Decision,
    /// That, and the revocation sequence as it is now: always a round trip, unless it is refused without one.
    DecisionAndSequence,
}

/// The revocation sequence as the store had it during a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Revocations up to this one were raised.
    pub number: u64,
    /// By whom it was said: a number of another life says nothing.
    pub life: StoreLife,
}

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// The store.
    Store,
    /// This node, by what the store said before: a refusal that still holds, or leases.
    Node,
    /// This node, because the store is away.
    Local,
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ruled {
    /// Yes or no. Moments in it are by the clock of `now`.
    pub admission: Admission,
    /// Of this very call, if it was wanted. None when nobody could be asked or the store knows none: read the truth then.
    pub sequence: Option<Sequence>,
    /// Who said it.
    pub decided: Decided,
}

/// The store is away, and [`Policy::Refuse`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store of limits is away")]
pub struct Away {
    /// When to try again.
    pub retry_after: Duration,
}

/// What metrics export; all since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedCounts {
    /// Calls to the store.
    pub round_trips: u64,
    /// Calls without an answer.
    pub failures: u64,
    /// Refused without asking.
    pub denials_cached: u64,
    /// Limits paid by leases.
    pub leased: u64,
    /// Units taken as leases.
    pub lease_units_granted: u64,
    /// Units given back.
    pub lease_units_returned: u64,
    /// Requests decided by this node alone, under [`Policy::Local`].
    pub decided_locally: u64,
    /// Requests admitted unasked, under [`Policy::Open`].
    pub admitted_open: u64,
    /// Requests refused because the store was away, under [`Policy::Refuse`].
    pub refused_away: u64,
    /// Milliseconds during which the store was away.
    pub away_millis: u64,
    /// Units charged to the store after it was back.
    pub replayed: u64,
    /// Units that could not be remembered until then.
    pub replay_lost: u64,
    /// Keys something is remembered of, now.
    pub keys_known: u64,
    /// Keys for which units wait to be charged to the store, now.
    pub keys_owed: u64,
}

#[derive(Default)]
struct Counters {
    round_trips: AtomicU64,
    failures: AtomicU64,
    denials_cached: AtomicU64,
    leased: AtomicU64,
    lease_units_granted: AtomicU64,
    lease_units_returned: AtomicU64,
    decided_locally: AtomicU64,
    admitted_open: AtomicU64,
    refused_away: AtomicU64,
    away_millis: AtomicU64,
    replayed: AtomicU64,
    replay_lost: AtomicU64,
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// No call was answered yet.
const UNKNOWN: i64 = i64::MIN;
/// A refund without a moment: nothing of it counts as drained.
const NEVER_DRAINED: u64 = 1 << 52;

/// Limits, bans and the revocation sequence in a shared store. Cheap to clone.
#[derive(Clone)]
pub struct SharedState(Arc<Inner>);

struct Inner {
    link: Link,
    names: Names,
    node: String,
    least_nodes: u32,
    policy: Policy,
    leases: bool,
    bans: RwLock<BanPolicy>,
    known: Node,
    /// Decides while the store is away, by the store's clock.
    local: EmbeddedState,
    start: Instant,
    /// The store's milliseconds less those since `start`.
    clock: AtomicI64,
    sequence: AtomicU64,
    /// Who waits for the next call.
    batches: Batches,
    /// Keys with units owed: a hint for the fast way.
    owing: AtomicUsize,
    live: AtomicU32,
    tended: Mutex<tending::Tended>,
    counters: Counters,
}

impl SharedState {
    /// Over a link. Asks nothing yet.
    ///
    /// # Errors
    /// When this process has no AES.
    pub fn new(link: Link, keys: KeyMaker, options: SharedOptions) -> Result<Self, NoNames> {
        Ok(Self(Arc::new(Inner {
            link,
            names: Names::new(&options.prefix, &keys)?,
            node: options.node,
            least_nodes: options.least_nodes.max(1),
            policy: options.on_store_error,
            leases: options.leases,
            bans: RwLock::new(options.bans),
            known: Node::new(options.max_keys / 8),
            local: EmbeddedState::new(options.max_keys, options.bans, keys),
            start: Instant::now(),
            clock: AtomicI64::new(UNKNOWN),
            sequence: AtomicU64::new(0),
            batches: Batches::default(),
            owing: AtomicUsize::new(0),
            live: AtomicU32::new(0),
            tended: Mutex::default(),
            counters: Counters::default(),
        })))
    }

    /// Makes the keys of limits and bans.
    pub fn keys(&self) -> &KeyMaker {
        self.0.local.keys()
    }

    /// Refuses whoever is banned; else takes `cost` from every limit of every group or from none. One round trip, or none
    /// (see the head of this module). `now` is only what moments in the answer are told by; `mono` is now too.
    ///
    /// # Errors
    /// [`Away`] under [`Policy::Refuse`].
    pub async fn admit(
        &self,
        groups: &mut [Group<'_>],
        cost: u32,
        want: Want,
        now: Millis,
        mono: Instant,
    ) -> Result<Ruled, Away> {
        let mut request = Request::new(cost, want, now, mono);
        for group in groups.iter() {
            request.add(Some(group.who), group.asks);
        }
        let ruled = self.0.rule(&mut request).await;
        request.write_back(groups.iter_mut().flat_map(|group| group.asks.iter_mut()));
        ruled
    }

    /// Takes `cost` from every limit or from none; always a round trip. For what may be given back by [`Self::refund`].
    ///
    /// # Errors
    /// [`Away`] under [`Policy::Refuse`].
    pub async fn take(&self, asks: &mut [Ask], cost: u32, now: Millis, mono: Instant) -> Result<Verdict, Away> {
        let mut request = Request::new(cost, Want::Decision, now, mono);
        request.add(None, asks);
        let ruled = self.0.rule(&mut request).await;
        request.write_back(asks.iter_mut());
        Ok(match ruled?.admission {
            Admission::Admitted => Verdict::Admit,
            Admission::Limited { retry_after } => Verdict::Deny { retry_after },
            // Without a group nobody is banned.
            Admission::Impossible | Admission::Banned { .. } | Admission::BanBegan { .. } => Verdict::Never,
        })
    }

    /// Gives back what [`Self::take`] took with these asks. When the store cannot be told, the charge stays.
    pub async fn refund(&self, asks: &[Ask], cost: u32, now: Millis, mono: Instant) {
        let inner = &*self.0;
        let mut back = Vec::with_capacity(asks.len());
        for ask in asks {
            let owed = inner.known.known(ask.key, |known| {
                known.denial = None;
                let owed = known.owed.as_mut().filter(|owed| owed.units >= u64::from(cost))?;
                owed.units -= u64::from(cost);
                Some(())
            });
            match owed.flatten() {
                Some(()) => {
                    let at = inner.store_time(mono, now);
                    let quota = outage::share(&ask.limit.quota, inner.live());
                    let local = Ask { counted: ask.counted, ..Ask::new(ask.key, ask.limit.name, quota) };
                    inner.local.refund(&[local], cost, at);
                }
                None => {
                    let ticks = u64::from(cost).saturating_mul(ask.limit.quota.ticks().unit);
                    back.push((ask.key, ask.limit.quota, ticks, NEVER_DRAINED));
                }
            }
        }
        inner.give_back(&back).await;
    }

    /// Counts a refusal that was not a limit's, such as a failed login; the end of the ban when it was one too many.
    pub async fn count_refusal(&self, who: Key, now: Millis, mono: Instant) -> Option<Millis> {
        self.0.refuse(who, 1, now, mono).await
    }

    /// Bans `who` for `length`, at most an hour; tells the end. Other nodes know at their next round trip.
    ///
    /// # Errors
    /// [`Away`] when the store could not be told: the ban then holds on this node only.
    pub async fn ban(&self, who: Key, length: Duration, now: Millis, mono: Instant) -> Result<Millis, Away> {
        let inner = &*self.0;
        inner.local.ban(who, length, inner.store_time(mono, now));
        let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX).min(1 << 40);
        let answer = inner.eval(&scripts::BAN, &[inner.names.ban(who)], &[millis.to_string().into_bytes()]).await;
        match answer.and_then(|answer| scripts::pair(&answer)) {
            Ok((store, until)) => {
                inner.hear_of_ban(who, Millis(until), mono);
                Ok(now + Millis(until).since(Millis(store)))
            }
            Err(_) => {
                let until = inner.store_time(mono, now) + length.min(BanPolicy::LONGEST);
                inner.hear_of_ban(who, until, mono);
                Err(Away { retry_after: outage::RETRY })
            }
        }
    }

    /// Ends the ban of `who` and forgets what led to it. Other nodes may refuse for ten seconds more.
    ///
    /// # Errors
    /// [`Away`] when the store could not be told: try again.
    pub async fn pardon(&self, who: Key) -> Result<(), Away> {
        let inner = &*self.0;
        inner.local.pardon(who);
        let no: &[Vec<u8>] = &[];
        let answer = inner.eval(&scripts::PARDON, &[inner.names.ban(who)], no).await;
        inner.known.known(who, |known| (known.ban, known.refusals) = (None, 0));
        answer.map(drop).map_err(|_| Away { retry_after: outage::RETRY })
    }

    /// Takes another ban policy from now on; bans in force stay.
    pub fn rule_bans(&self, policy: BanPolicy) {
        *self.0.bans.write().unwrap_or_else(PoisonError::into_inner) = policy;
        self.0.local.rule_bans(policy);
    }

    /// What a counter holds, by the store's clock; as this node last saw it when the store is away.
    pub async fn peek(&self, key: Key) -> Option<Tat> {
        let inner = &*self.0;
        let no: &[Vec<u8>] = &[];
        let answer = inner.eval(&scripts::PEEK, &[inner.names.bucket(key)], no).await;
        match answer.and_then(|answer| scripts::tat(&answer)) {
            Ok(tat) => tat,
            Err(_) => inner.known.known(key, |known| known.seen).flatten(),
        }
    }

    /// The highest revocation sequence this node has seen in the store. It may have risen since.
    pub fn sequence_seen(&self) -> u64 {
        self.0.sequence.load(Ordering::Acquire)
    }

    /// Raises the revocation sequence to at least `seq`, a number below 2^53: from then on every request that asks the store
    /// in this life of it knows. The number as it is now comes back.
    ///
    /// # Errors
    /// When the store did not confirm it: wait out the bound of replicated revocation instead.
    pub async fn raise_sequence(&self, seq: u64) -> Result<Sequence, Unavailable> {
        let inner = &*self.0;
        let answer = inner.eval(&scripts::RAISE, &[inner.names.sequence()], &[seq.to_string().into_bytes()]).await?;
        match scripts::sequence(&answer)? {
            Some(sequence) if sequence.number >= seq => {
                inner.sequence.fetch_max(sequence.number, Ordering::AcqRel);
                Ok(sequence)
            }
            _ => Err(Unavailable::Script("the sequence was not raised".into())),
        }
    }

    /// Nodes that live: the most seen of late, so that one that only paused is reckoned with.
    pub fn live_nodes(&self) -> u32 {
        self.0.live()
    }

    /// The link below.
    pub fn link(&self) -> &Link {
        &self.0.link
    }

    /// What metrics export.
    pub fn counts(&self) -> SharedCounts {
        let counters = &self.0.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SharedCounts {
            round_trips: read(&counters.round_trips),
            failures: read(&counters.failures),
            denials_cached: read(&counters.denials_cached),
            leased: read(&counters.leased),
            lease_units_granted: read(&counters.lease_units_granted),
            lease_units_returned: read(&counters.lease_units_returned),
            decided_locally: read(&counters.decided_locally),
            admitted_open: read(&counters.admitted_open),
            refused_away: read(&counters.refused_away),
            away_millis: read(&counters.away_millis),
            replayed: read(&counters.replayed),
            replay_lost: read(&counters.replay_lost),
            keys_known: self.0.known.len() as u64,
            keys_owed: self.0.owing.load(Ordering::Relaxed) as u64,
        }
    }
}

impl std::fmt::Debug for SharedState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedState")
            .field("node", &self.0.node)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}
