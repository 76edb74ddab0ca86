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
}
