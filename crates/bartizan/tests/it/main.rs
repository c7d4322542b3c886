//! The library from outside.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test that cannot go on stops here")]

mod application;
mod borders;
mod compile_fail;
mod corpus;
mod endings;
mod guessing;
mod house;
mod late;
mod once;
mod races;
mod refresh;
mod rotation;
mod router;
mod source;
mod start;
mod table;
mod trail;
