//! A forger's bench: the real keys, and the freedom to sign anything with them.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use bartizan_core::id::{SessionId, TenantId, TokenId, UserId};
use bartizan_core::principal::{Role, Tier};
use bartizan_core::secret::Secret;
use bartizan_core::time::Millis;
use bartizan_core::token::{Algorithm, Claims, KeySet, KeyState, SigningKey, Verifier};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub(crate) const ISSUER: &str = "https://api.acme.example";
pub(crate) const AUDIENCE: &str = "bartizan";

/// One key with both of its faces: what signs by the rules, and what signs anything.
pub(crate) struct Smith {
    pub(crate) pkcs8: Secret<Vec<u8>>,
    pub(crate) key: SigningKey,
}

impl Smith {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        let pkcs8 = SigningKey::generate_pkcs8(algorithm).unwrap();
        Self { key: SigningKey::from_pkcs8(algorithm, &pkcs8).unwrap(), pkcs8 }
    }

    /// Signs any input, bypassing every rule of ours.
    pub(crate) fn signature(&self, input: &[u8]) -> Vec<u8> {
        let pkcs8 = self.pkcs8.expose();
        match self.key.algorithm() {
            Algorithm::Ed25519 => Ed25519KeyPair::from_pkcs8(pkcs8).unwrap().sign(input).as_ref().to_vec(),
            _ => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).unwrap();
                pair.sign(&SystemRandom::new(), input).unwrap().as_ref().to_vec()
            }
        }
    }

    /// A token of any header and payload with a good signature.
    pub(crate) fn token(&self, header: &str, payload: &str) -> String {
        self.seal(&b64(header), &b64(payload))
    }

    /// The same from parts that are encoded already.
    pub(crate) fn seal(&self, header: &str, payload: &str) -> String {
        let input = format!("{header}.{payload}");
        let signature = b64(self.signature(input.as_bytes()));
        format!("{input}.{signature}")
    }

    pub(crate) fn header(&self) -> Members {
        Members::new(&[
            ("alg", &format!("\"{}\"", self.key.algorithm())),
            ("typ", "\"at+jwt\""),
            ("kid", &format!("\"{}\"", self.key.kid())),
        ])
    }
}

/// A JSON object under construction, each value as raw JSON, so that it can also be wrong.
#[derive(Clone, Debug)]
pub(crate) struct Members(pub(crate) Vec<(String, String)>);

impl Members {
    pub(crate) fn new(members: &[(&str, &str)]) -> Self {
        Self(members.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }

    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        let mut members = self.clone();
        match members.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value.to_owned(),
            None => members.0.push((name.to_owned(), value.to_owned())),
        }
        members
    }

    pub(crate) fn also(&self, name: &str, value: &str) -> Self {
        let mut members = self.clone();
        members.0.push((name.to_owned(), value.to_owned()));
        members
    }

    pub(crate) fn without(&self, name: &str) -> Self {
        Self(self.0.iter().filter(|(known, _)| known != name).cloned().collect())
    }

    pub(crate) fn json(&self) -> String {
        let members: Vec<String> = self.0.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    }
}

/// Five keys in every state, and the verifier that knows them.
pub(crate) struct Forge {
    pub(crate) active: Smith,
    pub(crate) curve: Smith,
    pub(crate) pending: Smith,
    pub(crate) retired: Smith,
    pub(crate) compromised: Smith,
    pub(crate) stranger: Smith,
    pub(crate) verifier: Verifier,
    pub(crate) now: Millis,
}

impl Forge {
    pub(crate) fn new(now: Millis) -> Self {
        let smith = || Smith::new(Algorithm::Ed25519);
        let (active, pending, retired, compromised) = (smith(), smith(), smith(), smith());
        let curve = Smith::new(Algorithm::Es256);
        let keys = [
            (&active, KeyState::Active),
            (&curve, KeyState::Active),
            (&pending, KeyState::Pending),
            (&retired, KeyState::Retired),
            (&compromised, KeyState::Compromised),
        ];
        let keys = KeySet::new(keys.map(|(smith, state)| smith.key.verification_key(state).unwrap())).unwrap();
        let verifier = Verifier::new(Arc::new(keys), ISSUER, AUDIENCE).unwrap();
        Self { active, curve, pending, retired, compromised, stranger: smith(), verifier, now }
    }

    /// Claims that are accepted now.
    pub(crate) fn claims(&self) -> Claims {
        let second = Millis::from_seconds(self.now.seconds());
        Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: UserId::new(self.now, [1; 10]),
            tid: TenantId::new(self.now, [2; 10]),
            sid: SessionId::new(self.now, [3; 10]),
            jti: TokenId::new(self.now, [4; 10]),
            iat: second,
            exp: Millis::from_seconds(second.seconds() + 300),
            role: Role::Member,
            tier: Tier::Pro,
            ue: 3,
            te: 7,
        }
    }

    /// The same as raw JSON members.
    pub(crate) fn payload(&self) -> Members {
        let c = self.claims();
        let text = |value: &dyn std::fmt::Display| format!("\"{value}\"");
        Members::new(&[
            ("iss", &text(&c.iss)),
            ("aud", &text(&c.aud)),
            ("sub", &text(&c.sub)),
            ("tid", &text(&c.tid)),
            ("sid", &text(&c.sid)),
            ("jti", &text(&c.jti)),
            ("iat", &c.iat.seconds().to_string()),
            ("exp", &c.exp.seconds().to_string()),
            ("role", &text(&c.role)),
            ("tier", &text(&c.tier)),
            ("ue", "3"),
            ("te", "7"),
        ])
    }
}

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Says that something was not run. Written past the test runner, which hides what a passing test prints; a failure where
/// `BARTIZAN_REQUIRE_VECTORS=1` says that everything must be there.
pub(crate) fn not_run(what: &str) {
    use std::io::Write as _;
    assert!(std::env::var("BARTIZAN_REQUIRE_VECTORS").as_deref() != Ok("1"), "not run: {what}");
    say(&format!("NOT RUN: {what}"));
    let _ = std::io::stderr().flush();
}

/// Prints a line past the test runner.
pub(crate) fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{line}");
}
