//! What `finish` refuses.

use bartizan_core::action::ReadUsers;
use bartizan_core::id::UserId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::app::{App, NewUser, Ring, RoleGate, defaults, read, write};
use crate::api::*;
use crate::guard::Permit;

type Nothing = Result<Done, Failure>;

async fn one() -> Nothing {
    Ok(Done)
}
async fn two() -> Nothing {
    Ok(Done)
}
async fn three() -> Nothing {
    Ok(Done)
}
async fn by_id(_: Path<UserId>) -> Nothing {
    Ok(Done)
}

mod elsewhere {
    pub(super) async fn one() -> super::Nothing {
        Ok(super::Done)
    }
    /// Another type with a name that is taken.
    #[derive(serde::Deserialize, schemars::JsonSchema)]
    #[serde(deny_unknown_fields)]
    pub(super) struct NewUser {
        #[schemars(range(max = 3))]
        pub(super) _age: u8,
    }
}

fn flaws(api: Api<App>) -> Vec<(String, Flaw)> {
    match api.finish(RoleGate::default(), defaults()) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.iter().map(|fault| (fault.row.clone(), fault.flaw.clone())).collect(),
    }
}

fn flaw(api: Api<App>) -> Flaw {
    let mut found = flaws(api);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0).1
}

fn open() -> Read<Public> {
    read(public("a test"))
}

#[test]
fn five_faults_are_reported_together() {
    #[derive(Deserialize, JsonSchema)]
    struct Loose {
        _text: String,
    }
    async fn loose(_: Body<Loose>) -> Nothing {
        Ok(Done)
    }
    let api = Api::<App>::new()
        .get("/a", open(), one)
        .get("/a", open(), two)
        .get("/b/{id}", open(), three)
        .post("/c", write(public("")), loose)
        .get("/d", open(), elsewhere::one);
    let text = api.finish(RoleGate::default(), defaults()).err().unwrap().to_string();
    insta::assert_snapshot!(text);
}

#[test]
fn a_path_has_one_form() {
    for path in
        ["", "a", "/a/", "//a", "/{id", "/x{id}", "/{*rest}", "/a b", "/%41", "/a/..", "/{a-b}", "/é", "/{x}/{x}"]
    {
        assert!(
            flaws(Api::new().get(path, open(), one)).iter().any(|(_, flaw)| *flaw == Flaw::PathMalformed),
            "{path}"
        );
    }
    for path in ["/", "/a", "/.well-known/jwks.json", "/a-b_c~1"] {
        assert_eq!(flaws(Api::new().get(path, open(), one)), [], "{path}");
    }
}

#[test]
fn duplicates_and_look_alikes_are_refused() {
    assert_eq!(flaw(Api::new().get("/a", open(), one).get("/a", open(), two)), Flaw::Duplicate);
    assert_eq!(flaws(Api::new().get("/a", open(), one).post("/a", write(public("a test")), two)), []);
    #[derive(Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Other {
        _user: UserId,
    }
    async fn by_other(_: Path<Other>) -> Nothing {
        Ok(Done)
    }
    let found = flaws(Api::new().get("/a/{id}", open(), by_id).get("/a/{_user}", open(), by_other));
    assert_eq!(found, [("GET /a/{_user}".to_owned(), Flaw::SamePattern("/a/{id}".into()))]);
    // Different patterns that overlap are fine: the literal one wins.
    assert_eq!(flaws(Api::new().get("/a/{id}", open(), by_id).get("/a/me", open(), one)), []);
}

#[test]
fn path_and_fields_agree() {
    assert_eq!(flaw(Api::new().get("/a/{id}", open(), one)), Flaw::ParameterUnread("id".into()));
    #[derive(Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Both {
        _id: UserId,
        _other: UserId,
    }
    async fn both(_: Path<Both>) -> Nothing {
        Ok(Done)
    }
    assert_eq!(flaw(Api::new().get("/a/{_id}", open(), both)), Flaw::ParameterMissing("_other".into()));
    assert!(matches!(flaws(Api::new().get("/a", open(), by_id))[0].1, Flaw::NotFlat("Path", _)));
    async fn twice(_: Path<UserId>, _: Path<UserId>) -> Nothing {
        Ok(Done)
    }
    assert_eq!(flaw(Api::new().get("/a/{id}", open(), twice)), Flaw::ArgumentTwice("Path"));
}

#[test]
fn a_handler_has_a_name_of_its_own() {
    assert_eq!(flaw(Api::new().get("/a", open(), async || Nothing::Ok(Done))), Flaw::Closure);
    let found = flaw(Api::new().get("/a", open(), one).get("/b", open(), elsewhere::one));
    assert_eq!(found, Flaw::OperationIdTaken("one".into(), "GET /a".into()));
}

#[test]
fn reasons_are_sentences() {
    assert_eq!(flaw(Api::new().get("/a", read(public(" ")), one)), Flaw::Silent("public"));
    assert_eq!(flaw(Api::new().get("/a", Read { summary: "", ..open() }, one)), Flaw::Silent("summary"));
    let exempt = Write { csrf: Csrf::Exempt(""), ..write(public("a test")) };
    assert_eq!(flaw(Api::new().post("/a", exempt, one)), Flaw::Silent("Csrf::Exempt"));
    let adopted = Api::new().adopt("/a", write(public("a test")), because(""), axum::Router::new());
    assert_eq!(flaw(adopted), Flaw::Silent("because"));
}

#[test]
fn a_permitted_answer_is_never_cached_publicly() {
    async fn ring(_: Permit<Ring>) -> Nothing {
        Ok(Done)
    }
    let route = Read { cache: Cache::Public(std::time::Duration::from_secs(1)), ..read(requires(Ring)) };
    assert_eq!(flaw(Api::new().get("/a", route, ring)), Flaw::PublicCache);
}

#[test]
fn adopted_prefixes_stand_apart() {
    let adopt =
        |api: Api<App>, prefix: &str| api.adopt(prefix, write(public("a test")), because("x"), axum::Router::new());
    for prefix in ["/", "", "/a/", "/{x}", "a"] {
        assert!(flaws(adopt(Api::new(), prefix)).iter().any(|(_, flaw)| *flaw == Flaw::PrefixMalformed), "{prefix}");
    }
    assert_eq!(flaw(adopt(Api::new(), "/f").get("/f/x", open(), one)), Flaw::BelowAdopted("/f".into()));
    assert_eq!(flaw(adopt(Api::new().get("/f", open(), one), "/f")), Flaw::BelowAdopted("/f".into()));
    assert_eq!(flaw(adopt(adopt(Api::new(), "/f/g"), "/f")), Flaw::BelowAdopted("/f".into()));
    assert_eq!(flaw(adopt(adopt(Api::new(), "/f"), "/f")), Flaw::Duplicate);
    assert_eq!(flaws(adopt(Api::new(), "/f").get("/fx", open(), one)), []);
    let guarded = adopt(Api::new(), "/f").get("/{id}/x", open(), by_id);
    assert_eq!(flaws(guarded), []);
}

#[test]
fn input_is_closed_and_bounded() {
    #[derive(Deserialize, JsonSchema)]
    struct Open {
        _many: Vec<u32>,
    }
    async fn body(_: Body<Open>) -> Nothing {
        Ok(Done)
    }
    async fn query(_: Query<Open>) -> Nothing {
        Ok(Done)
    }
    let found = flaws(Api::new().post("/a", write(public("a test")), body));
    let places: Vec<_> = found
        .iter()
        .map(|(_, flaw)| match flaw {
            Flaw::InputOpen { at, .. } => at.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(places, ["/", "/_many", "/_many/-"]);
    assert!(
        flaws(Api::new().get("/a", open(), query)).iter().any(|(_, flaw)| matches!(flaw, Flaw::NotFlat("Query", _)))
    );
}

#[test]
fn names_in_the_document_mean_one_type() {
    async fn first(_: Body<NewUser>) -> Nothing {
        Ok(Done)
    }
    async fn second(_: Body<elsewhere::NewUser>) -> Nothing {
        Ok(Done)
    }
    let found =
        flaws(Api::new().post("/a", write(public("a test")), first).post("/b", write(public("a test")), second));
    assert!(found.contains(&("POST /b".into(), Flaw::NameClash("NewUser".into()))), "{found:?}");

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Both {
        #[serde(default)]
        yes: bool,
    }
    async fn echo(Body(both): Body<Both>) -> Result<Found<Both>, Failure> {
        Ok(Found(both))
    }
    assert_eq!(flaw(Api::new().post("/a", write(public("a test")), echo)), Flaw::InputOutputDiffer("Both".into()));
}

#[test]
fn a_get_reads_no_body_and_an_after_method_follows_a_route() {
    async fn body(_: Body<NewUser>) -> Nothing {
        Ok(Done)
    }
    assert_eq!(flaw(Api::new().get("/a", open(), body)), Flaw::BodyOnRead);
    assert_eq!(flaw(Api::<App>::new().tag("x").get("/a", open(), one)), Flaw::NothingDeclared("tag"));
    let merged = Api::new().merge(Api::new().get("/a", open(), one)).body_limit(1);
    assert_eq!(flaw(merged), Flaw::NothingDeclared("body_limit"));
}

#[test]
fn actions_keep_their_own_permit() {
    async fn list(_: Permit<ReadUsers>) -> Nothing {
        Ok(Done)
    }
    assert_eq!(flaws(Api::new().get("/a", read(requires(ReadUsers)), list)), []);
}
