//! Headers that must not leave: they tell an attacker what runs here, or switch on what browsers gave up.

use http::HeaderName;

/// Names in lower case, sorted. The larger part follows the OWASP Secure Headers project's list of headers to remove
/// (July 2024); added are headers that browsers abandoned, such as `x-xss-protection`, and a few more tell-tales.
pub const REMOVED: &[&str] = &[
    "$wsep",
    "expect-ct",
    "feature-policy",
    "host-header",
    "k-proxy-request",
    "liferay-portal",
    "oraclecommercecloud-version",
    "p3p",
    "pega-host",
    "powered-by",
    "pragma",
    "product",
    "public-key-pins",
    "public-key-pins-report-only",
    "server",
    "sourcemap",
    "via",
    "x-aspnet-version",
    "x-aspnetmvc-version",
    "x-atmosphere-error",
    "x-atmosphere-first-request",
    "x-atmosphere-tracking-id",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-spanid",
    "x-b3-traceid",
    "x-backend-server",
    "x-beserver",
    "x-calculatedbetarget",
    "x-cf-powered-by",
    "x-cms",
    "x-cocoon-version",
    "x-content-encoded-by",
    "x-content-security-policy",
    "x-debug-token",
    "x-debug-token-link",
    "x-diaginfo",
    "x-download-options",
    "x-drupal-cache",
    "x-drupal-dynamic-cache",
    "x-dtagentid",
    "x-dthealthcheck",
    "x-dtinjectedservlet",
    "x-envoy-attempt-count",
    "x-envoy-external-address",
    "x-envoy-internal",
    "x-envoy-original-dst-host",
    "x-envoy-upstream-service-time",
    "x-feserver",
    "x-framework",
    "x-generated-by",
    "x-generator",
    "x-jitsi-release",
    "x-kubernetes-pf-flowschema-ui",
    "x-kubernetes-pf-prioritylevel-uid",
    "x-litespeed-cache",
    "x-litespeed-cache-control",
    "x-litespeed-purge",
    "x-litespeed-tag",
    "x-litespeed-vary",
    "x-mod-pagespeed",
    "x-nextjs-cache",
    "x-nextjs-matched-path",
    "x-nextjs-page",
    "x-nextjs-redirect",
    "x-old-content-length",
    "x-oneagent-js-injection",
    "x-owa-version",
    "x-page-speed",
    "x-php-version",
    "x-pingback",
    "x-powered-by",
    "x-powered-by-plesk",
    "x-powered-cms",
    "x-redirect-by",
    "x-runtime",
    "x-ruxit-js-agent",
    "x-server-powered-by",
    "x-sourcefiles",
    "x-sourcemap",
    "x-turbo-charged-by",
    "x-umbraco-version",
    "x-varnish-backend",
    "x-varnish-server",
    "x-version",
    "x-webkit-csp",
    "x-xss-protection",
];

/// Whether a header of this name is removed from every answer. Cost: one binary search.
pub fn is_removed(name: &HeaderName) -> bool {
    REMOVED.binary_search(&name.as_str()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_in_lower_case() {
        assert!(REMOVED.is_sorted());
        assert!(REMOVED.iter().all(|name| HeaderName::from_bytes(name.as_bytes()).unwrap().as_str() == *name));
        assert!(is_removed(&HeaderName::from_static("x-powered-by")) && is_removed(&http::header::SERVER));
        assert!(!is_removed(&http::header::CONTENT_TYPE));
    }
}
