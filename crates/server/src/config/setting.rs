//! The kinds of value a key can have: how each is read, printed and described.
//!
//! A kind carries its bounds in its type, so a value that exists is within them and the reference can state them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Value, json};

/// A value as it stands in a source, before it has a meaning.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// A TOML string, or anything from the environment or the command line.
    Text(String),
    /// A TOML integer, in decimal.
    Integer(String),
    /// `true` or `false`.
    Boolean(bool),
    /// A list of strings.
    List(Vec<String>),
    /// Anything else, named by its TOML type.
    Other(&'static str),
}

impl Raw {
    fn found(&self) -> String {
        match self {
            Raw::Text(text) => format!("\"{}\"", shorten(text)),
            Raw::Integer(digits) => shorten(digits),
            Raw::Boolean(value) => value.to_string(),
            Raw::List(_) => "a list".into(),
            Raw::Other(kind) => (*kind).into(),
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Raw::Text(text) | Raw::Integer(text) => Some(text),
            _ => None,
        }
    }

    /// A list; in text (the environment) its items are separated by commas.
    fn items(&self) -> Option<Vec<&str>> {
        match self {
            Raw::List(items) => Some(items.iter().map(String::as_str).collect()),
            Raw::Text(text) => Some(text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect()),
            _ => None,
        }
    }
}

/// A configuration value may be long or hold control characters; a message may not.
fn shorten(text: &str) -> String {
    let mut short: String = text.escape_debug().take(60).collect();
    if text.chars().count() > 60 {
        short.push('…');
    }
    short
}

/// What is wrong with a value: the end of the sentence "`key` must be …".
pub type Wrong = String;

/// A kind of value.
pub trait Setting: Sized {
    /// What it must be, such as `a whole number from 1 to 10`.
    fn must() -> String;
    /// Reads it; the error is the rest of "`key` must be", including what was found.
    fn read(raw: &Raw) -> Result<Self, Wrong>;
    /// The value in TOML syntax; `None` when unset.
    fn toml(&self) -> Option<String>;
    /// Its JSON Schema.
    fn schema() -> Value;
}

fn wrong<T: Setting>(raw: &Raw) -> Wrong {
    format!("{}, found {}", T::must(), raw.found())
}

/// TOML basic string; JSON's escapes are a subset of TOML's, except that TOML also wants DEL escaped.
fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

/// A whole number within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Count<MIN, MAX> {
    /// The number as `u32`, saturating.
    pub fn u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }

    /// The number as `usize`, saturating.
    pub fn usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<const MIN: u64, const MAX: u64> Setting for Count<MIN, MAX> {
    fn must() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        let number = raw.text().and_then(|text| text.replace('_', "").parse().ok());
        number.filter(|n| (MIN..=MAX).contains(n)).map(Self).ok_or_else(|| wrong::<Self>(raw))
    }
    fn toml(&self) -> Option<String> {
        Some(self.0.to_string())
    }
    fn schema() -> Value {
        json!({"type": "integer", "minimum": MIN, "maximum": MAX})
    }
}

const UNITS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A length of time with its unit, such as `"30s"`; the bounds are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span<const MIN: u64, const MAX: u64>(pub Duration);

fn span_text(millis: u64) -> String {
    let unit = UNITS.iter().find(|(_, size)| millis >= *size && millis.is_multiple_of(*size));
    unit.map_or_else(
        || format!("{millis}ms"),
        |(name, size)| format!("{}{name}", millis.checked_div(*size).unwrap_or(0)),
    )
}

impl<const MIN: u64, const MAX: u64> Setting for Span<MIN, MAX> {
    fn must() -> String {
        format!("a time such as \"30s\", \"5m\", \"12h\" or \"14d\", from {} to {}", span_text(MIN), span_text(MAX))
    }
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        let Raw::Text(text) = raw else { return Err(wrong::<Self>(raw)) };
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(split);
        let size = UNITS.iter().find(|(name, _)| *name == unit.trim()).map(|(_, size)| *size);
        let millis = digits.parse::<u64>().ok().zip(size).and_then(|(number, size)| number.checked_mul(size));
        let millis = millis.filter(|millis| (MIN..=MAX).contains(millis));
        millis.map(|millis| Self(Duration::from_millis(millis))).ok_or_else(|| wrong::<Self>(raw))
    }
    fn toml(&self) -> Option<String> {
        Some(quoted(&span_text(u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX))))
    }
    fn schema() -> Value {
        json!({"type": "string", "pattern": "^[0-9]+ ?(ms|s|m|h|d)$"})
    }
}

const SIZES: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A number of bytes with its unit, such as `"64 KiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size<const MIN: u64, const MAX: u64>(pub u64);

fn size_text(bytes: u64) -> String {
    let unit = SIZES.iter().find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size));
    unit.map_or_else(
        || format!("{bytes} B"),
        |(name, size)| format!("{} {name}", bytes.checked_div(*size).unwrap_or(0)),
    )
}

impl<const MIN: u64, const MAX: u64> Setting for Size<MIN, MAX> {
    fn must() -> String {
        format!("a size such as \"64 KiB\" or \"1 MiB\", from {} to {}", size_text(MIN), size_text(MAX))
    }
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        let Raw::Text(text) = raw else { return Err(wrong::<Self>(raw)) };
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(split);
        let size = SIZES.iter().find(|(name, _)| *name == unit.trim()).map(|(_, size)| *size);
        let bytes = digits.parse::<u64>().ok().zip(size).and_then(|(number, size)| number.checked_mul(size));
        bytes.filter(|bytes| (MIN..=MAX).contains(bytes)).map(Self).ok_or_else(|| wrong::<Self>(raw))
    }
    fn toml(&self) -> Option<String> {
        Some(quoted(&size_text(self.0)))
    }
    fn schema() -> Value {
        json!({"type": "string", "pattern": "^[0-9]+ ?(B|KiB|MiB|GiB)$"})
    }
}

impl Setting for SocketAddr {
    fn must() -> String {
        "an address with a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"".into()
    }
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        raw.text().and_then(|text| text.parse().ok()).ok_or_else(|| wrong::<Self>(raw))
    }
    fn toml(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
    fn schema() -> Value {
        json!({"type": "string"})
    }
}

impl Setting for bool {
    fn must() -> String {
        "true or false".into()
    }
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        match raw {
            Raw::Boolean(value) => Ok(*value),
            Raw::Text(text) if text == "true" => Ok(true),
            Raw::Text(text) if text == "false" => Ok(false),
            _ => Err(wrong::<Self>(raw)),
        }
    }
    fn toml(&self) -> Option<String> {
        Some(self.to_string())
    }
    fn schema() -> Value {
        json!({"type": "boolean"})
    }
}

impl Setting for PathBuf {
    fn must() -> String {
        "a path; a relative one is taken from the directory of the configuration file".into()
    }
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        match raw {
            Raw::Text(text) if !text.is_empty() && !text.contains('\0') => Ok(PathBuf::from(text)),
            _ => Err(wrong::<Self>(raw)),
        }
    }
    fn toml(&self) -> Option<String> {
        Some(quoted(&self.to_string_lossy()))
    }
    fn schema() -> Value {
        json!({"type": "string", "minLength": 1})
    }
}

/// A key that may be left out; empty text means the same.
impl<T: Setting> Setting for Option<T> {
    fn must() -> String {
        T::must()
    }
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        if *raw == Raw::Text(String::new()) { Ok(None) } else { T::read(raw).map(Some) }
    }
    fn toml(&self) -> Option<String> {
        self.as_ref().and_then(Setting::toml)
    }
    fn schema() -> Value {
        T::schema()
    }
}

/// Networks, such as `10.0.0.0/8`; a plain address stands for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networks(pub Vec<IpNet>);

impl Setting for Networks {
    fn must() -> String {
        "a list of networks, such as [\"10.0.0.0/8\", \"::1\"]".into()
    }
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        let items = raw.items().ok_or_else(|| wrong::<Self>(raw))?;
        let parse = |item: &str| {
            let network = item.parse::<IpNet>().or_else(|_| item.parse::<std::net::IpAddr>().map(IpNet::from));
            network.map_err(|_| format!("{}, found \"{}\" in it", Self::must(), shorten(item)))
        };
        items.into_iter().map(parse).collect::<Result<_, _>>().map(Self)
    }
    fn toml(&self) -> Option<String> {
        Some(list(self.0.iter().map(ToString::to_string)))
    }
    fn schema() -> Value {
        json!({"type": "array", "items": {"type": "string"}})
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.map(|item| quoted(&item)).collect::<Vec<_>>().join(", "))
}

/// An exact web origin: scheme, host and port if it is not the scheme's own, nothing after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebOrigin(pub String);

impl WebOrigin {
    /// Reads an origin in the form a browser sends it (RFC 6454 section 6.2): lower case, no default port, no path.
    pub fn parse(text: &str) -> Option<Self> {
        let uri: http::Uri = text.parse().ok()?;
        let (scheme, host) = (uri.scheme_str()?, uri.host()?);
        let default = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let port = uri.port_u16().filter(|port| *port != default).map(|port| format!(":{port}")).unwrap_or_default();
        // Rebuilding and comparing refuses user info, paths, upper case and wildcards in one go.
        let plain = format!("{scheme}://{host}{port}");
        (plain == text && !host.contains('*') && text == text.to_ascii_lowercase()).then_some(Self(plain))
    }

    /// Whether it is an `https` origin.
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https://")
    }
}

impl Setting for WebOrigin {
    fn must() -> String {
        "a base URL in lower case without a path, such as \"https://api.example.com\"".into()
    }
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        raw.text().and_then(Self::parse).ok_or_else(|| wrong::<Self>(raw))
    }
    fn toml(&self) -> Option<String> {
        Some(quoted(&self.0))
    }
    fn schema() -> Value {
        json!({"type": "string", "pattern": "^https?://[^/]+$"})
    }
}

/// A list of exact web origins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins(pub Vec<WebOrigin>);

impl Setting for Origins {
    fn must() -> String {
        "a list of exact origins, such as [\"https://app.example.com\"], without wildcards, \"null\" or paths".into()
    }
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        let items = raw.items().ok_or_else(|| wrong::<Self>(raw))?;
        let parse = |item: &str| {
            WebOrigin::parse(item).ok_or_else(|| format!("{}, found \"{}\" in it", Self::must(), shorten(item)))
        };
        items.into_iter().map(parse).collect::<Result<_, _>>().map(Self)
    }
    fn toml(&self) -> Option<String> {
        Some(list(self.0.iter().map(|origin| origin.0.clone())))
    }
    fn schema() -> Value {
        json!({"type": "array", "items": {"type": "string"}})
    }
}

/// A short text without control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line(pub String);

impl Setting for Line {
    fn must() -> String {
        "a text of 1 to 200 characters on one line".into()
    }
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        match raw {
            Raw::Text(text) if (1..=200).contains(&text.chars().count()) && !text.contains(char::is_control) => {
                Ok(Self(text.clone()))
            }
            _ => Err(wrong::<Self>(raw)),
        }
    }
    fn toml(&self) -> Option<String> {
        Some(quoted(&self.0))
    }
    fn schema() -> Value {
        json!({"type": "string", "minLength": 1, "maxLength": 200})
    }
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)+ })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl Setting for $name {
            fn must() -> String {
                let words: &[&str] = &[$(concat!("\"", $word, "\""),)+];
                format!("one of {}", words.join(", "))
            }
            fn read(raw: &Raw) -> Result<Self, Wrong> {
                match raw.text() { $(Some($word) => Ok(Self::$variant),)+ _ => Err(wrong::<Self>(raw)) }
            }
            fn toml(&self) -> Option<String> {
                Some(quoted(match self { $(Self::$variant => $word,)+ }))
            }
            fn schema() -> Value {
                json!({"type": "string", "enum": [$($word,)+]})
            }
        }
    )*};
}

words! {
    /// Who decides while the shared state is away.
    WhenAway {
        /// Each node by itself, at the limit divided by the nodes.
        Local = "local",
        /// Nobody: nothing is admitted.
        Refuse = "refuse",
        /// Nobody: everything is admitted.
        Open = "open",
    }
    /// When a revocation acts on the other nodes.
    RevocationMode {
        /// Within the bound.
        Replicated = "replicated",
        /// On the next request.
        Strict = "strict",
    }
    /// How log lines look.
    LogFormat {
        /// Text on a terminal, JSON elsewhere.
        Auto = "auto",
        /// One line of text an event.
        Text = "text",
        /// One JSON object an event.
        Json = "json",
    }
    /// The least severe event that is logged.
    LogLevel {
        /// Only what needs an operator now.
        Error = "error",
        /// And what may need one soon.
        Warn = "warn",
        /// And what happens normally.
        Info = "info",
        /// And how.
        Debug = "debug",
    }
}

/// The database: `sqlite:` and a path, relative to the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseUrl(pub String);

impl Setting for DatabaseUrl {
    fn must() -> String {
        "\"sqlite:\" followed by a path, such as \"sqlite:bartizan.db\", or \"postgres://USER@HOST/DATABASE\" without a \
         password: that goes into `database.password_file`"
            .into()
    }
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        // The value itself is not repeated: a wrong one may carry a password.
        let text = raw.text().ok_or_else(Self::must)?;
        let file =
            text.strip_prefix("sqlite:").is_some_and(|path| !path.is_empty() && !text.contains(['?', '#', '\0']));
        let server = ["postgres://", "postgresql://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        let server = server.is_some_and(|rest| !rest.is_empty() && without_password(rest));
        if file || server { Ok(Self(text.into())) } else { Err(Self::must()) }
    }
    fn toml(&self) -> Option<String> {
        Some(quoted(&self.0))
    }
    fn schema() -> Value {
        json!({"type": "string", "pattern": "^(sqlite:|postgres://|postgresql://).+"})
    }
}

/// Whether an address, after its scheme, names no password: neither before the `@` nor as a parameter.
fn without_password(rest: &str) -> bool {
    let (authority, tail) = rest.split_once('/').unwrap_or((rest, ""));
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    !user.contains(':') && !tail.contains("password=") && !rest.contains(['#', '\0', ' '])
}

/// Where the hot state is.
#[derive(Clone, Debug, PartialEq)]
pub struct StateUrl(pub String);

impl Setting for StateUrl {
    fn must() -> String {
        "\"embedded\", or \"redis://HOST\", \"redis+sentinel://HOST,HOST,HOST/NAME\", \"redis+cluster://HOST,HOST,HOST\" \
         (or rediss) without user and password: they go into `state.user` and `state.password_file`"
            .into()
    }
    fn read(raw: &Raw) -> Result<Self, Wrong> {
        let text = raw.text().ok_or_else(Self::must)?;
        let embedded = text == bartizan::settings::State::EMBEDDED;
        let shared = text.starts_with("redis") && !text.contains('@') && bartizan::settings::is_shared_state(text);
        if embedded || shared { Ok(Self(text.into())) } else { Err(Self::must()) }
    }
    fn toml(&self) -> Option<String> {
        Some(quoted(&self.0))
    }
    fn schema() -> Value {
        json!({"type": "string", "pattern": "^(embedded|rediss?(\\+(sentinel|cluster))?://[^@]+)$"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Raw {
        Raw::Text(text.into())
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same_value() {
        type Long = Span<1, { u64::MAX }>;
        for written in ["1ms", "1500ms", "90s", "5m", "36h", "14d"] {
            let value = Long::read(&text(written)).unwrap();
            assert_eq!(Long::read(&text(value.toml().unwrap().trim_matches('"'))).unwrap(), value);
        }
        type Big = Size<1, { u64::MAX }>;
        for written in ["1 B", "1025 B", "64 KiB", "3MiB", "2 GiB"] {
            let value = Big::read(&text(written)).unwrap();
            assert_eq!(Big::read(&text(value.toml().unwrap().trim_matches('"'))).unwrap(), value);
        }
    }

    #[test]
    fn numbers_that_overflow_or_lack_a_unit_are_refused_without_wrapping() {
        assert!(Span::<1, { u64::MAX }>::read(&text("99999999999999999999d")).is_err());
        assert!(Span::<1, { u64::MAX }>::read(&text("18446744073709551615d")).is_err());
        assert!(Span::<1, 10>::read(&text("5")).is_err());
        assert!(Size::<1, { u64::MAX }>::read(&text("18446744073709551615 GiB")).is_err());
        assert!(Count::<1, 10>::read(&Raw::Integer("-1".into())).is_err());
        assert!(Count::<1, 10>::read(&Raw::Integer("11".into())).is_err());
    }

    #[test]
    fn only_origins_a_browser_could_send_are_origins() {
        for good in
            ["https://app.example.com", "http://localhost:3000", "https://app.example.com:8443", "http://[::1]:80a0"]
        {
            let parsed = WebOrigin::parse(good);
            assert_eq!(parsed.is_some(), !good.contains("80a0"), "{good}");
        }
        for bad in [
            "*",
            "null",
            "https://*.example.com",
            "https://app.example.com/",
            "https://app.example.com:443",
            "HTTPS://app.example.com",
            "https://user@app.example.com",
            "ftp://app.example.com",
            "app.example.com",
            "https://App.example.com",
            "",
        ] {
            assert_eq!(WebOrigin::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_refused_database_url_is_not_repeated_because_it_may_hold_a_password() {
        let message = DatabaseUrl::read(&text("postgres://app:tower@db/app")).unwrap_err();
        assert!(!message.contains("tower"), "{message}");
    }
}
