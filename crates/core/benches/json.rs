//! What strict reading costs: the pre-scan alone, the whole way into a type, and serde_json for comparison.

use std::hint::black_box;

use bartizan_core::input::{Email, HumanName, NewPassword, TenantSlug};
use bartizan_core::json::{Limits, parse, scan};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::Value;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct SignUp {
    tenant: TenantSlug,
    name: HumanName,
    email: Email,
    password: NewPassword,
}

const SIGN_UP: &[u8] =
    br#"{"tenant":"acme","name":"Ann O'Neil","email":"ann@example.org","password":"correct horse battery staple"}"#;

/// About a mebibyte of `[{"name":…},…]` within the limits.
fn large() -> Vec<u8> {
    let item = format!(r#"{{"name":"{}","n":[1,2.5e3,true]}}"#, "text ".repeat(120));
    format!("[{}]", vec![item; 1_600].join(",")).into_bytes()
}

fn reading(criterion: &mut Criterion) {
    let limits = Limits::default();
    let mut small = criterion.benchmark_group("sign-up");
    small.throughput(Throughput::Bytes(SIGN_UP.len() as u64));
    small.bench_function("scan", |bencher| bencher.iter(|| scan(black_box(SIGN_UP), &limits).is_ok()));
    small.bench_function("parse", |bencher| bencher.iter(|| parse::<SignUp>(black_box(SIGN_UP), &limits).is_ok()));
    small.bench_function("serde_json", |bencher| {
        bencher.iter(|| serde_json::from_slice::<SignUp>(black_box(SIGN_UP)).is_ok());
    });
    small.finish();

    let text = large();
    let mut big = criterion.benchmark_group("mebibyte");
    big.throughput(Throughput::Bytes(text.len() as u64));
    big.bench_function("scan", |bencher| bencher.iter(|| scan(black_box(&text), &limits).is_ok()));
    big.bench_function("serde_json ignoring", |bencher| {
        bencher.iter(|| serde_json::from_slice::<serde::de::IgnoredAny>(black_box(&text)).is_ok());
    });
    big.bench_function("parse into a value", |bencher| {
        bencher.iter(|| parse::<Value>(black_box(&text), &limits).is_ok());
    });
    big.finish();
}

criterion_group!(benches, reading);
criterion_main!(benches);
