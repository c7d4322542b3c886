//! `bartizan dev`: the first five minutes.

use std::collections::BTreeSet;

use bartizan_testkit::raw;

use crate::{launch, server};

#[tokio::test]
async fn the_first_start_tells_the_password_and_the_second_does_not() {
    let first = server().await;
    assert_eq!(first.tenant, "acme");
    let password = first.password.clone().expect("a password at the first start");
    let session = first.owner().await;
    let launch = launch().home(first.home());
    let mut first = first;
    first.sigterm();
    assert_eq!(first.ended().await, Some(0));
    assert!(!first.log().contains(&password), "the password is in the log");
    let second = launch.start().await;
    assert_eq!(second.password, None);
    assert_eq!((&second.tenant, &second.email), (&first.tenant, &first.email));
    drop(second.login(&second.tenant, &second.email, &password).await);
    drop(second.client().bearer(&session.access).get("/v1/whoami").await.expect(200));
}

#[tokio::test]
async fn everything_it_writes_is_in_its_directory() {
    let server = server().await;
    let home = server.home().outer().to_owned();
    let names: BTreeSet<_> = std::fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names, BTreeSet::from([server.home().dir()]));
    assert!(server.home().config().is_file());
    assert!(server.home().dir().join("secrets").is_dir());
    assert!(server.home().dir().join("data").is_dir());
}

#[tokio::test]
async fn it_listens_on_loopback_only() {
    let server = server().await;
    for base in [&server.api, &server.ops] {
        assert!(base.starts_with("http://127.0.0.1:"), "{base}");
    }
}

#[tokio::test]
async fn without_json_it_prints_commands_that_work_when_pasted() {
    let launch = launch();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let help = launch.command(&["--help"]).await.success().stdout;
    for verb in
        ["dev", "serve", "init", "config", "routes", "doctor", "migrate", "tenant", "user", "session", "block", "audit"]
    {
        assert!(help.contains(verb), "no {verb} in\n{help}");
    }
    let refused = launch.command(&["dev", "--listen", "not-an-address"]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert_ne!(free.port(), 0);
}

#[tokio::test]
async fn a_client_that_never_finishes_its_head_does_not_hold_up_others() {
    let server = server().await;
    let address = server.api.trim_start_matches("http://").to_owned();
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut socket, b"GET /v1/whoami HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            .await
            .unwrap();
        held.push(socket);
    }
    let quick = b"GET /v1/whoami HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(raw(&server.api, quick).await.starts_with("HTTP/1.1 401"));
    assert_eq!(held.len(), 200);
}
