//! A sealed field in Tink's layout.

use super::{Aad, CipherError, NONCE_LEN, Xaes};
use crate::secret::Secret;

/// Tink's output prefix of type `TINK`: this byte, then the key id.
const FORMAT: u8 = 1;
/// Bytes before the nonce.
const PREFIX: usize = 5;

/// A data key with its id: seals the fields of one tenant.
#[derive(Debug)]
pub struct SealingKey {
    id: u32,
    key: Xaes,
}

impl SealingKey {
    /// Expands `key`, known as `id` in what it seals.
    ///
    /// # Errors
    /// [`CipherError::Refused`] when the cryptographic library refuses the key; it has no reason to.
    pub fn new(id: u32, key: &Secret<[u8; 32]>) -> Result<Self, CipherError> {
        Ok(Self { id, key: Xaes::new(key)? })
    }

    /// The id written into every value.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Seals `plaintext` to the place `aad` names. `nonce` must come from the system's generator, new for every call.
    /// Cost: about a microsecond for 64 bytes.
    ///
    /// # Errors
    /// [`CipherError::TooLarge`] above [`MAX_PLAINTEXT`](super::MAX_PLAINTEXT).
    pub fn seal(&self, aad: &Aad, plaintext: &[u8], nonce: [u8; NONCE_LEN]) -> Result<Vec<u8>, CipherError> {
        let [a, b, c, d] = self.id.to_be_bytes();
        let prefix: [u8; PREFIX] = [FORMAT, a, b, c, d];
        self.key.seal(&prefix, aad, plaintext, nonce)
    }

    /// Opens `sealed` in the place `aad` names.
    ///
    /// # Errors
    /// [`CipherError::Refused`], whatever is wrong.
    pub fn open(&self, aad: &Aad, sealed: &[u8]) -> Result<Secret<Vec<u8>>, CipherError> {
        if key_id(sealed) != Some(self.id) {
            return Err(CipherError::Refused);
        }
        self.key.open(aad, sealed.get(PREFIX..).unwrap_or_default())
    }
}

/// The id of the key that `sealed` names, when it has the form of a sealed value. It selects exactly one key; there is
/// no trial decryption.
pub fn key_id(sealed: &[u8]) -> Option<u32> {
    match sealed {
        [FORMAT, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cipher::FieldRef;
    use crate::id::TenantId;
    use crate::time::Millis;
    use proptest::prelude::*;

    const EMAIL: FieldRef = FieldRef::new("users", "email");

    fn tenant(n: u8) -> TenantId {
        TenantId::new(Millis(1_700_000_000_000), [n; 10])
    }

    fn key() -> SealingKey {
        SealingKey::new(0xDEAD_BEEF, &Secret::new([7; 32])).unwrap()
    }

    #[test]
    fn the_layout_is_tinks() {
        let aad = Aad::field(tenant(1), EMAIL, "usr_1", 1).unwrap();
        let sealed = key().seal(&aad, b"ada@example.com", [9; 24]).unwrap();
        assert_eq!(sealed.len(), 15 + 45);
        assert_eq!(sealed[..5], [1, 0xDE, 0xAD, 0xBE, 0xEF]);
        assert_eq!(sealed[5..29], [9; 24]);
        assert_eq!(key_id(&sealed), Some(0xDEAD_BEEF));
    }

    /// Made by Tink for Python 1.16.1 (`XAesGcmKey`, 12 bytes of salt, output prefix TINK) with this key and these data.
    #[test]
    fn what_tink_sealed_opens_and_is_sealed_to_the_same_bytes() {
        let sealed = hex::decode(
            "01deadbeeffe7b04c945a1aff48475443e6d6d4730d1e4e8b62901e3e22fc35fbc319850ea638620f6eeaf126f4cb5713e93ceec75b7952733\
             1a91fa",
        )
        .unwrap();
        let aad = Aad::field(TenantId::from_u128(1), EMAIL, "usr_1", 1).unwrap();
        assert_eq!(key().open(&aad, &sealed).unwrap().expose(), b"ada@example.com");
        let nonce = *sealed[5..].first_chunk().unwrap();
        assert_eq!(key().seal(&aad, b"ada@example.com", nonce).unwrap(), sealed);
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_is_refused() {
        let (key, aad) = (key(), Aad::field(tenant(1), EMAIL, "usr_1", 1).unwrap());
        let sealed = key.seal(&aad, b"ada@example.com", [9; 24]).unwrap();
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut bad = sealed.clone();
                bad[at] ^= 1 << bit;
                assert_eq!(key.open(&aad, &bad).unwrap_err(), CipherError::Refused, "byte {at} bit {bit}");
            }
        }
        for length in 0..sealed.len() {
            assert_eq!(key.open(&aad, &sealed[..length]).unwrap_err(), CipherError::Refused, "cut to {length}");
        }
        let longer = [&sealed[..], &[0]].concat();
        assert_eq!(key.open(&aad, &longer).unwrap_err(), CipherError::Refused);
        assert_eq!(key.open(&aad, &sealed).unwrap().expose(), b"ada@example.com");
    }

    #[test]
    fn a_value_opens_only_in_its_own_place() {
        let key = key();
        let home = Aad::field(tenant(1), EMAIL, "usr_1", 1).unwrap();
        let sealed = key.seal(&home, b"ada@example.com", [9; 24]).unwrap();
        let elsewhere = [
            Aad::field(tenant(2), EMAIL, "usr_1", 1),
            Aad::field(tenant(1), FieldRef::new("users", "name"), "usr_1", 1),
            Aad::field(tenant(1), FieldRef::new("user", "semail"), "usr_1", 1),
            Aad::field(tenant(1), FieldRef::new("leads", "email"), "usr_1", 1),
            Aad::field(tenant(1), EMAIL, "usr_2", 1),
            Aad::field(tenant(1), EMAIL, "usr_1", 2),
            Aad::field(tenant(1), EMAIL, "", 1),
        ];
        for aad in elsewhere {
            assert_eq!(key.open(&aad.unwrap(), &sealed).unwrap_err(), CipherError::Refused);
        }
        let other = SealingKey::new(0xDEAD_BEEF, &Secret::new([8; 32])).unwrap();
        assert_eq!(other.open(&home, &sealed).unwrap_err(), CipherError::Refused, "same id, other key");
    }

    #[test]
    fn a_value_relabelled_with_another_key_id_is_refused() {
        let aad = Aad::field(tenant(1), EMAIL, "usr_1", 1).unwrap();
        let same_bytes_other_id = SealingKey::new(1, &Secret::new([7; 32])).unwrap();
        let sealed = key().seal(&aad, b"x", [9; 24]).unwrap();
        assert_eq!(same_bytes_other_id.open(&aad, &sealed).unwrap_err(), CipherError::Refused);
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens(plaintext: Vec<u8>, nonce: [u8; 24], id: u32, raw: [u8; 32], row in "\\PC{0,40}") {
            let key = SealingKey::new(id, &Secret::new(raw)).unwrap();
            let aad = Aad::field(tenant(1), EMAIL, &row, 1).unwrap();
            let sealed = key.seal(&aad, &plaintext, nonce).unwrap();
            let opened = key.open(&aad, &sealed).unwrap();
            prop_assert_eq!(opened.expose(), &plaintext);
        }

        #[test]
        fn arbitrary_bytes_never_open(bytes: Vec<u8>) {
            let aad = Aad::field(tenant(1), EMAIL, "usr_1", 1).unwrap();
            let mut named = vec![1, 0xDE, 0xAD, 0xBE, 0xEF];
            named.extend_from_slice(&bytes);
            prop_assert!(key().open(&aad, &bytes).is_err());
            prop_assert!(key().open(&aad, &named).is_err());
        }
    }
}
