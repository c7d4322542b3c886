//! Effects in force: what a node must remember until the last token it can touch has expired.

use std::str::FromStr;

use bartizan_core::audit::{AuditEvent, Effect, effects};
use bartizan_core::time::Millis;

use crate::db::{Conn, EFFECT_LIFE, Tx};
use crate::error::{StoreError, StoreErrorKind};
use crate::scope::{Border, PlatformScope};
use crate::sql::statements;
use crate::value::args;

statements! {
    global APPEND = "INSERT INTO effects (event_id, kind, subject, value, until) VALUES ($1, $2, $3, $4, $5)";
    // Thousands of effects in one text: row by row, the hand-over between threads would cost more than the reading.
    global IN_FORCE = "SELECT MAX(seq), string_agg(line, ' ') FROM (SELECT seq, seq || ':' || kind || ':' || subject \
        || ':' || value || ':' || until AS line FROM effects WHERE seq > $1 AND until > $2 ORDER BY seq LIMIT $3) AS part";
    global @quiet PRUNE = "DELETE FROM effects WHERE seq IN (SELECT seq FROM effects WHERE until <= $1 LIMIT $2)";
}

/// Effects read in one go.
const CHUNK: u32 = 4096;

/// Writes the effects of `event`, each with the moment until which it matters.
pub(crate) async fn append<S: Border>(
    conn: &mut Conn<S>,
    event: &AuditEvent,
) -> Result<Vec<(Effect, Millis)>, StoreError> {
    let mut written = Vec::new();
    for effect in effects(&event.kind) {
        let (kind, subject, value, until) = spell(effect, event.at);
        conn.run(APPEND, args![event.id, kind, subject, value, until]).await?;
        written.push((effect, until));
    }
    Ok(written)
}

/// The effects in force at `now`, in order.
pub(crate) async fn in_force(conn: &mut Conn<PlatformScope>, now: Millis) -> Result<Vec<(Effect, Millis)>, StoreError> {
    let mut all = Vec::new();
    let mut after = 0i64;
    while let Some((Some(last), Some(text))) =
        conn.row::<(Option<i64>, Option<String>)>(IN_FORCE, args![after, now, CHUNK]).await?
    {
        let start = all.len();
        for line in text.split(' ') {
            all.push(read(line).ok_or_else(|| {
                StoreError::new(StoreErrorKind::Corrupt).detail("an effect this program cannot read")
            })?);
        }
        // The order inside an aggregate is not promised; the last of two tiers must win.
        if let Some(chunk) = all.get_mut(start..) {
            chunk.sort_unstable_by_key(|(seq, ..)| *seq);
        }
        after = last;
    }
    Ok(all.into_iter().map(|(_, effect, until)| (effect, until)).collect())
}

/// Removes effects no live token can feel any more.
pub(crate) async fn prune(tx: &mut Tx<PlatformScope>, now: Millis, limit: u32) -> Result<u64, StoreError> {
    tx.run(PRUNE, args![now, limit]).await
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
    }
}

fn read(line: &str) -> Option<(i64, Effect, Millis)> {
    fn parsed<T: FromStr>(text: &str) -> Option<T> {
        text.parse().ok()
    }
    let mut parts = line.split(':');
    let (seq, kind, subject) = (parsed(parts.next()?)?, parts.next()?, parts.next()?);
    let (value, until) = (parts.next()?, Millis(parsed(parts.next()?)?));
    let effect = match kind {
        "session" => Effect::EndSession(parsed(subject)?),
        "token" => Effect::EndToken(parsed(subject)?, until),
        "user_epoch" => Effect::RaiseUserEpoch(parsed(subject)?, parsed(value)?),
        "tenant_epoch" => Effect::RaiseTenantEpoch(parsed(subject)?, parsed(value)?),
        "tier" => Effect::SetTier(parsed(subject)?, parsed(value)?),
        _ => return None,
    };
    Some((seq, effect, until))
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
            (any::<u128>(), any::<u64>()).prop_map(|(id, epoch)| Effect::RaiseUserEpoch(UserId::from_u128(id), epoch)),
            (any::<u128>(), any::<u64>())
                .prop_map(|(id, epoch)| Effect::RaiseTenantEpoch(TenantId::from_u128(id), epoch)),
            (any::<u128>(), tier).prop_map(|(id, tier)| Effect::SetTier(TenantId::from_u128(id), tier)),
        ]
    }

    proptest! {
        #[test]
        fn what_is_spelled_is_read_back(effect in any_effect(), at in any::<i64>(), seq in any::<i64>()) {
            let (kind, subject, value, until) = spell(effect, Millis(at));
            let line = format!("{seq}:{kind}:{subject}:{value}:{}", until.0);
            prop_assert_eq!(read(&line), Some((seq, effect, until)));
        }

        #[test]
        fn any_text_is_read_or_refused_without_a_panic(line in ".*") {
            let _ = read(&line);
        }
    }
}
