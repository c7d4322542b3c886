//! Limits through one Redis: Bartizan's library beside limitador 0.14, on the same schedule.
//!
//!     bartizan-beside-limitador [--short] [SCHEDULE]
//!
//! Each run has a Redis of its own, two nodes of the library in this process, and 64 tasks that ask one question after the
//! other, half of them on each node. The libraries take turns; medians of the rounds are printed as a Markdown table, with
//! what each admitted beyond its limit. `excess.rs` says how that is counted, and why it is the same count for both.

mod excess;
mod library;
mod report;
mod run;

use std::time::Duration;

use library::{About, Kind};
use run::{Order, Outcome, Schedule};

/// What is asked: of how many keys, and how much each of them may have.
const SCHEDULES: [Schedule; 5] = [
    Schedule {
        name: "request",
        what: "the three limits of a request (address, user, tenant), 1,000 users, all admitted",
        keys: 1_000,
        order: Order::Even,
        about: About::Request,
        limit: 1_000_000,
    },
    Schedule {
        name: "room",
        what: "one limit, 1,000 keys, all admitted",
        keys: 1_000,
        order: Order::Even,
        about: About::User,
        limit: 1_000_000,
    },
    Schedule {
        name: "hot",
        what: "one limit, 4 keys, all admitted",
        keys: 4,
        order: Order::Even,
        about: About::User,
        limit: 1_000_000,
    },
    Schedule {
        name: "over",
        what: "one limit, 20 keys of 100 a second each, and far more asked",
        keys: 20,
        order: Order::Even,
        about: About::User,
        limit: 100,
    },
    Schedule {
        name: "mixed",
        what: "one limit, 1,000 keys of 500 a second each, some asked far more often than others",
        keys: 1_000,
        order: Order::Skewed,
        about: About::User,
        limit: 500,
    },
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mut short, mut only) = (false, None);
    for arg in std::env::args().skip(1) {
        match SCHEDULES.iter().find(|schedule| schedule.name == arg) {
            Some(schedule) => only = Some(schedule.name),
            None if arg == "--short" => short = true,
            None => return Err(format!("neither --short nor a schedule: {arg}").into()),
        }
    }
    let (rounds, length) = if short { (1, Duration::from_secs(2)) } else { (5, Duration::from_secs(5)) };
    report::head(rounds, length);
    for schedule in SCHEDULES.iter().filter(|schedule| only.is_none_or(|only| only == schedule.name)) {
        let mut found: Vec<[Outcome; 4]> = Vec::new();
        for _ in 0..rounds {
            found.push([
                run::run(schedule, Kind::Bartizan, length)?,
                run::run(schedule, Kind::Limitador, length)?,
                run::run(schedule, Kind::BartizanLeases, length)?,
                run::run(schedule, Kind::LimitadorCached, length)?,
            ]);
        }
        report::schedule(schedule, &found);
    }
    report::foot();
    Ok(())
}
