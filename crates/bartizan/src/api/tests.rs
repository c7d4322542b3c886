//! A small application behind a gate of its own: order of decisions, faults, table and document.

mod app;
mod faults;
mod requests;
mod snapshots;
mod undeclared;
