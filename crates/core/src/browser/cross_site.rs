//! Cross-site request forgery: did this request come from somebody else's page?
//!
//! What it allows, in this order:
//! 1. methods that change nothing (GET, HEAD, OPTIONS);
//! 2. requests whose credential the sender wrote down himself: no page can make a browser do that for it;
//! 3. `Sec-Fetch-Site: same-origin`, or `none` (the user typed the address);
//! 4. an `Origin` that is the server's own or one of the origins it trusts;
//! 5. without either header: requests that carry no cookie, which means programs.
//!
//! What it refuses: the rest; `same-site` too, since a neighbour's subdomain is not ours, and either header sent twice.
//!
//! Deployment caveat: a request without a cookie is judged too when a browser's headers are there. Otherwise a page
//! could log its visitor into the attacker's account.

use http::header::{HeaderName, ORIGIN};
use http::{HeaderMap, HeaderValue, Method};

use super::headers::Transport;
use super::origin::Origin;
use crate::error::{Code, Refusal};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How the request's credential came along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// In a header that the sender wrote: a bearer token or an API key.
    Written,
    /// In a cookie that the browser added by itself.
    Cookie,
    /// There is none: a login, a sign-up.
    Nothing,
}

/// What is known about where a request came from.
#[derive(Clone, Copy, Debug)]
pub struct Provenance<'a> {
    /// The method.
    pub method: &'a Method,
    /// The headers, as received.
    pub headers: &'a HeaderMap,
    /// The authority the request was sent to: `:authority` or `Host`.
    pub host: Option<&'a str>,
    /// How browsers reach this server.
    pub transport: Transport,
    /// How the credential came along.
    pub carried: Carried,
}

/// Refuses a state-changing request that another site's page may have sent. `trusted` are the configured own
/// origins and those of the CORS list. Cost: a few comparisons, no allocation unless it refuses.
pub fn cross_site(request: &Provenance<'_>, trusted: &[Origin]) -> Result<(), Refusal> {
    if matches!(*request.method, Method::GET | Method::HEAD | Method::OPTIONS) || request.carried == Carried::Written {
        return Ok(());
    }
    let site = single(request.headers, &SEC_FETCH_SITE)?;
    let origin = single(request.headers, &ORIGIN)?;
    let allowed = match (site, origin) {
        (Some(site), _) if site == "same-origin" || site == "none" => true,
        (Some(_), Some(origin)) => is_trusted(origin, trusted),
        (Some(_), None) => false,
        (None, Some(origin)) => is_trusted(origin, trusted) || is_own(origin, request),
        (None, None) => request.carried == Carried::Nothing,
    };
    if allowed { Ok(()) } else { Err(Code::CrossSite.into()) }
}

/// The one value of a header. Two values mean that two parties may read two different ones.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(Code::CrossSite.into()),
    }
}

fn is_trusted(origin: &HeaderValue, trusted: &[Origin]) -> bool {
    trusted.iter().any(|known| origin.as_bytes() == known.as_str().as_bytes())
}

/// Whether the origin is the very host that the request was sent to. A browser fills in both, so a page on another
/// host cannot make them equal.
fn is_own(origin: &HeaderValue, request: &Provenance<'_>) -> bool {
    let scheme: &[u8] = match request.transport {
        Transport::Https => b"https://",
        Transport::Plain => b"http://",
    };
    let Some(host) = request.host.filter(|host| !host.is_empty()) else { return false };
    origin.as_bytes().strip_prefix(scheme).is_some_and(|rest| rest.eq_ignore_ascii_case(host.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(method: Method, carried: Carried, headers: &[(&'static str, &'static str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let trusted = [Origin::parse("https://app.example.com").unwrap()];
        let request = Provenance {
            method: &method,
            headers: &map,
            host: Some("api.example.com"),
            transport: Transport::Https,
            carried,
        };
        match cross_site(&request, &trusted) {
            Ok(()) => true,
            Err(refusal) => {
                assert_eq!(refusal.code, Code::CrossSite);
                false
            }
        }
    }

    #[test]
    fn fetch_metadata_decides_first_and_then_the_origin() {
        const SITE: &str = "sec-fetch-site";
        for (headers, allowed) in [
            (&[(SITE, "same-origin")][..], true),
            (&[(SITE, "none")], true),
            (&[(SITE, "same-site")], false),
            (&[(SITE, "cross-site")], false),
            (&[(SITE, "")], false),
            (&[(SITE, "Same-Origin")], false),
            (&[(SITE, "same-origin"), (SITE, "cross-site")], false),
            (&[(SITE, "cross-site"), ("origin", "https://app.example.com")], true),
            (&[(SITE, "cross-site"), ("origin", "https://evil.example")], false),
            (&[(SITE, "cross-site"), ("origin", "https://api.example.com")], false),
            (&[(SITE, "cross-site"), ("origin", "null")], false),
            (&[("origin", "https://api.example.com")], true),
            (&[("origin", "https://app.example.com")], true),
            (&[("origin", "http://api.example.com")], false),
            (&[("origin", "https://api.example.com:8443")], false),
            (&[("origin", "https://api.example.com.evil.example")], false),
            (&[("origin", "https://evilapi.example.com")], false),
            (&[("origin", "https://app.example.com"), ("origin", "https://evil.example")], false),
            (&[("origin", "null")], false),
            (&[("origin", "")], false),
            (&[("referer", "https://api.example.com/x")], false),
            (&[], false),
        ] {
            for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::TRACE] {
                assert_eq!(judged(method, Carried::Cookie, headers), allowed, "{headers:?}");
            }
            assert!(judged(Method::GET, Carried::Cookie, headers), "{headers:?}");
            assert!(judged(Method::POST, Carried::Written, headers), "{headers:?}");
        }
    }

    #[test]
    fn a_page_cannot_log_its_visitor_in_but_a_program_can() {
        assert!(judged(Method::POST, Carried::Nothing, &[]));
        assert!(!judged(Method::POST, Carried::Nothing, &[("sec-fetch-site", "cross-site")]));
        assert!(!judged(Method::POST, Carried::Nothing, &[("origin", "https://evil.example")]));
        assert!(judged(Method::POST, Carried::Nothing, &[("origin", "https://api.example.com")]));
    }

    #[test]
    fn without_a_host_no_origin_is_ones_own() {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_static("https://"));
        for host in [None, Some("")] {
            let request = Provenance {
                method: &Method::POST,
                headers: &headers,
                host,
                transport: Transport::Https,
                carried: Carried::Cookie,
            };
            assert!(cross_site(&request, &[]).is_err());
        }
    }
}
