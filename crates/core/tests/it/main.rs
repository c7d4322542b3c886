//! Tokens seen from outside: published vectors, attacks, and other people's libraries as second opinions.

// A helper of a test may fail like the test itself; clippy's own exception covers only the functions marked `#[test]`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod attacks;
mod differential;
mod forge;
mod keys;
mod wycheproof;
