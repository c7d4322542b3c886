//! Passwords: how they are hashed and compared.

mod hash;

pub use hash::{
    Cost, CostOutOfRange, HashError, InvalidRecord, Memory, PasswordRecord, Pepper, PepperId, Peppers, Rehash,
    SALT_LEN, Verified, hash_password, verify_password,
};
