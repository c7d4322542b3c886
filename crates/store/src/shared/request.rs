//! A request on its way through the shared state: what it asks, what is known already, which calls it takes, and what
//! their answers come to. Nothing here waits.

use std::time::{Duration, Instant};

use bartizan_core::limit::{Key, Tat, Verdict, take, take_all};
use bartizan_core::time::Millis;

use super::batch::Call;
use super::scripts::{self, Doubles, Said, Taken};
use super::{Names, Want};
use crate::state::{Ask, Counted, MOST_LIMITS};

/// One limit on its way.
#[derive(Clone, Copy)]
pub(super) struct Line {
    pub(super) ask: Ask,
    /// Its group, counted from zero; none at a login.
    pub(super) group: Option<usize>,
    /// Whether units of a lease pay for it.
    pub(super) leased: Leased,
    /// What the store took for it: more than the cost when it brings a lease.
    pub(super) charged: u32,
    /// The bucket after that.
    pub(super) after: Option<Tat>,
}

/// How a limit is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leased {
    /// By the store.
    No,
    /// By the store, which is asked for so many units more.
    Fetches(u32),
    /// By a lease.
    Yes,
}

/// All of it.
pub(super) struct Request {
    pub(super) lines: Vec<Line>,
    pub(super) subjects: Vec<Key>,
    pub(super) cost: u32,
    pub(super) want: Want,
    pub(super) now: Millis,
    pub(super) mono: Instant,
}

/// One call: keys of one slot, or of all where there are no slots.
pub(super) struct Part {
    tag: Option<Key>,
    /// Places of lines.
    pub(super) lines: Vec<usize>,
    /// Places of `subjects`.
    pub(super) subjects: Vec<usize>,
    sequence: bool,
}

impl Part {
    /// One for each of its keys. The verdict is the same: what the others took is given back when one refuses.
    pub(super) fn split(self) -> impl Iterator<Item = Self> {
        let Self { tag, lines, subjects, sequence: _ } = self;
        let one = move |lines, subjects| Self { tag, lines, subjects, sequence: false };
        let buckets = lines.into_iter().map(move |line| one(vec![line], Vec::new()));
        buckets.chain(subjects.into_iter().map(move |subject| one(Vec::new(), vec![subject])))
    }

    /// Whether a verdict depends on it, rather than only the sequence.
    pub(super) const fn decides(&self) -> bool {
        !self.lines.is_empty() || !self.subjects.is_empty()
    }
}

impl Request {
    pub(super) fn new(cost: u32, want: Want, now: Millis, mono: Instant) -> Self {
        Self { lines: Vec::with_capacity(4), subjects: Vec::with_capacity(2), cost, want, now, mono }
    }

    /// Adds a group's asks; `who` is whose refusals are counted.
    pub(super) fn add(&mut self, who: Option<Key>, asks: &[Ask]) {
        let group = who.map(|_| self.subjects.len());
        self.subjects.extend(who);
        self.lines.extend(asks.iter().map(|ask| {
            let ask = Ask { counted: Counted::Own, ..*ask };
            Line { ask, group, leased: Leased::No, charged: 0, after: None }
        }));
    }

    /// Whether no waiting helps. Marks the limits that can never admit.
    pub(super) fn impossible(&mut self) -> bool {
        let repeated = self
            .lines
            .iter()
            .enumerate()
            .any(|(n, line)| self.lines.iter().skip(n + 1).any(|other| other.ask.key == line.ask.key));
        let mut never = repeated || self.lines.len() > MOST_LIMITS;
        for line in &mut self.lines {
            if self.cost > line.ask.limit.quota.burst() || repeated {
                line.ask.limit.decision.verdict = Verdict::Never;
                never = true;
            }
        }
        never
    }

    /// Whether leases pay for all of it.
    pub(super) fn paid(&self) -> bool {
        !self.lines.is_empty() && self.lines.iter().all(|line| line.leased == Leased::Yes)
    }

    /// Writes the decisions back to whoever asked, group by group.
    pub(super) fn write_back<'a>(&self, asks: impl Iterator<Item = &'a mut Ask>) {
        for (ask, line) in asks.zip(&self.lines) {
            *ask = line.ask;
        }
    }

    /// Who is charged a refusal: the first group with a violated limit.
    pub(super) fn refused_who(&self) -> Option<Key> {
        let group = self.lines.iter().find(|line| line.ask.limit.violated())?.group?;
        self.subjects.get(group).copied()
    }

    /// The longest wait of those that refuse.
    pub(super) fn wait(&self) -> Duration {
        let waits = self.lines.iter().filter_map(|line| match line.ask.limit.decision.verdict {
            Verdict::Deny { retry_after } => Some(retry_after),
            _ => None,
        });
        waits.max().unwrap_or_default()
    }

    /// The calls this takes. On one server everything is one call, on a cluster one for each key.
    pub(super) fn plan(&self, cluster: bool) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        let part = |parts: &mut Vec<Part>, tag: Option<Key>| {
            let tag = tag.filter(|_| cluster);
            parts.iter().position(|part| part.tag == tag && !(cluster && part.sequence)).unwrap_or_else(|| {
                parts.push(Part { tag, lines: Vec::new(), subjects: Vec::new(), sequence: false });
                parts.len() - 1
            })
        };
        for (place, line) in self.lines.iter().enumerate().filter(|(_, line)| line.leased != Leased::Yes) {
            let at = part(&mut parts, Some(line.ask.key));
            if let Some(part) = parts.get_mut(at) {
                part.lines.push(place);
            }
        }
        // With leases for everything nobody is asked, so a ban given elsewhere is heard of when they end.
        if parts.is_empty() && self.want == Want::Decision && !self.lines.is_empty() {
            return parts;
        }
        for (place, who) in self.subjects.iter().enumerate() {
            let at = part(&mut parts, Some(*who));
            if let Some(part) = parts.get_mut(at) {
                part.subjects.push(place);
            }
        }
        if self.want == Want::DecisionAndSequence {
            if cluster {
                parts.push(Part { tag: None, lines: Vec::new(), subjects: Vec::new(), sequence: true });
            } else {
                let at = part(&mut parts, None);
                if let Some(part) = parts.get_mut(at) {
                    part.sequence = true;
                }
            }
        }
        parts
    }

    /// What a part asks.
    pub(super) fn call(&self, part: &Part, names: &Names) -> Call {
        let (limits, groups) = (part.lines.len(), part.subjects.len());
        let mut keys = Vec::with_capacity(limits + groups);
        let mut numbers = Doubles::default();
        numbers.push(&[limits as u64, groups as u64]);
        for line in part.lines.iter().filter_map(|place| self.lines.get(*place)) {
            keys.push(names.bucket(line.ask.key));
            let more = if let Leased::Fetches(more) = line.leased { more } else { 0 };
            let group = line.group.and_then(|group| part.subjects.iter().position(|who| *who == group));
            let most = self.cost.saturating_add(more);
            scripts::push_limit(&mut numbers, &line.ask.limit.quota, self.cost, most, group.map_or(0, |at| at + 1));
        }
        keys.extend(part.subjects.iter().filter_map(|place| self.subjects.get(*place)).map(|who| names.ban(*who)));
        Call { keys, numbers: numbers.finish(), limits, groups, sequence: part.sequence }
    }

    /// Works the answer of one call into its lines. The decisions are reckoned again from what the buckets held: the
    /// script and `limit::take` agree to the last tick, so only the verdict needs to travel.
    pub(super) fn learn(&mut self, part: &Part, taken: &Taken) {
        let mut asks = Vec::with_capacity(part.lines.len());
        for (place, before) in part.lines.iter().zip(&taken.before) {
            if let Some(line) = self.lines.get_mut(*place) {
                line.ask.limit.state = *before;
                asks.push(line.ask);
            }
        }
        let cost = self.cost;
        if taken.said != Said::Taken {
            let looks = matches!(taken.said, Said::Banned { .. });
            let _ = take_all(&mut asks, if looks { 0 } else { cost }, taken.now);
        }
        for ((place, before), ask) in part.lines.iter().zip(&taken.before).zip(asks) {
            let Some(line) = self.lines.get_mut(*place) else { continue };
            line.after = *before;
            if taken.said != Said::Taken {
                line.ask = ask;
                continue;
            }
            let quota = &line.ask.limit.quota;
            let more = if let Leased::Fetches(more) = line.leased { more } else { 0 };
            let room = take(*before, quota, 0, taken.now).1.remaining;
            line.charged = cost.saturating_add(more).min(room).max(cost);
            (line.after, line.ask.limit.decision) = take(*before, quota, line.charged, taken.now);
            line.ask.limit.state = line.after;
        }
    }

    /// Shows the limits of a call that took, and whose charge is given back, as they are without it.
    pub(super) fn unlearn(&mut self, part: &Part, taken: &Taken) {
        for (place, before) in part.lines.iter().zip(&taken.before) {
            let Some(line) = self.lines.get_mut(*place) else { continue };
            (line.after, line.ask.limit.decision) = take(*before, &line.ask.limit.quota, 0, taken.now);
            line.ask.limit.state = line.after;
        }
    }
}
