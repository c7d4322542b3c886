use std::fs;

use bartizan_core::secret::Secret;
use bartizan_keys::{FileKeyring, KeyError, KeyProvider, Transience};

use crate::{faults, installation, root_key};

#[test]
fn a_wrapped_key_opens_only_as_what_it_was_wrapped_as() {
    let (_temp, source) = installation();
    let keyring = FileKeyring::open(&source).unwrap();
    let (kek, key) = (keyring.kek_id().to_owned(), Secret::new([7; 32]));
    let wrapped = keyring.wrap(b"tenant a", &key).unwrap();
    assert!(keyring.unwrap(&kek, b"tenant a", &wrapped).unwrap() == key);
    assert_eq!(keyring.unwrap(&kek, b"tenant b", &wrapped).err(), Some(KeyError::Refused));
    assert_eq!(keyring.unwrap(&kek, b"", &wrapped).err(), Some(KeyError::Refused));
    assert_eq!(keyring.unwrap_bytes(&kek, b"tenant a", &wrapped).err(), Some(KeyError::Refused), "a key is not bytes");
    for at in 0..wrapped.len() {
        let mut bad = wrapped.clone();
        bad[at] ^= 0x10;
        assert_eq!(keyring.unwrap(&kek, b"tenant a", &bad).err(), Some(KeyError::Refused), "byte {at}");
        assert_eq!(keyring.unwrap(&kek, b"tenant a", &wrapped[..at]).err(), Some(KeyError::Refused), "cut to {at}");
    }
    assert_ne!(keyring.wrap(b"tenant a", &key).unwrap(), wrapped, "a wrap never repeats");
}

#[test]
fn bytes_of_any_length_are_wrapped_and_are_not_a_key() {
    let (_temp, source) = installation();
    let keyring = FileKeyring::open(&source).unwrap();
    for length in [0, 1, 32, 83, 5000] {
        let bytes = Secret::new(vec![9; length]);
        let wrapped = keyring.wrap_bytes(b"jwt", &bytes).unwrap();
        assert!(keyring.unwrap_bytes(keyring.kek_id(), b"jwt", &wrapped).unwrap() == bytes);
        assert_eq!(keyring.unwrap(keyring.kek_id(), b"jwt", &wrapped).err(), Some(KeyError::Refused));
    }
    let huge = Secret::new(vec![0; (1 << 20) + 1]);
    assert_eq!(keyring.wrap_bytes(b"jwt", &huge), Err(KeyError::TooLarge));
    assert_eq!(keyring.wrap_bytes(&[0; 65_536], &Secret::new(vec![])), Err(KeyError::TooLarge));
}

#[test]
fn a_foreign_root_key_is_named_together_with_what_is_here() {
    let ((_a, here), (_b, there)) = (installation(), installation());
    let (here, there) = (FileKeyring::open(&here).unwrap(), FileKeyring::open(&there).unwrap());
    let wrapped = there.wrap(b"x", &Secret::new([1; 32])).unwrap();
    assert_eq!(here.require(here.kek_id()), Ok(()));
    let error = here.require(there.kek_id()).unwrap_err();
    assert_eq!(error.transience(), Transience::Permanent);
    let said = error.to_string();
    let expected = format!("sealed under root key {}, the keyring holds {}", there.kek_id(), here.kek_id());
    assert!(said.contains(&expected), "{said}");
    assert_eq!(here.unwrap(there.kek_id(), b"x", &wrapped).err(), Some(error));
    assert_eq!(
        here.unwrap(here.kek_id(), b"x", &wrapped).err(),
        Some(KeyError::Refused),
        "a false label does not help"
    );
}

#[test]
fn an_older_root_key_still_opens_and_the_new_one_wraps() {
    let (_temp, source) = installation();
    let before = FileKeyring::open(&source).unwrap();
    let old = before.wrap(b"x", &Secret::new([1; 32])).unwrap();
    fs::rename(root_key(&source), source.dir.join(format!("root.{}.key", before.kek_id()))).unwrap();
    assert_eq!(FileKeyring::create(&source).unwrap(), [root_key(&source)]);
    let after = FileKeyring::open(&source).unwrap();
    assert_ne!(after.kek_id(), before.kek_id());
    assert!(after.unwrap(before.kek_id(), b"x", &old).unwrap() == Secret::new([1; 32]));
    let new = after.wrap(b"x", &Secret::new([2; 32])).unwrap();
    assert!(before.unwrap(after.kek_id(), b"x", &new).is_err());
}

#[test]
fn an_older_pepper_is_kept_under_its_id() {
    let (_temp, source) = installation();
    let id = FileKeyring::open(&source).unwrap().peppers().current().id();
    let pepper = source.dir.join("password-pepper.key");
    fs::rename(&pepper, source.dir.join(format!("password-pepper.{id}.key"))).unwrap();
    FileKeyring::create(&source).unwrap();
    assert_ne!(FileKeyring::open(&source).unwrap().peppers().current().id(), id);
}

#[test]
fn an_older_key_under_a_false_id_is_refused() {
    let (_temp, source) = installation();
    fs::copy(root_key(&source), source.dir.join("root.0123456789abcdef.key")).unwrap();
    assert!(faults(&source, 1).contains("not the one its name says"));
}

#[test]
fn derived_keys_depend_on_their_label_and_on_nothing_that_changes() {
    let (_temp, source) = installation();
    let one = FileKeyring::open(&source).unwrap();
    let root = one.kek_id().to_owned();
    let derive = |keyring: &FileKeyring, label| keyring.derive(&root, label);
    let cursor = derive(&one, "cursor").unwrap();
    assert!(cursor == derive(&FileKeyring::open(&source).unwrap(), "cursor").unwrap());
    assert!(derive(&one, "limiter").unwrap() != cursor);
    assert!(derive(&one, "").unwrap() != cursor);
    // Nor on a change of the root key, as long as the old one is kept.
    fs::rename(root_key(&source), source.dir.join(format!("root.{root}.key"))).unwrap();
    FileKeyring::create(&source).unwrap();
    let after = FileKeyring::open(&source).unwrap();
    assert!(derive(&after, "cursor").unwrap() == cursor);
    assert!(after.derive(after.kek_id(), "cursor").unwrap() != cursor);
    assert!(matches!(one.derive(after.kek_id(), "cursor"), Err(KeyError::ForeignRoot { .. })));
}
