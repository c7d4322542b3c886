//! The text of a secret file: `bartizan-root-v1:<32 bytes in base64url>:<checksum>`, one line.
//!
//! The prefix says what the secret is for, so that files cannot be mixed up and a scanner finds one that leaked. The
//! checksum (the first 8 hexadecimal digits of SHA-256 over everything before it and its colon) tells a file that was cut
//! short or edited from a real one; it protects against accidents, not against people.

use aws_lc_rs::digest::{SHA256, digest};
use bartizan_core::secret::Secret;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use zeroize::Zeroizing;

/// Bytes of a secret.
pub(crate) const LEN: usize = 32;
/// Longest file that is read; a secret has about 70 bytes.
pub(crate) const MAX_FILE: usize = 4096;

/// What a secret is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecretKind {
    /// Wraps every other key.
    Root,
    /// Goes into every password hash.
    PasswordPepper,
}

impl SecretKind {
    /// Every kind, in the order in which the files are made: the root key first, see [`crate::FileKeyring::create`].
    pub const ALL: &'static [SecretKind] = &[SecretKind::Root, SecretKind::PasswordPepper];

    /// The file's name before `.key`.
    pub const fn stem(self) -> &'static str {
        match self {
            SecretKind::Root => "root",
            SecretKind::PasswordPepper => "password-pepper",
        }
    }

    /// The file of the secret in force; also its name in [`crate::SecretSource::overrides`].
    pub const fn file(self) -> &'static str {
        match self {
            SecretKind::Root => "root.key",
            SecretKind::PasswordPepper => "password-pepper.key",
        }
    }

    /// What the text begins with, up to and without the first colon.
    pub const fn prefix(self) -> &'static str {
        match self {
            SecretKind::Root => "bartizan-root-v1",
            SecretKind::PasswordPepper => "bartizan-password-pepper-v1",
        }
    }
}

/// What is wrong with the content of a secret file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// Nothing in it.
    #[error("is empty")]
    Empty,
    /// Something to be replaced.
    #[error("holds a placeholder and not a secret")]
    Placeholder,
    /// A secret of another kind.
    #[error("holds the secret of {0}")]
    OtherKind(&'static str),
    /// Not a text of this format.
    #[error("does not hold a secret that Bartizan made (it does not begin with {0}:)")]
    Unknown(&'static str),
    /// The right beginning, not the right form.
    #[error("is cut short or has something added")]
    Shape,
    /// The checksum says it was changed.
    #[error("was changed since it was made (its checksum is wrong)")]
    Checksum,
    /// No generator made this.
    #[error("holds a secret that can be guessed")]
    Guessable,
}

/// The text of a secret, with its line end.
pub(crate) fn write(kind: SecretKind, secret: &Secret<[u8; LEN]>) -> Zeroizing<String> {
    // Large enough that no half-written copy stays behind in a smaller allocation.
    let mut text = Zeroizing::new(String::with_capacity(128));
    text.push_str(kind.prefix());
    text.push(':');
    BASE64.encode_string(secret.expose(), &mut text);
    let sum = checksum(&text);
    text.push(':');
    text.push_str(&sum);
    text.push('\n');
    text
}

/// Reads a secret of `kind`. One line end is allowed, since editors and `echo` add it.
pub(crate) fn read(kind: SecretKind, bytes: &[u8]) -> Result<Secret<[u8; LEN]>, Flaw> {
    let text = std::str::from_utf8(bytes).map_err(|_| Flaw::Unknown(kind.prefix()))?;
    let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    if line.trim().is_empty() {
        return Err(Flaw::Empty);
    }
    let rest =
        line.strip_prefix(kind.prefix()).and_then(|rest| rest.strip_prefix(':')).ok_or_else(|| stranger(kind, line))?;
    decode(line, rest).map_err(|flaw| match flaw {
        // Only a better word for what is refused anyway: a real secret may contain "todo" by chance.
        Flaw::Shape | Flaw::Checksum if looks_like_placeholder(rest) => Flaw::Placeholder,
        other => other,
    })
}

/// Decodes `rest`, the part of `line` after the prefix.
fn decode(line: &str, rest: &str) -> Result<Secret<[u8; LEN]>, Flaw> {
    let (encoded, sum) = rest.split_once(':').ok_or(Flaw::Shape)?;
    if encoded.len() != 43 || sum.len() != 8 {
        return Err(Flaw::Shape);
    }
    let signed = line.strip_suffix(sum).and_then(|head| head.strip_suffix(':')).ok_or(Flaw::Shape)?;
    if checksum(signed) != sum {
        return Err(Flaw::Checksum);
    }
    let mut decoded = Zeroizing::new([0u8; 48]);
    let length = BASE64.decode_slice(encoded, &mut *decoded).map_err(|_| Flaw::Shape)?;
    let secret = decoded.first_chunk::<LEN>().filter(|_| length == LEN).ok_or(Flaw::Shape)?;
    if guessable(secret) { Err(Flaw::Guessable) } else { Ok(Secret::new(*secret)) }
}

fn checksum(text: &str) -> String {
    let sum = digest(&SHA256, text.as_bytes());
    hex::encode(sum.as_ref().first_chunk::<4>().copied().unwrap_or_default())
}

/// What to say of a text that does not begin as `kind` does.
fn stranger(kind: SecretKind, line: &str) -> Flaw {
    let other = SecretKind::ALL.iter().find(|other| line.starts_with(other.prefix()));
    match other {
        Some(other) if *other != kind => Flaw::OtherKind(other.file()),
        _ if looks_like_placeholder(line) => Flaw::Placeholder,
        _ => Flaw::Unknown(kind.prefix()),
    }
}

/// Whether a text that is refused anyway was meant to be replaced.
fn looks_like_placeholder(text: &str) -> bool {
    const WORDS: &[&str] = &[
        "changeme",
        "change-me",
        "change_me",
        "change me",
        "placeholder",
        "replace",
        "example",
        "insert",
        "your-",
        "your_",
        "todo",
        "fixme",
        "secret",
        "password",
        "dummy",
        "xxxx",
        "<",
        "${",
        "{{",
    ];
    let lower = text.to_lowercase();
    WORDS.iter().any(|word| lower.contains(word))
}

/// Whether no generator made this: 32 random bytes have fewer than 16 different values, count up evenly or are all
/// printable less than once in 10^13.
fn guessable(secret: &[u8; LEN]) -> bool {
    let mut seen = Zeroizing::new(*secret);
    seen.sort_unstable();
    let distinct = 1 + seen.array_windows::<2>().filter(|[a, b]| a != b).count();
    let mut strides = secret.array_windows::<2>().map(|[a, b]| b.wrapping_sub(*a));
    let first = strides.next();
    distinct < 16
        || strides.all(|stride| Some(stride) == first)
        || secret.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Looks random, but is made: a test must not commit anything that a scanner should find.
    fn sample() -> Secret<[u8; LEN]> {
        let sum = digest(&SHA256, b"sample");
        Secret::new(sum.as_ref().try_into().unwrap())
    }

    fn text() -> String {
        write(SecretKind::Root, &sample()).to_string()
    }

    #[test]
    fn what_is_written_is_read_with_any_line_end() {
        for kind in SecretKind::ALL {
            let text = write(*kind, &sample());
            assert!(read(*kind, text.as_bytes()).unwrap() == sample());
            assert!(read(*kind, text.trim_end().as_bytes()).unwrap() == sample());
            assert!(read(*kind, text.replace('\n', "\r\n").as_bytes()).unwrap() == sample());
        }
    }

    #[test]
    fn every_changed_byte_and_every_shorter_text_is_refused() {
        let text = text();
        let line = text.trim_end();
        for at in 0..line.len() {
            let mut bad = line.as_bytes().to_vec();
            bad[at] ^= 1;
            assert!(read(SecretKind::Root, &bad).is_err(), "byte {at}");
            assert!(read(SecretKind::Root, &line.as_bytes()[..at]).is_err(), "cut to {at}");
        }
        assert_eq!(read(SecretKind::Root, format!("{text}\n").as_bytes()).err(), Some(Flaw::Shape));
        assert_eq!(read(SecretKind::Root, format!("{line} \n").as_bytes()).err(), Some(Flaw::Shape));
        assert_eq!(read(SecretKind::Root, format!("{text}{text}").as_bytes()).err(), Some(Flaw::Shape));
    }

    #[test]
    fn a_secret_that_spells_a_word_by_chance_is_still_a_secret() {
        let mut bytes = *sample().expose();
        BASE64.decode_slice("TODOxxxxdummySECRETs", &mut bytes[..15]).unwrap();
        let text = write(SecretKind::Root, &Secret::new(bytes));
        assert!(text.contains("TODOxxxxdummySECRETs"));
        assert!(read(SecretKind::Root, text.as_bytes()).unwrap() == Secret::new(bytes));
    }

    #[test]
    fn each_flaw_is_named() {
        let with = |encoded: &str| {
            let head = format!("bartizan-root-v1:{encoded}");
            format!("{head}:{}", checksum(&head))
        };
        let guessable = |bytes: [u8; 32]| with(&BASE64.encode(bytes));
        let pepper = write(SecretKind::PasswordPepper, &sample()).to_string();
        let cases: Vec<(String, Flaw)> = vec![
            ("".into(), Flaw::Empty),
            (" \n".into(), Flaw::Empty),
            ("changeme".into(), Flaw::Placeholder),
            ("<put the root key here>".into(), Flaw::Placeholder),
            ("bartizan-root-v1:CHANGE_ME".into(), Flaw::Placeholder),
            ("bartizan-root-v1:${ROOT}".into(), Flaw::Placeholder),
            (pepper, Flaw::OtherKind("password-pepper.key")),
            ("hunter2".into(), Flaw::Unknown("bartizan-root-v1")),
            (BASE64.encode([0x9d; 32]), Flaw::Unknown("bartizan-root-v1")),
            ("bartizan-root-v1:short:12345678".into(), Flaw::Shape),
            (guessable([0; 32]), Flaw::Guessable),
            (guessable([0xFF; 32]), Flaw::Guessable),
            (guessable(std::array::from_fn(|i| i as u8)), Flaw::Guessable),
            (guessable(std::array::from_fn(|i| (i % 8) as u8 * 31)), Flaw::Guessable),
            (guessable(*b"correct horse battery staple 123"), Flaw::Guessable),
            (text().replace(":", ";"), Flaw::Unknown("bartizan-root-v1")),
        ];
        for (text, flaw) in cases {
            assert_eq!(read(SecretKind::Root, text.as_bytes()).err(), Some(flaw), "{text}");
        }
        assert_eq!(read(SecretKind::Root, &[0xFF, 0xFE]).err(), Some(Flaw::Unknown("bartizan-root-v1")));
    }

    proptest! {
        #[test]
        fn random_secrets_are_never_taken_for_guessable(seed: [u8; 32]) {
            let sum = digest(&SHA256, &seed);
            let secret: &[u8; LEN] = sum.as_ref().try_into().unwrap();
            prop_assert!(!guessable(secret));
        }

        #[test]
        fn arbitrary_bytes_are_a_secret_or_a_flaw(bytes: Vec<u8>) {
            prop_assert!(read(SecretKind::Root, &bytes).is_err());
        }
    }
}
