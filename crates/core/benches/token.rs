//! What verifying and signing an access token costs, beside the bare signature operation of aws-lc-rs.
//!
//! The target is a whole verification within 1.3 times the bare one.

use std::hint::black_box;
use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, ParsedPublicKey};
use bartizan_core::id::{SessionId, TenantId, TokenId, UserId};
use bartizan_core::principal::{Role, Tier};
use bartizan_core::time::Millis;
use bartizan_core::token::{Algorithm, Claims, Jws, KeySet, KeyState, MAX_TOKEN, SigningKey, Verifier};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{Criterion, criterion_group, criterion_main};

const NOW: Millis = Millis(1_790_000_000_000);

fn claims() -> Claims {
    Claims {
        iss: "https://api.acme.example".into(),
        aud: "bartizan".into(),
        sub: UserId::new(NOW, [1; 10]),
        tid: TenantId::new(NOW, [2; 10]),
        sid: SessionId::new(NOW, [3; 10]),
        jti: TokenId::new(NOW, [4; 10]),
        iat: NOW,
        exp: Millis(NOW.0 + 300_000),
        role: Role::Member,
        tier: Tier::Pro,
        ue: 3,
        te: 7,
    }
}

#[allow(clippy::unwrap_used)]
fn tokens(c: &mut Criterion) {
    let pkcs8 = SigningKey::generate_pkcs8(Algorithm::Ed25519).unwrap();
    let key = SigningKey::from_pkcs8(Algorithm::Ed25519, &pkcs8).unwrap();
    let keys = KeySet::new([key.verification_key(KeyState::Active).unwrap()]).unwrap();
    let verifier = Verifier::new(Arc::new(keys), "https://api.acme.example", "bartizan").unwrap();
    let token = key.sign(&claims()).unwrap();

    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.expose()).unwrap();
    let public = ParsedPublicKey::new(&ED25519, pair.public_key().as_ref()).unwrap();
    let (input, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();

    let mut verify = c.benchmark_group("verify");
    verify.bench_function("raw_ed25519", |b| {
        b.iter(|| public.verify_sig(black_box(input.as_bytes()), black_box(&signature)).unwrap());
    });
    verify.bench_function("access_token", |b| b.iter(|| verifier.verify(black_box(&token), NOW).unwrap()));
    verify.bench_function("parse_only", |b| b.iter(|| Jws::parse(black_box(&token), MAX_TOKEN).unwrap()));
    verify.finish();

    let mut sign = c.benchmark_group("sign");
    sign.bench_function("raw_ed25519", |b| b.iter(|| pair.sign(black_box(input.as_bytes()))));
    let claims = claims();
    sign.bench_function("access_token", |b| b.iter(|| key.sign(black_box(&claims)).unwrap()));
    sign.finish();
}

criterion_group!(benches, tokens);
criterion_main!(benches);
