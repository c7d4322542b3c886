//! What is generated equals what is kept in the repository. Regenerate with the command that each message names.

use std::fs;
use std::path::Path;

use crate::{run, text};

#[track_caller]
fn kept(file: &str, verb: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
    let (exit, made, errors) = run(&["config", verb]);
    assert_eq!((exit, errors.as_str()), (0, ""));
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "{file} is out of date: bartizan config {verb} > {}", text(&path));
}

#[test]
fn the_example_file_is_the_generated_one() {
    kept("bartizan.example.toml", "example");
}

#[test]
fn the_reference_of_the_configuration_is_the_generated_one() {
    kept("docs/config.md", "reference");
}

#[test]
fn the_reference_of_the_command_line_is_the_generated_one() {
    kept("docs/cli.md", "cli");
}
