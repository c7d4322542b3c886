//! Secret files: made, guarded, never shown.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bartizan_testkit::{Finished, Launch};

use crate::{launch, server};

/// Every file below `dir`.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path))
        } else if path.is_file() {
            found.push(path)
        }
    }
    found
}

/// A directory made by `init`, and how to serve it.
async fn initialised() -> (Launch, PathBuf) {
    let launch = launch();
    let dir = launch.home_dir().dir();
    drop(launch.command(&["init", "--dir", dir.to_str().unwrap()]).await.success());
    (launch, dir)
}

async fn serve(launch: &Launch, dir: &Path) -> Finished {
    let config = dir.join("bartizan.toml");
    launch
        .clone()
        .set("SERVER__LISTEN", "127.0.0.1:0")
        .set("OPS__LISTEN", "127.0.0.1:0")
        .command(&["serve", "--config", config.to_str().unwrap()])
        .await
}

fn some_secret(dir: &Path) -> PathBuf {
    files(&dir.join("secrets")).into_iter().next().expect("a secret file")
}

#[tokio::test]
async fn they_are_readable_by_the_owner_only() {
    let server = server().await;
    let dir = server.home().dir().join("secrets");
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let all = files(&dir);
    assert!(!all.is_empty());
    for file in all {
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    for file in files(&server.home().dir().join("data")) {
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o077, 0, "{}", file.display());
    }
}

#[tokio::test]
async fn none_is_shown_by_any_command_log_or_configuration() {
    let server = server().await;
    drop(server.owner().await);
    let (dir, config) = (server.home().dir(), server.home().config());
    let config = config.to_str().unwrap();
    let launch = launch().home(server.home());
    let mut shown = server.log();
    for args in [
        vec!["config", "print", "--config", config],
        vec!["config", "print", "--effective", "--config", config],
        vec!["doctor", "--config", config],
    ] {
        let finished = launch.command(&args).await;
        shown.push_str(&finished.stdout);
        shown.push_str(&finished.stderr);
    }
    shown.push_str(&std::fs::read_to_string(config).unwrap());
    for file in files(&dir.join("secrets")) {
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        let secret = text.trim().split(':').nth(1).unwrap_or(text.trim()).to_owned();
        assert!(secret.len() >= 32, "{} looks too short", file.display());
        assert!(!shown.contains(&secret), "{} is shown", file.display());
    }
}

#[tokio::test]
async fn a_world_readable_one_stops_the_start() {
    let (launch, dir) = initialised().await;
    let file = some_secret(&dir);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    drop(serve(&launch, &dir).await.refused(&[name, "chmod"]));
}

#[tokio::test]
async fn placeholders_and_broken_ones_stop_the_start_with_the_way_to_mend_it() {
    for content in ["", "\n", "changeme", "secret", "0000000000000000000000000000000000000000000", "x"] {
        let (launch, dir) = initialised().await;
        let file = some_secret(&dir);
        std::fs::write(&file, content).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        let finished = serve(&launch, &dir).await.refused(&[name]);
        assert!(content.len() < 40 || !finished.stderr.contains(content), "the content is shown");
    }
    let (launch, dir) = initialised().await;
    let file = some_secret(&dir);
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    drop(serve(&launch, &dir).await.refused(&[file.file_name().unwrap().to_str().unwrap()]));
}

#[tokio::test]
async fn the_root_key_of_another_installation_is_told_apart() {
    let (mut one, two) = (server().await, server().await);
    let (mine, foreign) = (one.home().dir().join("secrets"), two.home().dir().join("secrets"));
    let launch = launch().home(one.home());
    let dir = one.home().dir();
    one.kill9().await;
    for file in files(&foreign) {
        std::fs::copy(&file, mine.join(file.file_name().unwrap())).unwrap();
    }
    drop(serve(&launch, &dir).await.refused(&["key"]));
}

#[tokio::test]
async fn init_overwrites_nothing() {
    let (launch, dir) = initialised().await;
    let before: Vec<_> = files(&dir).into_iter().map(|file| (std::fs::read(&file).unwrap(), file)).collect();
    drop(launch.command(&["init", "--dir", dir.to_str().unwrap()]).await.refused(&["exists"]));
    let after: Vec<_> = files(&dir).into_iter().map(|file| (std::fs::read(&file).unwrap(), file)).collect();
    assert_eq!(before, after);
}
