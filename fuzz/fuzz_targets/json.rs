#![no_main]

use std::sync::LazyLock;

use bartizan_fuzz::Bench;

/// What a run needs is made once, not for each input; libFuzzer leaves no other place for it.
static BENCH: LazyLock<Bench> = LazyLock::new(Bench::new);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| BENCH.json(bytes));
