//! Names of limited things as 128-bit numbers nobody outside can steer.

use std::fmt;

use aws_lc_rs::hmac;

use crate::secret::Secret;

/// The name of something that is limited or banned: a keyed hash of a tuple. Equal tuples have equal keys on every node
/// that shares the secret, and after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u128);

/// Makes keys from tuples such as (policy, tenant, user).
///
/// Each part is written with its length before it, so two different tuples never become the same bytes, whatever
/// separators an attacker puts into them; the hash is HMAC-SHA-256 under a secret, cut to 128 bits, so he can neither
/// find two tuples with one key nor aim at a place in a table.
pub struct KeyMaker {
    keys: hmac::Key,
    digests: hmac::Key,
    fingerprint: [u8; 8],
}

impl KeyMaker {
    /// From the installation's secret. Another secret means other keys: what was counted before is forgotten.
    pub fn new(secret: &Secret<[u8; 32]>) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
        let derive = |label: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, label).as_ref());
        let mut fingerprint = [0; 8];
        copy(&mut fingerprint, hmac::sign(&root, b"bartizan limit fingerprint").as_ref());
        Self { keys: derive(b"bartizan limit keys"), digests: derive(b"bartizan limit digests"), fingerprint }
    }

    /// The key of a tuple. Well below a microsecond; an allocation only beyond 120 bytes.
    pub fn key(&self, parts: &[&[u8]]) -> Key {
        let mut short = [0u8; 120];
        let tag = match join(&mut short, parts) {
            Some(joined) => hmac::sign(&self.keys, joined),
            None => {
                let mut context = hmac::Context::with_key(&self.keys);
                for part in parts {
                    context.update(&length(part));
                    context.update(part);
                }
                context.sign()
            }
        };
        let mut bytes = [0; 16];
        copy(&mut bytes, tag.as_ref());
        Key(u128::from_be_bytes(bytes))
    }

    /// Tells whether stored keys were made under the same secret, without telling the secret.
    pub const fn fingerprint(&self) -> [u8; 8] {
        self.fingerprint
    }

    /// Begins a digest under the same secret: what a file of keys is sealed with.
    pub fn digest(&self) -> KeyedDigest {
        KeyedDigest(hmac::Context::with_key(&self.digests))
    }
}

impl fmt::Debug for KeyMaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyMaker(…)")
    }
}

/// HMAC-SHA-256 over a stream of bytes.
#[derive(Debug)]
pub struct KeyedDigest(hmac::Context);

impl KeyedDigest {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything added.
    pub fn finish(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        copy(&mut bytes, self.0.sign().as_ref());
        bytes
    }
}

fn length(part: &[u8]) -> [u8; 8] {
    (part.len() as u64).to_be_bytes()
}

/// The tuple's bytes in `buffer`, when they fit.
fn join<'a>(buffer: &'a mut [u8], parts: &[&[u8]]) -> Option<&'a [u8]> {
    let mut used = 0;
    for part in parts {
        for piece in [&length(part)[..], part] {
            let end = used + piece.len();
            buffer.get_mut(used..end)?.copy_from_slice(piece);
            used = end;
        }
    }
    buffer.get(..used)
}

fn copy(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn maker() -> KeyMaker {
        KeyMaker::new(&Secret::new([7; 32]))
    }

    #[test]
    fn separators_in_a_part_do_not_join_two_tuples() {
        let maker = maker();
        let tuples: [&[&[u8]]; 8] =
            [&[], &[b""], &[b"", b""], &[b"a", b"b"], &[b"ab"], &[b"a", b"", b"b"], &[b"a:b"], &[b"b", b"a"]];
        for (i, one) in tuples.iter().enumerate() {
            for other in &tuples[i + 1..] {
                assert_ne!(maker.key(one), maker.key(other), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn keys_survive_a_restart_and_differ_between_installations() {
        let other = KeyMaker::new(&Secret::new([8; 32]));
        assert_eq!(maker().key(&[b"user", b"1"]), maker().key(&[b"user", b"1"]));
        assert_ne!(maker().key(&[b"user", b"1"]), other.key(&[b"user", b"1"]));
        assert_ne!(maker().fingerprint(), other.fingerprint());
        assert_ne!(maker().digest().finish(), other.digest().finish());
    }

    #[test]
    fn long_tuples_have_keys_too() {
        let long = [b'x'; 5000];
        assert_ne!(maker().key(&[&long]), maker().key(&[&long[1..]]));
        // The border between the two ways of hashing is invisible.
        let keys: std::collections::HashSet<_> = (100..130).map(|n| maker().key(&[&long[..n]])).collect();
        assert_eq!(keys.len(), 30);
    }

    proptest! {
        #[test]
        fn two_tuples_never_share_a_key(
            one in prop::collection::vec(prop::collection::vec(0u8..4, 0..4), 0..4),
            other in prop::collection::vec(prop::collection::vec(0u8..4, 0..4), 0..4),
        ) {
            let borrowed = |tuple: &[Vec<u8>]| maker().key(&tuple.iter().map(Vec::as_slice).collect::<Vec<_>>());
            prop_assert_eq!(one == other, borrowed(&one) == borrowed(&other));
        }
    }
}
