//! The users of a tenant, as its owners and admins manage them.

use bartizan_core::action::{self, Action, CreateUser, DeleteUser, ReadUsers, UpdateUser};
use bartizan_core::audit::{EventKind, UserChanged, UserCreated, UserDeleted};
use bartizan_core::error::{Code, Refusal};
use bartizan_core::id::UserId;
use bartizan_core::input::{Email, HumanName, NewPassword};
use bartizan_core::principal::{Principal, Role};
use bartizan_core::time::Millis;
use bartizan_store::users::{self, UserChange, UserRow};
use bartizan_store::{Conn, sessions, words};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::accounts::{Accounts, NAME, Person, UserBrief, brief, by_email, insert_user};
use crate::api::{Failure, Page};
use crate::entropy::random;
use crate::ground::{Begun, Change, Ground, again, count};
use crate::guard::Permit;
use crate::paging;
use crate::routes::Paging;
use crate::vault::TenantKeys;

/// Whether a user may log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum UserStatus {
    /// He may.
    Active,
    /// He may not, and no credential of his is accepted.
    Disabled,
}

/// A user.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct UserView {
    #[serde(flatten)]
    user: UserBrief,
    status: UserStatus,
    created_at: Millis,
    last_login_at: Option<Millis>,
}

/// A user just created.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NewUser {
    #[serde(flatten)]
    user: UserView,
    /// The password that was made for him; shown this once.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    one_time_password: Option<String>,
}

/// What to change; `None` stays.
#[derive(Debug, Default)]
pub(crate) struct UserPatch {
    pub(crate) name: Option<HumanName>,
    pub(crate) role: Option<Role>,
    pub(crate) status: Option<UserStatus>,
}

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Users {
    ground: Ground,
    accounts: Accounts,
}

impl Users {
    pub(crate) fn new(ground: Ground, accounts: Accounts) -> Self {
        Self { ground, accounts }
    }

    /// The users of the tenant, in order of creation.
    pub(crate) async fn list(&self, permit: &Permit<ReadUsers>, paging: Paging) -> Result<Page<UserView>, Failure> {
        let after = paging::position::<UserId>(paging.after.as_ref())?;
        let limit = paging.limit.number();
        let mut reader = self.ground.read(permit.grant()).await?;
        let rows = users::page(&mut reader, after, paging::one_more(limit)).await?;
        let keys = self.ground.keys(&mut reader).await?;
        paging::page(rows, limit, |row| row.id.to_string(), |row| view(&keys, &row))
    }

    /// Every user of the tenant at once, for the operator.
    pub(crate) async fn all(&self, permit: &Permit<ReadUsers>) -> Result<Vec<UserView>, Failure> {
        let mut reader = self.ground.read(permit.grant()).await?;
        let rows = users::page(&mut reader, None, 10_000).await?;
        let keys = self.ground.keys(&mut reader).await?;
        rows.iter().map(|row| view(&keys, row)).collect()
    }

    /// The user of an address.
    pub(crate) async fn find(&self, permit: &Permit<ReadUsers>, email: &Email) -> Result<Option<UserId>, Failure> {
        let mut reader = self.ground.read(permit.grant()).await?;
        let keys = self.ground.keys(&mut reader).await?;
        Ok(by_email(&mut reader, &keys, email).await?.map(|row| row.id))
    }

    /// One user. One of another tenant is not there.
    pub(crate) async fn read(&self, permit: &Permit<ReadUsers>, id: UserId) -> Result<UserView, Failure> {
        let mut reader = self.ground.read(permit.grant()).await?;
        let row = users::by_id(&mut reader, id).await?.ok_or(Code::NotFound)?;
        let keys = self.ground.keys(&mut reader).await?;
        view(&keys, &row)
    }

    /// Creates a user. Nobody creates one above himself.
    pub(crate) async fn create(
        &self,
        permit: Permit<CreateUser>,
        email: Email,
        name: HumanName,
        role: Role,
        password: Option<NewPassword>,
    ) -> Result<NewUser, Failure> {
        if let Some(refusal) = permit.principal().and_then(|who| action::may_grant(who, role).err()) {
            return Err(self.refused(&permit, refusal).await);
        }
        let one_time = if password.is_some() { None } else { Some(URL_SAFE_NO_PAD.encode(random::<18>()?)) };
        let password = match password {
            Some(password) => {
                let context = [email.local_part(), name.as_str()];
                self.accounts.check_password(password.password(), "/password", &context)?;
                password
            }
            None => NewPassword::parse(one_time.as_deref().unwrap_or_default())
                .map_err(|_| Failure::fault("a generated password was refused"))?,
        };
        let hash = self.accounts.hash(permit.grant(), password.password()).await?;
        let now = self.ground.now();
        let id = UserId::new(now, random()?);
        let mut change = match self.ground.change(&permit).await? {
            Begun::New(change) => change,
            Begun::Again(answer) => return again(&answer),
        };
        let keys = self.ground.keys(&mut change).await?;
        insert_user(&mut change, &keys, &Person { id, email: &email, name: &name, role, hash: &hash }, now).await?;
        let user = UserBrief { id, email: email.as_str().into(), name: name.as_str().into(), role };
        let user = UserView { user, status: UserStatus::Active, created_at: now, last_login_at: None };
        change.commit(UserCreated { user: id, role }, NewUser { user, one_time_password: one_time }).await
    }

    /// Changes a user. A new role, or being disabled, ends his access tokens; being disabled also ends his sessions.
    pub(crate) async fn update(
        &self,
        permit: Permit<UpdateUser>,
        id: UserId,
        patch: UserPatch,
    ) -> Result<UserView, Failure> {
        let mut change = match self.ground.change(&permit).await? {
            Begun::New(change) => change,
            Begun::Again(answer) => return again(&answer),
        };
        let row = users::by_id(&mut change, id).await?;
        let Some(row) = row else {
            change.cancel().await?;
            return Err(Code::NotFound.into());
        };
        if let Err(failure) = self.may_update(permit.principal(), &mut change, &row, &patch).await {
            change.cancel().await?;
            return Err(match failure {
                Failure::Refusal(refusal) => self.refused(&permit, refusal).await,
                fault => fault,
            });
        }
        let keys = self.ground.keys(&mut change).await?;
        let mut events = self.write(&mut change, &keys, &row, patch).await?;
        let row = users::by_id(&mut change, id).await?.ok_or(Code::NotFound)?;
        let view = view(&keys, &row)?;
        let Some(last) = events.pop() else {
            change.cancel().await?;
            return Ok(view);
        };
        for event in events {
            change.record(event).await?;
        }
        change.commit(last, view).await
    }

    /// Deletes a user; the audit trail keeps his id.
    pub(crate) async fn delete(&self, permit: Permit<DeleteUser>, id: UserId) -> Result<(), Failure> {
        let Begun::New(mut change) = self.ground.change(&permit).await? else { return Ok(()) };
        let found = users::by_id(&mut change, id).await?;
        let Some(row) = found else {
            change.cancel().await?;
            return Err(Code::NotFound.into());
        };
        // The operator may do what an owner may not: a tenant whose only owner is the attacker needs him gone.
        let refused = match permit.principal() {
            Some(who) => match action::may_act_on(who, id, row.role) {
                Ok(()) if is_last_owner(&mut change, &row).await? => Some(Code::LastOwner.into()),
                Ok(()) => None,
                Err(refusal) => Some(refusal),
            },
            None => None,
        };
        if let Some(refusal) = refused {
            change.cancel().await?;
            return Err(self.refused(&permit, refusal).await);
        }
        let Some(epoch) = users::delete(&mut change, id).await? else {
            change.cancel().await?;
            return Err(Code::NotFound.into());
        };
        count(&self.ground.metrics.revocations, "cause", "user_deleted");
        change.commit(UserDeleted { user: id, epoch }, ()).await
    }

    /// Writes down that somebody reached above his rank, as the guard does for what his role may not at all.
    async fn refused<A: Action>(&self, permit: &Permit<A>, refusal: Refusal) -> Failure {
        if refusal.code == Code::RankTooLow {
            count(&self.ground.metrics.denied, "code", refusal.code.as_str());
            let event = EventKind::AccessDenied { action: A::NAME, code: refusal.code.as_str() };
            if let Err(cause) = self.ground.record(permit.grant(), event).await {
                tracing::error!(%cause, "a refusal could not be written to the audit trail");
                self.ground.metrics.audit_dropped.inc();
            }
        }
        refusal.into()
    }

    async fn may_update(
        &self,
        who: Option<&Principal>,
        change: &mut Change<UserChanged>,
        row: &UserRow,
        patch: &UserPatch,
    ) -> Result<(), Failure> {
        // The operator may do what an owner may not: a tenant whose only owner is the attacker needs him gone.
        let Some(who) = who else { return Ok(()) };
        action::may_act_on(who, row.id, row.role)?;
        if let Some(role) = patch.role {
            action::may_grant(who, role)?;
        }
        let stays = patch.role.is_none_or(|role| role == Role::Owner) && patch.status != Some(UserStatus::Disabled);
        if !stays && is_last_owner(change, row).await? {
            return Err(Code::LastOwner.into());
        }
        Ok(())
    }

    /// Writes what differs and says what happened, in the order it was done.
    async fn write(
        &self,
        change: &mut Change<UserChanged>,
        keys: &TenantKeys,
        row: &UserRow,
        patch: UserPatch,
    ) -> Result<Vec<UserChanged>, Failure> {
        let (user, now) = (row.id, self.ground.now());
        let mut events = Vec::new();
        if let Some(name) = patch.name {
            let sealed = keys.seal(NAME, &user.to_string(), name.as_str().as_bytes())?;
            users::update(change, user, &UserChange { email: None, name_sealed: Some(&sealed) }, now).await?;
            events.push(UserChanged::Fields { user, fields: vec!["name"] });
        }
        if let Some(to) = patch.role.filter(|role| *role != row.role) {
            let epoch = users::set_role(change, user, to, now).await?.ok_or(Code::NotFound)?;
            count(&self.ground.metrics.revocations, "cause", "role_changed");
            events.push(UserChanged::Role { user, from: row.role, to, epoch });
        }
        match (patch.status, row.status) {
            (Some(UserStatus::Disabled), words::UserStatus::Active) => {
                let epoch = users::set_status(change, user, words::UserStatus::Disabled, now).await?;
                let epoch = epoch.ok_or(Code::NotFound)?;
                sessions::end_all(change, user, None, now).await?;
                count(&self.ground.metrics.revocations, "cause", "user_disabled");
                events.push(UserChanged::Disabled { user, epoch });
            }
            (Some(UserStatus::Active), words::UserStatus::Disabled) => {
                users::set_status(change, user, words::UserStatus::Active, now).await?.ok_or(Code::NotFound)?;
                events.push(UserChanged::Enabled { user });
            }
            _ => {}
        }
        Ok(events)
    }
}

/// Whether the tenant would be without an owner who can log in.
async fn is_last_owner(conn: &mut Conn, row: &UserRow) -> Result<bool, Failure> {
    let owner = row.role == Role::Owner && row.status == words::UserStatus::Active;
    Ok(owner && users::count_active_owners(conn).await? <= 1)
}

/// A user with his personal data opened.
pub(crate) fn view(keys: &TenantKeys, row: &UserRow) -> Result<UserView, Failure> {
    let status = match row.status {
        words::UserStatus::Active => UserStatus::Active,
        words::UserStatus::Disabled => UserStatus::Disabled,
    };
    Ok(UserView { user: brief(keys, row)?, status, created_at: row.created_at, last_login_at: row.last_login_at })
}
