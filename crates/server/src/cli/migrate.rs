//! `bartizan migrate`: from one machine to many.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use bartizan_keys::read_secret;
use bartizan_store::db::{Moved, Progress, Stage, Transferred, transfer};
use bartizan_store::{DbOptions, StoreErrorKind};
use serde_json::{Value, json};

use super::show::{self, Form};
use crate::config::Sources;
use crate::config::setting::{DatabaseUrl, Raw, Setting};
use crate::exit::{Exit, Stop};

/// Moves the configured SQLite database into the PostgreSQL database at `to`.
pub(super) async fn embedded_to_cluster(
    to: &str,
    password_file: Option<&Path>,
    sources: &Sources,
    form: Form,
) -> Result<(), Stop> {
    let config = sources.read()?;
    let settings = config.settings();
    if !settings.database.starts_with("sqlite:") {
        let stop =
            Stop::new(Exit::Failed, "the configuration names a database server already: there is nothing to move");
        return Err(stop.hint("Name the old configuration, with `database.url = \"sqlite:…\"`, by --config."));
    }
    let DatabaseUrl(target) = DatabaseUrl::read(&Raw::Text(to.into())).map_err(|wrong| {
        Stop::new(Exit::Usage, format!("--to must be {wrong}").replace("`database.password_file`", "--password-file"))
    })?;
    let password = password_file.map(read_secret).transpose();
    let password = password.map_err(|fault| Stop::new(Exit::Failed, format!("--password-file: {fault}")))?;
    let options = DbOptions { password, ..DbOptions::default() };
    let mut bar = Bar::new();
    let moved = transfer(&settings.database, &settings.data, &target, &options, |progress| bar.show(progress)).await;
    bar.end();
    let moved = moved.map_err(|error| match error.kind() {
        StoreErrorKind::Locked => Stop::new(Exit::InUse, error.to_string())
            .hint("Stop the old server first, and leave it off: what it changed afterwards would be lost."),
        StoreErrorKind::Busy | StoreErrorKind::Unreachable | StoreErrorKind::Unknown => {
            Stop::new(Exit::Failed, error.to_string()).hint("Run the same command again: it goes on where it stopped.")
        }
        _ => Stop::new(Exit::Failed, error.to_string()),
    })?;
    let keys = next(&target, password_file);
    match form {
        Form::Json => show::value(&answer(&moved, &keys), form)?,
        Form::Text => match &moved {
            Transferred::Now(tables) => show::value(&listed(tables), form)?,
            Transferred::Before(_) => {}
        },
    }
    say(&moved, &keys, &config.secrets());
    Ok(())
}

/// The keys to set, with their values as TOML.
fn next(target: &str, password_file: Option<&Path>) -> [(&'static str, String); 3] {
    let password = password_file.map_or_else(
        || "/path/to/password".to_owned(),
        |path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string(),
    );
    [
        ("database.url", target.to_owned()),
        ("database.password_file", password),
        ("state.url", "redis://HOST:6379".to_owned()),
    ]
}

fn listed(tables: &[Moved]) -> Value {
    let row = |moved: &Moved| json!({"name": moved.table, "rows": moved.rows, "sha256": moved.digest});
    tables.iter().map(row).collect()
}

fn answer(moved: &Transferred, keys: &[(&'static str, String)]) -> Value {
    let set: serde_json::Map<_, _> = keys.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    match moved {
        Transferred::Now(tables) => json!({"outcome": "moved", "tables": listed(tables), "set": set}),
        Transferred::Before(at) => {
            json!({"outcome": "moved before", "finished_at": at.to_string(), "tables": [], "set": set})
        }
    }
}

/// What the operator does next. A message, so it goes where messages go.
fn say(moved: &Transferred, keys: &[(&'static str, String)], secrets: &Path) {
    match moved {
        Transferred::Now(tables) => {
            let rows: u64 = tables.iter().map(|moved| moved.rows).sum();
            show::say(&format!("\nMoved {rows} rows; count and digest of every table are equal on both sides."));
        }
        Transferred::Before(at) => {
            show::say(&format!("This database was moved completely at {at}; nothing was done."));
        }
    }
    show::say("\nOn every node set:\n");
    for (key, value) in keys {
        show::say(&format!("  {key} = {}", toml::Value::String(value.clone())));
    }
    show::say(&format!(
        "\nEvery node needs a copy of the secrets in {}: without them nobody can log in and nothing sealed can be read.\n\
         Keep `server.public_url` and `tokens.audience`, or every token ends. Counters of requests begin anew; failed\n\
         logins, blocks, sessions and revocations came along. Leave the old server off; its database was not changed.",
        secrets.display()
    ));
}

/// A bar on a terminal; elsewhere one line for each table that is done.
struct Bar {
    terminal: bool,
    drawn: bool,
    last: Option<(Stage, &'static str, u64)>,
}

/// Characters of the bar.
const WIDTH: u64 = 32;

impl Bar {
    fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), drawn: false, last: None }
    }

    fn show(&mut self, progress: Progress) {
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

    fn end(&mut self) {
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

    #[test]
    fn what_to_set_is_toml_that_says_where_the_password_is() {
        let keys = next("postgres://bartizan@db.example/bartizan", Some(Path::new("/run/secrets/db \"x\"")));
        let line = toml::Value::String(keys[1].1.clone()).to_string();
        let read: toml::Table = toml::from_str(&format!("{} = {line}", keys[1].0)).unwrap();
        assert_eq!(read["database"]["password_file"].as_str(), Some("/run/secrets/db \"x\""));
    }
}
