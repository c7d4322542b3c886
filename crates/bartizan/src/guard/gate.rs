//! The door of the library: facts out of an HTTP request, verdict into an admission or an answer.

use std::sync::Arc;

use bartizan_core::audit::Actor;
use bartizan_core::error::Code;
use http::request::Parts;
use http::{HeaderMap, Response, header};

use super::credential::{DEVICE_COOKIE, cookie};
use super::decide::{Decider, RequestFacts, Verdict};
use super::permit::{Admission, Client, Grant};
use crate::answer;
use crate::api::{Gate, RateClass, Row};
use crate::front::Visitor;
use crate::ground::{Ground, count};
use crate::refusals::Refusals;

/// The guard: the one implementation of [`Gate`] that lets anybody in.
#[derive(Clone, Debug)]
pub struct Guard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ground: Ground,
    decider: Decider,
    refusals: Refusals,
}

impl Guard {
    pub(crate) fn new(ground: Ground, decider: Decider, refusals: Refusals) -> Self {
        Self(Arc::new(Inner { ground, decider, refusals }))
    }

    #[cfg(test)]
    pub(super) fn decider(&self) -> &Decider {
        &self.0.decider
    }
}

impl Gate for Guard {
    async fn admit(
        &self,
        row: &Row,
        visitor: &Visitor,
        parts: &mut Parts,
    ) -> Result<Admission, Response<axum::body::Body>> {
        let Inner { ground, decider, refusals } = &*self.0;
        let verdict = decider.decide(&facts(visitor, parts), row, ground.now()).await;
        // Made only now: nothing large is kept while something is waited for.
        let mut grant = Grant::anonymous(visitor.request, visitor.ip);
        match verdict {
            Verdict::Allow { principal, headers } => {
                if let Some(who) = principal {
                    grant.actor = Actor::User { id: who.user, session: Some(who.session) };
                    grant.tenant = Some(who.tenant);
                    grant.principal = Some(who);
                }
                if matches!(row.rate, RateClass::Login | RateClass::Token) {
                    grant.client = client(&parts.headers);
                }
                Ok(Admission { grant, headers })
            }
            Verdict::Deny { reason, refusal, headers, record } => {
                tracing::debug!(request = %visitor.request, %reason, route = row.path, "refused");
                if let Some(record) = record {
                    let (who, event) = *record;
                    grant.actor = Actor::User { id: who.user, session: Some(who.session) };
                    grant.tenant = Some(who.tenant);
                    refusals.note(&grant, event);
                }
                Err(with(answer::refuse(refusal, visitor.request), headers))
            }
        }
    }

    async fn stray(&self, parts: &mut Parts) -> Result<HeaderMap, Response<axum::body::Body>> {
        let Inner { ground, decider, .. } = &*self.0;
        let visitor = Visitor::noted(&parts.extensions);
        match decider.stray(&facts(&visitor, parts), ground.now()).await {
            Verdict::Allow { headers, .. } => Ok(headers),
            Verdict::Deny { refusal, headers, .. } => Err(with(answer::refuse(refusal, visitor.request), headers)),
        }
    }

    fn undeclared(&self, parts: &Parts, template: &str) {
        let request = Visitor::noted(&parts.extensions).request;
        count(&self.0.ground.metrics.refused, "code", Code::RouteUndeclared.as_str());
        tracing::warn!(
            %request, method = %parts.method, route = template, code = Code::RouteUndeclared.as_str(),
            "refused: the application's router has this route, its Api does not declare it"
        );
    }
}

fn facts<'a>(visitor: &Visitor, parts: &'a Parts) -> RequestFacts<'a> {
    RequestFacts {
        id: visitor.request,
        ip: visitor.ip,
        method: &parts.method,
        uri: &parts.uri,
        headers: &parts.headers,
    }
}

fn with(mut response: Response<axum::body::Body>, headers: HeaderMap) -> Response<axum::body::Body> {
    response.headers_mut().extend(headers);
    response
}

/// What the client says of itself, cut to a bound.
fn client(headers: &HeaderMap) -> Client {
    let user_agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    Client {
        user_agent: user_agent.map(|text| text.chars().take(256).collect()),
        device: cookie(headers, DEVICE_COOKIE).filter(|secret| secret.len() <= 64).map(str::to_owned),
    }
}
