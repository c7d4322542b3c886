//! What a server says about itself.

use std::collections::HashMap;

use redis::Value;

use super::address::{Kind, Server};
use super::error::{Refusal, UPGRADE, Unavailable};

/// The first version whose scripts may start with `#!lua`.
const OLDEST: u32 = 7;

/// The answer to `INFO`, by field.
#[derive(Debug, Default)]
pub(super) struct Info(HashMap<String, String>);

impl Info {
    /// Reads `field:value` lines; anything else is passed over.
    pub(super) fn parse(answer: &Value) -> Self {
        let text = match answer {
            Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.clone(),
            _ => String::new(),
        };
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Self(fields.map(|(field, value)| (field.to_owned(), value.trim().to_owned())).collect())
    }

    /// A field's text; empty when the server does not tell it.
    pub(super) fn text(&self, field: &str) -> &str {
        self.0.get(field).map_or("", String::as_str)
    }

    /// A field's number; 0 when there is none.
    pub(super) fn number(&self, field: &str) -> u64 {
        self.text(field).parse().unwrap_or(0)
    }

    /// Name and version, such as `Redis 7.2.4` or `Valkey 8.1.0`.
    pub(super) fn version(&self) -> String {
        match self.text("valkey_version") {
            "" => format!("Redis {}", self.text("redis_version")),
            version => format!("Valkey {version}"),
        }
    }

    /// Demands a primary of the expected kind that knows `#!lua`.
    ///
    /// # Errors
    /// [`Unavailable`]: what it is instead.
    pub(super) fn prove(&self, server: &Server, kind: Kind) -> Result<(), Unavailable> {
        // Valkey, too, tells here which Redis it is compatible with.
        let version = self.text("redis_version");
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_none_or(|major| major < OLDEST) {
            let found =
                if version.is_empty() { "a server that does not tell its version".into() } else { self.version() };
            return Err(Refusal::new(format!("{found} at {server} is too old"), UPGRADE).into());
        }
        let clustered = self.number("cluster_enabled") == 1;
        if clustered != (kind == Kind::Cluster) {
            return Err(if clustered {
                Refusal::new(format!("{server} is part of a cluster"), "write redis+cluster:// in state.url").into()
            } else {
                no_cluster(server)
            });
        }
        if self.number("loading") == 1 {
            return Err(Unavailable::Loading);
        }
        if self.text("role") != "master" {
            return Err(Unavailable::ReadOnly);
        }
        Ok(())
    }
}

/// What a server alone is told that was taken for a part of a cluster.
pub(super) fn no_cluster(server: &Server) -> Unavailable {
    let mend = "write redis:// or redis+sentinel:// in state.url";
    Refusal::new(format!("{server} is not part of a cluster"), mend).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prove(text: &str, kind: Kind) -> Result<(), Unavailable> {
        let server = Server { host: "h".into(), port: 1 };
        Info::parse(&Value::BulkString(text.as_bytes().to_vec())).prove(&server, kind)
    }

    #[test]
    fn only_a_primary_of_the_right_kind_and_age_is_proved() {
        let good = "# Server\r\nredis_version:7.0.15\r\nloading:0\r\nrole:master\r\ncluster_enabled:0\r\n";
        assert_eq!(prove(good, Kind::Single), Ok(()));
        assert_eq!(prove(&good.replace("master", "slave"), Kind::Sentinel), Err(Unavailable::ReadOnly));
        assert_eq!(prove(&good.replace("loading:0", "loading:1"), Kind::Single), Err(Unavailable::Loading));
        assert_eq!(prove(&good.replace("enabled:0", "enabled:1"), Kind::Cluster), Ok(()));
        for (text, kind, word) in [
            (good.to_owned(), Kind::Cluster, "not part of a cluster"),
            (good.replace("enabled:0", "enabled:1"), Kind::Single, "redis+cluster://"),
            (good.replace("7.0.15", "6.2.14"), Kind::Single, "Redis 6.2.14 at h:1 is too old"),
            (String::new(), Kind::Single, "does not tell its version"),
        ] {
            let Err(Unavailable::Refused(said)) = prove(&text, kind) else { panic!("{text}") };
            assert!(said.to_string().contains(word), "{said}");
        }
    }
}
