//! The arithmetic of a limit, a key, the header fields, an address, a block list of 100,000 networks.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bartizan_core::id::BlockId;
use bartizan_core::limit::{KeyMaker, Limit, Quota, fields, take, take_all};
use bartizan_core::net::{BlockList, Prefix, Proxies};
use bartizan_core::secret::Secret;
use bartizan_core::time::Millis;
use criterion::{Criterion, criterion_group, criterion_main};

const NOW: Millis = Millis(1_700_000_000_000);

fn limits(c: &mut Criterion) {
    let Ok(quota) = Quota::new(60, Duration::from_secs(60), 60) else { return };
    c.bench_function("limit/take", |b| {
        let (mut tat, mut now) = (None, NOW);
        b.iter(|| {
            now.0 += 1;
            let (after, decision) = take(black_box(tat), &quota, 1, now);
            tat = after;
            decision
        });
    });
    let mut three = [Limit::new("address", quota), Limit::new("user", quota), Limit::new("tenant", quota)];
    c.bench_function("limit/take_all of three", |b| {
        let mut now = NOW;
        b.iter(|| {
            now.0 += 1;
            take_all(black_box(&mut three), 1, now)
        });
    });
    c.bench_function("limit/RateLimit field of three", |b| b.iter(|| fields::state(black_box(&three))));
    let keys = KeyMaker::new(&Secret::new([1; 32]));
    c.bench_function("limit/key of a tuple", |b| {
        b.iter(|| keys.key(black_box(&[b"user", &[1u8; 16], &[2u8; 16]])));
    });
}

fn addresses(c: &mut Criterion) {
    let blocks = (0..100_000u32).filter_map(|n| {
        let ip = IpAddr::V4(Ipv4Addr::from(n.wrapping_mul(2_654_435_761)));
        Some((BlockId::from_u128(n.into()), ipnet::IpNet::new(ip, 28).ok()?))
    });
    let list = BlockList::new(blocks);
    let mut n = 0u32;
    c.bench_function("net/block list of 100,000", |b| {
        b.iter(|| {
            n = n.wrapping_add(0x9e37_79b9);
            list.contains(IpAddr::V4(n.into()))
        });
    });
    let proxies = Proxies::new("10.0.0.0/8".parse().ok());
    let line = b"198.51.100.7, 10.0.0.3".as_slice();
    let peer = IpAddr::from([10, 0, 0, 1]);
    c.bench_function("net/client behind two proxies", |b| {
        b.iter(|| Prefix::narrow(proxies.client(black_box(peer), [line])).to_bytes());
    });
}

criterion_group!(benches, limits, addresses);
criterion_main!(benches);
