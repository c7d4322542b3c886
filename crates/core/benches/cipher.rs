//! What sealing, indexing and password hashing cost beside the raw primitives.

#![allow(clippy::unwrap_used, reason = "a benchmark may stop")]

use std::hint::black_box;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{self, AES_256_GCM, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand;
use bartizan_core::cipher::{Aad, FieldRef, SealingKey, index_tag};
use bartizan_core::id::TenantId;
use bartizan_core::password::{Cost, Memory, Pepper, Peppers, hash_password, verify_password};
use bartizan_core::secret::Secret;
use criterion::{Criterion, criterion_group, criterion_main};

const EMAIL: FieldRef = FieldRef::new("users", "email");
const ROW: &str = "usr_0190b6a1d2f07c3e8f4a5b6c7d8e9f00";

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).unwrap();
    bytes
}

fn fields(c: &mut Criterion) {
    let tenant = TenantId::from_u128(7);
    let key = SealingKey::new(1, &Secret::new(random())).unwrap();
    let raw = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &random::<32>()).unwrap());
    for size in [64, 1024] {
        let plaintext = vec![7u8; size];
        c.bench_function(&format!("field/seal/{size}"), |b| {
            b.iter(|| {
                let aad = Aad::field(tenant, EMAIL, ROW, 1).unwrap();
                key.seal(&aad, black_box(&plaintext), random()).unwrap()
            });
        });
        let sealed = key.seal(&Aad::field(tenant, EMAIL, ROW, 1).unwrap(), &plaintext, random()).unwrap();
        c.bench_function(&format!("field/open/{size}"), |b| {
            b.iter(|| {
                let aad = Aad::field(tenant, EMAIL, ROW, 1).unwrap();
                key.open(&aad, black_box(&sealed)).unwrap()
            });
        });
        let aad = [7u8; 60];
        c.bench_function(&format!("raw-aes-256-gcm/seal/{size}"), |b| {
            b.iter(|| {
                let mut buffer = black_box(&plaintext).clone();
                let nonce = Nonce::assume_unique_for_key(random());
                raw.seal_in_place_append_tag(nonce, aead::Aad::from(aad), &mut buffer).unwrap();
                buffer
            });
        });
    }
    let index = Secret::new(random());
    c.bench_function("field/index", |b| {
        b.iter(|| index_tag(&index, tenant, EMAIL, 1, black_box(b"ada.lovelace@example.com")).unwrap());
    });
}

fn passwords(c: &mut Criterion) {
    let (password, salt) = ("correct horse battery staple", [9u8; 16]);
    let pepper = Pepper::new(Secret::new([1; 32])).unwrap();
    let peppers = Peppers::new(pepper.clone(), vec![]);
    let record = hash_password(password, &pepper, Cost::DEFAULT, salt, &mut Memory::default()).unwrap();
    let mut group = c.benchmark_group("password");
    group.sample_size(20);
    group.bench_function("raw-argon2id", |b| {
        let params = Params::new(64 * 1024, 3, 1, Some(32)).unwrap();
        let argon2 = Argon2::new_with_secret(&[1; 32], Algorithm::Argon2id, Version::V0x13, params).unwrap();
        b.iter(|| {
            let mut out = [0; 32];
            argon2.hash_password_into(black_box(password.as_bytes()), &salt, &mut out).unwrap();
            out
        });
    });
    group.bench_function("verify", |b| {
        let mut none = Memory::default();
        b.iter(|| verify_password(black_box(password), &record, &peppers, Cost::DEFAULT, &mut none).unwrap());
    });
    group.bench_function("verify-kept-memory", |b| {
        let mut kept = Memory::reserve(Cost::DEFAULT).unwrap();
        b.iter(|| verify_password(black_box(password), &record, &peppers, Cost::DEFAULT, &mut kept).unwrap());
    });
    group.bench_function("reserve-memory", |b| b.iter(|| Memory::reserve(Cost::DEFAULT).unwrap()));
    group.finish();
}

criterion_group!(benches, fields, passwords);
criterion_main!(benches);
