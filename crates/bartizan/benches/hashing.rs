//! What the pool adds to a raw Argon2id: alone, and with others waiting.

#![allow(clippy::unwrap_used, reason = "a benchmark may stop")]

use std::hint::black_box;
use std::sync::Arc;

use bartizan::hashing::HashingPool;
use bartizan_core::password::{Cost, Memory, Pepper, Peppers, hash_password, verify_password};
use bartizan_core::secret::Secret;
use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::future::join_all;

const PASSWORD: &str = "correct horse battery staple";

fn logins(c: &mut Criterion) {
    let pepper = Pepper::new(Secret::new([1; 32])).unwrap();
    let peppers = Arc::new(Peppers::new(pepper.clone(), vec![]));
    let record = hash_password(PASSWORD, &pepper, Cost::DEFAULT, [9; 16], &mut Memory::default()).unwrap();
    let text = record.to_string();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let pool = HashingPool::new(Cost::DEFAULT, Arc::clone(&peppers), 1, 64).unwrap();

    let mut group = c.benchmark_group("login");
    group.sample_size(20);
    group.bench_function("raw-argon2id", |b| {
        b.iter(|| {
            let memory = &mut Memory::default();
            verify_password(black_box(PASSWORD), &record, &peppers, Cost::DEFAULT, memory).unwrap()
        });
    });
    group.bench_function("pool", |b| {
        b.iter(|| runtime.block_on(pool.verify(black_box(PASSWORD), Some(&text))).unwrap());
    });
    group.bench_function("pool-unknown-user", |b| {
        b.iter(|| runtime.block_on(pool.verify(black_box(PASSWORD), None)).unwrap());
    });
    group.bench_function("pool-4-at-once", |b| {
        b.iter(|| runtime.block_on(join_all((0..4).map(|_| pool.verify(black_box(PASSWORD), Some(&text))))));
    });
    group.finish();
}

criterion_group!(benches, logins);
criterion_main!(benches);
