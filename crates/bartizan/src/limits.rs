//! Which limits apply to whom, asked of the hot state.
//!
//! Parameters travel with each question, the state keeps only moments; so a change of tier or of the configuration acts
//! on the next request and resets nothing.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bartizan_core::error::{Code, Refusal};
use bartizan_core::limit::{self, InvalidQuota, Key, Quota, Tat, Verdict, fields};
use bartizan_core::net::Prefix;
use bartizan_core::principal::{Principal, Tier};
use bartizan_core::time::Millis;
use bartizan_store::login_failures::FailureRow;
use bartizan_store::shared::{Away, Decided, Group, Sequence, SharedState, Want};
use bartizan_store::state::{Admission, Ask, BanPolicy};
use http::{HeaderMap, HeaderValue};

use crate::ground::Ground;
use crate::settings::{self, Rate};

/// The limits. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    ground: Ground,
    policies: Arc<ArcSwap<Policies>>,
    carried: Arc<Carried>,
}

/// Into which tier this node last carried a user's or tenant's use; the youngest of them, so that memory is bounded.
#[derive(Debug, Default)]
struct Carried(Mutex<(HashMap<u128, Tier>, VecDeque<u128>)>);

impl Carried {
    const MOST: usize = 4096;

    /// Whether the use of `id` is still to be carried into `tier`. Asked once, it is no more until the tier has been
    /// another one.
    fn due(&self, id: u128, tier: Tier) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (tiers, order) = &mut *known;
        match tiers.insert(id, tier) {
            Some(before) => before != tier,
            None => {
                order.push_back(id);
                if order.len() > Self::MOST
                    && let Some(oldest) = order.pop_front()
                {
                    tiers.remove(&oldest);
                }
                true
            }
        }
    }
}

/// How much of `quota` is used by a counter that stands at `tat`.
fn used(tat: Option<Tat>, quota: &Quota, now: Millis) -> u32 {
    quota.burst().saturating_sub(limit::take(tat, quota, 0, now).1.remaining)
}

/// The configured limits, checked once.
#[derive(Debug)]
pub(crate) struct Policies {
    address: Quota,
    network: Quota,
    tiers: Vec<TierPolicy>,
    /// `RateLimit-Policy` before authentication: of an IPv4 and of an IPv6 client.
    public: [Option<HeaderValue>; 2],
    login: [Quota; 4],
    /// Failed logins and sign-ups of a wider IPv6 network.
    login_wide: Quota,
    device: Quota,
}

#[derive(Debug)]
struct TierPolicy {
    tier: Tier,
    user: Quota,
    tenant: Quota,
    /// `RateLimit-Policy` for this tier: of an IPv4 and of an IPv6 client.
    header: [Option<HeaderValue>; 2],
}

/// What the limits said about a request.
pub(crate) struct Ruling {
    /// Every limit that was asked, with its answer.
    asks: Vec<Ask>,
    admission: Admission,
    now: Millis,
}

/// A login about to be tried. Tenant and account are what was typed, known or not.
pub(crate) struct Attempt<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) account: &'a str,
    pub(crate) ip: Option<IpAddr>,
    /// The digest of a device this user has logged in with before.
    pub(crate) device: Option<[u8; 32]>,
}

/// What a login was charged, to be given back when it succeeds.
pub(crate) struct Charge(Vec<Ask>);

impl Policies {
    /// Checks the configured limits.
    pub(crate) fn new(limits: &settings::Limits) -> Result<Self, InvalidQuota> {
        let (address, network) = (quota(limits.address)?, quota(limits.network)?);
        let tiers = Tier::ALL
            .iter()
            .filter_map(|tier| limits.tiers.get(tier).map(|limits| (*tier, limits)))
            .map(|(tier, limits)| {
                let (user, tenant) = (quota(limits.user)?, quota(limits.tenant)?);
                let header = [false, true].map(|wide| {
                    let mut asks = address_asks(wide.then_some(network), address);
                    asks.extend([Ask::new(Key(1), USER, user), Ask::new(Key(1), TENANT, tenant)]);
                    fields::policy(&asks)
                });
                Ok(TierPolicy { tier, user, tenant, header })
            })
            .collect::<Result<Vec<_>, InvalidQuota>>()?;
        Ok(Self {
            address,
            network,
            tiers,
            public: [false, true].map(|wide| fields::policy(&address_asks(wide.then_some(network), address))),
            login: [
                quota(limits.login_account_network)?,
                quota(limits.login_account)?,
                quota(limits.login_network)?,
                quota(limits.login_tenant)?,
            ],
            login_wide: quota(Rate {
                count: limits.login_network.count.saturating_mul(WIDER),
                burst: limits.login_network.burst.saturating_mul(WIDER),
                ..limits.login_network
            })?,
            device: quota(limits.login_account_network)?,
        })
    }

    /// The limits of an address, and the key that its refusals count against.
    fn of_address(&self, ip: IpAddr) -> (Key, Vec<Ask>) {
        let narrow = Key(Prefix::narrow(ip).key());
        let mut asks = Vec::with_capacity(4);
        asks.push(Ask::new(narrow, ADDRESS, self.address));
        asks.extend(Prefix::wide(ip).map(|wide| Ask::new(Key(wide.key()), NETWORK, self.network)));
        (narrow, asks)
    }

    fn tier(&self, tier: Tier) -> Option<&TierPolicy> {
        self.tiers.iter().find(|policy| policy.tier == tier)
    }
}

/// How many times a network's failed logins an IPv6 /48 may have: whoever holds one has 65,536 networks.
const WIDER: u32 = 10;

/// The names of the policies, as clients see them.
const ADDRESS: &str = "address";
const NETWORK: &str = "network";
const USER: &str = "user";
const TENANT: &str = "tenant";

fn address_asks(network: Option<Quota>, address: Quota) -> Vec<Ask> {
    let mut asks = Vec::with_capacity(4);
    asks.push(Ask::new(Key(1), ADDRESS, address));
    asks.extend(network.map(|network| Ask::new(Key(1), NETWORK, network)));
    asks
}

fn quota(rate: Rate) -> Result<Quota, InvalidQuota> {
    Quota::new(rate.count, rate.period, rate.burst)
}

impl Limits {
    pub(crate) fn new(ground: Ground) -> Result<Self, InvalidQuota> {
        let policies = Policies::new(&ground.settings.load().limits)?;
        Ok(Self { ground, policies: Arc::new(ArcSwap::from_pointee(policies)), carried: Arc::default() })
    }

    /// Takes over changed settings; what was counted stays counted.
    pub(crate) fn reload(&self, limits: &settings::Limits) -> Result<(), InvalidQuota> {
        let (policies, bans) = (Policies::new(limits)?, BanPolicy::new(limits.ban_after, limits.ban_for)?);
        self.policies.store(Arc::new(policies));
        self.ground.state.rule_bans(bans);
        if let Some(shared) = &self.ground.shared {
            shared.rule_bans(bans);
        }
        Ok(())
    }

    /// Charges one request to its address, unless that is banned.
    pub(crate) fn charge_address(&self, ip: IpAddr, now: Millis) -> Ruling {
        let (narrow, mut asks) = self.policies.load().of_address(ip);
        let admission = self.ground.state.admit(narrow, &mut asks, 1, now);
        self.counted(admission);
        Ruling { asks, admission, now }
    }

    /// Charges one request to its user and his tenant, both or neither, unless the user is banned. `address` is what was
    /// said before.
    pub(crate) fn charge_principal(&self, who: &Principal, address: Ruling, now: Millis) -> Ruling {
        let policies = self.policies.load();
        let Some(policy) = policies.tier(who.tier) else { return address };
        let user = tier_key(who.user.as_u128(), who.tier);
        let tenant = tier_key(who.tenant.as_u128(), who.tier);
        if self.ground.state.tier_override(who.tenant).is_some() {
            self.carry_over(who, &policies, now);
        }
        let mut asks = [Ask::new(user, USER, policy.user), Ask::new(tenant, TENANT, policy.tenant)];
        let admission = self.ground.state.admit(user, &mut asks, 1, now);
        self.counted(admission);
        let Ruling { asks: mut all, .. } = address;
        all.extend(asks);
        Ruling { asks: all, admission, now }
    }

    /// After a change of tier, charges the new tier's counters with what was used under the old one: in units, not in
    /// time, so that a raise gives room at once and a lowering forgives nothing. What the new tier's counter has already is
    /// not charged again. Each node does it once a change.
    fn carry_over(&self, who: &Principal, policies: &Policies, now: Millis) {
        let state = &self.ground.state;
        let Some(new) = policies.tier(who.tier) else { return };
        for (id, name, to) in [(who.user.as_u128(), USER, new.user), (who.tenant.as_u128(), TENANT, new.tenant)] {
            if !self.carried.due(id, who.tier) {
                continue;
            }
            let key = tier_key(id, who.tier);
            let before = policies.tiers.iter().filter(|old| old.tier != who.tier).map(|old| {
                let from = if name == USER { old.user } else { old.tenant };
                used(state.tat_of(tier_key(id, old.tier)), &from, now)
            });
            let missing = before.max().unwrap_or(0).min(to.burst()).saturating_sub(used(state.tat_of(key), &to, now));
            if missing > 0 {
                state.take(&mut [Ask::new(key, name, to)], missing, now);
            }
        }
    }

    /// Charges one request to its address and, when he is known, to its user and his tenant: all or none, in one round
    /// trip to the shared state at most. With `Want::DecisionAndSequence` also asks how far revocations are.
    ///
    /// # Errors
    /// 503 when the shared state is away and the configuration says that nothing is admitted then.
    pub(crate) async fn charge_shared(
        &self,
        shared: &SharedState,
        ip: IpAddr,
        who: Option<&Principal>,
        want: Want,
        now: Millis,
    ) -> Result<(Ruling, Option<Sequence>), Refusal> {
        let policies = self.policies.load_full();
        let (narrow, mut asks) = policies.of_address(ip);
        let known = who.and_then(|who| Some((who, policies.tier(who.tier)?)));
        let mut user = None;
        if let Some((who, policy)) = known {
            let key = tier_key(who.user.as_u128(), who.tier);
            user = Some(key);
            asks.push(Ask::new(key, USER, policy.user));
            asks.push(Ask::new(tier_key(who.tenant.as_u128(), who.tier), TENANT, policy.tenant));
            if self.ground.state.tier_override(who.tenant).is_some() {
                Box::pin(self.carry_over_shared(shared, who, &policies, now)).await;
            }
        }
        let began = Instant::now();
        let split = asks.len().saturating_sub(if user.is_some() { 2 } else { 0 });
        let (address_asks, user_asks) = asks.split_at_mut(split);
        let address = Group { who: narrow, asks: address_asks };
        let ruled = match user {
            Some(user) => {
                let mut groups = [address, Group { who: user, asks: user_asks }];
                shared.admit(&mut groups, 1, want, now, began).await
            }
            None => shared.admit(&mut [address], 1, want, now, began).await,
        }
        .map_err(away)?;
        if ruled.decided == Decided::Store {
            self.ground.metrics.state_round_trip.observe(began.elapsed().as_secs_f64());
        }
        self.counted(ruled.admission);
        Ok((Ruling { asks, admission: ruled.admission, now }, ruled.sequence))
    }

    /// As [`Limits::carry_over`]. Two nodes that do it at once charge twice: too strict for one period, never too lax.
    async fn carry_over_shared(&self, shared: &SharedState, who: &Principal, policies: &Policies, now: Millis) {
        let Some(new) = policies.tier(who.tier) else { return };
        for (id, name, to) in [(who.user.as_u128(), USER, new.user), (who.tenant.as_u128(), TENANT, new.tenant)] {
            let key = tier_key(id, who.tier);
            if !self.carried.due(id, who.tier) {
                continue;
            }
            let mut before = 0;
            for old in policies.tiers.iter().filter(|old| old.tier != who.tier) {
                let from = if name == USER { old.user } else { old.tenant };
                before = before.max(used(shared.peek(tier_key(id, old.tier)).await, &from, now));
            }
            let missing = before.min(to.burst()).saturating_sub(used(shared.peek(key).await, &to, now));
            if missing > 0 {
                // Charged or not, the request itself is decided next.
                let _ = shared.take(&mut [Ask::new(key, name, to)], missing, now, Instant::now()).await;
            }
        }
    }

    /// Notes that an address tried something no honest client does; many of these lead to a ban.
    pub(crate) async fn suspect(&self, ip: IpAddr, now: Millis) {
        let who = Key(Prefix::narrow(ip).key());
        let began = match &self.ground.shared {
            Some(shared) => shared.count_refusal(who, now, Instant::now()).await,
            None => self.ground.state.count_refusal(who, now),
        };
        if began.is_some() {
            self.ground.metrics.limit_decisions.ban_began.inc();
        }
    }

    /// Writes `RateLimit-Policy` and `RateLimit`: the same fields on success and on refusal.
    pub(crate) fn describe(&self, ruling: &Ruling, tier: Option<Tier>, headers: &mut HeaderMap) {
        let policies = self.policies.load();
        let wide = usize::from(ruling.asks.iter().any(|ask| ask.limit.name == NETWORK));
        let known = match tier.and_then(|tier| policies.tier(tier)) {
            Some(policy) => policy.header.get(wide),
            None => policies.public.get(wide),
        };
        if let Some(Some(value)) = known {
            headers.insert(fields::POLICY, value.clone());
        }
        if let Some(value) = fields::state(&ruling.asks) {
            headers.insert(fields::STATE, value);
        }
    }

    /// Charges a login before its password is hashed: (account, network), account, network, tenant, all or none. A known
    /// device has a bucket of its own instead of the account's and the network's, so that nobody's failures elsewhere
    /// keep its owner out.
    ///
    /// # Errors
    /// `limit.quota_exceeded` with the wait; the same for an account that does not exist.
    pub(crate) async fn charge_login(&self, attempt: &Attempt<'_>) -> Result<Charge, Refusal> {
        let policies = self.policies.load();
        let [account_network, account, network, tenant] = policies.login;
        let keys = self.ground.state.keys();
        let (slug, name) = (attempt.tenant.as_bytes(), attempt.account.as_bytes());
        let mut asks = Vec::with_capacity(4);
        if let Some(device) = &attempt.device {
            asks.push(Ask::new(keys.key(&[b"login.device", slug, name, device]), "login-device", policies.device));
        } else {
            if let Some(ip) = attempt.ip {
                let prefix = Prefix::narrow(ip).to_bytes();
                asks.push(Ask::new(keys.key(&[b"login.here", slug, name, &prefix]), "login-here", account_network));
                asks.extend(self.network_asks(ip, b"login.network", "login-network", network, policies.login_wide));
            }
            asks.push(Ask::new(keys.key(&[b"login.account", slug, name]), "login-account", account));
            asks.push(Ask::new(keys.key(&[b"login.tenant", slug]), "login-tenant", tenant));
        }
        self.charge(asks).await
    }

    /// Charges a sign-up to the network it comes from, before its password is hashed: as many as it may fail to log in. It
    /// is never given back: each one costs a hash, for which logins wait, and a tenant that stays.
    ///
    /// # Errors
    /// `limit.quota_exceeded` with the wait.
    pub(crate) async fn charge_sign_up(&self, ip: Option<IpAddr>) -> Result<(), Refusal> {
        let Some(ip) = ip else { return Ok(()) };
        let policies = self.policies.load();
        let [_, _, network, _] = policies.login;
        let asks = self.network_asks(ip, b"signup.network", "signup-network", network, policies.login_wide);
        self.charge(asks).await.map(drop)
    }

    /// Takes one from each, or from none.
    async fn charge(&self, mut asks: Vec<Ask>) -> Result<Charge, Refusal> {
        let now = self.ground.now();
        let verdict = match &self.ground.shared {
            Some(shared) => shared.take(&mut asks, 1, now, Instant::now()).await.map_err(away)?,
            None => self.ground.state.take(&mut asks, 1, now),
        };
        let admission = match verdict {
            Verdict::Admit => return Ok(Charge(asks)),
            Verdict::Deny { retry_after } => Admission::Limited { retry_after },
            Verdict::Never => Admission::Impossible,
        };
        self.counted(admission);
        Err(Ruling { asks, admission, now }.refusal().unwrap_or_else(|| Code::QuotaExceeded.into()))
    }

    /// The limits of the network of `ip` and, for IPv6, of the wider one around it.
    fn network_asks(&self, ip: IpAddr, what: &[u8], name: &'static str, narrow: Quota, wide: Quota) -> Vec<Ask> {
        let keys = self.ground.state.keys();
        let ask = |prefix: Prefix, quota| Ask::new(keys.key(&[what, &prefix.to_bytes()]), name, quota);
        let narrow = ask(Prefix::narrow(ip), narrow);
        std::iter::once(narrow).chain(Prefix::wide(ip).map(|prefix| ask(prefix, wide))).collect()
    }

    /// Gives a login's charge back: it was no failure.
    pub(crate) async fn refund_login(&self, charge: &Charge) {
        let now = self.ground.now();
        match &self.ground.shared {
            Some(shared) => shared.refund(&charge.0, 1, now, Instant::now()).await,
            None => self.ground.state.refund(&charge.0, 1, now),
        }
    }

    /// The counters of a failed login as they now stand, for the database. None where the shared state keeps them.
    pub(crate) fn failures(&self, charge: &Charge) -> Vec<FailureRow> {
        if self.ground.shared.is_some() {
            return Vec::new();
        }
        let updated_at = self.ground.now();
        let row = |ask: &Ask| Some(FailureRow::new(ask.key, self.ground.state.tat_of(ask.key)?, updated_at));
        charge.0.iter().filter_map(row).collect()
    }

    fn counted(&self, admission: Admission) {
        let decisions = &self.ground.metrics.limit_decisions;
        let counter = match admission {
            Admission::Admitted => &decisions.admitted,
            Admission::Limited { .. } | Admission::Impossible => &decisions.denied,
            Admission::Banned { .. } => &decisions.banned,
            Admission::BanBegan { .. } => &decisions.ban_began,
        };
        counter.inc();
    }
}

/// The answer while the shared state is away and nothing may be admitted without it.
fn away(away: Away) -> Refusal {
    Refusal::new(Code::StorageUnavailable).retry_after(away.retry_after)
}

impl Ruling {
    /// Whether the first limit that said no is one of the address.
    pub(crate) fn concerns_address(&self) -> bool {
        let first = self.asks.iter().find(|ask| ask.limit.violated());
        first.is_none_or(|ask| ask.limit.name == ADDRESS || ask.limit.name == NETWORK)
    }

    /// The refusal, when the answer is no.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        let limited = |wait: Option<Duration>| {
            let mut refusal = Refusal::new(Code::QuotaExceeded);
            refusal.retry_after = wait;
            refusal.violated_policies = fields::violated(&self.asks);
            refusal
        };
        match self.admission {
            Admission::Admitted => None,
            Admission::Limited { retry_after } => Some(limited(Some(retry_after))),
            Admission::Impossible => Some(limited(None)),
            Admission::Banned { until } | Admission::BanBegan { until } => {
                Some(Refusal::new(Code::AbnormalUsage).retry_after(until.since(self.now)))
            }
        }
    }
}

/// The counter of a user or tenant in a tier. Ids are UUIDs of version 7, whose two variant bits are always `10`: flipping
/// these two by the tier gives each tier its own key, and two ids differ elsewhere.
fn tier_key(id: u128, tier: Tier) -> Key {
    let mark = match tier {
        Tier::Free => 0,
        Tier::Pro => 1,
        Tier::Enterprise => 2,
    };
    Key(id ^ (mark << 62))
}
