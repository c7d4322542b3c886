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

/// The same for what no browser runs: `sandbox` denies everything already, so the best known ones are enough.
const PERMISSIONS_OF_OTHERS: &str = "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()";

/// The security headers of all classes, made once at start.
///
/// Cost of [`SecurityHeaders::apply`]: one insertion for each, of shared values; nothing is formatted, except for
/// [`Cache::Public`].
#[derive(Clone, Debug)]
pub struct SecurityHeaders {
    data: Prepared,
    application: Prepared,
    others: Prepared,
}

type Prepared = Vec<(HeaderName, HeaderValue)>;

impl SecurityHeaders {
    /// Headers of an answer of data in the end, with type, length, request id and both of the rate limits: room to leave
    /// for them, since a map that grows is copied.
    pub const OF_DATA: usize = 12;

    /// The headers for a server that browsers reach over `transport`.
    pub fn new(transport: Transport) -> Self {
        let application = match transport {
            Transport::Https => APPLICATION_OVER_TLS,
            Transport::Plain => APPLICATION,
        };
        Self {
            data: prepared(INERT, &[], transport),
            application: prepared(application, &of_documents(PERMISSIONS), transport),
            others: prepared(INERT, &of_documents(PERMISSIONS_OF_OTHERS), transport),
        }
    }

    /// Puts an answer of `class` under protection: tell-tale headers go, protecting ones are set, whatever was there.
    ///
    /// A [`ResponseClass::Redirect`] or [`ResponseClass::Error`] is never kept, whatever `cache` says. A
    /// [`ResponseClass::Download`] is an attachment; its handler may have given it a file name.
    pub fn apply(&self, class: ResponseClass, cache: Cache, headers: &mut HeaderMap) {
        let prepared = match class {
            ResponseClass::ApiJson => &self.data,
            ResponseClass::HtmlApp => &self.application,
            _ => &self.others,
        };
        let tell_tales: Vec<HeaderName> = headers.keys().filter(|name| tells_tales(name)).cloned().collect();
        for name in tell_tales {
            headers.remove(name);
        }
        headers.reserve(prepared.len());
        for (name, value) in prepared {
            headers.insert(name, value.clone());
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

/// What every answer has, and `more`.
fn prepared(policy: &'static str, more: &[(HeaderName, &'static str)], transport: Transport) -> Prepared {
    let mut headers = vec![
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (CONTENT_SECURITY_POLICY, policy),
        (CACHE_CONTROL, NOT_KEPT),
    ];
    headers.extend_from_slice(more);
    // Over plain HTTP browsers must ignore it (RFC 6797 section 7.2), and it would only mislead a reader.
    if transport == Transport::Https {
        headers.push((STRICT_TRANSPORT_SECURITY, HSTS));
    }
    headers.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect()
}

/// What matters where a browser makes a document of the answer. Data for programs go without: they have no links, frames
/// or scripts, their policy's `sandbox` denies all of it, and each header costs whoever writes and whoever reads it.
fn of_documents(permissions: &'static str) -> [(HeaderName, &'static str); 5] {
    let named = HeaderName::from_static;
    [
        (X_DNS_PREFETCH_CONTROL, "off"),
        (named("x-permitted-cross-domain-policies"), "none"),
        (named("cross-origin-opener-policy"), "same-origin"),
        (named("cross-origin-embedder-policy"), "require-corp"),
        (named("permissions-policy"), permissions),
    ]
}

/// Whether a header tells what it need not. The names most answers have are known without a search.
fn tells_tales(name: &HeaderName) -> bool {
    !matches!(*name, CONTENT_TYPE | CONTENT_LENGTH | CACHE_CONTROL)
        && !name.as_str().starts_with("ratelimit")
        && is_removed(name)
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
    fn every_class_has_every_header_it_can_use() {
        for class in ResponseClass::ALL {
            let headers = applied(Transport::Https, *class, Cache::Private);
            let everywhere = [
                ("x-content-type-options", "nosniff"),
                ("x-frame-options", "DENY"),
                ("referrer-policy", "no-referrer"),
                ("cross-origin-resource-policy", "same-origin"),
                ("strict-transport-security", "max-age=63072000; includeSubDomains"),
                ("cache-control", "no-store, max-age=0"),
            ];
            let of_documents = [
                ("cross-origin-opener-policy", "same-origin"),
                ("cross-origin-embedder-policy", "require-corp"),
                ("x-permitted-cross-domain-policies", "none"),
                ("x-dns-prefetch-control", "off"),
            ];
            let document = *class != ResponseClass::ApiJson;
            for (name, value) in everywhere.into_iter().chain(of_documents.into_iter().filter(|_| document)) {
                assert_eq!(headers.get(name).map(HeaderValue::as_bytes), Some(value.as_bytes()), "{class:?} {name}");
            }
            assert_eq!(headers.contains_key("permissions-policy"), document, "{class:?}");
            assert!(document || headers.len() + 5 <= SecurityHeaders::OF_DATA);
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
