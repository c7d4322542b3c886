//! The findings of the audit that the ground floor closes, each with the test that carries its number.

use std::process::Command;

use serde_json::json;

use crate::{launch, repository, server};

#[tokio::test]
async fn finding_01_a_token_logged_out_stays_refused_after_kill_minus_nine() {
    let mut server = server().await;
    for _ in 0..3 {
        let user = server.owner().await;
        drop(user.client.get("/v1/whoami").await.expect(200));
        drop(user.client.post("/v1/logout", json!({})).await.expect(204));
        server = server.restart().await;
        drop(server.client().bearer(&user.access).get("/v1/whoami").await.problem(401));
        drop(server.client().post("/v1/token/refresh", json!({ "refresh_token": user.refresh })).await.problem(401));
    }
}

#[tokio::test]
async fn finding_03_secrets_are_generated_and_stand_in_no_template() {
    let (one, two) = (server().await, server().await);
    let secrets = |dir: std::path::PathBuf| crate::secrets::files(&dir.join("secrets"));
    for (mine, other) in secrets(one.home().dir()).iter().zip(secrets(two.home().dir())) {
        assert_eq!(mine.file_name(), other.file_name());
        assert_ne!(
            std::fs::read(mine).unwrap(),
            std::fs::read(&other).unwrap(),
            "{} is the same twice",
            mine.display()
        );
    }
    assert_ne!(one.password, two.password);
    let template = std::fs::read_to_string(repository().join("bartizan.example.toml")).unwrap().to_lowercase();
    for word in ["changeme", "change-me", "change_me", "your-secret", "<secret", "placeholder"] {
        assert!(!template.contains(word), "{word} in the template");
    }
}

#[tokio::test]
async fn finding_05_every_route_is_guarded() {
    let server = server().await;
    let document = server.client().get("/openapi.json").await.expect(200).json();
    let mut guarded = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters") {
            assert!(!operation["x-access"].is_null(), "{method} {path} does not say who may");
            let security = if operation["security"].is_null() { &document["security"] } else { &operation["security"] };
            guarded += usize::from(security.as_array().is_some_and(|list| !list.is_empty()));
        }
    }
    assert!(guarded >= 14, "only {guarded} operations ask for a credential");
    // What nobody declared is not reachable.
    let owner = server.owner().await.client;
    for path in ["/v1/debug", "/admin", "/v1/internal", "/debug/pprof", "/.env", "/.git/config"] {
        drop(owner.get(path).await.problem(404));
    }
}

#[tokio::test]
async fn finding_10_every_input_is_typed_and_bounded() {
    let server = server().await;
    let document = server.client().get("/openapi.json").await.expect(200).json();
    let mut checked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters") {
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let schema = resolve(&document, &resolve(&document, parameter)["schema"]);
                assert!(bounded(&document, schema, 0), "{method} {path}: {parameter}");
                checked += 1;
            }
            for content in operation["requestBody"]["content"].as_object().into_iter().flat_map(|c| c.values()) {
                let schema = resolve(&document, &content["schema"]);
                assert!(bounded(&document, schema, 0), "{method} {path}: {schema:#}");
                checked += 1;
            }
        }
    }
    assert!(checked >= 12, "only {checked} inputs are documented");
}

fn resolve<'a>(document: &'a serde_json::Value, schema: &'a serde_json::Value) -> &'a serde_json::Value {
    match schema["$ref"].as_str() {
        Some(reference) => {
            document.pointer(reference.trim_start_matches('#')).expect("a reference that leads somewhere")
        }
        None => schema,
    }
}

/// Whether nothing in this schema is open: objects closed, texts, lists and numbers with an end.
fn bounded(document: &serde_json::Value, schema: &serde_json::Value, depth: usize) -> bool {
    let schema = resolve(document, schema);
    if depth > 16 || !schema["enum"].is_null() || !schema["const"].is_null() {
        return true;
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(list) = schema[choice].as_array() {
            return list.iter().all(|one| bounded(document, one, depth + 1));
        }
    }
    let types: Vec<&str> = match &schema["type"] {
        serde_json::Value::Array(list) => list.iter().filter_map(|t| t.as_str()).collect(),
        one => one.as_str().into_iter().collect(),
    };
    !types.is_empty()
        && types.iter().all(|kind| match *kind {
            "object" => {
                schema["additionalProperties"] == false
                    && schema["properties"]
                        .as_object()
                        .into_iter()
                        .flatten()
                        .all(|(_, s)| bounded(document, s, depth + 1))
            }
            "array" => schema["maxItems"].is_u64() && bounded(document, &schema["items"], depth + 1),
            "string" => schema["maxLength"].is_u64(),
            "integer" | "number" => !schema["minimum"].is_null() && !schema["maximum"].is_null(),
            _ => true,
        })
}

#[tokio::test]
async fn finding_11_security_headers_are_on_every_answer() {
    let server = server().await;
    let owner = server.owner().await.client;
    for path in ["/v1/whoami", "/v1/users", "/nothing", "/v1/users/nonsense", "/openapi.json"] {
        crate::headers::complete(path, &owner.get(path).await);
        crate::headers::complete(path, &server.client().get(path).await);
    }
}

#[test]
fn finding_12_a_planted_secret_is_found_in_tree_and_history() {
    let finished = Command::new("bash").arg(repository().join("tools/scan-secrets-test")).output().expect("bash");
    let said = String::from_utf8_lossy(&finished.stdout).into_owned() + &String::from_utf8_lossy(&finished.stderr);
    assert!(finished.status.success(), "{said}");
}

#[tokio::test]
async fn finding_14_it_runs_from_any_directory_and_can_be_moved() {
    let mut server = server().await;
    let session = server.owner().await;
    server.sigterm();
    assert_eq!(server.ended().await, Some(0));
    let elsewhere = server.home().moved();
    std::fs::rename(server.home().dir(), elsewhere.dir()).unwrap();
    let moved = launch().home(&elsewhere).start().await;
    drop(moved.client().bearer(&session.access).get("/v1/whoami").await.expect(200));
    let config = std::fs::read_to_string(elsewhere.config()).unwrap();
    assert!(!config.contains(server.home().outer().to_str().unwrap()), "an absolute path in the configuration");
}

#[test]
fn finding_14_no_developers_path_is_in_the_repository() {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(repository()).output().expect("git");
    for name in String::from_utf8_lossy(&listed.stdout).split('\0').filter(|name| !name.is_empty()) {
        let text = std::fs::read(repository().join(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        for home in [concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("C:\\Us", "ers\\")] {
            // Somebody's directory: a name, and something below it.
            let inside =
                |rest: &str| rest.find(['/', '\\']).is_some_and(|end| rest[..end].chars().all(char::is_alphanumeric));
            assert!(!text.split(home).skip(1).any(inside), "{home} in {name}");
        }
    }
}

#[test]
fn finding_15_dependencies_are_gated_by_the_build() {
    let gate = std::fs::read_to_string(repository().join(".ci/run")).unwrap();
    assert!(gate.contains("tools/dependencies"), "the gate does not look at dependencies");
    let rules = std::fs::read_to_string(repository().join("deny.toml")).unwrap();
    for section in ["[advisories]", "[bans]", "[licenses]", "[sources]"] {
        assert!(rules.contains(section), "{section}");
    }
}

#[tokio::test]
async fn finding_16_tiers_have_their_own_limits_and_a_change_acts_at_once() {
    let mut launch = launch();
    for (tier, burst) in [("FREE", "2"), ("PRO", "4"), ("ENTERPRISE", "6")] {
        launch = launch
            .set(&format!("LIMITS__TIERS__{tier}__PER_MINUTE"), "1")
            .set(&format!("LIMITS__TIERS__{tier}__BURST"), burst);
    }
    let server = launch.start().await;
    let user = server.signup("globex").await.client;
    let mut passed = 0;
    for (tier, burst) in [("free", 2), ("pro", 4), ("enterprise", 6)] {
        drop(server.operate(&["tenant", "set-tier", "globex", tier]).await.success());
        while user.get("/v1/tenant").await.status == 200 {
            passed += 1;
            assert!(passed <= 6, "tier {tier} lets more through than it says");
        }
        assert_eq!(passed, burst, "tier {tier}");
    }
}
