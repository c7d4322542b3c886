//! Only the guard makes a permit, and nobody a second one.
use bartizan::guard::{Grant, Permit};
use bartizan_core::action::CreateUser;

fn doubled(permit: &Permit<CreateUser>) -> Permit<CreateUser> {
    permit.clone()
}

fn granted(grant: Grant) -> Permit<CreateUser> {
    Permit::new(grant)
}

fn main() {}
