//! The blind index: find a sealed value again without being able to read it.

use aws_lc_rs::hmac;

use super::{Aad, CipherError, FieldRef, derive_key};
use crate::id::TenantId;
use crate::secret::Secret;

/// The tag of `normalised` in `field` of `tenant`: the first 16 bytes of HMAC-SHA256 under a key of its own for each
/// tenant, table, column and version of the normaliser, so that equal values in two columns or two tenants have nothing
/// in common. 128 bits: good for unique columns, where a collision would refuse a user an address that is free.
///
/// `normaliser` is the version of the rule that made `normalised`; raise it when the rule changes, and tags of the old
/// rule can no longer be mistaken for new ones. Cost: six SHA-256-HMACs, a few microseconds.
///
/// # Errors
/// [`CipherError::TooLarge`] when a name is longer than 65,535 bytes.
pub fn index_tag(
    index_key: &Secret<[u8; 32]>,
    tenant: TenantId,
    field: FieldRef,
    normaliser: u16,
    normalised: &[u8],
) -> Result<[u8; 16], CipherError> {
    let info = Aad::bind(
        *b"bi1",
        &[tenant.as_bytes(), field.table.as_bytes(), field.column.as_bytes(), &normaliser.to_be_bytes()],
    )?;
    let key = derive_key(index_key, &info)?;
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()), normalised);
    tag.as_ref().first_chunk::<16>().copied().ok_or(CipherError::Refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Millis;

    const EMAIL: FieldRef = FieldRef::new("users", "email");

    #[test]
    fn a_tag_depends_on_everything_it_is_bound_to() {
        let tenant = |n| TenantId::new(Millis(1), [n; 10]);
        let key = |n| Secret::new([n; 32]);
        let tag = index_tag(&key(1), tenant(1), EMAIL, 1, b"ada@example.com").unwrap();
        assert_eq!(index_tag(&key(1), tenant(1), EMAIL, 1, b"ada@example.com"), Ok(tag));
        let others = [
            index_tag(&key(2), tenant(1), EMAIL, 1, b"ada@example.com"),
            index_tag(&key(1), tenant(2), EMAIL, 1, b"ada@example.com"),
            index_tag(&key(1), tenant(1), FieldRef::new("users", "name"), 1, b"ada@example.com"),
            index_tag(&key(1), tenant(1), FieldRef::new("leads", "email"), 1, b"ada@example.com"),
            index_tag(&key(1), tenant(1), EMAIL, 2, b"ada@example.com"),
            index_tag(&key(1), tenant(1), EMAIL, 1, b"Ada@example.com"),
        ];
        for other in others {
            assert_ne!(other, Ok(tag));
        }
    }

    /// Stored tags must be found by every later version: this value, computed once with another HMAC, may never change.
    #[test]
    fn the_tag_of_a_known_value_is_pinned() {
        let tag =
            index_tag(&Secret::new([3; 32]), TenantId::from_u128(1), EMAIL, 1, b"ada@example.com").map(hex::encode);
        assert_eq!(tag.as_deref(), Ok("1b34fa494ce2b30a4f53747994b9f2aa"));
    }
}
