//! The reference pages say what the code does: each is compared with it, or generated from it. After a change of the
//! code, `UPDATE_REFERENCE=1 cargo test -p bartizan-server --test it reference` rewrites what is generated.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use axum::body::Body;
use bartizan::api::{Access, Cache, Csrf};
use bartizan::settings::Settings;
use bartizan_core::error::Code;
use bartizan_core::input::NewPassword;
use bartizan_core::json::{self, JsonFaultKind};
use bartizan_core::net::MOST_HOPS;
use bartizan_core::principal::Tier;
use bartizan_core::token::{CLOCK_SKEW, MAX_LIFETIME, MAX_TOKEN, Rejection};
use bartizan_keys::{FileKeyring, SecretSource};
use bartizan_server::config::keys;
use bartizan_server::wiring::Engine;
use bartizan_store::state::BanPolicy;
use http::Request;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// The rows of a page's tables whose first cell is one `code`, as cells.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let row = |line: &&str| line.starts_with("| `");
    page.lines().filter(row).map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// Everything that stands in backticks.
fn codes(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The Rust files below `crates/*/<part>`.
fn sources(part: &str) -> Vec<(PathBuf, String)> {
    fn below(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    for room in fs::read_dir(root().join("crates")).unwrap() {
        below(&room.unwrap().path().join(part), &mut found);
    }
    assert!(!found.is_empty());
    found
}

/// The sources without their tests.
fn program() -> impl Iterator<Item = (PathBuf, String)> {
    let is_test = |path: &Path| path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs");
    sources("src").into_iter().filter(move |(path, _)| !is_test(path)).map(|(path, text)| {
        let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
        (path, text[..end].to_owned())
    })
}

#[test]
fn every_error_code_has_its_section_and_every_section_its_code() {
    let page = page("errors.md");
    let said: Vec<(String, String)> = page
        .split("\n### `")
        .skip(1)
        .map(|section| {
            let (code, text) = section.split_once("`\n").unwrap();
            let text = text.lines().take_while(|line| !line.starts_with('#')).collect::<Vec<_>>().join(" ");
            assert!(text.matches(". ").count() >= 1, "{code}: say what it means and what to do");
            let (head, _) = text.strip_prefix("**").unwrap().split_once(".** ").unwrap();
            (code.to_owned(), head.to_owned())
        })
        .collect();
    let code = |code: &Code| (code.as_str().to_owned(), format!("{} · {}", code.status(), code.title()));
    let set = |list: Vec<(String, String)>| list.into_iter().collect::<BTreeMap<_, _>>();
    assert_eq!(said.len(), Code::ALL.len(), "one section each");
    assert_eq!(set(said), set(Code::ALL.iter().map(code).collect()), "status and title");
}

#[test]
fn every_error_code_is_said_by_something() {
    let all: String = program().filter(|(path, _)| !path.ends_with("error/codes.rs")).map(|(_, text)| text).collect();
    for code in Code::ALL {
        assert!(all.contains(&format!("Code::{code:?}")), "nothing says {}: remove it", code.as_str());
    }
}

#[test]
fn every_code_of_a_field_is_explained() {
    let mut made: BTreeSet<String> = JsonFaultKind::ALL.iter().map(|kind| kind.code().to_owned()).collect();
    let makers = ["FieldError::new(", "InputFault::new(", "Mismatch::new(", "Self::new(\"", "E::custom("];
    for (path, text) in program() {
        if makers.iter().any(|maker| text.contains(maker)) && !path.ends_with("error/mod.rs") {
            made.extend(text.split('"').skip(1).filter_map(dotted));
        }
    }
    let page = page("errors.md");
    let said: BTreeSet<String> = rows(&page).iter().map(|row| codes(row[0]).next().unwrap().to_owned()).collect();
    assert_eq!(said, made, "docs/errors.md on the left, the code on the right");
}

/// The stable code that a text is, or begins with: `id.malformed: …`.
fn dotted(text: &str) -> Option<String> {
    let code = text.split_once(": ").map_or(text, |(code, _)| code);
    let word = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit())
    };
    (code.contains('.') && code.split('.').all(word)).then(|| code.to_owned())
}

#[tokio::test]
async fn the_page_of_metrics_names_what_a_scrape_shows() {
    let temp = tempfile::tempdir().unwrap();
    let settings = Settings::embedded(temp.path());
    FileKeyring::create(&SecretSource::dir(temp.path().join("secrets"))).unwrap();
    let engine = Engine::start(settings).await.unwrap();
    let request = Request::get("/metrics").body(Body::empty()).unwrap();
    let answer = engine.ops_router().oneshot(request).await.unwrap();
    let scrape = answer.into_body().collect().await.unwrap().to_bytes();
    let scrape = std::str::from_utf8(&scrape).unwrap();
    engine.shutdown().await;

    let mut shown = BTreeMap::new();
    for line in scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let suffix = if kind == "counter" { "_total" } else { "" };
        shown.insert(format!("{name}{suffix}"), (kind.to_owned(), BTreeSet::new()));
    }
    let mut words = BTreeSet::new();
    for line in scrape.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        for pair in rest.split_once('}').unwrap().0.split("\",") {
            let (label, word) = pair.split_once("=\"").unwrap();
            if label != "le" {
                shown.get_mut(name).unwrap().1.insert(label.to_owned());
            }
            if !label.starts_with("http_") && !["le", "version", "code"].contains(&label) {
                words.insert(word.trim_end_matches('"').to_owned());
            }
        }
    }
    let page = page("metrics.md");
    let said: BTreeMap<_, _> = rows(&page)
        .iter()
        .map(|row| {
            let labels = codes(row[2]).map(str::to_owned).collect::<BTreeSet<_>>();
            assert!(!row[3].is_empty() && !row[4].is_empty(), "{row:?}");
            (codes(row[0]).next().unwrap().to_owned(), (row[1].to_owned(), labels))
        })
        .collect();
    assert_eq!(said, shown, "docs/metrics.md on the left, the scrape on the right");
    let explained: BTreeSet<&str> = codes(&page).collect();
    let unexplained: Vec<_> = words.iter().filter(|word| !explained.contains(word.as_str())).collect();
    assert!(unexplained.is_empty(), "words of labels without a mention: {unexplained:?}");
    assert!(Rejection::ALL.iter().all(|reason| words.contains(reason.as_str())));
}

#[test]
fn the_page_of_routes_is_the_generated_one() {
    let path = root().join("docs/routes.md");
    let made = routes();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let how = "UPDATE_REFERENCE=1 cargo test -p bartizan-server --test it reference";
    assert!(kept == made, "docs/routes.md is out of date: {how}");
}

fn routes() -> String {
    let mut out = String::from(
        "# Routes\n\n\
         <!-- Generated from the declared routes; a test keeps the two equal: see crates/server/tests/it/reference.rs. -->\n\n\
         Every route of the public listener; the same table makes `/openapi.json`, which has the bodies and answers, and\n\
         `bartizan routes`. What is not declared is answered 404. Public routes come first: they are what a reviewer looks at.\n\n\
         - **who may**: the action a route asks for and the roles that have it; or *public*, with the reason.\n\
         - **limits**: the kind of route. Every request is counted by address, one with a token also by user and tenant; `login`\n  \
         routes count failed passwords too.\n\
         - **CSRF**: whether a browser's request must come from the own origin. A read changes nothing and needs none.\n\
         - **cache**: who may keep a successful answer; errors are never kept.\n\n\
         | route | what it does | who may | limits | CSRF | cache | success |\n|---|---|---|---|---|---|---|\n",
    );
    for row in bartizan::engine::table().unwrap().rows() {
        let who = match row.access {
            Access::Public { why } => format!("*public*: {why}"),
            Access::Requires { action, roles } => {
                let roles: Vec<_> = roles.iter().map(ToString::to_string).collect();
                format!("`{action}`: {}", roles.join(", "))
            }
        };
        let csrf = match row.csrf {
            None => "—".into(),
            Some(Csrf::Enforced) => "enforced".into(),
            Some(Csrf::Exempt(why)) => format!("exempt: {why}"),
        };
        let cache = match row.cache {
            Cache::Private => "nobody".into(),
            Cache::Public(age) => format!("anybody, {} s", age.as_secs()),
        };
        let (name, summary, rate, status) = (row.name(), row.summary, row.rate, row.status);
        let _ = writeln!(out, "| `{name}` | {summary} | {who} | {rate} | {csrf} | {cache} | {status} |");
    }
    out
}

#[test]
fn every_test_that_the_pages_name_exists() {
    let mut code: Vec<_> = sources("src");
    code.extend(sources("tests"));
    let code: String = code.into_iter().map(|(_, text)| text).collect();
    let findings = page("findings.md");
    let mut named = BTreeSet::new();
    // A paragraph that begins so holds names of tests and nothing else in backticks.
    for paragraph in findings.split("\n\n").filter(|paragraph| paragraph.starts_with("Proved by")) {
        named.extend(codes(paragraph).map(str::to_owned));
    }
    let threats = page("threat-model.md");
    for row in threats.lines().filter(|line| line.starts_with("| ") && line.matches('|').count() == 5) {
        named.extend(codes(row.split('|').nth(4).unwrap()).map(str::to_owned));
    }
    assert!(named.len() > 60, "{}", named.len());
    let missing: Vec<_> = named.iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "named, but there is no such test: {missing:#?}");
    for number in 1..=18 {
        assert!(findings.contains(&format!("\n## {number}. ")), "finding {number} is missing");
    }
    for rest in code.split("fn finding_").skip(1) {
        let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        // Without a name it is the line above.
        assert!(name.is_empty() || named.contains(&format!("finding_{name}")), "finding_{name} is not named");
    }
}

#[test]
fn the_page_of_defaults_has_every_key_with_its_default() {
    let page = page("defaults.md");
    let derived = derived();
    let mut said: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for row in rows(&page) {
        let key = codes(row[0]).next().unwrap();
        assert!(said.insert(key, (row[1], row[2])).is_none(), "{key} twice");
    }
    for key in keys::all() {
        let default = (key.default_toml)(key.default).map(|text| format!("`{}`", text.trim_matches('"')));
        let unset = || derived.get(key.path).map_or("unset".to_owned(), |number| format!("unset: `{number}`"));
        let expected = default.unwrap_or_else(unset);
        let (value, reason) = said.remove(key.path).unwrap_or_default();
        assert_eq!(value, expected, "{}", key.path);
        assert!(reason.ends_with('.'), "{}: why?", key.path);
    }
    assert!(said.is_empty(), "no such keys: {:?}", said.keys());
}

/// What an unset key comes to.
fn derived() -> BTreeMap<String, u32> {
    let limits = Settings::embedded("anywhere").limits;
    let mut derived = BTreeMap::new();
    for tier in Tier::ALL {
        let figures = limits.tiers[tier];
        derived.insert(format!("limits.tiers.{tier}.burst"), figures.user.burst);
        derived.insert(format!("limits.tiers.{tier}.tenant_per_minute"), figures.tenant.count);
        derived.insert(format!("limits.tiers.{tier}.tenant_burst"), figures.tenant.burst);
    }
    derived.insert("limits.address.burst".into(), limits.address.burst);
    derived.insert("limits.network.per_minute".into(), limits.network.count);
    derived.insert("limits.network.burst".into(), limits.network.burst);
    derived
}

#[test]
fn the_page_of_defaults_has_the_figures_that_are_no_settings() {
    let page = page("defaults.md");
    let json = json::Limits::default();
    let thousands = |number: usize| match (number / 1000, number % 1000) {
        (0, rest) => rest.to_string(),
        (thousands, rest) => format!("{thousands},{rest:03}"),
    };
    let json = format!(
        "depth {}, {} values, {} characters a string",
        json.depth,
        thousands(json.nodes),
        thousands(json.string)
    );
    let seconds = |time: std::time::Duration| format!("{} s", thousands(time.as_secs().try_into().unwrap()));
    for (what, value) in [
        ("longest access token", format!("{} bytes", thousands(MAX_TOKEN))),
        ("longest life of an access token", seconds(MAX_LIFETIME)),
        ("leeway of `iat`", seconds(CLOCK_SKEW)),
        ("fewest characters of a password anybody may allow", NewPassword::FLOOR.to_string()),
        ("JSON", json),
        ("faults told at once", json::MAX_FAULTS.to_string()),
        ("longest ban", seconds(BanPolicy::LONGEST)),
        ("refusals are forgotten within", seconds(BanPolicy::FORGET)),
        ("proxies read in `X-Forwarded-For`", MOST_HOPS.to_string()),
        ("a retired key verifies for", seconds(MAX_LIFETIME + CLOCK_SKEW)),
    ] {
        let row = format!("| {what} | {value} |");
        assert!(page.contains(&row), "docs/defaults.md should say {row}");
    }
    // What is private to its module is compared with the source.
    let all: String = program().map(|(_, text)| text).collect();
    for (what, value, source) in [
        (
            "longest password",
            "256 characters, 1,024 bytes",
            "LONGEST: usize = 256;\nconst LONGEST_BYTES: usize = 1024;",
        ),
        ("names and values of a query or form", "64", "MAX_PAIRS: usize = 64;"),
        ("answers kept for `Idempotency-Key`", "24 h", "REMEMBERED: Duration = Duration::from_secs(24 * 3600);"),
        ("revocations kept beyond their need", "24 h", "KEPT: Duration = Duration::from_secs(24 * 3600);"),
        ("a key signs for", "90 days", "SIGNS_FOR: Duration = Duration::from_secs(90 * 86_400);"),
        ("a key is published before it signs", "600 s", "PUBLISHED_FOR: Duration = Duration::from_secs(600);"),
        ("refusals waiting for the audit trail", "4,096", "WAITING: usize = 4_096;"),
        ("HSTS", "two years, with subdomains, over TLS only, no preload", "\"max-age=63072000; includeSubDomains\""),
    ] {
        assert!(page.contains(&format!("| {what} | {value} |")) && all.contains(source), "{what}: {source}");
    }
}

#[test]
fn the_rooms_know_only_whom_the_picture_shows() {
    for (room, may) in [
        ("core", &[][..]),
        ("keys", &["bartizan-core"]),
        ("store", &["bartizan-core"]),
        ("bartizan", &["bartizan-core", "bartizan-keys", "bartizan-store"]),
        ("server", &["bartizan", "bartizan-core", "bartizan-keys", "bartizan-store"]),
    ] {
        let manifest = fs::read_to_string(root().join("crates").join(room).join("Cargo.toml")).unwrap();
        let (_, needs) = manifest.split_once("[dependencies]").unwrap();
        let needs = needs.split("\n[").next().unwrap();
        assert!(room == "store" || !needs.contains("sqlx"), "{room} names SQL");
        let needs = needs.lines().filter(|line| line.starts_with("bartizan"));
        let knows: Vec<&str> = needs.filter_map(|line| line.split(['.', ' ', '=']).next()).collect();
        assert_eq!(knows, may, "{room}");
    }
    for (path, text) in program().filter(|(path, _)| path.components().any(|part| part.as_os_str() == "routes")) {
        assert!(!text.contains("axum::Router") && !text.contains("SELECT"), "{}", path.display());
    }
}
