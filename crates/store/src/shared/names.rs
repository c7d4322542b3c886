//! Names of keys in the store.

use aws_lc_rs::cipher::{AES_256, EncryptingKey, UnboundCipherKey};
use bartizan_core::limit::{Key, KeyMaker};

use crate::state;

/// Names of keys in the store. The bucket and the ban record of a key are in one slot.
///
/// A key may be a client's network or somebody's id. What names it in the store is what names its counter in the memory of
/// a single machine ([`state::name`]), so that counters can be taken along from there; encrypted, as one block of AES
/// under the nodes' secret: as good as random to whoever looks into the store, one to one, and made in less time than a
/// hash.
#[derive(Debug)]
pub(super) struct Names {
    prefix: String,
    block: EncryptingKey,
}

/// AES cannot be used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("names of limits cannot be made: AES is not available to this process")]
pub struct NoNames;

impl Names {
    /// Names that begin with `prefix`, less its braces: they would say where a cluster keeps everything.
    pub(super) fn new(prefix: &str, keys: &KeyMaker) -> Result<Self, NoNames> {
        let mut secret = keys.digest();
        secret.update(b"names in the shared store");
        let unbound = UnboundCipherKey::new(&AES_256, &secret.finish()).map_err(|_| NoNames)?;
        let block = EncryptingKey::ecb(unbound).map_err(|_| NoNames)?;
        block.encrypt(&mut [0; 16]).map_err(|_| NoNames)?;
        Ok(Self { prefix: prefix.replace(['{', '}'], ""), block })
    }

    pub(super) fn bucket(&self, key: Key) -> String {
        self.name(state::name(key).into(), "}l")
    }

    /// The bucket of whatever is counted under this name on a single machine.
    pub(super) fn bucket_named(&self, name: u64) -> String {
        self.name(name, "}l")
    }

    pub(super) fn ban(&self, key: Key) -> String {
        self.name(state::name(key).into(), "}b")
    }

    pub(super) fn sequence(&self) -> String {
        format!("{}sequence", self.prefix)
    }

    pub(super) fn nodes(&self) -> String {
        format!("{}nodes", self.prefix)
    }

    /// Half a dozen a request, so without the machinery of `format!`.
    fn name(&self, name: u64, end: &str) -> String {
        let mut block = u128::from(name).to_be_bytes();
        if self.block.encrypt(&mut block).is_err() {
            // One block is never refused. If it were, all would share one bucket: less is admitted, and nothing is told.
            block = [0; 16];
        }
        let mut digits = [0; 32];
        let digits = match hex::encode_to_slice(block, &mut digits) {
            Ok(()) => std::str::from_utf8(&digits).unwrap_or_default(),
            // There is room for them.
            Err(_) => "",
        };
        let mut text = String::with_capacity(self.prefix.len() + 1 + digits.len() + end.len());
        text.extend([self.prefix.as_str(), "{", digits, end]);
        text
    }
}

#[cfg(test)]
mod tests {
    use bartizan_core::secret::Secret;

    use super::*;

    fn names(secret: u8) -> Names {
        Names::new("b{}z:", &KeyMaker::new(&Secret::new([secret; 32]))).unwrap()
    }

    #[test]
    fn a_name_is_the_same_on_every_node_and_shows_nothing_of_its_key() {
        let key = Key(0x2001_0db8_0000_0001_0000_0000_0000_0000);
        let name = names(1).bucket(key);
        assert_eq!(name, names(1).bucket(key));
        assert!(name.starts_with("bz:{") && name.ends_with("}l") && name.len() == 3 + 34 + 1, "{name}");
        assert!(!name.contains("20010db8") && !name.contains("0000"), "{name}");
        assert_ne!(name, names(2).bucket(key));
        assert_eq!(names(1).ban(key), name.replace("}l", "}b"));
        assert_eq!(names(1).bucket_named(state::name(key).into()), name);
        let near = names(1).bucket(Key(key.0 + 1));
        let same = name.chars().zip(near.chars()).filter(|(one, other)| one == other).count();
        assert!(same < 6 + 12, "{name} {near}");
    }
}
