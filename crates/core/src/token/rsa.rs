//! Which RSA public keys are good enough to believe.

use super::key::KeyError;

/// Fewest bits of a modulus (NIST SP 800-131A).
const MIN_BITS: usize = 2048;
/// Most bits of a modulus; more only costs the verifier time.
const MAX_BITS: usize = 8192;

/// Checks modulus and exponent, both big-endian.
///
/// # Errors
/// `Roca` for a modulus with the fingerprint of CVE-2017-15361; `Weak` for a modulus or exponent too small, too large or
/// even; `Malformed` for a leading zero (RFC 7518 section 2, Base64urlUInt).
pub(super) fn check(modulus: &[u8], exponent: &[u8]) -> Result<(), KeyError> {
    // First, because such keys are also found with a leading zero, and the operator should read the graver reason.
    if has_roca_fingerprint(modulus) {
        return Err(KeyError::Roca);
    }
    let (Some(&first), Some(&last)) = (modulus.first(), modulus.last()) else { return Err(KeyError::Malformed) };
    let (Some(&first_e), Some(&last_e)) = (exponent.first(), exponent.last()) else { return Err(KeyError::Malformed) };
    if first == 0 || first_e == 0 {
        return Err(KeyError::Malformed);
    }
    let bits = modulus.len().saturating_mul(8).saturating_sub(first.leading_zeros() as usize);
    let small_exponent = exponent.len() < 3; // 65537 is the smallest odd number of three bytes that is allowed.
    let odd = last & 1 == 1 && last_e & 1 == 1;
    if !odd || small_exponent || exponent.len() > 4 || !(MIN_BITS..=MAX_BITS).contains(&bits) {
        return Err(KeyError::Weak);
    }
    Ok(())
}

/// Whether the modulus comes from the flawed generator of CVE-2017-15361 ("ROCA").
///
/// That generator makes primes `k * M + (65537^a mod M)`, where `M` is a product of the first primes. Modulo each of them
/// the modulus therefore lies in the subgroup that 65537 generates. A random modulus does so for all primes up to 167,
/// which divide `M` at every key size, about once in 2^28 keys.
fn has_roca_fingerprint(modulus: &[u8]) -> bool {
    (3u32..=167).filter(|n| is_prime(*n)).all(|prime| {
        let residue = modulus.iter().fold(0u32, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        let generator = 65537 % prime;
        let mut power = 1;
        loop {
            if power == residue {
                return true;
            }
            power = power * generator % prime;
            if power == 1 || power == 0 {
                return false;
            }
        }
    })
}

fn is_prime(n: u32) -> bool {
    (2..n).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modulus(len: usize) -> Vec<u8> {
        let mut bytes = vec![0xa5; len];
        bytes[len - 1] = 0xa7;
        bytes
    }

    #[test]
    fn sound_keys_pass() {
        assert_eq!(check(&modulus(256), &[1, 0, 1]), Ok(()));
        assert_eq!(check(&modulus(512), &[1, 0, 3]), Ok(()));
        assert_eq!(check(&modulus(1024), &[1, 0, 0, 1]), Ok(()));
    }

    #[test]
    fn weak_keys_are_refused() {
        let mut half = modulus(256);
        half[0] = 0x7f;
        let mut even = modulus(256);
        even[255] = 0xa6;
        for (n, e) in [
            (modulus(128), &[1, 0, 1][..]),
            (modulus(255), &[1, 0, 1]),
            (half, &[1, 0, 1]),
            (even, &[1, 0, 1]),
            (modulus(1025), &[1, 0, 1]),
            (modulus(256), &[1]),
            (modulus(256), &[3]),
            (modulus(256), &[0xff, 0xff]),
            (modulus(256), &[1, 0, 2]),
            (modulus(256), &[1, 0, 0, 0, 1]),
        ] {
            assert_eq!(check(&n, e), Err(KeyError::Weak));
        }
        let mut padded = modulus(257);
        padded[0] = 0;
        assert_eq!(check(&padded, &[1, 0, 1]), Err(KeyError::Malformed));
        assert_eq!(check(&modulus(256), &[0, 1, 0, 1]), Err(KeyError::Malformed));
        assert_eq!(check(&[], &[1, 0, 1]), Err(KeyError::Malformed));
        assert_eq!(check(&modulus(256), &[]), Err(KeyError::Malformed));
    }

    #[test]
    fn powers_of_65537_have_the_roca_fingerprint() {
        // Any power of 65537 lies in every subgroup that 65537 generates. 65537^2 = 0x1_0002_0001.
        assert!(has_roca_fingerprint(&[1, 0, 1]));
        assert!(has_roca_fingerprint(&[1, 0, 2, 0, 1]));
        assert!(!has_roca_fingerprint(&modulus(256)));
    }
}
