//! Invoices: a small multi-tenant application inside Bartizan.
//!
//! `cargo run -p bartizan --example invoices -- DIR` keeps accounts, secrets and audit trail in `DIR` and serves on a free
//! port. What the application states is who may do what; who is asking, whether that is still true and how often they
//! may is Bartizan's business. Explained step by step in `docs/embed.md`.
#![allow(clippy::print_stdout, reason = "a program that tells where it listens")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::FromRef;
use bartizan::api::{
    Api, Body, Cache, Created, Csrf, Failure, Faults, Found, Page, Path, RateClass, Read, Service, Write, requires,
};
use bartizan::engine::{Engine, create_secrets};
use bartizan::guard::Permit;
use bartizan::journal::Journal;
use bartizan::settings::Settings;
use bartizan_core::action::Action;
use bartizan_core::audit::{AppEvent, Detail};
use bartizan_core::error::Code;
use bartizan_core::id::{TenantId, UserId};
use bartizan_core::principal::Role;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// May write an invoice.
struct CreateInvoice;

impl Action for CreateInvoice {
    const NAME: &'static str = "invoices.create";
    const ROLES: &'static [Role] = &[Role::Owner, Role::Admin, Role::Member];
}

/// May read the invoices of his tenant.
struct ReadInvoices;

impl Action for ReadInvoices {
    const NAME: &'static str = "invoices.read";
    const ROLES: &'static [Role] = Role::ALL;
}

/// What the audit trail says of it.
struct InvoiceWritten {
    cents: u32,
}

impl AppEvent for InvoiceWritten {
    const NAME: &'static str = "app.invoice.written";

    fn details(&self) -> Vec<(&'static str, Detail)> {
        vec![("cents", self.cents.into())]
    }
}

/// What a client sends. The schema's bounds are enforced and stand in the OpenAPI document.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewInvoice {
    #[schemars(length(min = 1, max = 100))]
    customer: String,
    #[schemars(range(min = 1, max = 100_000_000))]
    cents: u32,
}

/// Which one. A number without bounds would be a fault of the table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Which {
    #[schemars(range(min = 1, max = 1_000_000))]
    number: u32,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Invoice {
    number: u32,
    customer: String,
    cents: u32,
    by: UserId,
}

/// The store, by tenant. Every method takes the tenant from a permit, so nobody can name another one's.
#[derive(Clone, Debug, Default)]
pub struct Invoices(Arc<Mutex<BTreeMap<TenantId, Vec<Invoice>>>>);

impl Invoices {
    fn of<A: Action, T>(&self, permit: &Permit<A>, act: impl FnOnce(&mut Vec<Invoice>) -> T) -> Result<T, Failure> {
        let tenant = permit.user()?.tenant;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(act(all.entry(tenant).or_default()))
    }
}

/// What the handlers' services are taken from.
#[derive(Clone)]
pub struct State {
    invoices: Invoices,
    journal: Journal,
}

impl FromRef<State> for Invoices {
    fn from_ref(state: &State) -> Self {
        state.invoices.clone()
    }
}

impl FromRef<State> for Journal {
    fn from_ref(state: &State) -> Self {
        state.journal.clone()
    }
}

async fn create_invoice(
    permit: Permit<CreateInvoice>,
    Service(invoices): Service<Invoices>,
    Service(journal): Service<Journal>,
    Body(NewInvoice { customer, cents }): Body<NewInvoice>,
) -> Result<Created<Invoice>, Failure> {
    let by = permit.user()?.user;
    // The row first: what cannot be recorded is not done.
    journal.record(&permit, &InvoiceWritten { cents }).await?;
    let write = |own: &mut Vec<Invoice>| {
        let number = own.last().map_or(1, |last| last.number + 1);
        own.push(Invoice { number, customer, cents, by });
        own.last().cloned().ok_or(Code::Internal)
    };
    Ok(Created(invoices.of(&permit, write)??))
}

async fn list_invoices(
    permit: Permit<ReadInvoices>,
    Service(invoices): Service<Invoices>,
) -> Result<Page<Invoice>, Failure> {
    Ok(Page { items: invoices.of(&permit, |own| own.clone())?, next: None })
}

async fn read_invoice(
    permit: Permit<ReadInvoices>,
    Path(Which { number }): Path<Which>,
    Service(invoices): Service<Invoices>,
) -> Result<Found<Invoice>, Failure> {
    let found = invoices.of(&permit, |own| own.iter().find(|invoice| invoice.number == number).cloned())?;
    Ok(Found(found.ok_or(Code::NotFound)?))
}

fn api() -> Api<State> {
    let read = |summary| Read { summary, access: requires(ReadInvoices), rate: RateClass::Read, cache: Cache::Private };
    let write = Write {
        summary: "Write an invoice",
        access: requires(CreateInvoice),
        rate: RateClass::Write,
        csrf: Csrf::Enforced,
        cache: Cache::Private,
    };
    Api::new()
        .get("/invoices", read("The invoices of one's tenant"), list_invoices)
        .post("/invoices", write, create_invoice)
        .get("/invoices/{number}", read("One invoice"), read_invoice)
}

/// The whole application: its routes and the built-in ones (accounts, sessions, tokens), behind the engine's stack.
pub fn application(engine: &Engine) -> Result<axum::Router, Faults> {
    let router = engine.guard(axum::Router::new(), api().merge(engine.routes()))?;
    Ok(router.with_state(State { invoices: Invoices::default(), journal: engine.journal() }))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings = Settings::embedded(std::env::args_os().nth(1).ok_or("usage: invoices DIR")?);
    create_secrets(&settings)?;
    let engine = Engine::start(settings).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    // The listener says who is connected; without it all callers would share one address's limits.
    let service = application(&engine)?.into_make_service_with_connect_info::<SocketAddr>();
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    axum::serve(listener, service).with_graceful_shutdown(stop).await?;
    engine.shutdown().await;
    Ok(())
}
