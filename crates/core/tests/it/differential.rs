//! Second opinions: what we accept, `jsonwebtoken` and PyJWT accept too, and tokens travel both ways.
//!
//! Both read the system's clock, so these tests begin with it as well. Others are given five minutes of leeway: however
//! slow the machine, they judge the same moment. Exact times are the business of the attack table.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use bartizan_core::time::Millis;
use bartizan_core::token::{Algorithm, KeySet, KeyState};
use base64::Engine as _;
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::Value;

use crate::forge::{AUDIENCE, Forge, ISSUER, Members, Smith, not_run, say};

fn now() -> Millis {
    Millis(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap())
}

/// What is done to a good token. The first kinds keep the signature honest, so that some results are acceptable.
#[derive(Clone, Debug)]
enum Mutation {
    Header(&'static str, &'static str),
    Claim(&'static str, &'static str),
    Shift(&'static str, i64),
    Without(&'static str),
    Reverse,
    Space,
    Flip(usize, u8),
    Insert(usize, char),
    Delete(usize),
    Exchange(usize, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let header = vec![
        ("typ", "\"application/at+jwt\""),
        ("typ", "\"JWT\""),
        ("alg", "\"Ed25519\""),
        ("alg", "\"none\""),
        ("alg", "\"HS256\""),
        ("alg", "\"ES256\""),
        ("crit", "[\"exp\"]"),
        ("b64", "false"),
        ("kid", "\"x\""),
        ("jwk", "{}"),
        ("cty", "\"JWT\""),
    ];
    let claim = vec![
        ("aud", "[\"bartizan\"]"),
        ("aud", "\"other\""),
        ("iss", "\"other\""),
        ("exp", "\"1\""),
        ("exp", "1e18"),
        ("nbf", "1"),
        ("nbf", "\"1\""),
        ("nbf", "1.5"),
        ("ue", "0"),
        ("te", "12"),
        ("role", "\"owner\""),
        ("tier", "\"free\""),
        ("role", "\"m\\u0065mber\""),
        ("sub", "1"),
        ("jti", "null"),
        ("extra", "[{}]"),
        ("iat", "0"),
        ("iat", "-1"),
        ("tier", "\"pro\\u0000\""),
    ];
    prop_oneof![
        1 => proptest::sample::select(header).prop_map(|(name, value)| Mutation::Header(name, value)),
        3 => proptest::sample::select(claim).prop_map(|(name, value)| Mutation::Claim(name, value)),
        3 => (proptest::sample::select(vec!["exp", "iat", "nbf"]), -400i64..700).prop_map(|(n, s)| Mutation::Shift(n, s)),
        1 => proptest::sample::select(vec!["exp", "iat", "aud", "iss", "sub", "typ", "kid", "alg"])
            .prop_map(Mutation::Without),
        2 => Just(Mutation::Reverse),
        2 => Just(Mutation::Space),
        1 => (any::<usize>(), 1u8..128).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        1 => (any::<usize>(), proptest::char::any()).prop_map(|(at, c)| Mutation::Insert(at, c)),
        1 => any::<usize>().prop_map(Mutation::Delete),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Mutation::Exchange(a, b)),
    ]
}

fn apply(forge: &Forge, smith: &Smith, mutations: &[Mutation]) -> String {
    let (mut header, mut payload, mut space) = (smith.header(), forge.payload(), false);
    for mutation in mutations {
        match mutation {
            Mutation::Header(name, value) => header = header.with(name, value),
            Mutation::Claim(name, value) => payload = payload.with(name, value),
            Mutation::Shift(name, by) => payload = payload.with(name, &(forge.now.seconds() + by).to_string()),
            Mutation::Without(name) => (header, payload) = (header.without(name), payload.without(name)),
            Mutation::Reverse => payload = Members(payload.0.iter().rev().cloned().collect()),
            Mutation::Space => space = true,
            _ => {}
        }
    }
    let text = |members: &Members| if space { members.json().replace(',', " ,\n\t") } else { members.json() };
    let mut token: Vec<char> = smith.token(&text(&header), &text(&payload)).chars().collect();
    for mutation in mutations {
        let len = token.len();
        match mutation {
            Mutation::Flip(at, bits) => {
                let c = &mut token[at % len];
                *c = char::from_u32(*c as u32 ^ u32::from(*bits)).unwrap_or('A');
            }
            Mutation::Insert(at, c) => token.insert(at % len, *c),
            Mutation::Delete(at) => drop(token.remove(at % len)),
            Mutation::Exchange(a, b) => token.swap(a % len, b % len),
            _ => {}
        }
    }
    token.into_iter().collect()
}

/// `jsonwebtoken` with every check it offers switched on.
fn jsonwebtoken_accepts(smith: &Smith, token: &str) -> Result<Value, jsonwebtoken::errors::Error> {
    let jwk = smith.key.verification_key(KeyState::Active).unwrap().public_jwk().unwrap();
    let (algorithm, key) = match smith.key.algorithm() {
        Algorithm::Ed25519 => {
            (jsonwebtoken::Algorithm::EdDSA, DecodingKey::from_ed_components(jwk.x.as_deref().unwrap()).unwrap())
        }
        _ => {
            let (x, y) = (jwk.x.unwrap(), jwk.y.unwrap());
            (jsonwebtoken::Algorithm::ES256, DecodingKey::from_ec_components(&x, &y).unwrap())
        }
    };
    let mut validation = Validation::new(algorithm);
    validation.leeway = 300;
    validation.validate_nbf = true;
    validation.set_audience(&[AUDIENCE]);
    validation.set_issuer(&[ISSUER]);
    validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
    jsonwebtoken::decode::<Value>(token, &key, &validation).map(|data| data.claims)
}

/// `Ed25519` as an algorithm's name (RFC 9864) is newer than both libraries; we read it, they cannot.
fn is_too_new_for_others(mutations: &[Mutation]) -> bool {
    let named = mutations.iter().rev().find_map(|m| match m {
        Mutation::Header("alg", name) => Some(*name),
        _ => None,
    });
    named == Some("\"Ed25519\"")
}

#[test]
fn jsonwebtoken_accepts_every_mutated_token_that_we_accept() {
    let forge = Forge::new(now());
    let mut runner = TestRunner::deterministic();
    let (mut accepted, mut refused) = (0u32, 0u32);
    for round in 0..3000 {
        let smith = if round % 4 == 0 { &forge.curve } else { &forge.active };
        let mutations = proptest::collection::vec(mutation(), 0..4).new_tree(&mut runner).unwrap().current();
        if is_too_new_for_others(&mutations) {
            continue;
        }
        let token = apply(&forge, smith, &mutations);
        match forge.verifier.verify(&token, forge.now) {
            Ok(_) => {
                accepted += 1;
                let other = jsonwebtoken_accepts(smith, &token);
                assert!(other.is_ok(), "{mutations:?}: {other:?}\n{token}");
            }
            Err(_) => refused += 1,
        }
    }
    assert!(accepted > 300 && refused > 300, "the mutations prove nothing: {accepted} accepted, {refused} refused");
    say(&format!("differential jsonwebtoken: {accepted} accepted by both, {refused} refused here"));
}

#[test]
fn tokens_travel_between_jsonwebtoken_and_us() {
    let forge = Forge::new(now());
    for smith in [&forge.active, &forge.curve] {
        let ours = smith.key.sign(&forge.claims()).unwrap();
        let claims = jsonwebtoken_accepts(smith, &ours).unwrap();
        assert_eq!(claims, serde_json::from_str::<Value>(&forge.payload().json()).unwrap());

        let pkcs8 = smith.pkcs8.expose();
        let (algorithm, key) = match smith.key.algorithm() {
            Algorithm::Ed25519 => (jsonwebtoken::Algorithm::EdDSA, EncodingKey::from_ed_der(pkcs8)),
            _ => (jsonwebtoken::Algorithm::ES256, EncodingKey::from_ec_der(pkcs8)),
        };
        let mut header = Header::new(algorithm);
        header.typ = Some("at+jwt".into());
        header.kid = Some(smith.key.kid().into());
        let theirs = jsonwebtoken::encode(&header, &claims, &key).unwrap();
        assert_eq!(forge.verifier.verify(&theirs, forge.now), Ok(forge.claims()));
    }
}

#[test]
fn pyjwt_accepts_every_mutated_token_that_we_accept_and_its_token_verifies_here() {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    let there = Command::new(&python).args(["-c", "import jwt, cryptography"]).stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        return not_run("PyJWT as second opinion: needs python3 with PyJWT and cryptography");
    }
    let forge = Forge::new(now());
    let mut runner = TestRunner::deterministic();
    let mut batch = Vec::new();
    for round in 0..3000 {
        let smith = if round % 4 == 0 { &forge.curve } else { &forge.active };
        let mutations = proptest::collection::vec(mutation(), 0..4).new_tree(&mut runner).unwrap().current();
        if !is_too_new_for_others(&mutations) {
            batch.push((apply(&forge, smith, &mutations), mutations));
        }
    }
    let answers = ask_pyjwt(&python, &forge, batch.iter().map(|(token, _)| token.as_str()));
    let (theirs, answers) = answers.split_first().unwrap();
    assert_eq!(forge.verifier.verify(theirs, forge.now), Ok(forge.claims()), "{theirs}");
    assert_eq!(answers.len(), batch.len());
    let mut accepted = 0;
    for ((token, mutations), answer) in batch.iter().zip(answers) {
        if forge.verifier.verify(token, forge.now).is_ok() {
            accepted += 1;
            assert_eq!(answer, "accept", "{mutations:?}\n{token}");
        }
    }
    assert!(accepted > 300, "the mutations prove nothing: {accepted} accepted");
    say(&format!("differential PyJWT: {accepted} accepted by both, {} refused here", batch.len() - accepted));
}

fn ask_pyjwt<'t>(python: &str, forge: &Forge, tokens: impl Iterator<Item = &'t str>) -> Vec<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/pyjwt_oracle.py");
    let mut oracle = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let keys = [&forge.active, &forge.curve].map(|smith| smith.key.verification_key(KeyState::Active).unwrap());
    let order = serde_json::json!({
        "issuer": ISSUER,
        "audience": AUDIENCE,
        "jwks": KeySet::new(keys).unwrap().public_jwks(),
        "pkcs8": base64::engine::general_purpose::STANDARD.encode(forge.active.pkcs8.expose()),
        "kid": forge.active.key.kid(),
        "claims": serde_json::from_str::<Value>(&forge.payload().json()).unwrap(),
    });
    let mut lines = format!("{order}\n");
    for token in tokens {
        lines.push_str(&serde_json::to_string(token).unwrap());
        lines.push('\n');
    }
    let mut stdin = oracle.stdin.take().unwrap();
    // On its own thread: the oracle answers while it reads, and a full pipe on each side would stop both.
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let answers = BufReader::new(oracle.stdout.take().unwrap()).lines().map(Result::unwrap).collect();
    writer.join().unwrap().unwrap();
    assert!(oracle.wait().unwrap().success());
    answers
}
