//! Where key material lives.
//!
//! A [`KeyProvider`] holds the root key and does the few things that need it: wrap and unwrap other keys, derive keys of
//! a stated use. The root key itself never leaves it. [`FileKeyring`] is the provider for a machine without a hardware
//! module: one text file for each secret, in a directory only its owner can enter.
//!
//! Refused at start, with the file, the flaw and the way to mend it, all at once: a secret that is missing, empty, a
//! placeholder, cut short, edited, of another kind or guessable, and one that others can read.
//!
//! **Caveats.** File modes are what is checked; access control lists and what a backup program may read are not.
//! Whoever is `root` on the machine can read the files: keep the root key in a hardware module if that matters.

mod fault;
mod keyring;
mod place;
mod provider;
mod secret_file;

pub use fault::{SecretFault, SecretFaults};
pub use keyring::FileKeyring;
pub use place::{SecretSource, read_secret};
pub use provider::{KeyError, KeyProvider, Transience};
pub use secret_file::{Flaw, SecretKind};
