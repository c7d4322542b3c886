//! What anybody may read: the public keys and the description of the API.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::Services;
use crate::api::{Api, Cache, Document, Failure, Found, RateClass, Read, Service, public};

pub(super) fn routes() -> Api<Services> {
    Api::new()
        .get(
            "/",
            Read {
                summary: "Where to find the description of this API",
                access: public("somebody who finds the server may know what it speaks"),
                rate: RateClass::Read,
                cache: Cache::Public(Duration::from_secs(300)),
            },
            root,
        )
        .get(
            "/.well-known/jwks.json",
            Read {
                summary: "The public keys that verify access tokens (RFC 7517)",
                access: public("public keys are public"),
                rate: RateClass::Read,
                cache: Cache::Public(Duration::from_secs(300)),
            },
            jwks,
        )
        .get(
            "/openapi.json",
            Read {
                summary: "This API as an OpenAPI 3.1 document",
                access: public("the contract is no secret"),
                rate: RateClass::Read,
                cache: Cache::Public(Duration::from_secs(300)),
            },
            openapi,
        )
}

/// The documents, serialised when they change and shared by every answer.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    jwks: Arc<ArcSwap<Document<Value>>>,
    openapi: Arc<ArcSwap<Document<Value>>>,
}

impl Published {
    /// With the current keys; the description follows once the table is known.
    pub(crate) fn new(jwks: &Value) -> Result<Self, serde_json::Error> {
        let empty = Value::Object(serde_json::Map::new());
        Ok(Self {
            jwks: Arc::new(ArcSwap::from_pointee(Document::new(jwks)?)),
            openapi: Arc::new(ArcSwap::from_pointee(Document::new(&empty)?)),
        })
    }

    /// The same keys, and room for the description of another table.
    pub(crate) fn beside(&self) -> Self {
        let openapi = Arc::new(ArcSwap::new(self.openapi.load_full()));
        Self { jwks: Arc::clone(&self.jwks), openapi }
    }

    pub(crate) fn publish_jwks(&self, jwks: &Value) -> Result<(), serde_json::Error> {
        self.jwks.store(Arc::new(Document::new(jwks)?));
        Ok(())
    }

    pub(crate) fn publish_openapi(&self, openapi: &Value) -> Result<(), serde_json::Error> {
        self.openapi.store(Arc::new(Document::new(openapi)?));
        Ok(())
    }
}

/// Where to go on.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Root {
    openapi: &'static str,
    jwks: &'static str,
}

async fn root() -> Result<Found<Root>, Failure> {
    Ok(Found(Root { openapi: "/openapi.json", jwks: "/.well-known/jwks.json" }))
}

async fn jwks(Service(published): Service<Published>) -> Result<Document<Value>, Failure> {
    Ok(Document::clone(&published.jwks.load()))
}

async fn openapi(Service(published): Service<Published>) -> Result<Document<Value>, Failure> {
    Ok(Document::clone(&published.openapi.load()))
}
