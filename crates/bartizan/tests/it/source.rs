//! Rules of the source that no type can hold: who may say which words. Each exception is in a list that a reviewer sees
//! grow.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The code of the library by path below `src`: without comments and without tests, at the end of a file or in one of
/// their own.
fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    let mut open: Vec<PathBuf> = vec![root.clone()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().is_some_and(|name| name == "tests" || name == "tests.rs") {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
                let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, code.collect::<Vec<_>>().join("\n"));
            }
        }
    }
    assert!(found.len() > 40, "only {} files", found.len());
    found
}

/// Where any of `words` stands: `file: how often`, for files that `counts` lets through.
fn uses(words: &[&str], counts: impl Fn(&str) -> bool) -> Vec<String> {
    let count = |code: &str| words.iter().map(|word| code.matches(word).count()).sum::<usize>();
    sources()
        .iter()
        .filter(|(name, _)| counts(name))
        .map(|(name, code)| (name, count(code)))
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name}: {count}"))
        .collect()
}

#[test]
fn routes_know_neither_the_database_nor_another_way_to_route() {
    let words = [
        "axum::routing",
        "axum::Router",
        "MethodRouter",
        "bartizan_store",
        "sqlx",
        "SELECT ",
        "INSERT ",
        "UPDATE ",
        "DELETE FROM",
        "HeaderMap",
        "role ==",
        "role !=",
        ".rank()",
        "Permit::new",
        "granted(",
    ];
    assert_eq!(uses(&words, |name| name.starts_with("routes/")), Vec::<String>::new());
    assert!(sources().keys().filter(|name| name.starts_with("routes/")).count() >= 8);
}

#[test]
fn a_permit_is_made_by_the_guard_and_by_the_operators_hand() {
    // `api/argument.rs` turns what the guard granted into the argument; `api/adopted.rs` does so for adopted routers.
    let made = uses(&["Permit::new(", ">::new(self.grant("], |_| true);
    assert_eq!(made, ["api/adopted.rs: 1", "api/argument.rs: 1", "operator.rs: 4"]);
    // What a permit is made from comes from nowhere else.
    assert_eq!(uses(&["Grant::anonymous("], |_| true), ["guard/gate.rs: 1"]);
    assert_eq!(uses(&["Grant::operator("], |_| true), ["operator.rs: 1"]);
    assert_eq!(uses(&["Grant::system("], |_| true), ["engine.rs: 3", "following.rs: 1", "signing.rs: 3"]);
}

#[test]
fn borders_are_opened_where_everybody_can_see_it() {
    let platform = |code: &str| code.matches("PlatformScope::granted(").count();
    let mut opened = Vec::new();
    for (name, code) in sources() {
        let across = platform(&code);
        let inside = code.matches("Scope::granted(").count() - across;
        if across + inside > 0 {
            opened.push(format!("{name}: {inside} inside a tenant, {across} across"));
        }
    }
    let known = [
        // Login, before there is a credential: the user by his address, his device, the failure.
        "accounts.rs: 2 inside a tenant, 1 across",
        // Moving to many nodes: failed logins, whosever they are.
        "carrying.rs: 0 inside a tenant, 1 across",
        // Start-up: the time, the root key.
        "engine.rs: 0 inside a tenant, 2 across",
        // Readers for a stated reason.
        "ground.rs: 0 inside a tenant, 1 across",
        // From a grant.
        "guard/permit.rs: 1 inside a tenant, 0 across",
        // The time, taken back on the operator's word.
        "noted_time.rs: 0 inside a tenant, 1 across",
        // The operator: sessions of a user; the block list.
        "operator.rs: 1 inside a tenant, 2 across",
        // The installation's own keys.
        "signing.rs: 0 inside a tenant, 1 across",
        // The time.
        "upkeep.rs: 0 inside a tenant, 1 across",
    ];
    assert_eq!(opened, known);
}

#[test]
fn only_the_guard_reads_a_credential() {
    let readers = uses(&["AUTHORIZATION", "header::COOKIE", "\"authorization\"", "\"cookie\""], |_| true);
    assert_eq!(readers, ["guard/credential.rs: 2"]);
}

#[test]
fn headers_are_read_by_guard_front_and_router_alone() {
    let home = |name: &str| name.starts_with("guard/") || name.starts_with("api/") || name == "front.rs";
    let words = [".headers()", "headers.get", "get_all(", "X-Forwarded", "x-forwarded"];
    assert_eq!(uses(&words, |name| !home(name)), Vec::<String>::new());
}

#[test]
fn what_changes_is_kept_through_the_ground() {
    // `commit` of a transaction by itself would keep a change without putting its effects into force. The first signing
    // key is made before there is anything that could end, and the time is taken back while no server runs.
    let committed = uses(&["tx.commit("], |_| true);
    assert_eq!(committed, ["ground.rs: 1", "noted_time.rs: 1", "signing.rs: 1"]);
    assert_eq!(uses(&["commit_quietly("], |_| true), ["engine.rs: 1", "upkeep.rs: 1"]);
}

#[test]
fn nothing_is_global() {
    let words =
        ["lazy_static", "LazyLock", "static mut", "thread_local!", "\nstatic ", "\npub static ", "std::env::var"];
    assert_eq!(uses(&words, |_| true), Vec::<String>::new());
}
