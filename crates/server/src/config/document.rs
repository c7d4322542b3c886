//! What is made from the list of keys: the example file, the reference page, the JSON Schema and `config print`.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::fault::Origin;
use super::keys::{Apply, Key, TABLES};
use super::{Config, variable};

/// A doc comment as one line.
pub(super) fn one_line(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn name(key: &Key) -> &'static str {
    key.path.rsplit('.').next().unwrap_or(key.path)
}

/// What stands behind the commented key when it is unset by default: something a reader can imitate.
fn imitate(key: &Key) -> &'static str {
    match key.path {
        "server.public_url" => "\"https://api.example.com\"",
        "secrets.root_key_file" => "\"/run/secrets/root.key\"",
        "secrets.password_pepper_file" => "\"/run/secrets/password-pepper.key\"",
        "server.tls.cert" => "\"tls/cert.pem\"",
        "server.tls.key" => "\"tls/key.pem\"",
        "database.password_file" => "\"/run/secrets/database-password\"",
        "state.user" => "\"bartizan\"",
        "state.password_file" => "\"/run/secrets/redis-password\"",
        "state.sentinel_password_file" => "\"/run/secrets/sentinel-password\"",
        "state.ca_file" => "\"tls/redis-ca.pem\"",
        _ => "600",
    }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len().saturating_add(word.len()) < width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}

/// The example file: every key with its default, commented out.
pub fn example() -> String {
    let mut out = String::from(
        "# Bartizan's configuration. Every key is shown with its default and commented out: write down only what differs.\n\
         # Order of force: these defaults, this file, environment variables, flags of the command line.\n\
         # A relative path is taken from the directory of this file. Secrets are never written here: see [secrets].\n\
         # Check with `bartizan config check`, see what is in force with `bartizan config print --effective`.\n",
    );
    for table in TABLES {
        out.push('\n');
        for line in wrapped(table.doc, 116) {
            let _ = writeln!(out, "# {line}");
        }
        let _ = writeln!(out, "[{}]", table.path);
        for key in table.keys {
            for line in wrapped(key.doc, 115) {
                let _ = writeln!(out, "## {line}");
            }
            let value = (key.default_toml)(key.default);
            let _ = writeln!(out, "# {} = {}", name(key), value.as_deref().unwrap_or_else(|| imitate(key)));
        }
    }
    out
}

/// What `bartizan init` writes: where things are, and where to read on.
pub fn initial() -> String {
    "# Bartizan's configuration. What is not written here has its default: `bartizan config print --effective` shows all,\n\
     # `bartizan config example` explains each key, `bartizan config check` finds mistakes.\n\
     # Paths are relative to this file. Secrets are files in the directory below and never written here.\n\
     \n\
     [server]\n\
     listen = \"127.0.0.1:8080\"\n\
     \n\
     [ops]\n\
     listen = \"127.0.0.1:9090\"\n\
     \n\
     [data]\n\
     dir = \"data\"\n\
     \n\
     [secrets]\n\
     dir = \"secrets\"\n\
     \n\
     [database]\n\
     url = \"sqlite:bartizan.db\"\n"
        .into()
}

/// The reference page, `docs/config.md`.
pub fn reference() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         <!-- Generated from crates/server/src/config/keys.rs by `bartizan config reference`; a test keeps the two equal. -->\n\n\
         One TOML file, named by `--config`. Order of force: defaults, the file, environment variables, flags. Any key can be set by the\n\
         environment: `limits.ban.after` is `BARTIZAN__LIMITS__BAN__AFTER`; items of a list are separated by commas, an empty text unsets an\n\
         optional key. Unknown keys and variables stop the start. A relative path is taken from the directory of the file.\n\
         There is no key for a secret: secrets are files in `secrets.dir`.\n\n\
         *Acts* says when a change takes effect: `live` when the file changes or the server gets SIGHUP, `restart` at the next start.\n",
    );
    for table in TABLES {
        let _ = writeln!(out, "\n## `[{}]`\n\n{}\n", table.path, one_line(table.doc));
        out.push_str("| key | default | must be | acts | |\n|---|---|---|---|---|\n");
        for key in table.keys {
            let default = (key.default_toml)(key.default).map_or_else(|| "—".into(), |value| format!("`{value}`"));
            let acts = match key.apply {
                Apply::Live => "live",
                Apply::Restart => "restart",
            };
            let _ =
                writeln!(out, "| `{}` | {default} | {} | {acts} | {} |", name(key), (key.must)(), one_line(key.doc));
        }
    }
    out
}

/// The JSON Schema of the file, for editors.
pub fn schema() -> Value {
    let mut root = json!({"type": "object", "additionalProperties": false, "properties": {}});
    for table in TABLES {
        let mut at = &mut root;
        for part in table.path.split('.') {
            at = step(at, part);
        }
        if let Some(object) = at.as_object_mut() {
            object.insert("description".into(), one_line(table.doc).into());
        }
        for key in table.keys {
            let mut schema = (key.schema)();
            if let Some(object) = schema.as_object_mut() {
                object.insert("description".into(), format!("{} Must be {}.", one_line(key.doc), (key.must)()).into());
            }
            if let Some(properties) = at.get_mut("properties").and_then(Value::as_object_mut) {
                properties.insert(name(key).into(), schema);
            }
        }
    }
    if let Some(object) = root.as_object_mut() {
        object.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        object.insert("title".into(), "bartizan.toml".into());
    }
    root
}

/// The schema of the table `part` inside `at`, made when missing.
fn step<'a>(at: &'a mut Value, part: &str) -> &'a mut Value {
    let properties = match at {
        Value::Object(object) => object.entry("properties").or_insert_with(|| Value::Object(Map::new())),
        other => other,
    };
    match properties {
        Value::Object(object) => object
            .entry(part)
            .or_insert_with(|| json!({"type": "object", "additionalProperties": false, "properties": {}})),
        other => other,
    }
}

/// What to print of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Only what somebody set.
    Set,
    /// Everything in force, each with who set it.
    Effective,
}

/// The configuration as a TOML file that, read again, means the same.
pub fn print(config: &Config, extent: Extent) -> String {
    let values = config.keys.values();
    let mut out = String::new();
    for table in TABLES {
        let mut lines = String::new();
        for key in table.keys {
            let origin = config.origins.get(key.path);
            if extent == Extent::Set && origin.is_none() {
                continue;
            }
            let value = values.iter().find(|(path, _)| *path == key.path).and_then(|(_, value)| value.as_deref());
            let by = match (extent, origin) {
                (Extent::Set, _) => String::new(),
                (_, None | Some(Origin::Default)) => " # default".into(),
                (_, Some(Origin::File(_))) => " # file".into(),
                (_, Some(Origin::Environment(_))) => format!(" # {}", variable(key.path)),
                (_, Some(Origin::Flag(flag))) => format!(" # {flag}"),
            };
            let _ = match value {
                Some(value) => writeln!(lines, "{} = {value}{by}", name(key)),
                None => writeln!(lines, "# {} is unset", name(key)),
            };
        }
        if !lines.is_empty() {
            let gap = if out.is_empty() { "" } else { "\n" };
            let _ = write!(out, "{gap}[{}]\n{lines}", table.path);
        }
    }
    out
}
