//! A permission as a value.

use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use bartizan_core::action::Action;
use bartizan_core::audit::{Actor, Origin};
use bartizan_core::id::{RequestId, TenantId};
use bartizan_core::principal::Principal;
use bartizan_store::Scope;
use http::HeaderMap;

use crate::api::Failure;

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
    /// What the client says of itself, where a route issues or renews credentials.
    pub(crate) client: Client,
    /// The client's `Idempotency-Key`, when it sent one.
    pub(crate) idempotency: Option<Arc<Idempotency>>,
}

/// What a client says of itself. Not trusted: it tells sessions apart for their owner.
#[derive(Clone, Debug, Default)]
pub(crate) struct Client {
    /// `User-Agent`, cut to 256 bytes.
    pub(crate) user_agent: Option<String>,
    /// The secret of the cookie that marks a known device.
    pub(crate) device: Option<String>,
}

/// The wish to have one request take effect once, however often it is sent.
#[derive(Debug)]
pub(crate) struct Idempotency {
    /// The client's key.
    pub(crate) key: String,
    /// Method and path: the same key on another target is another request.
    pub(crate) target: String,
    /// SHA-256 of the body, set when it was read.
    pub(crate) body: OnceLock<[u8; 32]>,
}

impl Grant {
    /// The grant of a public route: nobody in particular, from `ip`, in the request `id`.
    pub(crate) fn anonymous(id: RequestId, ip: Option<IpAddr>) -> Self {
        Self {
            actor: Actor::Anonymous,
            tenant: None,
            principal: None,
            origin: Origin { ip, request: Some(id), node: String::new() },
            client: Client::default(),
            idempotency: None,
        }
    }

    /// The grant of whoever may speak to the local admin socket.
    pub(crate) fn operator(tenant: Option<TenantId>, node: &str) -> Self {
        Self {
            actor: Actor::Operator,
            tenant,
            principal: None,
            origin: Origin { ip: None, request: None, node: node.to_owned() },
            client: Client::default(),
            idempotency: None,
        }
    }

    /// The grant of the server's own work, in the named job.
    pub(crate) fn system(job: &str, node: &str) -> Self {
        Self { actor: Actor::System { job: job.into() }, ..Self::operator(None, node) }
    }

    /// The border this grant opens.
    pub(crate) fn scope(&self) -> Result<Scope, Failure> {
        let tenant = self.tenant.ok_or_else(|| Failure::fault("a grant without a tenant was used inside one"))?;
        Ok(Scope::granted(tenant))
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

    /// The user who acts.
    ///
    /// # Errors
    /// A fault when the operator or a job acts: then the handler asked the wrong question.
    pub fn user(&self) -> Result<&Principal, Failure> {
        self.principal().ok_or_else(|| Failure::fault("this action needs a user, and none acts"))
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
