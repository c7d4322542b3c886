use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;

use super::*;
use crate::error::{Code, Refusal};
use crate::id::UserId;
use crate::input::{Email, HumanName};
use crate::principal::Role;

const LIMITS: Limits = Limits { depth: 32, nodes: 10_000, string: 65_536 };

fn kind(text: impl AsRef<[u8]>) -> Option<JsonFaultKind> {
    scan(text.as_ref(), &LIMITS).err().map(|fault| fault.kind)
}

#[test]
fn everything_of_rfc_8259_is_accepted() {
    for good in [
        "{}",
        "[]",
        "null",
        "true",
        "false",
        "\"\"",
        "0",
        "-0",
        "-0.0",
        "1e5",
        "1E+5",
        "1e-5",
        "-1.25e10",
        " \t\n\r1 \t\n\r",
        "[1 , 2\n]",
        "{ \"a\" : [ { } , [ ] ] }",
        r#""\" \\ \/ \b \f \n \r \t \u00e9 \ud83d\ude00 \u0000""#,
        "\"é日👩\u{7f}\u{2028}\"",
        r#"{"a":1,"A":2,"":3," ":4}"#,
        "123456789012345678901234567890",
        "1e-999",
        "0.1234567890123456789012345678901234567890",
        "1.7976931348623157e308",
        "[[],{}]",
        r#"{"a":{"a":{"a":1}},"b":{"a":1}}"#,
        "\"\u{fffe}\u{10ffff}\"",
    ] {
        assert_eq!(scan(good.as_bytes(), &LIMITS), Ok(()), "{good}");
        assert!(parse::<Value>(good.as_bytes(), &LIMITS).is_ok(), "{good}");
    }
}

#[test]
fn each_fault_has_its_kind_and_place() {
    use JsonFaultKind::*;
    for (bad, kind, offset) in [
        ("", Empty, 0),
        (" \n", Empty, 2),
        ("\u{feff}{}", ByteOrderMark, 0),
        ("NaN", NotAValue, 0),
        ("[Infinity]", NotAValue, 1),
        ("-Infinity", BadNumber, 1),
        ("undefined", NotAValue, 0),
        ("tru", NotAValue, 0),
        ("True", NotAValue, 0),
        ("'a'", NotAValue, 0),
        ("\0", NotAValue, 0),
        ("{}\0", Trailing, 2),
        ("[\u{a0}1]", NotAValue, 1),
        ("// x\n1", NotAValue, 0),
        ("1 /* x */", Trailing, 2),
        ("[1,]", NotAValue, 3),
        ("[,1]", NotAValue, 1),
        ("[1 2]", NoComma, 3),
        ("[1}", NoComma, 2),
        ("{\"a\":1]", NoComma, 6),
        ("{a:1}", NotAName, 1),
        ("{\"a\":1,}", NotAName, 7),
        ("{,}", NotAName, 1),
        ("{1:1}", NotAName, 1),
        ("{\"a\" 1}", NoColon, 5),
        ("{\"a\":}", NotAValue, 5),
        ("{\"a\":1 \"b\":2}", NoComma, 7),
        ("{", Unclosed, 1),
        ("[", Unclosed, 1),
        ("[1,", Unclosed, 3),
        ("{\"a\"", Unclosed, 4),
        ("{\"a\":", Unclosed, 5),
        ("\"a", Unclosed, 2),
        ("\"\\", Unclosed, 1),
        ("1 2", Trailing, 2),
        ("{}{}", Trailing, 2),
        ("nulll", Trailing, 4),
        ("]", NotAValue, 0),
        ("01", BadNumber, 1),
        ("-01", BadNumber, 2),
        ("+1", NotAValue, 0),
        (".5", NotAValue, 0),
        ("1.", BadNumber, 2),
        ("1.e5", BadNumber, 2),
        ("1e", BadNumber, 2),
        ("1e+", BadNumber, 3),
        ("-", BadNumber, 1),
        ("0x1", Trailing, 1),
        ("1e999", NumberTooLarge, 0),
        ("[-1e999]", NumberTooLarge, 1),
        ("\"\\x\"", BadEscape, 1),
        ("\"\\u12\"", BadEscape, 1),
        ("\"\\u+123\"", BadEscape, 1),
        ("\"\\u12é4\"", BadEscape, 1),
        ("\"\\ud800\"", LoneSurrogate, 1),
        ("\"\\udc00\"", LoneSurrogate, 1),
        ("\"\\ud800\\u0041\"", LoneSurrogate, 1),
        ("\"\\ud800\\ud800\"", LoneSurrogate, 1),
        ("\"a\nb\"", ControlCharacter, 2),
        ("\"\0\"", ControlCharacter, 1),
        ("{\"a\":1,\"a\":2}", DuplicateMember, 7),
        ("{\"a\":1,\"\\u0061\":2}", DuplicateMember, 7),
        ("[{\"b\":{\"é\":1,\"x\":2,\"\\u00e9\":2}}]", DuplicateMember, 20),
        ("{\"\":1,\"\":1}", DuplicateMember, 6),
        ("{\"a\":{\"a\":1},\"a\":2}", DuplicateMember, 13),
    ] {
        assert_eq!(scan(bad.as_bytes(), &LIMITS), Err(JsonFault { kind, offset }), "{bad}");
    }
    assert_eq!(scan(b"\"\xff\"", &LIMITS), Err(JsonFault { kind: NotUtf8, offset: 1 }));
    // A surrogate and an overlong slash, written as UTF-8 would be.
    assert_eq!((kind(b"\"\xed\xa0\x80\""), kind(b"\"\xc0\xaf\"")), (Some(NotUtf8), Some(NotUtf8)));
    assert_eq!(kind("9".repeat(400)), Some(NumberTooLarge));
}

#[test]
fn limits_are_inclusive() {
    let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
    assert_eq!((kind(deep(32)), kind(deep(33))), (None, Some(JsonFaultKind::TooDeep)));
    assert_eq!(kind("[".repeat(1_000_000)), Some(JsonFaultKind::TooDeep));
    assert_eq!(kind(r#"{"a":"#.repeat(100_000)), Some(JsonFaultKind::TooDeep));
    let many = |n: usize| format!("[{}]", vec!["0"; n - 1].join(","));
    assert_eq!((kind(many(10_000)), kind(many(10_001))), (None, Some(JsonFaultKind::TooManyValues)));
    // Characters, not bytes, and after unescaping.
    let limits = Limits { string: 3, ..LIMITS };
    for (text, accepted) in
        [("\"日日日\"", true), ("\"abcd\"", false), (r#""\u65e5\ud83d\ude00a""#, true), (r#"{"\n\n\n\n":1}"#, false)]
    {
        assert_eq!(scan(text.as_bytes(), &limits).is_ok(), accepted, "{text}");
    }
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct NewUser {
    name: HumanName,
    email: Email,
    role: Role,
    #[serde(default)]
    age: Option<u8>,
    #[serde(default)]
    tags: Vec<Email>,
    #[serde(default)]
    home: Option<Home>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Home {
    city: HumanName,
    since: u16,
}

fn faults(text: &str) -> Vec<(String, String)> {
    let refusal = parse::<NewUser>(text.as_bytes(), &LIMITS).unwrap_err();
    assert_eq!(refusal.code, Code::InputInvalid, "{refusal:?}");
    refusal.errors.into_iter().map(|error| (error.pointer, error.code.into_owned())).collect()
}

fn named(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(pointer, code)| ((*pointer).to_owned(), (*code).to_owned())).collect()
}

#[test]
fn a_good_body_becomes_its_type() {
    let user: NewUser = parse(
        br#"{"name":"Ann","email":"ann@x.org","role":"admin","age":5.0,"tags":["a@b.cd"],"home":{"city":"Ulm","since":1999}}"#,
        &LIMITS,
    )
    .unwrap();
    assert_eq!((user.age, user.role, user.tags.len()), (Some(5), Role::Admin, 1));
    assert_eq!(user.home.unwrap().since, 1999);
}

#[test]
fn every_fault_is_named_at_its_place_and_in_order() {
    let body = r#"{"email":"x","nmae":1,"name":"\u0000","role":"king","age":300,"tags":["a@b.cd",7,"c"],"home":{"city":"","x":0,"since":"1"}}"#;
    assert_eq!(
        faults(body),
        named(&[
            ("/email", "email.malformed"),
            ("/nmae", "member.unknown"),
            ("/name", "name.unprintable"),
            ("/role", "value.not_allowed"),
            ("/age", "number.out_of_range"),
            ("/tags/1", "type.mismatch"),
            ("/tags/2", "email.malformed"),
            ("/home/city", "string.too_short"),
        ])
    );
}

#[test]
fn a_missing_member_has_the_pointer_it_would_have() {
    assert_eq!(faults("{}"), named(&[("/name", "member.missing")]));
    assert_eq!(faults(r#"{"name":"A","role":"owner"}"#), named(&[("/email", "member.missing")]));
    let nested = r#"{"name":"A","email":"a@b.cd","role":"owner","home":{"city":"Ulm"}}"#;
    assert_eq!(faults(nested), named(&[("/home/since", "member.missing")]));
    // What is left out because it is wrong is not called missing, and what follows is still looked at.
    let both = r#"{"home":{"city":1,"since":2},"name":1,"email":"a@b.cd","role":"owner"}"#;
    assert_eq!(faults(both), named(&[("/home/city", "type.mismatch"), ("/name", "type.mismatch")]));
}

#[test]
fn types_are_not_stretched() {
    assert_eq!(faults(r#"["Ann","a@b.cd","owner"]"#), named(&[("", "type.mismatch")]));
    for (member, wrong) in [
        ("age", "\"5\""),
        ("age", "5.5"),
        ("age", "true"),
        ("age", "[]"),
        ("age", "-1"),
        ("age", "1e30"),
        ("age", "256"),
        ("name", "null"),
        ("name", "[\"a\"]"),
        ("role", "{\"owner\":null}"),
        ("role", "1"),
        ("tags", "{}"),
        ("home", "[\"Ulm\",1]"),
        ("home", "\"\""),
    ] {
        let refusal = parse::<NewUser>(format!("{{\"{member}\":{wrong}}}").as_bytes(), &LIMITS).unwrap_err();
        assert_eq!(refusal.errors[0].pointer, format!("/{member}"), "{wrong}");
    }
}

#[test]
fn ids_name_their_rule() {
    let refusal = parse::<UserId>(b"\"usr_1\"", &LIMITS).unwrap_err();
    assert_eq!(refusal.errors[0].code, "id.malformed");
}

#[test]
fn tuples_maps_and_enumerations_as_keys_work() {
    assert_eq!(parse::<(u8, bool)>(b"[1,true]", &LIMITS).unwrap(), (1, true));
    assert!(parse::<(u8, bool)>(b"[1,true,2]", &LIMITS).is_err());
    assert!(parse::<(u8, bool)>(b"[1]", &LIMITS).is_err());
    let map: BTreeMap<Role, i64> = parse(br#"{"owner":-1,"admin":2}"#, &LIMITS).unwrap();
    assert_eq!(map.get(&Role::Owner), Some(&-1));
    assert_eq!(parse::<BTreeMap<Role, i64>>(br#"{"king":1}"#, &LIMITS).unwrap_err().errors[0].pointer, "/king");
    assert_eq!(parse::<Option<()>>(b"null", &LIMITS), Ok(None));
}

#[test]
fn an_answer_never_repeats_the_value() {
    let secret = "s3cr3t-value-\u{202e}<b>";
    for body in [
        format!(r#"{{"name":"{secret}","email":"{secret}","role":"{secret}","age":"{secret}"}}"#),
        format!(r#"{{"{}":1}}"#, secret.repeat(20)),
        format!(r#"{{"tags":{{"{secret}":1}}}}"#),
    ] {
        let refusal = parse::<NewUser>(body.as_bytes(), &LIMITS).unwrap_err();
        for error in &refusal.errors {
            assert!(!error.message.contains("s3cr3t"), "{error:?}");
            assert!(error.pointer.len() < 64 && !error.pointer.contains(['<', '\u{202e}']), "{error:?}");
        }
    }
}

#[test]
fn many_faults_are_cut_off() {
    let many: String = (0..5000).map(|n| format!(r#""x{n}":{n},"#)).collect();
    let refusal = parse::<NewUser>(format!("{{{many}\"y\":1}}").as_bytes(), &LIMITS).unwrap_err();
    assert_eq!(refusal.errors.len(), MAX_FAULTS);
}

#[test]
fn bad_json_is_400_and_a_bad_shape_is_422() {
    assert_eq!(parse::<Value>(b"{", &LIMITS).unwrap_err().code, Code::JsonInvalid);
    let refusal: Refusal = JsonFault { kind: JsonFaultKind::Trailing, offset: 7 }.into();
    assert_eq!((refusal.code.status(), refusal.errors[0].code.as_ref()), (400, "json.trailing"));
}

/// Any JSON value, printed with random white space and escapes.
fn json_text() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_filter_map("finite", |n| serde_json::to_string(&n).ok())
    ];
    let string = any::<String>().prop_map(|text| Value::String(text).to_string());
    let leaf = prop_oneof![number, string, Just("true".into()), Just("false".into()), Just("null".into())];
    let space = "[ \t\r\n]{0,2}";
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..5), space)
                .prop_map(|(items, s)| format!("[{s}{}{s}]", items.join(&format!("{s},{s}")))),
            (prop::collection::btree_map("[a-c\u{e9}\\\\\"]{0,3}", inner, 0..5), space).prop_map(|(members, s)| {
                let members: Vec<_> =
                    members.iter().map(|(k, v)| format!("{}{s}:{s}{v}", Value::String(k.clone()))).collect();
                format!("{{{s}{}{s}}}", members.join(","))
            }),
        ]
    })
}

/// Fragments that meet at random: near-JSON.
fn fragments() -> impl Strategy<Value = String> {
    let parts = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\"a\"",
        "\"b\"",
        "\"\\u0061\"",
        "\\",
        "\\u",
        "0",
        "1",
        "-",
        ".",
        "e",
        "E9",
        "true",
        "null",
        " ",
        "\n",
        "é",
        "\0",
        "NaN",
        "1e999",
        "\\ud800",
        "\\udc00",
        "//",
        "'",
    ]);
    prop::collection::vec(parts, 0..14).prop_map(|parts| parts.concat())
}

/// What we refuse and serde_json, reading into a `Value`, does not.
fn stated_refusal(fault: JsonFault) -> bool {
    matches!(fault.kind, JsonFaultKind::DuplicateMember)
}

fn agrees(bytes: &[u8]) -> Result<(), TestCaseError> {
    let theirs = serde_json::from_slice::<Value>(bytes);
    match (scan(bytes, &LIMITS), theirs) {
        (Ok(()), Ok(theirs)) => {
            let ours = parse::<Value>(bytes, &LIMITS);
            // Floats may differ in the last bit: ours are rounded correctly.
            prop_assert!(ours.is_ok_and(|ours| close(&ours, &theirs)), "{:?}", bytes);
        }
        (Err(_), Err(_)) => {}
        (Err(fault), Ok(_)) => prop_assert!(stated_refusal(fault), "{fault:?} {:?}", bytes),
        (Ok(()), Err(error)) => prop_assert!(false, "{error} {:?}", bytes),
    }
    Ok(())
}

fn close(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() && b.is_f64() => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            a == b || (a - b).abs() <= a.abs() * 1e-15
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| close(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && close(a, b))
        }
        _ => one == other,
    }
}

proptest! {
    #[test]
    fn json_is_accepted_and_read_as_serde_json_reads_it(text in json_text()) {
        prop_assert_eq!(scan(text.as_bytes(), &LIMITS), Ok(()), "{}", text);
        agrees(text.as_bytes())?;
    }

    #[test]
    fn near_json_is_judged_as_serde_json_judges_it(text in fragments()) {
        agrees(text.as_bytes())?;
    }

    #[test]
    fn broken_json_is_judged_as_serde_json_judges_it(text in json_text(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        agrees(&bytes)?;
    }

    #[test]
    fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = parse::<NewUser>(&bytes, &LIMITS);
        agrees(&bytes)?;
    }

    #[test]
    fn a_repeated_name_is_always_found(names in prop::collection::vec("[a-z]{1,3}", 1..40)) {
        let members: Vec<_> = names.iter().map(|name| format!("\"{name}\":[{{}}]")).collect();
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        let expected = (unique.len() < names.len()).then_some(JsonFaultKind::DuplicateMember);
        prop_assert_eq!(kind(format!("{{{}}}", members.join(","))), expected);
    }
}

/// The worst shapes for each step, twice as long each time: work is counted in what is looked at, so this shows that
/// none of them is refused late or read forever. That time is linear is for the benchmark to say.
#[test]
fn the_worst_shapes_end() {
    let limits = Limits { nodes: usize::MAX, string: usize::MAX, depth: 32 };
    for size in [1_000, 100_000] {
        for text in [
            format!("\"{}\"", "\\u0041".repeat(size)),
            format!("\"{}", "\\\\".repeat(size)),
            "9".repeat(size),
            format!("0.{}1e-5", "0".repeat(size)),
            format!("1e{}", "9".repeat(size)),
            " ".repeat(size),
            format!("{{{}\"z\":1}}", (0..size / 10).map(|n| format!("\"same-start-{n}\":1,")).collect::<String>()),
            format!("[{}0]", "[],{},".repeat(size)),
        ] {
            let _ = scan(text.as_bytes(), &limits);
            let _ = parse::<NewUser>(text.as_bytes(), &limits);
        }
    }
}
