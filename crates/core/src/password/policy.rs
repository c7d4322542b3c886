//! Which new passwords are acceptable.
//!
//! What it allows: anything long enough, of any characters. There are no rules of composition and no expiry (NIST SP
//! 800-63B, ASVS 5.0 chapter 6.2).
//!
//! What it refuses, because guessing begins there:
//! 1. fewer characters than the installation wants;
//! 2. a password of the common list, also in other case, in leetspeak, or with digits and punctuation around it;
//! 3. one short text again and again;
//! 4. runs of the alphabet, of digits or of a keyboard's rows and columns;
//! 5. the tenant's, the user's or the product's name, alone, repeated, or with a trivial addition.
//!
//! Deployment caveat: the list is that of the day the release was made. zxcvbn's advice is for the hint only and
//! decides nothing.

use zeroize::Zeroizing;

use super::common::{is_common, is_trimming, without_leetspeak};
use crate::error::{Code, FieldError, Refusal};
use crate::input::{NewPassword, Password};

/// The policy of an installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordPolicy {
    min_length: usize,
}

/// Why a password is not acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Weakness {
    /// Fewer characters than the policy wants.
    TooShort,
    /// On the list of common passwords, perhaps in disguise.
    Common,
    /// A short text, repeated.
    Repeated,
    /// Runs of neighbouring letters, digits or keys.
    Sequence,
    /// Little more than the name of the tenant, the user or the product.
    Contextual,
}

impl Weakness {
    /// The stable code of the rule.
    pub const fn code(self) -> &'static str {
        match self {
            Weakness::TooShort => "password.too_short",
            Weakness::Common => "password.common",
            Weakness::Repeated => "password.repeated",
            Weakness::Sequence => "password.sequence",
            Weakness::Contextual => "password.contextual",
        }
    }

    const fn message(self) -> &'static str {
        match self {
            Weakness::TooShort => "The password is too short.",
            Weakness::Common => "The password is, or disguises, one of the common ones that are tried first.",
            Weakness::Repeated => "The password repeats a short text.",
            Weakness::Sequence => "The password consists of runs of neighbouring letters, digits or keys.",
            Weakness::Contextual => "The password is little more than your name or that of the tenant.",
        }
    }
}

/// Words that are part of nobody's secret here.
const PRODUCT: &str = "bartizan";
/// Names shorter than this are found inside other words by chance.
const SHORTEST_NAME: usize = 3;
/// Letters that an addition to a name must exceed to count as more than trivial.
const TRIVIAL_LETTERS: usize = 3;
/// A password whose runs are on average at least this long is made of runs.
const RUN: usize = 4;
/// Characters that zxcvbn looks at; its work grows faster than the length.
const ADVISED: usize = 40;

impl Default for PasswordPolicy {
    fn default() -> Self {
        Self::new(Self::DEFAULT_MIN_LENGTH)
    }
}

impl PasswordPolicy {
    /// Fewest characters unless configured otherwise.
    pub const DEFAULT_MIN_LENGTH: usize = 15;

    /// A policy with at least `min_length` characters. Below [`NewPassword::FLOOR`] there is no policy: a smaller
    /// figure counts as the floor, and one above 64 as 64, so that long passphrases always pass.
    pub fn new(min_length: usize) -> Self {
        Self { min_length: min_length.clamp(NewPassword::FLOOR, 64) }
    }

    /// Fewest characters.
    pub const fn min_length(self) -> usize {
        self.min_length
    }

    /// Refuses an unacceptable password with [`Code::PasswordUnacceptable`] at `/password`. `context` are names that
    /// an attacker knows: the tenant's short and display name, the user's name, the local part of his address.
    ///
    /// Cost: about a dozen SHA-256 of short texts; when it refuses, zxcvbn's estimate of up to 40 characters as well.
    pub fn check(self, password: &Password, context: &[&str]) -> Result<(), Refusal> {
        let Some(weakness) = self.weakness(password, context) else { return Ok(()) };
        let mut message = match weakness {
            Weakness::TooShort => format!("The password must have at least {} characters.", self.min_length),
            other => other.message().to_owned(),
        };
        let hint = advice(password, context);
        let error = FieldError::new("/password", weakness.code(), message.clone());
        message.push(' ');
        message.push_str(&hint);
        Err(Refusal::new(Code::PasswordUnacceptable).detail(message).error(error))
    }

    /// The first weakness that is found, without words and without advice.
    pub fn weakness(self, password: &Password, context: &[&str]) -> Option<Weakness> {
        let lower = Zeroizing::new(password.expose().to_lowercase());
        if password.characters() < self.min_length {
            Some(Weakness::TooShort)
        } else if self.is_repetition(&lower) || self.is_repetition(lower.trim_matches(is_trimming)) {
            Some(Weakness::Repeated)
        } else if is_made_of_runs(&lower) {
            Some(Weakness::Sequence)
        } else if is_common_in_disguise(&lower) {
            Some(Weakness::Common)
        } else if is_a_name(&lower, context) {
            Some(Weakness::Contextual)
        } else {
            None
        }
    }

    /// Two or more copies of a unit that would be too short by itself; the last copy may be cut off.
    fn is_repetition(self, text: &str) -> bool {
        let characters: Zeroizing<Vec<char>> = Zeroizing::new(text.chars().collect());
        let longest_unit = (characters.len() / 2).min(self.min_length - 1);
        (1..=longest_unit).any(|unit| {
            let shifted = characters.iter().skip(unit);
            characters.iter().zip(shifted).all(|(one, other)| one == other)
        })
    }
}

/// The list, asked about what is left without additions at either end, and about what leetspeak stands for.
fn is_common_in_disguise(lower: &str) -> bool {
    let without_start = lower.trim_start_matches(is_trimming);
    let without_end = lower.trim_end_matches(is_trimming);
    let core = without_start.trim_end_matches(is_trimming);
    // Which sign is an addition and which a letter cannot be known: `4dm1n2026`, `pa55word!!!`.
    [lower, without_start, without_end, core]
        .into_iter()
        .any(|form| is_common(form) || ['i', 'l'].into_iter().any(|one| is_common(&without_leetspeak(form, one))))
}

/// Whether known names are taken away and nothing worth guessing is left.
fn is_a_name(lower: &str, context: &[&str]) -> bool {
    let mut names: Vec<String> = context
        .iter()
        .chain([&PRODUCT])
        .flat_map(|name| name.split(|c: char| !c.is_alphanumeric()).chain([*name]))
        .map(|name| plain(name).to_string())
        .filter(|name| name.chars().count() >= SHORTEST_NAME)
        .collect();
    // The longest first: `annabel` is not `ann` and something.
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    [Zeroizing::new(lower.to_owned()), without_leetspeak(lower, 'i'), without_leetspeak(lower, 'l')].iter().any(
        |form| {
            let mut rest = plain(form);
            for name in &names {
                rest = Zeroizing::new(rest.replace(name.as_str(), "\u{0}"));
            }
            let found = rest.contains('\u{0}');
            let letters: Zeroizing<String> = Zeroizing::new(rest.chars().filter(|c| c.is_alphabetic()).collect());
            found && (letters.chars().count() <= TRIVIAL_LETTERS || is_common(&letters))
        },
    )
}

/// Letters and digits only, in lower case.
fn plain(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect())
}

/// Whether neighbouring characters mostly follow from each other.
fn is_made_of_runs(lower: &str) -> bool {
    let steps = lower.chars().zip(lower.chars().skip(1));
    let breaks = steps.filter(|(one, other)| !is_step(*one, *other)).count();
    (breaks + 1) * RUN <= lower.chars().count()
}

/// The rows of common keyboards, and the columns of the first, which is how fingers walk.
const ROWS: &[&str] = &[
    "1234567890",
    "qwertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "qwertzuiop",
    "yxcvbnm",
    "azertyuiop",
    "qsdfghjklm",
    "wxcvbn",
    "1qaz",
    "2wsx",
    "3edc",
    "4rfv",
    "5tgb",
    "6yhn",
    "7ujm",
    "!@#$%^&*()",
];

/// Whether `other` is what comes after or before `one`, or the same again.
fn is_step(one: char, other: char) -> bool {
    let alphabetic = one.is_alphanumeric() && other.is_alphanumeric() && u32::from(one).abs_diff(u32::from(other)) <= 1;
    let adjacent =
        |row: &&str| row.chars().zip(row.chars().skip(1)).any(|pair| pair == (one, other) || pair == (other, one));
    one == other || alphabetic || ROWS.iter().any(adjacent)
}

/// What zxcvbn would tell the user, in its fixed sentences: they contain nothing of the password.
fn advice(password: &Password, context: &[&str]) -> String {
    let start: Zeroizing<String> = Zeroizing::new(password.expose().chars().take(ADVISED).collect());
    let estimate = zxcvbn::zxcvbn(&start, context);
    let Some(feedback) = estimate.feedback() else {
        return "Several words that do not belong together are good.".into();
    };
    let warning = feedback.warning().map(|warning| warning.to_string());
    let suggestions = feedback.suggestions().iter().map(ToString::to_string);
    warning.into_iter().chain(suggestions).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONTEXT: &[&str] = &["acme-corp", "Acme Corporation", "Ann O'Neil", "ann.oneil"];

    fn weakness(min_length: usize, text: &str) -> Option<Weakness> {
        PasswordPolicy::new(min_length).weakness(&Password::parse(text).unwrap(), CONTEXT)
    }

    #[test]
    fn good_passwords_of_any_kind_pass() {
        for good in [
            "correct horse battery staple",
            "my neighbour's dog eats plums",
            "Tr0ub4dor&3 walks to Ulm",
            "kX9#mQ2$vL7@pR4",
            "vjq8-tmzk-93wb-cxpl",
            "8f14e45fceea167a5a36",
            "密码应该很长而且很难猜到才行啊",
            "gegen den Strom schwimmen",
            "annual planning of acme reports",
            "my password is a long sentence",
            "👩👨🐕🏡🌲⛵🌊☀🌙⭐🎈🎁🎉🍎🍐",
        ] {
            assert_eq!(weakness(15, good), None, "{good}");
        }
    }

    #[test]
    fn length_counts_characters() {
        assert_eq!(weakness(15, "kX9#mQ2$vL7@pR"), Some(Weakness::TooShort));
        assert_eq!(weakness(8, "kX9#mQ2"), Some(Weakness::TooShort));
        assert_eq!(weakness(8, "kX9#mQ2$"), None);
        assert_eq!(weakness(15, "éàüöäßçñøåæœþð"), Some(Weakness::TooShort));
        assert_eq!(PasswordPolicy::new(0).min_length(), 8);
        assert_eq!(PasswordPolicy::new(1000).min_length(), 64);
        assert_eq!(PasswordPolicy::default().min_length(), 15);
    }

    #[test]
    fn common_passwords_are_refused_in_every_disguise() {
        for bad in [
            "password",
            "Password",
            "PASSWORD",
            "letmein!",
            "sunshine",
            "iloveyou",
            "princess1",
            "football99",
            "p@ssw0rd",
            "Pa55word",
            "trustno1",
            "$unsh1ne",
            "superman",
            "4dm1n2026",
            "starwars!",
            "m0nk3y!!",
        ] {
            assert_eq!(weakness(8, bad), Some(Weakness::Common), "{bad}");
        }
        for bad in [
            "password1234!@#$",
            "Password2024!!!!",
            "!!!!!!!password",
            "P@ssw0rd2025....",
            "passw0rd!!!!!!!!!",
            "19841984password",
            "iloveyou-2023-12",
            "administrator123",
            "CorrectHorseBatteryStaple",
            "correcthorsebatterystaple1",
        ] {
            assert_eq!(weakness(15, bad), Some(Weakness::Common), "{bad}");
        }
    }

    #[test]
    fn repetitions_are_refused() {
        for bad in [
            "aaaaaaaaaaaaaaaa",
            "passwordpassword",
            "PasswordPassword",
            "passwordpassword1",
            "abababababababab",
            "xK9xK9xK9xK9xK9x",
            "hello hello hello ",
            "日本日本日本日本日本日本日本日本",
            "00000000000000000",
            "kX9#mQ2$kX9#mQ2$",
        ] {
            assert_eq!(weakness(15, bad), Some(Weakness::Repeated), "{bad}");
        }
    }

    #[test]
    fn runs_of_alphabet_and_keyboard_are_refused() {
        for bad in [
            "123456789012345",
            "987654321098765",
            "abcdefghijklmnop",
            "qwertyuiopasdfgh",
            "1qaz2wsx3edc4rfv",
            "zxcvbnmasdfghjkl",
            "abcdefgh12345678",
            "qwertzuiopasdfghjkl",
            "!@#$%^&*()qwertyuiop",
            "aaaabbbbccccdddd",
        ] {
            assert_eq!(weakness(15, bad), Some(Weakness::Sequence), "{bad}");
        }
    }

    #[test]
    fn names_that_everybody_knows_are_refused() {
        for bad in [
            "acme-corp-2026!!!",
            "AcmeCorporation1",
            "acme.corporation",
            "ann.oneil.19841984",
            "annoneil-acmecorp",
            "4cm3c0rp0r4t10n!!",
            "bartizan-bartizan-1",
            "acme-password-2026",
            "xx-acmecorporation",
        ] {
            let found = weakness(15, bad);
            assert!(matches!(found, Some(Weakness::Contextual | Weakness::Repeated)), "{bad}: {found:?}");
        }
    }

    #[test]
    fn a_refusal_names_the_rule_and_helps_without_repeating_the_password() {
        let password = Password::parse("P@ssw0rd2025....").unwrap();
        let refusal = PasswordPolicy::default().check(&password, CONTEXT).unwrap_err();
        assert_eq!(refusal.code, Code::PasswordUnacceptable);
        assert_eq!(
            (refusal.errors[0].pointer.as_str(), refusal.errors[0].code.as_ref()),
            ("/password", "password.common")
        );
        assert!(refusal.detail.len() > refusal.errors[0].message.len(), "{}", refusal.detail);
        assert!(!format!("{refusal:?}").to_lowercase().contains("p@ss"));
        let short = PasswordPolicy::new(20).check(&Password::parse("short").unwrap(), &[]).unwrap_err();
        assert!(short.detail.contains("at least 20 characters"));
    }

    #[test]
    fn random_passwords_are_not_mistaken_for_common_ones() {
        // A fixed sequence, so that the count is a fact and not a flake.
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let alphabet: Vec<char> = ('!'..='~').collect();
        let refused = (0..3_000)
            .filter(|_| {
                let text: String = (0..16).map(|_| alphabet[(random() % alphabet.len() as u64) as usize]).collect();
                weakness(15, &text).is_some()
            })
            .count();
        assert_eq!(refused, 0);
    }

    proptest! {
        #[test]
        fn any_password_gets_an_answer(text in any::<String>(), name in any::<String>()) {
            if let Ok(password) = Password::parse(&text) {
                let policy = PasswordPolicy::new(8);
                let weakness = policy.weakness(&password, &[&name]);
                prop_assert_eq!(policy.check(&password, &[&name]).is_err(), weakness.is_some());
            }
        }

        #[test]
        fn additions_do_not_hide_a_common_password(start in "[0-9!. ]{0,4}", end in "[0-9!. ]{8,12}") {
            let disguised = format!("{start}sunshine{end}");
            prop_assert!(weakness(8, &disguised).is_some());
        }
    }
}
