//! The successor of a spent refresh token, sealed under a key that only the spent token yields.
//!
//! A lost answer can be given again without anybody being able to read the live token in the database: whoever holds
//! the database alone has neither the spent token nor, therefore, the key.

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use bartizan_core::cipher::{Aad, NONCE_LEN, Xaes};
use bartizan_core::id::SessionId;
use bartizan_core::secret::Secret;

use crate::api::Failure;
use crate::entropy::random;

/// Seals `next` under `spent`.
pub(crate) fn seal(spent: &str, session: SessionId, next: &str) -> Result<Vec<u8>, Failure> {
    let nonce: [u8; NONCE_LEN] = random()?;
    let (cipher, aad) = parts(spent, session)?;
    cipher.seal(&[], &aad, next.as_bytes(), nonce).map_err(Failure::fault)
}

/// Opens what [`seal`] made, given the same spent token.
pub(crate) fn open(spent: &str, session: SessionId, sealed: &[u8]) -> Result<String, Failure> {
    let (cipher, aad) = parts(spent, session)?;
    let text = cipher.open(&aad, sealed).map_err(Failure::fault)?;
    String::from_utf8(text.expose().clone()).map_err(|_| Failure::fault("a successor that is no text"))
}

fn parts(spent: &str, session: SessionId) -> Result<(Xaes, Aad), Failure> {
    let mut key = [0u8; 32];
    Salt::new(HKDF_SHA256, b"bartizan/refresh-successor")
        .extract(spent.as_bytes())
        .expand(&[session.as_bytes()], HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut key))
        .map_err(|_| Failure::fault("key derivation failed"))?;
    let cipher = Xaes::new(&Secret::new(key)).map_err(Failure::fault)?;
    let aad = Aad::bind(*b"bzr", &[session.as_bytes()]).map_err(Failure::fault)?;
    Ok((cipher, aad))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bartizan_core::time::Millis;

    #[test]
    fn opens_only_with_the_spent_token_and_for_its_session() {
        let (one, two) = (SessionId::new(Millis(1), [1; 10]), SessionId::new(Millis(1), [2; 10]));
        let sealed = seal("spent", one, "next").unwrap();
        assert_eq!(open("spent", one, &sealed).unwrap(), "next");
        assert!(open("other", one, &sealed).is_err());
        assert!(open("spent", two, &sealed).is_err());
        assert!(open("spent", one, &sealed[..10]).is_err());
    }
}
