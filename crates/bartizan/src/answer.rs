//! Refusals and faults as HTTP answers: `application/problem+json`, always.

use axum::body::Body;
use bartizan_core::error::{Code, Problem, Refusal};
use bartizan_core::id::RequestId;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

/// The header that carries the request id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Renders a refusal for the request `id`.
pub fn refuse(refusal: Refusal, id: RequestId) -> Response<Body> {
    problem(refusal, id).map(Body::from)
}

/// As [`refuse`], with the body as bytes.
pub(crate) fn problem(refusal: Refusal, id: RequestId) -> Response<Vec<u8>> {
    let status = StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let code = refusal.code;
    let wait = refusal.retry_after;
    let body = serde_json::to_vec(&Problem::of(refusal, id)).unwrap_or_default();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(wait) = wait {
        // Rounded up: a client that waits exactly this long is admitted.
        headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_millis().div_ceil(1000).min(86_400) as u64));
    }
    if status == StatusCode::UNAUTHORIZED {
        let challenge = match code {
            Code::CredentialMissing | Code::LoginFailed => "Bearer",
            _ => "Bearer error=\"invalid_token\"",
        };
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    // What the layers around need for metrics and logs.
    response.extensions_mut().insert(code);
    response
}
