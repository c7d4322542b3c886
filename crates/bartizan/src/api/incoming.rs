//! A request on its way into a handler's arguments.

use std::any::TypeId;
use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use axum::extract::Request;
use bartizan_core::error::{Code, FieldError, Refusal};
use bartizan_core::input::IdempotencyKey;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::bounds::Bounds;
use super::failure::Failure;
use super::row::Row;
use crate::guard::{Grant, Idempotency};

/// The header by which a client makes a change repeatable.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The media types a handler can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    /// `application/json`
    Json,
    /// `application/x-www-form-urlencoded`
    Form,
}

impl Media {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Media::Json => "application/json",
            Media::Form => "application/x-www-form-urlencoded",
        }
    }
}

/// A request on its way. The body waits in it until an argument takes it, so arguments stand in any order.
pub struct Incoming {
    pub(super) parts: Parts,
    body: axum::body::Body,
    grant: Option<Grant>,
    once: Option<Arc<Idempotency>>,
    row: Arc<Row>,
    pub(super) bounds: Arc<Bounds>,
}

/// By hand: the head holds credentials.
impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("row", &self.row.name()).finish_non_exhaustive()
    }
}

impl Incoming {
    /// A request for `row`, before anybody has admitted it.
    pub(super) fn new(request: Request, row: &Arc<Row>, bounds: &Arc<Bounds>) -> Self {
        let (parts, body) = request.into_parts();
        Self { parts, body, grant: None, once: None, row: Arc::clone(row), bounds: Arc::clone(bounds) }
    }

    /// Admits it; refuses a body that is announced as too large and a bad `Idempotency-Key`.
    pub(super) fn admit(&mut self, mut grant: Grant) -> Result<(), Failure> {
        if announced_length(&self.parts.headers, &self.body) > limit(&self.row) {
            return Err(too_large(&self.row));
        }
        let key = if self.row.csrf.is_some() { idempotency_key(&self.parts.headers)? } else { None };
        self.once = key.map(|key| {
            let target = format!("{} {}", self.parts.method, self.parts.uri.path());
            Arc::new(Idempotency { key, target, body: OnceLock::new() })
        });
        grant.idempotency.clone_from(&self.once);
        self.grant = Some(grant);
        Ok(())
    }

    /// Hands the grant out, once, and only for the action the row states.
    pub(super) fn grant_for(&mut self, action: Option<TypeId>) -> Result<Grant, Failure> {
        if self.row.action != action {
            return Err(Failure::fault("a permit was asked for that the route does not state"));
        }
        self.grant.take().ok_or_else(|| Failure::fault("a permit was asked for twice"))
    }

    /// Whether the client names a media type at all.
    pub(super) fn announces_media(&self) -> bool {
        self.parts.headers.contains_key(CONTENT_TYPE)
    }

    /// Refuses any other media type than `media`, without reading.
    pub(super) fn require_media(&self, media: Media) -> Result<(), Failure> {
        if is_media(&self.parts.headers, media) {
            return Ok(());
        }
        let detail = format!("This operation reads {}.", media.as_str());
        Err(Refusal::new(Code::MediaTypeUnsupported).detail(detail).into())
    }

    /// Reads the body to its end, at most to the row's limit: never more than that is held in memory.
    pub(super) async fn read_body(&mut self) -> Result<Bytes, Failure> {
        let body = std::mem::take(&mut self.body);
        match Limited::new(body, limit(&self.row)).collect().await {
            Ok(collected) => {
                let bytes = collected.to_bytes();
                if let Some(once) = &self.once {
                    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
                    // The body is read once; a second digest would be of nothing.
                    let _ = once.body.set(digest.as_ref().try_into().unwrap_or_default());
                }
                Ok(bytes)
            }
            Err(cause) if cause.is::<LengthLimitError>() => Err(too_large(&self.row)),
            // The client went away or broke the framing; there is usually nobody left to read this.
            Err(_) => Err(Refusal::new(Code::JsonInvalid).detail("The body could not be read to its end.").into()),
        }
    }
}

/// No default means no body: `finish` fills the limit in.
pub(super) fn limit(row: &Row) -> usize {
    row.body_limit.unwrap_or(0)
}

pub(super) fn too_large(row: &Row) -> Failure {
    let detail = format!("This operation reads at most {} bytes.", limit(row));
    Refusal::new(Code::BodyTooLarge).detail(detail).into()
}

/// What the client or the transport says about the body's length before it is read. A length that is no number counts as
/// endless.
pub(super) fn announced_length(headers: &HeaderMap, body: &axum::body::Body) -> usize {
    let header = headers
        .get(CONTENT_LENGTH)
        .map_or(0, |value| value.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(usize::MAX));
    header.max(usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX))
}

/// Exactly one `Content-Type`, exactly `media`, with no parameter but `charset=utf-8` (RFC 9110 section 8.3).
fn is_media(headers: &HeaderMap, media: Media) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Ok(text) = value.to_str() else { return false };
    let mut pieces = text.split(';').map(|piece| piece.trim_matches([' ', '\t']));
    let essence = pieces.next().unwrap_or_default();
    let charset = pieces.next();
    essence.eq_ignore_ascii_case(media.as_str())
        && pieces.next().is_none()
        && charset.is_none_or(|text| {
            text.eq_ignore_ascii_case("charset=utf-8") || text.eq_ignore_ascii_case("charset=\"utf-8\"")
        })
}

/// At most one key, quoted or bare: what the document promises is what is accepted.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let mut values = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let fault = match value.to_str().map(IdempotencyKey::parse) {
        Ok(Ok(key)) if values.next().is_none() => return Ok(Some(key.to_string())),
        Ok(Err(fault)) => fault.at("header:idempotency-key"),
        _ => FieldError::new("header:idempotency-key", "header.invalid", "Must be given once, as visible ASCII."),
    };
    Err(Refusal::new(Code::HeaderInvalid).error(fault).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (CONTENT_TYPE, HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn one_media_type_with_at_most_a_utf_8_charset() {
        for good in [
            "application/json",
            "Application/JSON",
            "application/json; charset=UTF-8",
            "application/json;charset=\"utf-8\"",
        ] {
            assert!(is_media(&headers(&[good]), Media::Json), "{good}");
        }
        for bad in [
            "",
            "application/jsonp",
            "text/plain",
            "application/json; charset=latin1",
            "application/json; boundary=x",
            "application/json; charset=utf-8; charset=utf-7",
            "application/json;",
            "application/json, text/plain",
            "application/problem+json",
            "application/x-www-form-urlencoded",
        ] {
            assert!(!is_media(&headers(&[bad]), Media::Json), "{bad}");
        }
        assert!(!is_media(&headers(&[]), Media::Json));
        assert!(!is_media(&headers(&["application/json", "application/json"]), Media::Json));
    }
}
