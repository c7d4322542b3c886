//! From what was typed to what is done.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bartizan_core::secret::Secret;
use clap::{CommandFactory as _, Parser as _};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::show::{self, Form, Reader};
use super::{
    AuditVerb, BlockVerb, Cli, ConfigVerb, Listen, MigrateVerb, PasswordFrom, SessionVerb, TenantVerb, UserVerb, Verb,
    dev, migrate,
};
use crate::admin::{self, Command, Password};
use crate::config::{self, Extent, Flag, Sources};
use crate::doctor;
use crate::exit::{Exit, Stop};
use crate::install;
use crate::serve;
use crate::wiring;

/// Runs the program. `environment` is looked at only for what begins with `BARTIZAN`.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8));
        }
    };
    let environment = environment.into_iter().filter(|(name, _)| name.to_string_lossy().starts_with("BARTIZAN"));
    match carry_out(cli, environment.collect()) {
        Ok(()) => Exit::Done.into(),
        Err(stop) => {
            show::say(&stop.to_string());
            stop.exit.into()
        }
    }
}

fn carry_out(cli: Cli, environment: Vec<(OsString, OsString)>) -> Result<(), Stop> {
    let form = if cli.json { Form::Json } else { Form::Text };
    if let (Verb::Dev { .. }, Some(_)) = (&cli.verb, &cli.config) {
        let stop = Stop::new(Exit::Usage, "`dev` uses the configuration in its directory");
        return Err(stop.hint("Name the directory with --dir instead of the file with --config."));
    }
    let sources = Sources { file: file(cli.config, &environment), environment, flags: Vec::new() };
    match cli.verb {
        Verb::Init { dir } => {
            let file = install::create(&dir)?;
            let value = json!({"config": file, "data": dir.join("data"), "secrets": dir.join("secrets")});
            show::value(&value, form)?;
            show::say(&format!("Start it with: bartizan serve --config '{}'", file.display()));
            Ok(())
        }
        Verb::Serve(listen) => {
            let sources = with_flags(sources, listen);
            asynchronously(serve::run(sources, async |_, _| Ok(())))
        }
        Verb::Dev { dir, listen } => asynchronously(dev::run(&dir, with_flags(sources, listen), form)),
        Verb::Config { verb } => look(verb, &sources, form),
        Verb::Routes => show::list(&wiring::routes()?, &["method", "path", "rate", "csrf", "access", "summary"], form),
        Verb::Doctor { grade: Some(url), ca, .. } => asynchronously(doctor::grade(&url, ca.as_deref(), form)),
        Verb::Doctor { accept_clock: true, .. } => asynchronously(doctor::accept_clock(&sources, form)),
        Verb::Doctor { grade: None, .. } => asynchronously(doctor::examine(&sources, form)),
        Verb::Migrate { verb: MigrateVerb::EmbeddedToCluster { to, password_file, state, state_password_file } } => {
            let to = migrate::Target { database: to, password_file, state, state_password_file };
            asynchronously(migrate::embedded_to_cluster(&to, &sources, form))
        }
        Verb::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "bartizan", &mut text);
            show::out(&String::from_utf8_lossy(&text))
        }
        Verb::Audit { verb: AuditVerb::Tail { follow, limit, after } } => {
            asynchronously(tail(&sources, after, limit, follow, form))
        }
        administration => administer(administration, &sources, form),
    }
}

/// The file named, else the one that is there.
fn file(named: Option<PathBuf>, environment: &[(OsString, OsString)]) -> PathBuf {
    let by_variable = || environment.iter().find(|(name, _)| name == "BARTIZAN_CONFIG").map(|(_, value)| value.into());
    named.or_else(by_variable).unwrap_or_else(|| {
        let usual = [PathBuf::from(install::FILE), PathBuf::from("bartizan-data").join(install::FILE)];
        let found = usual.iter().find(|path| path.exists());
        found.or(usual.first()).cloned().unwrap_or_default()
    })
}

fn with_flags(mut sources: Sources, listen: Listen) -> Sources {
    let mut flag = |flag, key, address: Option<std::net::SocketAddr>| {
        sources.flags.extend(address.map(|address| Flag { flag, key, value: address.to_string() }));
    };
    flag("--listen", "server.listen", listen.listen);
    flag("--ops-listen", "ops.listen", listen.ops_listen);
    sources
}

/// Runs `future` on all cores. Tasks that are left when it ends are given a second.
fn asynchronously(future: impl Future<Output = Result<(), Stop>>) -> Result<(), Stop> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Stop::new(Exit::Failed, format!("the system gives no threads: {error}")))?;
    let outcome = runtime.block_on(future);
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

fn look(verb: ConfigVerb, sources: &Sources, form: Form) -> Result<(), Stop> {
    match verb {
        ConfigVerb::Print { effective } => {
            let config = sources.read()?;
            let text = config::print(&config, if effective { Extent::Effective } else { Extent::Set });
            match form {
                Form::Text => show::out(&text),
                Form::Json => {
                    let table: toml::Table = toml::from_str(&text).map_err(|error| {
                        Stop::new(Exit::Failed, format!("the configuration does not print: {error}"))
                    })?;
                    show::value(&json!(table), form)
                }
            }
        }
        ConfigVerb::Check if form == Form::Json => {
            let found = sources.read().err();
            let fault = |found: &config::Faults, fault: &config::Fault| json!({"place": found.place(fault), "message": fault.message, "hint": fault.hint});
            let faults = found.iter().flat_map(|found| found.list().iter().map(|one| fault(found, one)));
            show::value(&json!({"faults": faults.collect::<Vec<_>>()}), form)?;
            found.map_or(Ok(()), |found| Err(found.into()))
        }
        ConfigVerb::Check => {
            sources.read()?;
            show::say(&format!("{}: no faults.", sources.file.display()));
            Ok(())
        }
        ConfigVerb::Schema => show::out(&format!("{:#}\n", config::schema())),
        ConfigVerb::Example => show::out(&config::example()),
        ConfigVerb::Reference => show::out(&config::reference()),
        ConfigVerb::Cli => show::out(&super::reference()),
    }
}

/// A new password, and whether it must be shown because nobody else knows it.
fn password(from: PasswordFrom) -> Result<(Secret<String>, Option<Secret<String>>), Stop> {
    if !from.password_stdin {
        let generated = dev::generate_password()?;
        return Ok((generated.clone(), Some(generated)));
    }
    if io::stdin().is_terminal() {
        show::say("Password (visible while you type; better: pipe it in), then Enter and Ctrl-D:");
    }
    let failed = |what: String| Stop::new(Exit::Failed, what);
    let mut text = Zeroizing::new(String::with_capacity(4096));
    // The limit is far above the longest password, and keeps a mistaken pipe from filling the memory.
    let read = io::stdin().lock().take(4096).read_to_string(&mut text);
    read.map_err(|error| failed(format!("the password cannot be read from standard input: {error}")))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(failed("standard input holds no password".into()));
    }
    Ok((Secret::new(line.to_owned()), None))
}

fn administer(verb: Verb, sources: &Sources, form: Form) -> Result<(), Stop> {
    let mut generated = None;
    let command = match verb {
        Verb::Tenant { verb: TenantVerb::Ls } => Command::TenantLs {},
        Verb::Tenant { verb: TenantVerb::Add { slug, name, email, password: from } } => {
            let (secret, shown) = password(from)?;
            generated = shown;
            Command::TenantAdd { slug, name, email, password: Password(secret) }
        }
        Verb::Tenant { verb: TenantVerb::SetTier { slug, tier } } => Command::TenantSetTier { slug, tier },
        Verb::Tenant { verb: TenantVerb::Suspend { slug } } => Command::TenantSuspend { slug },
        Verb::Tenant { verb: TenantVerb::Resume { slug } } => Command::TenantResume { slug },
        Verb::User { verb: UserVerb::Ls { tenant } } => Command::UserLs { tenant },
        Verb::User { verb: UserVerb::Add { tenant, email, name, role, password: from } } => {
            let (secret, shown) = password(from)?;
            generated = shown;
            Command::UserAdd { tenant, email, name, role, password: Password(secret) }
        }
        Verb::User { verb: UserVerb::Disable { tenant, user } } => Command::UserDisable { tenant, user },
        Verb::Session { verb: SessionVerb::Ls { tenant, user } } => Command::SessionLs { tenant, user },
        Verb::Session { verb: SessionVerb::Revoke { tenant, session } } => Command::SessionRevoke { tenant, session },
        Verb::Block { verb: BlockVerb::Ls } => Command::BlockLs {},
        Verb::Block { verb: BlockVerb::Add { cidr, ttl, reason } } => {
            Command::BlockAdd { cidr, ttl: ttl.map(|ttl| ttl.as_secs()), reason }
        }
        Verb::Block { verb: BlockVerb::Rm { id } } => Command::BlockRm { id },
        // Everything else was dealt with before.
        _ => return Err(Stop::new(Exit::Usage, "nothing to do")),
    };
    let data = sources.read()?.data();
    asynchronously(async move {
        let mut answer = admin::client::ask(&data, &command).await?;
        if let (Value::Object(object), Some(password)) = (&mut answer, &generated) {
            object.insert("password".into(), password.expose().as_str().into());
        }
        show::value(&answer, form)?;
        if generated.is_some() {
            show::say("The password is shown this once: hand it over on a safe way.");
        }
        Ok(())
    })
}

async fn tail(sources: &Sources, mut after: Option<u64>, limit: u32, follow: bool, form: Form) -> Result<(), Stop> {
    let data = sources.read()?.data();
    loop {
        let answer = admin::client::ask(&data, &Command::AuditTail { after, limit }).await?;
        let events = show::items(&answer).unwrap_or_default();
        for event in events {
            if show::write(&show::event(event, form))? == Reader::Gone {
                return Ok(());
            }
            after = event.get("seq").and_then(Value::as_u64).or(after);
        }
        if !follow {
            return Ok(());
        }
        // An empty trail has no last event: from the beginning, then.
        after = after.or(Some(0));
        if events.len() < usize::try_from(limit).unwrap_or(usize::MAX) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
