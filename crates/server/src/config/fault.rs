//! What is wrong with a configuration: all of it at once, each fault with its place and the way to mend it.

use std::fmt::{self, Write as _};
use std::ops::Range;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};

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
    pub fn render(&self, theme: GraphicalTheme) -> String {
        let handler = GraphicalReportHandler::new_themed(theme).with_width(110).with_context_lines(0);
        let source = NamedSource::new(&self.file, self.text.clone());
        let mut out = String::new();
        for fault in &self.faults {
            let drawn = Drawn { fault, place: self.place(fault), source: &source };
            // Writing to a string fails only if the text itself cannot be formatted; then the sentence is said alone.
            if handler.render_report(&mut out, &drawn).is_err() {
                let _ = writeln!(out, "{drawn}");
            }
            out.push('\n');
        }
        let count = self.faults.len();
        let _ = write!(out, "{count} {} to mend.", if count == 1 { "fault" } else { "faults" });
        out
    }
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

#[derive(Debug)]
struct Drawn<'a> {
    fault: &'a Fault,
    place: String,
    source: &'a NamedSource<String>,
}

impl fmt::Display for Drawn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.fault.message)
    }
}

impl std::error::Error for Drawn<'_> {}

impl Diagnostic for Drawn<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.fault.hint.as_ref().map(|hint| Box::new(hint) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        matches!(self.fault.origin, Origin::File(_)).then_some(self.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let Origin::File(span) = &self.fault.origin else { return None };
        let label = LabeledSpan::new_primary_with_span(Some("here".into()), span.clone());
        Some(Box::new(std::iter::once(label)))
    }
}
