//! Origins as browsers write them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A web origin in the one spelling that browsers send (RFC 6454 section 6.2): scheme, host, port unless it is the
/// default. Comparing two is comparing bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin(String);

impl Origin {
    /// Reads an origin from a configuration; the error says in one sentence what is wrong and how to write it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| Err(format!("`{}` {why}", excerpt(text)));
        if text == "null" {
            return refuse("would admit every sandboxed page; name the page's own origin instead.");
        }
        if text.contains('*') {
            return refuse("has a wildcard; list every origin by its full name.");
        }
        let Some((scheme, authority)) = text.split_once("://") else {
            return refuse("has no scheme; write it as `https://app.example.com`.");
        };
        if authority.ends_with('/') {
            return refuse("ends with a slash, which browsers never send; leave it out.");
        }
        if authority.contains(['/', '?', '#']) {
            return refuse("has a path; an origin is only scheme, host and port.");
        }
        if authority.contains('@') {
            return refuse("has user information; an origin is only scheme, host and port.");
        }
        if text.chars().any(|c| c.is_ascii_uppercase()) {
            return refuse("has upper-case letters; browsers send lower case, so write it in lower case.");
        }
        let Some((host, port)) = split_port(authority) else {
            return refuse("has a port that is none; write a number from 1 to 65535, or leave it out.");
        };
        if !is_host(host) {
            return refuse("has no valid host name; write it in ASCII (`xn--…` for other scripts).");
        }
        match scheme {
            "https" if port == Some(443) => {
                refuse("names the default port, which browsers leave out; leave `:443` out.")
            }
            "http" if port == Some(80) => refuse("names the default port, which browsers leave out; leave `:80` out."),
            "http" if !is_loopback(host) => {
                refuse("is plain http, so anybody on the way could act in its name; use https (http is for loopback).")
            }
            "https" | "http" => Ok(Self(text.to_owned())),
            _ => refuse("has an unknown scheme; use https."),
        }
    }

    /// The text, as in an `Origin` header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Enough to find the line in the configuration, and nothing that could garble a terminal.
fn excerpt(text: &str) -> String {
    text.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Host and port; `None` when the port is not one as browsers write it.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let after_host = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let Some(colon) = authority.get(after_host..)?.find(':').map(|at| at + after_host) else {
        return Some((authority, None));
    };
    let (host, port) = (authority.get(..colon)?, authority.get(colon + 1..)?);
    let canonical = !port.starts_with('0') && port.bytes().all(|byte| byte.is_ascii_digit());
    port.parse().ok().filter(|_| canonical).map(|port| (host, Some(port)))
}

/// A name of LDH labels, an IPv4 address or a bracketed IPv6 address, in canonical spelling.
fn is_host(host: &str) -> bool {
    if let Some(address) = bracketed(host) {
        return address.parse::<Ipv6Addr>().is_ok_and(|parsed| parsed.to_string() == address);
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= 253 && host.split('.').all(label)
}

fn is_loopback(host: &str) -> bool {
    let address = bracketed(host).unwrap_or(host);
    host == "localhost" || host.ends_with(".localhost") || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn bracketed(host: &str) -> Option<&str> {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_spelling_of_browsers_is_an_origin() {
        for good in [
            "https://app.example.com",
            "https://app.example.com:8443",
            "https://xn--bcher-kva.example",
            "https://192.0.2.7",
            "https://[2001:db8::1]:8443",
            "http://localhost:3000",
            "http://app.localhost",
            "http://127.0.0.1:8080",
            "http://[::1]:8080",
        ] {
            assert_eq!(Origin::parse(good).map(|origin| origin.to_string()), Ok(good.to_owned()));
        }
        for (bad, mend) in [
            ("null", "own origin"),
            ("*", "full name"),
            ("https://*.example.com", "full name"),
            ("app.example.com", "https://app"),
            ("https://app.example.com/", "leave it out"),
            ("https://app.example.com/x", "only scheme"),
            ("https://app.example.com?x", "only scheme"),
            ("https://u@app.example.com", "only scheme"),
            ("https://App.example.com", "lower case"),
            ("https://app.example.com:443", "leave"),
            ("http://localhost:80", "leave"),
            ("https://app.example.com:0", "1 to 65535"),
            ("https://app.example.com:", "1 to 65535"),
            ("https://app.example.com:99999", "1 to 65535"),
            ("https://app.example.com:0443", "1 to 65535"),
            ("http://app.example.com", "use https"),
            ("http://127.0.0.1.example.com", "use https"),
            ("ftp://app.example.com", "use https"),
            ("https://", "host name"),
            ("https://bücher.example", "xn--"),
            ("https://a..b", "host name"),
            ("https://app.example.com.", "host name"),
            ("https://[::1", "1 to 65535"),
            ("https://[0:0::1]", "host name"),
            ("https://a b", "host name"),
            ("", "https://app"),
        ] {
            let error = Origin::parse(bad).unwrap_err();
            assert!(error.contains(mend), "{bad:?}: {error}");
        }
    }
}
