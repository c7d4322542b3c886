//! What a request shows to say who it is: parsed, not yet trusted.

use bartizan_core::error::{Code, Refusal};
use http::{HeaderMap, header};

/// A presented credential. Nothing outside the guard reads these headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Credential<'a> {
    /// Nothing was presented.
    None,
    /// `Authorization: Bearer …` (RFC 6750 section 2.1).
    Bearer(&'a str),
}

impl<'a> Credential<'a> {
    /// Reads the one credential of a request.
    ///
    /// # Errors
    /// Two `Authorization` headers, another scheme, or bytes that are not visible ASCII are refused rather than
    /// skipped: a proxy and we must not disagree about which one counts.
    pub(super) fn of(headers: &'a HeaderMap) -> Result<Self, Refusal> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Ok(Credential::None) };
        if values.next().is_some() {
            return Err(Refusal::new(Code::HeaderInvalid).detail("Send exactly one Authorization header."));
        }
        let text = value.to_str().map_err(|_| Refusal::new(Code::CredentialInvalid))?;
        match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Credential::Bearer(token.trim())),
            _ => Err(Refusal::new(Code::CredentialInvalid).detail("Use the Bearer scheme.")),
        }
    }
}

/// The `__Host-` cookie that tells a device which has logged in before.
pub const DEVICE_COOKIE: &str = "__Host-bartizan-device";

/// The value of the cookie `name`, when there is exactly one of that name.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut found = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value);
    let first = found.next()?;
    // A second one was planted from somewhere else: trust neither.
    found.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn reads_one_bearer_token() {
        let one = headers(&[(header::AUTHORIZATION, "bearer abc")]);
        assert_eq!(Credential::of(&one), Ok(Credential::Bearer("abc")));
        assert_eq!(Credential::of(&HeaderMap::new()), Ok(Credential::None));
    }

    #[test]
    fn refuses_two_headers_and_other_schemes() {
        let two = headers(&[(header::AUTHORIZATION, "Bearer a"), (header::AUTHORIZATION, "Bearer b")]);
        assert_eq!(Credential::of(&two).unwrap_err().code, Code::HeaderInvalid);
        let basic = headers(&[(header::AUTHORIZATION, "Basic YTpi")]);
        assert_eq!(Credential::of(&basic).unwrap_err().code, Code::CredentialInvalid);
        let bare = headers(&[(header::AUTHORIZATION, "abc")]);
        assert_eq!(Credential::of(&bare).unwrap_err().code, Code::CredentialInvalid);
    }

    #[test]
    fn a_doubled_cookie_counts_as_none() {
        let one = headers(&[(header::COOKIE, "a=1; __Host-bartizan-device=x; b=2")]);
        assert_eq!(cookie(&one, DEVICE_COOKIE), Some("x"));
        let two =
            headers(&[(header::COOKIE, "__Host-bartizan-device=x"), (header::COOKIE, "__Host-bartizan-device=y")]);
        assert_eq!(cookie(&two, DEVICE_COOKIE), None);
    }
}
