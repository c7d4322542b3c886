//! Other people's tools against a live server. `./test` installs them and says where they are in `BARTIZAN_TOOLS`;
//! a plain `cargo test` without it has nothing to run here and says so.

use std::path::PathBuf;

use bartizan_testkit::Server;
use tokio::process::Command;

use crate::{launch, repository, server};

/// The directory of the tools, or a notice.
fn tools(what: &str) -> Option<PathBuf> {
    let tools = std::env::var_os("BARTIZAN_TOOLS").map(PathBuf::from);
    if tools.is_none() {
        eprintln!("NOTICE: {what} was not run: ./test installs it");
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
        .args([path("ca.pem"), format!("{host}/openapi.json"), format!("{host}/v1/whoami")])
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
