//! The key provider for a machine without a hardware module: secrets in files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::rand;
use bartizan_core::cipher::{Aad, CipherError, Xaes, derive_key};
use bartizan_core::password::{Pepper, Peppers};
use bartizan_core::secret::Secret;
use zeroize::Zeroizing;

use crate::fault::{SecretFault, SecretFaults};
use crate::place::{self, Made, Place, SecretSource};
use crate::provider::{KeyError, KeyProvider};
use crate::secret_file::{self, Flaw, LEN, SecretKind};

/// First byte of a wrap: the format.
const FORMAT: u8 = 1;

/// Root keys and peppers from files.
///
/// `root.key` and `password-pepper.key` are in force; `root.<id>.key` and `password-pepper.<id>.key` are older ones that
/// are only read with. To change a secret, rename its file to the name with its id, and let `create` make a new one.
#[derive(Debug)]
pub struct FileKeyring {
    current: Root,
    older: Vec<Root>,
    peppers: Arc<Peppers>,
}

#[derive(Debug)]
struct Root {
    id: String,
    /// Wraps other keys. A child of the root key, so that what is wrapped and what is derived never share a key.
    wrapping: Xaes,
    key: Secret<[u8; LEN]>,
}

impl Root {
    fn new(key: Secret<[u8; LEN]>) -> Result<Self, CipherError> {
        let id = derive_key(&key, &Aad::bind(*b"id1", &[b"root"])?)?;
        let id = hex::encode(id.expose().first_chunk::<8>().copied().unwrap_or_default());
        let wrapping = Xaes::new(&derive_key(&key, &Aad::bind(*b"kw1", &[b"xaes-256-gcm"])?)?)?;
        Ok(Self { id, wrapping, key })
    }
}

/// What a wrap holds. It is part of what the wrap is bound to, so one cannot be taken for the other.
#[derive(Clone, Copy)]
enum Content {
    Key,
    Bytes,
}

impl FileKeyring {
    /// Reads and checks all secrets.
    ///
    /// # Errors
    /// Everything that is wrong with any of them, at once.
    pub fn open(source: &SecretSource) -> Result<Self, SecretFaults> {
        let mut faults = Vec::new();
        let names = names(source, &mut faults);
        let mut roots = Vec::new();
        let mut peppers = Vec::new();
        for name in &names {
            match load(source, name) {
                Ok(Loaded::Root(root)) => roots.push((name, *root)),
                Ok(Loaded::Pepper(pepper)) => peppers.push((name, pepper)),
                Err(fault) => faults.push(fault),
            }
        }
        let (mut current, mut older) = (None, Vec::new());
        for (name, root) in roots {
            if name.id.is_none() { current = Some(root) } else { older.push(root) }
        }
        let (mut pepper, mut older_peppers) = (None, Vec::new());
        for (name, one) in peppers {
            if name.id.is_none() { pepper = Some(one) } else { older_peppers.push(one) }
        }
        match (current, pepper) {
            (Some(current), Some(pepper)) if faults.is_empty() => {
                Ok(Self { current, older, peppers: Arc::new(Peppers::new(pepper, older_peppers)) })
            }
            _ => Err(SecretFaults(faults)),
        }
    }

    /// Makes the secrets that are missing, and says which files are new. Nothing that exists is touched; existing files
    /// are judged by [`FileKeyring::open`].
    ///
    /// The root key is made first. Where it is missing and something younger is there, it was lost, and a new one would
    /// hide the loss until it is too late: that is refused.
    ///
    /// # Errors
    /// What could not be made, and why.
    pub fn create(source: &SecretSource) -> Result<Vec<PathBuf>, SecretFaults> {
        let dir = &source.dir;
        let one = |fault| SecretFaults(vec![fault]);
        let wanted: Vec<SecretKind> =
            SecretKind::ALL.iter().copied().filter(|kind| !source.overrides.contains_key(kind.file())).collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        place::make_directory(dir).and_then(|()| place::check_directory(dir)).map_err(one)?;
        let mut made = Vec::new();
        for kind in wanted {
            let path = dir.join(kind.file());
            if exists(&path) {
                continue;
            }
            if kind == SecretKind::Root {
                refuse_if_lost(dir).map_err(one)?;
            }
            if generate(dir, kind).map_err(one)? == Made::New {
                made.push(path);
            }
        }
        Ok(made)
    }

    fn root(&self, kek: &str) -> Result<&Root, KeyError> {
        std::iter::once(&self.current).chain(&self.older).find(|root| root.id == kek).ok_or_else(|| {
            let ids: Vec<&str> = std::iter::once(&self.current).chain(&self.older).map(|root| &*root.id).collect();
            KeyError::ForeignRoot { wanted: kek.to_owned(), held: ids.join(", ") }
        })
    }

    fn seal(&self, content: Content, aad: &[u8], bytes: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut nonce = [0; 24];
        rand::fill(&mut nonce).map_err(|_| no_randomness())?;
        let aad = binding(&self.current.id, content, aad)?;
        self.current.wrapping.seal(&[FORMAT], &aad, bytes, nonce).map_err(cipher_error)
    }

    fn unseal(&self, kek: &str, content: Content, aad: &[u8], wrapped: &[u8]) -> Result<Secret<Vec<u8>>, KeyError> {
        let root = self.root(kek)?;
        let [FORMAT, sealed @ ..] = wrapped else { return Err(KeyError::Refused) };
        root.wrapping.open(&binding(kek, content, aad)?, sealed).map_err(cipher_error)
    }
}

impl KeyProvider for FileKeyring {
    fn kek_id(&self) -> &str {
        &self.current.id
    }

    fn require(&self, kek: &str) -> Result<(), KeyError> {
        self.root(kek).map(|_| ())
    }

    fn wrap(&self, aad: &[u8], key: &Secret<[u8; 32]>) -> Result<Vec<u8>, KeyError> {
        self.seal(Content::Key, aad, key.expose())
    }

    fn unwrap(&self, kek: &str, aad: &[u8], wrapped: &[u8]) -> Result<Secret<[u8; 32]>, KeyError> {
        let bytes = self.unseal(kek, Content::Key, aad, wrapped)?;
        let key: &[u8; 32] = bytes.expose().as_slice().try_into().map_err(|_| KeyError::Refused)?;
        Ok(Secret::new(*key))
    }

    fn wrap_bytes(&self, aad: &[u8], bytes: &Secret<Vec<u8>>) -> Result<Vec<u8>, KeyError> {
        self.seal(Content::Bytes, aad, bytes.expose())
    }

    fn unwrap_bytes(&self, kek: &str, aad: &[u8], wrapped: &[u8]) -> Result<Secret<Vec<u8>>, KeyError> {
        self.unseal(kek, Content::Bytes, aad, wrapped)
    }

    fn derive(&self, kek: &str, label: &str) -> Result<Secret<[u8; 32]>, KeyError> {
        let info = Aad::bind(*b"dl1", &[label.as_bytes()]).map_err(cipher_error)?;
        derive_key(&self.root(kek)?.key, &info).map_err(cipher_error)
    }

    fn peppers(&self) -> Arc<Peppers> {
        Arc::clone(&self.peppers)
    }
}

fn binding(kek: &str, content: Content, aad: &[u8]) -> Result<Aad, KeyError> {
    let content: &[u8] = match content {
        Content::Key => b"key",
        Content::Bytes => b"bytes",
    };
    Aad::bind(*b"wr1", &[kek.as_bytes(), content, aad]).map_err(cipher_error)
}

fn cipher_error(error: CipherError) -> KeyError {
    match error {
        CipherError::TooLarge => KeyError::TooLarge,
        _ => KeyError::Refused,
    }
}

fn no_randomness() -> KeyError {
    KeyError::Unavailable("the system's random generator failed".into())
}

/// The name of a secret file: its kind, and the id when it is an older one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    kind: SecretKind,
    id: Option<String>,
}

impl Name {
    fn file(&self) -> String {
        match &self.id {
            None => self.kind.file().to_owned(),
            Some(id) => format!("{}.{id}.key", self.kind.stem()),
        }
    }

    fn parse(file: &str) -> Option<Self> {
        SecretKind::ALL.iter().find_map(|kind| {
            let middle = file.strip_prefix(kind.stem())?.strip_suffix(".key")?;
            let id = match middle.strip_prefix('.') {
                None if middle.is_empty() => None,
                Some(id) if id.len() == 16 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) => {
                    Some(id.to_owned())
                }
                _ => return None,
            };
            Some(Name { kind: *kind, id })
        })
    }
}

/// What is to be read: the secrets in force, and the older ones that are in the directory or named.
fn names(source: &SecretSource, faults: &mut Vec<SecretFault>) -> Vec<Name> {
    let mut names: Vec<Name> = Vec::new();
    for (file, path) in &source.overrides {
        match Name::parse(file) {
            Some(name) => names.push(name),
            None => faults.push(SecretFault::new(
                path,
                format!("is given as the secret `{file}`, which Bartizan does not know"),
                "Use one of root.key, password-pepper.key, root.<id>.key and password-pepper.<id>.key",
            )),
        }
    }
    let complete = SecretKind::ALL.iter().all(|kind| source.overrides.contains_key(kind.file()));
    match place::check_directory(&source.dir) {
        Ok(()) => {
            names.extend(SecretKind::ALL.iter().map(|kind| Name { kind: *kind, id: None }));
            names.extend(older_in(&source.dir, faults));
        }
        // With every secret given one by one there need not be a directory at all.
        Err(_) if complete && !exists(&source.dir) => {}
        Err(fault) => faults.push(fault),
    }
    names.sort();
    names.dedup();
    names
}

fn older_in(dir: &Path, faults: &mut Vec<SecretFault>) -> Vec<Name> {
    match std::fs::read_dir(dir).and_then(|entries| entries.collect::<Result<Vec<_>, _>>()) {
        Ok(entries) => entries
            .iter()
            .filter_map(|entry| Name::parse(entry.file_name().to_str()?))
            .filter(|name| name.id.is_some())
            .collect(),
        Err(error) => {
            faults.push(SecretFault::new(dir, format!("cannot be listed ({error})"), "Check its permissions"));
            Vec::new()
        }
    }
}

enum Loaded {
    Root(Box<Root>),
    Pepper(Pepper),
}

fn load(source: &SecretSource, name: &Name) -> Result<Loaded, SecretFault> {
    let (path, place) = source.locate(&name.file());
    let bytes = place::read(&path, place)?;
    let secret = secret_file::read(name.kind, &bytes).map_err(|flaw| spoilt(&path, place, flaw))?;
    let broken = |_| SecretFault::new(&path, "cannot be used", "Restore it from your backup");
    let (id, loaded) = match name.kind {
        SecretKind::Root => {
            Root::new(secret).map(|root| (root.id.clone(), Loaded::Root(Box::new(root)))).map_err(broken)?
        }
        SecretKind::PasswordPepper => {
            Pepper::new(secret).map(|pepper| (pepper.id().to_string(), Loaded::Pepper(pepper))).map_err(broken)?
        }
    };
    match &name.id {
        Some(named) if *named != id => Err(SecretFault::new(
            &path,
            format!("holds the secret {id}, not the one its name says"),
            format!("Rename it to {}.{id}.key", name.kind.stem()),
        )),
        _ => Ok(loaded),
    }
}

fn spoilt(path: &Path, place: Place, flaw: Flaw) -> SecretFault {
    let mend = match (flaw, place) {
        (Flaw::OtherKind(_), _) => "Put each secret under its own name",
        (Flaw::Empty | Flaw::Placeholder, Place::Directory) => {
            "Delete it and run `bartizan init` for a new installation; restore it from your backup for an existing one"
        }
        (Flaw::Guessable, _) => {
            "Bartizan makes its secrets itself: delete it and run `bartizan init` in a new directory"
        }
        _ => "Restore it from your backup; the secrets of a new installation are made by `bartizan init`",
    };
    SecretFault::new(path, flaw.to_string(), mend)
}

/// Whether something has this name, be it only a link that leads nowhere.
fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

fn refuse_if_lost(dir: &Path) -> Result<(), SecretFault> {
    let mut faults = Vec::new();
    let older = older_in(dir, &mut faults);
    if let Some(fault) = faults.pop() {
        return Err(fault);
    }
    // An older root key beside no current one is how a root key is changed; a pepper alone is how one is lost.
    let pepper = exists(&dir.join(SecretKind::PasswordPepper.file()));
    if pepper && !older.iter().any(|name| name.kind == SecretKind::Root) {
        return Err(SecretFault::new(
            &dir.join(SecretKind::Root.file()),
            "is missing although other secrets are there: it was lost",
            "Restore it from your backup; without it the existing data cannot be opened. To begin anew, use an empty \
             directory",
        ));
    }
    Ok(())
}

fn generate(dir: &Path, kind: SecretKind) -> Result<Made, SecretFault> {
    let (mut secret, mut unique) = (Zeroizing::new([0u8; LEN]), [0u8; 8]);
    rand::fill(&mut *secret).and_then(|()| rand::fill(&mut unique)).map_err(|_| {
        SecretFault::new(&dir.join(kind.file()), "cannot be made (the random generator failed)", "Try again")
    })?;
    let text = secret_file::write(kind, &Secret::new(*secret));
    place::make_file(dir, kind.file(), &hex::encode(unique), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids and wraps are stored: what is made from a key may never change. Computed with other implementations.
    #[test]
    fn what_is_made_from_a_known_key_is_pinned() {
        let key = Secret::new(std::array::from_fn(|i| i as u8));
        let root = Root::new(key.clone()).unwrap();
        assert_eq!(root.id, "d3a51bc55964ca8b");
        assert_eq!(Pepper::new(key).unwrap().id().to_string(), "5d7070e1b44fa4bb");
        let aad = binding(&root.id, Content::Key, b"tenant").unwrap();
        let wrapped = root.wrapping.seal(&[FORMAT], &aad, &[7; 32], [9; 24]).unwrap();
        assert_eq!(
            hex::encode(wrapped),
            "01090909090909090909090909090909090909090909090909a306c6ebe1a7058d2304bae98093fb50fbec35a8453908c9f893a6aa94e4c2b1dd8be30947a8bb14ee2f4f9fd9775876"
        );
    }

    #[test]
    fn names_are_read_exactly() {
        let id = "0123456789abcdef";
        assert_eq!(Name::parse("root.key"), Some(Name { kind: SecretKind::Root, id: None }));
        let older = Name { kind: SecretKind::PasswordPepper, id: Some(id.into()) };
        assert_eq!(Name::parse(&older.file()), Some(older));
        for other in [
            "root.key~",
            "root.key.bak",
            "root..key",
            "root.0123.key",
            "root.0123456789ABCDEF.key",
            ".root.key.x.tmp",
            "roots.key",
        ] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }
}
