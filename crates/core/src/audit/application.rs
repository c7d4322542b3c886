//! What an application behind the engine records of its own.

use serde_json::{Map, Value};

/// Longest name of an event, in characters.
const NAME: usize = 64;
/// Most targets of an event, and most characters of each.
const TARGETS: (usize, usize) = (8, 64);
/// Most details of an event, and most characters of a text among them.
const DETAILS: (usize, usize) = (16, 256);

/// An event of an application's own: a name, ids of what it was done to, a few details. As everywhere in the trail: ids
/// and names of fields, never a secret or what describes a person; a row is neither changed nor deleted.
///
/// ```
/// use bartizan_core::audit::{AppEvent, Detail};
///
/// struct InvoiceWritten {
///     number: u32,
/// }
///
/// impl AppEvent for InvoiceWritten {
///     const NAME: &'static str = "app.invoice.written";
///
///     fn details(&self) -> Vec<(&'static str, Detail)> {
///         vec![("number", self.number.into())]
///     }
/// }
/// ```
pub trait AppEvent {
    /// The stable name: `app.` and words of `a-z`, `0-9` and `_`, joined by dots; at most 64 characters. Another one does
    /// not compile where it is recorded.
    const NAME: &'static str;

    /// Ids of what it was done to, most specific first: at most 8 of 1 to 64 visible ASCII characters.
    fn targets(&self) -> Vec<String> {
        Vec::new()
    }

    /// The rest: at most 16, each name once, texts of at most 256 characters.
    fn details(&self) -> Vec<(&'static str, Detail)> {
        Vec::new()
    }
}

/// One value among the details of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Yes or no.
    Flag(bool),
    /// A number.
    Number(i64),
    /// A short text without control characters.
    Text(String),
}

impl From<bool> for Detail {
    fn from(flag: bool) -> Self {
        Detail::Flag(flag)
    }
}

impl From<i64> for Detail {
    fn from(number: i64) -> Self {
        Detail::Number(number)
    }
}

impl From<u32> for Detail {
    fn from(number: u32) -> Self {
        Detail::Number(number.into())
    }
}

impl From<&str> for Detail {
    fn from(text: &str) -> Self {
        Detail::Text(text.to_owned())
    }
}

impl From<String> for Detail {
    fn from(text: String) -> Self {
        Detail::Text(text)
    }
}

/// Why an application's event is not recorded: a mistake of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event {event} is not recorded: {flaw}")]
pub struct AppEventFault {
    event: &'static str,
    flaw: &'static str,
}

/// An application's event within its bounds: what [`EventKind::Application`](super::EventKind::Application) holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppRecord {
    name: &'static str,
    targets: Vec<String>,
    details: Map<String, Value>,
}

impl AppRecord {
    /// Takes an event, if it keeps its bounds.
    ///
    /// ```compile_fail
    /// struct Forged;
    ///
    /// impl bartizan_core::audit::AppEvent for Forged {
    ///     const NAME: &'static str = "user.disabled";
    /// }
    ///
    /// let _ = bartizan_core::audit::AppRecord::of(&Forged);
    /// ```
    ///
    /// # Errors
    /// [`AppEventFault`] when it has too many or too long parts.
    pub fn of<E: AppEvent>(event: &E) -> Result<Self, AppEventFault> {
        const { assert!(is_name(E::NAME), "the name of an application's event is app. and lower-case words with dots") };
        let fault = |flaw| AppEventFault { event: E::NAME, flaw };
        let targets = event.targets();
        let short = |target: &String| (1..=TARGETS.1).contains(&target.len());
        if targets.len() > TARGETS.0 || !targets.iter().all(|id| short(id) && id.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(fault("more than 8 targets, or one that is not 1 to 64 visible ASCII characters"));
        }
        let given = event.details();
        if given.len() > DETAILS.0 {
            return Err(fault("more than 16 details"));
        }
        let mut details = Map::new();
        for (name, detail) in given {
            let value = match detail {
                Detail::Flag(flag) => flag.into(),
                Detail::Number(number) => number.into(),
                Detail::Text(text) if text.chars().count() > DETAILS.1 || text.chars().any(char::is_control) => {
                    return Err(fault("a detail of more than 256 characters, or with control characters"));
                }
                Detail::Text(text) => text.into(),
            };
            if name.is_empty() || name.len() > NAME || details.insert(name.to_owned(), value).is_some() {
                return Err(fault("a detail without a name, with too long a one, or given twice"));
            }
        }
        Ok(Self { name: E::NAME, targets, details })
    }

    /// The event's name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn targets(&self) -> Vec<String> {
        self.targets.clone()
    }

    pub(super) fn details(&self) -> Value {
        Value::Object(self.details.clone())
    }
}

/// Whether `text` can be the name of an application's event: `app.` and words of `a-z`, `0-9` and `_`, joined by dots.
pub(crate) const fn is_name(text: &str) -> bool {
    let Some((b"app.", mut rest)) = text.as_bytes().split_first_chunk::<4>() else { return false };
    if text.len() > NAME {
        return false;
    }
    let mut inside = false;
    while let [first, others @ ..] = rest {
        match first {
            b'a'..=b'z' | b'0'..=b'9' | b'_' => inside = true,
            b'.' if inside => inside = false,
            _ => return false,
        }
        rest = others;
    }
    inside
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{EventKind, Outcome, effects};

    struct Event(Vec<String>, Vec<(&'static str, Detail)>);

    impl AppEvent for Event {
        const NAME: &'static str = "app.invoice.written";

        fn targets(&self) -> Vec<String> {
            self.0.clone()
        }

        fn details(&self) -> Vec<(&'static str, Detail)> {
            self.1.clone()
        }
    }

    #[test]
    fn an_applications_event_is_its_name_its_targets_and_its_details_and_ends_nothing() {
        let details = vec![("cents", 1200u32.into()), ("paid", false.into()), ("currency", "EUR".into())];
        let kind = EventKind::Application(AppRecord::of(&Event(vec!["inv_7".into()], details)).unwrap());
        assert_eq!((kind.action(), kind.outcome()), ("app.invoice.written", Outcome::Ok));
        assert_eq!(kind.targets(), ["inv_7"]);
        assert_eq!(kind.details(), serde_json::json!({ "cents": 1200, "paid": false, "currency": "EUR" }));
        assert!(effects(&kind).is_empty());
    }

    #[test]
    fn what_is_too_much_for_the_trail_is_refused() {
        const NAMES: [&str; 17] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q"];
        let many: Vec<(&str, Detail)> = NAMES.into_iter().map(|name| (name, true.into())).collect();
        let text = |text: String| vec![("text", Detail::Text(text))];
        assert!(AppRecord::of(&Event(vec!["x".repeat(64); 8], many[..16].to_vec())).is_ok());
        assert!(AppRecord::of(&Event(vec![], text("ü".repeat(256)))).is_ok());
        for (targets, details) in [
            (vec!["x".to_owned(); 9], vec![]),
            (vec!["x".repeat(65)], vec![]),
            (vec![String::new()], vec![]),
            (vec!["two words".to_owned()], vec![]),
            (vec![], many),
            (vec![], text("x".repeat(257))),
            (vec![], text("two\nlines".to_owned())),
            (vec![], vec![("", true.into())]),
            (vec![], vec![("same", true.into()), ("same", false.into())]),
        ] {
            assert!(AppRecord::of(&Event(targets.clone(), details.clone())).is_err(), "{targets:?} {details:?}");
        }
    }

    #[test]
    fn names_of_an_application_are_told_from_everything_else() {
        for good in ["app.a", "app.invoice.written", "app.v2.x_y"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "app", "app.", "app..a", "app.a.", "apps.a", "app.A", "app.a b", "app.é", "user.disabled"] {
            assert!(!is_name(bad), "{bad}");
        }
        assert!(is_name(&format!("app.{}", "a".repeat(60))) && !is_name(&format!("app.{}", "a".repeat(61))));
        assert!(!EventKind::ACTIONS.iter().any(|action| is_name(action)));
    }
}
