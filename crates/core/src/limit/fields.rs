//! What a client is told: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers, Structured Field
//! Lists of RFC 9651), and `Retry-After` (RFC 9110 section 10.2.3).
//!
//! - `RateLimit-Policy: "user";q=60;w=60`: `q` units in each `w` seconds **in the long run**. A burst that differs from
//!   `q` shows as `bartizan-burst`, since the draft has no word for it; without it the burst equals `q`.
//! - `RateLimit: "user";r=12;t=3`: `r` units can be taken at this moment, `t` seconds bring at least one more, rounded
//!   up. No `t` when the whole burst is there: nothing more will come. With a burst above `q`, `r` may exceed `q`.
//! - On a refusal only the policies that said no tell `t`, so `Retry-After` is never earlier than any `t` (it wins).
//!   Both end at a day: a client that waits so long asks again.
//!
//! The names go out as they are: they must not tell who the client is.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::gcra::{Limit, Verdict};
use super::quota::Quota;

/// `RateLimit-Policy`.
pub const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// `RateLimit`.
pub const STATE: HeaderName = HeaderName::from_static("ratelimit");

/// Longest wait that is told.
const DAY: u64 = 24 * 3600;

/// The value of `RateLimit-Policy` for `limits`, one allocation. It depends on names and quotas only: keep it.
/// `None` without limits, for then the field must be left out.
pub fn policy<L: AsRef<Limit>>(limits: &[L]) -> Option<HeaderValue> {
    let mut text = String::with_capacity(48 * limits.len());
    for limit in limits.iter().map(AsRef::as_ref) {
        let (count, seconds) = whole_seconds(&limit.quota);
        item(&mut text, limit.name);
        number(&mut text, ";q=", count);
        number(&mut text, ";w=", seconds);
        if limit.quota.burst() != limit.quota.count() {
            number(&mut text, ";bartizan-burst=", u64::from(limit.quota.burst()));
        }
    }
    value(text)
}

/// The value of `RateLimit` after a decision, one allocation. `None` without limits.
pub fn state<L: AsRef<Limit>>(limits: &[L]) -> Option<HeaderValue> {
    let refused = limits.iter().any(|limit| limit.as_ref().violated());
    let mut text = String::with_capacity(32 * limits.len());
    for limit in limits.iter().map(AsRef::as_ref) {
        item(&mut text, limit.name);
        number(&mut text, ";r=", u64::from(limit.decision.remaining));
        if !limit.decision.reset.is_zero() && (!refused || limit.violated()) {
            number(&mut text, ";t=", seconds(limit.decision.reset));
        }
    }
    value(text)
}

/// The value of `Retry-After` in whole seconds, rounded up, at least one, at most a day. `None` when the verdict is not
/// to come back later.
pub fn retry_after(verdict: Verdict) -> Option<u64> {
    match verdict {
        Verdict::Deny { retry_after } => Some(seconds(retry_after).max(1)),
        Verdict::Admit | Verdict::Never => None,
    }
}

/// The names for `violated-policies` in the problem body.
pub fn violated<L: AsRef<Limit>>(limits: &[L]) -> Vec<Cow<'static, str>> {
    limits.iter().map(AsRef::as_ref).filter(|limit| limit.violated()).map(|limit| Cow::Borrowed(limit.name)).collect()
}

/// Count and period of the same rate, with a period of whole seconds.
fn whole_seconds(quota: &Quota) -> (u64, u64) {
    let millis = u64::try_from(quota.period().as_millis()).unwrap_or(u64::MAX);
    let times = [1, 2, 4, 5, 8, 10, 20, 25, 40, 50, 100, 125, 200, 250, 500]
        .into_iter()
        .find(|times| (millis * times).is_multiple_of(1000))
        .unwrap_or(1000);
    (u64::from(quota.count()) * times, millis * times / 1000)
}

fn seconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(DAY).min(DAY)
}

/// Begins a list member: a String (RFC 9651 section 3.3.3), which holds printable ASCII only.
fn item(text: &mut String, name: &str) {
    text.push_str(if text.is_empty() { "\"" } else { ", \"" });
    // Nearly all names are plain words.
    if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        text.push_str(name);
    } else {
        for c in name.chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                ' '..='~' => text.push(c),
                _ => text.push('_'),
            }
        }
    }
    text.push('"');
}

fn number(text: &mut String, before: &str, number: u64) {
    text.push_str(before);
    // Integers have at most 15 digits (section 3.3.1).
    text.push_str(itoa::Buffer::new().format(number.min(999_999_999_999_999)));
}

fn value(text: String) -> Option<HeaderValue> {
    if text.is_empty() { None } else { HeaderValue::try_from(text).ok() }
}

#[cfg(test)]
mod tests {
    use super::super::take_all;
    use super::*;
    use crate::time::Millis;

    fn limit(name: &'static str, count: u32, period: u64, burst: u32) -> Limit {
        Limit::new(name, Quota::new(count, Duration::from_millis(period), burst).unwrap())
    }

    fn text(value: Option<HeaderValue>) -> String {
        value.unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn an_admitted_request_is_told_what_is_left() {
        let mut limits = [limit("address", 600, 60_000, 300), limit("user", 60, 60_000, 60)];
        assert!(take_all(&mut limits, 1, Millis(0)).admits());
        assert_eq!(text(policy(&limits)), r#""address";q=600;w=60;bartizan-burst=300, "user";q=60;w=60"#);
        assert_eq!(text(state(&limits)), r#""address";r=299;t=1, "user";r=59;t=1"#);
        assert!(violated(&limits).is_empty());
    }

    #[test]
    fn a_refusal_names_the_policies_and_retry_after_is_never_earlier_than_t() {
        let mut limits = [limit("tenant", 10, 600_000, 10), limit("user", 2, 60_000, 2)];
        for _ in 0..2 {
            assert!(take_all(&mut limits, 1, Millis(0)).admits());
        }
        let verdict = take_all(&mut limits, 1, Millis(500));
        assert_eq!(text(state(&limits)), r#""tenant";r=8, "user";r=0;t=30"#);
        assert_eq!(retry_after(verdict), Some(30));
        assert_eq!(violated(&limits), ["user"]);
    }

    #[test]
    fn a_full_burst_promises_nothing_more() {
        assert_eq!(text(state(&[limit("user", 60, 60_000, 60)])), r#""user";r=60"#);
        assert_eq!(state::<Limit>(&[]), None);
    }

    #[test]
    fn a_period_of_odd_milliseconds_keeps_its_rate() {
        for (period, expected) in [(1500, "q=14;w=3"), (1, "q=7000;w=1"), (1001, "q=7000;w=1001"), (2000, "q=7;w=2")] {
            assert_eq!(text(policy(&[limit("x", 7, period, 7)])), format!("\"x\";{expected}"));
        }
    }

    #[test]
    fn names_cannot_break_out_of_their_quotes() {
        let limits = [limit("a\"b\\c\nd\u{e9}", 1, 1000, 1)];
        assert_eq!(text(policy(&limits)), r#""a\"b\\c_d_";q=1;w=1"#);
    }

    #[test]
    fn a_long_wait_ends_at_a_day() {
        let mut limits = [limit("year", 1, 366 * 86_400_000, 1)];
        assert!(take_all(&mut limits, 1, Millis(0)).admits());
        assert_eq!(text(state(&limits)), r#""year";r=0;t=86400"#);
        assert_eq!(retry_after(take_all(&mut limits, 1, Millis(0))), Some(86_400));
    }

    /// An independent parser reads what is written. Needs Python with `http-sfv`; says so when it is not there.
    #[test]
    #[allow(clippy::print_stderr)]
    fn an_independent_parser_reads_the_fields() {
        let mut limits = [limit("a\"b", 7, 1500, 3), limit("user", 60, 60_000, 60)];
        take_all(&mut limits, 2, Millis(0));
        let program = "import sys\ntry: import http_sfv\nexcept ImportError: sys.exit(77)\n\
            for line in sys.argv[1:]:\n l = http_sfv.List(); l.parse(line.encode())\n \
            print([(i.value, dict(i.params)) for i in l])\n";
        let arguments = [text(policy(&limits)), text(state(&limits))];
        let output = std::process::Command::new("python3").arg("-c").arg(program).args(&arguments).output();
        let Ok(output) = output.map_err(|_| ()).and_then(|o| if o.status.code() == Some(77) { Err(()) } else { Ok(o) })
        else {
            eprintln!("skipped: no python3 with http-sfv (pip install http-sfv)");
            return;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let expected = "[('a\"b', {'q': 14, 'w': 3, 'bartizan-burst': 3}), ('user', {'q': 60, 'w': 60})]\n\
            [('a\"b', {'r': 1, 't': 1}), ('user', {'r': 58, 't': 1})]\n";
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }
}
