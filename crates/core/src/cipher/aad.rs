//! Associated data: what a sealed value is bound to.

use super::CipherError;
use crate::id::TenantId;

/// Names a column: the place of a sealed value, without the row. Meant to be a constant beside the query that uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FieldRef {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
}

impl FieldRef {
    /// Names `column` of `table`.
    pub const fn new(table: &'static str, column: &'static str) -> Self {
        Self { table, column }
    }
}

/// Associated data: a domain and its parts, each part preceded by its length as u16 big-endian.
///
/// The lengths make the encoding injective: no two lists of parts give the same bytes, which a joined string cannot
/// promise (`"ab","c"` against `"a","bc"`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aad(Vec<u8>);

impl Aad {
    /// Binds to `parts` under `domain`. All domains have three letters, so none is the beginning of another.
    ///
    /// # Errors
    /// [`CipherError::TooLarge`] when a part is longer than 65,535 bytes.
    pub fn bind(domain: [u8; 3], parts: &[&[u8]]) -> Result<Self, CipherError> {
        let length = parts.iter().fold(domain.len(), |sum, part| sum.saturating_add(part.len()).saturating_add(2));
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&domain);
        for part in parts {
            let length = u16::try_from(part.len()).map_err(|_| CipherError::TooLarge)?;
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(part);
        }
        Ok(Self(bytes))
    }

    /// Binds to one field of one row: `"bz1"`, then tenant (16 bytes), table, column, row id, schema revision (u16
    /// big-endian). `row` is the text of the row's id, which exists before the row does.
    ///
    /// # Errors
    /// [`CipherError::TooLarge`] when a name or `row` is longer than 65,535 bytes.
    pub fn field(tenant: TenantId, field: FieldRef, row: &str, revision: u16) -> Result<Self, CipherError> {
        Self::bind(
            *b"bz1",
            &[
                tenant.as_bytes(),
                field.table.as_bytes(),
                field.column.as_bytes(),
                row.as_bytes(),
                &revision.to_be_bytes(),
            ],
        )
    }

    /// The encoding.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Millis;
    use proptest::prelude::*;

    #[test]
    fn the_encoding_is_the_documented_one() {
        let tenant = TenantId::new(Millis(1), [9; 10]);
        let aad = Aad::field(tenant, FieldRef::new("users", "email"), "usr_1", 0x0102).unwrap();
        let mut expected = b"bz1\x00\x10".to_vec();
        expected.extend_from_slice(tenant.as_bytes());
        expected.extend_from_slice(b"\x00\x05users\x00\x05email\x00\x05usr_1\x00\x02\x01\x02");
        assert_eq!(aad.as_bytes(), expected);
    }

    #[test]
    fn a_part_that_does_not_fit_its_length_is_refused() {
        let tenant = TenantId::new(Millis(1), [9; 10]);
        let row = "r".repeat(65_536);
        assert_eq!(Aad::field(tenant, FieldRef::new("t", "c"), &row, 1), Err(CipherError::TooLarge));
        assert!(Aad::field(tenant, FieldRef::new("t", "c"), &row[1..], 1).is_ok());
    }

    proptest! {
        #[test]
        fn different_parts_never_encode_alike(
            left in proptest::collection::vec("[ab\\x00\\x01]{0,3}", 0..5),
            right in proptest::collection::vec("[ab\\x00\\x01]{0,3}", 0..5),
        ) {
            let encode = |parts: &[String]| {
                let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
                Aad::bind(*b"tst", &parts).unwrap()
            };
            prop_assert_eq!(left == right, encode(&left) == encode(&right));
        }
    }
}
