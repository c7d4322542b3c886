//! Where Redis is: one text, parsed once.

use std::fmt;

use bartizan_core::secret::Secret;
use thiserror::Error;

/// How the servers behind an [`Address`] are organised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One server whose place never changes.
    Single,
    /// A primary with replicas; sentinels say which server is the primary.
    Sentinel,
    /// Several primaries, each holding a part of the keys.
    Cluster,
}

/// A host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Server {
    /// Name or IP address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A parsed `[state] url`:
///
/// - `redis://[user[:password]@]host[:port][/database]`
/// - `redis+sentinel://[user[:password]@]host[:port],…/service[/database]`
/// - `redis+cluster://[user[:password]@]host[:port],…`
///
/// and the same with `rediss` for TLS. Reserved letters of a user or password are percent-encoded. `Display` and `Debug`
/// never show a password.
#[derive(Clone, Debug)]
pub struct Address {
    kind: Kind,
    tls: bool,
    user: Option<String>,
    password: Option<Secret<String>>,
    servers: Vec<Server>,
    service: String,
    database: u16,
}

/// Why a text is no [`Address`]. Never repeats a part that may be a password.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Does not begin with a known scheme.
    #[error(
        "the address must begin with redis://, rediss://, redis+sentinel://, rediss+sentinel://, redis+cluster:// or rediss+cluster://"
    )]
    Scheme,
    /// No host, an empty host in a list, or letters a host cannot have.
    #[error("the address must name a host: redis://host[:port]")]
    Host,
    /// Several hosts for a single server.
    #[error(
        "{0}:// takes one host; several are listed with redis+sentinel://h1,h2,h3/service or redis+cluster://h1,h2,h3"
    )]
    Hosts(&'static str),
    /// A port that is no number from 1 to 65535.
    #[error("the port of a host must be a number from 1 to 65535")]
    Port,
    /// A malformed user or password.
    #[error("user and password are written user:password@ with reserved letters percent-encoded")]
    Credentials,
    /// A Sentinel address without its service.
    #[error("a sentinel address must name the service: redis+sentinel://h1,h2,h3/mymaster")]
    Service,
    /// A database that is no number, or one where none can be.
    #[error("the database must be a number such as /0; a cluster has only database 0, so leave it out there")]
    Database,
    /// `?…` or `#…`.
    #[error("the address takes no ?options and no #fragment; time-outs and the like have their own settings")]
    Extra,
}

const SCHEMES: [(&str, Kind, bool); 6] = [
    ("redis", Kind::Single, false),
    ("rediss", Kind::Single, true),
    ("redis+sentinel", Kind::Sentinel, false),
    ("rediss+sentinel", Kind::Sentinel, true),
    ("redis+cluster", Kind::Cluster, false),
    ("rediss+cluster", Kind::Cluster, true),
];

impl Address {
    /// Parses the text of the setting.
    ///
    /// # Errors
    /// [`AddressError`], which says how it is written.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once("://").ok_or(AddressError::Scheme)?;
        let (scheme, kind, tls) = SCHEMES.into_iter().find(|(name, ..)| *name == scheme).ok_or(AddressError::Scheme)?;
        if rest.contains(['?', '#']) {
            return Err(AddressError::Extra);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };
        let (user, password) = credentials.map_or(Ok((None, None)), parse_credentials)?;
        let default_port = if kind == Kind::Sentinel { 26379 } else { 6379 };
        let servers = hosts.split(',').map(|host| parse_server(host, default_port)).collect::<Result<Vec<_>, _>>()?;
        if kind == Kind::Single && servers.len() != 1 {
            return Err(AddressError::Hosts(scheme));
        }
        let (service, database) = match kind {
            Kind::Single => (String::new(), path),
            Kind::Cluster if path.is_empty() => (String::new(), ""),
            Kind::Cluster => return Err(AddressError::Database),
            Kind::Sentinel => {
                let (service, database) = path.split_once('/').unwrap_or((path, ""));
                let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
                if service.is_empty() || !service.chars().all(plain) {
                    return Err(AddressError::Service);
                }
                (service.to_owned(), database)
            }
        };
        Ok(Self { kind, tls, user, password, servers, service, database: parse_database(database)? })
    }

    /// How the servers are organised.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether connections are encrypted.
    pub const fn tls(&self) -> bool {
        self.tls
    }

    /// Whether a password stands in the text itself, where a configuration should have none.
    pub const fn carries_password(&self) -> bool {
        self.password.is_some()
    }

    /// The servers named: the one, the sentinels, or the first nodes of a cluster to ask.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    pub(super) fn service(&self) -> &str {
        &self.service
    }

    pub(super) const fn database(&self) -> u16 {
        self.database
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    pub(super) const fn password(&self) -> Option<&Secret<String>> {
        self.password.as_ref()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = SCHEMES.iter().find(|(_, kind, tls)| *kind == self.kind && *tls == self.tls);
        f.write_str(scheme.map_or("redis", |(name, ..)| name))?;
        f.write_str("://")?;
        for (nth, server) in self.servers.iter().enumerate() {
            write!(f, "{}{server}", if nth == 0 { "" } else { "," })?;
        }
        if self.kind == Kind::Sentinel {
            write!(f, "/{}", self.service)?;
        }
        if self.database != 0 {
            write!(f, "/{}", self.database)?;
        }
        Ok(())
    }
}

type Credentials = (Option<String>, Option<Secret<String>>);

fn parse_credentials(text: &str) -> Result<Credentials, AddressError> {
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (text, None),
    };
    let user = Some(decode(user)?).filter(|user| !user.is_empty());
    let password = password.map(decode).transpose()?;
    if password.as_ref().is_some_and(String::is_empty) {
        return Err(AddressError::Credentials);
    }
    Ok((user, password.map(Secret::new)))
}

/// Undoes percent-encoding. Anything a URL would not carry bare is refused rather than guessed at.
fn decode(text: &str) -> Result<String, AddressError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next(), rest.next()].map(|digit| digit.and_then(|d| char::from(d).to_digit(16)));
                let [Some(high), Some(low)] = digits else { return Err(AddressError::Credentials) };
                bytes.push(u8::try_from(high * 16 + low).map_err(|_| AddressError::Credentials)?);
            }
            b':' | b'@' | b',' | 0..=0x20 | 0x7f => return Err(AddressError::Credentials),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| AddressError::Credentials)
}

/// `host[:port]`, also used for what a cluster says about its nodes.
pub(super) fn parse_server(text: &str, default_port: u16) -> Result<Server, AddressError> {
    let (host, port) = if let Some(bracketed) = text.strip_prefix('[') {
        let (host, port) = bracketed.split_once(']').ok_or(AddressError::Host)?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| AddressError::Host)?;
        (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or(AddressError::Port)?) })
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
    if host.is_empty() || !host.chars().all(plain) {
        return Err(AddressError::Host);
    }
    let port = match port {
        None => default_port,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().map_err(|_| AddressError::Port)?,
        Some(_) => return Err(AddressError::Port),
    };
    if port == 0 {
        return Err(AddressError::Port);
    }
    Ok(Server { host: host.to_owned(), port })
}

fn parse_database(text: &str) -> Result<u16, AddressError> {
    match text {
        "" => Ok(0),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().map_err(|_| AddressError::Database),
        _ => Err(AddressError::Database),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_form_of_an_address_is_understood() {
        let single = Address::parse("redis://cache.example").unwrap();
        assert_eq!(
            (single.kind(), single.tls(), single.to_string()),
            (Kind::Single, false, "redis://cache.example:6379".into())
        );
        let tls = Address::parse("rediss://app:p%40ss@[::1]:7000/3").unwrap();
        assert_eq!(tls.to_string(), "rediss://[::1]:7000/3");
        assert_eq!((tls.user(), tls.password().unwrap().expose().as_str()), (Some("app"), "p@ss"));
        let sentinel = Address::parse("redis+sentinel://h1,h2:27000,h3/mymaster/2").unwrap();
        assert_eq!(sentinel.to_string(), "redis+sentinel://h1:26379,h2:27000,h3:26379/mymaster/2");
        assert_eq!((sentinel.service(), sentinel.database()), ("mymaster", 2));
        let cluster = Address::parse("rediss+cluster://:word@h1,h2").unwrap();
        assert_eq!(cluster.to_string(), "rediss+cluster://h1:6379,h2:6379");
        assert!(cluster.carries_password() && cluster.user().is_none());
    }

    #[test]
    fn a_wrong_address_is_refused_with_the_way_to_write_it() {
        for (text, error) in [
            ("", AddressError::Scheme),
            ("cache.example:6379", AddressError::Scheme),
            ("http://h", AddressError::Scheme),
            ("redis://", AddressError::Host),
            ("redis://h 1", AddressError::Host),
            ("redis://[::1", AddressError::Host),
            ("redis://[cafe]", AddressError::Host),
            ("redis://h:0", AddressError::Port),
            ("redis://h:65536", AddressError::Port),
            ("redis://h:+1", AddressError::Port),
            ("redis://h:", AddressError::Port),
            ("redis://a,b", AddressError::Hosts("redis")),
            ("redis://user:@h", AddressError::Credentials),
            ("redis://user:a:b@h", AddressError::Credentials),
            ("redis://user:%4@h", AddressError::Credentials),
            ("redis://user:%ff@h", AddressError::Credentials),
            ("redis://h/x", AddressError::Database),
            ("redis://h/70000", AddressError::Database),
            ("redis+cluster://h/0", AddressError::Database),
            ("redis+sentinel://h", AddressError::Service),
            ("redis+sentinel://h/my master", AddressError::Service),
            ("redis+sentinel://h,,i/m", AddressError::Host),
            ("redis://h?timeout=1", AddressError::Extra),
        ] {
            assert_eq!(Address::parse(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn a_password_is_shown_by_nothing() {
        let address = Address::parse("redis://app:hunter2@h").unwrap();
        assert!(!format!("{address} {address:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn what_is_shown_is_parsed_to_the_same(
            scheme in 0_usize..6, hosts in prop::collection::vec(("[a-z][a-z0-9.-]{0,20}", 1_u16..), 1..4), database in any::<u16>(),
        ) {
            let (scheme, kind, _) = SCHEMES[scheme];
            let hosts = if kind == Kind::Single { &hosts[..1] } else { &hosts[..] };
            let hosts = hosts.iter().map(|(host, port)| format!("{host}:{port}")).collect::<Vec<_>>().join(",");
            let path = match kind { Kind::Single => format!("/{database}"), Kind::Sentinel => format!("/m/{database}"), Kind::Cluster => String::new() };
            let address = Address::parse(&format!("{scheme}://{hosts}{path}")).unwrap();
            prop_assert_eq!(Address::parse(&address.to_string()).unwrap().to_string(), address.to_string());
        }

        #[test]
        fn no_text_makes_the_parser_fall(text in "(redis(s)?(\\+(sentinel|cluster))?://)?\\PC{0,40}") {
            let _ = Address::parse(&text);
        }
    }
}
