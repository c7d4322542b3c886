//! The store seen from outside.

mod borders;
mod changes;
mod crash;
mod loading;
mod nouns;
mod opening;
mod rules;
mod world;
