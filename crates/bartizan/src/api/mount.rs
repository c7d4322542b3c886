//! From declarations to an axum router: each route carries its own row, so guard and row cannot drift apart.

use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter};
use bartizan_core::error::Code;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tower::util::option_layer;

use super::bounds::Bounds;
use super::failure::{self, Failure};
use super::gate::Gate;
use super::incoming::Incoming;
use super::row::{Row, Table, Verb};
use super::shortcuts::Shortcuts;
use super::undeclared::{Asker, Undeclared, ask};
use super::{Adopted, Api, Defaults, Fault, Faults, Flaw, Mounted, Route, adopted, fault, openapi};
use crate::answer;
use crate::application::Answering;
use crate::front::{Stack, Visitor, peer};
use crate::guard::Admission;

/// A handler with its arguments taken care of.
pub(super) type Run<S> =
    Arc<dyn Fn(Box<Incoming>, S) -> Pin<Box<dyn Future<Output = Result<Response, Failure>> + Send>> + Send + Sync>;

impl<S: Clone + Send + Sync + 'static> Api<S> {
    /// The only door out: checks every declaration and builds the router, the table and the document.
    ///
    /// Errors: all faults of all rows together, each naming its row.
    pub fn finish<G: Gate>(self, gate: G, defaults: Defaults) -> Result<Mounted<S>, Faults> {
        self.finish_before(axum::Router::new(), gate, &defaults, |_| None)
    }

    /// As [`Api::finish`], in front of an application's own router and behind `front`. What is declared is served from the
    /// declaration; of `app` only the paths are used, to tell an undeclared route from a path that nobody has.
    ///
    /// Errors: as [`Api::finish`].
    pub(crate) fn finish_before<G: Gate>(
        mut self,
        app: axum::Router<S>,
        gate: G,
        defaults: &Defaults,
        front: impl FnOnce(&Table) -> Option<Stack>,
    ) -> Result<Mounted<S>, Faults> {
        let (table, openapi) = self.describe(defaults)?;
        for reader in std::mem::take(&mut self.readers) {
            let told = reader(&openapi);
            told.map_err(|cause| Faults(vec![Fault::general(Flaw::Indescribable(cause.to_string()))]))?;
        }
        let front = front(&table);
        let (router, shortcuts) = self.router(app, gate, front);
        Ok(Mounted { router, shortcuts, table, openapi })
    }

    /// The table and the document, without a gate and without serving: for the command line.
    ///
    /// Errors: as [`Api::finish`].
    pub fn describe(&mut self, defaults: &Defaults) -> Result<(Table, serde_json::Value), Faults> {
        let rows = self.routes.iter_mut().map(|route| &mut route.row);
        for (index, row) in rows.chain(self.adopted.iter_mut().map(|adopted| &mut adopted.row)).enumerate() {
            row.body_limit.get_or_insert(defaults.body);
            row.index = index;
        }
        let mut faults = std::mem::take(&mut self.flaws);
        faults.extend(fault::of_rows(
            self.routes.iter().map(|route| &route.row),
            self.adopted.iter().map(|adopted| &adopted.row),
        ));
        let declared: Vec<_> = self.routes.iter().map(|route| (&route.row, &route.description)).collect();
        let adopted: Vec<_> = self.adopted.iter().map(|adopted| &adopted.row).collect();
        let openapi = openapi::document(&declared, &adopted, &defaults.info, &mut faults);
        if !faults.is_empty() {
            let names: Vec<String> = declared.iter().map(|(row, _)| row.name()).collect();
            faults.sort_by_key(|fault| names.iter().position(|name| *name == fault.row).unwrap_or(names.len()));
            return Err(Faults(faults));
        }
        let rows = declared.iter().map(|(row, _)| *row).chain(adopted).cloned().collect();
        Ok((Table::new(rows), openapi))
    }

    fn router<G: Gate>(self, app: axum::Router<S>, gate: G, front: Option<Stack>) -> (axum::Router<S>, Shortcuts<S>) {
        let mut paths: BTreeMap<String, Vec<Route<S>>> = BTreeMap::new();
        for route in self.routes {
            paths.entry(route.row.path.clone()).or_default().push(route);
        }
        let (mut router, mut shortcuts) = (axum::Router::new(), Shortcuts::default());
        for (path, routes) in paths {
            router = router.route(&path, methods(routes, &gate, front.as_ref(), &mut shortcuts));
        }
        for Adopted { row, router: adopted } in self.adopted {
            let (prefix, index) = (row.path.clone(), row.index);
            let guarded = adopted::guarded(adopted, Arc::new(row), gate.clone());
            router =
                router.nest(&prefix, guarded.layer(option_layer(front.as_ref().map(|front| front.at(index, None)))));
        }
        let undeclared = Undeclared::of(app);
        let stray = move |State(state): State<S>, request: Request| {
            let (gate, undeclared) = (gate.clone(), undeclared.clone());
            async move {
                let known = undeclared.as_ref().map(|undeclared| undeclared.asker(state));
                stray(request, gate, Stray::Path(known)).await
            }
        };
        (router.fallback(stray.layer(option_layer(front))), shortcuts)
    }
}

/// All routes of one path, and the answer to every other method.
fn methods<S, G>(
    routes: Vec<Route<S>>,
    gate: &G,
    front: Option<&Stack>,
    shortcuts: &mut Shortcuts<S>,
) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
    G: Gate,
{
    let allow = allow(routes.iter().map(|route| route.row.method));
    let mut methods = MethodRouter::new();
    for Route { row, run, bounds, .. } in routes {
        let filter = match row.method {
            // axum answers HEAD with GET's head.
            Verb::Get => MethodFilter::GET,
            Verb::Post => MethodFilter::POST,
            Verb::Put => MethodFilter::PUT,
            Verb::Patch => MethodFilter::PATCH,
            Verb::Delete => MethodFilter::DELETE,
            // Only adopted routers have it, and they are nested.
            Verb::Any => continue,
        };
        let front = front.map(|front| front.at(row.index, Some(row.cache.into())));
        let row = Arc::new(row);
        let arrival = Arrival(Arc::new(Entrance { row: Arc::clone(&row), bounds, run, gate: gate.clone(), front }));
        let shortcut = arrival.clone();
        let arrive = move |request: Request, state, peer| shortcut.clone().answer(request, state, peer);
        shortcuts.add(row.method, &row.path, Box::new(arrive));
        methods = methods.on::<_, Direct>(filter, arrival);
    }
    let gate = gate.clone();
    let stray = move |request: Request| {
        let (gate, allow) = (gate.clone(), allow.clone());
        async move { stray(request, gate, Stray::Method(allow)).await }
    };
    methods.fallback(stray.layer(option_layer(front.cloned())))
}

/// One declared route and what stands before it.
struct Entrance<S, G> {
    row: Arc<Row>,
    bounds: Arc<Bounds>,
    run: Run<S>,
    gate: G,
    front: Option<Stack>,
}

/// The entrance as axum calls it: one function and one future from the first header to the last, since each layer between
/// would move the request and its future once more.
struct Arrival<S, G>(Arc<Entrance<S, G>>);

/// Marks a handler that takes the request as it is.
struct Direct;

impl<S, G> Clone for Arrival<S, G> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Clone + Send + Sync + 'static, G: Gate> Handler<Direct, S> for Arrival<S, G> {
    type Future = Answering;

    fn call(self, request: Request, state: S) -> Answering {
        let peer = peer(&request);
        self.answer(request, state, peer)
    }
}

impl<S: Send + Sync + 'static, G: Gate> Arrival<S, G> {
    fn answer(self, request: Request, state: S, peer: Option<IpAddr>) -> Answering {
        let entrance = self.0;
        let entered = match entrance.front.as_ref().map(|front| front.enter(&request, peer)) {
            Some(Err(response)) => return Box::pin(ready(*response)),
            Some(Ok(entered)) => Some(entered),
            None => None,
        };
        let noted = || Visitor::noted(request.extensions());
        let visitor = entered.as_ref().map_or_else(noted, |entered| entered.visitor);
        let incoming = Box::new(Incoming::new(request, &entrance.row, &entrance.bounds));
        Box::pin(async move {
            let answering = pin!(entrance.serve(visitor, incoming, state));
            match entrance.front.as_ref().zip(entered) {
                Some((front, entered)) => front.leave(entered, answering).await,
                None => entrance.row.cache.keep(answering.await),
            }
        })
    }
}

impl<S, G: Gate> Entrance<S, G> {
    /// The order of decisions: gate, then size, then the arguments in their order, then the handler.
    async fn serve(&self, visitor: Visitor, mut incoming: Box<Incoming>, state: S) -> Response {
        let row = &*self.row;
        let Admission { grant, headers } = match self.gate.admit(row, &visitor, &mut incoming.parts).await {
            Ok(admission) => admission,
            Err(refused) => return close(refused),
        };
        let outcome = match incoming.admit(grant) {
            Ok(()) => (self.run)(incoming, state).await,
            Err(failure) => Err(failure),
        };
        let mut response =
            outcome.unwrap_or_else(|failure| close(failure::answer(failure, visitor.request, &row.path)));
        merge_headers(&mut response, headers);
        response
    }
}

fn allow(verbs: impl Iterator<Item = Verb>) -> HeaderValue {
    let mut names: Vec<&str> = verbs.map(Verb::as_str).chain([Method::OPTIONS.as_str()]).collect();
    if names.contains(&Verb::Get.as_str()) {
        names.push(Method::HEAD.as_str());
    }
    names.sort_unstable();
    HeaderValue::try_from(names.join(", ")).unwrap_or(HeaderValue::from_static(""))
}

/// What a request strayed from.
enum Stray {
    /// No such path, unless the application has one that it did not declare.
    Path(Option<Asker>),
    /// The path has other methods: these.
    Method(HeaderValue),
}

async fn stray<G: Gate>(request: Request, gate: G, stray: Stray) -> Response {
    let (mut parts, _) = request.into_parts();
    let id = Visitor::noted(&parts.extensions).request;
    let headers = match gate.stray(&mut parts).await {
        Ok(headers) => headers,
        Err(refused) => return close(refused),
    };
    let mut response = match stray {
        Stray::Path(app) => {
            // Asked only of those whom the gate let through: nobody writes our log at will.
            if let Some(route) = ask(app, &parts).await {
                gate.undeclared(&parts, &route);
            }
            // The same answer either way: from outside there is no telling what the application forgot.
            answer::refuse(Code::NotFound.into(), id)
        }
        Stray::Method(allow) => {
            let mut response = if parts.method == Method::OPTIONS {
                let mut response = Response::default();
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            } else {
                answer::refuse(Code::MethodNotAllowed.into(), id)
            };
            response.headers_mut().insert(header::ALLOW, allow);
            response
        }
    };
    merge_headers(&mut response, headers);
    close(response)
}

/// What is not a success is never kept by anybody.
pub(super) fn close(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The gate's headers go onto success and error alike, and win.
pub(super) fn merge_headers(response: &mut Response, headers: HeaderMap) {
    response.headers_mut().extend(headers);
}
