//! What a route demands of whoever calls it.

use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;

use bartizan_core::action::Action;

use super::row::Access;

/// The route needs a `Permit<A>`. Made by [`requires`].
pub struct Requires<A>(PhantomData<fn() -> A>);

impl<A> Clone for Requires<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Requires<A> {}

impl<A: Action> fmt::Debug for Requires<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "requires({})", A::NAME)
    }
}

/// The route is open to anybody, for a stated reason. Made by [`public`].
#[derive(Clone, Copy, Debug)]
pub struct Public(&'static str);

/// Why a plain axum router is kept beside the declared routes. Made by [`because`].
#[derive(Clone, Copy, Debug)]
pub struct Because(&'static str);

impl Because {
    pub(super) fn sentence(self) -> &'static str {
        self.0
    }
}

/// The caller must be permitted to do `action`.
pub fn requires<A: Action>(_: A) -> Requires<A> {
    Requires(PhantomData)
}

/// Anybody may call; `why` stands in the table where a reviewer reads it, and may not be empty.
pub fn public(why: &'static str) -> Public {
    Public(why)
}

/// The reason for adopting a router; it may not be empty.
pub fn because(why: &'static str) -> Because {
    Because(why)
}

/// The two things `access` can be; sealed.
pub trait Stated: super::call::Sealed + Copy + 'static {
    /// For the row.
    fn access(self) -> Access;
    /// The action, for the run-time check behind the one of the compiler.
    fn action(self) -> Option<TypeId>;
}

impl<A> super::call::Sealed for Requires<A> {}
impl super::call::Sealed for Public {}

impl<A: Action> Stated for Requires<A> {
    fn access(self) -> Access {
        Access::Requires { action: A::NAME, roles: A::ROLES }
    }

    fn action(self) -> Option<TypeId> {
        Some(TypeId::of::<A>())
    }
}

impl Stated for Public {
    fn access(self) -> Access {
        Access::Public { why: self.0 }
    }

    fn action(self) -> Option<TypeId> {
        None
    }
}
