//! The grade of a page's security headers, by the scoring that MDN documents for its HTTP Observatory (algorithm 6).
//!
//! Compared with the scanner of npm (version 1.4.8, algorithm 4) on 34 sets of headers over TLS. Stricter on purpose in
//! two places: `frame-ancestors` that name a whole scheme do not count, and scripts of a sister domain come from elsewhere.
//!
//! Start with 100, subtract penalties; bonuses count only if at least 90 are left. A pure function of what was fetched.

use std::collections::BTreeMap;

use http::header::{self, HeaderName};
use serde::Serialize;

use super::fetch::{Page, Plain, STRANGER, Visit};

/// One test.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Test {
    /// Its name.
    pub(super) name: &'static str,
    /// What it adds or takes.
    pub(super) points: i32,
    /// What was found.
    pub(super) found: String,
}

/// The result.
#[derive(Clone, Debug)]
pub(super) struct Graded {
    /// `A+` to `F`.
    pub(super) letter: &'static str,
    /// Points; above 100 for extra credit.
    pub(super) score: i32,
    /// Where they come from.
    pub(super) tests: Vec<Test>,
}

/// Grades a visit.
pub(super) fn grade(visit: &Visit) -> Graded {
    let page = &visit.page;
    let policies = policies(page);
    let tests: Vec<Test> = [
        ("content-security-policy", content_security_policy(page, &policies)),
        ("cookies", cookies(page)),
        ("cross-origin-resource-sharing", cross_origin_sharing(page)),
        ("redirection", redirection(visit)),
        ("referrer-policy", referrer_policy(page)),
        ("strict-transport-security", strict_transport(page)),
        ("subresource-integrity", subresource_integrity(page)),
        ("x-content-type-options", content_type_options(page)),
        ("x-frame-options", framing(page, &policies)),
        (
            "cross-origin-resource-policy",
            isolation(page, "cross-origin-resource-policy", &["same-origin", "same-site"], &["cross-origin"]),
        ),
        (
            "cross-origin-embedder-policy",
            isolation(page, "cross-origin-embedder-policy", &["require-corp", "credentialless"], &["unsafe-none"]),
        ),
        (
            "cross-origin-opener-policy",
            isolation(
                page,
                "cross-origin-opener-policy",
                &["same-origin"],
                &["same-origin-allow-popups", "noopener-allow-popups", "unsafe-none"],
            ),
        ),
    ]
    .into_iter()
    .map(|(name, (points, found))| Test { name, points, found: found.into() })
    .collect();
    let without_bonus = 100 + tests.iter().map(|test| test.points.min(0)).sum::<i32>();
    let bonus: i32 = tests.iter().map(|test| test.points.max(0)).sum();
    let score = (if without_bonus >= 90 { without_bonus + bonus } else { without_bonus }).max(0);
    Graded { letter: letter(score), score, tests }
}

/// The letter for a score.
fn letter(score: i32) -> &'static str {
    match score {
        100.. => "A+",
        90.. => "A",
        85.. => "A-",
        80.. => "B+",
        70.. => "B",
        65.. => "B-",
        60.. => "C+",
        50.. => "C",
        45.. => "C-",
        40.. => "D+",
        30.. => "D",
        25.. => "D-",
        _ => "F",
    }
}

type Verdict = (i32, &'static str);

fn values(page: &Page, name: &str) -> Vec<String> {
    let Ok(name) = HeaderName::try_from(name) else { return Vec::new() };
    page.headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .map(|value| value.trim().to_owned())
        .collect()
}

fn value(page: &Page, name: &str) -> Option<String> {
    let all = values(page, name);
    (!all.is_empty()).then(|| all.join(", ").to_ascii_lowercase())
}

fn is_https(page: &Page) -> bool {
    page.url.scheme_str() == Some("https")
}

/// A content security policy: directive to sources.
type Policy = BTreeMap<String, Vec<String>>;

fn policies(page: &Page) -> Vec<Policy> {
    let headers = values(page, "content-security-policy");
    let parse = |text: &str| {
        let mut policy = Policy::new();
        for directive in text.split(';') {
            let mut words = directive.split_ascii_whitespace().map(str::to_ascii_lowercase);
            if let Some(name) = words.next() {
                // Of a repeated directive the first counts (CSP level 3, section 2.2.1).
                policy.entry(name).or_insert_with(|| words.collect());
            }
        }
        policy
    };
    headers.iter().flat_map(|header| header.split(',')).map(parse).filter(|policy| !policy.is_empty()).collect()
}

fn content_security_policy(page: &Page, policies: &[Policy]) -> Verdict {
    // A browser enforces all policies at once, so the strictest decides.
    let best = policies.iter().map(|policy| judge(policy, is_https(page))).max_by_key(|(points, _)| *points);
    best.unwrap_or((-25, "no policy"))
}

fn judge(policy: &Policy, https: bool) -> Verdict {
    let fallback = policy.get("default-src");
    let sources = |name: &str| policy.get(name).or(fallback);
    let (Some(script), Some(object)) = (sources("script-src"), sources("object-src")) else {
        return (-20, "scripts or plug-ins may come from anywhere");
    };
    let has = |sources: &[String], word: &str| sources.iter().any(|source| source == word);
    let keyed = script
        .iter()
        .any(|source| ["'nonce-", "'sha256-", "'sha384-", "'sha512-"].iter().any(|key| source.starts_with(key)));
    let strict = keyed && has(script, "'strict-dynamic'");
    let broad = |sources: &[String]| {
        sources.iter().any(|source| ["*", "https:", "http:", "data:", "blob:"].contains(&source.as_str()))
    };
    if has(script, "'unsafe-inline'") && !keyed {
        return (-20, "inline scripts may run");
    }
    if (broad(script) && !strict) || broad(object) {
        return (-20, "scripts or plug-ins may come from whole schemes");
    }
    let insecure = |name: &str| {
        https
            && policy
                .get(name)
                .is_some_and(|all| all.iter().any(|source| source == "http:" || source.starts_with("http://")))
    };
    if ["default-src", "script-src", "object-src", "style-src", "connect-src", "font-src", "frame-src", "worker-src"]
        .iter()
        .any(|name| insecure(name))
    {
        return (-20, "active content may come without TLS");
    }
    if has(script, "'unsafe-eval'") {
        return (-10, "scripts may be made from text");
    }
    if ["img-src", "media-src"].iter().any(|name| insecure(name)) {
        return (-10, "images or media may come without TLS");
    }
    let style = sources("style-src").is_none_or(|style| has(style, "'unsafe-inline'") || broad(style));
    match (style, fallback.is_some_and(|sources| *sources == ["'none'"])) {
        (true, _) => (0, "inline styles may apply"),
        (false, true) => (10, "nothing unsafe, and nothing by default"),
        (false, false) => (5, "nothing unsafe"),
    }
}

fn cookies(page: &Page) -> Verdict {
    let hsts = strict_transport(page).0 >= 0;
    let mut worst: Option<Verdict> = None;
    let mut same_site = true;
    for cookie in values(page, "set-cookie") {
        let mut parts = cookie.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().split('=').next().unwrap_or_default().to_ascii_lowercase();
        let flags: Vec<_> = parts.map(str::to_ascii_lowercase).collect();
        let flag = |wanted: &str| flags.iter().any(|flag| flag == wanted);
        let session = ["sess", "sid", "login", "auth", "token"].iter().any(|word| name.contains(word));
        let anti_csrf = name.contains("csrf") || name.contains("xsrf");
        let site = flags.iter().find_map(|flag| flag.strip_prefix("samesite="));
        same_site &= site.is_some();
        let open = match (flag("secure"), session && !anti_csrf, hsts) {
            (true, ..) => (0, "cookies are protected"),
            (false, true, true) => (-10, "a session cookie relies on HSTS instead of Secure"),
            (false, true, false) => (-40, "a session cookie without Secure"),
            (false, false, true) => (-5, "a cookie relies on HSTS instead of Secure"),
            (false, false, false) => (-20, "a cookie without Secure"),
        };
        let readable = if session && !anti_csrf && !flag("httponly") {
            (-30, "a session cookie without HttpOnly")
        } else if anti_csrf && site.is_none() {
            (-20, "an anti-CSRF cookie without SameSite")
        } else if site.is_some_and(|site| !["lax", "strict", "none"].contains(&site)) {
            (-20, "a cookie with a SameSite that does not exist")
        } else {
            (0, "cookies are protected")
        };
        let verdict = if readable.0 < open.0 { readable } else { open };
        worst = Some(worst.map_or(verdict, |worst| if verdict.0 < worst.0 { verdict } else { worst }));
    }
    match worst {
        None => (0, "no cookies"),
        Some((0, _)) if same_site => (5, "cookies are protected, SameSite included"),
        Some(verdict) => verdict,
    }
}

fn cross_origin_sharing(page: &Page) -> Verdict {
    let credentials = value(page, "access-control-allow-credentials").as_deref() == Some("true");
    match value(page, "access-control-allow-origin").as_deref() {
        None => (0, "not shared"),
        Some("*") => (0, "public, without credentials"),
        Some(origin) if credentials && (origin == STRANGER || origin == "null") => {
            (-50, "any site may read it with the user's cookies")
        }
        Some(_) => (0, "restricted"),
    }
}

fn redirection(visit: &Visit) -> Verdict {
    let page = &visit.page;
    match &visit.plain {
        _ if !is_https(page) => (-20, "the page is not encrypted"),
        Plain::Closed => (0, "nothing without TLS"),
        Plain::Answers => (-20, "answers without TLS"),
        Plain::Redirects(hops) => {
            let secure = |hop: Option<&http::Uri>| hop.is_some_and(|hop| hop.scheme_str() == Some("https"));
            let same_host = hops.first().is_some_and(|hop| hop.host() == page.url.host());
            match (secure(hops.first()), secure(hops.last()), same_host) {
                (true, true, true) => (0, "to https at once"),
                (true, true, false) => (-5, "to another host first, which leaves this one without HSTS"),
                (false, true, _) => (-10, "to https only after a detour without TLS"),
                _ => (-20, "never to https"),
            }
        }
    }
}

fn referrer_policy(page: &Page) -> Verdict {
    let Some(header) = value(page, "referrer-policy") else { return (0, "not set") };
    const PRIVATE: &[&str] = &["no-referrer", "same-origin", "strict-origin", "strict-origin-when-cross-origin"];
    const UNSAFE: &[&str] = &["origin", "origin-when-cross-origin", "unsafe-url"];
    // The last policy a browser knows counts.
    let known = |word: &&str| PRIVATE.contains(word) || UNSAFE.contains(word) || *word == "no-referrer-when-downgrade";
    match header.split(',').map(str::trim).rfind(known) {
        Some(word) if PRIVATE.contains(&word) => (5, "private"),
        Some(word) if UNSAFE.contains(&word) => (-5, "tells other sites where users come from"),
        Some(_) => (0, "as browsers do by themselves"),
        None => (-5, "not a policy"),
    }
}

fn strict_transport(page: &Page) -> Verdict {
    if !is_https(page) {
        return (-20, "the page is not encrypted");
    }
    let Some(header) = value(page, "strict-transport-security") else { return (-20, "not set") };
    let age = header.split(';').filter_map(|part| part.trim().strip_prefix("max-age=")).next();
    match age.and_then(|age| age.trim_matches('"').parse::<u64>().ok()) {
        None => (-20, "not valid"),
        // Six months.
        Some(0..15_768_000) => (-10, "for less than six months"),
        Some(_) => (0, "for six months or more"),
    }
}

fn subresource_integrity(page: &Page) -> Verdict {
    let kind = value(page, header::CONTENT_TYPE.as_str()).unwrap_or_default();
    if !kind.starts_with("text/html") && !kind.starts_with("application/xhtml") {
        return (0, "not HTML");
    }
    let host = page.url.host().unwrap_or_default().to_ascii_lowercase();
    let (mut external, mut unchecked, mut insecure, mut unchecked_insecure) = (0u32, 0u32, 0u32, 0u32);
    for (source, integrity) in scripts(&page.body) {
        let elsewhere = source.starts_with("//") || source.contains("://");
        let source_host =
            source.split("//").nth(1).and_then(|rest| rest.split(['/', ':', '?']).next()).unwrap_or_default();
        if !elsewhere || source_host.eq_ignore_ascii_case(&host) {
            continue;
        }
        // Without a scheme of its own a script is only as safe as the way to the page.
        let plain = source.starts_with("http://") || source.starts_with("//");
        external = external.saturating_add(1);
        unchecked = unchecked.saturating_add(u32::from(!integrity));
        insecure = insecure.saturating_add(u32::from(plain));
        unchecked_insecure = unchecked_insecure.saturating_add(u32::from(plain && !integrity));
    }
    match (external, unchecked, insecure, unchecked_insecure) {
        (0, ..) => (0, "no scripts from elsewhere"),
        (_, _, _, 1..) => (-50, "scripts from elsewhere, without TLS and unchecked"),
        (_, _, 1.., _) => (-20, "scripts from elsewhere without TLS"),
        (_, 1.., ..) => (-5, "scripts from elsewhere are not checked"),
        _ => (5, "scripts from elsewhere are checked"),
    }
}

/// The `src` of every script element, and whether it states an integrity.
///
/// Looks for tags only; what stands in comments counts too, so the answer may be too strict, never too kind.
fn scripts(html: &str) -> Vec<(String, bool)> {
    let lower = html.to_ascii_lowercase();
    let tags = lower.split("<script").skip(1).filter_map(|rest| rest.split('>').next());
    let attribute = |tag: &str, name: &str| {
        let at = tag.match_indices(name).map(|(at, _)| at).find(|at| {
            tag.get(..*at)
                .is_some_and(|before| before.ends_with(|c: char| c.is_ascii_whitespace() || c == '"' || c == '\''))
        })?;
        let rest = tag.get(at..)?.strip_prefix(name)?.trim_start().strip_prefix('=')?.trim_start();
        let quote = rest.chars().next().filter(|c| ['"', '\''].contains(c));
        let value = match quote {
            Some(quote) => rest.get(1..)?.split(quote).next(),
            None => rest.split_ascii_whitespace().next(),
        };
        value.map(str::to_owned)
    };
    tags.filter_map(|tag| {
        attribute(tag, "src").map(|source| (source, attribute(tag, "integrity").is_some_and(|value| !value.is_empty())))
    })
    .collect()
}

fn content_type_options(page: &Page) -> Verdict {
    match value(page, "x-content-type-options").as_deref() {
        Some("nosniff") => (0, "nosniff"),
        Some(_) => (-5, "not valid"),
        None => (-5, "not set"),
    }
}

fn framing(page: &Page, policies: &[Policy]) -> Verdict {
    let ancestors = policies.iter().filter_map(|policy| policy.get("frame-ancestors"));
    if ancestors
        .into_iter()
        .any(|sources| !sources.iter().any(|source| ["*", "http:", "https:"].contains(&source.as_str())))
    {
        return (5, "by frame-ancestors");
    }
    match value(page, "x-frame-options").as_deref() {
        Some("deny" | "sameorigin") => (0, "by x-frame-options"),
        Some(_) => (-20, "not valid"),
        None => (-20, "other sites may frame it"),
    }
}

fn isolation(page: &Page, name: &str, good: &[&str], weak: &[&str]) -> Verdict {
    let header = value(page, name);
    let word = header.as_deref().map(|header| header.split(';').next().unwrap_or_default().trim());
    match word {
        None => (0, "not set"),
        Some(word) if good.contains(&word) => (10, "isolated"),
        Some(word) if weak.contains(&word) => (0, "open by choice"),
        Some(_) => (-5, "not valid"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue, StatusCode};

    fn visit(url: &str, headers: &[(&'static str, &'static str)], body: &str) -> Visit {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let page = Page { url: url.parse().unwrap(), status: StatusCode::OK, headers: map, body: body.into() };
        Visit { page, plain: Plain::Closed }
    }

    const STRICT: &[(&str, &str)] = &[
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
        ("strict-transport-security", "max-age=63072000; includeSubDomains"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-embedder-policy", "require-corp"),
        ("cross-origin-opener-policy", "same-origin"),
    ];

    fn points(visit: &Visit, name: &str) -> i32 {
        grade(visit).tests.iter().find(|test| test.name == name).unwrap().points
    }

    #[test]
    fn a_strict_api_gets_an_a_plus_and_a_page_without_headers_an_f() {
        let strict = grade(&visit("https://a.example/", STRICT, ""));
        assert_eq!((strict.letter, strict.score), ("A+", 150));
        let bare = grade(&visit("http://a.example/", &[], ""));
        assert_eq!((bare.letter, bare.score), ("F", 10));
    }

    #[test]
    fn bonuses_do_not_make_up_for_a_real_fault() {
        let without_hsts: Vec<_> = STRICT.iter().copied().filter(|(name, _)| !name.starts_with("strict")).collect();
        assert_eq!(grade(&visit("https://a.example/", &without_hsts, "")).score, 80);
    }

    #[test]
    fn policies_are_judged_by_what_they_let_run() {
        let of = |policy: &'static str| {
            points(&visit("https://a.example/", &[("content-security-policy", policy)], ""), "content-security-policy")
        };
        for (policy, expected) in [
            ("default-src 'none'", 10),
            ("default-src 'self'", 5),
            ("default-src 'self'; style-src 'unsafe-inline'", 0),
            ("default-src 'self'; img-src http://b.example", -10),
            ("default-src 'self'; script-src 'self' 'unsafe-eval'", -10),
            ("default-src 'self' 'unsafe-inline'", -20),
            ("script-src 'nonce-abc' 'strict-dynamic' 'unsafe-inline' https:; object-src 'none'; style-src 'self'", 5),
            ("default-src *", -20),
            ("frame-ancestors 'none'", -20),
            ("default-src 'none', default-src *", 10),
            ("default-src 'self'; script-src http://b.example", -20),
        ] {
            assert_eq!(of(policy), expected, "{policy}");
        }
    }

    #[test]
    fn cookies_are_judged_by_the_worst_one() {
        let of = |cookies: &[&'static str]| {
            let headers: Vec<_> = cookies.iter().map(|cookie| ("set-cookie", *cookie)).collect();
            points(&visit("https://a.example/", &headers, ""), "cookies")
        };
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&["__Host-session=1; Secure; HttpOnly; SameSite=Lax; Path=/"]), 5);
        assert_eq!(of(&["session=1; Secure; HttpOnly"]), 0);
        assert_eq!(of(&["session=1; Secure; HttpOnly; SameSite=Lax", "session2=1"]), -40);
        assert_eq!(of(&["session=1; Secure"]), -30);
        let hsts = [("set-cookie", "session=1"), ("strict-transport-security", "max-age=63072000")];
        assert_eq!(points(&visit("https://a.example/", &hsts, ""), "cookies"), -30);
        assert_eq!(of(&["theme=dark"]), -20);
    }

    #[test]
    fn scripts_from_elsewhere_are_found_however_they_are_written() {
        let of = |body: &str| {
            points(
                &visit("https://a.example/", &[("content-type", "text/html; charset=utf-8")], body),
                "subresource-integrity",
            )
        };
        assert_eq!(of("<script src=\"/own.js\"></script><script>1</script>"), 0);
        assert_eq!(of("<SCRIPT defer SRC='https://b.example/x.js' integrity='sha384-x'></script>"), 5);
        assert_eq!(of("<script data-src=x src=https://b.example/x.js></script>"), -5);
        assert_eq!(of("<script src=\"http://b.example/x.js\"></script>"), -50);
        assert_eq!(of("<script src=//b.example/x.js>"), -50);
        assert_eq!(of("<script"), 0);
    }

    #[test]
    fn reflecting_a_stranger_with_credentials_is_the_worst_that_can_be_found() {
        let headers = [("access-control-allow-origin", STRANGER), ("access-control-allow-credentials", "true")];
        assert_eq!(points(&visit("https://a.example/", &headers, ""), "cross-origin-resource-sharing"), -50);
    }

    #[test]
    fn the_way_from_http_to_https_is_judged_step_by_step() {
        let mut visit = visit("https://a.example/", STRICT, "");
        let hops = |all: &[&str]| Plain::Redirects(all.iter().map(|hop| hop.parse().unwrap()).collect());
        for (plain, expected) in [
            (hops(&["https://a.example/"]), 0),
            (hops(&["https://www.b.example/"]), -5),
            (hops(&["http://b.example/", "https://a.example/"]), -10),
            (hops(&["http://b.example/"]), -20),
            (Plain::Answers, -20),
        ] {
            visit.plain = plain;
            assert_eq!(points(&visit, "redirection"), expected, "{:?}", visit.plain);
        }
    }
}
