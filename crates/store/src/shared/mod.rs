//! What many nodes share.

#[cfg(test)]
mod models;
