//! Which limits apply to whom, asked of the hot state.
//!
//! Parameters travel with each question, the state keeps only moments; so a change of tier or of the configuration acts
//! on the next request and resets nothing.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bartizan_core::limit::{InvalidQuota, Key, KeyMaker, Quota, Verdict, fields};
use bartizan_core::net::Prefix;
use bartizan_core::principal::{Principal, Tier};
use bartizan_core::time::Millis;
use bartizan_store::login_failures::FailureRow;
use bartizan_store::state::Ask;
use http::{HeaderMap, HeaderValue};

use crate::ground::{Ground, count};
use crate::settings::{self, Rate};

/// The limits. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Limits {
    ground: Ground,
    /// For names an attacker chooses, such as e-mail addresses.
    keys: Arc<KeyMaker>,
    policies: Arc<ArcSwap<Policies>>,
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
    verdict: Verdict,
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
            device: quota(limits.login_account_network)?,
        })
    }

    fn tier(&self, tier: Tier) -> Option<&TierPolicy> {
        self.tiers.iter().find(|policy| policy.tier == tier)
    }
}

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
    pub(crate) fn new(ground: Ground, keys: KeyMaker) -> Result<Self, InvalidQuota> {
        let policies = Policies::new(&ground.settings.load().limits)?;
        Ok(Self { ground, keys: Arc::new(keys), policies: Arc::new(ArcSwap::from_pointee(policies)) })
    }

    /// Takes over changed settings; what was counted stays counted.
    pub(crate) fn reload(&self, limits: &settings::Limits) -> Result<(), InvalidQuota> {
        self.policies.store(Arc::new(Policies::new(limits)?));
        Ok(())
    }

    /// Charges one request to its address.
    pub(crate) fn charge_address(&self, ip: IpAddr, now: Millis) -> Ruling {
        let policies = self.policies.load();
        let mut asks = Vec::with_capacity(4);
        asks.push(Ask::new(address_key(Prefix::narrow(ip)), ADDRESS, policies.address));
        asks.extend(Prefix::wide(ip).map(|wide| Ask::new(address_key(wide), NETWORK, policies.network)));
        let verdict = self.ground.state.take(&mut asks, 1, now);
        self.counted(verdict);
        Ruling { asks, verdict }
    }

    /// Charges one request to its user and his tenant: both or neither. `before` is what the address said.
    pub(crate) fn charge_principal(&self, who: &Principal, before: Ruling, now: Millis) -> Ruling {
        let policies = self.policies.load();
        let Some(policy) = policies.tier(who.tier) else { return before };
        let mut asks = [
            Ask::new(Key(who.user.as_u128()), USER, policy.user),
            Ask::new(Key(who.tenant.as_u128()), TENANT, policy.tenant),
        ];
        let verdict = self.ground.state.take(&mut asks, 1, now);
        self.counted(verdict);
        let Ruling { asks: mut all, .. } = before;
        all.extend(asks);
        Ruling { asks: all, verdict }
    }

    /// Whether the key is banned, and until when.
    pub(crate) fn banned(&self, key: Key, now: Millis) -> Option<Millis> {
        self.ground.state.banned(key, now)
    }

    /// Notes a refusal; many of them lead to a ban.
    pub(crate) fn refused(&self, key: Key, now: Millis) {
        if self.ground.state.denied(key, now).is_some() {
            count(&self.ground.metrics.limit_decisions, "decision", "ban_began");
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
    pub(crate) fn charge_login(&self, attempt: &Attempt<'_>) -> Result<Charge, bartizan_core::error::Refusal> {
        let policies = self.policies.load();
        let [account_network, account, network, tenant] = policies.login;
        let (slug, name) = (attempt.tenant.as_bytes(), attempt.account.as_bytes());
        let mut asks = Vec::with_capacity(4);
        if let Some(device) = &attempt.device {
            asks.push(Ask::new(self.keys.key(&[b"login.device", slug, name, device]), "login-device", policies.device));
        } else {
            if let Some(ip) = attempt.ip {
                let prefix = Prefix::narrow(ip).to_bytes();
                asks.push(Ask::new(self.keys.key(&[b"login.here", slug, name, &prefix]), "login-here", account_network));
                asks.push(Ask::new(self.keys.key(&[b"login.network", &prefix]), "login-network", network));
            }
            asks.push(Ask::new(self.keys.key(&[b"login.account", slug, name]), "login-account", account));
            asks.push(Ask::new(self.keys.key(&[b"login.tenant", slug]), "login-tenant", tenant));
        }
        let verdict = self.ground.state.take(&mut asks, 1, self.ground.now());
        self.counted(verdict);
        let ruling = Ruling { asks, verdict };
        match ruling.refusal() {
            Some(refusal) => Err(refusal),
            None => Ok(Charge(ruling.asks)),
        }
    }

    /// Gives a login's charge back: it was no failure.
    pub(crate) fn refund_login(&self, charge: &Charge) {
        self.ground.state.refund(&charge.0, 1, self.ground.now());
    }

    /// The counters of a failed login as they now stand, for the database.
    pub(crate) fn failures(&self, charge: &Charge) -> Vec<FailureRow> {
        let updated_at = self.ground.now();
        let row = |ask: &Ask| {
            let tat = self.ground.state.tat_of(ask.key)?;
            let tat = i64::from_ne_bytes(tat.to_bits().to_ne_bytes());
            Some(FailureRow { key: ask.key.0.to_be_bytes().to_vec(), tat, updated_at })
        };
        charge.0.iter().filter_map(row).collect()
    }

    fn counted(&self, verdict: Verdict) {
        let word = if verdict.admits() { "admitted" } else { "denied" };
        count(&self.ground.metrics.limit_decisions, "decision", word);
    }
}

impl Ruling {
    /// The refusal, when the verdict is no.
    pub(crate) fn refusal(&self) -> Option<bartizan_core::error::Refusal> {
        use bartizan_core::error::{Code, Refusal};
        let wait = match self.verdict {
            Verdict::Admit => return None,
            Verdict::Deny { retry_after } => Some(retry_after),
            Verdict::Never => None,
        };
        let mut refusal = Refusal::new(Code::QuotaExceeded);
        refusal.retry_after = wait;
        refusal.violated_policies = fields::violated(&self.asks);
        Some(refusal)
    }
}

/// The key of a network. An address has at most 64 telling bits; the upper half says which kind of prefix it is and can
/// be the upper half of no UUID of version 7, so networks, users and tenants never meet.
pub(crate) fn address_key(prefix: Prefix) -> Key {
    let bytes = prefix.to_bytes();
    let (length, address) = bytes.split_first().map_or((0, &[][..]), |(first, rest)| (*first, rest));
    let telling = address.iter().take(8).fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
    Key((u128::from(length) + 1) << 64 | u128::from(telling))
}
