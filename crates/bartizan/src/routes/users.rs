//! The users of the tenant.

use bartizan_core::action::{CreateUser, DeleteUser, ReadUsers, UpdateUser};
use bartizan_core::id::UserId;
use bartizan_core::input::{Email, HumanName, NewPassword};
use bartizan_core::principal::Role;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Paging, Services};
use crate::api::{
    Api, Body, Cache, Created, Csrf, Done, Failure, Found, Page, Path, Query, RateClass, Read, Service, Write, requires,
};
use crate::guard::Permit;
use crate::users::{NewUser, UserPatch, UserStatus, UserView, Users};

pub(super) fn routes() -> Api<Services> {
    let read = |summary| Read { summary, access: requires(ReadUsers), rate: RateClass::Read, cache: Cache::Private };
    Api::new()
        .get("/v1/users", read("The users of the tenant"), list_users)
        .post(
            "/v1/users",
            Write {
                summary: "Create a user",
                access: requires(CreateUser),
                rate: RateClass::Write,
                csrf: Csrf::Enforced,
                cache: Cache::Private,
            },
            create_user,
        )
        .get("/v1/users/{id}", read("One user"), read_user)
        .patch(
            "/v1/users/{id}",
            Write {
                summary: "Change a user's name, role or status",
                access: requires(UpdateUser),
                rate: RateClass::Write,
                csrf: Csrf::Enforced,
                cache: Cache::Private,
            },
            update_user,
        )
        .delete(
            "/v1/users/{id}",
            Write {
                summary: "Delete a user and end his sessions",
                access: requires(DeleteUser),
                rate: RateClass::Write,
                csrf: Csrf::Enforced,
                cache: Cache::Private,
            },
            delete_user,
        )
}

/// Which user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ById {
    pub(crate) id: UserId,
}

/// A new user. Without a password one is made and shown once.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateUserBody {
    pub(crate) email: Email,
    pub(crate) name: HumanName,
    pub(crate) role: Role,
    #[serde(default)]
    pub(crate) password: Option<NewPassword>,
}

/// What to change; absent members stay as they are.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateUserBody {
    #[serde(default)]
    pub(crate) name: Option<HumanName>,
    #[serde(default)]
    pub(crate) role: Option<Role>,
    #[serde(default)]
    pub(crate) status: Option<UserStatus>,
}

async fn list_users(
    permit: Permit<ReadUsers>,
    Service(users): Service<Users>,
    Query(paging): Query<Paging>,
) -> Result<Page<UserView>, Failure> {
    users.list(&permit, paging).await
}

async fn create_user(
    permit: Permit<CreateUser>,
    Service(users): Service<Users>,
    Body(body): Body<CreateUserBody>,
) -> Result<Created<NewUser>, Failure> {
    users.create(permit, body.email, body.name, body.role, body.password).await.map(Created)
}

async fn read_user(
    permit: Permit<ReadUsers>,
    Service(users): Service<Users>,
    Path(path): Path<ById>,
) -> Result<Found<UserView>, Failure> {
    users.read(&permit, path.id).await.map(Found)
}

async fn update_user(
    permit: Permit<UpdateUser>,
    Service(users): Service<Users>,
    Path(path): Path<ById>,
    Body(body): Body<UpdateUserBody>,
) -> Result<Found<UserView>, Failure> {
    let patch = UserPatch { name: body.name, role: body.role, status: body.status };
    users.update(permit, path.id, patch).await.map(Found)
}

async fn delete_user(
    permit: Permit<DeleteUser>,
    Service(users): Service<Users>,
    Path(path): Path<ById>,
) -> Result<Done, Failure> {
    users.delete(permit, path.id).await?;
    Ok(Done)
}
