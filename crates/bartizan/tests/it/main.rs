//! The library from outside.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

mod compile_fail;
mod router;
