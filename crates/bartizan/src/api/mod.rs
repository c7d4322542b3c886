//! The `Api` router: the only way to add a route, and the one declaration from which the route, its guard, the printed
//! table and the OpenAPI document all come.
//!
//! What it allows:
//! 1. a route is a path, a filled-in [`Read`] or [`Write`] and a handler; a question left unanswered does not compile;
//! 2. a handler takes `Permit<A>`, [`Visit`], [`Path`], [`Query`], [`Body`], [`Form`] and [`Service`], in any order, and
//!    returns `Result<Found<T> | Created<T> | Done | …, E>`; nothing else compiles;
//! 3. `requires(Action)` needs exactly that `Permit<Action>` among the arguments, `public("why")` needs none.
//!
//! What it refuses: at [`Api::finish`], everything that cannot be a type, all faults together; at run time, a path that
//! is not in the table (404), a method that is not (405), and a body that is too large or of another media type, in that
//! order and only after the [`Gate`] has let the request in.
//!
//! Deployment caveats: the request id, the deadline for a slow body and the answer to a panic come from the front, which
//! [`Engine::guard`](crate::engine::Engine::guard) puts before every route. A plain axum router under [`Api::adopt`] is
//! gated as a whole, but what it reads and answers is its own affair.

mod access;
mod adopted;
mod answers;
mod argument;
mod bounds;
mod call;
mod failure;
mod fault;
mod form;
mod gate;
mod incoming;
mod mount;
mod openapi;
mod path;
mod query;
mod row;
mod schema;
mod shortcuts;
mod text;
mod undeclared;

#[cfg(test)]
mod tests;

pub use access::{Because, Public, Requires, because, public, requires};
pub use answers::{Accepted, Answer, Created, Document, Done, Found, Page, WithCookie};
pub use argument::{Arg, Args, Body, Join, Nothing, Proves, Service, TheBody, Visit, Visits};
pub use call::{Call, Endpoint, Outcome, Satisfies};
pub use failure::Failure;
pub use fault::{Fault, Faults, Flaw};
pub use form::Form;
pub use gate::Gate;
pub use incoming::Incoming;
pub use openapi::Info;
pub use path::Path;
pub use query::Query;
pub use row::{Access, Cache, Csrf, RateClass, Row, Table, Verb};
pub use schema::Description;
pub(crate) use shortcuts::Shortcuts;

use std::sync::Arc;

use access::Stated;
use bounds::Bounds;
use mount::Run;

/// A route that changes nothing: GET, and HEAD with it. Every field is a question each route answers for itself.
#[derive(Clone, Copy, Debug)]
pub struct Read<P> {
    /// One line for the document and the table.
    pub summary: &'static str,
    /// [`requires`]`(Action)` or [`public`]`("why")`.
    pub access: P,
    /// Which limits the gate applies.
    pub rate: RateClass,
    /// Who may keep a copy of the answer.
    pub cache: Cache,
}

/// A route that changes something: POST, PUT, PATCH, DELETE. Every field is a question each route answers for itself.
#[derive(Clone, Copy, Debug)]
pub struct Write<P> {
    /// One line for the document and the table.
    pub summary: &'static str,
    /// [`requires`]`(Action)` or [`public`]`("why")`.
    pub access: P,
    /// Which limits the gate applies.
    pub rate: RateClass,
    /// Whether a cookie-borne request must come from the own origin.
    pub csrf: Csrf,
    /// Who may keep a copy of the answer.
    pub cache: Cache,
}

/// What applies to every route unless it says otherwise, and what the document says about itself.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Largest request body in bytes.
    pub body: usize,
    /// Title, version and licence for the OpenAPI document.
    pub info: Info,
}

/// What [`Api::finish`] hands out.
#[derive(Debug)]
pub struct Mounted<S> {
    /// Every declared route behind the gate, with 404 and 405 answers as problems.
    pub router: axum::Router<S>,
    /// The same, for a listener of our own.
    pub(crate) shortcuts: Shortcuts<S>,
    /// Every row, for printing, for metrics and for the tests that walk all of them.
    pub table: Table,
    /// The OpenAPI 3.1 document.
    pub openapi: serde_json::Value,
}

/// Routes under construction, for an application whose state is `S`.
///
/// Nothing is checked before [`Api::finish`], so that all faults can be told together.
///
/// ```
/// use bartizan::api::*;
/// use bartizan::guard::Permit;
/// use bartizan_core::action::ReadUsers;
///
/// /// How many users there are.
/// #[derive(serde::Serialize, schemars::JsonSchema)]
/// struct Count {
///     users: u32,
/// }
///
/// async fn count_users(_: Permit<ReadUsers>) -> Result<Found<Count>, Failure> {
///     Ok(Found(Count { users: 3 }))
/// }
///
/// let route = Read {
///     summary: "Count the users",
///     access: requires(ReadUsers),
///     rate: RateClass::Read,
///     cache: Cache::Private,
/// };
/// let api = Api::<()>::new().get("/v1/users/count", route, count_users).tag("users");
/// ```
pub struct Api<S> {
    routes: Vec<Route<S>>,
    adopted: Vec<Adopted<S>>,
    last: Last,
    flaws: Vec<Fault>,
    readers: Vec<Reader>,
}

/// Somebody who is told the finished document.
type Reader = Box<dyn FnOnce(&serde_json::Value) -> Result<(), serde_json::Error> + Send>;

/// Which declaration an after-method refers to.
#[derive(Clone, Copy)]
enum Last {
    None,
    Route,
    Adopted,
}

struct Route<S> {
    row: Row,
    description: Description,
    bounds: Arc<Bounds>,
    run: Run<S>,
}

struct Adopted<S> {
    row: Row,
    router: axum::Router<S>,
}

impl<S> std::fmt::Debug for Api<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.routes.iter().map(|route| &route.row))
            .entries(self.adopted.iter().map(|adopted| &adopted.row))
            .finish()
    }
}

impl<S> Default for Api<S> {
    fn default() -> Self {
        let (routes, adopted, flaws, readers) = Default::default();
        Self { routes, adopted, last: Last::None, flaws, readers }
    }
}

impl<S: Clone + Send + Sync + 'static> Api<S> {
    /// No routes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares a GET route (and HEAD with it). `path` is `/literal/{parameter}/…`.
    #[must_use]
    pub fn get<P: Stated, A: 'static>(self, path: &str, route: Read<P>, handler: impl Endpoint<S, P, A>) -> Self {
        let Read { summary, access, rate, cache } = route;
        self.add(Verb::Get, path, Terms { summary, access, rate, csrf: None, cache }, handler)
    }

    /// Declares a POST route.
    #[must_use]
    pub fn post<P: Stated, A: 'static>(self, path: &str, route: Write<P>, handler: impl Endpoint<S, P, A>) -> Self {
        self.add(Verb::Post, path, route.into(), handler)
    }

    /// Declares a PUT route.
    #[must_use]
    pub fn put<P: Stated, A: 'static>(self, path: &str, route: Write<P>, handler: impl Endpoint<S, P, A>) -> Self {
        self.add(Verb::Put, path, route.into(), handler)
    }

    /// Declares a PATCH route.
    #[must_use]
    pub fn patch<P: Stated, A: 'static>(self, path: &str, route: Write<P>, handler: impl Endpoint<S, P, A>) -> Self {
        self.add(Verb::Patch, path, route.into(), handler)
    }

    /// Declares a DELETE route.
    #[must_use]
    pub fn delete<P: Stated, A: 'static>(self, path: &str, route: Write<P>, handler: impl Endpoint<S, P, A>) -> Self {
        self.add(Verb::Delete, path, route.into(), handler)
    }

    /// Takes over the routes of another `Api`: how an application keeps one `Api` per noun.
    #[must_use]
    pub fn merge(mut self, other: Api<S>) -> Self {
        self.routes.extend(other.routes);
        self.adopted.extend(other.adopted);
        self.flaws.extend(other.flaws);
        self.readers.extend(other.readers);
        self.last = Last::None;
        self
    }

    /// Gives these routes their state, so that they can be merged into an `Api` whose state is another.
    #[must_use]
    pub fn with_state<T: Clone + Send + Sync + 'static>(self, state: S) -> Api<T> {
        let route = |Route { row, description, bounds, run }: Route<S>| {
            let state = state.clone();
            let run: Run<T> = Arc::new(move |incoming, _| run(incoming, state.clone()));
            Route { row, description, bounds, run }
        };
        let adopted = |Adopted { row, router }: Adopted<S>| Adopted { row, router: router.with_state(state.clone()) };
        Api {
            routes: self.routes.into_iter().map(route).collect(),
            adopted: self.adopted.into_iter().map(adopted).collect(),
            last: self.last,
            flaws: self.flaws,
            readers: self.readers,
        }
    }

    /// Has the finished document told to `reader`: how a route can answer with the description of the table it is in.
    pub(crate) fn describes_itself(
        mut self,
        reader: impl FnOnce(&serde_json::Value) -> Result<(), serde_json::Error> + Send + 'static,
    ) -> Self {
        self.readers.push(Box::new(reader));
        self
    }

    /// Keeps a plain axum router (WebSocket, upload stream, static files) below `prefix`, as one row marked *adopted*.
    ///
    /// The gate decides for the whole prefix before the router sees anything; there `Permit<A>` works as an ordinary
    /// extractor. The exception costs a sentence: it heads the printed table. The OpenAPI document only names it.
    #[must_use]
    pub fn adopt<P: Stated>(mut self, prefix: &str, route: Write<P>, why: Because, router: axum::Router<S>) -> Self {
        let mut row = Terms::from(route).row(Verb::Any, prefix, "axum::Router");
        row.operation_id = String::new();
        row.adopted = Some(why.sentence());
        self.adopted.push(Adopted { row, router });
        self.last = Last::Adopted;
        self
    }

    /// Puts the route just declared under a heading of the document.
    #[must_use]
    pub fn tag(mut self, name: &'static str) -> Self {
        match self.last_row() {
            Some(row) => row.tags.push(name),
            None => self.flaws.push(Fault::general(Flaw::NothingDeclared("tag"))),
        }
        self
    }

    /// Gives the route just declared its own largest body, in bytes.
    #[must_use]
    pub fn body_limit(mut self, bytes: usize) -> Self {
        match self.last_row() {
            Some(row) => row.body_limit = Some(bytes),
            None => self.flaws.push(Fault::general(Flaw::NothingDeclared("body_limit"))),
        }
        self
    }

    fn last_row(&mut self) -> Option<&mut Row> {
        match self.last {
            Last::None => None,
            Last::Route => self.routes.last_mut().map(|route| &mut route.row),
            Last::Adopted => self.adopted.last_mut().map(|adopted| &mut adopted.row),
        }
    }

    fn add<P: Stated, A: 'static, H: Endpoint<S, P, A>>(
        mut self,
        verb: Verb,
        path: &str,
        terms: Terms<P>,
        handler: H,
    ) -> Self {
        let mut description = Description::default();
        H::describe(&mut description);
        let mut row = terms.row(verb, path, std::any::type_name::<H>());
        row.status = description.status;
        let handler = Arc::new(handler);
        let run: Run<S> = Arc::new(move |incoming, state| {
            let handler = Arc::clone(&handler);
            Box::pin(async move { handler.serve(incoming, &state).await })
        });
        let bounds = Arc::new(Bounds::of(&description));
        self.routes.push(Route { row, description, bounds, run });
        self.last = Last::Route;
        self
    }
}

/// [`Read`] and [`Write`] as one: a read has no CSRF answer because it has no CSRF question.
struct Terms<P> {
    summary: &'static str,
    access: P,
    rate: RateClass,
    csrf: Option<Csrf>,
    cache: Cache,
}

impl<P> From<Write<P>> for Terms<P> {
    fn from(route: Write<P>) -> Self {
        let Write { summary, access, rate, csrf, cache } = route;
        Self { summary, access, rate, csrf: Some(csrf), cache }
    }
}

impl<P: Stated> Terms<P> {
    fn row(self, method: Verb, path: &str, handler: &'static str) -> Row {
        let action = self.access.action();
        Row {
            method,
            path: path.to_owned(),
            access: self.access.access(),
            rate: self.rate,
            csrf: self.csrf,
            cache: self.cache,
            summary: self.summary,
            operation_id: row::operation_id(handler),
            status: 200,
            handler,
            body_limit: None,
            tags: Vec::new(),
            adopted: None,
            index: 0,
            action,
        }
    }
}
