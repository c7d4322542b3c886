//! Looking into a token from outside, and spoiling it: no key is needed for either.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// The header of a compact JWS, unverified.
///
/// # Panics
/// When it is not one.
pub fn header(token: &str) -> Value {
    part(token, 0)
}

/// The claims of a compact JWS, unverified.
///
/// # Panics
/// When it is not one.
pub fn claims(token: &str) -> Value {
    part(token, 1)
}

fn part(token: &str, index: usize) -> Value {
    let text = token.split('.').nth(index).expect("three parts");
    let bytes = URL_SAFE_NO_PAD.decode(text).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// Spoilt forms of a valid access token, each with a name; a server must refuse every one of them.
pub fn tampered(token: &str) -> Vec<(&'static str, String)> {
    let parts: Vec<&str> = token.split('.').collect();
    let [head, body, signature] = parts[..] else { panic!("three parts") };
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let headed = |change: &dyn Fn(&mut Value)| {
        let mut value = header(token);
        change(&mut value);
        format!("{}.{body}.{signature}", encode(&value))
    };
    let claimed = |change: &dyn Fn(&mut Value)| {
        let mut value = claims(token);
        change(&mut value);
        format!("{head}.{}.{signature}", encode(&value))
    };
    let flip = |text: &str, at: usize| {
        let mut bytes = text.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).expect("ASCII")
    };
    let none = |name: &str| {
        let mut value = header(token);
        value["alg"] = name.into();
        format!("{}.{body}.", encode(&value))
    };
    vec![
        ("alg none, no signature", none("none")),
        ("alg None, no signature", none("None")),
        ("alg NONE, no signature", none("NONE")),
        ("alg nOnE, no signature", none("nOnE")),
        ("empty alg", none("")),
        ("alg none, old signature", headed(&|h| h["alg"] = "none".into())),
        ("alg HS256", headed(&|h| h["alg"] = "HS256".into())),
        ("alg RS256", headed(&|h| h["alg"] = "RS256".into())),
        ("alg ES256", headed(&|h| h["alg"] = "ES256".into())),
        ("alg as a list", headed(&|h| h["alg"] = serde_json::json!(["EdDSA"]))),
        ("another kid", headed(&|h| h["kid"] = "another".into())),
        ("kid as a path", headed(&|h| h["kid"] = "../../../../dev/null".into())),
        ("kid as SQL", headed(&|h| h["kid"] = "' UNION SELECT 'x' --".into())),
        ("typ JWT", headed(&|h| h["typ"] = "JWT".into())),
        ("crit", headed(&|h| h["crit"] = serde_json::json!(["exp"]))),
        ("jku", headed(&|h| h["jku"] = "http://127.0.0.1/keys".into())),
        ("x5u", headed(&|h| h["x5u"] = "http://127.0.0.1/keys".into())),
        ("embedded jwk", headed(&|h| h["jwk"] = serde_json::json!({"kty":"OKP","crv":"Ed25519","x":"AAAA"}))),
        ("b64 false", headed(&|h| h["b64"] = false.into())),
        ("another subject", claimed(&|c| c["sub"] = "usr_00000000000000000000000000000000".into())),
        ("another tenant", claimed(&|c| c["tid"] = "ten_00000000000000000000000000000000".into())),
        ("another role", claimed(&|c| c["role"] = "admin".into())),
        ("later expiry", claimed(&|c| c["exp"] = 9_999_999_999_i64.into())),
        ("expiry as text", claimed(&|c| c["exp"] = "9999999999".into())),
        ("no claims", format!("{head}.{}.{signature}", encode(&serde_json::json!({})))),
        ("first signature byte", format!("{head}.{body}.{}", flip(signature, 0))),
        ("middle signature byte", format!("{head}.{body}.{}", flip(signature, signature.len() / 2))),
        ("middle body byte", format!("{head}.{}.{signature}", flip(body, body.len() / 2))),
        ("zero signature", format!("{head}.{body}.{}", "A".repeat(signature.len()))),
        ("empty signature", format!("{head}.{body}.")),
        ("no signature part", format!("{head}.{body}")),
        ("four parts", format!("{token}.{signature}")),
        ("five parts, as if encrypted", format!("{head}.{body}.{body}.{body}.{signature}")),
        ("padded signature", format!("{token}==")),
        ("half a signature", format!("{head}.{body}.{}", &signature[..signature.len() / 2])),
        ("longer signature", format!("{token}AAAA")),
        ("empty header", format!(".{body}.{signature}")),
        ("dots only", "..".to_owned()),
        ("inner space", format!("{head}. {body}.{signature}")),
        ("plus instead of minus", format!("{head}.{body}.+{}", &signature[1..])),
        ("parts swapped", format!("{body}.{head}.{signature}")),
        ("a word", "token".to_owned()),
        ("JSON", "{\"alg\":\"none\"}".to_owned()),
        ("very long", format!("{head}.{}.{signature}", "A".repeat(20_000))),
    ]
}
