//! Other people's tools against a live server. `./test` installs them and says where they are in `BARTIZAN_TOOLS`;
//! a plain `cargo test` without it has nothing to run here and says so.

use std::io::Write as _;
use std::path::PathBuf;

use bartizan_testkit::Server;
use tokio::process::Command;

use crate::{launch, repository, server};

/// The directory of the tools, or a notice.
fn tools(what: &str) -> Option<PathBuf> {
    let tools = std::env::var_os("BARTIZAN_TOOLS").map(PathBuf::from);
    if tools.is_none() {
        // Straight to the terminal: the runner hides what a passing test prints.
        let _ = writeln!(std::io::stderr(), "NOTICE: {what} was not run: ./test installs it");
    }
    tools
}

async fn run(script: &str, server: &Server) {
    let output = Command::new("bash")
        .arg(repository().join("tools").join(script))
        .env("BASE", &server.api)
        .env("TENANT", &server.tenant)
        .env("EMAIL", &server.email)
        .env("PASSWORD", server.password.clone().expect("a password"))
        .kill_on_drop(true)
        .output()
        .await
        .expect("bash");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[tokio::test]
async fn schemathesis_finds_nothing() {
    if tools("schemathesis").is_some() {
        run("schemathesis", &server().await).await;
    }
}

#[tokio::test]
async fn the_http_observatory_gives_a_plus_over_tls() {
    if tools("the HTTP Observatory").is_none() {
        return;
    }
    // A certificate authority of its own, which only this scan trusts.
    let home = tempfile::tempdir().unwrap();
    let made =
        Command::new("bash").arg(repository().join("tools/test-ca")).arg(home.path()).output().await.expect("bash");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let server = launch()
        .set("SERVER__TLS__CERT", &path("server.pem"))
        .set("SERVER__TLS__KEY", &path("server.key"))
        .set("SERVER__PUBLIC_URL", "https://127.0.0.1:8443")
        .start()
        .await;
    assert!(server.api.starts_with("https://"), "{}", server.api);
    let host = server.api.trim_start_matches("https://").to_owned();
    let output = Command::new("bash")
        .arg(repository().join("tools/observatory"))
        .args([path("ca.pem"), host, "/openapi.json".to_owned(), "/v1/whoami".to_owned()])
        .output()
        .await
        .expect("bash");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // Our own grader, which works without anybody's tool, must come to the same.
    let page = format!("{}/openapi.json", server.api);
    let graded = launch().command(&["doctor", "--grade", &page, "--ca", &path("ca.pem")]).await.success();
    assert!(graded.stdout.contains("A+"), "{}", graded.stdout);
}

/// Runs a few lines of Python with the tools' packages.
async fn python(tools: &std::path::Path, script: &str, args: &[&str]) {
    let output =
        Command::new(tools.join("venv/bin/python")).arg("-c").arg(script).args(args).output().await.expect("python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn an_independent_reader_understands_the_rate_limit_fields() {
    let Some(tools) = tools("http_sfv") else { return };
    let server =
        launch().set("LIMITS__TIERS__FREE__PER_MINUTE", "1").set("LIMITS__TIERS__FREE__BURST", "1").start().await;
    let user = server.signup("globex").await.client;
    let read = r#"
import sys, http_sfv
policy, state = http_sfv.List(), http_sfv.List()
policy.parse(sys.argv[1].encode())
state.parse(sys.argv[2].encode())
names = [item.value for item in policy]
assert names and all(type(name) is str for name in names), names
assert all(type(item.params["q"]) is int and item.params["w"] > 0 for item in policy)
assert all(item.value in names and item.params["r"] >= 0 for item in state), (names, str(state))
"#;
    for status in [200, 429] {
        let answer = user.get("/v1/whoami").await.expect(status);
        python(&tools, read, &[answer.header("ratelimit-policy"), answer.header("ratelimit")]).await;
    }
}

#[tokio::test]
async fn an_independent_library_verifies_our_tokens_by_our_key_set() {
    let Some(tools) = tools("PyJWT") else { return };
    let server = server().await;
    let keys = server.client().get("/.well-known/jwks.json").await.expect(200);
    let token = server.owner().await.access;
    let verify = r#"
import sys, jwt
kid = jwt.get_unverified_header(sys.argv[2])["kid"]
key = next(key for key in jwt.PyJWKSet.from_json(sys.argv[1]).keys if key.key_id == kid)
needed = {"require": ["iss", "sub", "aud", "iat", "exp", "jti"]}
jwt.decode(sys.argv[2], key.key, algorithms=["EdDSA"], audience="bartizan", issuer="http://127.0.0.1:8080", options=needed)
"#;
    python(&tools, verify, &[&String::from_utf8_lossy(&keys.body), &token]).await;
}
