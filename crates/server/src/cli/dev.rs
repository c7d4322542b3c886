//! `bartizan dev`: an installation with a demo tenant, for trying things out.

use std::fs;
use std::io;
use std::path::Path;

use bartizan_core::error::Code;
use bartizan_core::secret::Secret;
use serde_json::json;

use super::show::{self, Form};
use crate::admin::{Command, Password};
use crate::config::Sources;
use crate::exit::{Exit, Stop};
use crate::install;
use crate::serve::{self, Reachable};
use crate::wiring::{self, Engine};

/// The demo tenant.
const TENANT: &str = "acme";
/// Its owner; `.example` can never be a real address (RFC 2606).
const EMAIL: &str = "owner@acme.example";

/// Serves the installation in `dir`, which is created when missing.
///
/// Each step asks whether it is still to be done, so a start that was cut short is completed by the next one: the
/// password is generated and printed when the tenant is made, whichever start that is.
pub(super) async fn run(dir: &Path, mut sources: Sources, form: Form) -> Result<(), Stop> {
    sources.file = dir.join(install::FILE);
    if !sources.file.exists() {
        install::create(dir)?;
    }
    let dir = dir.to_path_buf();
    let waiting = sources.read()?.data().join("demo-password");
    serve::run(sources, async move |engine, reachable| {
        let password = demo_tenant(engine, &waiting).await?;
        // Removed before it is shown: shown once is promised, and nothing slow lies between the two.
        match fs::remove_file(&waiting) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Stop::new(Exit::Failed, format!("cannot remove {}: {error}", waiting.display())));
            }
            _ => {}
        }
        let password = password.as_ref().map(|password| password.expose().as_str());
        match form {
            Form::Json => {
                let Reachable { api, ops } = reachable;
                let line = json!({"api": api, "ops": ops, "tenant": TENANT, "email": EMAIL, "password": password});
                show::out(&format!("{line}\n"))
            }
            Form::Text => show::out(&welcome(reachable, password, &dir)),
        }
    })
    .await
}

/// Makes the demo tenant unless it exists; returns the owner's password unless it was shown before.
///
/// The password waits in a file while the tenant is made: whenever a start is cut short, the next one still knows it.
async fn demo_tenant(engine: &Engine, waiting: &Path) -> Result<Option<Secret<String>>, Stop> {
    let exists = wiring::has_tenant(engine, TENANT).await?;
    let password = match fs::read_to_string(waiting) {
        Ok(password) => Secret::new(password),
        Err(_) if exists => return Ok(None),
        Err(_) => {
            let password = generate_password()?;
            install::write_new(waiting, password.expose().as_bytes())
                .map_err(|error| Stop::new(Exit::Failed, format!("cannot write {}: {error}", waiting.display())))?;
            password
        }
    };
    if exists {
        return Ok(Some(password));
    }
    let command = Command::TenantAdd {
        slug: TENANT.into(),
        name: "Demo Owner".into(),
        email: EMAIL.into(),
        password: Password(password.clone()),
    };
    match wiring::carry_out(engine, command).await {
        Ok(_) => Ok(Some(password)),
        // Another node on the same database was quicker: its password is the one, and ours opens nothing.
        Err(refusal) if refusal.code == Code::SlugTaken => fs::remove_file(waiting)
            .map(|()| None)
            .map_err(|error| Stop::new(Exit::Failed, format!("cannot remove {}: {error}", waiting.display()))),
        Err(refusal) => {
            let code = refusal.code.as_str();
            Err(Stop::new(Exit::Failed, format!("the demo tenant could not be made: {} ({code})", refusal.detail)))
        }
    }
}

/// A password of 120 bits that survives shells, JSON and being read aloud.
pub(super) fn generate_password() -> Result<Secret<String>, Stop> {
    // 32 letters and digits, without those that look like others.
    const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
    let mut random = [0u8; 24];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Stop::new(Exit::Failed, "the system gives no random numbers"))?;
    let mut text = String::with_capacity(29);
    for (position, byte) in random.iter().enumerate() {
        if position > 0 && position.is_multiple_of(4) {
            text.push('-');
        }
        text.push(LETTERS.get(usize::from(byte % 32)).copied().map_or('a', char::from));
    }
    Ok(Secret::new(text))
}

fn welcome(reachable: &Reachable, password: Option<&str>, dir: &Path) -> String {
    let Reachable { api, ops } = reachable;
    let Some(password) = password else {
        return format!(
            "\nBartizan serves {dir} at {api}, health and metrics at {ops}.\n\n  tenant   {TENANT}\n  e-mail   {EMAIL}\n  \
             password shown once, at the first start. Lost it? Add somebody else:\n           bartizan user add {TENANT} \
             you@acme.example --name You --role owner --config '{config}'\n\nTry:\n\n  curl -s {api}/.well-known/jwks.json\n  \
             curl -s {api}/openapi.json\n  curl -s {ops}/healthz\n\nCtrl-C stops it; nothing is lost.\n\n",
            dir = dir.display(),
            config = dir.join(install::FILE).display(),
        );
    };
    format!(
        "\nBartizan serves {dir} at {api}, health and metrics at {ops}.\n\n  tenant   {TENANT}\n  e-mail   {EMAIL}\n  \
         password {password}   (shown this once)\n\nTry, in another terminal:\n\n  TOKEN=$(curl -s {api}/v1/login -H \
         'content-type: application/json' -d '{{\"tenant\":\"{TENANT}\",\"email\":\"{EMAIL}\",\"password\":\"{password}\"}}' | \
         sed 's/.*\"access_token\" *: *\"\\([^\"]*\\)\".*/\\1/')\n  curl -si {api}/v1/whoami -H \"authorization: Bearer $TOKEN\"\n  \
         curl -s {api}/v1/audit -H \"authorization: Bearer $TOKEN\"\n\nCtrl-C stops it; nothing is lost.\n\n",
        dir = dir.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_passwords_are_long_differ_and_need_no_quoting() {
        let (one, other) = (generate_password().unwrap(), generate_password().unwrap());
        assert!(one != other);
        assert_eq!(one.expose().len(), 29);
        assert!(one.expose().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
    }

    #[test]
    fn the_password_is_in_the_first_welcome_only() {
        let reachable = Reachable { api: "http://127.0.0.1:1".into(), ops: "http://127.0.0.1:2".into() };
        let first = welcome(&reachable, Some("abcd-efgh"), Path::new("bartizan-data"));
        assert_eq!(first.lines().filter(|line| line.contains("curl ")).count(), 3);
        insta::assert_snapshot!(first);
        insta::assert_snapshot!(welcome(&reachable, None, Path::new("bartizan-data")));
    }
}
