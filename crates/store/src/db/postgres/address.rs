//! The address of a PostgreSQL database, read strictly.

use std::net::IpAddr;

use bartizan_core::secret::Secret;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::error::{StoreError, StoreErrorKind};

/// Parameters an address may carry. Others are refused, not ignored: a misspelt `sslmode` must not mean "none".
const PARAMETERS: &[&str] = &["sslmode", "sslrootcert", "sslcert", "sslkey", "host", "application_name"];

/// Whether this looks like an address of PostgreSQL.
pub(in crate::db) fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres:") || url.starts_with("postgresql:")
}

/// Reads an address. Nothing of it is repeated in an error, since it may hold a password.
///
/// TLS: without `sslmode`, a server on this machine is spoken to in the clear and any other only by `verify-full`.
/// `prefer` and `allow` are refused, because whoever sits in between decides what they mean; `verify-ca` too, because
/// the authorities of `sslrootcert` are believed beside the public ones, from which anybody gets a certificate.
pub(super) fn read(url: &str, password: Option<&Secret<String>>) -> Result<PgConnectOptions, StoreError> {
    let wrong = |why: &str| StoreError::new(StoreErrorKind::Url).detail(why);
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    let names: Vec<&str> = parameters
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split('=').next().unwrap_or(pair))
        .collect();
    if names.iter().any(|name| !PARAMETERS.contains(name)) {
        return Err(wrong(&format!("only these parameters are known after the `?`: {}", PARAMETERS.join(", "))));
    }
    if names.iter().enumerate().any(|(n, name)| names.iter().skip(n + 1).any(|other| other == name)) {
        return Err(wrong("a parameter after the `?` is given twice"));
    }
    if url.contains('#') {
        return Err(wrong("`#` in a name or a password is written `%23`"));
    }
    let mut options: PgConnectOptions = url
        .parse()
        .map_err(|_| wrong("signs such as `@ : / ? # %` in a name or a password are written `%40` and so on"))?;
    let user = url.split_once("//").map_or("", |(_, rest)| rest.split(['@', '/']).next().unwrap_or_default());
    if !url.contains('@') || user.is_empty() || user.starts_with(':') {
        return Err(wrong("the name of the user is missing"));
    }
    let path = url.split('?').next().and_then(|rest| rest.split_once("//")).and_then(|(_, rest)| rest.split_once('/'));
    if path.is_none_or(|(_, database)| database.is_empty()) {
        return Err(wrong("the name of the database is missing"));
    }
    let local = is_local(&options);
    options = match (names.contains(&"sslmode"), options.get_ssl_mode()) {
        (true, PgSslMode::Prefer | PgSslMode::Allow | PgSslMode::VerifyCa) => {
            return Err(wrong(
                "`sslmode` is `verify-full`, `require` (encrypted, to whoever answers) or `disable`: the others leave it to \
                 whoever sits in between",
            ));
        }
        (true, mode) => options.ssl_mode(mode),
        (false, _) if local => options.ssl_mode(PgSslMode::Disable),
        (false, _) => options.ssl_mode(PgSslMode::VerifyFull),
    };
    if let Some(password) = password {
        options = options.password(password.expose().trim_end_matches(['\r', '\n']));
    }
    if options.get_application_name().is_none() || !names.contains(&"application_name") {
        options = options.application_name("bartizan");
    }
    Ok(options.statement_cache_capacity(256))
}

/// Whether the server is on this very machine.
pub(super) fn is_local(options: &PgConnectOptions) -> bool {
    options.get_socket().is_some()
        || options.get_host().starts_with('/')
        || options.get_host() == "localhost"
        || options.get_host().trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The place for people to read: host, port and database, nothing else.
pub(super) fn place(options: &PgConnectOptions) -> String {
    let host = options.get_socket().map_or_else(|| options.get_host().to_owned(), |path| path.display().to_string());
    format!("PostgreSQL, {host}:{}, database {}", options.get_port(), options.get_database().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encryption_is_not_left_to_chance() {
        for (url, mode) in [
            ("postgres://u@localhost/d", PgSslMode::Disable),
            ("postgres://u@127.0.0.1:5433/d", PgSslMode::Disable),
            ("postgres://u@[::1]/d", PgSslMode::Disable),
            ("postgres://u@x/d?host=/run/postgresql", PgSslMode::Disable),
            ("postgresql://u@db.example/d", PgSslMode::VerifyFull),
            ("postgres://u@10.0.0.1/d", PgSslMode::VerifyFull),
            ("postgres://u@db.example/d?sslmode=require", PgSslMode::Require),
            ("postgres://u@db.example/d?sslmode=disable", PgSslMode::Disable),
            ("postgres://u@localhost/d?sslmode=verify-full&sslrootcert=/x.pem", PgSslMode::VerifyFull),
        ] {
            let options = read(url, None).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(std::mem::discriminant(&options.get_ssl_mode()), std::mem::discriminant(&mode), "{url}");
        }
    }

    #[test]
    fn unusable_addresses_are_explained_and_never_repeated() {
        for url in [
            "postgres:",
            "postgres://",
            "postgres://u:hunter2@h",
            "postgres://u:hunter2@h/",
            "postgres://h/d",
            "postgres://:hunter2@h/d",
            "postgres://u:hunter2@h/d?sslmod=verify-full",
            "postgres://u:hunter2@h/d?sslmode=prefer",
            "postgres://u:hunter2@h/d?sslmode=verify-ca",
            "postgres://u:hunter2@h/d?sslmode=sometimes",
            "postgres://u:hunter2@h/d?sslmode=disable&sslmode=verify-full",
            "postgres://u@h/d?password=hunter2",
            "postgres://u:hunter2@h:port/d",
            "postgres://u:hunt#er2@h/d",
        ] {
            let error = read(url, None).map(|_| url).expect_err("must be refused");
            assert_eq!(error.kind(), StoreErrorKind::Url, "{url}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn place_names_no_user_and_no_password() {
        let secret = Secret::new("hunter2\n".to_owned());
        let options = read("postgres://user@db.example:5433/accounts", Some(&secret)).unwrap();
        assert_eq!(place(&options), "PostgreSQL, db.example:5433, database accounts");
    }
}
