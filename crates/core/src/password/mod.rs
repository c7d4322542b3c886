//! Passwords: which new ones are acceptable, and how they are kept.

mod common;
mod policy;

pub use policy::{PasswordPolicy, Weakness};
