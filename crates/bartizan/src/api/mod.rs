//! The `Api` router.
