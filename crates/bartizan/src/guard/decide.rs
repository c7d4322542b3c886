//! The one decision. Every door brings its facts here and carries the verdict out; there is no second way in.
//!
//! | # | check | who says no | stands here because |
//! |---|---|---|---|
//! | 1 | block list | an operator | it is the cheapest, and its targets shall cost nothing |
//! | 2 | address limits | ban, rate of the address or its network | what follows can cost a signature check |
//! | 3 | form of the credential | two headers, another scheme | nothing may be decided on a header two programs read differently |
//! | 4 | origin | a cookie-borne change from another site | it concerns public routes too: the last check of those |
//! | 5 | credential | missing, forged, expired, revoked | from here on there is a name |
//! | 6 | principal limits | rate of the user or his tenant, by tier | charged to a proven name only, so nobody spends another's |
//! | 7 | permission | the role | last, so that only known principals learn which routes they may not use |

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use bartizan_core::audit::EventKind;
use bartizan_core::browser::{Carried, Origin, Provenance, Transport, cross_site};
use bartizan_core::error::{Code, Refusal};
use bartizan_core::id::RequestId;
use bartizan_core::net::BlockList;
use bartizan_core::principal::{Principal, Role};
use bartizan_core::time::Millis;
use bartizan_store::shared::{SharedState, Want};
use http::{HeaderMap, Method, Uri, header};

use super::authenticate::{Authenticator, Recalled};
use super::credential::Credential;
use crate::api::{Access, Csrf, Row};
use crate::following::Following;
use crate::ground::{Ground, count};
use crate::limits::{Limits, Ruling};
use crate::metrics::Metrics;

/// What is known about a request before anything is believed.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    /// The request.
    pub id: RequestId,
    /// The client's address, as established through the configured proxies.
    pub ip: Option<IpAddr>,
    /// The method.
    pub method: &'a Method,
    /// The address asked for.
    pub uri: &'a Uri,
    /// The headers, as received.
    pub headers: &'a HeaderMap,
}

/// The decision, with the headers the answer must carry either way.
#[derive(Debug)]
pub enum Verdict {
    /// Let it through.
    Allow {
        /// Who asks; `None` on a public route.
        principal: Option<Principal>,
        /// `RateLimit` and its kind.
        headers: HeaderMap,
    },
    /// Do not.
    Deny {
        /// Which check failed; those before it passed.
        reason: Reason,
        /// What is said to the caller.
        refusal: Refusal,
        /// `RateLimit` and its kind.
        headers: HeaderMap,
        /// What is written into the audit trail, and who was recognised.
        record: Option<Box<(Principal, EventKind)>>,
    },
}

/// The checks, in the order in which they are made. After the first that fails no other is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Check {
    /// The operator's block list.
    BlockList,
    /// Ban, and rate of the address and its network.
    AddressLimits,
    /// At most one credential, of a form that is read one way only.
    CredentialForm,
    /// A cookie-borne change comes from the own origin.
    Origin,
    /// The credential is there, genuine, within its time and not revoked.
    Credential,
    /// Rate of the user and of his tenant.
    PrincipalLimits,
    /// The role may do the route's action.
    Permission,
}

impl Check {
    /// Every check, in order. A public route has the first four.
    pub const ALL: &'static [Check] = &[
        Check::BlockList,
        Check::AddressLimits,
        Check::CredentialForm,
        Check::Origin,
        Check::Credential,
        Check::PrincipalLimits,
        Check::Permission,
    ];

    /// The word in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Check::BlockList => "block_list",
            Check::AddressLimits => "address_limits",
            Check::CredentialForm => "credential_form",
            Check::Origin => "origin",
            Check::Credential => "credential",
            Check::PrincipalLimits => "principal_limits",
            Check::Permission => "permission",
        }
    }
}

/// Why not: the check that failed, and how. Since the order is fixed, this is the whole chain; it costs an allowed
/// request nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The check that failed.
    pub check: Check,
    /// How: an error code, the reason a token is rejected, or the action that the role may not do.
    pub word: &'static str,
}

impl Reason {
    /// The checks that passed, in order.
    pub fn passed(&self) -> impl Iterator<Item = Check> {
        let failed = self.check;
        Check::ALL.iter().copied().take_while(move |check| *check != failed)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check.as_str(), self.word)
    }
}

/// Makes the decision. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Decider {
    pub(crate) ground: Ground,
    pub(crate) limits: Limits,
    pub(crate) authenticator: Authenticator,
    pub(crate) blocks: Arc<ArcSwap<BlockList>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) trusted: Arc<ArcSwap<Vec<Origin>>>,
    pub(crate) transport: Transport,
}

impl Decider {
    /// Decides about a request for the declared route `row`. Reads no body. Waits for nothing on one machine; with a shared
    /// state for one round trip at most, and for the database only when this node's copy of the revocations is too old.
    ///
    /// The order is that of [`Check`]: from cheap to dear, and from what concerns everybody to what concerns this route.
    pub(crate) async fn decide(&self, facts: &RequestFacts<'_>, row: &Row, now: Millis) -> Verdict {
        let mut headers = HeaderMap::with_capacity(4);
        let answer = match &self.ground.shared {
            None => self.consider(facts, row, now, &mut headers).await,
            // Boxed, so that what waits takes no room in what does not: on one machine this future is moved for nothing.
            Some(shared) => Box::pin(self.consider_shared(shared, facts, row, now, &mut headers)).await,
        };
        self.verdict(answer, headers)
    }

    /// Decides about a request for nothing that is declared: only the address can be judged.
    pub(crate) async fn stray(&self, facts: &RequestFacts<'_>, now: Millis) -> Verdict {
        let mut headers = HeaderMap::with_capacity(4);
        let answer = match &self.ground.shared {
            None => self.admit_address(address(facts), now, &mut headers),
            Some(shared) => Box::pin(self.admit_address_shared(shared, address(facts), now, &mut headers)).await,
        };
        let answer = answer.map(|ruling| {
            self.limits.describe(&ruling, None, &mut headers);
            None
        });
        self.verdict(answer, headers)
    }

    fn verdict(&self, answer: Result<Option<Principal>, Box<No>>, headers: HeaderMap) -> Verdict {
        match answer {
            Ok(principal) => Verdict::Allow { principal, headers },
            Err(no) => {
                let No { reason, refusal, record, forged: _ } = *no;
                count(&self.metrics.refused, "code", refusal.code.as_str());
                Verdict::Deny { reason, refusal, headers, record }
            }
        }
    }

    async fn consider(
        &self,
        facts: &RequestFacts<'_>,
        row: &Row,
        now: Millis,
        headers: &mut HeaderMap,
    ) -> Result<Option<Principal>, Box<No>> {
        let ruling = self.admit_address(address(facts), now, headers)?;
        let (who, action, roles) = match self.identify_and_note(facts, row, now).await {
            Ok(Some(identified)) => identified,
            other => {
                self.limits.describe(&ruling, None, headers);
                return other.map(|_| None);
            }
        };
        let ruling = self.limits.charge_principal(&who, ruling, now);
        self.limits.describe(&ruling, Some(who.tier), headers);
        if let Some(refusal) = ruling.refusal() {
            return Err(No::at(Check::PrincipalLimits)(refusal));
        }
        self.permit(who, action, roles).map(Some)
    }

    /// As [`Self::consider`] where all nodes count together. One round trip says everything, so the credential is looked
    /// at first, which needs no input or output; a request whose credential is refused is charged to its address alone.
    /// Signatures not seen before are bounded by this node's own count of the address, as they are on one machine.
    async fn consider_shared(
        &self,
        shared: &SharedState,
        facts: &RequestFacts<'_>,
        row: &Row,
        now: Millis,
        headers: &mut HeaderMap,
    ) -> Result<Option<Principal>, Box<No>> {
        let (began, ip) = (Instant::now(), address(facts));
        self.unblocked(ip)?;
        let following = self.ground.following.as_ref();
        let mut recalled = None;
        if matches!(row.access, Access::Requires { .. }) {
            self.ground.fresh().await.map_err(No::at(Check::Credential))?;
            if let Ok(Credential::Bearer(token)) = Credential::of(facts.headers) {
                recalled = Some(self.authenticator.recall(token));
            }
        }
        if recalled.as_ref().is_some_and(|recalled| !recalled.verified()) {
            let ruling = self.limits.charge_address(ip, now);
            if let Some(refusal) = ruling.refusal() {
                self.limits.describe(&ruling, None, headers);
                return Err(No::at(Check::AddressLimits)(refusal));
            }
        }
        let copied = following.map(Following::copied);
        let identified = self.identify(facts, row, recalled, now);
        if identified.as_ref().is_err_and(|no| no.forged) {
            Box::pin(self.limits.suspect(ip, now)).await;
        }
        let who = identified.as_ref().ok().and_then(|found| found.as_ref().map(|(who, ..)| who));
        let strict = who.is_some() && following.is_some_and(Following::strict);
        let want = if strict { Want::DecisionAndSequence } else { Want::Decision };
        let charged = self.limits.charge_shared(shared, ip, who, want, now).await;
        let (ruling, sequence) = charged.map_err(No::at(Check::AddressLimits))?;
        self.limits.describe(&ruling, who.map(|who| who.tier), headers);
        if let Some(refusal) = ruling.refusal() {
            let check = if ruling.concerns_address() { Check::AddressLimits } else { Check::PrincipalLimits };
            return Err(No::at(check)(refusal));
        }
        let Some((who, action, roles)) = identified? else { return Ok(None) };
        if let Some(copied) = copied.filter(|_| strict)
            && self.ground.heed(sequence, copied, began).await.map_err(No::at(Check::Credential))?
        {
            // More was ended than was known when the credential was looked at.
            self.identify(facts, row, None, now)?;
        }
        self.permit(who, action, roles).map(Some)
    }

    /// The last check: the role.
    fn permit(&self, who: Principal, action: &'static str, roles: &[Role]) -> Result<Principal, Box<No>> {
        if !roles.contains(&who.role) {
            count(&self.metrics.denied, "code", Code::PermissionDenied.as_str());
            let event = EventKind::AccessDenied { action, code: Code::PermissionDenied.as_str() };
            let reason = Reason { check: Check::Permission, word: action };
            let record = Some(Box::new((who, event)));
            return Err(Box::new(No { reason, refusal: Code::PermissionDenied.into(), record, forged: false }));
        }
        Ok(who)
    }

    /// As [`Self::identify`], with a copy of the revocations that is young enough; whoever presents a forged credential is
    /// remembered for it.
    async fn identify_and_note(
        &self,
        facts: &RequestFacts<'_>,
        row: &Row,
        now: Millis,
    ) -> Result<Option<Identified>, Box<No>> {
        if matches!(row.access, Access::Requires { .. }) && !self.ground.is_fresh() {
            Box::pin(self.ground.fresh()).await.map_err(No::at(Check::Credential))?;
        }
        let identified = self.identify(facts, row, None, now);
        if identified.as_ref().is_err_and(|no| no.forged) {
            Box::pin(self.limits.suspect(address(facts), now)).await;
        }
        identified
    }

    /// The principal behind the credential, and the action he must be allowed; nobody on a public route. `recalled` is
    /// what was looked up of the token, if it was.
    fn identify(
        &self,
        facts: &RequestFacts<'_>,
        row: &Row,
        recalled: Option<Recalled>,
        now: Millis,
    ) -> Result<Option<Identified>, Box<No>> {
        let credential = Credential::of(facts.headers).map_err(No::at(Check::CredentialForm))?;
        self.same_site(facts, row, &credential).map_err(No::at(Check::Origin))?;
        let Access::Requires { action, roles } = row.access else { return Ok(None) };
        let Credential::Bearer(token) = credential else {
            return Err(No::at(Check::Credential)(Code::CredentialMissing.into()));
        };
        let checked = match recalled {
            Some(recalled) => self.authenticator.check_recalled(token, recalled, now),
            None => self.authenticator.check(token, now),
        };
        let who = checked.map_err(|rejected| {
            let reason = Reason { check: Check::Credential, word: rejected.reason };
            Box::new(No { reason, refusal: rejected.code.into(), record: None, forged: rejected.is_forged() })
        })?;
        Ok(Some((who, action, roles)))
    }

    /// Block list, ban, address limit. Only a refusal is described here: an admitted request says it once, with all.
    fn admit_address(&self, ip: IpAddr, now: Millis, headers: &mut HeaderMap) -> Result<Ruling, Box<No>> {
        self.unblocked(ip)?;
        let ruling = self.limits.charge_address(ip, now);
        let Some(refusal) = ruling.refusal() else { return Ok(ruling) };
        self.limits.describe(&ruling, None, headers);
        Err(No::at(Check::AddressLimits)(refusal))
    }

    /// As [`Self::admit_address`], counted by all nodes together.
    async fn admit_address_shared(
        &self,
        shared: &SharedState,
        ip: IpAddr,
        now: Millis,
        headers: &mut HeaderMap,
    ) -> Result<Ruling, Box<No>> {
        self.unblocked(ip)?;
        let charged = self.limits.charge_shared(shared, ip, None, Want::Decision, now).await;
        let (ruling, _) = charged.map_err(No::at(Check::AddressLimits))?;
        let Some(refusal) = ruling.refusal() else { return Ok(ruling) };
        self.limits.describe(&ruling, None, headers);
        Err(No::at(Check::AddressLimits)(refusal))
    }

    fn unblocked(&self, ip: IpAddr) -> Result<(), Box<No>> {
        match self.blocks.load().contains(ip) {
            Some(_) => Err(No::at(Check::BlockList)(Code::AddressBlocked.into())),
            None => Ok(()),
        }
    }

    fn same_site(&self, facts: &RequestFacts<'_>, row: &Row, credential: &Credential<'_>) -> Result<(), Refusal> {
        let Some(Csrf::Enforced) = row.csrf else { return Ok(()) };
        let carried = match credential {
            Credential::Bearer(_) => Carried::Written,
            // No cookie of ours lets anybody in: the one that marks a known device only spares its owner a lock-out, and
            // programs that keep cookies send it too. What a browser says of itself is judged all the same.
            Credential::None => Carried::Nothing,
        };
        let host = facts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = facts.uri.authority().map(http::uri::Authority::as_str).or(host);
        let provenance =
            Provenance { method: facts.method, headers: facts.headers, host, transport: self.transport, carried };
        cross_site(&provenance, &self.trusted.load())
    }
}

/// The address to charge. Where no listener said who is connected, all share one: limits then hold too early, never not.
fn address(facts: &RequestFacts<'_>) -> IpAddr {
    facts.ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// Who asks, the action of the route, and the roles that may.
type Identified = (Principal, &'static str, &'static [Role]);

/// A no in the making. Boxed, so that it takes no room in a yes.
struct No {
    reason: Reason,
    refusal: Refusal,
    record: Option<Box<(Principal, EventKind)>>,
    /// The credential never was one of ours: somebody is trying.
    forged: bool,
}

impl No {
    /// The refusals of `check`.
    fn at(check: Check) -> impl FnOnce(Refusal) -> Box<No> {
        move |refusal| {
            Box::new(No { reason: Reason { check, word: refusal.code.as_str() }, refusal, record: None, forged: false })
        }
    }
}

#[cfg(test)]
mod tests;
