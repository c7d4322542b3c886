//! What many nodes share: the link to Redis and what is asked over it.

pub mod link;
