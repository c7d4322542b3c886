//! The one decision. Every door brings its facts here and carries the verdict out; there is no second way in.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bartizan_core::audit::EventKind;
use bartizan_core::browser::{Carried, Origin, Provenance, Transport, cross_site};
use bartizan_core::error::{Code, Refusal};
use bartizan_core::id::RequestId;
use bartizan_core::net::BlockList;
use bartizan_core::principal::Principal;
use bartizan_core::time::Millis;
use http::{HeaderMap, Method, Uri, header};

use super::authenticate::Authenticator;
use super::credential::Credential;
use crate::api::{Access, Csrf, Row};
use crate::ground::count;
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
        /// What is said to the caller.
        refusal: Refusal,
        /// `RateLimit` and its kind.
        headers: HeaderMap,
        /// What is written into the audit trail, and who was recognised.
        record: Option<Box<(Principal, EventKind)>>,
    },
}

/// Makes the decision. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Decider {
    pub(crate) limits: Limits,
    pub(crate) authenticator: Authenticator,
    pub(crate) blocks: Arc<ArcSwap<BlockList>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) trusted: Arc<ArcSwap<Vec<Origin>>>,
    pub(crate) transport: Transport,
}

impl Decider {
    /// Decides about a request for the declared route `row`. Reads no body, waits for nothing.
    ///
    /// The order is from cheap to dear, and from what concerns everybody to what concerns this route:
    /// block list, ban, address limit, cross-site, credential, revocation, tier limits, permission.
    pub(crate) fn decide(&self, facts: &RequestFacts<'_>, row: &Row, now: Millis) -> Verdict {
        let mut headers = HeaderMap::with_capacity(4);
        match self.consider(facts, row, now, &mut headers) {
            Ok(principal) => Verdict::Allow { principal, headers },
            Err(No { refusal, record }) => {
                count(&self.metrics.refused, "code", refusal.code.as_str());
                Verdict::Deny { refusal, headers, record }
            }
        }
    }

    /// Decides about a request for nothing that is declared: only the address can be judged.
    pub(crate) fn stray(&self, facts: &RequestFacts<'_>, now: Millis) -> Verdict {
        let mut headers = HeaderMap::with_capacity(4);
        match self.consider_stray(facts, now, &mut headers) {
            Ok(()) => Verdict::Allow { principal: None, headers },
            Err(No { refusal, record }) => {
                count(&self.metrics.refused, "code", refusal.code.as_str());
                Verdict::Deny { refusal, headers, record }
            }
        }
    }

    fn consider_stray(&self, facts: &RequestFacts<'_>, now: Millis, headers: &mut HeaderMap) -> Result<(), No> {
        let Some(ruling) = self.admit_address(facts.ip, now)? else { return Ok(()) };
        self.limits.describe(&ruling, None, headers);
        ruling.refusal().map_or(Ok(()), |refusal| Err(refusal.into()))
    }

    fn consider(
        &self,
        facts: &RequestFacts<'_>,
        row: &Row,
        now: Millis,
        headers: &mut HeaderMap,
    ) -> Result<Option<Principal>, No> {
        let address = self.admit_address(facts.ip, now)?;
        if let Some(ruling) = &address {
            self.limits.describe(ruling, None, headers);
            if let Some(refusal) = ruling.refusal() {
                return Err(refusal.into());
            }
        }
        let credential = Credential::of(facts.headers)?;
        self.same_site(facts, row, &credential)?;
        let Access::Requires { action, roles } = row.access else { return Ok(None) };
        let Credential::Bearer(token) = credential else { return Err(Refusal::new(Code::CredentialMissing).into()) };
        let who = self.authenticator.check(token, now).map_err(|rejected| {
            if rejected.is_forged() {
                self.limits.suspect(facts.ip, now);
            }
            Refusal::new(rejected.code)
        })?;
        if let Some(address) = address {
            let ruling = self.limits.charge_principal(&who, address, now);
            self.limits.describe(&ruling, Some(who.tier), headers);
            if let Some(refusal) = ruling.refusal() {
                return Err(refusal.into());
            }
        }
        if !roles.contains(&who.role) {
            count(&self.metrics.denied, "code", Code::PermissionDenied.as_str());
            let event = EventKind::AccessDenied { action, code: Code::PermissionDenied.as_str() };
            return Err(No { refusal: Code::PermissionDenied.into(), record: Some(Box::new((who, event))) });
        }
        Ok(Some(who))
    }

    /// Block list, ban, address limit. Without an address (a local socket) there is nothing to judge.
    fn admit_address(&self, ip: Option<IpAddr>, now: Millis) -> Result<Option<Ruling>, No> {
        let Some(ip) = ip else { return Ok(None) };
        if self.blocks.load().contains(ip).is_some() {
            return Err(Refusal::new(Code::AddressBlocked).into());
        }
        Ok(Some(self.limits.charge_address(ip, now)))
    }

    fn same_site(&self, facts: &RequestFacts<'_>, row: &Row, credential: &Credential<'_>) -> Result<(), No> {
        let Some(Csrf::Enforced) = row.csrf else { return Ok(()) };
        let carried = match credential {
            Credential::Bearer(_) => Carried::Written,
            Credential::None if facts.headers.contains_key(header::COOKIE) => Carried::Cookie,
            Credential::None => Carried::Nothing,
        };
        let host = facts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = facts.uri.authority().map(http::uri::Authority::as_str).or(host);
        let provenance =
            Provenance { method: facts.method, headers: facts.headers, host, transport: self.transport, carried };
        Ok(cross_site(&provenance, &self.trusted.load())?)
    }
}

/// A no in the making.
struct No {
    refusal: Refusal,
    record: Option<Box<(Principal, EventKind)>>,
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, record: None }
    }
}
