//! Effects in force: what a node must remember until the last token it can touch has expired.

use std::str::FromStr;

use bartizan_core::audit::{AuditEvent, Effect, effects};
use bartizan_core::id::EventId;
use bartizan_core::store_life::StoreLife;
use bartizan_core::time::Millis;

use crate::db::{Conn, EFFECT_LIFE, InForce, Tx};
use crate::error::{StoreError, StoreErrorKind};
use crate::scope::{Border, PlatformScope};
use crate::sql::statements;
use crate::value::{args, rows};

rows! {
    /// Some thousands of effects; each text holds one column of all of them, separated by spaces.
    Part {
        /// The highest number of all effects; `None` when there are none.
        highest: Option<i64>,
        /// The last number of the part; `None` when there is nothing left.
        last: Option<i64>,
        /// The numbers.
        seq: Option<String>,
        /// The kinds.
        kind: Option<String>,
        /// The ids they speak of.
        subject: Option<String>,
        /// Epochs and tiers; often empty.
        value: Option<String>,
        /// The moments until which they matter.
        until: Option<String>,
    }
}

statements! {
    global APPEND = "INSERT INTO effects (event_id, kind, subject, value, until) VALUES ($1, $2, $3, $4, $5) \
        RETURNING seq";
    // Thousands of effects in a few texts: row by row, the hand-over between threads would cost more than the reading,
    // and one text of whole lines would cost twice as much to put together. The highest number is of the
    // same moment as the part, and counts effects that are over.
    global AFTER = "SELECT (SELECT MAX(seq) FROM effects), MAX(seq), string_agg(CAST(seq AS TEXT), ' '), \
        string_agg(kind, ' '), string_agg(subject, ' '), string_agg(value, ' '), string_agg(CAST(until AS TEXT), ' ') \
        FROM (SELECT seq, kind, subject, value, until FROM effects WHERE seq > $1 AND until > $2 ORDER BY seq LIMIT $3) \
        AS part";
    // The newest row stays, over or not: it is how the highest number is remembered. A sequence's own counter would not
    // do, because it also counts effects whose change is not kept yet.
    global @quiet PRUNE = "DELETE FROM effects WHERE seq IN (SELECT seq FROM effects WHERE until <= $1 \
        AND seq < (SELECT MAX(seq) FROM effects) LIMIT $2)";
    // Some stay that are over, so that none goes of which a follower within its bound has not heard.
    global @quiet PRUNE_LIVES = "DELETE FROM effects WHERE seq IN (SELECT seq FROM effects WHERE until = $1 \
        AND seq < (SELECT MAX(seq) FROM effects) ORDER BY seq DESC LIMIT $2 OFFSET $3)";
}

/// Until when a life of the shared store matters: until another begins, for which there is no time.
const FOR_EVER: Millis = Millis(1 << 52);
/// Lives that are kept. A node makes at most one known in five seconds, so a thousand are more than any bound.
const LIVES: u32 = 1000;

/// Effects read in one go.
const CHUNK: u32 = 4096;

/// An effect about to be written.
pub(crate) struct NewEffect {
    event: EventId,
    pub(crate) effect: Effect,
    at: Millis,
    pub(crate) until: Millis,
}

/// The effects of `event`, each with the moment until which it matters.
pub(crate) fn of(event: &AuditEvent) -> impl Iterator<Item = NewEffect> {
    let (id, at) = (event.id, event.at);
    effects(&event.kind).into_iter().map(move |effect| NewEffect { event: id, effect, at, until: spell(effect, at).3 })
}

/// Writes effects, in order; returns the number of the last.
pub(crate) async fn append<S: Border>(conn: &mut Conn<S>, new: &[NewEffect]) -> Result<Option<i64>, StoreError> {
    let mut last = None;
    for NewEffect { event, effect, at, .. } in new {
        let (kind, subject, value, until) = spell(*effect, *at);
        last = conn.row::<(i64,)>(APPEND, args![*event, kind, subject, value, until]).await?.map(|(seq,)| seq);
    }
    Ok(last)
}

/// The effects after the one numbered `seq` that are in force at `now`, in order; all of them when the database has not
/// got as far as `seq`.
pub(crate) async fn after(conn: &mut Conn<PlatformScope>, seq: i64, now: Millis) -> Result<InForce, StoreError> {
    let mut all = Vec::new();
    let mut after = seq;
    let highest = loop {
        let Some(part) = conn.row::<Part>(AFTER, args![after, now, CHUNK]).await? else { break after };
        let highest = part.highest.unwrap_or(0);
        if highest < after {
            // The database went back: begin again, this time from the beginning.
            all.clear();
            after = 0;
            if highest == 0 { break 0 } else { continue }
        }
        // Nothing in force lies between `after` and the highest.
        let Some(last) = part.last else { break highest };
        let start = all.len();
        read_part(&part, &mut all)
            .ok_or_else(|| StoreError::new(StoreErrorKind::Corrupt).detail("an effect this program cannot read"))?;
        // The order inside an aggregate is not promised; the last of two tiers must win.
        if let Some(part) = all.get_mut(start..) {
            part.sort_unstable_by_key(|(seq, ..)| *seq);
        }
        after = last;
        if last >= highest {
            break last;
        }
    };
    let life = |(seq, effect, _): &(i64, Effect, Millis)| match effect {
        Effect::BelieveStore(life) => Some((*seq, *life)),
        _ => None,
    };
    let lives = all.iter().filter_map(life).collect();
    Ok(InForce { highest, effects: all.into_iter().map(|(_, effect, until)| (effect, until)).collect(), lives })
}

/// Takes the columns of a part to pieces in step; `None` when they do not match or one is unreadable.
fn read_part(part: &Part, all: &mut Vec<(i64, Effect, Millis)>) -> Option<()> {
    let mut kind = part.kind.as_deref()?.split(' ');
    let mut subject = part.subject.as_deref()?.split(' ');
    let mut value = part.value.as_deref()?.split(' ');
    let mut until = part.until.as_deref()?.split(' ');
    for seq in part.seq.as_deref()?.split(' ') {
        let until = Millis(parsed(until.next()?)?);
        all.push((parsed(seq)?, read(kind.next()?, subject.next()?, value.next()?, until)?, until));
    }
    // Nothing may be left over: a column with a space in it would shift all that follow.
    [kind, subject, value, until].iter_mut().all(|column| column.next().is_none()).then_some(())
}

/// Removes effects no live token can feel any more.
pub(crate) async fn prune(tx: &mut Tx<PlatformScope>, now: Millis, limit: u32) -> Result<u64, StoreError> {
    Ok(tx.run(PRUNE, args![now, limit]).await? + tx.run(PRUNE_LIVES, args![FOR_EVER, limit, LIVES]).await?)
}

fn spell(effect: Effect, at: Millis) -> (&'static str, String, String, Millis) {
    let until = at + EFFECT_LIFE;
    match effect {
        Effect::EndSession(session) => ("session", session.to_string(), String::new(), until),
        // Ends with the token, which by then nobody accepts anyway.
        Effect::EndToken(token, expires) => ("token", token.to_string(), String::new(), expires),
        Effect::RaiseUserEpoch(user, epoch) => ("user_epoch", user.to_string(), epoch.to_string(), until),
        Effect::RaiseTenantEpoch(tenant, epoch) => ("tenant_epoch", tenant.to_string(), epoch.to_string(), until),
        Effect::SetTier(tenant, tier) => ("tier", tenant.to_string(), tier.to_string(), until),
        Effect::BelieveStore(life) => ("store_life", hex::encode(life.process), life.birth.to_string(), FOR_EVER),
    }
}

fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn read(kind: &str, subject: &str, value: &str, until: Millis) -> Option<Effect> {
    Some(match kind {
        "session" => Effect::EndSession(parsed(subject)?),
        "token" => Effect::EndToken(parsed(subject)?, until),
        "user_epoch" => Effect::RaiseUserEpoch(parsed(subject)?, parsed(value)?),
        "tenant_epoch" => Effect::RaiseTenantEpoch(parsed(subject)?, parsed(value)?),
        "tier" => Effect::SetTier(parsed(subject)?, parsed(value)?),
        "store_life" => {
            let mut process = [0; 20];
            hex::decode_to_slice(subject, &mut process).ok()?;
            Effect::BelieveStore(StoreLife { process, birth: parsed(value)? })
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use bartizan_core::id::{SessionId, TenantId, TokenId, UserId};
    use bartizan_core::principal::Tier;
    use proptest::prelude::*;

    use super::*;

    fn any_effect() -> impl Strategy<Value = Effect> {
        let tier = prop::sample::select(Tier::ALL.to_vec());
        prop_oneof![
            any::<u128>().prop_map(|id| Effect::EndSession(SessionId::from_u128(id))),
            (any::<u128>(), any::<i64>()).prop_map(|(id, at)| Effect::EndToken(TokenId::from_u128(id), Millis(at))),
            (any::<[u8; 20]>(), any::<u64>())
                .prop_map(|(process, birth)| Effect::BelieveStore(StoreLife { process, birth })),
            (any::<u128>(), any::<u64>()).prop_map(|(id, epoch)| Effect::RaiseUserEpoch(UserId::from_u128(id), epoch)),
            (any::<u128>(), any::<u64>())
                .prop_map(|(id, epoch)| Effect::RaiseTenantEpoch(TenantId::from_u128(id), epoch)),
            (any::<u128>(), tier).prop_map(|(id, tier)| Effect::SetTier(TenantId::from_u128(id), tier)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_spelled_is_read_back(effects in prop::collection::vec((any_effect(), any::<i64>()), 1..20)) {
            let spelled: Vec<_> = effects.iter().map(|(effect, at)| spell(*effect, Millis(*at))).collect();
            let column = |text: &dyn Fn(usize) -> String| Some((0..spelled.len()).map(text).collect::<Vec<_>>().join(" "));
            let part = Part {
                highest: None,
                last: Some(0),
                seq: column(&|n| n.to_string()),
                kind: column(&|n| spelled[n].0.to_owned()),
                subject: column(&|n| spelled[n].1.clone()),
                value: column(&|n| spelled[n].2.clone()),
                until: column(&|n| spelled[n].3.0.to_string()),
            };
            let mut all = Vec::new();
            prop_assert_eq!(read_part(&part, &mut all), Some(()));
            let expected: Vec<_> = effects.iter().zip(&spelled).enumerate().map(|(n, (e, s))| (n as i64, e.0, s.3)).collect();
            prop_assert_eq!(all, expected);

            let shifted = Part { value: part.value.map(|text| format!("{text} 1")), ..part };
            prop_assert_eq!(read_part(&shifted, &mut Vec::new()), None);
        }

        #[test]
        fn any_text_is_read_or_refused_without_a_panic(kind in ".*", subject in ".*", value in ".*") {
            let _ = read(&kind, &subject, &value, Millis(0));
        }
    }
}
