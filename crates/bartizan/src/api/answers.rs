//! What a handler may answer: status and schema belong to the type.

use std::borrow::Cow;
use std::marker::PhantomData;

use axum::body::{Body, Bytes};
use axum::response::Response;
use bartizan_core::browser::SecurityHeaders;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use super::call::Sealed;
use super::failure::Failure;

/// An answer with a fixed status and schema.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an answer a route may give",
    label = "not an answer",
    note = "wrap it: `Found(value)` for 200, `Created(value)` for 201, `Done` for 204, `Page` for a list"
)]
pub trait Answer: Sealed + Sized {
    /// The status of success.
    const STATUS: StatusCode;
    /// The schema of the body; `None` for an empty one.
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema>;
    /// What the body's type is called, for faults.
    fn name() -> &'static str {
        std::any::type_name::<Self>()
    }
    /// Renders it; an answer that cannot be serialised is a fault.
    fn render(self) -> Result<Response, Failure>;
}

fn json(status: StatusCode, bytes: Bytes) -> Response {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    *response.headers_mut() = HeaderMap::with_capacity(SecurityHeaders::OF_DATA);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn serialised<T: Serialize>(value: &T) -> Result<Bytes, Failure> {
    // Most answers fit: no second allocation while they are written.
    let mut bytes = Vec::with_capacity(512);
    serde_json::to_writer(&mut bytes, value).map_err(Failure::fault)?;
    Ok(bytes.into())
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// 200 with a JSON body.
#[derive(Clone, Debug)]
pub struct Found<T>(pub T);

impl<T> Sealed for Found<T> {}

impl<T: Serialize + JsonSchema> Answer for Found<T> {
    const STATUS: StatusCode = StatusCode::OK;
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<T>())
    }
    fn render(self) -> Result<Response, Failure> {
        Ok(json(Self::STATUS, serialised(&self.0)?))
    }
}

/// 201 with a JSON body: what was created.
#[derive(Clone, Debug)]
pub struct Created<T>(pub T);

impl<T> Sealed for Created<T> {}

impl<T: Serialize + JsonSchema> Answer for Created<T> {
    const STATUS: StatusCode = StatusCode::CREATED;
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<T>())
    }
    fn render(self) -> Result<Response, Failure> {
        Ok(json(Self::STATUS, serialised(&self.0)?))
    }
}

/// 204: done, nothing to say.
#[derive(Clone, Copy, Debug)]
pub struct Done;

impl Sealed for Done {}

impl Answer for Done {
    const STATUS: StatusCode = StatusCode::NO_CONTENT;
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn render(self) -> Result<Response, Failure> {
        Ok(empty(Self::STATUS))
    }
}

/// 200 with an empty body, where a standard asks for exactly that (RFC 7009 section 2.2). Elsewhere use [`Done`].
#[derive(Clone, Copy, Debug)]
pub struct Accepted;

impl Sealed for Accepted {}

impl Answer for Accepted {
    const STATUS: StatusCode = StatusCode::OK;
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn render(self) -> Result<Response, Failure> {
        Ok(empty(Self::STATUS))
    }
}

/// 200 with one page of a list: `{"items": […], "next": cursor or null}`.
#[derive(Clone, Debug, Serialize)]
pub struct Page<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// The cursor to ask for the next page with; `None` on the last one.
    pub next: Option<String>,
}

impl<T: JsonSchema> JsonSchema for Page<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("PageOf{}", T::schema_name()).into()
    }
    fn schema_id() -> Cow<'static, str> {
        format!("bartizan::Page<{}>", T::schema_id()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "properties": {
                "items": { "type": "array", "items": generator.subschema_for::<T>() },
                "next": {
                    "type": ["string", "null"],
                    "description": "Ask for the next page with this cursor; null on the last one."
                }
            },
            "required": ["items", "next"]
        })
    }
}

impl<T> Sealed for Page<T> {}

impl<T: Serialize + JsonSchema> Answer for Page<T> {
    const STATUS: StatusCode = StatusCode::OK;
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<Page<T>>())
    }
    fn render(self) -> Result<Response, Failure> {
        Ok(json(Self::STATUS, serialised(&self)?))
    }
}

/// 200 with a JSON document that was serialised once and is shared: key sets, the OpenAPI document. Cheap to clone.
#[derive(Debug)]
pub struct Document<T> {
    bytes: Bytes,
    of: PhantomData<fn() -> T>,
}

/// By hand: a derive would ask `T: Clone`, and there is no `T` inside.
impl<T> Clone for Document<T> {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.clone(), of: PhantomData }
    }
}

impl<T: Serialize> Document<T> {
    /// Serialises `value` now, for every answer to come.
    pub fn new(value: &T) -> Result<Self, serde_json::Error> {
        Ok(Self { bytes: serde_json::to_vec(value)?.into(), of: PhantomData })
    }
}

impl<T> Sealed for Document<T> {}

impl<T: Serialize + JsonSchema> Answer for Document<T> {
    const STATUS: StatusCode = StatusCode::OK;
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<T>())
    }
    fn render(self) -> Result<Response, Failure> {
        Ok(json(Self::STATUS, self.bytes))
    }
}

/// An answer that also sets a cookie. Only `__Host-` cookies with `Secure` and `HttpOnly` are let out.
#[derive(Clone, Debug)]
pub struct WithCookie<A> {
    /// The answer.
    pub answer: A,
    /// The whole value of `Set-Cookie`.
    pub cookie: HeaderValue,
}

impl<A> Sealed for WithCookie<A> {}

impl<A: Answer> Answer for WithCookie<A> {
    const STATUS: StatusCode = A::STATUS;
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        A::schema(generator)
    }
    fn name() -> &'static str {
        A::name()
    }
    fn render(self) -> Result<Response, Failure> {
        let text = self.cookie.to_str().unwrap_or_default();
        let sound = text.starts_with("__Host-") && text.contains("; Secure") && text.contains("; HttpOnly");
        if !sound {
            return Err(Failure::fault("a cookie without its protections was about to be set"));
        }
        let mut response = self.answer.render()?;
        response.headers_mut().append(header::SET_COOKIE, self.cookie);
        Ok(response)
    }
}
