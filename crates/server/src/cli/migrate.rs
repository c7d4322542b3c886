//! `bartizan migrate`: from one machine to many.

mod bar;

use std::path::{Path, PathBuf};

use bartizan::carrying::{Carried, Carrier, Snapshot};
use bartizan::clock::Clock;
use bartizan::settings::{Settings, State};
use bartizan_keys::read_secret;
use bartizan_store::db::{Moved, Transferred, transfer};
use bartizan_store::{DbOptions, StoreErrorKind};
use serde_json::{Value, json};

use self::bar::Bar;
use super::show::{self, Form};
use crate::config::Sources;
use crate::config::setting::{DatabaseUrl, Raw, Setting, StateUrl};
use crate::exit::{Exit, Stop};

/// Where to, as it was typed.
pub(super) struct Target {
    pub(super) database: String,
    pub(super) password_file: Option<PathBuf>,
    pub(super) state: Option<String>,
    pub(super) state_password_file: Option<PathBuf>,
}

/// What helps when the way was cut short.
const AGAIN: &str = "Run the same command again: it goes on where it stopped.";

/// Moves the configured SQLite database, and what its server counted, to where many nodes share them.
pub(super) async fn embedded_to_cluster(to: &Target, sources: &Sources, form: Form) -> Result<(), Stop> {
    let config = sources.read()?;
    let old = config.settings();
    if !old.database.starts_with("sqlite:") {
        let stop =
            Stop::new(Exit::Failed, "the configuration names a database server already: there is nothing to move");
        return Err(stop.hint("Name the old configuration, with `database.url = \"sqlite:…\"`, by --config."));
    }
    let new = to.settings(&old)?;
    let carrier = match &to.state {
        Some(_) => Some(reach(&new.state).await?),
        None => None,
    };
    let moved = truth(&old, &new).await?;
    let keys = to.keys(&new);
    let limits = match &carrier {
        Some(carrier) => match counters(carrier, &new).await {
            Ok(carried) => Some(carried),
            Err(stop) => {
                say(&moved, &keys, &config.secrets());
                return Err(stop);
            }
        },
        None => None,
    };
    match form {
        Form::Json => show::value(&answer(&moved, limits.as_ref(), &keys), form)?,
        Form::Text => match &moved {
            Transferred::Now(tables) => show::value(&listed(tables), form)?,
            Transferred::Before(_) => {}
        },
    }
    say(&moved, &keys, &config.secrets());
    show::say(&told(limits.as_ref(), &new.data));
    Ok(())
}

impl Target {
    /// What the new nodes will be told, as far as it matters here: the old settings, less what is left behind.
    fn settings(&self, old: &Settings) -> Result<Settings, Stop> {
        let mut new = old.clone();
        let usage = |option: &str, wrong: String, file: (&str, &str)| {
            Stop::new(Exit::Usage, format!("{option} must be {wrong}").replace(file.0, file.1))
        };
        let DatabaseUrl(database) = DatabaseUrl::read(&Raw::Text(self.database.clone()))
            .map_err(|wrong| usage("--to", wrong, ("`database.password_file`", "--password-file")))?;
        new.database = database;
        new.database_server.password_file.clone_from(&self.password_file);
        if let Some(state) = &self.state {
            let read = StateUrl::read(&Raw::Text(state.clone())).ok().filter(|url| url.0 != State::EMBEDDED);
            let wrong = || StateUrl::must().replace("\"embedded\", or ", "");
            let StateUrl(url) =
                read.ok_or_else(|| usage("--state", wrong(), ("`state.password_file`", "--state-password-file")))?;
            new.state.url = url;
            if self.state_password_file.is_some() {
                new.state.password_file.clone_from(&self.state_password_file);
            }
        }
        Ok(new)
    }

    /// The keys to set, with their values as TOML.
    fn keys(&self, new: &Settings) -> Vec<(&'static str, String)> {
        let file = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
        let password = self.password_file.as_deref().map_or_else(|| "/path/to/password".to_owned(), file);
        let mut keys = vec![("database.url", new.database.clone()), ("database.password_file", password)];
        let state = if self.state.is_some() { new.state.url.clone() } else { "redis://HOST:6379".to_owned() };
        keys.push(("state.url", state));
        if let (Some(path), Some(_)) = (&new.state.password_file, &self.state) {
            keys.push(("state.password_file", file(path)));
        }
        keys
    }
}

/// Looks at the shared state before anything is written anywhere.
async fn reach(state: &State) -> Result<Carrier, Stop> {
    let carrier = Carrier::reach(state).await.map_err(|error| {
        Stop::new(Exit::Failed, error.to_string().replace("(state.url)", "(--state)")).hint("Nothing was moved yet.")
    })?;
    for server in carrier.evicting() {
        show::say(&format!(
            "warning: {server} may evict limits and bans when its memory is full: CONFIG SET maxmemory-policy \
             noeviction, and the same in redis.conf"
        ));
    }
    Ok(carrier)
}

/// Copies every table.
async fn truth(old: &Settings, new: &Settings) -> Result<Transferred, Stop> {
    let password = new.database_server.password_file.as_deref().map(read_secret).transpose();
    let password = password.map_err(|fault| Stop::new(Exit::Failed, format!("--password-file: {fault}")))?;
    let options = DbOptions { password, ..DbOptions::default() };
    let mut bar = Bar::new();
    let moved = transfer(&old.database, &old.data, &new.database, &options, |progress| bar.show(progress)).await;
    bar.end();
    moved.map_err(|error| match error.kind() {
        StoreErrorKind::Locked => Stop::new(Exit::InUse, error.to_string())
            .hint("Stop the old server first, and leave it off: what it changed afterwards would be lost."),
        StoreErrorKind::Busy | StoreErrorKind::Unreachable | StoreErrorKind::Unknown => {
            Stop::new(Exit::Failed, error.to_string()).hint(AGAIN)
        }
        _ => Stop::new(Exit::Failed, error.to_string()),
    })
}

/// Takes the counters along.
async fn counters(carrier: &Carrier, new: &Settings) -> Result<Carried, Stop> {
    let mut bar = Bar::new();
    let carried = carrier.carry(new, &Clock::system(), |progress| bar.show(progress)).await;
    bar.end();
    carried.map_err(|error| {
        Stop::new(Exit::Failed, format!("the database was moved, its counters were not: {error}")).hint(AGAIN)
    })
}

fn listed(tables: &[Moved]) -> Value {
    let row = |moved: &Moved| json!({"name": moved.table, "rows": moved.rows, "sha256": moved.digest});
    tables.iter().map(row).collect()
}

fn answer(moved: &Transferred, limits: Option<&Carried>, keys: &[(&'static str, String)]) -> Value {
    let set: serde_json::Map<_, _> = keys.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    let limits = limits.map(|carried| {
        json!({"counters": carried.counters, "bans": carried.bans, "written": carried.written,
        "snapshot": match carried.snapshot {
            Snapshot::Missing => "missing",
            Snapshot::Flawed(_) => "unusable",
            Snapshot::Read { .. } => "read",
        }})
    });
    match moved {
        Transferred::Now(tables) => {
            json!({"outcome": "moved", "tables": listed(tables), "limits": limits, "set": set})
        }
        Transferred::Before(at) => json!({
            "outcome": "moved before", "finished_at": at.to_string(), "tables": [], "limits": limits, "set": set
        }),
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
            show::say(&format!("This database was moved completely at {at}; its rows were left alone."));
        }
    }
    show::say("\nOn every node set:\n");
    for (key, value) in keys {
        show::say(&format!("  {key} = {}", toml::Value::String(value.clone())));
    }
    show::say(&format!(
        "\nEvery node needs a copy of the secrets in {}: without them nobody can log in and nothing sealed can be read.\n\
         Keep `server.public_url` and `tokens.audience`, or every token ends. Failed logins, blocks, sessions and\n\
         revocations came along. Leave the old server off; its files were not changed.",
        secrets.display()
    ));
}

/// What became of the counters.
fn told(limits: Option<&Carried>, data: &Path) -> String {
    let Some(Carried { counters, bans, written, snapshot }) = limits else {
        return "Counters of requests and bans begin anew, unless this command is run again with --state redis://…: that\n\
            takes them along, before the nodes are started or after."
            .to_owned();
    };
    let from = match snapshot {
        Snapshot::Read { age } => format!("The old server last wrote them down {} s ago.", age.as_secs()),
        Snapshot::Missing => format!("They are failed logins only: there is no limits.snapshot in {}.", data.display()),
        Snapshot::Flawed(flaw) => format!(
            "warning: {} cannot be taken along, {flaw}:\nonly failed logins were, and counters of requests and bans begin \
             anew, as they would have on the old server.",
            data.join("limits.snapshot").display()
        ),
    };
    format!(
        "{counters} counters and {bans} records of bans are in force in the shared state, {written} of them written now; keep\n\
         `state.prefix`. {from}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_set_is_toml_that_says_where_the_password_is() {
        let to = Target {
            database: "postgres://bartizan@db.example/bartizan".into(),
            password_file: Some("/run/secrets/db \"x\"".into()),
            state: None,
            state_password_file: None,
        };
        let keys = to.keys(&to.settings(&Settings::embedded("/srv")).unwrap());
        let line = toml::Value::String(keys[1].1.clone()).to_string();
        let read: toml::Table = toml::from_str(&format!("{} = {line}", keys[1].0)).unwrap();
        assert_eq!(read["database"]["password_file"].as_str(), Some("/run/secrets/db \"x\""));
    }
}
