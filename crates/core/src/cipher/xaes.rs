//! XAES-256-GCM (C2SP): AES-256-GCM with a 24-byte nonce that may be drawn at random for 2^80 messages.

use aws_lc_rs::aead::{self, AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::cipher::{AES_256, EncryptingKey, UnboundCipherKey};
use zeroize::Zeroizing;

use super::{Aad, CipherError};
use crate::secret::Secret;

/// Most bytes that one value may have: 1 MiB.
pub const MAX_PLAINTEXT: usize = 1024 * 1024;
/// Bytes of a nonce.
pub const NONCE_LEN: usize = 24;
/// Bytes of an authentication tag.
pub const TAG_LEN: usize = 16;

/// An XAES-256-GCM key, ready for use from many threads. Wiped when dropped.
///
/// For fields use [`SealingKey`](super::SealingKey), which adds the key id; this is for wrapping keys.
pub struct Xaes {
    /// The raw block cipher. The derivation is defined by single AES-256 blocks (SP 800-108 in counter mode over CMAC of
    /// exactly one block), so ECB mode is used as what it is, one permutation a block, never on a message.
    block: EncryptingKey,
    /// The CMAC subkey of a complete block (SP 800-38B section 6.1), the same for every message of the key.
    subkey: Zeroizing<u128>,
}

impl Xaes {
    /// Expands `key` once.
    ///
    /// # Errors
    /// [`CipherError::Refused`] when the cryptographic library refuses the key; it has no reason to.
    pub fn new(key: &Secret<[u8; 32]>) -> Result<Self, CipherError> {
        let unbound = UnboundCipherKey::new(&AES_256, key.expose()).map_err(|_| CipherError::Refused)?;
        let block = EncryptingKey::ecb(unbound).map_err(|_| CipherError::Refused)?;
        let mut zero = Zeroizing::new([0u8; 16]);
        block.encrypt(&mut *zero).map_err(|_| CipherError::Refused)?;
        let l = Zeroizing::new(u128::from_be_bytes(*zero));
        // Doubling in GF(2^128), without a branch on the key: the top bit decides whether the polynomial is added.
        let subkey = Zeroizing::new((*l << 1) ^ ((*l >> 127) * 0b1000_0111));
        Ok(Self { block, subkey })
    }

    /// Seals `plaintext`: `prefix | nonce | ciphertext | tag`. The nonce must come from the system's generator, new for
    /// every call. The prefix is not authenticated; put what matters of it into `aad`.
    ///
    /// Cost: two AES blocks and one key schedule more than AES-256-GCM.
    ///
    /// # Errors
    /// [`CipherError::TooLarge`] above [`MAX_PLAINTEXT`].
    pub fn seal(
        &self,
        prefix: &[u8],
        aad: &Aad,
        plaintext: &[u8],
        nonce: [u8; NONCE_LEN],
    ) -> Result<Vec<u8>, CipherError> {
        self.seal_with(prefix, aad.as_bytes(), plaintext, nonce)
    }

    /// Opens what [`Xaes::seal`] made, after its prefix.
    ///
    /// # Errors
    /// [`CipherError::Refused`], whatever is wrong.
    pub fn open(&self, aad: &Aad, sealed: &[u8]) -> Result<Secret<Vec<u8>>, CipherError> {
        self.open_with(aad.as_bytes(), sealed)
    }

    fn seal_with(
        &self,
        prefix: &[u8],
        aad: &[u8],
        plaintext: &[u8],
        nonce: [u8; NONCE_LEN],
    ) -> Result<Vec<u8>, CipherError> {
        if plaintext.len() > MAX_PLAINTEXT {
            return Err(CipherError::TooLarge);
        }
        let (key, short) = self.message_key(&nonce)?;
        let start = prefix.len() + NONCE_LEN;
        let mut out = Vec::with_capacity(start + plaintext.len() + TAG_LEN);
        out.extend_from_slice(prefix);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plaintext);
        let body = out.get_mut(start..).ok_or(CipherError::Refused)?;
        let tag = key
            .seal_in_place_separate_tag(short, aead::Aad::from(aad), body)
            // What is in `out` may be plaintext still; it is wiped before it is given back to the allocator.
            .inspect_err(|_| zeroize::Zeroize::zeroize(&mut out))
            .map_err(|_| CipherError::Refused)?;
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }

    fn open_with(&self, aad: &[u8], sealed: &[u8]) -> Result<Secret<Vec<u8>>, CipherError> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(CipherError::Refused)?;
        if body.len() < TAG_LEN || body.len() > MAX_PLAINTEXT + TAG_LEN {
            return Err(CipherError::Refused);
        }
        let (key, short) = self.message_key(nonce)?;
        let mut out = Zeroizing::new(body.to_vec());
        let length = key.open_in_place(short, aead::Aad::from(aad), &mut out).map_err(|_| CipherError::Refused)?.len();
        out.truncate(length);
        Ok(Secret::new(std::mem::take(&mut *out)))
    }

    /// The AES-256-GCM key and nonce of one message (C2SP XAES-256-GCM, steps 3 to 6).
    fn message_key(&self, nonce: &[u8; NONCE_LEN]) -> Result<(LessSafeKey, aead::Nonce), CipherError> {
        let (context, short) = nonce.split_at(12);
        let mut blocks = Zeroizing::new([0u8; 32]);
        for (counter, block) in (1u8..).zip(blocks.as_chunks_mut::<16>().0) {
            let [_, index, label, _, rest @ ..] = &mut *block;
            *index = counter;
            *label = b'X';
            rest.copy_from_slice(context);
            *block = (u128::from_be_bytes(*block) ^ *self.subkey).to_be_bytes();
        }
        self.block.encrypt(&mut *blocks).map_err(|_| CipherError::Refused)?;
        let key = UnboundKey::new(&AES_256_GCM, &*blocks).map_err(|_| CipherError::Refused)?;
        let short = aead::Nonce::try_assume_unique_for_key(short).map_err(|_| CipherError::Refused)?;
        Ok((LessSafeKey::new(key), short))
    }
}

impl std::fmt::Debug for Xaes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Xaes(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::super::shake::Shake128;
    use super::*;

    const NONCE: [u8; 24] = *b"ABCDEFGHIJKLMNOPQRSTUVWX";

    fn key(byte: u8) -> Xaes {
        Xaes::new(&Secret::new([byte; 32])).unwrap()
    }

    #[test]
    fn agrees_with_both_published_vectors() {
        // The two keys differ in the top bit of L, that is in whether the polynomial is added.
        let sealed = key(1).seal_with(b"", b"", b"XAES-256-GCM", NONCE).unwrap();
        assert_eq!(hex::encode(&sealed[24..]), "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271");
        let sealed = key(3).seal_with(b"", b"c2sp.org/XAES-256-GCM", b"XAES-256-GCM", NONCE).unwrap();
        assert_eq!(hex::encode(&sealed[24..]), "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d");
        assert_eq!(key(3).open_with(b"c2sp.org/XAES-256-GCM", &sealed).unwrap().expose(), b"XAES-256-GCM");
    }

    #[test]
    fn agrees_with_the_accumulated_vector_of_10_000_messages() {
        let (mut random, mut digest) = (Shake128::of_nothing(), Shake128::new());
        for _ in 0..10_000 {
            let key = Xaes::new(&Secret::new(random.array())).unwrap();
            let nonce = random.array();
            let plaintext = random.short_vec();
            let aad = random.short_vec();
            let sealed = key.seal_with(b"", &aad, &plaintext, nonce).unwrap();
            assert_eq!(key.open_with(&aad, &sealed).unwrap().expose(), &plaintext);
            digest.absorb(&sealed[24..]);
        }
        digest.finish();
        let sum: [u8; 32] = digest.array();
        assert_eq!(hex::encode(sum), "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939");
    }

    #[test]
    fn refuses_what_is_too_large_in_both_directions() {
        let key = key(1);
        let aad = Aad::bind(*b"tst", &[]).unwrap();
        assert_eq!(key.seal(b"", &aad, &vec![0; MAX_PLAINTEXT + 1], NONCE), Err(CipherError::TooLarge));
        assert!(key.seal(b"", &aad, &vec![0; MAX_PLAINTEXT], NONCE).is_ok());
        let huge = vec![0; 24 + MAX_PLAINTEXT + 17];
        assert_eq!(key.open(&aad, &huge).unwrap_err(), CipherError::Refused);
    }
}
