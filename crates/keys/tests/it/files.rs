use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use bartizan_keys::{FileKeyring, KeyProvider, SecretSource};
use tempfile::TempDir;

use crate::{chmod, faults, installation, mode, root_key};

#[test]
fn a_second_start_finds_what_the_first_made() {
    let temp = TempDir::new().unwrap();
    let source = SecretSource::dir(temp.path().join("a/b/secrets"));
    let made = FileKeyring::create(&source).unwrap();
    assert_eq!(made, [source.dir.join("root.key"), source.dir.join("password-pepper.key")]);
    let before = (fs::read(&made[0]).unwrap(), fs::read(&made[1]).unwrap());
    assert!(FileKeyring::create(&source).unwrap().is_empty());
    assert_eq!((fs::read(&made[0]).unwrap(), fs::read(&made[1]).unwrap()), before);
    let (first, second) = (FileKeyring::open(&source).unwrap(), FileKeyring::open(&source).unwrap());
    assert_eq!(first.kek_id(), second.kek_id());
    assert_eq!(first.peppers().current().id(), second.peppers().current().id());
    assert_eq!(fs::read_dir(&source.dir).unwrap().count(), 2, "nothing temporary stays");
}

#[test]
fn two_installations_share_no_secret() {
    let ((_a, one), (_b, two)) = (installation(), installation());
    let (one, two) = (FileKeyring::open(&one).unwrap(), FileKeyring::open(&two).unwrap());
    assert_ne!(one.kek_id(), two.kek_id());
    assert_ne!(one.peppers().current().id(), two.peppers().current().id());
    assert!(one.derive(one.kek_id(), "x").unwrap() != two.derive(two.kek_id(), "x").unwrap());
}

#[test]
fn paths_may_have_spaces_quotes_and_any_letters() {
    let temp = TempDir::new().unwrap();
    let source = SecretSource::dir(temp.path().join("größe d'un Schlüssel/秘密 $(x)"));
    FileKeyring::create(&source).unwrap();
    FileKeyring::open(&source).unwrap();
    chmod(&root_key(&source), 0o644);
    let said = faults(&source, 1);
    let command = said.split('`').nth(1).unwrap();
    assert!(Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
    FileKeyring::open(&source).unwrap();
}

#[test]
fn what_one_umask_child_makes() {
    // Runs as a child of the next test, because a umask belongs to a whole process.
    if let Some(dir) = std::env::var_os("BARTIZAN_TEST_UMASK_DIR") {
        FileKeyring::create(&SecretSource::dir(dir)).unwrap();
    }
}

#[test]
fn files_are_private_and_usable_under_any_umask() {
    for umask in ["000", "022", "077", "277"] {
        let temp = TempDir::new().unwrap();
        let source = SecretSource::dir(temp.path().join("secrets"));
        let child = Command::new("sh")
            .args(["-c", &format!("umask {umask}; exec \"$0\" --exact files::what_one_umask_child_makes")])
            .arg(std::env::current_exe().unwrap())
            .env("BARTIZAN_TEST_UMASK_DIR", &source.dir)
            .output()
            .unwrap();
        assert!(child.status.success(), "{child:?}");
        assert_eq!(mode(&source.dir), 0o700, "umask {umask}");
        assert_eq!(mode(&root_key(&source)), 0o600, "umask {umask}");
        FileKeyring::open(&source).unwrap();
    }
}

#[test]
fn processes_that_start_at_once_agree_on_one_key() {
    let temp = TempDir::new().unwrap();
    let source = SecretSource::dir(temp.path().join("secrets"));
    let ids: Vec<String> = std::thread::scope(|scope| {
        let start = || {
            FileKeyring::create(&source).unwrap();
            FileKeyring::open(&source).unwrap().kek_id().to_owned()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(fs::read_dir(&source.dir).unwrap().count(), 2);
}

#[test]
fn a_lost_root_key_is_not_replaced_by_a_new_one() {
    let (_temp, source) = installation();
    fs::remove_file(root_key(&source)).unwrap();
    let said = FileKeyring::create(&source).unwrap_err().to_string();
    assert!(said.contains("root.key is missing although") && said.contains("Restore it"), "{said}");
    assert!(!root_key(&source).exists());
    assert!(faults(&source, 1).contains("root.key is missing"));
}

#[test]
fn a_start_interrupted_between_two_secrets_is_completed() {
    let (_temp, source) = installation();
    fs::remove_file(source.dir.join("password-pepper.key")).unwrap();
    fs::write(source.dir.join(".password-pepper.key.0011223344556677.tmp"), "half").unwrap();
    assert_eq!(FileKeyring::create(&source).unwrap(), [source.dir.join("password-pepper.key")]);
    FileKeyring::open(&source).unwrap();
}

#[test]
fn a_link_that_leads_nowhere_is_not_filled() {
    let (temp, source) = installation();
    let elsewhere = temp.path().join("elsewhere");
    fs::remove_file(root_key(&source)).unwrap();
    symlink(&elsewhere, root_key(&source)).unwrap();
    assert!(FileKeyring::create(&source).unwrap().is_empty());
    assert!(!elsewhere.exists());
    assert!(faults(&source, 1).contains("root.key is missing"));
}

#[test]
fn everything_wrong_is_told_at_once_with_file_flaw_and_mend() {
    let (_temp, source) = installation();
    fs::write(root_key(&source), "changeme\n").unwrap();
    let pepper = source.dir.join("password-pepper.key");
    let text = fs::read_to_string(&pepper).unwrap();
    fs::write(&pepper, &text[..text.len() - 4]).unwrap();
    chmod(&pepper, 0o600);
    let older = source.dir.join("root.0011223344556677.key");
    fs::write(&older, "").unwrap();
    chmod(&older, 0o600);
    let said = faults(&source, 3);
    assert!(said.contains("root.key holds a placeholder and not a secret. Delete it"), "{said}");
    assert!(said.contains("password-pepper.key is cut short or has something added. Restore it"), "{said}");
    assert!(said.contains("root.0011223344556677.key is empty"), "{said}");
}

#[test]
fn a_fault_never_shows_what_is_in_the_file() {
    let (_temp, source) = installation();
    let text = fs::read_to_string(root_key(&source)).unwrap();
    fs::write(root_key(&source), text.replace("v1:", "v1:x")).unwrap();
    let secret = text.split(':').nth(1).unwrap();
    assert!(!faults(&source, 1).contains(&secret[..8]));
    assert!(!format!("{:?}", FileKeyring::open(&source)).contains(&secret[..8]));
}

#[test]
fn secrets_under_each_others_names_are_refused() {
    let (_temp, source) = installation();
    let (root, pepper) = (root_key(&source), source.dir.join("password-pepper.key"));
    let aside = source.dir.join("aside");
    fs::rename(&root, &aside).unwrap();
    fs::rename(&pepper, &root).unwrap();
    fs::rename(&aside, &pepper).unwrap();
    let said = faults(&source, 2);
    assert!(said.contains("root.key holds the secret of password-pepper.key"), "{said}");
    assert!(said.contains("password-pepper.key holds the secret of root.key"), "{said}");
}

#[test]
fn a_missing_directory_is_one_fault() {
    let temp = TempDir::new().unwrap();
    let source = SecretSource::dir(temp.path().join("none"));
    assert!(faults(&source, 1).contains("none is missing"));
}

#[test]
fn a_file_far_too_long_is_not_read() {
    let (_temp, source) = installation();
    fs::write(root_key(&source), vec![b'a'; 1 << 20]).unwrap();
    assert!(faults(&source, 1).contains("much longer"));
}
