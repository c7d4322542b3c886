//! What is true: the rules and formats of Bartizan.
//!
//! Nothing here reads a file, opens a socket, looks at a clock or draws random bytes. `now` and randomness are
//! arguments, so every rule can be tested alone and replayed exactly. The rooms that do touch the world
//! (`bartizan-keys`, `bartizan-store`, `bartizan`) bring the facts here and carry the verdicts away.

pub mod action;
pub mod audit;
pub mod browser;
pub mod cipher;
pub mod error;
pub mod id;
pub mod input;
pub mod json;
pub mod limit;
pub mod net;
pub mod password;
pub mod principal;
pub mod secret;
pub mod store_life;
pub mod time;
pub mod token;
