use proptest::prelude::*;
use schemars::JsonSchema;

use super::*;

/// What a schema says about texts: length in code points, pattern, and a `not` of an enumeration.
struct Stated {
    length: std::ops::RangeInclusive<usize>,
    pattern: regex::Regex,
    /// The two look-aheads are beyond a linear engine: their rules are stated here by hand.
    ahead: fn(&str) -> bool,
    reserved: Vec<serde_json::Value>,
}

impl Stated {
    fn by<T: JsonSchema>() -> Self {
        let schema = T::json_schema(&mut schemars::SchemaGenerator::default()).to_value();
        let bound = |key: &str| schema[key].as_u64().unwrap() as usize;
        let whole = schema["pattern"].as_str().unwrap();
        let (pattern, ahead): (String, fn(&str) -> bool) = if whole.contains("(?![^@]{65})") {
            let local_is_short = |text: &str| text.chars().take_while(|c| *c != '@').count() <= 64;
            (whole.replace("(?![^@]{65})", ""), local_is_short)
        } else if let Some((_, rest)) = whole.split_once("-\\u009F]?$)") {
            (format!("^{rest}"), |text| !is_one_character(text))
        } else {
            (whole.to_owned(), |_| true)
        };
        Self {
            length: bound("minLength")..=bound("maxLength"),
            pattern: regex::Regex::new(&pattern).unwrap(),
            ahead,
            reserved: schema.pointer("/not/enum").and_then(|words| words.as_array()).cloned().unwrap_or_default(),
        }
    }

    fn accepts(&self, text: &str) -> bool {
        self.length.contains(&text.chars().count())
            && self.pattern.is_match(text)
            && (self.ahead)(text)
            && !self.reserved.contains(&text.into())
    }
}

/// The same character throughout, but perhaps for the first and the last.
fn is_one_character(text: &str) -> bool {
    let inner: Vec<char> = text.chars().skip(1).take(text.chars().count().saturating_sub(2)).collect();
    inner.windows(2).all(|pair| pair[0] == pair[1])
}

fn run<S: Strategy>(strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    proptest::test_runner::TestRunner::default().run(&strategy, test).unwrap_or_else(|error| panic!("{error}"));
}

macro_rules! agree {
    ($($test:ident: $type:ident from $strategy:expr, printed by $print:expr;)+) => {$(
        #[test]
        fn $test() {
            let stated = Stated::by::<$type>();
            run($strategy, |text| {
                let parsed = $type::parse(&text);
                prop_assert_eq!(parsed.is_ok(), stated.accepts(&text), "{:?}", text);
                if let Ok(value) = parsed {
                    let print: fn(&$type) -> String = $print;
                    let printed = print(&value);
                    let again = $type::parse(&printed);
                    prop_assert!(again.is_ok_and(|again| print(&again) == printed), "{:?}", text);
                }
                Ok(())
            });
        }
    )+};
}

agree! {
    email_schema_and_parser_agree: Email from "[a-zA-Z0-9.+'é@-]{1,12}(@[a-z0-9A-Z-]{1,5}(\\.[a-z0-9-]{0,4}){1,3})?",
        printed by |email| email.to_string();
    long_email_schema_and_parser_agree: Email from "[a-z.]{55,70}@[a-z0-9-]{58,66}\\.([a-z]{60}\\.){0,3}[a-z]{1,3}",
        printed by |email| email.to_string();
    slug_schema_and_parser_agree: TenantSlug from "([a-z0-9A-Z-]{1,45}|[a-z]{3}-?[a-z]{0,3}|admin|api)\n?",
        printed by |slug| slug.to_string();
    ascii_name_schema_and_parser_agree: HumanName from "[ -~\t\n\u{7f}]{0,8}", printed by |name| name.to_string();
    name_schema_and_parser_agree: HumanName from "[aé日👩 \u{a0}\u{3000}\u{200c}\u{200d}\u{fe0f}\u{202e}\u{ad}]{0,5}",
        printed by |name| name.to_string();
    long_name_schema_and_parser_agree: HumanName from "[aé日]{98,102}", printed by |name| name.to_string();
    password_schema_and_parser_agree: Password from "[a-zé日\u{0}\u{1f}\u{85} \u{a0}]{0,9}",
        printed by |password| password.expose().to_owned();
    long_password_schema_and_parser_agree: Password from "[a👩]{254,258}",
        printed by |password| password.expose().to_owned();
    refresh_token_schema_and_parser_agree: RefreshToken from "btr_[a-zA-Z0-9_=-]{42,44}",
        printed by |token| token.expose().to_owned();
    cursor_schema_and_parser_agree: Cursor from "[a-zA-Z0-9_=+-]{0,5}|[a-z]{198,202}", printed by |cursor| cursor.to_string();
    idempotency_key_schema_and_parser_agree: IdempotencyKey from "\"?[!-~ é]{0,6}\"?|\"?[a-z]{126,130}\"?",
        printed by |key| key.to_string();
}

#[test]
fn any_text_gives_an_answer_and_a_name_agrees_with_its_schema() {
    let stated = Stated::by::<HumanName>();
    run(any::<String>(), |text| {
        let _ = (Email::parse(&text), TenantSlug::parse(&text), Password::parse(&text), NewPassword::parse(&text));
        let _ = (RefreshToken::parse(&text), Cursor::parse(&text), PageLimit::parse(&text));
        let _ = (IdempotencyKey::parse(&text), AuditActionFilter::parse(&text));
        prop_assert_eq!(HumanName::parse(&text).is_ok(), stated.accepts(&text), "{:?}", text);
        Ok(())
    });
}

/// All of the basic plane and the edges of the others, alone and between others.
#[test]
fn every_character_is_a_name_exactly_when_the_schema_says_so() {
    let stated = Stated::by::<HumanName>();
    for c in ('\0'..='\u{ffff}').chain('\u{1f468}'..='\u{1f470}').chain('\u{dfff0}'..='\u{e0200}').chain(['\u{10ffff}'])
    {
        for text in [c.to_string(), format!("a{c}b"), format!("é{c}é")] {
            assert_eq!(HumanName::parse(&text).is_ok(), stated.accepts(&text), "{text:?}");
        }
    }
}

#[test]
fn new_password_has_the_floor_in_the_parser_and_the_default_in_the_schema() {
    assert!(NewPassword::parse("sevench").is_err());
    assert!(NewPassword::parse("eightchr").is_ok());
    let stated = Stated::by::<NewPassword>();
    assert!(!stated.accepts("fourteen chars"));
    assert!(stated.accepts("fifteen chars !"));
    // What a generator of tests tries first, and the policy refuses: the schema says so.
    for monotonous in ["aaaaaaaaaaaaaaa", "baaaaaaaaaaaaaa", "aaaaaaaaaaaaaab", "baaaaaaaaaaaaac"] {
        assert!(!stated.accepts(monotonous));
        let password = Password::parse(monotonous).unwrap();
        assert!(crate::password::PasswordPolicy::default().weakness(&password, &[]).is_some());
    }
}

#[test]
fn email_keeps_the_local_part_and_lowers_the_domain() {
    let email = Email::parse("Ann.O'Neil+x@EXAMPLE.Org").unwrap();
    assert_eq!(email.as_str(), "Ann.O'Neil+x@example.org");
    assert_eq!(email.index_form(), "ann.o'neil+x@example.org");
    assert_eq!(email.local_part(), "Ann.O'Neil+x");
    for bad in [
        "",
        "@",
        "a@b",
        "a@b.",
        "a@.b",
        ".a@b.cd",
        "a.@b.cd",
        "a..b@c.de",
        "a b@c.de",
        "\"a\"@b.cd",
        "a@[127.0.0.1]",
        "a@b.cd\n",
        " a@b.cd",
        "a@b.cd ",
        "a@-b.cd",
        "a@b-.cd",
        "a@b..cd",
        "a@127.0.0.1",
        "ä@b.cd",
        "a@bä.cd",
        "a@b@c.de",
        "a@b.cd\r\nBcc: x@y.zz",
        "a\0@b.cd",
    ] {
        assert!(Email::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn name_is_trimmed_and_normalised() {
    assert_eq!(HumanName::parse("  Ann\u{a0}O'Neil ").unwrap().as_str(), "Ann O'Neil");
    assert_eq!(HumanName::parse("Rene\u{301}e").unwrap().as_str(), "Ren\u{e9}e");
    assert!(HumanName::parse("Robert'); DROP TABLE students;--").is_ok());
    assert_eq!(HumanName::parse("👩\u{200d}💻").unwrap().as_str(), "👩\u{200d}💻");
    assert!(HumanName::parse("می\u{200c}خواهم").is_ok());
    for bad in [
        "",
        " ",
        "\u{3000}",
        "a\u{202e}b",
        "a\u{0}b",
        "a\nb",
        "\u{200d}",
        "a\u{200d}b",
        "\u{2800}",
        "\u{3164}",
        "\u{feff}",
        "e\u{200b}e",
        "\u{e0041}",
        "\u{f8ff}",
        "\u{fffd}",
        "é\u{200d}",
        "\u{ad}",
    ] {
        assert!(HumanName::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn password_is_prepared_but_neither_trimmed_nor_cut() {
    assert_eq!(Password::parse(" Pass\u{a0}wo\u{308}rd ").unwrap().expose(), " Pass w\u{f6}rd ");
    assert!(Password::parse(&"é".repeat(256)).is_ok());
    assert!(Password::parse(&"é".repeat(257)).is_err());
    assert!(Password::parse(&"👩".repeat(256)).is_ok());
    // Grows under normalisation beyond what the hash is given.
    assert!(Password::parse(&"\u{1d160}".repeat(256)).is_err());
}

#[test]
fn limit_takes_integers_only() {
    assert_eq!(PageLimit::default().number(), 50);
    for good in ["1", "50", "100"] {
        assert_eq!(PageLimit::parse(good).unwrap().to_string(), good);
    }
    for bad in ["", "0", "101", "-1", "+1", "01", "1.0", "1e1", " 1", "1 ", "abc", "99999999999999999999", "١"] {
        assert!(PageLimit::parse(bad).is_err(), "{bad:?}");
    }
    assert_eq!(serde_json::from_str::<PageLimit>("7").unwrap().number(), 7);
    assert!(serde_json::from_str::<PageLimit>("0").is_err());
}

#[test]
fn every_audited_action_can_be_asked_for() {
    for action in crate::audit::EventKind::ACTIONS {
        assert_eq!(AuditActionFilter::parse(action).unwrap().as_str(), *action);
    }
    assert_eq!(AuditActionFilter::parse("app.invoice.written").unwrap().as_str(), "app.invoice.written");
    for bad in ["user.created ", "app.", "app.A", "apps.x"] {
        assert!(AuditActionFilter::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn quoted_and_bare_idempotency_keys_are_one_key() {
    assert_eq!(IdempotencyKey::parse("\"k-1\""), IdempotencyKey::parse("k-1"));
    for bad in ["", "\"", "\"\"", "\"a", "a\"", "a b", "a\\b", "é", "a\u{7f}"] {
        assert!(IdempotencyKey::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn nothing_personal_or_secret_is_printed_by_debug() {
    let shown = format!(
        "{:?} {:?} {:?} {:?} {:?}",
        Email::parse("ann@example.org"),
        HumanName::parse("Ann"),
        Password::parse("hunter2"),
        NewPassword::parse("hunter2hunter2"),
        RefreshToken::parse(&format!("btr_{}", "q".repeat(43)))
    );
    assert!(!["ann", "Ann", "hunter", "qq", "example"].iter().any(|part| shown.contains(part)), "{shown}");
}

#[test]
fn fault_travels_through_text_and_foreign_text_does_not() {
    let fault = Email::parse("x").unwrap_err();
    let (code, message) = rule_of(&fault.to_string());
    assert_eq!((code.as_ref(), message.as_ref()), (fault.code, fault.message));
    for foreign in ["", ": ", "invalid value: s3cret", "a.b", ".: x", "Secret.x: y", "s3cret.x: y"] {
        assert_eq!(rule_of(foreign).0, "value.invalid", "{foreign:?}");
    }
}

/// Texts that break programs: each is refused, or comes back as the same bytes after the stated normalisation.
#[test]
fn naughty_strings_are_refused_or_come_back_whole() {
    let naughty = [
        "undefined",
        "NULL",
        "None",
        "true",
        "\\",
        "0",
        "1/0",
        "-1",
        "1e309",
        "NaN",
        "Infinity",
        "0x0",
        "1,000.00",
        "１２３",
        "<script>alert(0)</script>",
        "' OR 1=1 --",
        "${jndi:ldap://x}",
        "{{7*7}}",
        "../../../../etc/passwd",
        "%00",
        "%2527",
        "$(touch /tmp/x)",
        "`id`",
        "a;b|c&d",
        "Ω≈ç√∫˜µ≤≥÷",
        "田中さんにあげて下さい",
        "表ポあA鷗ŒéＢ逍Üßªąñ丂㐀𠀀",
        "ﷺ",
        "Ⱥ",
        "ß",
        "İ",
        "❤️ 💔",
        "👨‍👩‍👧‍👦",
        "🇩🇪",
        "✋🏿",
        "الكل في المجمو عة",
        "בְּרֵאשִׁית",
        "\u{feff}x",
        "\u{200b}",
        "\u{202e}txt",
        "Z̮̞̠͙͔ͅḀ̗̞͈̻̗Ḷ͙͎̯̹̞͓G̻O̭̗̮",
        "˙ɐnbᴉlɐ",
        "\u{1d4d7}\u{1d4ee}",
        "test\u{ad}test",
        "\r\nSet-Cookie: x",
        "\u{7f}",
        "\u{85}",
        "\u{2028}",
        "\u{fffe}",
        "\u{10ffff}",
        "Scunthorpe General Hospital",
        "Jimmy O'Neill-Smith, 3rd",
        "CON",
        "aux.txt",
        "=cmd|'/C calc'!A0",
    ];
    use unicode_normalization::UnicodeNormalization;
    for text in naughty {
        let composed: String = text.nfc().collect();
        if let Ok(name) = HumanName::parse(text) {
            assert_eq!(name.as_str(), composed.trim(), "{text:?}");
        }
        if let Ok(password) = Password::parse(text) {
            assert_eq!(password.expose(), composed, "{text:?}");
        }
        for same in [Email::parse(text).map(|e| e.to_string()), TenantSlug::parse(text).map(|s| s.to_string())] {
            assert!(same.is_err() || same.as_deref() == Ok(text), "{text:?}");
        }
    }
    assert!(HumanName::parse("Scunthorpe General Hospital").is_ok());
    assert!(HumanName::parse("❤️ 💔").is_ok() && HumanName::parse("👨‍👩‍👧‍👦").is_ok());
}
