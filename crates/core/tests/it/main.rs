//! Tokens seen from outside: published vectors, attacks, and other people's libraries as second opinions.

mod attacks;
mod differential;
mod forge;
mod keys;
mod wycheproof;
