//! The list of common passwords, as a Bloom filter. How it is made and from what: the README beside this file.

use aws_lc_rs::digest::{SHA256, digest};
use zeroize::Zeroizing;

/// Made by `tools/common-passwords.py`.
const FILTER: &[u8] = include_bytes!("common.bloom");
const PROBES: u64 = 16;
/// Fewer characters than this are no core of a password.
const SHORTEST: usize = 4;

/// Whether a password that folds like `lower` is on the list. `lower` is in lower case. One SHA-256.
pub(super) fn is_common(lower: &str) -> bool {
    let bits = FILTER.len() as u64 * 8;
    let hash = digest(&SHA256, fold(lower).as_bytes());
    let (Some(first), Some(second)) = (word(hash.as_ref(), 0), word(hash.as_ref(), 8)) else { return true };
    (0..PROBES).all(|probe| {
        let position = first.wrapping_add(probe.wrapping_mul(second | 1)) % bits;
        let byte = usize::try_from(position / 8).ok().and_then(|at| FILTER.get(at));
        byte.is_none_or(|byte| byte & (1 << (position % 8)) != 0)
    })
}

/// Without digits, punctuation and spaces at both ends; whole when little would be left. The list is folded alike.
fn fold(lower: &str) -> &str {
    let core = lower.trim_matches(is_trimming);
    if core.chars().count() >= SHORTEST { core } else { lower }
}

/// What people put around a word to please a rule.
pub(super) const fn is_trimming(c: char) -> bool {
    matches!(c, ' '..='~') && !c.is_ascii_alphabetic()
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes)
}

/// `text` with digits and signs back at the letters they stand for; `one` is what `1`, `!` and `|` mean.
pub(super) fn without_leetspeak(text: &str, one: char) -> Zeroizing<String> {
    let letter = |c| match c {
        '0' => 'o',
        '1' | '!' | '|' => one,
        '3' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '7' | '+' => 't',
        '8' => 'b',
        '9' => 'g',
        other => other,
    };
    let mut plain = Zeroizing::new(String::with_capacity(text.len()));
    plain.extend(text.chars().map(letter));
    plain
}
