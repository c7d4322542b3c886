//! The headers of an answer, by its kind.

use std::time::Duration;

use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_DNS_PREFETCH_CONTROL, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::removal::is_removed;

/// What an answer is; it decides which headers protect it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResponseClass {
    /// Data for programs.
    ApiJson,
    /// A page of an own application, with its scripts and styles from the same origin.
    HtmlApp,
    /// A file that a user sent: saved, never shown.
    Download,
    /// A script, style, font or picture of an own application.
    Asset,
    /// An answer whose only content is `Location`.
    Redirect,
    /// A refusal or a fault, whoever made it.
    Error,
}

impl ResponseClass {
    /// Every class, in order of declaration.
    pub const ALL: &'static [ResponseClass] =
        &[Self::ApiJson, Self::HtmlApp, Self::Download, Self::Asset, Self::Redirect, Self::Error];
}

/// How browsers reach this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Over TLS, ended here or at a proxy in front.
    Https,
    /// In the clear, as on a developer's machine.
    Plain,
}

/// Who may keep the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cache {
    /// Nobody: the default for everything that belongs to somebody.
    #[default]
    Private,
    /// Anybody for so long, as for the published keys.
    Public(Duration),
    /// Anybody for a year, since the address changes with the content.
    Immutable,
}

/// Nothing may be loaded, framed, submitted or run, should a browser ever show it.
const INERT: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox";

/// Own scripts and styles only, nothing inline. `data:` pictures cannot act.
const APPLICATION: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'; object-src 'none'";

/// The same, and browsers are to fetch over TLS what a page names in the clear.
const APPLICATION_OVER_TLS: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; \
     form-action 'self'; frame-ancestors 'none'; object-src 'none'; upgrade-insecure-requests";

/// Two years, as the OWASP Secure Headers project advises; no preload, which cannot be taken back.
const HSTS: &str = "max-age=63072000; includeSubDomains";

/// Powerful features that an application's page does not need.
const PERMISSIONS: &str = "accelerometer=(), autoplay=(), bluetooth=(), browsing-topics=(), camera=(), \
     display-capture=(), encrypted-media=(), fullscreen=(), gamepad=(), geolocation=(), gyroscope=(), hid=(), \
     idle-detection=(), local-fonts=(), magnetometer=(), microphone=(), midi=(), payment=(), \
     picture-in-picture=(), publickey-credentials-create=(), screen-wake-lock=(), serial=(), usb=(), web-share=(), \
     xr-spatial-tracking=()";

/// The same for what no browser runs: `sandbox` denies everything already, so the best known ones are enough, and 400
/// bytes less leave with every answer.
const PERMISSIONS_OF_DATA: &str = "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()";

/// The security headers of all classes, made once at start.
///
/// Cost of [`SecurityHeaders::apply`]: one copy of a prepared map of shared values, then the answer's own few headers are
/// put beside them; nothing is formatted, except for [`Cache::Public`].
#[derive(Clone, Debug)]
pub struct SecurityHeaders {
    data: HeaderMap,
    application: HeaderMap,
}

impl SecurityHeaders {
    /// The headers for a server that browsers reach over `transport`.
    pub fn new(transport: Transport) -> Self {
        let (policy, hsts) = match transport {
            Transport::Https => (APPLICATION_OVER_TLS, Some(HSTS)),
            Transport::Plain => (APPLICATION, None),
        };
        Self { data: prepared(INERT, PERMISSIONS_OF_DATA, hsts), application: prepared(policy, PERMISSIONS, hsts) }
    }

    /// Puts an answer of `class` under protection: tell-tale headers go, protecting ones are set, whatever was there.
    ///
    /// A [`ResponseClass::Redirect`] or [`ResponseClass::Error`] is never kept, whatever `cache` says. A
    /// [`ResponseClass::Download`] is an attachment; its handler may have given it a file name.
    pub fn apply(&self, class: ResponseClass, cache: Cache, headers: &mut HeaderMap) {
        let prepared = match class {
            ResponseClass::HtmlApp => &self.application,
            _ => &self.data,
        };
        let own = std::mem::replace(headers, prepared.clone());
        let mut current = None;
        for (name, value) in own {
            // A further value of the same name comes without it.
            current = name.or(current);
            if let Some(name) = current.as_ref().filter(|name| stays(name, prepared)) {
                headers.append(name.clone(), value);
            }
        }
        match (class, cache) {
            (ResponseClass::Redirect | ResponseClass::Error, _) | (_, Cache::Private) => {}
            (_, kept) => {
                headers.insert(CACHE_CONTROL, cache_control(kept));
            }
        }
        if class == ResponseClass::Download {
            let attached =
                headers.get(CONTENT_DISPOSITION).is_some_and(|value| value.as_bytes().starts_with(b"attachment"));
            if !attached {
                headers.insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
            }
        }
    }
}

/// Nobody keeps it.
const NOT_KEPT: &str = "no-store, max-age=0";

fn cache_control(cache: Cache) -> HeaderValue {
    match cache {
        Cache::Private => HeaderValue::from_static(NOT_KEPT),
        Cache::Immutable => HeaderValue::from_static("public, max-age=31536000, immutable"),
        Cache::Public(age) => HeaderValue::from_str(&format!("public, max-age={}", age.as_secs()))
            .unwrap_or(HeaderValue::from_static(NOT_KEPT)),
    }
}

/// The headers every answer of a kind has.
fn prepared(policy: &'static str, permissions: &'static str, hsts: Option<&'static str>) -> HeaderMap {
    let named = HeaderName::from_static;
    let mut headers = HeaderMap::with_capacity(24);
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (X_DNS_PREFETCH_CONTROL, "off"),
        (named("x-permitted-cross-domain-policies"), "none"),
        (named("cross-origin-resource-policy"), "same-origin"),
        (named("cross-origin-opener-policy"), "same-origin"),
        (named("cross-origin-embedder-policy"), "require-corp"),
        (named("permissions-policy"), permissions),
        (CONTENT_SECURITY_POLICY, policy),
        (CACHE_CONTROL, NOT_KEPT),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Over plain HTTP browsers must ignore it (RFC 6797 section 7.2), and it would only mislead a reader.
    if let Some(hsts) = hsts {
        headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(hsts));
    }
    headers
}

/// Whether an answer keeps a header of its own: not one that protects, which is ours to set, nor one that tells tales. The
/// names most answers have are told without a search.
fn stays(name: &HeaderName, prepared: &HeaderMap) -> bool {
    matches!(*name, CONTENT_TYPE | CONTENT_LENGTH)
        || name.as_str().starts_with("ratelimit")
        || (!prepared.contains_key(name) && !is_removed(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(transport: Transport, class: ResponseClass, cache: Cache) -> HeaderMap {
        let mut headers = HeaderMap::new();
        SecurityHeaders::new(transport).apply(class, cache, &mut headers);
        headers
    }

    /// Observatory, algorithm 6: what its twelve tests look for, besides HSTS and redirects which need a connection.
    #[test]
    fn every_class_has_every_header() {
        for class in ResponseClass::ALL {
            let headers = applied(Transport::Https, *class, Cache::Private);
            for (name, value) in [
                ("x-content-type-options", "nosniff"),
                ("x-frame-options", "DENY"),
                ("referrer-policy", "no-referrer"),
                ("cross-origin-resource-policy", "same-origin"),
                ("cross-origin-opener-policy", "same-origin"),
                ("cross-origin-embedder-policy", "require-corp"),
                ("x-permitted-cross-domain-policies", "none"),
                ("x-dns-prefetch-control", "off"),
                ("strict-transport-security", "max-age=63072000; includeSubDomains"),
                ("cache-control", "no-store, max-age=0"),
            ] {
                assert_eq!(headers.get(name).map(HeaderValue::as_bytes), Some(value.as_bytes()), "{class:?} {name}");
            }
            let policy = headers["content-security-policy"].to_str().unwrap();
            for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"] {
                assert!(policy.contains(part), "{class:?}");
            }
            assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("  "), "{class:?}");
            assert_eq!(policy.contains("sandbox"), *class != ResponseClass::HtmlApp);
        }
    }

    #[test]
    fn plain_http_promises_no_tls() {
        for class in ResponseClass::ALL {
            let headers = applied(Transport::Plain, *class, Cache::Private);
            assert!(!headers.contains_key("strict-transport-security"));
            assert!(!headers["content-security-policy"].to_str().unwrap().contains("upgrade"));
        }
    }

    #[test]
    fn only_what_is_public_is_kept() {
        let hour = Cache::Public(Duration::from_secs(3600));
        let kept = |class, cache| applied(Transport::Plain, class, cache)["cache-control"].clone();
        assert_eq!(kept(ResponseClass::ApiJson, hour), "public, max-age=3600");
        assert_eq!(kept(ResponseClass::Asset, Cache::Immutable), "public, max-age=31536000, immutable");
        assert_eq!(kept(ResponseClass::Error, hour), "no-store, max-age=0");
        assert_eq!(kept(ResponseClass::Redirect, hour), "no-store, max-age=0");
    }

    #[test]
    fn what_a_handler_or_upstream_set_does_not_weaken_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("server", "x/1"),
            ("x-powered-by", "y"),
            ("x-frame-options", "ALLOWALL"),
            ("content-security-policy", "default-src *"),
            ("content-disposition", "inline"),
            ("x-request-id", "req_1"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers.append("content-security-policy", HeaderValue::from_static("second"));
        SecurityHeaders::new(Transport::Plain).apply(ResponseClass::Download, Cache::Private, &mut headers);
        assert!(!headers.contains_key("server") && !headers.contains_key("x-powered-by"));
        assert_eq!(headers["x-frame-options"], "DENY");
        assert_eq!(headers.get_all("content-security-policy").iter().count(), 1);
        assert_eq!(headers["content-security-policy"], INERT);
        assert_eq!(headers["content-disposition"], "attachment");
        assert_eq!(headers["x-request-id"], "req_1");

        headers.insert("content-disposition", HeaderValue::from_static("attachment; filename=\"a.txt\""));
        SecurityHeaders::new(Transport::Plain).apply(ResponseClass::Download, Cache::Private, &mut headers);
        assert_eq!(headers["content-disposition"], "attachment; filename=\"a.txt\"");
    }
}
