//! A permission as a value.

use std::marker::PhantomData;
use std::net::IpAddr;

use bartizan_core::action::Action;
use bartizan_core::audit::{Actor, Origin};
use bartizan_core::id::{RequestId, TenantId};
use bartizan_core::principal::Principal;
use http::HeaderMap;

/// The facts about an admitted request: what a [`Permit`] is made from.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Who acts.
    pub(crate) actor: Actor,
    /// The tenant in which; `None` on public routes.
    pub(crate) tenant: Option<TenantId>,
    /// The verified principal; `None` on public routes and for operators.
    pub(crate) principal: Option<Principal>,
    /// From where.
    pub(crate) origin: Origin,
    /// The client's `Idempotency-Key`, when it sent one.
    pub(crate) idempotency_key: Option<String>,
}

impl Grant {
    /// The grant of a public route: nobody in particular, from `ip`, in the request `id`.
    pub(crate) fn anonymous(id: RequestId, ip: Option<IpAddr>, node: &str) -> Self {
        Self {
            actor: Actor::Anonymous,
            tenant: None,
            principal: None,
            origin: Origin { ip, request: Some(id), node: node.to_owned() },
            idempotency_key: None,
        }
    }
}

/// *This actor may do `A` in this tenant, now.* Only the guard makes one; it is neither `Clone` nor optional.
#[derive(Debug)]
pub struct Permit<A> {
    grant: Grant,
    action: PhantomData<fn() -> A>,
}

impl<A: Action> Permit<A> {
    pub(crate) fn new(grant: Grant) -> Self {
        Self { grant, action: PhantomData }
    }

    /// The verified principal, when a user acts (and not the operator or a job).
    pub fn principal(&self) -> Option<&Principal> {
        self.grant.principal.as_ref()
    }

    pub(crate) fn grant(&self) -> &Grant {
        &self.grant
    }
}

/// What the gate says of a request it lets through.
#[derive(Debug)]
pub struct Admission {
    /// The facts that permits and audit rows are made from.
    pub grant: Grant,
    /// Headers the answer must carry, such as `RateLimit`.
    pub headers: HeaderMap,
}
