//! Random bytes, from aws-lc-rs alone.

use crate::api::Failure;

/// `N` random bytes from the system-seeded generator of aws-lc.
///
/// # Errors
/// A [`Failure::Fault`] when the generator fails; nothing may be issued then.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0u8; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::fault("the random number generator failed"))?;
    Ok(bytes)
}
