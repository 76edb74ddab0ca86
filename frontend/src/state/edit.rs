//! Edits of a definition: exactly what the user changed is changed (`metaframe` 5.9).

use dockframe_shared::job::Definition;
use serde_json::{Map, Value};

/// Sets a field, or removes it when the text is empty: an empty text would be part of the id.
#[must_use]
pub fn with_text(definition: Option<&Definition>, field: &str, text: &str) -> Definition {
    with_value(definition, field, (!text.is_empty()).then(|| Value::from(text)))
}

/// Sets or removes a field.
#[must_use]
pub fn with_value(definition: Option<&Definition>, field: &str, value: Option<Value>) -> Definition {
    let mut fields = definition.cloned().unwrap_or_default().0;
    match value {
        Some(value) => fields.insert(field.to_owned(), value),
        None => fields.shift_remove(field),
    };
    Definition(fields)
}

/// Sets or removes a member of an object such as `requirements` or `env`; others stay, an empty object goes.
#[must_use]
pub fn with_member(
    definition: Option<&Definition>,
    object: &str,
    name: &str,
    value: Option<Value>,
) -> Definition {
    let mut members = match definition.and_then(|definition| definition.get(object)) {
        Some(Value::Object(members)) => members.clone(),
        _ => Map::new(),
    };
    match value {
        Some(value) => members.insert(name.to_owned(), value),
        None => members.shift_remove(name),
    };
    with_value(definition, object, (!members.is_empty()).then_some(Value::Object(members)))
}

/// `env` as lines of `KEY=VALUE`.
#[must_use]
pub fn env_lines(definition: Option<&Definition>) -> String {
    let Some(Value::Object(env)) = definition.and_then(|definition| definition.get("env")) else {
        return String::new();
    };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let lines: Vec<String> = env.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
    lines.join("\n")
}

/// Sets `env` from such lines: split at the first `=`, empty values are values, lines without a name are left out.
#[must_use]
pub fn with_env_lines(definition: Option<&Definition>, lines: &str) -> Definition {
    let mut env = Map::new();
    for line in lines.lines() {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        if !name.trim().is_empty() {
            env.insert(name.trim().to_owned(), Value::from(value));
        }
    }
    with_value(definition, "env", (!env.is_empty()).then_some(Value::Object(env)))
}

/// The image by name: `build` goes.
#[must_use]
pub fn with_image(definition: Option<&Definition>, image: &str) -> Definition {
    with_value(Some(&with_text(definition, "image", image.trim())), "build", None)
}

/// The image's name with the digest that ran in place of its tag; `None` when it names a digest already.
#[must_use]
pub fn pinned(image: &str, digest: &str) -> Option<String> {
    if image.is_empty() || image.contains('@') || !digest.starts_with("sha256:") {
        return None;
    }
    // A colon before the last slash is a registry's port.
    let path = image.rfind('/').map_or(0, |slash| slash + 1);
    let name = image[path..].find(':').map_or(image, |colon| &image[..path + colon]);
    Some(format!("{name}@{digest}"))
}

/// The image by building: `image` goes, members of `build` that the form does not know stay.
#[must_use]
pub fn with_build(definition: Option<&Definition>, fields: &[(&str, String)]) -> Definition {
    let mut changed = with_value(definition, "image", None);
    for (name, text) in fields {
        let text = text.trim_end();
        let value = match *name {
            "buildArgs" => {
                let list: Vec<Value> =
                    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(Value::from).collect();
                (!list.is_empty()).then_some(Value::Array(list))
            }
            _ => (!text.trim().is_empty()).then(|| Value::from(text)),
        };
        changed = with_member(Some(&changed), "build", name, value);
    }
    changed
}

/// One text of `build`; lists joined by commas.
#[must_use]
pub fn build_text(definition: Option<&Definition>, name: &str) -> String {
    let build = definition.and_then(|definition| definition.get("build"));
    match build.and_then(|build| build.get(name)) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        _ => String::new(),
    }
}

/// The names that a metaframe definition lists under `inputs` or `outputs`, with their types.
#[must_use]
pub fn pipes(definition: Option<&Map<String, Value>>, side: &str) -> Vec<(String, String)> {
    let Some(Value::Object(entries)) = definition.and_then(|definition| definition.get(side)) else {
        return Vec::new();
    };
    let kind = |entry: &Value| entry.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    entries.iter().map(|(name, entry)| (name.clone(), kind(entry))).collect()
}

/// Adds, changes or removes a pipe of a metaframe definition; `None` when nothing of it is left (`metaframe` 2.3).
/// Fields that the tab does not know stay.
#[must_use]
pub fn with_pipe(
    definition: Option<&Map<String, Value>>,
    side: &str,
    name: &str,
    kind: Option<&str>,
) -> Option<Map<String, Value>> {
    let mut fields = definition.cloned().unwrap_or_default();
    let mut entries = match fields.shift_remove(side) {
        Some(Value::Object(entries)) => entries,
        _ => Map::new(),
    };
    match kind {
        Some(kind) => {
            let mut entry = match entries.get(name) {
                Some(Value::Object(entry)) => entry.clone(),
                _ => Map::new(),
            };
            if kind.is_empty() {
                entry.shift_remove("type");
            } else {
                entry.insert("type".to_owned(), Value::from(kind));
            }
            entries.insert(name.to_owned(), Value::Object(entry));
        }
        None => {
            entries.shift_remove(name);
        }
    }
    if !entries.is_empty() {
        fields.insert(side.to_owned(), Value::Object(entries));
    }
    let own = ["version", "allow"];
    if fields.keys().all(|key| own.contains(&key.as_str())) {
        return None;
    }
    // Once a definition is in the address, the one of the server no longer counts, its `allow` neither.
    fields.insert("version".to_owned(), Value::from("2"));
    fields.entry("allow").or_insert_with(|| Value::from("clipboard-write"));
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(json: &str) -> Definition {
        serde_json::from_str(json).unwrap()
    }

    fn text(definition: &Definition) -> String {
        serde_json::to_string(definition).unwrap()
    }

    #[test]
    fn one_change_leaves_the_rest_alone() {
        let job = definition(r#"{"image":"a","x":1,"requirements":{"gpus":2,"memory":"4G"}}"#);
        let changed = with_member(Some(&job), "requirements", "gpus", None);
        assert_eq!(text(&changed), r#"{"image":"a","x":1,"requirements":{"memory":"4G"}}"#);
        let changed = with_member(Some(&changed), "requirements", "memory", None);
        assert_eq!(text(&changed), r#"{"image":"a","x":1}"#);
    }

    #[test]
    fn an_emptied_field_is_removed() {
        let job = definition(r#"{"image":"a","command":"b"}"#);
        assert_eq!(text(&with_text(Some(&job), "command", "")), r#"{"image":"a"}"#);
        assert_eq!(text(&with_text(None, "image", "z")), r#"{"image":"z"}"#);
    }

    #[test]
    fn env_lines_keep_equals_signs_and_empty_values() {
        let job = with_env_lines(None, "A=b=c\nEMPTY=\n\n=x\nBARE");
        assert_eq!(text(&job), r#"{"env":{"A":"b=c","EMPTY":"","BARE":""}}"#);
        assert_eq!(env_lines(Some(&job)), "A=b=c\nEMPTY=\nBARE=");
        assert_eq!(text(&with_env_lines(Some(&job), "")), "{}");
    }

    #[test]
    fn image_and_build_exclude_each_other() {
        let job = definition(r#"{"image":"a","command":"b"}"#);
        let fields = [
            ("dockerfile", "FROM x\n".to_owned()),
            ("buildArgs", "A=1, B=2,".to_owned()),
            ("target", String::new()),
        ];
        let built = with_build(Some(&job), &fields);
        assert_eq!(
            text(&built),
            r#"{"command":"b","build":{"dockerfile":"FROM x","buildArgs":["A=1","B=2"]}}"#
        );
        assert_eq!(build_text(Some(&built), "buildArgs"), "A=1, B=2");
        assert_eq!(text(&with_image(Some(&built), " z ")), r#"{"command":"b","image":"z"}"#);
    }

    #[test]
    fn a_pinned_image_has_the_digest_in_place_of_its_tag() {
        let pin = |image: &str| pinned(image, "sha256:ab");
        assert_eq!(pin("python:3.12").as_deref(), Some("python@sha256:ab"));
        assert_eq!(pin("localhost:5000/a/b").as_deref(), Some("localhost:5000/a/b@sha256:ab"));
        assert_eq!(pin("localhost:5000/a/b:1").as_deref(), Some("localhost:5000/a/b@sha256:ab"));
        assert_eq!(pin("a@sha256:cd"), None);
        assert_eq!(pinned("a", ""), None);
    }

    #[test]
    fn the_metaframe_definition_has_a_version_and_goes_when_empty() {
        let with = with_pipe(None, "inputs", "a.csv", Some("csv")).unwrap();
        let json = serde_json::to_string(&with).unwrap();
        assert_eq!(json, r#"{"inputs":{"a.csv":{"type":"csv"}},"version":"2","allow":"clipboard-write"}"#);
        assert_eq!(pipes(Some(&with), "inputs"), [("a.csv".to_owned(), "csv".to_owned())]);
        assert_eq!(with_pipe(Some(&with), "inputs", "a.csv", None), None);
        let mut more = with;
        more.insert("metadata".into(), Value::from("kept"));
        assert!(
            with_pipe(Some(&more), "inputs", "a.csv", None).is_some_and(|left| left.contains_key("metadata"))
        );
    }
}
