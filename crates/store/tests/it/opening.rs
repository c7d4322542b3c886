//! What can be wrong with a database before the first question, and what the operator then reads.

use std::fs;
use std::path::Path;

use bartizan_store::{Db, StoreError, StoreErrorKind};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

async fn refused(url: &str, dir: &Path) -> StoreError {
    Db::open(url, dir).await.expect_err("must be refused")
}

/// Opens and closes a database, then changes it behind Bartizan's back.
async fn tampered(dir: &Path, sql: &str) {
    Db::open("sqlite:t.db", dir).await.unwrap().close().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.join("t.db"));
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
}

#[tokio::test]
async fn any_file_name_is_taken_literally_and_the_file_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("my dätä? #1");
    for name in ["plain.db", "mit Leerzeichen ü 雪.db", "what?mode=memory", "100%41.db", "file:x.db", "a#b.db"] {
        let db = Db::open(&format!("sqlite:{name}"), &data).await.unwrap();
        assert_eq!(db.path().unwrap(), fs::canonicalize(data.join(name)).unwrap());
        db.close().await;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(data.join(name)).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }
    let absolute = format!("sqlite:{}", dir.path().join("absolute.db").display());
    Db::open(&absolute, &data).await.unwrap();
    assert!(dir.path().join("absolute.db").is_file());
}

#[tokio::test]
async fn unusable_addresses_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    for url in ["", "sqlite:", "sqlite::memory:", "sqlite://x.db", "sqlite:a\0b", "postgres://localhost/x", "x.db"] {
        let error = refused(url, dir.path()).await;
        assert_eq!(error.kind(), StoreErrorKind::Url, "{url}");
        assert!(error.to_string().contains("write `sqlite:`"), "{error}");
    }
}

#[tokio::test]
async fn second_server_is_refused_until_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let first = Db::open("sqlite:t.db", dir.path()).await.unwrap();
    let error = refused("sqlite:t.db", dir.path()).await;
    assert_eq!(error.kind(), StoreErrorKind::Locked);
    let text = error.to_string();
    assert!(text.contains("another running server") && text.contains(&std::process::id().to_string()), "{text}");
    // Another name of the same file is the same file.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(dir.path().join("t.db"), dir.path().join("link.db")).unwrap();
        assert_eq!(refused("sqlite:link.db", dir.path()).await.kind(), StoreErrorKind::Locked);
    }
    first.close().await;
    drop(first);
    Db::open("sqlite:t.db", dir.path()).await.unwrap();
}

#[tokio::test]
async fn database_of_a_newer_version_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    tampered(dir.path(), "INSERT INTO schema_version VALUES (7, 'future', 'x', 0)").await;
    let before = fs::read(dir.path().join("t.db")).unwrap();
    let error = refused("sqlite:t.db", dir.path()).await;
    assert_eq!(error.kind(), StoreErrorKind::Newer { found: 7, known: 1 });
    assert!(error.to_string().starts_with(
        "this database is of schema version 7, this program knows 1: install the newer program or restore the backup"
    ));
    assert_eq!(fs::read(dir.path().join("t.db")).unwrap(), before);
}

#[tokio::test]
async fn schema_made_by_another_program_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    tampered(dir.path(), "UPDATE schema_version SET checksum = 'other'").await;
    assert_eq!(refused("sqlite:t.db", dir.path()).await.kind(), StoreErrorKind::Corrupt);

    let dir = tempfile::tempdir().unwrap();
    tampered(dir.path(), "DROP TABLE schema_version").await;
    let error = refused("sqlite:t.db", dir.path()).await;
    assert!(error.to_string().contains("another program"), "{error}");
}

#[tokio::test]
async fn file_that_is_no_database_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let garbage = b"not a database, but somebody's precious text\n".repeat(200);
    fs::write(dir.path().join("t.db"), &garbage).unwrap();
    let error = refused("sqlite:t.db", dir.path()).await;
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert!(error.to_string().contains("restore the latest backup") && error.to_string().contains("t.db"), "{error}");
    assert_eq!(fs::read(dir.path().join("t.db")).unwrap(), garbage);
}

#[tokio::test]
async fn damaged_page_is_found_by_the_check() {
    let dir = tempfile::tempdir().unwrap();
    tampered(dir.path(), "PRAGMA wal_checkpoint(TRUNCATE)").await;
    let path = dir.path().join("t.db");
    let mut bytes = fs::read(&path).unwrap();
    // The last pages are roots of tables; the header and the schema stay whole.
    let start = bytes.len() - 4096;
    bytes[start..].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    match Db::open("sqlite:t.db", dir.path()).await {
        Ok(db) => assert_eq!(db.check().await.unwrap_err().kind(), StoreErrorKind::Corrupt),
        Err(error) => assert_eq!(error.kind(), StoreErrorKind::Corrupt),
    }
}

#[tokio::test]
async fn what_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("t.db")).unwrap();
    let error = refused("sqlite:t.db", dir.path()).await;
    assert_eq!(error.kind(), StoreErrorKind::Io);
    assert!(error.to_string().contains("t.db"), "{error}");

    fs::write(dir.path().join("file"), "").unwrap();
    let error = refused("sqlite:t.db", &dir.path().join("file")).await;
    assert!(error.to_string().contains("file"), "{error}");
    let error = refused("sqlite:missing/t.db", dir.path()).await;
    assert!(error.to_string().contains("missing"), "{error}");
}

#[cfg(unix)]
#[tokio::test]
async fn read_only_directory_is_explained() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let locked = dir.path().join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(locked.join("probe"), "").is_ok() {
        eprintln!("skipped: this user may write into a directory of mode 0500 (root)");
        return;
    }
    let error = refused("sqlite:t.db", &locked).await;
    assert_eq!(error.kind(), StoreErrorKind::ReadOnly);
    assert!(error.to_string().contains("write permission"), "{error}");
    assert!(!error.transient());
}

#[tokio::test]
async fn closed_database_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open("sqlite:t.db", dir.path()).await.unwrap();
    db.close().await;
    let scope = bartizan_store::PlatformScope::granted("test");
    assert_eq!(db.read_platform(&scope).await.err().unwrap().kind(), StoreErrorKind::Closed);
    assert!(!dir.path().join("t.db-wal").exists(), "closing empties the log into the file");
}
