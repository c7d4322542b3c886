//! When the shared store of all nodes is still the one it was.

use std::fmt;
use std::str::FromStr;

/// A life of the shared store: one process of it, primary without interruption, with one set of data. Another primary, a
/// restart, a primary that was a replica meanwhile, and the loss of its data each begin another life. A number the store
/// keeps says nothing to whoever raised his in another one.
///
/// As text it is `<process>.<birth>`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StoreLife {
    /// Redis' `master_replid`: random, and another one after each start, promotion and demotion. (Also when a first replica
    /// comes, and when the last has been gone for an hour: then a life is announced that was none.)
    pub process: [u8; 20],
    /// When the number was first kept in these data, in the store's microseconds.
    pub birth: u64,
}

/// It is not the text of a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a life of the shared store: expected forty hexadecimal digits, a dot and a number")]
pub struct InvalidStoreLife;

impl fmt::Display for StoreLife {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", hex::encode(self.process), self.birth)
    }
}

impl fmt::Debug for StoreLife {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for StoreLife {
    type Err = InvalidStoreLife;
    fn from_str(text: &str) -> Result<Self, InvalidStoreLife> {
        let (digits, birth) = text.split_once('.').ok_or(InvalidStoreLife)?;
        let mut process = [0; 20];
        hex::decode_to_slice(digits, &mut process).map_err(|_| InvalidStoreLife)?;
        Ok(Self { process, birth: birth.parse().map_err(|_| InvalidStoreLife)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(process: [u8; 20], birth: u64) {
            let life = StoreLife { process, birth };
            prop_assert_eq!(life.to_string().parse(), Ok(life));
        }

        #[test]
        fn anything_else_is_refused(text in ".{0,70}") {
            if let Ok(life) = text.parse::<StoreLife>() {
                prop_assert_eq!(life.to_string().len(), text.len());
            }
        }
    }

    #[test]
    fn the_parts_must_be_whole() {
        let digits = "62f3ceb15d1a05021b6c159e711803244ca8c609";
        for text in ["", ".", digits, &format!("{digits}."), &format!("{}.1", &digits[1..]), &format!("{digits}.-1")] {
            assert_eq!(text.parse::<StoreLife>(), Err(InvalidStoreLife), "{text}");
        }
    }
}
