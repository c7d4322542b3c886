//! The library door: an application and its routes inside the engine's stack.
//!
//! What it allows: requests for routes that an [`Api`] declares, after the guard has said yes, and what an
//! [`Api::adopt`]ed router answers below its prefix, likewise.
//!
//! What it refuses: every route of the application's own router. It is answered with 404 like a path that nobody has, and
//! told to the operator: counted as `route.undeclared` and logged with its template. Nothing of that router runs.
//!
//! Deployment caveats: what is added to the router *after* [`Engine::guard`] stands outside the guard, so that call is
//! the last one before the state and the listener. The listener says who is connected, see [`crate::Peer`].

use std::sync::Arc;

use crate::api::{Api, Defaults, Faults, Mounted, Table};
use crate::application::Application;
use crate::engine::{Engine, StartError};
use crate::front::Front;
use crate::guard::Guard;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::routes::{self, Services};

/// What stands before every application of an engine, its own included.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) guard: Guard,
    pub(crate) front: Front,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) defaults: Defaults,
    pub(crate) services: Services,
}

impl Engine {
    /// Puts an application into the engine: its declared routes behind front, guard and metrics, its plain routes
    /// refused. `app` is the axum router the application had so far, or an empty one.
    ///
    /// The built-in routes are not among them; an application that wants accounts, sessions and tokens beside its own
    /// routes says `engine.guard(app, api.merge(engine.routes()))`.
    ///
    /// ```no_run
    /// # use bartizan::{api::*, engine::Engine, guard::Permit, settings::Settings};
    /// # use bartizan_core::{action::Action, principal::Role};
    /// struct RingTheBell;
    ///
    /// impl Action for RingTheBell {
    ///     const NAME: &'static str = "bells.ring";
    ///     const ROLES: &'static [Role] = &[Role::Owner, Role::Member];
    /// }
    ///
    /// async fn ring(permit: Permit<RingTheBell>) -> Result<Found<String>, Failure> {
    ///     Ok(Found(format!("{} rings", permit.user()?.user)))
    /// }
    ///
    /// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
    /// let engine = Engine::start(Settings::embedded("./bartizan-data")).await?;
    /// let route = Write {
    ///     summary: "Ring the bell",
    ///     access: requires(RingTheBell),
    ///     rate: RateClass::Write,
    ///     csrf: Csrf::Enforced,
    ///     cache: Cache::Private,
    /// };
    /// let api = Api::<()>::new().post("/bell", route, ring).merge(engine.routes());
    /// let router = engine.guard(axum::Router::new(), api)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Everything that is wrong with the declared routes, together.
    pub fn guard<S>(&self, app: axum::Router<S>, api: Api<S>) -> Result<axum::Router<S>, Faults>
    where
        S: Clone + Send + Sync + 'static,
    {
        self.door.before(app, api).map(|mounted| mounted.router)
    }

    /// What writes the application's own events into the audit trail: for its state, as a `Service<Journal>`.
    pub fn journal(&self) -> Journal {
        Journal::new(self.ground.clone())
    }

    /// The built-in routes (`/v1/…`, `/oauth/…`, `/.well-known/…`, `/openapi.json`), for [`Api::merge`].
    ///
    /// `/openapi.json` then describes the whole table they are guarded in: call this once for each table.
    pub fn routes<S: Clone + Send + Sync + 'static>(&self) -> Api<S> {
        self.door.routes()
    }
}

impl Door {
    /// The built-in routes alone, and their table.
    pub(crate) fn own(&self) -> Result<(Application, Table), StartError> {
        let mounted = self.before(axum::Router::new(), self.routes())?;
        Ok((Application::new(mounted.shortcuts, mounted.router), mounted.table))
    }

    fn routes<S: Clone + Send + Sync + 'static>(&self) -> Api<S> {
        let (services, published) = self.services.publishing_beside();
        routes::routes().with_state(services).describes_itself(move |document| published.publish_openapi(document))
    }

    fn before<S>(&self, app: axum::Router<S>, api: Api<S>) -> Result<Mounted<S>, Faults>
    where
        S: Clone + Send + Sync + 'static,
    {
        let front = |table: &Table| Some(self.front.before(self.metrics.of(table)));
        api.finish_before(app, self.guard.clone(), &self.defaults, front)
    }
}

#[cfg(test)]
pub(crate) mod tests;
