//! One line of the route table: everything that was declared about a route.

use std::any::TypeId;
use std::fmt;
use std::time::Duration;

use axum::response::Response;
use bartizan_core::browser;
use bartizan_core::principal::Role;
use serde::{Serialize, Serializer};

/// The method of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    /// GET, and HEAD with it.
    Get,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
    /// Whatever an adopted router answers.
    Any,
}

impl Verb {
    /// As on the wire; `ANY` for an adopted router.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "GET",
            Verb::Post => "POST",
            Verb::Put => "PUT",
            Verb::Patch => "PATCH",
            Verb::Delete => "DELETE",
            Verb::Any => "ANY",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which limits the gate applies to a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RateClass {
    /// Asked by machines all the time, costs nothing: the address limit only.
    Probe,
    /// Reads.
    Read,
    /// Changes.
    Write,
    /// Takes a password: failures are charged to account, network and tenant.
    Login,
    /// Takes a refresh token or answers about tokens.
    Token,
    /// Creates something for somebody unknown.
    Signup,
}

impl RateClass {
    /// Every class, in order of declaration.
    pub const ALL: &'static [RateClass] =
        &[RateClass::Probe, RateClass::Read, RateClass::Write, RateClass::Login, RateClass::Token, RateClass::Signup];

    /// The word in the table, in `x-rate` and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            RateClass::Probe => "probe",
            RateClass::Read => "read",
            RateClass::Write => "write",
            RateClass::Login => "login",
            RateClass::Token => "token",
            RateClass::Signup => "signup",
        }
    }
}

impl fmt::Display for RateClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether a cookie-borne request must come from the own origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Csrf {
    /// It must.
    Enforced,
    /// It need not, for the stated reason, which may not be empty.
    Exempt(&'static str),
}

impl fmt::Display for Csrf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Csrf::Enforced => f.pad("enforced"),
            Csrf::Exempt(_) => f.pad("exempt"),
        }
    }
}

/// Who may keep a copy of a successful answer. Errors are never kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// Nobody: `no-store`.
    Private,
    /// Anybody, for so long. Only a public route may say this.
    Public(Duration),
}

impl Cache {
    /// The value of `Cache-Control`.
    pub fn control(self) -> http::HeaderValue {
        match self {
            Cache::Private => http::HeaderValue::from_static("no-store"),
            Cache::Public(age) => http::HeaderValue::try_from(format!("public, max-age={}", age.as_secs()))
                .unwrap_or(http::HeaderValue::from_static("no-store")),
        }
    }

    /// Says so on a success, where no front does.
    pub(super) fn keep(self, mut response: Response) -> Response {
        if response.status().is_success() {
            response.headers_mut().insert(http::header::CACHE_CONTROL, self.control());
        }
        response
    }
}

impl From<Cache> for browser::Cache {
    fn from(cache: Cache) -> Self {
        match cache {
            Cache::Private => Self::Private,
            Cache::Public(age) => Self::Public(age),
        }
    }
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cache::Private => f.pad("private"),
            Cache::Public(age) => f.pad(&format!("public {}s", age.as_secs())),
        }
    }
}

impl Serialize for Cache {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What the gate must see before it lets a request in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// A principal who may do the action.
    Requires {
        /// The action's stable name.
        action: &'static str,
        /// The roles that may.
        roles: &'static [Role],
    },
    /// Nobody in particular.
    Public {
        /// The stated reason.
        why: &'static str,
    },
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Access::Requires { action, .. } => f.pad(action),
            Access::Public { why } => f.pad(&format!("public: {why}")),
        }
    }
}

/// Everything declared about one route.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The method.
    pub method: Verb,
    /// The path with `{parameters}`; for an adopted router the prefix.
    pub path: String,
    /// Who may call.
    pub access: Access,
    /// Which limits apply.
    pub rate: RateClass,
    /// The CSRF answer; `None` for a read, which changes nothing.
    pub csrf: Option<Csrf>,
    /// Who may keep the answer.
    pub cache: Cache,
    /// One line.
    pub summary: &'static str,
    /// The handler's name, unique in the document; empty for an adopted router.
    pub operation_id: String,
    /// The status of success.
    pub status: u16,
    /// The handler's full name.
    pub handler: &'static str,
    /// Largest body in bytes; `None` only until [`super::Api::finish`] fills in the default.
    pub body_limit: Option<usize>,
    /// Headings in the document.
    pub tags: Vec<&'static str>,
    /// For an adopted router, why it was adopted.
    pub adopted: Option<&'static str>,
    /// Its place in the table, for whoever counts by row.
    #[serde(skip)]
    pub(crate) index: usize,
    /// The very type of the required action.
    #[serde(skip)]
    pub(super) action: Option<TypeId>,
}

impl Row {
    /// `METHOD /path`, as faults and logs name it.
    pub fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The names inside `{}`, in order.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
    }

    /// Adopted and public rows come first: they are what a reviewer must look at.
    fn rank(&self) -> (u8, &str, Verb) {
        let rank = match (self.adopted, self.access) {
            (Some(_), _) => 0,
            (None, Access::Public { .. }) => 1,
            (None, Access::Requires { .. }) => 2,
        };
        (rank, &self.path, self.method)
    }
}

/// The last word of a handler's full name, without generic arguments.
pub(super) fn operation_id(handler: &str) -> String {
    let name = handler.split('<').next().unwrap_or(handler);
    name.rsplit("::").next().unwrap_or(name).to_owned()
}

/// Every route there is, adopted and public ones first. Prints as text, serialises as a list.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Table {
    rows: Vec<Row>,
}

impl Table {
    pub(super) fn new(mut rows: Vec<Row>) -> Self {
        rows.sort_by(|a, b| a.rank().cmp(&b.rank()));
        Self { rows }
    }

    /// The rows.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEAD: [&str; 8] = ["METHOD", "PATH", "ACCESS", "RATE", "CSRF", "CACHE", "STATUS", "HANDLER"];
        let lines: Vec<[String; 8]> = std::iter::once(HEAD.map(String::from))
            .chain(self.rows.iter().map(|row| {
                let access = match row.adopted {
                    Some(why) => format!("{} (adopted: {why})", row.access),
                    None => row.access.to_string(),
                };
                let csrf = row.csrf.map_or_else(|| "-".to_owned(), |csrf| csrf.to_string());
                let status = if row.adopted.is_some() { "-".to_owned() } else { row.status.to_string() };
                [
                    row.method.to_string(),
                    row.path.clone(),
                    access,
                    row.rate.to_string(),
                    csrf,
                    row.cache.to_string(),
                    status,
                    row.handler.to_owned(),
                ]
            }))
            .collect();
        let mut widths = [0usize; 8];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for line in &lines {
            let mut text = String::new();
            for (width, cell) in widths.iter().zip(line) {
                text.push_str(&format!("{cell:<width$}  "));
            }
            writeln!(f, "{}", text.trim_end())?;
        }
        Ok(())
    }
}
