//! What a person reads.

use std::time::Duration;

use crate::library::NODES;
use crate::run::{Outcome, Schedule, TASKS};

const NAMES: [&str; 4] =
    ["bartizan, no leases", "limitador, AsyncRedisStorage", "bartizan, leases", "limitador, CachedRedisStorage"];
/// Decisions of Bartizan for each of limitador, at least.
const PROMISED: f64 = 2.0;

pub fn head(rounds: usize, length: Duration) {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |(_, name)| name);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{cores} cores of {cpu}; one Redis a run, {NODES} nodes in one process, {TASKS} tasks in a closed loop, {} s, \
         median of {rounds} in turn",
        length.as_secs()
    );
}

pub fn schedule(schedule: &Schedule, rounds: &[[Outcome; 4]]) {
    println!("\n**{}**: {}\n", schedule.name, schedule.what);
    print!("| library | decisions/s | p50 µs | p99 µs | CPU µs each: nodes, Redis | admitted/s |");
    let counts = format!(
        " most of a key in a second (allowed: {}) | beyond the limit: worst key, all keys |",
        2 * schedule.limit
    );
    println!("{}", if schedule.refuses() { &counts } else { "" });
    println!("|---|---:|---:|---:|---:|---:|{}", if schedule.refuses() { "---:|---:|" } else { "" });
    for (place, name) in NAMES.iter().enumerate() {
        let of = |figure: fn(&Outcome) -> f64| median(rounds.iter().map(|round| figure(&round[place])));
        print!(
            "| {name} | {} | {:.1} | {:.1} | {:.1}, {:.1} | {} |",
            thousands(of(|each| each.rate)),
            of(|each| each.p50),
            of(|each| each.p99),
            of(|each| each.nodes),
            of(|each| each.store),
            thousands(of(|each| each.admitted)),
        );
        if schedule.refuses() {
            // Of all rounds the worst: a limit that holds most of the time does not hold.
            let worst =
                |figure: fn(&Outcome) -> u64| rounds.iter().map(|round| figure(&round[place])).max().unwrap_or(0);
            print!(
                " {} | {}, {} |",
                worst(|each| each.excess.most),
                worst(|each| each.excess.worst),
                worst(|each| each.excess.all)
            );
        }
        println!();
    }
    println!();
    for (ours, theirs) in [(0, 1), (2, 3)] {
        // The ratio of each round, so that what disturbs the machine disturbs both sides of it.
        let ratio = median(rounds.iter().map(|round| round[ours].rate / round[theirs].rate));
        let verdict = if ratio >= PROMISED { "holds" } else { "falls short" };
        println!("- {} / {}: {ratio:.2} (promised ≥ {PROMISED}: {verdict})", NAMES[ours], NAMES[theirs]);
    }
}

pub fn foot() {
    println!(
        "\nBeyond the limit: most admitted in any stretch of time of length T, less `limit + limit × T`; of all rounds the \
         worst. Only what was asked and answered within the stretch is counted, and a millisecond is allowed for."
    );
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().saturating_sub(1) / 2), values.get(values.len() / 2));
    (low.copied().unwrap_or(0.0) + high.copied().unwrap_or(0.0)) / 2.0
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
