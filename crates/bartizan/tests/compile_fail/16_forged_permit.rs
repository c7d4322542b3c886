//! Only the guard makes a permit, and nobody a second one.
use bartizan::guard::Permit;
use bartizan::guard::{Admission, Grant};
use bartizan_core::action::CreateUser;

fn doubled(permit: &Permit<CreateUser>) -> Permit<CreateUser> {
    permit.clone()
}

fn admitted(grant: &Grant) -> Permit<CreateUser> {
    Permit::new(grant.clone())
}

fn main() {
    let _ = Permit::<CreateUser> { grant: todo!(), action: todo!() };
    let _: Admission = Admission::default();
    let _ = Grant { idempotency_key: None };
}
