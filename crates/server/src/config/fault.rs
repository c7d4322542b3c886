//! What is wrong with a configuration: all of it at once, each fault with its place and the way to mend it.

use std::fmt::{self, Write as _};
use std::ops::Range;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// These bytes of the file.
    File(Range<usize>),
    /// This environment variable.
    Environment(String),
    /// This flag of the command line.
    Flag(&'static str),
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub origin: Origin,
    /// What, as a sentence.
    pub message: String,
    /// How to mend it, when that can be guessed.
    pub hint: Option<String>,
}

/// All faults of a configuration, with the text they point into.
#[derive(Clone, Debug)]
pub struct Faults {
    file: String,
    text: String,
    faults: Vec<Fault>,
}

impl Faults {
    /// Gathers faults found in `text`, which came from `file`; in the order in which a person would mend them.
    pub fn new(file: impl Into<String>, text: impl Into<String>, mut faults: Vec<Fault>) -> Self {
        faults.sort_by_key(|fault| match &fault.origin {
            Origin::File(span) => (0, span.start),
            Origin::Environment(_) => (1, 0),
            Origin::Flag(_) => (2, 0),
            Origin::Default => (3, 0),
        });
        Self { file: file.into(), text: text.into(), faults }
    }

    /// The faults, those of the file first.
    pub fn list(&self) -> &[Fault] {
        &self.faults
    }

    /// `file:line:column`, the variable or the flag.
    pub fn place(&self, fault: &Fault) -> String {
        match &fault.origin {
            Origin::File(span) => {
                let before = self.text.get(..span.start).unwrap_or(&self.text);
                let line = before.matches('\n').count().saturating_add(1);
                let start = before.rfind('\n').map_or(0, |newline| newline.saturating_add(1));
                let column = before.get(start..).unwrap_or_default().chars().count().saturating_add(1);
                format!("{}:{line}:{column}", self.file)
            }
            Origin::Environment(name) => format!("environment variable {name}"),
            Origin::Flag(flag) => (*flag).into(),
            Origin::Default => self.file.clone(),
        }
    }

    /// Draws every fault with a caret under the place.
    ///
    /// Of the file only the line of the fault is shown, and of that nothing behind the fault: a value that is not at
    /// fault, such as a secret under a key that does not exist, has no business in a terminal or a log.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for fault in &self.faults {
            let _ = writeln!(out, "error: {}: {}", self.place(fault), fault.message);
            if let Origin::File(span) = &fault.origin {
                self.draw(span, &mut out);
            }
            if let Some(hint) = &fault.hint {
                let _ = writeln!(out, "  hint: {hint}");
            }
            out.push('\n');
        }
        let count = self.faults.len();
        let _ = write!(out, "{count} {} to mend.", if count == 1 { "fault" } else { "faults" });
        out
    }

    fn draw(&self, span: &Range<usize>, out: &mut String) {
        let before = self.text.get(..span.start).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |newline| newline.saturating_add(1));
        let lead = before.get(start..).unwrap_or_default();
        let marked = self.text.get(span.clone()).unwrap_or_default().lines().next().unwrap_or_default();
        // A line that does not fit is not worth breaking: the place is in the first line of the message.
        if lead.chars().count().saturating_add(marked.chars().count()) > 160 {
            return;
        }
        let number = before.matches('\n').count().saturating_add(1).to_string();
        let margin = " ".repeat(number.len());
        let clean =
            |text: &str| text.chars().map(|c| if c.is_control() && c != '\t' { '·' } else { c }).collect::<String>();
        let indent: String = lead.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let carets = "^".repeat(marked.chars().count().max(1));
        let _ = writeln!(out, "  {number} | {}{}", clean(lead), clean(&without_user_info(marked)));
        let _ = writeln!(out, "  {margin} | {indent}{carets}");
    }
}

/// Hides what stands between `://` and `@`: a URL may carry a password.
fn without_user_info(text: &str) -> String {
    let hidden = text.split_once("://").and_then(|(scheme, rest)| {
        let (user_info, host) = rest.rsplit_once('@')?;
        Some(format!("{scheme}://{}@{host}", "*".repeat(user_info.chars().count())))
    });
    hidden.unwrap_or_else(|| text.into())
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.faults {
            writeln!(f, "{}: {}", self.place(fault), fault.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
