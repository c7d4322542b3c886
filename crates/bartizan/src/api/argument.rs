//! What a handler may take. The set is closed: everything read from a request is bounded, typed and documented.

use std::any::TypeId;
use std::future::Future;
use std::marker::PhantomData;
use std::net::IpAddr;

use axum::extract::FromRef;
use bartizan_core::action::Action;
use bartizan_core::error::Code;
use bartizan_core::id::RequestId;
use bartizan_core::json;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::call::Sealed;
use super::failure::Failure;
use super::incoming::{Incoming, Media};
use super::schema::Description;
use crate::guard::{Grant, Permit};

/// An argument that uses nothing up and proves nothing.
#[derive(Debug)]
pub struct Nothing(());

/// An argument that uses the request's body up.
#[derive(Debug)]
pub struct TheBody(());

/// Arguments with a `Permit<A>` among them.
#[derive(Debug)]
pub struct Proves<A>(PhantomData<fn() -> A>);

/// Arguments with a [`Visit`] among them.
#[derive(Debug)]
pub struct Visits(());

/// Two sets of arguments together: one body at most, one permit at most.
#[diagnostic::on_unimplemented(
    message = "a handler may take only one `Body<…>` or `Form<…>` and only one `Permit<…>` or `Visit`",
    label = "two of a kind among these arguments"
)]
pub trait Join<Rest> {
    /// What they are together.
    type Joined;
}

impl<Rest> Join<Rest> for Nothing {
    type Joined = Rest;
}
impl Join<Nothing> for TheBody {
    type Joined = TheBody;
}
impl<A> Join<Nothing> for Proves<A> {
    type Joined = Proves<A>;
}
impl Join<Nothing> for Visits {
    type Joined = Visits;
}

/// One argument of a handler, in an application with state `S`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a route handler",
    label = "not one of `Permit<A>`, `Visit`, `Path<T>`, `Query<T>`, `Body<T>`, `Form<T>`, `Service<T>`",
    note = "raw extractors would skip size limits, typed parsing and the OpenAPI document",
    note = "for a JSON body use `Body<T>`; for a stream, a WebSocket or files see `Api::adopt`"
)]
pub trait Arg<S>: Sealed + Sized + Send {
    /// [`TheBody`] or [`Nothing`].
    type Body;
    /// [`Proves`], [`Visits`] or [`Nothing`].
    type Proof;
    /// Notes what this argument reads.
    fn describe(description: &mut Description);
    /// Takes it out of the request.
    fn take(incoming: &mut Incoming, state: &S) -> impl Future<Output = Result<Self, Failure>> + Send;
}

/// All arguments of a handler: a nested tuple, head and tail.
pub trait Args<S>: Sized + Send {
    /// Whether the body is used up.
    type Body;
    /// What is proved.
    type Proof;
    /// Notes what they read.
    fn describe(description: &mut Description);
    /// Takes them out of the request, in order of declaration.
    fn take(incoming: &mut Incoming, state: &S) -> impl Future<Output = Result<Self, Failure>> + Send;
}

impl<S: Sync> Args<S> for () {
    type Body = Nothing;
    type Proof = Nothing;
    fn describe(_: &mut Description) {}
    async fn take(_: &mut Incoming, _: &S) -> Result<Self, Failure> {
        Ok(())
    }
}

impl<S: Sync, A, Rest> Args<S> for (A, Rest)
where
    A: Arg<S>,
    Rest: Args<S>,
    A::Body: Join<Rest::Body>,
    A::Proof: Join<Rest::Proof>,
{
    type Body = <A::Body as Join<Rest::Body>>::Joined;
    type Proof = <A::Proof as Join<Rest::Proof>>::Joined;

    fn describe(description: &mut Description) {
        A::describe(description);
        Rest::describe(description);
    }

    async fn take(incoming: &mut Incoming, state: &S) -> Result<Self, Failure> {
        let head = A::take(incoming, state).await?;
        Ok((head, Rest::take(incoming, state).await?))
    }
}

impl<A> Sealed for Permit<A> {}

impl<S: Sync, A: Action> Arg<S> for Permit<A> {
    type Body = Nothing;
    type Proof = Proves<A>;
    fn describe(_: &mut Description) {}

    async fn take(incoming: &mut Incoming, _: &S) -> Result<Self, Failure> {
        // The compiler has compared the route's action with this one already; a permit is worth asking twice.
        let grant = incoming.grant_for(Some(TypeId::of::<A>()))?;
        Ok(Permit::new(grant))
    }
}

/// Somebody unknown at a public route: from where, in which request. Recorded where there is no permit to record.
#[derive(Debug)]
pub struct Visit {
    grant: Grant,
}

impl Visit {
    /// The client's address as established through the configured proxies.
    pub fn ip(&self) -> Option<IpAddr> {
        self.grant.origin.ip
    }

    /// The request.
    pub fn request(&self) -> Option<RequestId> {
        self.grant.origin.request
    }

    pub(crate) fn grant(&self) -> &Grant {
        &self.grant
    }
}

impl Sealed for Visit {}

impl<S: Sync> Arg<S> for Visit {
    type Body = Nothing;
    type Proof = Visits;
    fn describe(_: &mut Description) {}

    async fn take(incoming: &mut Incoming, _: &S) -> Result<Self, Failure> {
        incoming.grant_for(None).map(|grant| Visit { grant })
    }
}

/// The one service a handler calls, out of the application's state.
#[derive(Clone, Copy, Debug)]
pub struct Service<T>(pub T);

impl<T> Sealed for Service<T> {}

impl<S: Sync, T: FromRef<S> + Send> Arg<S> for Service<T> {
    type Body = Nothing;
    type Proof = Nothing;
    fn describe(_: &mut Description) {}

    async fn take(_: &mut Incoming, state: &S) -> Result<Self, Failure> {
        Ok(Service(T::from_ref(state)))
    }
}

/// A JSON body parsed into `T`: `application/json` only (415), bounded (413), malformed 400, unacceptable 422.
///
/// `Option<Body<T>>` is a body that may be absent; an empty one counts as absent.
#[derive(Clone, Copy, Debug)]
pub struct Body<T>(pub T);

impl<T> Sealed for Body<T> {}
impl<T> Sealed for Option<Body<T>> {}

impl<S: Sync, T: DeserializeOwned + JsonSchema + Send> Arg<S> for Body<T> {
    type Body = TheBody;
    type Proof = Nothing;

    fn describe(description: &mut Description) {
        description.body::<T>(Media::Json, super::schema::Presence::Required);
    }

    async fn take(incoming: &mut Incoming, _: &S) -> Result<Self, Failure> {
        incoming.require_media(Media::Json)?;
        let bytes = incoming.read_body().await?;
        read_json(incoming, &bytes).map(Body)
    }
}

impl<S: Sync, T: DeserializeOwned + JsonSchema + Send> Arg<S> for Option<Body<T>> {
    type Body = TheBody;
    type Proof = Nothing;

    fn describe(description: &mut Description) {
        description.body::<T>(Media::Json, super::schema::Presence::Optional);
    }

    async fn take(incoming: &mut Incoming, _: &S) -> Result<Self, Failure> {
        // A body announced in another type is refused unread; one without a type is read, since it may be empty.
        let announced = incoming.announces_media();
        if announced {
            incoming.require_media(Media::Json)?;
        }
        let bytes = incoming.read_body().await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if !announced {
            return Err(Code::MediaTypeUnsupported.into());
        }
        read_json(incoming, &bytes).map(|value| Some(Body(value)))
    }
}

/// The type's own rules first, since they say more; then whatever else its schema promises.
fn read_json<T: DeserializeOwned>(incoming: &Incoming, bytes: &[u8]) -> Result<T, Failure> {
    let value = json::parse(bytes, &json::Limits::default())?;
    incoming.bounds.check_body(bytes)?;
    Ok(value)
}
