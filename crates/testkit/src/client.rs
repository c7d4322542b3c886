//! A small HTTP/1.1 client: keeps its connection, follows nothing, hides nothing.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::DEADLINE;

/// Talks to one server. Cloning is cheap and shares the connections; the headers are each clone's own.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    headers: HeaderMap,
    inner: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
}

impl Client {
    /// A client of the server at `base`, without a credential.
    pub fn new(base: &str) -> Self {
        let inner = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
        Self { base: base.trim_end_matches('/').to_owned(), headers: HeaderMap::new(), inner }
    }

    /// The same client with one more header on each request.
    ///
    /// # Panics
    /// When name or value are not a header.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.insert(
            HeaderName::from_bytes(name.as_bytes()).expect("a header name"),
            HeaderValue::from_str(value).expect("a header value"),
        );
        client
    }

    /// The same client with this access token.
    #[must_use]
    pub fn bearer(&self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }

    /// The address this client talks to.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Asks for `path`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None, Bytes::new()).await
    }

    /// Deletes `path`.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None, Bytes::new()).await
    }

    /// Posts JSON to `path`.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.json(Method::POST, path, body).await
    }

    /// Patches `path` with JSON.
    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.json(Method::PATCH, path, body).await
    }

    /// Sends JSON with any method.
    pub async fn json(&self, method: Method, path: &str, body: Value) -> Answer {
        self.send(method, path, Some("application/json"), body.to_string()).await
    }

    /// Posts a form (`application/x-www-form-urlencoded`), already encoded.
    pub async fn form(&self, path: &str, body: &str) -> Answer {
        self.send(Method::POST, path, Some("application/x-www-form-urlencoded"), body.to_owned()).await
    }

    /// Sends exactly these bytes as a body of this media type.
    ///
    /// # Panics
    /// When there is no answer within the deadline.
    pub async fn send(&self, method: Method, path: &str, media: Option<&str>, body: impl Into<Bytes>) -> Answer {
        let answer = self.try_send(method, path, media, body).await;
        answer.unwrap_or_else(|e| panic!("no answer from {}{path}: {e}", self.base))
    }

    /// As [`Client::send`]; an error when nobody answers, for tests in which that may be.
    ///
    /// # Errors
    /// What went wrong on the way.
    ///
    /// # Panics
    /// When the media type is not one.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        media: Option<&str>,
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(headers) = request.headers_mut() {
            headers.extend(self.headers.clone());
            if let Some(media) = media {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(media).expect("a media type"));
            }
        }
        self.call(request.body(Full::new(body.into())).expect("a request")).await
    }

    /// Asks for `path`; an error when nobody answers, for tests in which that may be.
    pub async fn try_get(&self, path: &str) -> Result<Answer, String> {
        self.try_send(Method::GET, path, None, Bytes::new()).await
    }

    async fn call(&self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let exchange = async {
            let response = self.inner.request(request).await.map_err(|e| format!("{e:?}"))?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|e| format!("{e:?}"))?.to_bytes();
            Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
        };
        tokio::time::timeout(DEADLINE, exchange).await.map_err(|_| "deadline passed".to_owned())?
    }
}

/// What the server said.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub body: Bytes,
}

impl Answer {
    /// Demands a status.
    ///
    /// # Panics
    /// When it is another one; the body is in the message.
    #[must_use = "say `drop` when only the status matters"]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    /// Demands a problem of this status and code, complete and without anything it must not tell.
    ///
    /// # Panics
    /// When the answer is anything else.
    pub fn refused(self, status: u16, code: &str) -> Self {
        let answer = self.problem(status);
        assert_eq!(answer.text("code"), code, "{}", String::from_utf8_lossy(&answer.body));
        answer
    }

    /// Demands a well-formed problem (RFC 9457) of this status, whatever its code.
    ///
    /// # Panics
    /// When the answer is anything else.
    pub fn problem(self, status: u16) -> Self {
        let answer = self.expect(status);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        let body = answer.json();
        for member in ["type", "title", "code", "detail", "instance"] {
            assert!(body[member].is_string(), "no {member} in {body}");
        }
        assert_eq!(body["status"], status, "{body}");
        for leak in ["SELECT ", "INSERT ", "sqlx", "panicked", ".rs:", "stack backtrace"] {
            assert!(!body.to_string().contains(leak), "{leak:?} leaks in {body}");
        }
        answer
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {} {}", self.status, String::from_utf8_lossy(&self.body)))
    }

    /// A text of the body, by name or by JSON Pointer when it begins with `/`.
    ///
    /// # Panics
    /// When there is no such text.
    pub fn text(&self, name: &str) -> String {
        let pointer = if name.starts_with('/') { name.to_owned() } else { format!("/{name}") };
        let body = self.json();
        body.pointer(&pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no text {name} in {body}")).to_owned()
    }

    /// A header, or nothing when it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// The items of a list answer (`items`).
    ///
    /// # Panics
    /// When the answer is not a list.
    pub fn items(&self) -> Vec<Value> {
        let body = self.json();
        body["items"].as_array().unwrap_or_else(|| panic!("not a list: {body}")).clone()
    }
}
