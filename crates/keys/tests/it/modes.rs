use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use bartizan_keys::{FileKeyring, KeyProvider, SecretSource};
use rustix::process::geteuid;

use crate::{chmod, faults, installation, root_key};

#[test]
fn a_secret_that_others_can_use_is_refused() {
    let (_temp, source) = installation();
    for (mode, who) in [
        (0o644, "by every user (mode 0644)"),
        (0o604, "by every user"),
        (0o602, "by every user"),
        (0o601, "by every user"),
        (0o640, "by its group (mode 0640)"),
        (0o620, "by its group"),
        (0o4777, "by every user (mode 4777)"),
    ] {
        chmod(&root_key(&source), mode);
        let said = faults(&source, 1);
        assert!(said.contains(who) && said.contains("Run `chmod 600 "), "{said}");
    }
    for mode in [0o600, 0o400] {
        chmod(&root_key(&source), mode);
        FileKeyring::open(&source).unwrap();
    }
}

#[test]
fn a_directory_that_others_can_enter_is_refused() {
    let (_temp, source) = installation();
    for mode in [0o755, 0o750, 0o711, 0o707] {
        chmod(&source.dir, mode);
        let said = faults(&source, 1);
        assert!(said.contains("Run `chmod 700 "), "{said}");
        assert!(FileKeyring::create(&source).is_err(), "never repaired silently");
    }
}

#[test]
fn a_link_is_judged_by_its_target() {
    let (temp, source) = installation();
    let target = temp.path().join("target.key");
    fs::rename(root_key(&source), &target).unwrap();
    symlink(&target, root_key(&source)).unwrap();
    FileKeyring::open(&source).unwrap();
    chmod(&target, 0o644);
    assert!(faults(&source, 1).contains("by every user"));
}

#[test]
fn what_is_not_a_file_is_refused_without_waiting() {
    let (_temp, source) = installation();
    fs::remove_file(root_key(&source)).unwrap();
    assert!(Command::new("mkfifo").arg(root_key(&source)).status().unwrap().success());
    chmod(&root_key(&source), 0o600);
    assert!(faults(&source, 1).contains("is not a file"));
    fs::remove_file(root_key(&source)).unwrap();
    fs::create_dir(root_key(&source)).unwrap();
    assert!(faults(&source, 1).contains("is not a file"));
}

#[test]
fn a_given_secret_may_be_read_by_its_group_when_root_hands_it_out() {
    let (temp, mut source) = installation();
    let credential = temp.path().join("credential");
    fs::rename(root_key(&source), &credential).unwrap();
    source.overrides.insert("root.key".into(), credential.clone());
    chmod(&credential, 0o400);
    FileKeyring::open(&source).unwrap();
    chmod(&credential, 0o440);
    assert_eq!(FileKeyring::open(&source).is_ok(), geteuid().is_root(), "only from root");
    for mode in [0o444, 0o404, 0o460, 0o420] {
        chmod(&credential, mode);
        assert!(faults(&source, 1).contains("0400"), "{mode:o}");
    }
}

#[test]
fn with_every_secret_given_no_directory_is_needed() {
    let (temp, source) = installation();
    let overrides = ["root.key", "password-pepper.key"].map(|name| (name.to_owned(), source.dir.join(name)));
    let given = SecretSource { dir: temp.path().join("none"), overrides: overrides.into() };
    assert!(FileKeyring::create(&given).unwrap().is_empty());
    let (a, b) = (FileKeyring::open(&given).unwrap(), FileKeyring::open(&source).unwrap());
    assert_eq!(a.kek_id(), b.kek_id());
    assert!(!given.dir.exists());
}

#[test]
fn a_given_secret_is_not_made_and_the_others_are() {
    let (temp, source) = installation();
    let overrides = [("root.key".to_owned(), root_key(&source))].into();
    let other = SecretSource { dir: temp.path().join("other"), overrides };
    assert_eq!(FileKeyring::create(&other).unwrap(), [other.dir.join("password-pepper.key")]);
    FileKeyring::open(&other).unwrap();
}

#[test]
fn an_unknown_name_is_refused() {
    let (_temp, mut source) = installation();
    source.overrides.insert("rot.key".into(), root_key(&source));
    assert!(faults(&source, 1).contains("`rot.key`, which Bartizan does not know"));
}
