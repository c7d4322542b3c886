//! Passwords: which new ones are acceptable, and how they are kept.

mod common;
mod hash;
mod policy;

pub use hash::{
    Cost, CostOutOfRange, HashError, InvalidRecord, Memory, PasswordRecord, Pepper, PepperId, Peppers, Rehash,
    SALT_LEN, Verified, hash_password, verify_password,
};
pub use policy::{PasswordPolicy, Weakness};
