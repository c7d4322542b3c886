//! What can be wrong with a PostgreSQL before the first question, and what the operator then reads.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::time::{Duration, Instant};

use bartizan_core::secret::Secret;
use bartizan_store::{Db, DbOptions, StoreError, StoreErrorKind, meta};
use bartizan_testkit::PostgresServer;

use crate::world::*;

fn nowhere() -> &'static Path {
    Path::new("unused")
}

async fn refused(url: &str) -> StoreError {
    Db::open(url, nowhere()).await.expect_err("must be refused")
}

#[tokio::test]
async fn login_that_is_refused_is_explained_without_the_password() {
    let server = PostgresServer::start();
    let port = server.port();
    let said = |error: &StoreError| format!("{error} {error:?}");

    let error = refused(&format!("postgres://bartizan:hunter2@127.0.0.1:{port}/bartizan")).await;
    assert_eq!(error.kind(), StoreErrorKind::Access);
    assert!(error.to_string().contains("refuses the password") && !said(&error).contains("hunter2"), "{error}");

    let error = refused(&server.url_of("missing")).await;
    assert_eq!(error.kind(), StoreErrorKind::Access);
    assert!(error.to_string().contains("CREATE DATABASE"), "{error}");
    assert!(!said(&error).contains(server.password()), "{error:?}");

    for mode in ["require", "verify-full"] {
        let error = refused(&format!("{}?sslmode={mode}", server.url())).await;
        assert_eq!(error.kind(), StoreErrorKind::Access, "{error:?}");
        assert!(error.to_string().contains("switch TLS on"), "{error}");
        assert!(!said(&error).contains(server.password()), "{error:?}");
    }

    server.sql("bartizan", "CREATE ROLE guest LOGIN PASSWORD 'guest'; REVOKE CREATE ON SCHEMA public FROM public");
    let error = refused(&format!("postgres://guest:guest@127.0.0.1:{port}/bartizan")).await;
    assert_eq!(error.kind(), StoreErrorKind::Access, "{error:?}");
    assert!(error.to_string().contains("owner of the database"), "{error}");

    // Elsewhere than in the address, as from a file with a newline at its end.
    let password = Some(Secret::new(format!("{}\n", server.password())));
    let options = DbOptions { password, ..DbOptions::default() };
    let url = format!("postgres://bartizan@127.0.0.1:{port}/bartizan");
    let db = Db::open_with(&url, nowhere(), &options).await.unwrap();
    assert!(!format!("{db:?} {options:?} {}", db.place()).contains(server.password()));
    assert!(db.place().contains(&port.to_string()) && db.path().is_none());
    db.check().await.unwrap();
    let facts = db.facts().await.unwrap();
    let fact = |name: &str| facts.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    assert_eq!((fact("fsync"), fact("encryption"), fact("standby")), (Some("on"), Some("none"), Some("off")));
    db.close().await;
    assert_eq!(db.read_platform(&platform()).await.err().unwrap().kind(), StoreErrorKind::Closed);
    assert_eq!(db.change_platform(&platform()).await.err().unwrap().kind(), StoreErrorKind::Closed);

    let socket = format!("postgres://bartizan@x/bartizan?host={}", server.socket_dir().display());
    let socket = socket.replace("@x/", &format!("@x:{port}/"));
    Db::open_with(&socket, nowhere(), &options).await.unwrap();
}

#[tokio::test]
async fn server_that_is_not_there_is_told_at_once() {
    let mut server = PostgresServer::start();
    server.stop();
    let begin = Instant::now();
    let error = refused(&server.url()).await;
    assert_eq!(error.kind(), StoreErrorKind::Unreachable);
    assert!(
        error.to_string().contains("see that it runs") && !error.to_string().contains(server.password()),
        "{error}"
    );
    assert!(begin.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn nodes_that_start_at_once_make_the_schema_once() {
    let server = PostgresServer::start();
    let (url, mut starts) = (server.url(), tokio::task::JoinSet::new());
    for _ in 0..5 {
        let url = url.clone();
        let options = DbOptions { pool: 2, ..DbOptions::default() };
        starts.spawn(async move { Db::open_with(&url, nowhere(), &options).await.unwrap() });
    }
    let nodes = starts.join_all().await;
    assert_eq!(server.sql("bartizan", "SELECT count(*) FROM schema_version"), "1");
    let mut tx = nodes[0].change_platform(&platform()).await.unwrap();
    meta::set(&mut tx, "node", "n1").await.unwrap();
    tx.commit_quietly(()).await.unwrap();
    let mut reader = nodes[4].read_platform(&platform()).await.unwrap();
    assert_eq!(meta::find(&mut reader, "node").await.unwrap().as_deref(), Some("n1"));
}

#[tokio::test]
async fn database_that_is_not_ours_or_too_new_is_refused_and_left_alone() {
    let server = PostgresServer::start();
    Db::open(&server.url(), nowhere()).await.unwrap().close().await;

    server.sql("bartizan", "INSERT INTO schema_version VALUES (7, 'future', 'x', 0)");
    let error = refused(&server.url()).await;
    assert_eq!(error.kind(), StoreErrorKind::Newer { found: 7, known: 1 });
    server.sql("bartizan", "DELETE FROM schema_version WHERE version = 7; UPDATE schema_version SET checksum = 'x'");
    assert_eq!(refused(&server.url()).await.kind(), StoreErrorKind::Corrupt);
    server.sql("bartizan", "DROP TABLE schema_version");
    let error = refused(&server.url()).await;
    assert!(error.to_string().contains("another program"), "{error}");

    for (name, sql) in [("shop", "CREATE TABLE orders (id int)"), ("rival", "CREATE TABLE schema_version (v int)")] {
        let url = server.create_database(name);
        server.sql(name, sql);
        let error = refused(&url).await;
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{name}: {error:?}");
        assert_eq!(server.sql(name, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "1", "{name}");
    }
    let url = server.create_database("latin");
    // As if it had been created with `ENCODING 'SQL_ASCII'`.
    server.sql("bartizan", "UPDATE pg_database SET encoding = 0 WHERE datname = 'latin'");
    let error = refused(&url).await;
    assert!(error.to_string().contains("ENCODING 'UTF8'"), "{error}");
}

#[tokio::test]
async fn standby_is_recognised() {
    let mut server = PostgresServer::start();
    Db::open(&server.url(), nowhere()).await.unwrap().close().await;
    server.stop();
    fs::write(server.data_dir().join("standby.signal"), "").unwrap();
    server.restart();
    let error = refused(&server.url()).await;
    assert_eq!(error.kind(), StoreErrorKind::ReadOnly, "{error:?}");
    assert!(error.to_string().contains("read-only standby; give the address of the primary"), "{error}");
}

#[tokio::test]
async fn settings_of_the_server_do_not_weaken_a_promise() {
    let server = PostgresServer::start_with(&[
        "synchronous_commit=off",
        "default_transaction_isolation=serializable",
        "default_transaction_read_only=on",
        // Short, but no shorter than what a busy machine takes to set another.
        "statement_timeout=2s",
    ]);
    let db = Db::open(&server.url(), nowhere()).await.unwrap();
    let scope = bartizan_store::PlatformScope::granted("test");
    let mut tx = db.change_platform(&scope).await.unwrap();
    const ASK: bartizan_store::Global = bartizan_store::global(
        "SELECT current_setting('synchronous_commit') || ' ' || current_setting('transaction_isolation') \
         || ' ' || current_setting('statement_timeout')",
    );
    let said: Option<(String,)> = tx.row(ASK, vec![]).await.unwrap();
    assert_eq!(said.unwrap().0, "on read committed 10s");
}

#[tokio::test]
async fn encrypted_server_is_believed_only_with_its_certificate() {
    let mut server = PostgresServer::start();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer_certificate = authority.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(authority, key);
    let server_key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&server_key, &issuer).unwrap();
    let data = server.data_dir();
    let owner = fs::metadata(&data).unwrap();
    for (name, text) in [("server.crt", certificate.pem()), ("server.key", server_key.serialize_pem())] {
        let path = data.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    server.sql("bartizan", "ALTER SYSTEM SET ssl = on");
    server.restart();

    let dir = tempfile::tempdir().unwrap();
    let trusted = dir.path().join("ca.pem");
    fs::write(&trusted, issuer_certificate.pem()).unwrap();
    let by_name = server.url().replace("127.0.0.1", "localhost");
    let db = Db::open(&format!("{by_name}?sslmode=verify-full&sslrootcert={}", trusted.display()), nowhere()).await;
    let facts = db.unwrap().facts().await.unwrap();
    assert!(facts.iter().any(|(name, value)| name == "encryption" && value.starts_with("TLSv1.")), "{facts:?}");

    // Another name, and an authority that nobody trusts.
    for url in [
        format!("{}?sslmode=verify-full&sslrootcert={}", server.url(), trusted.display()),
        format!("{by_name}?sslmode=verify-full"),
    ] {
        let error = refused(&url).await;
        assert_eq!(error.kind(), StoreErrorKind::Access, "{error:?}");
        assert!(error.to_string().contains("host name that the certificate bears"), "{error}");
        assert!(!format!("{error} {error:?}").contains(server.password()));
    }
    let error = refused(&format!("{by_name}?sslmode=verify-full&sslrootcert=/missing.pem")).await;
    assert_eq!(error.kind(), StoreErrorKind::Access, "{error:?}");
    assert!(error.to_string().contains("file named in the address"), "{error}");
}
