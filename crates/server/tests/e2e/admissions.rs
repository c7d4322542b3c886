//! Whether more was let in than a limit and the known troubles allow, found out from what clients saw.

use std::time::Duration;

/// What `docs/operate/cluster.md` promises of one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Promise {
    pub(crate) burst: f64,
    pub(crate) per_second: f64,
    pub(crate) nodes: f64,
}

/// From when until when, since the beginning.
pub(crate) type Span = (Duration, Duration);

/// What may let more through than the limit says, each by a stated measure.
#[derive(Clone, Debug, Default)]
pub(crate) struct Troubles {
    /// Outages with both their edges, flushes, restarts: one burst more for each that touches a stretch of time.
    pub(crate) bursts: Vec<Span>,
    /// When one node decided by itself: its share of the rate more, beside what the store admits to the others.
    pub(crate) alone: Vec<Span>,
}

/// By how many requests the worst stretch of time exceeds what was promised, and which that is. Not above zero when the
/// promise was kept.
///
/// A request counts for a stretch when it certainly fell into it: it began and was answered within. In each stretch from
/// `s` to `e` that must be at most burst + rate × length, and what the troubles add. All of it falls apart into a part
/// that depends on `e` and one that depends on `s`, so one pass over the moments finds the worst.
pub(crate) fn excess(promise: Promise, admitted: &[Span], troubles: &Troubles) -> (f64, Span) {
    let mut moments: Vec<(Duration, Kind)> = Vec::new();
    for (began, answered) in admitted {
        moments.extend([(*began, Kind::Began), (*answered, Kind::Answered)]);
    }
    for (from, to) in &troubles.bursts {
        moments.extend([(*from, Kind::TroubleFrom), (*to, Kind::TroubleTo)]);
    }
    for (from, to) in &troubles.alone {
        moments.extend([(*from, Kind::AloneFrom), (*to, Kind::AloneTo)]);
    }
    moments.sort_by_key(|(at, kind)| (*at, *kind));
    let share = promise.per_second / promise.nodes;
    let (mut began, mut answered, mut troubled, mut over) = (0.0, 0.0, 0.0, 0.0);
    let (mut nodes_alone, mut alone, mut last) = (0.0, 0.0, Duration::ZERO);
    // The stretch that begins best, so far: what is subtracted for it, and when it began.
    let mut best: Option<(f64, Duration)> = None;
    let mut worst = (-promise.burst, (Duration::ZERO, Duration::ZERO));
    for (at, kind) in moments {
        alone += nodes_alone * (at - last).as_secs_f64();
        last = at;
        let paid = promise.per_second * at.as_secs_f64() + share * alone;
        match kind {
            Kind::TroubleFrom => troubled += 1.0,
            Kind::TroubleTo => over += 1.0,
            Kind::AloneFrom => nodes_alone += 1.0,
            Kind::AloneTo => nodes_alone -= 1.0,
            Kind::Began => {
                // Before it is counted: it belongs to the stretch.
                let start = paid - began + promise.burst * over;
                if best.is_none_or(|(known, _)| start > known) {
                    best = Some((start, at));
                }
                began += 1.0;
            }
            Kind::Answered => {
                answered += 1.0;
                let Some((start, from)) = best else { continue };
                let more = answered - paid - promise.burst * troubled + start - promise.burst;
                if more > worst.0 {
                    worst = (more, (from, at));
                }
            }
        }
    }
    worst
}

/// What happens first of what happens at one moment: whatever allows more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    TroubleFrom,
    AloneFrom,
    Began,
    Answered,
    AloneTo,
    TroubleTo,
}

const LIMIT: Promise = Promise { burst: 10.0, per_second: 5.0, nodes: 2.0 };

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// `count` requests, one after another from `from` on, each 1 ms.
fn row(from: u64, count: u64) -> Vec<Span> {
    (0..count).map(|nth| (at(from + nth), at(from + nth + 1))).collect()
}

#[test]
fn a_limit_that_was_kept_is_found_kept() {
    // The burst, then one whenever one came back.
    let mut admitted = row(1_000, 10);
    admitted.extend((1..50).map(|nth| (at(1_000 + nth * 200 + 10), at(1_000 + nth * 200 + 12))));
    let (more, span) = excess(LIMIT, &admitted, &Troubles::default());
    assert!(more <= 0.0, "{more} in {span:?}");
}

#[test]
fn one_request_too_many_is_found_wherever_it_is() {
    for place in [0, 2_000, 9_000] {
        let mut admitted = row(100, 10);
        admitted.extend(row(5_000, 10));
        admitted.extend(row(5_100 + place, 11));
        let (more, span) = excess(LIMIT, &admitted, &Troubles::default());
        assert!(more > 0.0, "{place}: {more} in {span:?}");
    }
}

#[test]
fn a_trouble_excuses_one_burst_where_it_is_and_nothing_elsewhere() {
    let mut admitted = row(1_000, 10);
    admitted.extend(row(1_500, 10));
    let during = Troubles { bursts: vec![(at(1_400), at(1_450))], alone: Vec::new() };
    assert!(excess(LIMIT, &admitted, &during).0 <= 0.0);
    for elsewhere in [(at(500), at(900)), (at(1_600), at(1_700))] {
        let troubles = Troubles { bursts: vec![elsewhere], alone: Vec::new() };
        assert!(excess(LIMIT, &admitted, &troubles).0 > 0.0, "{elsewhere:?}");
    }
    admitted.extend(row(1_520, 10));
    assert!(excess(LIMIT, &admitted, &during).0 > 0.0, "two bursts more");
}

#[test]
fn a_node_alone_excuses_its_share_for_as_long() {
    // 10 a second, of which 5 come back and 2.5 are the node's own: it takes 3.6 seconds to use the burst up.
    let alone = |from: u64, to: u64| Troubles { bursts: Vec::new(), alone: vec![(at(from), at(to))] };
    let spread: Vec<Span> = (0..37).map(|nth| (at(1_000 + nth * 100), at(1_001 + nth * 100))).collect();
    assert!(excess(LIMIT, &spread, &alone(900, 5_000)).0 <= 0.0);
    assert!(excess(LIMIT, &spread, &alone(900, 2_000)).0 > 0.0);
    assert!(excess(LIMIT, &row(1_000, 20), &alone(900, 5_000)).0 > 0.0, "a share of the rate is no burst");
}
