use std::ffi::OsString;
use std::path::PathBuf;

use super::*;

fn sources(environment: &[(&str, &str)]) -> Sources {
    let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect();
    Sources { file: PathBuf::from("/etc/bartizan/bartizan.toml"), environment, flags: Vec::new() }
}

fn read(text: &str) -> Result<Config, Faults> {
    sources(&[]).read_text(text)
}

fn faults(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

#[test]
fn a_reload_leaves_what_waits_for_a_restart_as_it_is() {
    let read = |text: &str| read(text).unwrap();
    let old = read("[password]\nmin_length = 15\n[tokens]\naudience = \"a\"\n");
    let new = read("[password]\nmin_length = 8\n[tokens]\naudience = \"b\"\n[limits.address]\nper_minute = 7\n");
    let next = old.with_live_of(&new).settings();
    assert_eq!((next.password.min_length, next.tokens.audience.as_str()), (15, "a"));
    assert_eq!(next.limits.address.count, 7);
}

#[test]
fn an_empty_file_means_the_library_defaults() {
    let settings = read("").unwrap().settings();
    let mut expected = Settings::embedded("/etc/bartizan");
    expected.tokens.issuer = "http://127.0.0.1:8080".into();
    assert_eq!(format!("{settings:#?}"), format!("{expected:#?}"));
}

#[test]
fn every_fault_is_reported_at_once_with_place_and_hint() {
    let text = "[server]\nlisten = \"localhost\"\nheader_timout = \"5s\"\n\n[limits.tiers.free]\nper_minute = 0\n\n[limit.ban]\nafter = 3\n\n\
                [ops]\nlisten = \"0.0.0.0:9090\"\n\n[cors]\norigins = [\"https://*.example.com\"]\n\n[database]\nurl = \"postgres://app:tower@db/app\"\n";
    let found = sources(&[("BARTIZAN__LIMITS__TIERS__FREE__PER_MINUT", "5"), ("BARTIZAN__TOKENS__ACCESS", "1d")])
        .read_text(text)
        .unwrap_err();
    insta::assert_snapshot!(found.render());
    assert!(!found.render().contains("tower"));
}

#[test]
fn a_syntax_error_is_shown_where_it_is() {
    let text = "[server]\nlisten = 127.0.0.1:8080\n";
    let found = read(text).unwrap_err();
    assert!(found.place(&found.list()[0]).starts_with("/etc/bartizan/bartizan.toml:2:"), "{found}");
    assert!(faults("[server\n").contains(":1:"));
    assert!(faults("[server]\nlisten = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"\n").contains(":3:"));
}

#[test]
fn the_environment_overrides_the_file_and_flags_override_both() {
    let mut sources = sources(&[
        ("BARTIZAN__LIMITS__TIERS__FREE__PER_MINUTE", "7"),
        ("BARTIZAN__SERVER__LISTEN", "127.0.0.1:2"),
        ("BARTIZAN__PROXIES__TRUSTED", "10.0.0.0/8, ::1"),
        ("HOME", "/root"),
    ]);
    sources.flags = vec![Flag { flag: "--listen", key: "server.listen", value: "127.0.0.1:3".into() }];
    let config = sources
        .read_text("[server]\nlisten = \"127.0.0.1:1\"\n[limits.tiers.free]\nper_minute = 5\ntenant_per_minute = 9\n")
        .unwrap();
    assert_eq!(config.keys.server.listen.port(), 3);
    let limits = config.settings().limits.tiers[&Tier::Free];
    assert_eq!((limits.user.count, limits.user.burst, limits.tenant.count), (7, 7, 9));
    assert_eq!(config.settings().proxies.len(), 2);
    insta::assert_snapshot!(print(&config, Extent::Set));
}

#[test]
fn a_variable_in_the_wrong_spelling_is_named_with_the_right_one() {
    let found = sources(&[("BARTIZAN__server__listen", "127.0.0.1:1")]).read_text("").unwrap_err();
    assert_eq!(found.to_string(), "environment variable BARTIZAN__server__listen: sets no known key\n");
    assert_eq!(found.list()[0].hint.as_deref(), Some("Did you mean BARTIZAN__SERVER__LISTEN?"));
}

#[test]
fn what_is_printed_reads_back_as_the_same_configuration() {
    let text = "[server]\nlisten = \"[::1]:1\"\npublic_url = \"https://api.example.com\"\n[cors]\norigins = [\"https://a.example\"]\n\
                [server.tls]\ncert = \"zertifikat \\\"ü\\\".pem\"\nkey = 'k\\ey.pem'\n[log]\nlevel = \"debug\"\n";
    let config = read(text).unwrap();
    for extent in [Extent::Set, Extent::Effective] {
        let again = read(&print(&config, extent)).unwrap();
        assert_eq!(again.keys, config.keys);
    }
}

#[test]
fn defaults_in_full() {
    insta::assert_snapshot!(print(&read("").unwrap(), Extent::Effective));
}

#[test]
fn rules_between_keys() {
    for (text, part) in [
        ("[server.tls]\ncert = \"c.pem\"\n", "needs `server.tls.key`"),
        ("[server.tls]\nkey = \"k.pem\"\n", "needs `server.tls.cert`"),
        ("[ops]\nlisten = \"0.0.0.0:9090\"\n", "without asking who they are"),
        ("[ops]\nlisten = \"127.0.0.1:8080\"\n", "same as `server.listen`"),
        ("[cors]\ncredentials = true\n", "needs `cors.origins`"),
        ("[cors]\ncredentials = true\norigins = [\"http://app.example.com\"]\n", "without TLS"),
        ("[cors]\ncredentials = true\norigins = [\"http://localhost.evil.example\"]\n", "without TLS"),
        ("[cors]\norigins = [\"*\"]\n", "without wildcards"),
        ("[cors]\norigins = [\"null\"]\n", "without wildcards"),
        ("[proxies]\ntrusted = [\"0.0.0.0/0\"]\n", "whole internet"),
        ("[tokens]\nrefresh_idle = \"100d\"\n", "longer than"),
        ("[server]\nlisten.port = 3\n", "is a key, not a table"),
        ("server = 3\n", "is a table, not a key"),
        ("[password]\nmin_length = 7\n", "from 8 to 64"),
    ] {
        let found = faults(text);
        assert!(found.contains(part) && found.lines().count() == 1, "{text}: {found}");
    }
    read("[ops]\nlisten = \"0.0.0.0:9090\"\ndanger_public = true\n").unwrap();
    read("[cors]\ncredentials = true\norigins = [\"http://localhost:3000\"]\n").unwrap();
}

#[test]
fn unknown_names_are_answered_with_the_nearest_known_one() {
    for (path, hint) in [
        ("server.listn", "Did you mean `server.listen`?"),
        ("server.per_minute", "Did you mean `limits.tiers.free.per_minute`?"),
        ("limits.tier", "Did you mean the table `[limits.tiers]`?"),
        ("limts", "Did you mean the table `[limits]`?"),
        ("ops.colour_of_the_door", "`[ops]` has: listen, danger_public."),
    ] {
        assert_eq!(nearest::hint(path).as_deref(), Some(hint), "{path}");
    }
}

#[test]
fn a_key_for_a_secret_does_not_exist() {
    for key in keys::all() {
        let name = key.path.rsplit('.').next().unwrap();
        assert!(!["secret", "passphrase", "token", "pepper"].contains(&name), "{}", key.path);
    }
    assert!(faults("[secrets]\npepper = \"hunter2hunter2\"\n").contains("unknown key"));
    assert!(!read("[secrets]\npepper = \"hunter2hunter2\"\n").unwrap_err().render().contains("hunter2"));
}

#[test]
fn a_file_saved_by_any_editor_is_read() {
    for text in [
        "\u{feff}[limits.ban]\nafter = 3\n",
        "[limits.ban]\r\nafter = 3\r\n",
        "limits.ban.after = 3",
        "limits = { ban = { after = 3 } }",
    ] {
        assert_eq!(read(text).unwrap().keys.ban.after.0, 3, "{text:?}");
    }
    let found = read("\u{feff}\r\nlimits.ban.aftr = 3\r\n").unwrap_err();
    assert_eq!(found.place(&found.list()[0]), "/etc/bartizan/bartizan.toml:2:12");
}

#[test]
fn every_secret_can_come_from_a_file_of_its_own() {
    let config = read("[secrets]\nroot_key_file = \"/run/secrets/root\"\npassword_pepper_file = \"pepper\"\n").unwrap();
    let source = config.secret_source();
    let named: Vec<_> =
        bartizan_keys::SecretKind::ALL.iter().filter_map(|kind| source.overrides.get(kind.file())).collect();
    assert_eq!(named, [&PathBuf::from("/run/secrets/root"), &PathBuf::from("/etc/bartizan/pepper")]);
}

#[test]
fn every_key_has_a_default_that_is_acceptable_and_a_doc_that_ends_a_sentence() {
    for key in keys::all() {
        assert!(document::one_line(key.doc).ends_with('.'), "{}", key.path);
        assert!(key.default.is_empty() || (key.default_toml)(key.default).is_some(), "{}", key.path);
    }
}

#[test]
fn the_example_changes_nothing_and_its_commented_keys_are_the_defaults() {
    assert_eq!(read(&example()).unwrap().keys, read("").unwrap().keys);
    let uncommented: String = example()
        .lines()
        .filter(|line| !line.contains("tls/") && !line.contains("/run/secrets") && !line.contains("api.example.com"))
        .map(|line| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).unwrap_or(line).to_owned() + "\n")
        .collect();
    read(&uncommented).unwrap();
    read(&initial()).unwrap();
}

#[test]
fn only_keys_that_need_a_restart_are_named_after_a_reload() {
    let old = read("").unwrap();
    let new = read("[server]\nlisten = \"127.0.0.1:1\"\n[limits.ban]\nafter = 3\n").unwrap();
    assert_eq!(new.needs_restart(&old), ["server.listen"]);
    assert!(old.needs_restart(&old).is_empty());
}

proptest::proptest! {
    #[test]
    fn no_file_makes_the_reader_panic(text in "\\PC{0,200}", lines in "([a-z.\\[\\]=\" 0-9\\n]{0,30}\\n){0,8}") {
        for text in [text, lines] {
            if let Err(found) = read(&text) {
                let _ = found.render();
            }
        }
    }
}
