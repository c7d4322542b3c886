//! The declared routes without parameters, found by one look-up.

use std::collections::HashMap;
use std::net::IpAddr;

use axum::extract::Request;
use http::Method;

use super::row::Verb;
use crate::application::Answering;

/// A route's entrance, for whoever knows the other end of the connection.
pub(super) type Arrive<S> = Box<dyn Fn(Request, S, Option<IpAddr>) -> Answering + Send + Sync>;

/// What a listener of our own asks before axum's router. A request that is not found here, `HEAD` and every refusal among
/// them, goes to the router; one that is found meets there the very same entrance.
pub(crate) struct Shortcuts<S>(HashMap<String, Vec<(Method, Arrive<S>)>, foldhash::fast::RandomState>);

/// By hand: entrances are functions.
impl<S> std::fmt::Debug for Shortcuts<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<S> Default for Shortcuts<S> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<S> Shortcuts<S> {
    pub(super) fn add(&mut self, verb: Verb, path: &str, arrive: Arrive<S>) {
        if let Ok(method) = Method::from_bytes(verb.as_str().as_bytes())
            && !path.contains('{')
        {
            self.0.entry(path.to_owned()).or_default().push((method, arrive));
        }
    }

    pub(crate) fn find(&self, method: &Method, path: &str) -> Option<&Arrive<S>> {
        let routes = self.0.get(path)?;
        routes.iter().find(|(known, _)| known == method).map(|(_, arrive)| arrive)
    }
}
