//! The fuzzing corpus, replayed on the stable toolchain: what once broke stays mended, and the targets stay true.

use std::path::Path;

#[path = "../../../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, clippy::expect_used, reason = "a crate of its own, where a panic is the finding")]
mod bench;

use bench::{Bench, TARGETS};

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())).collect()
}

#[test]
#[expect(clippy::print_stdout, reason = "which input it was, shown when it fails")]
fn the_corpus_and_its_mutilations_are_read_or_refused() {
    let bench = Bench::new();
    for (target, run) in TARGETS {
        let seeds = seeds(target);
        assert!(seeds.len() >= 3, "{target} has no corpus");
        for (name, seed) in seeds {
            println!("{name}");
            run(&bench, &seed);
            // Cut short at some places, and with single bytes changed: what a fuzzer tries first.
            let places = if matches!(*target, "request" | "snapshot") { 8 } else { 64 };
            let stride = seed.len().div_ceil(places).max(1);
            for place in (0..seed.len()).step_by(stride) {
                run(&bench, &seed[..place]);
                let mut changed = seed.clone();
                for flip in [0x01, 0x20, 0x80, 0xff] {
                    changed[place] = seed[place] ^ flip;
                    run(&bench, &changed);
                }
            }
        }
    }
}
