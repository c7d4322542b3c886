//! How far a migration has come.

use std::io::{self, IsTerminal as _, Write as _};

use bartizan_store::db::{Progress, Stage};

use crate::cli::show;

/// A bar on a terminal; elsewhere one line for each table that is done.
pub(super) struct Bar {
    terminal: bool,
    drawn: bool,
    last: Option<(Stage, &'static str, u64)>,
}

/// Characters of the bar.
const WIDTH: u64 = 32;

impl Bar {
    pub(super) fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), drawn: false, last: None }
    }

    pub(super) fn show(&mut self, progress: Progress) {
        if self.terminal {
            let line = draw(&progress);
            // A bar that cannot be drawn is no reason to stop.
            let _ = write!(io::stderr().lock(), "\r{line}\x1b[K");
            self.drawn = true;
        } else if progress.done >= progress.rows || self.is_far(&progress) {
            let now = (progress.stage, progress.table, progress.done);
            if self.last != Some(now) {
                show::say(&format!(
                    "{} {}: {} of {} rows",
                    verb(progress.stage),
                    progress.table,
                    progress.done,
                    progress.rows
                ));
            }
            self.last = Some(now);
        }
    }

    /// Whether a log deserves another line: every twentieth batch of a long table.
    fn is_far(&self, progress: &Progress) -> bool {
        const EVERY: u64 = 10_000;
        let before = self.last.filter(|(stage, table, _)| *stage == progress.stage && *table == progress.table);
        progress.done >= before.map_or(0, |(_, _, done)| done) + EVERY
    }

    pub(super) fn end(&mut self) {
        if self.drawn {
            let _ = writeln!(io::stderr().lock());
        }
    }
}

fn verb(stage: Stage) -> &'static str {
    match stage {
        Stage::Copying => "copying",
        Stage::Comparing => "comparing",
    }
}

fn draw(progress: &Progress) -> String {
    let all = progress.all.max(1);
    let steps = progress.steps.min(all);
    let full = usize::try_from(steps.saturating_mul(WIDTH) / all).unwrap_or_default();
    let empty = usize::try_from(WIDTH).unwrap_or_default().saturating_sub(full);
    format!(
        "[{}{}] {:3} %  {} {}: {} of {}",
        "#".repeat(full),
        ".".repeat(empty),
        steps.saturating_mul(100) / all,
        verb(progress.stage),
        progress.table,
        progress.done,
        progress.rows
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_shows_how_much_of_all_is_done() {
        let mut progress =
            Progress { stage: Stage::Copying, table: "audit", done: 500, rows: 2_000, steps: 1_000, all: 4_000 };
        assert_eq!(draw(&progress), "[########........................]  25 %  copying audit: 500 of 2000");
        (progress.steps, progress.all) = (0, 0);
        assert!(draw(&progress).contains("  0 %"));
    }
}
