//! The table of attacks: what an attacker sends, and the one word it is refused with.
//!
//! Unless a row is about the signature, the signature is genuine: the attacker is given the key, so that each rule is
//! tested alone and not covered by the one before it.

use std::collections::HashSet;

use aws_lc_rs::hmac;
use bartizan_core::id::UserId;
use bartizan_core::time::Millis;
use bartizan_core::token::{Jws, MAX_TOKEN, Rejection};
use proptest::prelude::*;

use crate::forge::{Forge, Members, b64};

const NOW: Millis = Millis(1_790_000_000_400);

struct Attack {
    name: &'static str,
    token: String,
    expected: Rejection,
}

struct Table<'f> {
    forge: &'f Forge,
    attacks: Vec<Attack>,
}

impl Table<'_> {
    fn raw(&mut self, name: &'static str, expected: Rejection, token: impl Into<String>) {
        self.attacks.push(Attack { name, token: token.into(), expected });
    }

    fn header(&mut self, name: &'static str, expected: Rejection, header: &Members) {
        let token = self.forge.active.token(&header.json(), &self.forge.payload().json());
        self.raw(name, expected, token);
    }

    fn payload(&mut self, name: &'static str, expected: Rejection, payload: &str) {
        let token = self.forge.active.token(&self.forge.active.header().json(), payload);
        self.raw(name, expected, token);
    }

    fn claim(&mut self, name: &'static str, expected: Rejection, claim: &str, value: &str) {
        let payload = self.forge.payload().with(claim, value).json();
        self.payload(name, expected, &payload);
    }
}

fn form(t: &mut Table<'_>) {
    use Rejection::{Malformed, TooLarge};
    let forge = t.forge;
    let good = forge.active.key.sign(&forge.claims()).unwrap();
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!() };
    t.raw("empty text", Malformed, "");
    t.raw("only dots", Malformed, "..");
    t.raw("one dot", Malformed, format!("{header}.{payload}"));
    t.raw("three dots", Malformed, format!("{good}.{signature}"));
    t.raw("trailing dot", Malformed, format!("{good}."));
    t.raw("leading dot", Malformed, format!(".{good}"));
    t.raw("no header", Malformed, format!(".{payload}.{signature}"));
    t.raw("no payload under the old signature", Rejection::BadSignature, format!("{header}..{signature}"));
    t.raw("null signature (CVE-2020-28042)", Malformed, format!("{header}.{payload}."));
    t.raw("five parts as in JWE", Malformed, format!("{header}.{payload}.{signature}.{payload}.{signature}"));
    t.raw("padding", Malformed, format!("{good}=="));
    t.raw("leading space", Malformed, format!(" {good}"));
    t.raw("trailing line feed", Malformed, format!("{good}\n"));
    t.raw("NUL at the end", Malformed, format!("{good}\0"));
    t.raw("percent escape", Malformed, good.replace('.', "%2E"));
    t.raw("fullwidth dot", Malformed, good.replacen('.', "\u{ff0e}", 1));
    t.raw("classic base64 alphabet", Malformed, format!("{header}.{payload}.{}", "+/".repeat(43)));
    t.raw("scheme left in", Malformed, format!("Bearer {good}"));
    t.raw("JSON serialisation", Malformed, {
        format!(r#"{{"payload":"{payload}","protected":"{header}","signature":"{signature}"}}"#)
    });
    t.raw("stray bits after the signature", Malformed, {
        // 64 bytes leave two bits over: Q, R, S and T would all decode to the same bytes.
        let (rest, last) = good.split_at(good.len() - 1);
        let sibling = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let at = sibling.iter().position(|c| *c == last.as_bytes()[0]).unwrap();
        format!("{rest}{}", sibling[at + 1] as char)
    });
    t.raw("part of impossible length", Malformed, format!("{header}A.{payload}.{signature}").replace(header, "A"));
    t.raw("larger than the limit", TooLarge, "A".repeat(MAX_TOKEN + 1));
    t.raw("larger than the limit and well formed", TooLarge, {
        forge.active.token(&forge.active.header().json(), &" ".repeat(MAX_TOKEN))
    });
    t.raw("header is not JSON", Malformed, forge.active.token("alg=EdDSA", "{}"));
    t.raw("header is an array", Malformed, forge.active.token("[]", "{}"));
    t.raw("header is not UTF-8", Malformed, forge.active.seal(&b64(b"{\"alg\":\"\xff\"}"), "e30"));
    t.raw("header begins with a byte order mark", Malformed, {
        forge.active.token(&format!("\u{feff}{}", forge.active.header().json()), &forge.payload().json())
    });
    t.raw("second object after the header", Malformed, {
        forge.active.token(&format!("{0}{0}", forge.active.header().json()), &forge.payload().json())
    });
    t.raw("header nested ten thousand deep", TooLarge, forge.active.token(&"[".repeat(10_000), "{}"));
    t.raw("header nested four thousand deep", Malformed, forge.active.token(&"[".repeat(4_000), "{}"));
}

fn algorithm(t: &mut Table<'_>) {
    use Rejection::{Algorithm, Duplicate, Malformed};
    let good = t.forge.active.header();
    for (name, alg) in [
        ("alg none", "\"none\""),
        ("alg None", "\"None\""),
        ("alg NONE", "\"NONE\""),
        ("alg nOnE", "\"nOnE\""),
        ("alg none behind escapes", "\"n\\u006fne\""),
        ("alg empty", "\"\""),
        ("alg in lower case", "\"eddsa\""),
        ("alg with a space", "\"EdDSA \""),
        ("alg with a NUL", "\"EdDSA\\u0000\""),
        ("alg of another kind of key", "\"ES256\""),
        ("alg of RSA", "\"RS256\""),
        ("alg for MAC", "\"HS256\""),
        ("alg that is not offered", "\"ES512\""),
    ] {
        t.header(name, Algorithm, &good.with("alg", alg));
    }
    t.header("alg missing", Algorithm, &good.without("alg"));
    t.header("alg null", Malformed, &good.with("alg", "null"));
    t.header("alg a list", Malformed, &good.with("alg", "[\"EdDSA\"]"));
    t.header("alg twice, the good one last", Duplicate, &Members::new(&[("alg", "\"none\"")]).also_all(&good));
    t.header("alg twice, the good one first", Duplicate, &good.also("alg", "\"none\""));
    t.header("alg twice, once behind an escape", Duplicate, &good.also("\\u0061lg", "\"none\""));
    t.header("kid twice", Duplicate, &good.also("kid", "\"x\""));
    t.header("typ twice", Duplicate, &good.also("typ", "\"at+jwt\""));
}

fn unwanted_members(t: &mut Table<'_>) {
    use Rejection::{Critical, Header, KeyInToken};
    let good = t.forge.active.header();
    t.header("crit with b64 false (RFC 7797)", Critical, &good.also("b64", "false").also("crit", "[\"b64\"]"));
    t.header("crit with an unknown name", Critical, &good.also("crit", "[\"exp\"]"));
    t.header("crit empty", Critical, &good.also("crit", "[]"));
    t.header("crit null", Critical, &good.also("crit", "null"));
    t.header("b64 false without crit", Header, &good.also("b64", "false"));
    t.header("compressed payload", Header, &good.also("zip", "\"DEF\""));
    t.header("nested token", Header, &good.also("cty", "\"JWT\""));
    t.header("content encryption", Header, &good.also("enc", "\"A256GCM\""));
    t.header("password iterations (p2c)", Header, &good.also("p2c", "2147483647"));
    t.header("an unknown member", Header, &good.also("x", "1"));
    t.header("Alg beside alg", Header, &good.also("Alg", "\"none\""));
    let jwk = serde_json::to_string(&t.forge.stranger.jwk()).unwrap();
    t.header("embedded jwk (CVE-2018-0114)", KeyInToken, &good.also("jwk", &jwk));
    t.header("jku", KeyInToken, &good.also("jku", "\"https://evil.example/jwks.json\""));
    t.header("x5u", KeyInToken, &good.also("x5u", "\"https://evil.example/cert.pem\""));
    t.header("x5c", KeyInToken, &good.also("x5c", "[\"MIIB\"]"));
    t.header("x5t#S256", KeyInToken, &good.also("x5t#S256", "\"AA\""));
}

fn kid_and_typ(t: &mut Table<'_>) {
    use Rejection::{Malformed, UnknownKey, WrongType};
    let good = t.forge.active.header();
    for (name, kid) in [
        ("kid unknown", "\"nobody\""),
        ("kid empty", "\"\""),
        ("kid as a path", "\"../../../../dev/null\""),
        ("kid as SQL", "\"x' UNION SELECT 'key' --\""),
        ("kid as a command", "\"|| curl evil.example\""),
        ("kid as an address", "\"https://evil.example/key\""),
        ("kid with a NUL", "\"\\u0000\""),
    ] {
        t.header(name, UnknownKey, &good.with("kid", kid));
    }
    t.header("kid missing", UnknownKey, &good.without("kid"));
    t.header("kid very long", UnknownKey, &good.with("kid", &format!("\"{}\"", "k".repeat(3000))));
    t.header("kid a number", Malformed, &good.with("kid", "1"));
    t.header("kid an object", Malformed, &good.with("kid", "{\"$ne\":null}"));
    t.header("kid with half a surrogate pair", Malformed, &good.with("kid", "\"\\ud800\""));
    for (name, typ) in [
        ("an id token", "\"JWT\""),
        ("a refresh token", "\"rt+jwt\""),
        ("a logout token", "\"logout+jwt\""),
        ("a status list", "\"statuslist+jwt\""),
        ("a DPoP proof", "\"dpop+jwt\""),
        ("typ empty", "\"\""),
        ("typ in upper case", "\"AT+JWT\""),
        ("typ with a parameter", "\"at+jwt;x=1\""),
    ] {
        t.header(name, WrongType, &good.with("typ", typ));
    }
    t.header("typ missing", WrongType, &good.without("typ"));
    t.header("typ a list", Malformed, &good.with("typ", "[\"at+jwt\"]"));
}

fn signature(t: &mut Table<'_>) {
    use Rejection::{BadSignature, KeyCompromised, Malformed, UnknownKey};
    let forge = t.forge;
    let good = forge.active.key.sign(&forge.claims()).unwrap();
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!() };
    let admin = b64(forge.payload().with("role", "\"owner\"").json());
    t.raw("payload exchanged for a higher role", BadSignature, format!("{header}.{admin}.{signature}"));
    t.raw("another user", BadSignature, {
        let other = forge.payload().with("sub", &format!("\"{}\"", UserId::new(NOW, [9; 10])));
        format!("{header}.{}.{signature}", b64(other.json()))
    });
    t.raw("header rewritten with white space", BadSignature, {
        let spaced = forge.active.header().json().replace(':', ": ");
        format!("{}.{payload}.{signature}", b64(spaced))
    });
    t.raw("zero signature", BadSignature, format!("{header}.{payload}.{}", b64([0; 64])));
    t.raw("one byte too few", BadSignature, {
        let bytes = forge.active.signature(format!("{header}.{payload}").as_bytes());
        format!("{header}.{payload}.{}", b64(&bytes[..63]))
    });
    t.raw("one byte too many", BadSignature, {
        let bytes = forge.active.signature(format!("{header}.{payload}").as_bytes());
        format!("{header}.{payload}.{}", b64([&bytes[..], &[0]].concat()))
    });
    t.raw("S plus the group order (malleability)", BadSignature, {
        let mut bytes = forge.active.signature(format!("{header}.{payload}").as_bytes());
        add_group_order(&mut bytes[32..]);
        format!("{header}.{payload}.{}", b64(bytes))
    });
    t.raw("signature of one character", Malformed, format!("{header}.{payload}.A"));
    t.raw("zero ECDSA signature (CVE-2022-21449)", BadSignature, {
        let input = format!("{}.{payload}", b64(forge.curve.header().json()));
        format!("{input}.{}", b64([0; 64]))
    });
    t.raw("ECDSA signature in DER", BadSignature, {
        let input = format!("{}.{payload}", b64(forge.curve.header().json()));
        let raw = forge.curve.signature(input.as_bytes());
        let integer = |half: &[u8]| [&[2, 33, 0], half].concat();
        let der = [&[0x30, 70][..], &integer(&raw[..32]), &integer(&raw[32..])].concat();
        format!("{input}.{}", b64(der))
    });
    t.raw("signed by a stranger under our kid", BadSignature, {
        forge.stranger.token(&forge.active.header().json(), &forge.payload().json())
    });
    t.raw("signed by a stranger under its own kid", UnknownKey, {
        forge.stranger.token(&forge.stranger.header().json(), &forge.payload().json())
    });
    t.raw("signed by another of our keys", BadSignature, {
        forge.retired.token(&forge.active.header().json(), &forge.payload().json())
    });
    t.raw("signed by a compromised key", KeyCompromised, forge.compromised.key.sign(&forge.claims()).unwrap());
}

fn confused_with_mac(t: &mut Table<'_>) {
    let forge = t.forge;
    let jwk = serde_json::to_string(&forge.active.jwk()).unwrap();
    let x = forge.active.jwk().x.unwrap();
    for (name, secret) in [
        ("MAC with the public key (CVE-2016-10555)", x.as_bytes()),
        ("MAC with the public JWK", jwk.as_bytes()),
        ("MAC with an empty key (CVE-2019-20933, CVE-2020-28637)", b""),
        ("MAC with a dictionary word", b"secret"),
    ] {
        let input =
            format!("{}.{}", b64(forge.active.header().with("alg", "\"HS256\"").json()), b64(forge.payload().json()));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), input.as_bytes());
        t.raw(name, Rejection::Algorithm, format!("{input}.{}", b64(tag)));
    }
}

fn claims(t: &mut Table<'_>) {
    use Rejection::{ClaimMissing, Duplicate, Malformed};
    let good = t.forge.payload();
    t.payload("payload is not JSON", Malformed, "sub=admin");
    t.payload("payload is empty", Malformed, "");
    t.payload("payload is an array", Malformed, "[]");
    t.payload("payload has something after it", Malformed, &(good.json() + "{}"));
    t.payload("role twice", Duplicate, &good.also("role", "\"owner\"").json());
    t.payload("exp twice", Duplicate, &good.also("exp", "9999999999").json());
    t.payload("sub twice, once behind an escape", Duplicate, &good.also("s\\u0075b", "\"x\"").json());
    t.payload("repeated name inside a claim", Duplicate, &good.also("act", r#"{"a":1,"a":2}"#).json());
    for claim in ["iss", "aud", "sub", "tid", "sid", "jti", "iat", "exp", "role", "tier", "ue", "te"] {
        let names = [
            "iss missing",
            "aud missing",
            "sub missing",
            "tid missing",
            "sid missing",
            "jti missing",
            "iat missing",
            "exp missing",
            "role missing",
            "tier missing",
            "ue missing",
            "te missing",
        ];
        let name = names.iter().find(|name| name.starts_with(&format!("{claim} "))).unwrap();
        t.payload(name, ClaimMissing, &good.without(claim).json());
    }
}

fn issuer_and_audience(t: &mut Table<'_>) {
    use Rejection::{ClaimInvalid, ClaimUnknown};
    t.claim("sender-constrained token sent as bearer (cnf)", ClaimUnknown, "cnf", r#"{"jkt":"x"}"#);
    t.claim("an unknown claim", ClaimUnknown, "admin", "true");
    t.claim("EXP beside exp", ClaimUnknown, "EXP", "9999999999");
    t.claim("issuer of another system", Rejection::WrongIssuer, "iss", "\"https://evil.example\"");
    t.claim("issuer with a slash more", Rejection::WrongIssuer, "iss", "\"https://api.acme.example/\"");
    t.claim("issuer in upper case", Rejection::WrongIssuer, "iss", "\"HTTPS://API.ACME.EXAMPLE\"");
    t.claim("issuer empty", Rejection::WrongIssuer, "iss", "\"\"");
    t.claim("issuer a list", ClaimInvalid, "iss", "[\"https://api.acme.example\"]");
    t.claim("audience of another system", Rejection::WrongAudience, "aud", "\"billing\"");
    t.claim("audience that begins like ours", Rejection::WrongAudience, "aud", "\"bartizan-test\"");
    t.claim("audience empty", Rejection::WrongAudience, "aud", "\"\"");
    t.claim("audience a list", ClaimInvalid, "aud", "[\"bartizan\",\"billing\"]");
    t.claim("audience null", ClaimInvalid, "aud", "null");
}

fn times(t: &mut Table<'_>) {
    use Rejection::{ClaimInvalid, Expired, Lifetime, NotYetValid};
    let good = t.forge.payload();
    let (now, exp) = (NOW.seconds(), NOW.seconds() + 300);
    t.claim("exp a string (CVE-2026-25537)", ClaimInvalid, "exp", &format!("\"{exp}\""));
    t.claim("exp with a fraction", ClaimInvalid, "exp", &format!("{exp}.0"));
    t.claim("exp with an exponent", ClaimInvalid, "exp", "1e18");
    t.claim("exp beyond 64 bits", ClaimInvalid, "exp", "18446744073709551616");
    t.claim("exp that overflows in milliseconds", ClaimInvalid, "exp", "9223372036854775807");
    t.claim("exp negative", ClaimInvalid, "exp", "-1");
    t.claim("exp null", ClaimInvalid, "exp", "null");
    t.claim("exp true", ClaimInvalid, "exp", "true");
    t.claim("exp a list", ClaimInvalid, "exp", &format!("[{exp}]"));
    t.claim("exp before iat", ClaimInvalid, "exp", &(now - 1).to_string());
    t.claim("exp in milliseconds", ClaimInvalid, "exp", &(exp * 1000).to_string());
    t.claim("a life of a second too long", Lifetime, "exp", &(now + 901).to_string());
    t.claim("iat a string", ClaimInvalid, "iat", &format!("\"{now}\""));
    t.claim("iat null", ClaimInvalid, "iat", "null");
    t.claim("iat zero to stretch the life", Lifetime, "iat", "0");
    t.claim("iat six seconds ahead", NotYetValid, "iat", &(now + 6).to_string());
    t.claim("nbf six seconds ahead", NotYetValid, "nbf", &(now + 6).to_string());
    t.claim("nbf a string", ClaimInvalid, "nbf", &format!("\"{now}\""));
    t.claim("nbf null", ClaimInvalid, "nbf", "null");
    t.claim("nbf at exp", ClaimInvalid, "nbf", &exp.to_string());
    let past = |from: i64, to: i64| good.with("iat", &(now + from).to_string()).with("exp", &(now + to).to_string());
    t.payload("expired this second", Expired, &past(-300, 0).json());
    t.payload("expired yesterday", Expired, &past(-86_700, -86_400).json());
}

fn subjects(t: &mut Table<'_>) {
    use Rejection::ClaimInvalid;
    let good = t.forge.payload();
    t.claim("sub a session's id", ClaimInvalid, "sub", "\"ses_0197a5b0d0007000800000000000000a\"");
    t.claim("sub in upper case", ClaimInvalid, "sub", &good.value("sub").to_uppercase());
    t.claim("sub a number", ClaimInvalid, "sub", "1");
    t.claim("sub empty", ClaimInvalid, "sub", "\"\"");
    t.claim("tenant a list", ClaimInvalid, "tid", "[]");
    t.claim("role unknown", ClaimInvalid, "role", "\"root\"");
    t.claim("role in upper case", ClaimInvalid, "role", "\"OWNER\"");
    t.claim("role a list", ClaimInvalid, "role", "[\"owner\"]");
    t.claim("tier unknown", ClaimInvalid, "tier", "\"unlimited\"");
    t.claim("epoch negative", ClaimInvalid, "ue", "-1");
    t.claim("epoch that JavaScript would round", ClaimInvalid, "te", "9007199254740992");
    t.claim("epoch a string", ClaimInvalid, "ue", "\"3\"");
}

impl Members {
    fn also_all(&self, others: &Members) -> Members {
        Members([self.0.clone(), others.0.clone()].concat())
    }

    fn value(&self, name: &str) -> String {
        self.0.iter().find(|(known, _)| known == name).unwrap().1.clone()
    }
}

impl crate::forge::Smith {
    fn jwk(&self) -> bartizan_core::token::PublicJwk {
        let key = self.key.verification_key(bartizan_core::token::KeyState::Active).unwrap();
        key.public_jwk().unwrap()
    }
}

/// Adds the order of the Ed25519 group, little-endian, to a scalar.
fn add_group_order(scalar: &mut [u8]) {
    let order = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0u16;
    for (byte, add) in scalar.iter_mut().zip(order) {
        carry += u16::from(*byte) + add;
        *byte = carry as u8;
        carry >>= 8;
    }
}

#[test]
fn every_attack_is_refused_with_its_own_word() {
    let forge = Forge::new(NOW);
    let mut table = Table { forge: &forge, attacks: Vec::new() };
    form(&mut table);
    algorithm(&mut table);
    unwanted_members(&mut table);
    kid_and_typ(&mut table);
    signature(&mut table);
    confused_with_mac(&mut table);
    claims(&mut table);
    issuer_and_audience(&mut table);
    times(&mut table);
    subjects(&mut table);
    let names: HashSet<_> = table.attacks.iter().map(|attack| attack.name).collect();
    assert_eq!(names.len(), table.attacks.len(), "two attacks share a name");
    assert!(names.len() >= 60, "only {} attacks", names.len());
    let wrong: Vec<String> = (table.attacks.iter())
        .map(|attack| (attack, forge.verifier.verify(&attack.token, NOW)))
        .filter(|(attack, answer)| *answer != Err(attack.expected))
        .map(|(attack, answer)| format!("{}: expected {:?}, got {answer:?}", attack.name, attack.expected))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let met: HashSet<_> = table.attacks.iter().map(|attack| attack.expected).collect();
    let missed: Vec<_> = Rejection::ALL.iter().filter(|rejection| !met.contains(rejection)).collect();
    assert!(missed.is_empty(), "no attack leads to {missed:?}");
    crate::forge::say(&format!("token attacks: {} refused as expected", table.attacks.len()));
}

#[test]
fn what_is_unusual_but_sound_is_accepted() {
    let forge = Forge::new(NOW);
    let (header, payload) = (forge.active.header(), forge.payload());
    let second = NOW.seconds();
    let sound = [
        ("the plain token", header.clone(), payload.clone()),
        ("long form of typ", header.with("typ", "\"application/at+jwt\""), payload.clone()),
        ("fully specified alg (RFC 9864)", header.with("alg", "\"Ed25519\""), payload.clone()),
        ("claims in another order", header.clone(), Members(payload.0.iter().rev().cloned().collect())),
        ("issued five seconds ahead", header.clone(), payload.with("iat", &(second + 5).to_string())),
        ("nbf now", header.clone(), payload.with("nbf", &second.to_string())),
        ("fifteen minutes", header.clone(), payload.with("exp", &(second + 900).to_string())),
        ("the largest exact epoch", header.clone(), payload.with("ue", "9007199254740991")),
    ];
    for (name, header, payload) in sound {
        let token = forge.active.token(&header.json(), &payload.json());
        let claims = forge.verifier.verify(&token, NOW).unwrap_or_else(|rejection| panic!("{name}: {rejection}"));
        assert_eq!(claims.sub, forge.claims().sub, "{name}");
    }
    for smith in [&forge.active, &forge.curve, &forge.pending, &forge.retired] {
        let token = smith.key.sign(&forge.claims()).unwrap();
        assert_eq!(forge.verifier.verify(&token, NOW), Ok(forge.claims()));
    }
}

#[test]
fn a_token_lives_up_to_its_last_millisecond_and_no_longer() {
    let forge = Forge::new(NOW);
    let claims = forge.claims();
    let token = forge.active.key.sign(&claims).unwrap();
    assert!(forge.verifier.verify(&token, Millis(claims.exp.0 - 1)).is_ok());
    assert_eq!(forge.verifier.verify(&token, claims.exp), Err(Rejection::Expired));
    assert!(forge.verifier.verify(&token, Millis(claims.iat.0 - 5_000)).is_ok());
    assert_eq!(forge.verifier.verify(&token, Millis(claims.iat.0 - 5_001)), Err(Rejection::NotYetValid));
    assert_eq!(forge.verifier.verify(&token, Millis(i64::MAX)), Err(Rejection::Expired));
    assert_eq!(forge.verifier.verify(&token, Millis(i64::MIN)), Err(Rejection::NotYetValid));
    assert_eq!(forge.verifier.check_time(&claims, claims.exp), Err(Rejection::Expired));
}

#[test]
fn every_flipped_bit_of_a_token_is_noticed() {
    let forge = Forge::new(NOW);
    let token = forge.active.key.sign(&forge.claims()).unwrap();
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        for bit in (0..7).map(|n| 1u8 << n) {
            bytes[at] ^= bit;
            let flipped = String::from_utf8(bytes.clone()).unwrap();
            assert!(forge.verifier.verify(&flipped, NOW).is_err(), "byte {at} ^ {bit}");
            bytes[at] ^= bit;
        }
    }
}

#[test]
fn the_caller_of_the_jws_layer_chooses_the_limit() {
    let forge = Forge::new(NOW);
    let token = forge.active.key.sign(&forge.claims()).unwrap();
    assert!(Jws::parse(&token, token.len()).is_ok());
    assert_eq!(Jws::parse(&token, token.len() - 1).unwrap_err(), Rejection::TooLarge);
    assert!(token.len() < 800, "an access token has {} bytes", token.len());
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,300}") {
        let _ = Jws::parse(&text, 8192);
    }

    #[test]
    fn no_decoded_parts_make_the_reader_panic(
        header in proptest::collection::vec(any::<u8>(), 0..200),
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        signature in proptest::collection::vec(any::<u8>(), 0..70),
    ) {
        let _ = Jws::parse(&format!("{}.{}.{}", b64(header), b64(payload), b64(signature)), 8192);
    }

    #[test]
    fn no_json_like_header_makes_the_reader_panic(
        header in r#"[\{\}\[\]",:a-z0-9\\ ]{0,40}|\{"alg":"EdDSA","[a-z]{1,4}":[\{\}\[\]",:a-z0-9\\]{0,20}\}"#,
    ) {
        let _ = Jws::parse(&format!("{}.e30.AAAA", b64(header)), 8192);
    }
}
