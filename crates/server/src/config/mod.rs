//! The configuration: defaults, then the file, then the environment, then flags; every fault found in one go.
//!
//! A relative path is taken from the directory of the file, so the same installation works from any directory.

mod document;
mod fault;
pub mod keys;
mod nearest;
pub mod setting;

pub use document::{Extent, example, initial, print, reference, schema};
pub use fault::{Fault, Faults, Origin};
pub use keys::{Apply, Key, Keys};

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bartizan::settings::{self, Credentials, Https, Rate, Settings, TierLimits};
use bartizan_core::principal::Tier;
use bartizan_keys::{SecretKind, SecretSource};
use setting::{Raw, Setting};
use toml::de::{DeTable, DeValue};

/// What precedes every environment variable that sets a key.
pub const PREFIX: &str = "BARTIZAN__";

/// A value given on the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    /// As typed, such as `--listen`.
    pub flag: &'static str,
    /// The key it sets.
    pub key: &'static str,
    /// The value.
    pub value: String,
}

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file.
    pub file: PathBuf,
    /// The environment: all of it, only what begins with [`PREFIX`] is looked at.
    pub environment: Vec<(OsString, OsString)>,
    /// The command line.
    pub flags: Vec<Flag>,
}

/// A configuration without faults.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The values.
    pub keys: Keys,
    /// Who set what; keys left at their default are absent.
    pub origins: BTreeMap<&'static str, Origin>,
    base: PathBuf,
}

/// What is known of a key before it is read.
struct Located {
    raw: Raw,
    origin: Origin,
}

/// Hands out values by key and collects what is wrong with them.
pub struct Reader<'a> {
    located: BTreeMap<&'static str, Located>,
    faults: &'a mut Vec<Fault>,
}

impl Reader<'_> {
    fn take<T: Setting>(&mut self, key: &'static str, default: &str) -> Option<T> {
        let Some(located) = self.located.get(key) else {
            // A default that is not acceptable would be a mistake of ours; it surfaces as a fault, never as a panic.
            let read = T::read(&Raw::Text(default.into()));
            return read.map_err(|wrong| self.fault(Origin::Default, key, &wrong)).ok();
        };
        match T::read(&located.raw) {
            Ok(value) => Some(value),
            Err(wrong) => {
                let origin = located.origin.clone();
                self.fault(origin, key, &wrong);
                None
            }
        }
    }

    fn fault(&mut self, origin: Origin, key: &str, wrong: &str) {
        let doc = keys::all().find(|known| known.path == key).map(|known| document::one_line(known.doc));
        self.faults.push(Fault { origin, message: format!("`{key}` must be {wrong}"), hint: doc });
    }
}

impl Sources {
    /// Reads and checks everything. The error holds all faults, not the first.
    pub fn read(&self) -> Result<Config, Faults> {
        let name = self.file.display().to_string();
        let text = match std::fs::read_to_string(&self.file) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("cannot be read: {error}");
                let hint =
                    Some("Name another file with --config, or create one with `bartizan init --dir DIR`.".into());
                return Err(Faults::new(name, "", vec![Fault { origin: Origin::Default, message, hint }]));
            }
        };
        self.read_text(&text)
    }

    /// As [`Sources::read`], with the content of the file already at hand.
    pub fn read_text(&self, text: &str) -> Result<Config, Faults> {
        let mut faults = Vec::new();
        let mut located = BTreeMap::new();
        read_file(text, &mut located, &mut faults);
        read_environment(&self.environment, &mut located, &mut faults);
        for Flag { flag, key, value } in &self.flags {
            let (raw, origin) = (Raw::Text(value.clone()), Origin::Flag(flag));
            located.insert(key, Located { raw, origin });
        }
        let mut reader = Reader { located, faults: &mut faults };
        let keys = Keys::read(&mut reader);
        let origins: BTreeMap<_, _> = reader.located.into_iter().map(|(key, located)| (key, located.origin)).collect();
        if let Some(keys) = &keys {
            check_together(keys, &origins, &mut faults);
        }
        match keys {
            Some(keys) if faults.is_empty() => {
                let base = self.file.parent().map(Path::to_path_buf).unwrap_or_default();
                Ok(Config { keys, origins, base })
            }
            _ => Err(Faults::new(self.file.display().to_string(), text, faults)),
        }
    }
}

/// Whether `path` is the name of a table, or of a table that holds tables.
fn is_table(path: &str) -> bool {
    keys::TABLES
        .iter()
        .any(|table| table.path == path || table.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

fn read_file(text: &str, located: &mut BTreeMap<&'static str, Located>, faults: &mut Vec<Fault>) {
    // A byte-order mark is a gift of some editors; TOML ignores it, and so do the spans.
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let span = error.span().unwrap_or(0..0);
        faults.push(Fault {
            origin: Origin::File(span),
            message: format!("not TOML: {}", error.message()),
            hint: None,
        });
    }
    // What follows a syntax error is often only its echo: values are read, unknown names are not complained about.
    let names = if errors.is_empty() { Names::Checked } else { Names::Ignored };
    walk("", table.get_ref(), names, located, faults);
}

#[derive(Clone, Copy, PartialEq)]
enum Names {
    Checked,
    Ignored,
}

fn walk(
    prefix: &str,
    table: &DeTable<'_>,
    names: Names,
    located: &mut BTreeMap<&'static str, Located>,
    faults: &mut Vec<Fault>,
) {
    for (name, value) in table {
        let path = if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
        let known = keys::all().find(|key| key.path == path);
        match (value.get_ref(), known) {
            (DeValue::Table(inner), _) if is_table(&path) => walk(&path, inner, names, located, faults),
            (DeValue::Table(_), Some(_)) => {
                let message = format!("`{path}` is a key, not a table");
                faults.push(Fault { origin: Origin::File(name.span()), message, hint: None });
            }
            (value_kind, Some(key)) => {
                let located_here = Located { raw: raw(value_kind), origin: Origin::File(value.span()) };
                located.insert(key.path, located_here);
            }
            (value_kind, None) if names == Names::Checked => {
                faults.push(unknown(&path, name.span(), matches!(value_kind, DeValue::Table(_))));
            }
            _ => {}
        }
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Raw::Integer(number.as_str().into()),
        DeValue::Integer(_) => Raw::Other("a number that is not decimal"),
        DeValue::Boolean(value) => Raw::Boolean(*value),
        DeValue::Array(items) => {
            let texts: Option<Vec<_>> = items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect();
            texts.map_or(Raw::Other("a list of something else"), Raw::List)
        }
        DeValue::Float(_) => Raw::Other("a number with a fraction"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

fn unknown(path: &str, span: Range<usize>, table: bool) -> Fault {
    if is_table(path) {
        let message = format!("`{path}` is a table, not a key");
        return Fault {
            origin: Origin::File(span),
            message,
            hint: Some(format!("Write `[{path}]` and its keys below.")),
        };
    }
    let kind = if table { "table" } else { "key" };
    Fault { origin: Origin::File(span), message: format!("unknown {kind} `{path}`"), hint: nearest::hint(path) }
}

fn read_environment(
    environment: &[(OsString, OsString)],
    located: &mut BTreeMap<&'static str, Located>,
    faults: &mut Vec<Fault>,
) {
    for (name, value) in environment {
        let name = name.to_string_lossy();
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let path = rest.to_ascii_lowercase().replace("__", ".");
        let origin = Origin::Environment(name.to_string());
        let Some(key) = keys::all().find(|key| key.path == path && variable(key.path) == name) else {
            let hint = nearest::key(&path).map(|key| format!("Did you mean {}?", variable(key)));
            faults.push(Fault { origin, message: "sets no known key".into(), hint });
            continue;
        };
        match value.to_str() {
            Some(value) => {
                located.insert(key.path, Located { raw: Raw::Text(value.into()), origin });
            }
            None => faults.push(Fault { origin, message: "is not UTF-8".into(), hint: None }),
        }
    }
}

/// The environment variable that sets a key.
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
}

/// Rules that concern more than one key.
fn check_together(keys: &Keys, origins: &BTreeMap<&'static str, Origin>, faults: &mut Vec<Fault>) {
    let mut fault = |key: &str, message: &str, hint: &str| {
        let origin = origins.get(key).cloned().unwrap_or(Origin::Default);
        faults.push(Fault { origin, message: message.into(), hint: Some(hint.into()) });
    };
    match (&keys.tls.cert, &keys.tls.key) {
        (Some(_), None) => {
            fault("server.tls.cert", "`server.tls.cert` needs `server.tls.key`", "Set both, or neither.")
        }
        (None, Some(_)) => fault("server.tls.key", "`server.tls.key` needs `server.tls.cert`", "Set both, or neither."),
        _ => {}
    }
    if !keys.ops.listen.ip().is_loopback() && !keys.ops.danger_public {
        fault(
            "ops.listen",
            "`ops.listen` would show the metrics to other machines without asking who they are",
            "Listen on 127.0.0.1 or [::1], or set `ops.danger_public = true` if the network keeps strangers away.",
        );
    }
    if keys.ops.listen == keys.server.listen && keys.ops.listen.port() != 0 {
        fault("ops.listen", "`ops.listen` is the same as `server.listen`", "Give each its own port.");
    }
    if keys.tokens.refresh_idle.0 > keys.tokens.refresh_absolute.0 {
        fault(
            "tokens.refresh_idle",
            "`tokens.refresh_idle` is longer than `tokens.refresh_absolute`",
            "A session cannot be idle for longer than it lives.",
        );
    }
    if keys.tls.cert.is_some() && keys.server.public_url.as_ref().is_some_and(|url| !url.is_https()) {
        fault(
            "server.public_url",
            "`server.public_url` is not https although TLS is configured",
            "Write the address with https://, or remove `[server.tls]`.",
        );
    }
    if keys.cors.credentials && keys.cors.origins.0.is_empty() {
        fault(
            "cors.credentials",
            "`cors.credentials` needs `cors.origins`",
            "Name the exact origins that may send cookies.",
        );
    }
    if let Some(insecure) = keys.cors.origins.0.iter().find(|origin| !origin.is_https() && keys.cors.credentials) {
        let local = ["http://localhost", "http://127.0.0.1", "http://[::1]"];
        if !local.iter().any(|local| insecure.0 == *local || insecure.0.starts_with(&format!("{local}:"))) {
            fault(
                "cors.origins",
                "`cors.credentials` lets cookies come along from an origin without TLS",
                "Anybody on that network can write the page: use https://, or do without credentials.",
            );
        }
    }
    let (server, shared) = (!keys.database.url.0.starts_with("sqlite:"), keys.state.url.0 != settings::State::EMBEDDED);
    if keys.revocation.mode == setting::RevocationMode::Strict && !(server && shared) {
        fault(
            "revocation.mode",
            "`revocation.mode = \"strict\"` needs `database.url` to be postgres:// and `state.url` to be redis",
            "On one machine with SQLite every revocation acts on the next request anyway: leave it out.",
        );
    }
    if !server && shared {
        fault(
            "state.url",
            "`state.url` is shared but `database.url` is a file that only this process can open",
            "Nodes that share limits share accounts too: set `database.url` to postgres://, or `state.url` to embedded.",
        );
    }
    if keys.proxies.trusted.0.iter().any(|network| network.prefix_len() == 0) {
        fault(
            "proxies.trusted",
            "`proxies.trusted` believes the whole internet",
            "Name only the networks of your own proxies: whoever is trusted here can claim any address.",
        );
    }
}

impl Config {
    /// A path of the configuration, made independent of the current directory's meaning.
    pub fn path(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.path(&self.keys.data.dir)
    }

    /// The secrets directory.
    pub fn secrets(&self) -> PathBuf {
        self.path(&self.keys.secrets.dir)
    }

    /// Where each secret is.
    pub fn secret_source(&self) -> SecretSource {
        let given = [
            (SecretKind::Root, &self.keys.secrets.root_key_file),
            (SecretKind::PasswordPepper, &self.keys.secrets.password_pepper_file),
        ];
        let path =
            |(kind, path): (SecretKind, &Option<PathBuf>)| Some((kind.file().to_owned(), self.path(path.as_ref()?)));
        SecretSource { dir: self.secrets(), overrides: given.into_iter().filter_map(path).collect() }
    }

    /// Certificate and key, when TLS is configured.
    pub fn tls(&self) -> Option<(PathBuf, PathBuf)> {
        let cert = self.keys.tls.cert.as_ref()?;
        let key = self.keys.tls.key.as_ref()?;
        Some((self.path(cert), self.path(key)))
    }

    /// `iss`: the public URL, or what the listener suggests.
    pub fn issuer(&self) -> String {
        let scheme = if self.tls().is_some() { "https" } else { "http" };
        let own = || format!("{scheme}://{}", self.keys.server.listen);
        self.keys.server.public_url.as_ref().map_or_else(own, |url| url.0.clone())
    }

    /// The keys whose value differs from `other` and that only a restart can change.
    pub fn needs_restart(&self, other: &Config) -> Vec<&'static str> {
        let theirs: BTreeMap<_, _> = other.keys.values().into_iter().collect();
        let changed = |(key, value): &(&'static str, Option<String>)| theirs.get(key) != Some(value);
        let restart = |key: &&'static str| keys::all().any(|known| known.path == *key && known.apply == Apply::Restart);
        self.keys.values().into_iter().filter(changed).map(|(key, _)| key).filter(restart).collect()
    }

    /// This configuration, with the values of `new` where a change acts without a restart: what a reload puts in force.
    #[must_use]
    pub fn with_live_of(&self, new: &Config) -> Config {
        Config { keys: self.keys.with_live_of(&new.keys), origins: new.origins.clone(), base: self.base.clone() }
    }

    /// What the engine is told.
    pub fn settings(&self) -> Settings {
        let keys = &self.keys;
        let login = |failures: keys::Failures, seconds| Rate {
            count: failures.u32(),
            period: Duration::from_secs(seconds),
            burst: failures.u32(),
        };
        let address = keys.address.per_minute.u32();
        let network = keys.network.per_minute.map_or_else(|| address.saturating_mul(10), keys::PerMinute::u32);
        let half = |per_minute: u32, burst: Option<keys::Burst>| {
            Rate::per_minute(per_minute, burst.map_or_else(|| per_minute.div_ceil(2), keys::Burst::u32))
        };
        let https = keys.server.public_url.as_ref().is_some_and(|url| url.is_https()) || self.tls().is_some();
        Settings {
            data: self.data(),
            secrets: self.secret_source(),
            database: keys.database.url.0.clone(),
            database_server: settings::DatabaseServer {
                pool: keys.database.pool.u32(),
                acquire: keys.database.acquire.0,
                password_file: keys.database.password_file.as_ref().map(|path| self.path(path)),
            },
            state: self.state(),
            limits: settings::Limits {
                tiers: self.tiers(),
                address: half(address, keys.address.burst),
                network: half(network, keys.network.burst),
                ban_after: keys.ban.after.u32(),
                ban_for: keys.ban.first.0,
                max_keys: keys.limits.max_keys.usize(),
                login_account_network: login(keys.login.per_account_and_network, 300),
                login_account: login(keys.login.per_account, 3600),
                login_network: login(keys.login.per_network, 300),
                login_tenant: login(keys.login.per_tenant, 300),
            },
            tokens: settings::Tokens {
                issuer: self.issuer(),
                audience: keys.tokens.audience.0.clone(),
                access: keys.tokens.access.0,
                refresh_idle: keys.tokens.refresh_idle.0,
                refresh_absolute: keys.tokens.refresh_absolute.0,
                refresh_retry: keys.tokens.refresh_retry.0,
                cache: keys.tokens.cache.usize(),
            },
            password: settings::Password {
                min_length: keys.password.min_length.usize(),
                memory_kib: u32::try_from(keys.password.memory.0 / 1024).unwrap_or(u32::MAX),
                passes: keys.password.passes.u32(),
                lanes: keys.password.lanes.u32(),
                workers: keys.password.workers.usize(),
                queue: keys.password.queue.usize(),
            },
            proxies: keys.proxies.trusted.0.clone(),
            cors: settings::Cors {
                origins: keys.cors.origins.0.iter().map(|origin| origin.0.clone()).collect(),
                credentials: if keys.cors.credentials { Credentials::Include } else { Credentials::Omit },
            },
            request: settings::Request {
                body: usize::try_from(keys.server.max_body.0).unwrap_or(usize::MAX),
                deadline: keys.server.request_timeout.0,
            },
            https: if https { Https::On } else { Https::Off },
        }
    }

    fn state(&self) -> settings::State {
        let state = &self.keys.state;
        let file = |path: &Option<PathBuf>| path.as_ref().map(|path| self.path(path));
        settings::State {
            url: state.url.0.clone(),
            user: state.user.as_ref().map(|user| user.0.clone()),
            password_file: file(&state.password_file),
            sentinel_password_file: file(&state.sentinel_password_file),
            ca_file: file(&state.ca_file),
            timeout: state.timeout.0,
            connect: state.connect.0,
            pool: state.pool.usize(),
            prefix: state.prefix.0.clone(),
            nodes: state.nodes.u32(),
            when_away: match state.when_away {
                setting::WhenAway::Local => settings::Policy::Local,
                setting::WhenAway::Refuse => settings::Policy::Refuse,
                setting::WhenAway::Open => settings::Policy::Open,
            },
            leases: state.leases,
            revocation: match self.keys.revocation.mode {
                setting::RevocationMode::Replicated => settings::Revocation::Replicated,
                setting::RevocationMode::Strict => settings::Revocation::Strict,
            },
            revocation_bound: self.keys.revocation.bound.0,
        }
    }

    fn tiers(&self) -> BTreeMap<Tier, TierLimits> {
        let limits =
            |user: keys::PerMinute, burst: Option<_>, tenant: Option<_>, tenant_burst: Option<_>, times: u32| {
                let (user, tenant) = (user.u32(), tenant.map(keys::PerMinute::u32));
                let tenant = tenant.unwrap_or_else(|| user.saturating_mul(times));
                TierLimits {
                    user: Rate::per_minute(user, burst.map_or(user, keys::Burst::u32)),
                    tenant: Rate::per_minute(tenant, tenant_burst.map_or(tenant, keys::Burst::u32)),
                }
            };
        let Keys { free, pro, enterprise: large, .. } = &self.keys;
        BTreeMap::from([
            (Tier::Free, limits(free.per_minute, free.burst, free.tenant_per_minute, free.tenant_burst, 10)),
            (Tier::Pro, limits(pro.per_minute, pro.burst, pro.tenant_per_minute, pro.tenant_burst, 20)),
            (Tier::Enterprise, limits(large.per_minute, large.burst, large.tenant_per_minute, large.tenant_burst, 60)),
        ])
    }
}

#[cfg(test)]
mod tests;
