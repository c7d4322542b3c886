//! The library from outside.

mod compile_fail;
mod router;
