//! A bounded memory of tokens whose signature has been verified.
//!
//! An Ed25519 check costs some thirty microseconds, a look-up here a few hundred nanoseconds; without this memory the
//! whole stack could not stay near a bare server. What is remembered is only *that the bytes were signed by us and what
//! they say*. Expiry, revocation, epochs and tier are looked at on every request, so an entry can outlive none of them;
//! an entry made under an earlier set of keys is void.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bartizan_core::token::Claims;

/// SHA-256 of the token's text: nobody can find two tokens with one digest, so a digest stands for its token.
pub(crate) type Digest = [u8; 32];

const SHARDS: usize = 16;

/// The memory. Bounded: at most `capacity` tokens, about 400 bytes each.
#[derive(Debug)]
pub(crate) struct VerifiedTokens {
    shards: Vec<RwLock<Shard>>,
    /// Entries a shard holds before its young half becomes the old one.
    half: usize,
    /// Raised when a key is retired or distrusted; entries of an earlier age are void.
    age: AtomicU64,
}

/// Two halves instead of a list in order of use: when the young half is full it becomes the old one, and what was in the
/// old one and not asked for since is forgotten. Constant time, no bookkeeping on a hit.
#[derive(Debug, Default)]
struct Shard {
    young: Half,
    old: Half,
}

type Half = HashMap<Digest, (u64, Arc<Claims>), BuildHasherDefault<FirstBytes>>;

/// A digest is already uniform: its first eight bytes are the hash.
#[derive(Debug, Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }
    fn write_usize(&mut self, _: usize) {}
}

impl VerifiedTokens {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            half: (capacity / SHARDS / 2).max(1),
            age: AtomicU64::new(0),
        }
    }

    pub(crate) fn digest(token: &str) -> Digest {
        let mut digest = [0; 32];
        digest.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes()).as_ref());
        digest
    }

    /// The age to pass to [`Self::insert`]: read it *before* verifying.
    pub(crate) fn age(&self) -> u64 {
        self.age.load(Ordering::Acquire)
    }

    /// Voids everything: a key was retired or distrusted.
    pub(crate) fn flush(&self) {
        self.age.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn find(&self, digest: &Digest) -> Option<Arc<Claims>> {
        let shard = self.shard(digest)?;
        let age = self.age();
        {
            let halves = shard.read().unwrap_or_else(PoisonError::into_inner);
            if let Some((then, claims)) = halves.young.get(digest) {
                return (*then == age).then(|| Arc::clone(claims));
            }
            halves.old.get(digest)?;
        }
        let mut halves = shard.write().unwrap_or_else(PoisonError::into_inner);
        let (then, claims) = halves.old.remove(digest)?;
        if then != age {
            return None;
        }
        self.put(&mut halves, *digest, then, Arc::clone(&claims));
        Some(claims)
    }

    /// Remembers a verified token. `age` is from before the verification, so that a key retired meanwhile voids it.
    pub(crate) fn insert(&self, digest: Digest, age: u64, claims: Arc<Claims>) {
        if let Some(shard) = self.shard(&digest) {
            let mut halves = shard.write().unwrap_or_else(PoisonError::into_inner);
            self.put(&mut halves, digest, age, claims);
        }
    }

    /// Number of remembered tokens, for metrics.
    pub(crate) fn len(&self) -> usize {
        let count = |shard: &RwLock<Shard>| {
            let halves = shard.read().unwrap_or_else(PoisonError::into_inner);
            halves.young.len() + halves.old.len()
        };
        self.shards.iter().map(count).sum()
    }

    fn put(&self, halves: &mut Shard, digest: Digest, age: u64, claims: Arc<Claims>) {
        if halves.young.len() >= self.half {
            halves.old = std::mem::take(&mut halves.young);
        }
        halves.young.insert(digest, (age, claims));
    }

    fn shard(&self, digest: &Digest) -> Option<&RwLock<Shard>> {
        // The last byte: the first ones choose the place within the shard.
        self.shards.get(digest.last().map_or(0, |byte| usize::from(*byte) % SHARDS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bartizan_core::id::{SessionId, TenantId, TokenId, UserId};
    use bartizan_core::principal::{Role, Tier};
    use bartizan_core::time::Millis;

    fn claims() -> Arc<Claims> {
        let now = Millis(1);
        Arc::new(Claims {
            iss: "i".into(),
            aud: "a".into(),
            sub: UserId::new(now, [1; 10]),
            tid: TenantId::new(now, [1; 10]),
            sid: SessionId::new(now, [1; 10]),
            jti: TokenId::new(now, [1; 10]),
            iat: now,
            exp: now,
            role: Role::Member,
            tier: Tier::Free,
            ue: 0,
            te: 0,
        })
    }

    #[test]
    fn stays_within_its_capacity_and_keeps_what_is_asked_for() {
        let tokens = VerifiedTokens::new(320);
        let wanted = VerifiedTokens::digest("wanted");
        tokens.insert(wanted, tokens.age(), claims());
        for number in 0..10_000 {
            tokens.insert(VerifiedTokens::digest(&number.to_string()), tokens.age(), claims());
            assert!(tokens.find(&wanted).is_some(), "forgotten after {number}");
            assert!(tokens.len() <= 320 + SHARDS);
        }
    }

    #[test]
    fn a_flush_voids_entries_even_those_being_verified() {
        let tokens = VerifiedTokens::new(100);
        let (one, two) = (VerifiedTokens::digest("one"), VerifiedTokens::digest("two"));
        let age = tokens.age();
        tokens.insert(one, age, claims());
        tokens.flush();
        tokens.insert(two, age, claims());
        assert!(tokens.find(&one).is_none());
        assert!(tokens.find(&two).is_none());
    }
}
