//! Rules about the source itself.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            all.push((path, text));
        }
    }
    all
}

fn ours() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let name = |path: &Path| path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
    sources(&root).into_iter().map(|(path, text)| (name(&path), text)).collect()
}

#[test]
fn no_statement_stands_outside_the_lists() {
    for (name, text) in ours() {
        if name == "sql.rs" || name == "db/tests.rs" {
            continue;
        }
        for call in ["scoped(\"", "global(\"", "platform(\"", "sql::scoped(", "sql::global(", "sql::platform("] {
            // In a list the kind of a platform statement is followed by its reason, which is not a call.
            let listed = if call == "platform(\"" { text.matches("\n    platform(\"").count() } else { 0 };
            assert_eq!(text.matches(call).count(), listed, "{name} makes a statement outside `statements!`");
        }
    }
}

#[test]
fn driver_is_spoken_to_by_the_facade_alone() {
    for (name, text) in ours() {
        let facade = name.starts_with("db/") || name == "value.rs" || name == "error.rs";
        assert!(facade || !text.contains("sqlx::"), "{name} speaks to the driver");
    }
}

#[test]
fn nobody_in_the_store_grants_a_tenants_scope() {
    for (name, text) in ours() {
        let test = name == "db/tests.rs";
        let granted = text.replace("PlatformScope::granted", "").contains("Scope::granted");
        assert!(test || !granted, "{name} grants a scope: only the guard does");
    }
}

/// Handlers run on any thread: every step of a change must be able to move.
#[test]
fn a_change_can_move_between_threads() {
    fn moves<T: Send>(_: T) {}
    #[allow(dead_code)]
    fn check(db: &bartizan_store::Db, scope: &bartizan_store::Scope, event: bartizan_core::audit::AuditEvent) {
        moves(async move {
            let mut tx = db.change(scope).await?;
            bartizan_store::tenants::own(&mut tx).await?;
            bartizan_store::users::count_active_owners(&mut tx).await?;
            tx.commit(event, ()).await
        });
        moves(db.prune(crate::world::NOW));
        moves(db.load_effects(crate::world::NOW));
    }
}
