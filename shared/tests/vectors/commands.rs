//! Command texts to arguments: `command-argv.json`, `command-argv-fuzz.json`.

use dockframe_shared::command::parse;
use serde_json::{Map, Value, json};

use crate::{Differences, entries, load, text};

/// The recorded rule around the splitting: an empty text is no command, a list is passed through.
fn argv(command: &Value, env: &Map<String, Value>) -> Value {
    match command {
        Value::String(text) if text.is_empty() => json!({ "argv": null }),
        Value::String(text) => match parse(text, env) {
            Ok(argv) => json!({"argv": argv.args, "whole": argv.taken_whole.is_some()}),
            Err(error) => json!({ "error": error.to_string() }),
        },
        other => json!({ "argv": other }),
    }
}

#[test]
fn commands_are_split_as_by_the_library() {
    let vectors = load("command-argv.json");
    let mut differences = Differences::default();
    for entry in entries(&vectors["vectors"]) {
        let env = match &entry["env"] {
            Value::String(name) => vectors["environments"][name].as_object().expect("an environment").clone(),
            Value::Object(own) => own.clone(),
            _ => Map::new(),
        };
        let theirs = match (entry.get("error"), &entry["parsed_has_operator"]) {
            (Some(error), _) => json!({ "error": error }),
            (None, Value::Bool(whole)) if entry["command"] != "" => {
                json!({"argv": entry["argv"], "whole": whole})
            }
            _ => json!({ "argv": entry["argv"] }),
        };
        differences.check(&entry["command"], &argv(&entry["command"], &env), &theirs);
    }
}

#[test]
fn random_commands_are_split_as_by_the_library() {
    let vectors = load("command-argv-fuzz.json");
    let env = vectors["env"].as_object().expect("an environment");
    let mut differences = Differences::default();
    for entry in entries(&vectors["vectors"]) {
        let command = text(entry, "command");
        let theirs = match entry.get("error") {
            Some(error) => json!({ "error": error }),
            None => json!({ "argv": entry["argv"] }),
        };
        let ours = match parse(command, env) {
            Ok(argv) => json!({ "argv": argv.args }),
            Err(error) => json!({ "error": error.to_string() }),
        };
        differences.check(format_args!("{command:?}"), &ours, &theirs);
    }
}
