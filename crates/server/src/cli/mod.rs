//! The command line: what can be typed, and help that teaches it.

mod dev;
mod migrate;
mod run;
pub mod show;

pub use run::run;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bartizan_core::principal::{Role, Tier};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand};
use ipnet::IpNet;

use crate::config::setting::{Raw, Setting, Span};

/// Bartizan: the security layer of a multi-tenant SaaS.
#[derive(Debug, Parser)]
#[command(
    name = "bartizan",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = concat!(
        "Try it:\n  bartizan dev                      a secured API with a demo tenant, on this machine\n\n",
        "Run it:\n  bartizan init --dir /srv/bartizan\n  bartizan serve --config /srv/bartizan/bartizan.toml\n\n",
        "Exit codes:\n  0 done\n  1 failed, the message says why\n  2 wrong usage\n  3 the configuration has faults\n",
        "  4 no running server answers\n  5 the port or the data directory is in use\n\n",
        "Standard output carries data only; messages go to standard error.",
    )
)]
pub struct Cli {
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// The configuration [default: $BARTIZAN_CONFIG, ./bartizan.toml or ./bartizan-data/bartizan.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create an installation: configuration, secrets, data directory
    #[command(
        after_help = "Example:\n  bartizan init --dir /srv/bartizan\n\nOverwrites nothing. Secrets are generated into \
        DIR/secrets, readable by you only, and never printed.\nCopy DIR/secrets to give a second node the same keys."
    )]
    Init {
        /// Where to create it
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Serve an installation
    #[command(
        after_help = "Example:\n  bartizan serve --config /srv/bartizan/bartizan.toml\n\nSIGHUP or a changed file \
        reloads what can be reloaded and logs what cannot.\nSIGTERM and Ctrl-C let requests in flight finish; a second one \
        ends at once."
    )]
    Serve(Listen),
    /// Create an installation with a demo tenant when there is none, and serve it
    #[command(
        after_help = "Examples:\n  bartizan dev\n  bartizan dev --dir /tmp/try --listen 127.0.0.1:0 --json\n\nThe first start prints \
        the owner's e-mail and password once; later starts reuse everything.\nWith --json the first line of standard \
        output is {\"api\",\"ops\",\"tenant\",\"email\",\"password\"}."
    )]
    Dev {
        /// Where the installation is
        #[arg(long, value_name = "DIR", default_value = "bartizan-data")]
        dir: PathBuf,
        /// Where to listen
        #[command(flatten)]
        listen: Listen,
    },
    /// Look at the configuration
    Config {
        /// What to look at
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// List every route with who may call it
    #[command(
        after_help = "Example:\n  bartizan routes --json\n\nThe same table makes the OpenAPI document and the tests."
    )]
    Routes,
    /// Find out what is wrong, and how to mend it
    #[command(
        after_help = "Examples:\n  bartizan doctor\n  bartizan doctor --grade https://app.example.com\n  bartizan doctor --grade \
        https://127.0.0.1:8443 --ca ca.pem\n  bartizan doctor --accept-clock\n\n--grade gives the page's security headers a grade as the MDN HTTP \
        Observatory does, without telling anybody.\nExit code 1 when a check fails, or the grade is below B."
    )]
    Doctor {
        /// Grade the security headers of this page instead
        #[arg(long, value_name = "URL")]
        grade: Option<String>,
        /// Trust these certificate authorities (PEM) instead of the system's
        #[arg(long, value_name = "FILE", requires = "grade")]
        ca: Option<PathBuf>,
        /// Take this clock for right and forget an earlier one that was ahead, for which a start is refused
        ///
        /// No access token from before is believed any more, and sessions begun or renewed by the clock that was ahead end.
        /// Everybody else goes on with his refresh token. The server must not run.
        #[arg(long, conflicts_with = "grade")]
        accept_clock: bool,
    },
    /// Move an installation to where it can grow
    Migrate {
        /// From where to where
        #[command(subcommand)]
        verb: MigrateVerb,
    },
    /// Tenants of the running server
    Tenant {
        /// What to do
        #[command(subcommand)]
        verb: TenantVerb,
    },
    /// Users of the running server
    User {
        /// What to do
        #[command(subcommand)]
        verb: UserVerb,
    },
    /// Sessions of the running server
    Session {
        /// What to do
        #[command(subcommand)]
        verb: SessionVerb,
    },
    /// Networks that the running server turns away
    Block {
        /// What to do
        #[command(subcommand)]
        verb: BlockVerb,
    },
    /// The audit trail of the running server
    Audit {
        /// What to do
        #[command(subcommand)]
        verb: AuditVerb,
    },
    /// Print completions for a shell
    #[command(
        after_help = "Example:\n  bartizan completions bash > ~/.local/share/bash-completion/completions/bartizan"
    )]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Where to listen, in place of what the configuration says.
#[derive(Clone, Debug, Default, Args)]
pub struct Listen {
    /// Where the API listens, in place of `server.listen`; port 0 lets the system choose
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Where health and metrics listen, in place of `ops.listen`
    #[arg(long, value_name = "ADDR")]
    pub ops_listen: Option<SocketAddr>,
}

/// `migrate …`
#[derive(Debug, Subcommand)]
pub enum MigrateVerb {
    /// Move one machine's SQLite database and its counters to PostgreSQL and Redis, for many nodes
    #[command(
        after_help = "Example:\n  bartizan migrate embedded-to-cluster --config /srv/bartizan/bartizan.toml \\\n      --to \
        postgres://bartizan@db.example/bartizan --password-file /srv/bartizan/database-password \\\n      --state \
        redis://redis.example --state-password-file /srv/bartizan/redis-password\n\n\
        Stop the server first; its files are only read. The database must be empty. Cut short, however,\nrun it \
        again: it goes on where it stopped. In the end count and digest of every table are\ncompared on both sides, \
        every counter is looked for, and what to configure is printed. Everybody\nstays logged in, everything \
        revoked stays revoked, and whoever was limited or banned is so for\nthe rest of his time.\n\nWithout \
        --state, counters of requests and bans begin anew; run it again with --state to take\nthem along. Of what is \
        there and what comes the stricter stays."
    )]
    EmbeddedToCluster {
        /// The empty database, `postgres://USER@HOST/DATABASE`, with `?sslmode=…&sslrootcert=…` as in `database.url`
        #[arg(long, value_name = "URL")]
        to: String,
        /// The file of its user's password
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// Where the nodes will count, as in `state.url`: counters of limits and bans go there
        ///
        /// Whatever else `state.…` of the configuration says of it holds here too: user, prefix, certificates, the sentinels'
        /// password.
        #[arg(long, value_name = "URL")]
        state: Option<String>,
        /// The file of the password there
        #[arg(long, value_name = "FILE", requires = "state")]
        state_password_file: Option<PathBuf>,
    },
}

/// `config …`
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Print what is set, as a file that means the same
    #[command(
        after_help = "Example:\n  bartizan config print --effective\n\nSafe to share: no key of the configuration \
        holds a secret."
    )]
    Print {
        /// Print every key, each with who set it
        #[arg(long)]
        effective: bool,
    },
    /// Report every fault, each with its place and how to mend it
    #[command(
        after_help = "Example:\n  bartizan config check --config bartizan.toml && systemctl reload bartizan\n\nExit \
        code 3 when there is a fault."
    )]
    Check,
    /// Print the JSON Schema, for editors
    Schema,
    /// Print a file that explains every key
    Example,
    /// Print the reference page
    #[command(hide = true)]
    Reference,
    /// Print the reference page of the command line
    #[command(hide = true)]
    Cli,
}

/// `tenant …`
#[derive(Debug, Subcommand)]
pub enum TenantVerb {
    /// List all tenants
    Ls,
    /// Add a tenant with its owner
    #[command(after_help = "Examples:\n  bartizan tenant add acme --name 'Ada Lovelace' --email ada@acme.example\n  \
        pass show acme | bartizan tenant add acme --name Ada --email ada@acme.example --password-stdin\n\nWithout \
        --password-stdin a password is generated and printed once. Passwords are never taken from the command line,\nwhich \
        other users of the machine can read.")]
    Add {
        /// The tenant's short name, such as acme
        slug: String,
        /// The owner's name
        #[arg(long)]
        name: String,
        /// The owner's e-mail
        #[arg(long)]
        email: String,
        /// Where the password comes from
        #[command(flatten)]
        password: PasswordFrom,
    },
    /// Give a tenant another tier; acts on its next request
    #[command(after_help = "Example:\n  bartizan tenant set-tier acme pro")]
    SetTier {
        /// The tenant
        slug: String,
        /// Its new tier
        #[arg(value_parser = tier())]
        tier: Tier,
    },
    /// Suspend a tenant: nobody of it is let in from the next request on
    #[command(
        after_help = "Example:\n  bartizan tenant suspend acme\n\nNothing is deleted, and `tenant resume` lets it \
        work again. Sessions from before stay ended: everybody logs in anew."
    )]
    Suspend {
        /// The tenant
        slug: String,
    },
    /// Let a suspended tenant work again
    Resume {
        /// The tenant
        slug: String,
    },
}

/// Where a new password comes from.
#[derive(Clone, Copy, Debug, Args)]
pub struct PasswordFrom {
    /// Read the password from standard input (its first line) instead of generating one
    #[arg(long)]
    pub password_stdin: bool,
}

/// `user …`
#[derive(Debug, Subcommand)]
pub enum UserVerb {
    /// List the users of a tenant
    Ls {
        /// The tenant
        tenant: String,
    },
    /// Add a user
    #[command(after_help = "Example:\n  bartizan user add acme bob@acme.example --name 'Bob' --role auditor")]
    Add {
        /// The tenant
        tenant: String,
        /// The user's e-mail
        email: String,
        /// The user's name
        #[arg(long)]
        name: String,
        /// What the user may do
        #[arg(long, default_value = "member", value_parser = role())]
        role: Role,
        /// Where the password comes from
        #[command(flatten)]
        password: PasswordFrom,
    },
    /// Disable a user: all sessions end with the next request
    #[command(after_help = "Example:\n  bartizan user disable acme bob@acme.example")]
    Disable {
        /// The tenant
        tenant: String,
        /// Id or e-mail
        user: String,
    },
}

/// `session …`
#[derive(Debug, Subcommand)]
pub enum SessionVerb {
    /// List the live sessions of a user
    #[command(after_help = "Example:\n  bartizan session ls acme owner@acme.example")]
    Ls {
        /// The tenant
        tenant: String,
        /// Id or e-mail
        user: String,
    },
    /// End a session; its tokens are refused from the next request on
    #[command(after_help = "Example:\n  bartizan session revoke acme ses_0190…")]
    Revoke {
        /// The tenant
        tenant: String,
        /// The session's id
        session: String,
    },
}

/// `block …`
#[derive(Debug, Subcommand)]
pub enum BlockVerb {
    /// List the blocked networks
    Ls,
    /// Turn a network away before authentication
    #[command(after_help = "Example:\n  bartizan block add 203.0.113.0/24 --ttl 12h --reason 'credential stuffing'")]
    Add {
        /// Address or network
        #[arg(value_parser = network)]
        cidr: IpNet,
        /// For how long, such as 12h or 30d; left out: until it is removed
        #[arg(long, value_parser = ttl)]
        ttl: Option<Duration>,
        /// Why, for whoever finds it later
        #[arg(long)]
        reason: String,
    },
    /// Let a network in again
    Rm {
        /// The id that `block ls` shows
        id: String,
    },
}

/// `audit …`
#[derive(Debug, Subcommand)]
pub enum AuditVerb {
    /// Print the newest events, oldest first
    #[command(
        after_help = "Examples:\n  bartizan audit tail --follow\n  bartizan audit tail --limit 1000 --json | grep \
        '\"login.failed\"'\n\nWith --json one event a line. Reading it leaves a row of its own, `audit.read`."
    )]
    Tail {
        /// Go on printing what happens
        #[arg(long, short)]
        follow: bool,
        /// How many events
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Only what came after this sequence number
        #[arg(long, value_name = "SEQ")]
        after: Option<u64>,
    },
}

fn tier() -> impl TypedValueParser<Value = Tier> {
    PossibleValuesParser::new(Tier::ALL.iter().map(|tier| tier.as_str())).try_map(|word| word.parse::<Tier>())
}

fn role() -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(Role::ALL.iter().map(|role| role.as_str())).try_map(|word| word.parse::<Role>())
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<std::net::IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| address()).map_err(|_| "not an address or a network such as 203.0.113.0/24".into())
}

fn ttl(text: &str) -> Result<Duration, String> {
    // From a second to ten years.
    type Ttl = Span<1_000, 315_360_000_000>;
    Ttl::read(&Raw::Text(text.into())).map(|span| span.0).map_err(|wrong| format!("must be {wrong}"))
}

/// The reference page of the command line, `docs/cli.md`: every verb's help, as it is printed.
pub fn reference() -> String {
    let mut out = String::from(
        "# The command line\n\n<!-- Generated by `bartizan config cli`; a test keeps the two equal. -->\n\n\
         Verbs on a running server (`tenant`, `user`, `session`, `block`, `audit`) speak to it through the Unix socket\n\
         `admin.sock` in its data directory, which answers only the user that runs the server, and root.\n",
    );
    let mut root = Cli::command().term_width(100);
    root.build();
    describe(&mut root, "bartizan", &mut out);
    out
}

fn describe(command: &mut clap::Command, name: &str, out: &mut String) {
    let help = command.render_long_help().to_string();
    let help: Vec<_> = help.lines().map(str::trim_end).collect();
    out.push_str(&format!("\n## `{name}`\n\n```text\n{}\n```\n", help.join("\n").trim()));
    for sub in command.get_subcommands_mut() {
        if sub.get_name() != "help" && !sub.is_hide_set() {
            let name = format!("{name} {}", sub.get_name());
            describe(sub, &name, out);
        }
    }
}
