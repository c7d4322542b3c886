//! What a handler is. Where the bounds stand here decides how readable the compiler's messages are: [`Call`] has none, so
//! the compiler picks the arity and then walks down to the one guilty argument.

use std::future::Future;

use super::access::{Public, Requires};
use super::answers::Answer;
use super::argument::{Args, Nothing, Proves, Visits};
use super::failure::Failure;
use super::incoming::Incoming;
use super::schema::Description;
use axum::response::Response;

/// Keeps the traits of this module ours: an empty impl elsewhere would open a second door.
pub trait Sealed {}

/// A function of zero to six arguments, whatever they are; `Args` is the nested tuple of them.
#[diagnostic::on_unimplemented(
    message = "this is not a route handler",
    label = "expected an `async fn` with at most six owned arguments"
)]
pub trait Call<Args> {
    /// What calling gives.
    type Returned;
    /// Calls it.
    fn call(&self, arguments: Args) -> Self::Returned;
}

macro_rules! nested {
    () => { () };
    ($head:ident $($tail:ident)*) => { ($head, nested!($($tail)*)) };
}

macro_rules! calls {
    ($($argument:ident)*) => {
        impl<F, R, $($argument,)*> Call<nested!($($argument)*)> for F
        where
            F: Fn($($argument),*) -> R,
        {
            type Returned = R;
            #[allow(non_snake_case)]
            fn call(&self, arguments: nested!($($argument)*)) -> R {
                let nested!($($argument)*) = arguments;
                self($($argument),*)
            }
        }
    };
}

calls!();
calls!(A);
calls!(A B);
calls!(A B C);
calls!(A B C D);
calls!(A B C D E);
calls!(A B C D E G);

/// What the arguments prove is what the route states.
#[diagnostic::on_unimplemented(
    message = "the route states `{P}`, but the handler's arguments prove `{Self}`",
    label = "these arguments do not match the route's `access`",
    note = "`requires(X)` needs exactly one `Permit<X>` among the arguments",
    note = "`public(\"why\")` needs no permit; it may take `Visit`"
)]
pub trait Satisfies<P> {}

impl<A> Satisfies<Requires<A>> for Proves<A> {}
impl Satisfies<Public> for Nothing {}
impl Satisfies<Public> for Visits {}

/// What a handler's future gives: exactly a `Result` of an answer and a failure.
#[diagnostic::on_unimplemented(
    message = "a handler must return `Result<Found<T> | Created<T> | Done, E>`, this one returns `{Self}`",
    label = "not a `Result` of an answer",
    note = "status and schema belong to the answer's type, so that the document cannot drift from the code"
)]
pub trait Outcome: Sealed {
    /// The answer of success.
    type Answer: Answer;
    /// Success or failure.
    fn into_result(self) -> Result<Self::Answer, Failure>;
}

impl<T, E> Sealed for Result<T, E> {}

impl<T: Answer, E: Into<Failure>> Outcome for Result<T, E> {
    type Answer = T;
    fn into_result(self) -> Result<T, Failure> {
        self.map_err(Into::into)
    }
}

/// A handler that fits a route with access `P`; `A` is the nested tuple of its arguments. Exactly one blanket impl.
#[diagnostic::on_unimplemented(
    message = "this is not a route handler",
    label = "expected an `async fn` with at most six owned arguments"
)]
pub trait Endpoint<S, P, A>: Send + Sync + 'static {
    /// Notes what the arguments and the answer are.
    fn describe(description: &mut Description);
    /// Takes the arguments out of the request, calls, and renders the answer.
    fn serve(&self, incoming: Box<Incoming>, state: &S) -> impl Future<Output = Result<Response, Failure>> + Send;
}

impl<S, P, A, H> Endpoint<S, P, A> for H
where
    S: Send + Sync,
    H: Call<A> + Send + Sync + 'static,
    A: Args<S>,
    A::Proof: Satisfies<P>,
    H::Returned: Future + Send,
    <H::Returned as Future>::Output: Outcome,
{
    fn describe(description: &mut Description) {
        A::describe(description);
        description.answer::<<<H::Returned as Future>::Output as Outcome>::Answer>();
    }

    async fn serve(&self, mut incoming: Box<Incoming>, state: &S) -> Result<Response, Failure> {
        let arguments = A::take(&mut incoming, state).await?;
        // The request is done with; it is not kept alive over the handler's work.
        drop(incoming);
        self.call(arguments).await.into_result()?.render()
    }
}
