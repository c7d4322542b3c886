//! One key from another.

use aws_lc_rs::hkdf;

use super::{Aad, CipherError};
use crate::secret::Secret;

/// Derives a key of 32 bytes from `key` for the use `info` names: HKDF-SHA256 (RFC 5869) without salt, which is sound
/// because `key` is uniformly random. Knowing a derived key tells nothing about `key` or its other children.
///
/// # Errors
/// [`CipherError::Refused`] when the cryptographic library fails; it has no reason to.
pub fn derive_key(key: &Secret<[u8; 32]>, info: &Aad) -> Result<Secret<[u8; 32]>, CipherError> {
    let root = hkdf::Salt::none(hkdf::HKDF_SHA256).extract(key.expose());
    let mut out = zeroize::Zeroizing::new([0u8; 32]);
    root.expand(&[info.as_bytes()], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut *out))
        .map_err(|_| CipherError::Refused)?;
    Ok(Secret::new(*out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::hmac;

    #[test]
    fn agrees_with_hkdf_written_out_as_two_hmacs() {
        let key = Secret::new([0x0b; 32]);
        let info = Aad::bind(*b"tst", &[b"info"]).unwrap();
        let prk = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[0; 32]), key.expose());
        let expand = hmac::Key::new(hmac::HMAC_SHA256, prk.as_ref());
        let okm = hmac::sign(&expand, &[info.as_bytes(), &[1]].concat());
        assert_eq!(derive_key(&key, &info).unwrap().expose()[..], *okm.as_ref());
    }

    #[test]
    fn different_uses_have_different_keys() {
        let key = Secret::new([5; 32]);
        let of = |part: &[u8]| derive_key(&key, &Aad::bind(*b"tst", &[part]).unwrap()).unwrap();
        assert!(of(b"a") != of(b"b"));
        assert!(of(b"a") == of(b"a"));
    }
}
