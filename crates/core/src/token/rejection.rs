//! Why a token was refused.

use std::fmt;

use crate::error::Code;

macro_rules! rejections {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)+) => {
        /// Why a token was refused. For metrics, logs and the audit trail: a client learns only the [`Rejection::code`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Rejection { $($(#[$doc])* $variant,)+ }

        impl Rejection {
            /// Every reason: what a metric declares its label values from.
            pub const ALL: &'static [Rejection] = &[$(Rejection::$variant,)+];

            /// The stable word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Rejection::$variant => $word,)+ }
            }
        }
    };
}

rejections! {
    /// More bytes than allowed; nothing was decoded.
    TooLarge = "too_large",
    /// Not compact serialisation, not canonical base64url, not JSON, or a header member of the wrong type.
    Malformed = "malformed",
    /// A JSON object names a member twice.
    Duplicate = "duplicate",
    /// `crit` is present: whatever it demands, we do not offer.
    Critical = "critical",
    /// The header brings a key, a certificate or an address to fetch one from.
    KeyInToken = "key_in_token",
    /// The header has a member that is not on the list.
    Header = "header",
    /// `alg` is missing, not offered, or not the algorithm of the key.
    Algorithm = "algorithm",
    /// `kid` is missing or names no key here.
    UnknownKey = "unknown_key",
    /// The key is known to be compromised: nothing it signed is believed.
    KeyCompromised = "key_compromised",
    /// `typ` is missing or another kind of token.
    WrongType = "wrong_type",
    /// The signature does not fit.
    BadSignature = "bad_signature",
    /// A claim is missing.
    ClaimMissing = "claim_missing",
    /// A claim has the wrong JSON type, is out of range or contradicts another.
    ClaimInvalid = "claim_invalid",
    /// A claim that access tokens of this installation do not have.
    ClaimUnknown = "claim_unknown",
    /// Issued by somebody else.
    WrongIssuer = "wrong_issuer",
    /// Meant for somebody else.
    WrongAudience = "wrong_audience",
    /// Its time is over.
    Expired = "expired",
    /// `iat` or `nbf` lies in the future.
    NotYetValid = "not_yet_valid",
    /// It claims to live longer than any access token may.
    Lifetime = "lifetime",
}

impl Rejection {
    /// What the client is told: whether a refresh helps, and nothing more.
    pub const fn code(self) -> Code {
        match self {
            Rejection::Expired => Code::CredentialExpired,
            _ => Code::CredentialInvalid,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for Rejection {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_distinct_and_fit_for_labels() {
        let words: std::collections::HashSet<_> = Rejection::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(words.len(), Rejection::ALL.len());
        assert!(words.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }

    #[test]
    fn only_an_expiry_is_told_apart() {
        for rejection in Rejection::ALL {
            let expected =
                if *rejection == Rejection::Expired { Code::CredentialExpired } else { Code::CredentialInvalid };
            assert_eq!(rejection.code(), expected);
        }
    }
}
