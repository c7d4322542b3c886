//! Answers as text: tables for lists, lines for single things.

use std::io::{self, Write as _};

use serde_json::{Map, Value};

use crate::exit::{Exit, Stop};

/// The columns that come first, in this order; others follow by name.
const FIRST: &[&str] = &[
    "seq", "at", "id", "slug", "tenant", "method", "path", "email", "name", "role", "tier", "status", "access", "cidr",
    "rate", "csrf", "action", "actor", "check", "outcome",
];

/// Whether to print text or JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Whether somebody still reads standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Yes.
    There,
    /// No: it has seen enough (`| head`), which is no error.
    Gone,
}

/// Writes to standard output.
pub fn write(text: &str) -> Result<Reader, Stop> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Stop::new(Exit::Failed, format!("cannot write to standard output: {error}"))),
    }
}

/// Writes to standard output, whether or not somebody reads it.
pub fn out(text: &str) -> Result<(), Stop> {
    write(text).map(|_| ())
}

/// Writes to standard error, where messages go. If even that fails, there is nobody to tell.
pub fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints a value.
pub fn value(value: &Value, form: Form) -> Result<(), Stop> {
    let text = match form {
        Form::Json => format!("{value}\n"),
        Form::Text => text(value),
    };
    out(&text)
}

/// Prints a list, as text only the named columns.
pub fn list(value: &Value, names: &[&str], form: Form) -> Result<(), Stop> {
    let chosen = |row: &Value| {
        names.iter().map(|name| ((*name).to_owned(), row.get(name).cloned().unwrap_or_default())).collect()
    };
    match (form, items(value)) {
        (Form::Text, Some(rows)) => {
            let rows: Vec<Map<String, Value>> = rows.iter().map(chosen).collect();
            self::value(&rows.into(), form)
        }
        _ => self::value(value, form),
    }
}

/// A list page is an object with `items`; everything else is what it looks like.
pub fn items(value: &Value) -> Option<&[Value]> {
    value.as_array().or_else(|| value.get("items").and_then(Value::as_array)).map(Vec::as_slice)
}

fn text(value: &Value) -> String {
    match (items(value), value) {
        (Some([]), _) => "none\n".into(),
        (Some(rows), _) => table(rows),
        (None, Value::Null) => "done\n".into(),
        (None, Value::Object(object)) => {
            let width = object.keys().map(String::len).max().unwrap_or(0);
            columns(std::slice::from_ref(value))
                .iter()
                .map(|key| format!("{key:width$}  {}\n", cell(object.get(key))))
                .collect()
        }
        (None, other) => format!("{}\n", cell(Some(other))),
    }
}

fn columns(rows: &[Value]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in rows.iter().filter_map(Value::as_object).flat_map(Map::keys) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    let rank = |name: &str| FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len());
    names.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
    names
}

fn table(rows: &[Value]) -> String {
    let columns = columns(rows);
    let mut lines: Vec<Vec<String>> = vec![columns.iter().map(|name| name.to_uppercase()).collect()];
    lines.extend(rows.iter().map(|row| columns.iter().map(|name| cell(row.get(name))).collect()));
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |cells: &Vec<String>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    lines.iter().map(line).collect()
}

/// A cell holds what a client chose: control and direction characters must not reach a terminal.
fn cell(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) => text.clone(),
        // One named thing reads better without brackets: `public: why: …`.
        Some(Value::Object(object)) if object.len() == 1 => {
            object.iter().map(|(name, value)| format!("{name}: {}", cell(Some(value)))).collect()
        }
        Some(other) => other.to_string(),
    };
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().map(|c| if hidden(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

/// One event of the audit trail as a line.
pub fn event(event: &Value, form: Form) -> String {
    let Value::Object(object) = event else { return format!("{event}\n") };
    if form == Form::Json {
        return format!("{event}\n");
    }
    const BARE: &[&str] = &["seq", "at", "action", "actor"];
    let mut parts: Vec<_> = BARE.iter().filter_map(|key| object.get(*key)).map(|value| cell(Some(value))).collect();
    let others = columns(std::slice::from_ref(event)).into_iter().filter(|key| !BARE.contains(&key.as_str()));
    parts.extend(others.map(|key| format!("{key}={}", cell(object.get(&key)))));
    format!("{}\n", parts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_become_tables_and_hostile_text_stays_visible_and_harmless() {
        let rows = json!([
            {"role": "owner", "id": "usr_1", "name": "Ada"},
            {"role": "member", "id": "usr_22", "name": "\u{1b}[2Jgone\u{202e}", "last_seen": null},
        ]);
        assert_eq!(
            text(&rows),
            "ID      NAME                   ROLE    LAST_SEEN\nusr_1   Ada                    owner   -\n\
             usr_22  \\u{1b}[2Jgone\\u{202e}  member  -\n"
        );
        assert_eq!(text(&json!([])), "none\n");
        assert_eq!(text(&json!({"slug": "acme", "tier": "pro"})), "slug  acme\ntier  pro\n");
        assert_eq!(text(&json!({"items": [{"id": 1}], "next": null})), "ID\n1\n");
    }

    #[test]
    fn an_event_is_one_line_whatever_it_holds() {
        let line = event(&json!({"seq": 7, "action": "login.failed", "note": "a\nb"}), Form::Text);
        assert_eq!(line, "7 login.failed note=a\\u{a}b\n");
    }
}
