//! The library from outside.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test that cannot go on stops here")]

mod application;
mod compile_fail;
mod corpus;
mod house;
mod refresh;
mod router;
mod table;
