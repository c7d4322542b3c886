//! Commands that end by themselves.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use bartizan::clock::Clock;
use serde_json::Value;

use crate::{bartizan, note_last_seen, run, text, told};

#[test]
fn help_is_data_and_teaches() {
    let (exit, out, errors) = run(&["--help"]);
    assert_eq!((exit, errors.as_str()), (0, ""));
    insta::assert_snapshot!(out);
    assert_eq!(run(&["--version"]).1, format!("bartizan {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_exits_with_2_and_prints_nothing_on_standard_output() {
    for arguments in [
        &["serv"][..],
        &[],
        &["dev", "--config", "bartizan.toml"],
        &["tenant", "set-tier", "acme", "platinum"],
        &["block", "add", "::/129", "--reason", "x"],
        &["tenant", "add", "acme", "--name", "A", "--email", "a@b.example", "--password", "hunter2"],
    ] {
        let (exit, out, errors) = run(arguments);
        assert_eq!((exit, out.as_str()), (2, ""), "{arguments:?}");
        assert!(!errors.is_empty());
    }
}

#[test]
fn init_creates_everything_once_from_any_directory() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("größe mit leerzeichen");
    let (exit, out, _) = run(&["init", "--dir", text(&dir), "--json"]);
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((exit, value["config"].as_str()), (0, dir.join("bartizan.toml").to_str()));
    for name in ["", "bartizan.toml", "secrets", "data"] {
        assert_eq!(fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o077, 0, "{name}");
    }
    for secret in fs::read_dir(dir.join("secrets")).unwrap() {
        assert_eq!(secret.unwrap().metadata().unwrap().permissions().mode() & 0o177, 0);
    }
    let (exit, out, errors) = run(&["init", "--dir", text(&dir)]);
    assert_eq!((exit, out.as_str()), (1, ""));
    assert!(errors.contains("exists already; nothing was changed"), "{errors}");
    let (exit, out, errors) = run(&["config", "check", "--config", text(&dir.join("bartizan.toml"))]);
    assert_eq!((exit, out.as_str()), (0, ""), "{errors}");
}

#[test]
fn the_configuration_is_found_and_its_paths_do_not_depend_on_where_one_stands() {
    let temp = tempfile::tempdir().unwrap();
    run(&["init", "--dir", text(&temp.path().join("bartizan-data"))]);
    let here = told(bartizan(&["config", "print", "--json"]).current_dir(temp.path()).output().unwrap());
    let named = told(
        bartizan(&["config", "print", "--json"])
            .env("BARTIZAN_CONFIG", temp.path().join("bartizan-data/bartizan.toml"))
            .output()
            .unwrap(),
    );
    assert_eq!((here.0, &here.1), (0, &named.1));
    let value: Value = serde_json::from_str(&here.1).unwrap();
    assert_eq!(value["server"]["listen"], "127.0.0.1:8080");
}

#[test]
fn every_fault_of_the_configuration_is_reported_and_the_exit_is_3() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("bartizan.toml");
    fs::write(&file, "[server]\nlisten = 8080\n[pasword]\nmin_length = 20\n").unwrap();
    let mut command = bartizan(&["config", "check", "--config", text(&file)]);
    let (exit, out, errors) = told(command.env("BARTIZAN__LIMITS__BAN__AFTER", "never").output().unwrap());
    assert_eq!((exit, out.as_str()), (3, ""));
    for part in [
        "bartizan.toml:2:10",
        "^^^^",
        "bartizan.toml:3:2",
        "`[password]`",
        "BARTIZAN__LIMITS__BAN__AFTER",
        "3 faults to mend.",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    let (exit, out, _) = run(&["config", "check", "--json", "--config", text(&file)]);
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((exit, value["faults"].as_array().map(Vec::len)), (3, Some(2)));
    for verb in [&["serve"] as &[&str], &["tenant", "ls"], &["config", "print"], &["doctor"]] {
        assert_eq!(run(&[verb, &["--config", text(&file)]].concat()).0, 3, "{verb:?}");
    }
}

#[test]
fn a_missing_file_is_said_with_what_to_do() {
    let (exit, out, errors) = run(&["serve", "--config", "/nonexistent/bartizan.toml"]);
    assert_eq!((exit, out.as_str()), (3, ""));
    assert!(
        errors.contains("/nonexistent/bartizan.toml: cannot be read") && errors.contains("bartizan init"),
        "{errors}"
    );
}

#[test]
fn without_a_running_server_the_exit_is_4_and_says_how_to_start_one() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("d");
    run(&["init", "--dir", text(&dir)]);
    let (exit, out, errors) = run(&["tenant", "ls", "--config", text(&dir.join("bartizan.toml"))]);
    assert_eq!((exit, out.as_str()), (4, ""));
    assert!(errors.contains("bartizan serve"), "{errors}");
}

#[test]
fn the_schema_knows_every_table_and_completions_complete() {
    let schema: Value = serde_json::from_str(&run(&["config", "schema"]).1).unwrap();
    let tier = &schema["properties"]["limits"]["properties"]["tiers"]["properties"]["free"]["properties"]["per_minute"];
    assert_eq!(tier["type"], "integer");
    assert_eq!(schema["additionalProperties"], false);
    assert!(run(&["completions", "bash"]).1.contains("_bartizan"));
}

#[test]
fn the_doctor_examines_a_fresh_installation() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("d");
    run(&["init", "--dir", text(&dir)]);
    let file = dir.join("bartizan.toml");
    let doctor = |extra: &[&str]| {
        let mut command = bartizan(&[&["doctor", "--json", "--config", text(&file)], extra].concat());
        // Whatever else listens on this machine is not part of the test.
        command.env("BARTIZAN__SERVER__LISTEN", "127.0.0.1:0").env("BARTIZAN__OPS__LISTEN", "127.0.0.1:0");
        told(command.output().unwrap())
    };
    let outcome = |out: &str, check: &str| {
        let lines: Value = serde_json::from_str(out).unwrap();
        lines.as_array().unwrap().iter().find(|line| line["check"] == check).unwrap()["outcome"].clone()
    };
    let (_, out, errors) = doctor(&[]);
    for check in ["configuration", "secrets", "data", "clock", "server.listen", "transport"] {
        assert_eq!(outcome(&out, check), "ok", "{check}: {out} {errors}");
    }
    fs::set_permissions(dir.join("secrets"), fs::Permissions::from_mode(0o755)).unwrap();
    note_last_seen(&dir, Clock::system().now() + Duration::from_secs(7200));
    let (exit, out, _) = doctor(&[]);
    assert_eq!((exit, outcome(&out, "secrets"), outcome(&out, "clock")), (1, "fail".into(), "fail".into()));
}
