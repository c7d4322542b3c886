//! Change, trail and effects: all or nothing, numbered without gaps, one winner.

use bartizan_core::audit::{Effect, EventKind};
use bartizan_core::id::{BlockId, EventId, TokenId};
use bartizan_core::principal::{Role, Tier};
use bartizan_core::time::Millis;
use bartizan_store::blocks::BlockRow;
use bartizan_store::refresh_tokens::{Race, Spend};
use bartizan_store::words::{RefreshState, UserStatus};
use bartizan_store::{EFFECT_LIFE, StoreErrorKind, audit, blocks, refresh_tokens, sessions, users};

use crate::world::*;

on_both! {
    commit_keeps_change_row_and_effects_together,
    several_events_of_one_change_are_one_commit,
    dropped_change_is_rolled_back_and_counted,
    change_that_needs_a_row_cannot_be_kept_quietly,
    event_of_another_tenant_is_refused_and_nothing_is_kept,
    same_event_is_not_written_twice,
    reader_cannot_write,
    trail_is_neither_changed_nor_deleted,
    numbers_of_each_tenant_have_no_gaps_under_concurrency,
    of_64_parallel_spends_of_one_refresh_token_one_wins,
    ended_or_expired_session_cannot_be_refreshed,
    platform_change_is_recorded_too,
    caller_who_goes_away_in_the_middle_leaves_no_transaction_behind,
}

async fn commit_keeps_change_row_and_effects_together(world: World) {
    let (scope, user) = world.tenant("acme").await;
    let mut tx = world.db.change(&scope).await.unwrap();
    let epoch = users::set_status(&mut tx, user, UserStatus::Disabled, later(1)).await.unwrap().unwrap();
    let event = world.event(scope.tenant(), EventKind::UserDisabled { user, epoch });
    let done = tx.commit(event.clone(), "answer").await.unwrap();

    let until = NOW + EFFECT_LIFE;
    assert_eq!((done.value, epoch), ("answer", 1));
    assert_eq!(done.effects, [(Effect::RaiseUserEpoch(user, 1), until)]);
    assert_eq!(world.db.load_effects(later(0)).await.unwrap().effects, done.effects);
    assert_eq!(world.db.load_effects(until).await.unwrap().effects, []);

    let mut reader = world.db.read(&scope).await.unwrap();
    let row = users::by_id(&mut reader, user).await.unwrap().unwrap();
    assert_eq!((row.status, row.epoch), (UserStatus::Disabled, 1));
    let rows = audit::page(&mut reader, 0, audit::Filter::default(), 10).await.unwrap();
    let row = rows.last().unwrap();
    assert_eq!((row.seq, row.tseq, row.id), (done.seq, Some(2), event.id));
    assert_eq!(
        (row.action.as_str(), row.outcome.as_str(), row.actor_type.as_str()),
        ("user.disabled", "ok", "operator")
    );
    assert_eq!(row.targets, serde_json::json!([user.to_string()]));
    assert_eq!((row.ip.as_deref(), row.node.as_str()), (Some("192.0.2.7"), "n1"));
}

async fn several_events_of_one_change_are_one_commit(world: World) {
    let (scope, user) = world.tenant("acme").await;
    let (session, _) = world.session(&scope, user).await;
    let tenant = scope.tenant();
    let mut tx = world.db.change(&scope).await.unwrap();
    let token = TokenId::from_u128(9);
    tx.record(&world.event(tenant, EventKind::TokenRevoked { token, expires: later(100) })).await.unwrap();
    sessions::end(&mut tx, session, NOW).await.unwrap();
    let done = tx.commit(world.event(tenant, EventKind::LoggedOut { session }), ()).await.unwrap();
    let expected =
        [(Effect::EndToken(token, later(100)), later(100)), (Effect::EndSession(session), NOW + EFFECT_LIFE)];
    assert_eq!(done.effects, expected);
    assert_eq!(world.db.load_effects(NOW).await.unwrap().effects, expected);
}

async fn dropped_change_is_rolled_back_and_counted(world: World) {
    let (scope, user) = world.tenant("acme").await;
    let mut tx = world.db.change(&scope).await.unwrap();
    users::set_role(&mut tx, user, Role::Member, NOW).await.unwrap();
    drop(tx);
    assert_eq!(world.db.abandoned(), 1);

    // On purpose, or before anything was written, is no oversight.
    let mut tx = world.db.change(&scope).await.unwrap();
    users::set_role(&mut tx, user, Role::Member, NOW).await.unwrap();
    tx.cancel().await.unwrap();
    let mut tx = world.db.change(&scope).await.unwrap();
    let row = users::by_id(&mut tx, user).await.unwrap().unwrap();
    assert_eq!((row.role, row.epoch), (Role::Owner, 0));
    drop(tx);
    assert_eq!(world.db.abandoned(), 1);
}

async fn change_that_needs_a_row_cannot_be_kept_quietly(world: World) {
    let (scope, user) = world.tenant("acme").await;
    let mut tx = world.db.change(&scope).await.unwrap();
    users::set_role(&mut tx, user, Role::Member, NOW).await.unwrap();
    assert_eq!(tx.commit_quietly(()).await.unwrap_err().kind(), StoreErrorKind::Misuse);

    let (session, _) = world.session(&scope, user).await;
    let mut tx = world.db.change(&scope).await.unwrap();
    assert!(sessions::touch(&mut tx, session, later(5)).await.unwrap());
    tx.commit_quietly(()).await.unwrap();
    let mut reader = world.db.read(&scope).await.unwrap();
    assert_eq!(sessions::by_id(&mut reader, session).await.unwrap().unwrap().last_seen_at, later(5));
    assert_eq!(users::by_id(&mut reader, user).await.unwrap().unwrap().role, Role::Owner);
}

async fn event_of_another_tenant_is_refused_and_nothing_is_kept(world: World) {
    let (scope, user) = world.tenant("acme").await;
    let (other, _) = world.tenant("rival").await;
    let mut tx = world.db.change(&scope).await.unwrap();
    let epoch = users::bump_epoch(&mut tx, user).await.unwrap().unwrap();
    let event = world.event(other.tenant(), EventKind::LoggedOutEverywhere { user, epoch });
    assert_eq!(tx.commit(event, ()).await.unwrap_err().kind(), StoreErrorKind::Misuse);
    let mut reader = world.db.read(&scope).await.unwrap();
    assert_eq!(users::by_id(&mut reader, user).await.unwrap().unwrap().epoch, 0);
}

async fn same_event_is_not_written_twice(world: World) {
    let event = event(EventId::from_u128(5), None, EventKind::ServerStarted);
    let first = world.db.record_alone(event.clone()).await.unwrap();
    assert!(first.seq > 0 && first.effects.is_empty());
    let error = world.db.record_all(&[event]).await.unwrap_err();
    assert!(error.is_duplicate_of("event id"), "{error}");
}

async fn reader_cannot_write(world: World) {
    let mut reader = world.db.read_platform(&platform()).await.unwrap();
    const FORGET: bartizan_store::Global = bartizan_store::global("DELETE FROM effects");
    assert_eq!(reader.run(FORGET, vec![]).await.unwrap_err().kind(), StoreErrorKind::ReadOnly);
}

async fn trail_is_neither_changed_nor_deleted(world: World) {
    let (_, _) = world.tenant("acme").await;
    for text in ["UPDATE audit SET action = 'x'", "DELETE FROM audit"] {
        let statement = bartizan_store::platform("a test tries to forge", text);
        let mut tx = world.db.change_platform(&platform()).await.unwrap();
        assert_eq!(tx.run(statement, vec![]).await.unwrap_err().kind(), StoreErrorKind::Constraint, "{text}");
    }
}

async fn numbers_of_each_tenant_have_no_gaps_under_concurrency(world: World) {
    let world = std::sync::Arc::new(world);
    let (acme, user) = world.tenant("acme").await;
    let (rival, rival_user) = world.tenant("rival").await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..16u32 {
        let world = std::sync::Arc::clone(&world);
        let (scope, user) = if n % 2 == 0 { (acme.clone(), user) } else { (rival.clone(), rival_user) };
        tasks.spawn(async move {
            for round in 0..10 {
                let mut tx = world.db.change(&scope).await.unwrap();
                let epoch = users::bump_epoch(&mut tx, user).await.unwrap().unwrap();
                if round % 3 == 0 {
                    drop(tx);
                    continue;
                }
                let event = world.event(scope.tenant(), EventKind::LoggedOutEverywhere { user, epoch });
                let _ = tx.commit(event, ()).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    for (scope, user) in [(acme, user), (rival, rival_user)] {
        let mut reader = world.db.read(&scope).await.unwrap();
        let rows = audit::page(&mut reader, 0, audit::Filter::default(), 1000).await.unwrap();
        let numbers: Vec<i64> = rows.iter().map(|row| row.tseq.unwrap()).collect();
        assert_eq!(numbers, (1..=49).collect::<Vec<_>>(), "one for the creation, 48 for the rounds that were kept");
        assert_eq!(users::by_id(&mut reader, user).await.unwrap().unwrap().epoch, 48);
    }
    assert_eq!(world.db.abandoned(), 64);
    assert_eq!(world.db.load_effects(NOW).await.unwrap().effects.len(), 96);
}

async fn of_64_parallel_spends_of_one_refresh_token_one_wins(world: World) {
    let world = std::sync::Arc::new(world);
    let (scope, user) = world.tenant("acme").await;
    let (session, hash) = world.session(&scope, user).await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..64u8 {
        let (world, scope) = (std::sync::Arc::clone(&world), scope.clone());
        tasks.spawn(async move {
            let mut tx = world.db.change(&scope).await.unwrap();
            let spend = Spend {
                session,
                generation: 0,
                hash,
                now: later(1),
                successor_sealed: &[n],
                successor_hash: [n; 32],
                spender_hash: [n; 32],
                expires_at: later(500),
            };
            match refresh_tokens::spend(&mut tx, &spend).await.unwrap() {
                Race::Won => {
                    let event = world.event(scope.tenant(), EventKind::TokenRefreshed { session });
                    let _ = tx.commit(event, ()).await.unwrap();
                    Some(n)
                }
                Race::Lost => None,
            }
        });
    }
    let mut winners = Vec::new();
    while let Some(done) = tasks.join_next().await {
        winners.extend(done.unwrap());
    }
    let [winner] = winners[..] else { panic!("winners: {winners:?}") };
    assert_eq!(world.db.abandoned(), 0, "a lost race wrote nothing");

    let mut reader = world.db.read_platform(&platform()).await.unwrap();
    let old = refresh_tokens::by_hash(&mut reader, hash).await.unwrap().unwrap();
    assert_eq!((old.state, old.spent_at, old.session_generation), (RefreshState::Spent, Some(later(1)), 1));
    assert_eq!(old.successor_sealed.as_deref(), Some(&[winner][..]));
    assert_eq!(old.idle_expires_at, later(500));
    let new = refresh_tokens::by_hash(&mut reader, [winner; 32]).await.unwrap().unwrap();
    assert_eq!((new.state, new.generation, new.tier, new.role), (RefreshState::Live, 1, Tier::Free, Role::Owner));
    assert_eq!(new.tenant_id, scope.tenant());
}

async fn ended_or_expired_session_cannot_be_refreshed(world: World) {
    let (scope, user) = world.tenant("acme").await;
    for (end, now) in [(true, later(1)), (false, later(1000)), (false, later(9000))] {
        let (session, hash) = world.session(&scope, user).await;
        let mut tx = world.db.change(&scope).await.unwrap();
        if end {
            sessions::end(&mut tx, session, NOW).await.unwrap();
        }
        let spend = Spend {
            session,
            generation: 0,
            hash,
            now,
            successor_sealed: b"s",
            successor_hash: [1; 32],
            spender_hash: [1; 32],
            expires_at: Millis(now.0 + 1),
        };
        assert_eq!(refresh_tokens::spend(&mut tx, &spend).await.unwrap(), Race::Lost);
        tx.cancel().await.unwrap();
    }
}

async fn platform_change_is_recorded_too(world: World) {
    let block = BlockId::from_u128(1);
    let network = "192.0.2.0/24";
    let row = BlockRow { id: block, network: network.into(), reason: "scan".into(), created_at: NOW, expires_at: None };
    let mut tx = world.db.change_platform(&platform()).await.unwrap();
    blocks::insert(&mut tx, &row).await.unwrap();
    let kind = EventKind::BlockAdded { block, network: network.parse().unwrap() };
    let done = tx.commit(event(EventId::from_u128(1), None, kind), ()).await.unwrap();
    let mut reader = world.db.read_platform(&platform()).await.unwrap();
    let rows = audit::newest(&mut reader, 1).await.unwrap();
    assert_eq!((rows[0].seq, rows[0].tseq, rows[0].tenant_id), (done.seq, None, None));
    assert_eq!(audit::since(&mut reader, done.seq - 1, 5).await.unwrap().len(), 1);
    assert_eq!(blocks::all(&mut reader, NOW).await.unwrap()[0].network, network);
}

async fn caller_who_goes_away_in_the_middle_leaves_no_transaction_behind(world: World) {
    let (scope, user) = world.tenant("acme").await;
    for polls in 0..40u32 {
        let mut left = polls;
        let mut change = Box::pin(async {
            let mut tx = world.db.change(&scope).await.unwrap();
            users::set_role(&mut tx, user, Role::Member, NOW).await.unwrap();
            std::future::pending::<()>().await;
        });
        // Polled so many times, each time it is woken, then dropped wherever it is.
        std::future::poll_fn(|context| {
            let _ = change.as_mut().poll(context);
            left = left.saturating_sub(1);
            if left == 0 {
                return std::task::Poll::Ready(());
            }
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
        drop(change);
    }
    let mut tx = world.db.change(&scope).await.unwrap();
    assert_eq!(users::by_id(&mut tx, user).await.unwrap().unwrap().role, Role::Owner);
    let epoch = users::bump_epoch(&mut tx, user).await.unwrap().unwrap();
    let event = world.event(scope.tenant(), EventKind::LoggedOutEverywhere { user, epoch });
    assert_eq!(tx.commit(event, epoch).await.unwrap().value, 1);
}
