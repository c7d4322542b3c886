//! A permit's fields are nobody's business.
use std::marker::PhantomData;

use bartizan::guard::{Grant, Permit};
use bartizan_core::action::CreateUser;

fn built(grant: Grant) -> Permit<CreateUser> {
    Permit { grant, action: PhantomData }
}

fn main() {}
