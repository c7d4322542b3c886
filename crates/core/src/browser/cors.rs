//! Cross-origin resource sharing: which other origins may read answers.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method};

use super::origin::Origin;

/// Whether a cross-origin request may carry cookies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// No `Access-Control-Allow-Credentials`.
    #[default]
    Omit,
    /// With it; needs exact origins.
    Include,
}

/// An allow-list of origins, exact and case-sensitive. Empty: no other origin may read anything.
#[derive(Clone, Debug, Default)]
pub struct CorsPolicy {
    origins: Vec<Origin>,
    anyone: bool,
    credentials: Credentials,
}

/// What a page may send besides the headers that need no leave.
const ALLOWED_HEADERS: &str = "authorization, content-type, idempotency-key";
/// What a page may read besides the headers that need no leave.
const EXPOSED_HEADERS: &str = "ratelimit, ratelimit-policy, retry-after, x-request-id";
/// Seconds for which a browser remembers a preflight's answer: short, so that a changed list acts soon.
const MAX_AGE: &str = "600";
const VARY_PREFLIGHT: &str = "origin, access-control-request-method, access-control-request-headers";

impl CorsPolicy {
    /// Checks a configured list. Everything that is wrong with it comes back at once, each with the way to mend it.
    pub fn new<S: AsRef<str>>(origins: &[S], credentials: Credentials) -> Result<Self, Vec<String>> {
        let mut policy = Self { credentials, ..Self::default() };
        let mut faults = Vec::new();
        for text in origins.iter().map(AsRef::as_ref) {
            match text {
                "*" if credentials == Credentials::Include => faults.push(
                    "`*` with credentials would let every site act as its visitors; list the origins, or omit credentials."
                        .to_owned(),
                ),
                "*" if origins.len() > 1 => {
                    faults.push("`*` beside other origins makes them meaningless; leave it out.".to_owned());
                }
                "*" => policy.anyone = true,
                _ => match Origin::parse(text) {
                    Ok(origin) if policy.origins.contains(&origin) => {
                        faults.push(format!("`{origin}` is listed twice; leave one out."));
                    }
                    Ok(origin) => policy.origins.push(origin),
                    Err(fault) => faults.push(fault),
                },
            }
        }
        if faults.is_empty() { Ok(policy) } else { Err(faults) }
    }

    /// The listed origins: those that [`super::cross_site`] may trust when credentials are included.
    pub fn origins(&self) -> &[Origin] {
        &self.origins
    }

    /// Adds to an answer what lets the asking origin read it; nothing for anybody else.
    ///
    /// `Vary: Origin` is there whoever asks, or a cache could hand one origin's answer to another.
    pub fn answer(&self, request: &HeaderMap, response: &mut HeaderMap) {
        if self.is_silent() {
            return;
        }
        response.append(VARY, HeaderValue::from_static("origin"));
        if self.admit(request, response) {
            response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_HEADERS));
        }
    }

    /// The headers that answer a preflight for a route with these `methods`; `None` when the request is none.
    ///
    /// The status is 204 whatever the headers say: to be refused is to find no `Access-Control-Allow-Origin`.
    pub fn preflight(&self, method: &Method, request: &HeaderMap, methods: &[Method]) -> Option<HeaderMap> {
        let asks = method == Method::OPTIONS
            && request.contains_key(ORIGIN)
            && request.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if !asks || self.is_silent() {
            return None;
        }
        let mut response = HeaderMap::new();
        response.insert(VARY, HeaderValue::from_static(VARY_PREFLIGHT));
        if self.admit(request, &mut response) {
            let methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
            if let Ok(methods) = HeaderValue::from_str(&methods.join(", ")) {
                response.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
            }
            response.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_HEADERS));
            response.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
        }
        Some(response)
    }

    fn is_silent(&self) -> bool {
        self.origins.is_empty() && !self.anyone
    }

    /// Names the asking origin as allowed, if it is.
    fn admit(&self, request: &HeaderMap, response: &mut HeaderMap) -> bool {
        let mut asking = request.get_all(ORIGIN).iter();
        let (Some(origin), None) = (asking.next(), asking.next()) else { return false };
        if self.anyone {
            response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            return true;
        }
        if !self.origins.iter().any(|known| known.as_str().as_bytes() == origin.as_bytes()) {
            return false;
        }
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials == Credentials::Include {
            response.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "https://good.example";

    fn asking(origin: &'static str) -> HeaderMap {
        HeaderMap::from_iter([
            (ORIGIN, HeaderValue::from_static(origin)),
            (ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("POST")),
        ])
    }

    fn allowed(policy: &CorsPolicy, request: &HeaderMap) -> Option<String> {
        let mut response = HeaderMap::new();
        policy.answer(request, &mut response);
        response.get(ACCESS_CONTROL_ALLOW_ORIGIN).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn only_the_exact_origin_is_named() {
        let policy = CorsPolicy::new(&[GOOD, "http://localhost:3000"], Credentials::Include).unwrap();
        assert_eq!(allowed(&policy, &asking(GOOD)).as_deref(), Some(GOOD));
        for bad in [
            "null",
            "",
            "https://good.example.evil.com",
            "https://evilgood.example",
            "http://good.example",
            "https://good.example:8443",
            "https://GOOD.example",
            "https://good.example/",
            "https://sub.good.example",
            "http://localhost:3001",
            "*",
        ] {
            assert_eq!(allowed(&policy, &asking(bad)), None, "{bad}");
        }
        let mut twice = asking(GOOD);
        twice.append(ORIGIN, HeaderValue::from_static("https://evil.example"));
        assert_eq!(allowed(&policy, &twice), None);
        assert_eq!(allowed(&policy, &HeaderMap::new()), None);
    }

    #[test]
    fn answers_vary_by_origin_whoever_asks() {
        let policy = CorsPolicy::new(&[GOOD], Credentials::Omit).unwrap();
        for request in [HeaderMap::new(), asking("https://evil.example"), asking(GOOD)] {
            let mut response = HeaderMap::from_iter([(VARY, HeaderValue::from_static("accept-encoding"))]);
            policy.answer(&request, &mut response);
            let vary: Vec<_> = response.get_all(VARY).iter().collect();
            assert_eq!(vary, ["accept-encoding", "origin"]);
            assert!(!response.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
        }
    }

    #[test]
    fn preflight_is_answered_for_members_and_empty_for_others() {
        let policy = CorsPolicy::new(&[GOOD], Credentials::Include).unwrap();
        let methods = [Method::GET, Method::POST];
        let answer = policy.preflight(&Method::OPTIONS, &asking(GOOD), &methods).unwrap();
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_METHODS], "GET, POST");
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(answer[ACCESS_CONTROL_MAX_AGE], "600");
        let answer = policy.preflight(&Method::OPTIONS, &asking("https://evil.example"), &methods).unwrap();
        assert_eq!(answer.keys().collect::<Vec<_>>(), [VARY]);
        assert!(policy.preflight(&Method::GET, &asking(GOOD), &methods).is_none());
        assert!(policy.preflight(&Method::OPTIONS, &HeaderMap::new(), &methods).is_none());
        let closed = CorsPolicy::default();
        assert!(closed.preflight(&Method::OPTIONS, &asking(GOOD), &methods).is_none());
    }

    #[test]
    fn a_dangerous_list_does_not_start_and_says_everything() {
        let faults = CorsPolicy::new(&["*", "null", "http://app.example.com", GOOD, GOOD], Credentials::Include);
        let faults = faults.unwrap_err();
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert!(faults[0].contains("omit credentials") && faults[2].contains("use https"), "{faults:?}");
        assert!(CorsPolicy::new(&["*", GOOD], Credentials::Omit).is_err());
        let open = CorsPolicy::new(&["*"], Credentials::Omit).unwrap();
        assert_eq!(allowed(&open, &asking("https://any.example")).as_deref(), Some("*"));
    }
}
