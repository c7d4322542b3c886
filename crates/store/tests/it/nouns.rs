//! What each noun's functions promise beyond their statement.

use bartizan_core::audit::EventKind;
use bartizan_core::id::{BlockId, SessionId, UserId};
use bartizan_core::limit::{Key, Tat};
use bartizan_core::principal::{Role, Tier};
use bartizan_core::secret::Secret;
use bartizan_core::time::Millis;
use bartizan_store::blind_index::Tag;
use bartizan_store::blocks::BlockRow;
use bartizan_store::idempotency::IdempotencyRow;
use bartizan_store::login_failures::FailureRow;
use bartizan_store::refresh_tokens::Spend;
use bartizan_store::signing_keys::SigningKeyRow;
use bartizan_store::users::{NewUser, UserChange};
use bartizan_store::words::{KeyState, TenantStatus};
use bartizan_store::{
    Pruned, audit, blocks, idempotency, login_failures, refresh_tokens, sessions, signing_keys, tenants, users,
};

use crate::world::*;

on_both! {
    tenant_is_found_by_slug_and_its_epoch_rises_with_its_status,
    address_is_unique_in_the_tenant_and_free_in_the_next,
    changed_address_is_found_by_the_new_tag_alone,
    deleted_user_leaves_only_the_trail,
    pages_follow_one_another_without_gap_or_overlap,
    other_sessions_end_and_the_kept_one_lives,
    answer_is_remembered_once_until_its_time_is_over,
    signing_key_moves_only_forward,
    older_count_of_failures_does_not_overwrite_a_newer,
    prune_removes_what_is_over_and_nothing_else,
}

fn tag(tag: &[u8]) -> Tag<'_> {
    Tag { key_id: 1, tag }
}

async fn tenant_is_found_by_slug_and_its_epoch_rises_with_its_status(world: World) {
    let (scope, _) = world.tenant("acme").await;
    let mut reader = world.db.read_platform(&platform()).await.unwrap();
    let row = tenants::by_slug(&mut reader, "acme").await.unwrap().unwrap();
    assert_eq!((row.id, row.tier, row.status), (scope.tenant(), Tier::Free, TenantStatus::Active));
    assert!(tenants::by_slug(&mut reader, "Acme").await.unwrap().is_none());
    drop(reader);

    let mut tx = world.db.change(&scope).await.unwrap();
    assert!(tenants::set_tier(&mut tx, Tier::Pro, later(1)).await.unwrap());
    assert_eq!(tenants::set_status(&mut tx, TenantStatus::Suspended, later(2)).await.unwrap(), Some(1));
    let row = tenants::own(&mut tx).await.unwrap().unwrap();
    assert_eq!((row.tier, row.epoch, row.updated_at), (Tier::Pro, 1, later(2)));
    let event = world.event(scope.tenant(), EventKind::TenantSuspended { tenant: scope.tenant(), epoch: 1 });
    let _ = tx.commit(event, ()).await.unwrap();

    let mut tx =
        world.db.change(&bartizan_store::Scope::granted(bartizan_core::id::TenantId::from_u128(1))).await.unwrap();
    let new = tenants::NewTenant { slug: "acme", name_sealed: None, tier: Tier::Free, created_at: NOW };
    assert!(tenants::insert(&mut tx, &new).await.unwrap_err().is_duplicate_of("slug"));
}

async fn address_is_unique_in_the_tenant_and_free_in_the_next(world: World) {
    let (acme, owner) = world.tenant("acme").await;
    let (rival, _) = world.tenant("rival").await;
    let secret = Secret::new("$argon2id$".to_owned());
    let sealed = mark("acme");
    let user = |id| NewUser {
        id,
        email_sealed: &sealed,
        email_tag: tag(&sealed),
        name_sealed: b"n",
        role: Role::Member,
        password_hash: &secret,
        created_at: NOW,
    };
    let mut tx = world.db.change(&acme).await.unwrap();
    let error = users::insert(&mut tx, &user(UserId::from_u128(5))).await.unwrap_err();
    assert!(error.is_duplicate_of("email"), "{error}");
    drop(tx);
    let mut tx = world.db.change(&rival).await.unwrap();
    users::insert(&mut tx, &user(UserId::from_u128(5))).await.unwrap();
    tx.cancel().await.unwrap();

    let mut reader = world.db.read(&acme).await.unwrap();
    let found = users::by_email_tag(&mut reader, tag(&sealed)).await.unwrap().unwrap();
    assert_eq!(found.id, owner);
    assert!(!format!("{found:?}").contains("argon2id"), "a hash is not printed");
    let other_key = Tag { key_id: 2, tag: &sealed };
    assert!(users::by_email_tag(&mut reader, other_key).await.unwrap().is_none());
}

async fn changed_address_is_found_by_the_new_tag_alone(world: World) {
    let (scope, user) = world.tenant("acme").await;
    let mut tx = world.db.change(&scope).await.unwrap();
    let change = UserChange { email: Some((b"new", tag(b"new-tag"))), name_sealed: None };
    assert!(users::update(&mut tx, user, &change, later(1)).await.unwrap());
    assert!(users::by_email_tag(&mut tx, tag(&mark("acme"))).await.unwrap().is_none());
    let row = users::by_email_tag(&mut tx, tag(b"new-tag")).await.unwrap().unwrap();
    assert_eq!((row.email_sealed.as_slice(), row.name_sealed), (b"new".as_slice(), mark("acme")));
    assert!(!users::update(&mut tx, UserId::from_u128(9), &change, later(1)).await.unwrap());
    tx.cancel().await.unwrap();
}

async fn deleted_user_leaves_only_the_trail(world: World) {
    let (scope, owner) = world.tenant("acme").await;
    let (session, hash) = world.session(&scope, owner).await;
    let mut tx = world.db.change(&scope).await.unwrap();
    let epoch = users::delete(&mut tx, owner).await.unwrap().unwrap();
    assert_eq!(epoch, 1);
    assert_eq!(users::delete(&mut tx, owner).await.unwrap(), None);
    let event = world.event(scope.tenant(), EventKind::UserDeleted { user: owner, epoch });
    let _ = tx.commit(event, ()).await.unwrap();

    let mut reader = world.db.read(&scope).await.unwrap();
    assert!(users::by_id(&mut reader, owner).await.unwrap().is_none());
    assert!(sessions::by_id(&mut reader, session).await.unwrap().is_none());
    assert_eq!(audit::page(&mut reader, 0, audit::Filter::default(), 10).await.unwrap().len(), 3);
    let mut reader = world.db.read_platform(&platform()).await.unwrap();
    assert!(refresh_tokens::by_hash(&mut reader, hash).await.unwrap().is_none());

    // The address is free again.
    let mut tx = world.db.change(&scope).await.unwrap();
    new_user(&mut tx, UserId::from_u128(8), "acme", Role::Owner).await;
    assert_eq!(users::count_active_owners(&mut tx).await.unwrap(), 1);
    tx.cancel().await.unwrap();
}

async fn pages_follow_one_another_without_gap_or_overlap(world: World) {
    let (scope, _) = world.tenant("acme").await;
    let mut tx = world.db.change(&scope).await.unwrap();
    for n in 0..9u8 {
        let id = UserId::new(later(i64::from(n)), [n; 10]);
        new_user(&mut tx, id, &format!("user-{n}"), Role::Member).await;
        let event = world.event(scope.tenant(), EventKind::UserCreated { user: id, role: Role::Member });
        tx.record(&event).await.unwrap();
    }
    let event = world.event(scope.tenant(), EventKind::TenantUpdated { fields: vec!["name"] });
    let _ = tx.commit(event, ()).await.unwrap();

    let mut reader = world.db.read(&scope).await.unwrap();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = users::page(&mut reader, after, 4).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        seen.extend(page.iter().map(|user| user.id));
    }
    assert_eq!(seen.len(), 10);
    assert!(seen.is_sorted() && seen.windows(2).all(|pair| pair[0] != pair[1]));

    let filter = audit::Filter { action: Some("user.created"), actor: None };
    let page = audit::page(&mut reader, 4, filter, 3).await.unwrap();
    assert_eq!(page.iter().map(|row| row.tseq.unwrap()).collect::<Vec<_>>(), [5, 6, 7]);
    let filter = audit::Filter { action: Some("user.created"), actor: Some("usr_x") };
    assert!(audit::page(&mut reader, 0, filter, 3).await.unwrap().is_empty());
}

async fn other_sessions_end_and_the_kept_one_lives(world: World) {
    let (scope, user) = world.tenant("acme").await;
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(world.session(&scope, user).await.0);
    }
    let mut tx = world.db.change(&scope).await.unwrap();
    let mut ended = sessions::end_all(&mut tx, user, Some(all[1]), later(1)).await.unwrap();
    ended.sort();
    assert_eq!(ended, [all[0], all[2]]);
    let live = sessions::live_of_user(&mut tx, user, later(2), None, 10).await.unwrap();
    assert_eq!(live.iter().map(|session| session.id).collect::<Vec<_>>(), [all[1]]);
    assert!(!sessions::end(&mut tx, all[0], later(3)).await.unwrap(), "ended once");
    assert_eq!(sessions::end_all(&mut tx, user, None, later(3)).await.unwrap(), [all[1]]);
    tx.cancel().await.unwrap();
}

async fn answer_is_remembered_once_until_its_time_is_over(world: World) {
    let (scope, user) = world.tenant("acme").await;
    let row = |status, created: Millis| IdempotencyRow {
        scope_user: Some(user),
        key_hash: [1; 32],
        request_digest: [2; 32],
        status,
        response_sealed: b"sealed".to_vec(),
        created,
        expires: Millis(created.0 + 1000),
    };
    let updated = || world.event(scope.tenant(), EventKind::TenantUpdated { fields: vec![] });
    let mut tx = world.db.change(&scope).await.unwrap();
    tx.remember(&row(201, NOW)).await.unwrap();
    let _ = tx.commit(updated(), ()).await.unwrap();

    let mut tx = world.db.change(&scope).await.unwrap();
    let error = tx.remember(&row(200, Millis(NOW.0 + 999))).await.unwrap_err();
    assert!(error.is_duplicate_of("idempotency key"));
    drop(tx);
    let mut tx = world.db.change(&scope).await.unwrap();
    assert_eq!(idempotency::find(&mut tx, [1; 32], NOW).await.unwrap().unwrap().status, 201);
    assert!(idempotency::find(&mut tx, [1; 32], later(1)).await.unwrap().is_none());
    tx.remember(&row(200, later(1))).await.unwrap();
    assert_eq!(idempotency::find(&mut tx, [1; 32], later(1)).await.unwrap().unwrap().status, 200);
    tx.cancel().await.unwrap();
}

async fn signing_key_moves_only_forward(world: World) {
    let mut tx = world.db.change_platform(&platform()).await.unwrap();
    let key = SigningKeyRow {
        kid: "k1".into(),
        alg: "EdDSA".into(),
        state: KeyState::Pending,
        public_jwk: "{}".into(),
        private_wrapped: b"w".to_vec(),
        kek: "root".into(),
        created_at: NOW,
        activated_at: None,
        retired_at: None,
    };
    signing_keys::insert(&mut tx, &key).await.unwrap();
    assert!(!signing_keys::advance(&mut tx, "k1", KeyState::Retired, NOW).await.unwrap());
    assert!(signing_keys::advance(&mut tx, "k1", KeyState::Active, later(1)).await.unwrap());
    assert!(!signing_keys::delete(&mut tx, "k1").await.unwrap(), "an active key is not removed");
    assert!(signing_keys::advance(&mut tx, "k1", KeyState::Retired, later(2)).await.unwrap());
    assert!(!signing_keys::advance(&mut tx, "k1", KeyState::Active, later(3)).await.unwrap());
    assert!(!signing_keys::advance(&mut tx, "k1", KeyState::Pending, later(3)).await.unwrap());
    assert!(signing_keys::advance(&mut tx, "k1", KeyState::Compromised, later(4)).await.unwrap());
    let all = signing_keys::all(&mut tx).await.unwrap();
    assert_eq!(
        (all[0].state, all[0].activated_at, all[0].retired_at),
        (KeyState::Compromised, Some(later(1)), Some(later(2)))
    );
    assert!(signing_keys::delete(&mut tx, "k1").await.unwrap());
    tx.cancel().await.unwrap();
}

async fn older_count_of_failures_does_not_overwrite_a_newer(world: World) {
    let row = |empty_at, at| FailureRow::new(Key(7), moment(empty_at), at);
    let mut tx = world.db.change_platform(&platform()).await.unwrap();
    login_failures::save(&mut tx, &[row(later(3), later(2))]).await.unwrap();
    login_failures::save(&mut tx, &[row(later(1), later(1))]).await.unwrap();
    tx.commit_quietly(()).await.unwrap();
    let mut reader = world.db.read_platform(&platform()).await.unwrap();
    let kept = login_failures::all(&mut reader, later(2)).await.unwrap();
    assert_eq!(kept[0].counter(), Some((Key(7), moment(later(3)))));
    assert!(login_failures::all(&mut reader, later(3)).await.unwrap().is_empty());
}

fn moment(empty_at: Millis) -> Tat {
    Tat::from_bits(u64::MAX).unwrap().at_most(empty_at).unwrap()
}

async fn prune_removes_what_is_over_and_nothing_else(world: World) {
    let (scope, user) = world.tenant("acme").await;
    let (ended, ended_hash) = world.session(&scope, user).await;
    let (live, hash) = world.session(&scope, user).await;
    let day = 24 * 3600;

    let mut tx = world.db.change(&scope).await.unwrap();
    sessions::end(&mut tx, ended, NOW).await.unwrap();
    let spend = Spend {
        session: live,
        generation: 0,
        hash,
        now: later(1),
        successor_sealed: b"secret",
        successor_hash: [3; 32],
        spender_hash: [4; 32],
        expires_at: later(5000),
    };
    refresh_tokens::spend(&mut tx, &spend).await.unwrap();
    let block = |n, expires_at| BlockRow {
        id: BlockId::from_u128(n),
        network: "192.0.2.1/32".into(),
        reason: "x".into(),
        created_at: NOW,
        expires_at,
    };
    blocks::insert(&mut tx, &block(1, Some(later(10)))).await.unwrap();
    blocks::insert(&mut tx, &block(2, None)).await.unwrap();
    login_failures::save(&mut tx, &[FailureRow::new(Key(7), moment(later(10)), NOW)]).await.unwrap();
    let _ = tx.commit(world.event(scope.tenant(), EventKind::LoggedOut { session: ended }), ()).await.unwrap();

    assert_eq!(world.db.prune(later(5)).await.unwrap(), Pruned::default());
    let pruned = world.db.prune(later(200)).await.unwrap();
    assert_eq!(pruned, Pruned { successors: 1, blocks: 1, login_failures: 1, ..Pruned::default() });
    let mut reader = world.db.read_platform(&platform()).await.unwrap();
    let spent = refresh_tokens::by_hash(&mut reader, hash).await.unwrap().unwrap();
    assert!(spent.successor_sealed.is_none() && spent.spender_hash.is_some(), "that it was spent stays known");
    drop(reader);
    let _ = world.db.record_alone(world.event(scope.tenant(), EventKind::LoggedOut { session: live })).await.unwrap();
    assert_eq!(world.db.prune(later(27 * 60)).await.unwrap(), Pruned { effects: 1, ..Pruned::default() });

    // The sessions live until second 9000; the day after the end comes later, so both go at once with their tokens.
    let pruned = world.db.prune(later(day + 1)).await.unwrap();
    assert_eq!((pruned.sessions, pruned.refresh_tokens), (2, 1));
    let mut reader = world.db.read_platform(&platform()).await.unwrap();
    for hash in [ended_hash, hash, [3; 32]] {
        assert!(refresh_tokens::by_hash(&mut reader, hash).await.unwrap().is_none());
    }
    assert_eq!(blocks::all(&mut reader, later(day)).await.unwrap().len(), 1);
    let _: SessionId = live;
}
