//! What is wrong with a table of routes: everything that cannot be a type, told all at once.

use std::collections::HashMap;
use std::fmt;

use super::row::{Access, Cache, Csrf, Row};

/// All faults of an `Api`, in order of declaration. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub(super) Vec<Fault>);

impl Faults {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.0.len() == 1 { "fault" } else { "faults" };
        writeln!(f, "{} {noun} in the declared routes:", self.0.len())?;
        self.0.iter().try_for_each(|fault| writeln!(f, "  {fault}"))
    }
}

impl std::error::Error for Faults {}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `METHOD /path` of the row; empty when it concerns no row.
    pub row: String,
    /// What is wrong.
    pub flaw: Flaw,
}

impl Fault {
    pub(super) fn new(row: &Row, flaw: Flaw) -> Self {
        Self { row: row.name(), flaw }
    }

    pub(super) fn general(flaw: Flaw) -> Self {
        Self { row: String::new(), flaw }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.row.is_empty() { self.flaw.fmt(f) } else { write!(f, "{}: {}", self.row, self.flaw) }
    }
}

/// What can be wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// An after-method with no route before it.
    #[error("`.{0}(…)` refers to the route just declared, and there is none")]
    NothingDeclared(&'static str),
    /// The path is not of the form that is routed.
    #[error("a path is `/`, or segments of `[A-Za-z0-9._~-]` and whole `{{parameters}}`, without a trailing slash")]
    PathMalformed,
    /// An adopted prefix with parameters.
    #[error("a prefix to adopt is one or more literal segments")]
    PrefixMalformed,
    /// The same method and path again.
    #[error("declared twice")]
    Duplicate,
    /// Two paths that match the same requests.
    #[error("differs from `{0}` only in the names of parameters")]
    SamePattern(String),
    /// A path below an adopted prefix.
    #[error("lies below the adopted prefix `{0}`")]
    BelowAdopted(String),
    /// A parameter nobody reads.
    #[error("the path has `{{{0}}}`, but no `Path<…>` argument has a field `{0}`")]
    ParameterUnread(String),
    /// A field without a parameter.
    #[error("`Path<…>` has a field `{0}`, but the path has no `{{{0}}}`")]
    ParameterMissing(String),
    /// More than one `Path` or `Query`.
    #[error("more than one `{0}<…>` argument")]
    ArgumentTwice(&'static str),
    /// A GET with a body argument.
    #[error("a GET has no body to read")]
    BodyOnRead,
    /// The document cannot be written down.
    #[error("the OpenAPI document cannot be serialised: {0}")]
    Indescribable(String),
    /// A closure has no name.
    #[error("a closure has no name to be an operation id: use a named function")]
    Closure,
    /// Two handlers of one name.
    #[error("the operation id `{0}` belongs to {1} already: rename the handler")]
    OperationIdTaken(String, String),
    /// A sentence that was asked for is missing.
    #[error("`{0}` needs a sentence, not an empty text")]
    Silent(&'static str),
    /// A shared cache would hand one tenant's answer to another.
    #[error("only a public route may be cached publicly")]
    PublicCache,
    /// Input that is not bounded.
    #[error("input `{type_name}` at `{at}`: {rule}")]
    InputOpen {
        /// The Rust type.
        type_name: String,
        /// Where in its schema (JSON Pointer).
        at: String,
        /// What is missing.
        rule: &'static str,
    },
    /// A query or path type that does not split into parameters.
    #[error("`{0}<{1}>` must be a flat struct of single values")]
    NotFlat(&'static str, String),
    /// Two types, one schema name.
    #[error("two types are called `{0}` in the document: rename one")]
    NameClash(String),
    /// A type read and written in different shapes.
    #[error("`{0}` is read and written in different shapes: use one type for input and another for output")]
    InputOutputDiffer(String),
}

/// Everything that shows in the rows alone.
pub(super) fn of_rows<'a>(
    declared: impl Iterator<Item = &'a Row> + Clone,
    adopted: impl Iterator<Item = &'a Row> + Clone,
) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut names: HashMap<String, &Row> = HashMap::new();
    let mut patterns: HashMap<String, &Row> = HashMap::new();
    let mut operations: HashMap<&str, &Row> = HashMap::new();
    for row in declared.clone().chain(adopted.clone()) {
        let mut add = |flaw| faults.push(Fault::new(row, flaw));
        sentences(row, &mut add);
        if row.adopted.is_none() && !is_path(&row.path) {
            add(Flaw::PathMalformed);
        }
        if row.adopted.is_some() && (!is_path(&row.path) || row.path == "/" || row.parameters().next().is_some()) {
            add(Flaw::PrefixMalformed);
        }
        if names.insert(row.name(), row).is_some() {
            add(Flaw::Duplicate);
        }
        match patterns.get(&pattern(&row.path)) {
            Some(other) if other.path != row.path => add(Flaw::SamePattern(other.path.clone())),
            Some(_) => {}
            None => {
                patterns.insert(pattern(&row.path), row);
            }
        }
        let above = adopted.clone().find(|other| {
            // An adopted prefix covers itself and everything below; of two prefixes the inner one is at fault.
            let below = row.path.strip_prefix(&other.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            below && !std::ptr::eq(*other, row) && (row.adopted.is_none() || row.path != other.path)
        });
        if let Some(other) = above {
            add(Flaw::BelowAdopted(other.path.clone()));
        }
        if row.adopted.is_none() {
            if row.operation_id.contains("{{") {
                add(Flaw::Closure);
            } else if let Some(other) = operations.insert(&row.operation_id, row) {
                add(Flaw::OperationIdTaken(row.operation_id.clone(), other.name()));
            }
        }
    }
    faults
}

fn sentences(row: &Row, add: &mut impl FnMut(Flaw)) {
    if row.summary.trim().is_empty() {
        add(Flaw::Silent("summary"));
    }
    if matches!(row.access, Access::Public { why } if why.trim().is_empty()) {
        add(Flaw::Silent("public"));
    }
    if matches!(row.csrf, Some(Csrf::Exempt(why)) if why.trim().is_empty()) {
        add(Flaw::Silent("Csrf::Exempt"));
    }
    if row.adopted.is_some_and(|why| why.trim().is_empty()) {
        add(Flaw::Silent("because"));
    }
    if matches!((row.access, row.cache), (Access::Requires { .. }, Cache::Public(_))) {
        add(Flaw::PublicCache);
    }
}

/// Only what needs no percent-encoding, so that a path has one spelling and axum never meets one it panics on.
fn is_path(path: &str) -> bool {
    let name = |text: &str, extra: &[u8]| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || extra.contains(&b))
    };
    let segment = |text: &str| match text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        Some(parameter) => name(parameter, b""),
        None => name(text, b".~-") && text != "." && text != "..",
    };
    let distinct = |path: &str| {
        let mut names: Vec<&str> = path.split('/').filter(|segment| segment.starts_with('{')).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        names.len() == all
    };
    path == "/" || path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(segment) && distinct(rest))
}

fn pattern(path: &str) -> String {
    let blank = |segment: &str| if segment.starts_with('{') { "{}".to_owned() } else { segment.to_owned() };
    path.split('/').map(blank).collect::<Vec<_>>().join("/")
}
