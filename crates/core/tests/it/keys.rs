//! Which keys are taken, and what is published of them.

use std::sync::Arc;

use bartizan_core::id::{SessionId, TenantId, TokenId, UserId};
use bartizan_core::principal::{Role, Tier};
use bartizan_core::secret::Secret;
use bartizan_core::time::Millis;
use bartizan_core::token::{
    Algorithm, Claims, Jws, KeyError, KeySet, KeyState, Rejection, SigningError, SigningKey, VerificationKey, Verifier,
};
use proptest::prelude::*;

use crate::forge::{Forge, Members, Smith, b64};

const NOW: Millis = Millis(1_790_000_000_400);
const RFC_8037_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const RFC_7638_N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

fn read(members: &Members) -> Result<VerificationKey, KeyError> {
    VerificationKey::from_jwk(members.json().as_bytes())
}

fn edwards() -> Members {
    let x = format!("\"{RFC_8037_X}\"");
    Members::new(&[("kty", "\"OKP\""), ("crv", "\"Ed25519\""), ("kid", "\"k\""), ("x", &x)])
}

fn rsa() -> Members {
    let n = format!("\"{RFC_7638_N}\"");
    Members::new(&[("kty", "\"RSA\""), ("kid", "\"r\""), ("alg", "\"RS256\""), ("n", &n), ("e", "\"AQAB\"")])
}

fn mac(len: usize) -> Members {
    let k = format!("\"{}\"", b64(vec![7; len]));
    Members::new(&[("kty", "\"oct\""), ("kid", "\"m\""), ("alg", "\"HS256\""), ("k", &k)])
}

/// RFC 8037 A.1: the private key of the figures, wrapped as PKCS#8 (RFC 8410 section 7).
fn rfc_8037_key() -> SigningKey {
    let mut document = hex::decode("302e020100300506032b657004220420").unwrap();
    document.extend(hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap());
    SigningKey::from_pkcs8(Algorithm::Ed25519, &Secret::new(document)).unwrap()
}

#[test]
fn rfc_8037_a_1_to_a_3_key_and_thumbprint() {
    let key = rfc_8037_key();
    assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    let jwk = key.verification_key(KeyState::Active).unwrap().public_jwk().unwrap();
    assert_eq!(jwk.x.as_deref(), Some(RFC_8037_X));
    assert_eq!(jwk.thumbprint(), key.kid());
    let read = read(&edwards()).unwrap();
    assert_eq!(read.algorithm(), Algorithm::Ed25519);
    assert_eq!(read.public_jwk().unwrap().thumbprint(), key.kid());
}

#[test]
fn rfc_8037_a_4_is_refused_because_it_names_no_key() {
    let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert_eq!(Jws::parse(token, 8192).unwrap_err(), Rejection::UnknownKey);
}

#[test]
fn rfc_7638_3_1_thumbprint() {
    let key = read(&rsa()).unwrap();
    assert_eq!(key.public_jwk().unwrap().thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
}

#[test]
fn a_key_that_leaves_a_doubt_is_not_taken() {
    let (ed, rsa, mac) = (edwards(), rsa(), mac(32));
    let p256 = Members::new(&[
        ("kty", "\"EC\""),
        ("crv", "\"P-256\""),
        ("kid", "\"c\""),
        ("x", "\"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4\""),
        ("y", "\"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM\""),
    ]);
    for sound in [&ed, &rsa, &mac, &p256, &ed.with("alg", "\"Ed25519\""), &ed.with("use", "\"sig\"")] {
        assert!(read(sound).is_ok(), "{sound:?}");
    }
    assert!(read(&mac.with("key_ops", "[\"sign\",\"verify\"]")).is_ok());
    assert!(read(&ed.with("x5t", "\"ignored\"")).is_ok());
    let doubtful = [
        (ed.without("kid"), KeyError::Kid),
        (ed.with("kid", "\"\""), KeyError::Kid),
        (ed.with("kid", "7"), KeyError::Malformed),
        (ed.with("use", "\"enc\""), KeyError::Usage),
        (ed.with("use", "[\"sig\"]"), KeyError::Malformed),
        (ed.with("key_ops", "[\"sign\"]"), KeyError::Usage),
        (ed.with("key_ops", "[]"), KeyError::Usage),
        (ed.with("key_ops", "[\"verify\",\"verify\"]"), KeyError::Usage),
        (ed.with("key_ops", "[\"verify\",\"deriveBits\"]"), KeyError::Usage),
        (ed.with("key_ops", "\"verify\""), KeyError::Malformed),
        (ed.with("alg", "\"ES256\""), KeyError::Algorithm),
        (ed.with("alg", "\"none\""), KeyError::Algorithm),
        (ed.with("alg", "null"), KeyError::Malformed),
        (ed.with("crv", "\"X25519\""), KeyError::Algorithm),
        (ed.with("crv", "\"Ed448\""), KeyError::Algorithm),
        (ed.with("kty", "\"okp\""), KeyError::Algorithm),
        (ed.with("d", "\"AA\""), KeyError::PrivatePart),
        (ed.with("k", "\"AA\""), KeyError::PrivatePart),
        (ed.with("x", "\"AA\""), KeyError::Point),
        (ed.with("x", &format!("\"{RFC_8037_X}=\"")), KeyError::Malformed),
        (ed.also("x", "\"AA\""), KeyError::Duplicate),
        (p256.with("y", "\"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyA\""), KeyError::Point),
        (p256.with("crv", "\"P-384\""), KeyError::Point),
        (p256.with("crv", "\"P-521\""), KeyError::Algorithm),
        (p256.with("crv", "\"secp256k1\""), KeyError::Algorithm),
        (p256.with("alg", "\"ES384\""), KeyError::Algorithm),
        (p256.with("x", &format!("\"{}\"", b64([0; 32]))).with("y", &format!("\"{}\"", b64([0; 32]))), KeyError::Point),
        (rsa.without("alg"), KeyError::Algorithm),
        (rsa.with("alg", "\"EdDSA\""), KeyError::Algorithm),
        (rsa.with("alg", "\"HS256\""), KeyError::Algorithm),
        (rsa.with("e", "\"Aw\""), KeyError::Weak),
        (rsa.with("e", "\"AQAA\""), KeyError::Weak),
        (rsa.with("e", "\"AAEAAQ\""), KeyError::Malformed),
        (rsa.with("d", "\"AA\""), KeyError::PrivatePart),
        (mac.without("alg"), KeyError::Algorithm),
        (mac.with("alg", "\"RS256\""), KeyError::Algorithm),
        (mac.with("alg", "\"HS384\""), KeyError::Weak),
        (mac.with("k", "\"\""), KeyError::Weak),
    ];
    for (members, expected) in doubtful {
        assert_eq!(read(&members).err(), Some(expected), "{}", members.json());
    }
    assert_eq!(VerificationKey::from_jwk(b"[]").err(), Some(KeyError::Malformed));
    assert_eq!(VerificationKey::from_jwk(&vec![b' '; 200_000]).err(), Some(KeyError::TooLarge));
}

#[test]
fn points_of_small_order_are_not_keys() {
    let mut points = vec![[0; 32], [0xff; 32]];
    points[1][0] = 0xec;
    points[1][31] = 0x7f;
    let mut one = [0; 32];
    one[0] = 1;
    points.push(one);
    for text in [
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ] {
        points.push(hex::decode(text).unwrap().try_into().unwrap());
    }
    for mut point in points {
        for _ in 0..2 {
            let key = edwards().with("x", &format!("\"{}\"", b64(point)));
            assert_eq!(read(&key).err(), Some(KeyError::Point), "{}", hex::encode(point));
            point[31] ^= 0x80;
        }
    }
}

#[test]
fn a_set_has_one_key_for_a_name_and_one_kind_of_key() {
    let set = |keys: &[&Members]| {
        let keys: Vec<String> = keys.iter().map(|key| key.json()).collect();
        KeySet::from_jwks(format!("{{\"keys\":[{}]}}", keys.join(",")).as_bytes()).map(|set| set.iter().count())
    };
    assert_eq!(set(&[]), Ok(0));
    assert_eq!(set(&[&edwards(), &rsa()]), Ok(2));
    assert_eq!(set(&[&mac(32)]), Ok(1));
    assert_eq!(set(&[&edwards(), &edwards()]), Err(KeyError::DuplicateKid));
    assert_eq!(set(&[&edwards(), &mac(32)]), Err(KeyError::Symmetric));
    assert_eq!(set(&[&mac(32), &rsa()]), Err(KeyError::Symmetric));
    assert_eq!(set(&[&edwards(), &rsa().with("e", "\"Aw\"")]), Err(KeyError::Weak));
    assert_eq!(KeySet::from_jwks(b"{}").err(), Some(KeyError::Malformed));
    assert_eq!(KeySet::from_jwks(b"{\"keys\":{}}").err(), Some(KeyError::Malformed));
    assert_eq!(KeySet::from_jwks(b"{\"keys\":[],\"keys\":[]}").err(), Some(KeyError::Duplicate));
    let many: Vec<Members> = (0..65).map(|n| edwards().with("kid", &format!("\"{n}\""))).collect();
    assert_eq!(set(&many.iter().collect::<Vec<_>>()), Err(KeyError::TooLarge));
}

#[test]
fn access_tokens_are_never_checked_with_a_mac_key() {
    let keys = KeySet::new([read(&mac(32)).unwrap()]).unwrap();
    assert_eq!(Verifier::new(Arc::new(keys), "i", "a").err(), Some(KeyError::Symmetric));
}

#[test]
fn the_published_set_has_every_key_but_the_compromised_and_no_private_part() {
    let forge = Forge::new(NOW);
    let published = forge.verifier.keys().public_jwks();
    let kids: Vec<&str> = published.keys.iter().map(|key| key.kid.as_str()).collect();
    for smith in [&forge.active, &forge.curve, &forge.pending, &forge.retired] {
        assert!(kids.contains(&smith.key.kid()));
    }
    assert!(!kids.contains(&forge.compromised.key.kid()));
    assert!(kids.is_sorted());
    let json = serde_json::to_vec(&published).unwrap();
    assert!(!String::from_utf8_lossy(&json).contains("\"d\""));
    // What we publish, we read: and a stranger with only that can check our tokens.
    let verifier =
        Verifier::new(Arc::new(KeySet::from_jwks(&json).unwrap()), crate::forge::ISSUER, "bartizan").unwrap();
    for smith in [&forge.active, &forge.curve] {
        assert_eq!(verifier.verify(&smith.key.sign(&forge.claims()).unwrap(), NOW), Ok(forge.claims()));
    }
    let mac = KeySet::new([read(&mac(32)).unwrap()]).unwrap();
    assert!(mac.public_jwks().keys.is_empty());
}

#[test]
fn signing_keys_are_ed25519_or_es256_and_whole() {
    for algorithm in Algorithm::ALL {
        let usable = matches!(algorithm, Algorithm::Ed25519 | Algorithm::Es256);
        assert_eq!(SigningKey::generate_pkcs8(*algorithm).is_ok(), usable);
    }
    let ed = SigningKey::generate_pkcs8(Algorithm::Ed25519).unwrap();
    assert_eq!(SigningKey::from_pkcs8(Algorithm::Es256, &ed).err(), Some(KeyError::Malformed));
    assert_eq!(SigningKey::from_pkcs8(Algorithm::Rs256, &ed).err(), Some(KeyError::Algorithm));
    let half = Secret::new(ed.expose()[..20].to_vec());
    assert_eq!(SigningKey::from_pkcs8(Algorithm::Ed25519, &half).err(), Some(KeyError::Malformed));
    let smith = Smith::new(Algorithm::Es256);
    let again = SigningKey::from_pkcs8(Algorithm::Es256, &smith.pkcs8).unwrap();
    assert_eq!(again.kid(), smith.key.kid());
    assert_eq!(format!("{again:?}"), format!("SigningKey({}, ES256)", again.kid()));
}

#[test]
fn claims_that_would_never_be_accepted_are_not_signed() {
    let forge = Forge::new(NOW);
    let good = forge.claims();
    let after = |seconds: i64| Millis::from_seconds(good.iat.seconds() + seconds);
    for bad in [
        Claims { iss: "".into(), ..good.clone() },
        Claims { aud: "".into(), ..good.clone() },
        Claims { exp: good.iat, ..good.clone() },
        Claims { exp: after(-1), ..good.clone() },
        Claims { exp: after(901), ..good.clone() },
        Claims { exp: Millis(i64::MAX), ..good.clone() },
        Claims { iat: Millis(-1), exp: Millis(300_000), ..good.clone() },
        Claims { iat: Millis(i64::MIN), exp: Millis(i64::MAX), ..good.clone() },
        Claims { ue: 1 << 53, ..good.clone() },
        Claims { te: u64::MAX, ..good.clone() },
        Claims { iss: "i".repeat(9000).into(), ..good.clone() },
    ] {
        assert_eq!(forge.active.key.sign(&bad).err(), Some(SigningError::Claims), "{bad:?}");
    }
    assert!(forge.active.key.sign(&Claims { exp: after(900), ..good.clone() }).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_signed_is_read_back_as_it_was(
        ids in any::<[[u8; 10]; 4]>(),
        iat in 0i64..250_000_000_000,
        life in 1i64..=900,
        role in 0usize..4,
        tier in 0usize..3,
        ue in 0u64..1 << 53,
        te in 0u64..1 << 53,
        iss in "\\PC{1,40}",
        aud in ".{1,40}",
    ) {
        let now = Millis::from_seconds(iat);
        let claims = Claims {
            iss: iss.as_str().into(),
            aud: aud.as_str().into(),
            sub: UserId::new(now, ids[0]),
            tid: TenantId::new(now, ids[1]),
            sid: SessionId::new(now, ids[2]),
            jti: TokenId::new(now, ids[3]),
            iat: now,
            exp: Millis::from_seconds(iat + life),
            role: Role::ALL[role],
            tier: Tier::ALL[tier],
            ue,
            te,
        };
        let key = rfc_8037_key();
        let keys = KeySet::new([key.verification_key(KeyState::Active).unwrap()]).unwrap();
        let verifier = Verifier::new(Arc::new(keys), iss, aud).unwrap();
        prop_assert_eq!(verifier.verify(&key.sign(&claims).unwrap(), now), Ok(claims));
    }
}
