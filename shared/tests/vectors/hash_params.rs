//! Hash parameters: the entries of `hash-params.json` that take a hash apart, put it together, or read and write
//! texts, base64, JSON and booleans.

use dockframe_shared::metaframe::hash_params::{self, BadValue, HashParams};
use serde_json::{Value, json};
use url::Url;

use crate::{Differences, entries, is_undefined, load, text};

/// Functions of the recorded library that the page has no use for (`metaframe` 3.3).
const NOT_OURS: [(&str, &str); 9] = [
    ("createHashParamValuesInHashString", "several keys at once"),
    ("setHashParamsInUrl", "several keys at once"),
    ("getHashParamValueFloatFromUrl", "numbers"),
    ("getHashParamValueIntFromUrl", "numbers"),
    ("setHashParamValueFloatInUrl", "numbers"),
    ("setHashParamValueIntInUrl", "numbers"),
    ("setHashParamValueUriEncodedInUrl", "URI-encoded texts"),
    ("getHashParamValueUriDecodedFromUrl", "URI-encoded texts"),
    ("getHashParamValueFloatFromHashString", "numbers"),
];

fn hash_of(url: &str) -> String {
    Url::parse(url).expect("a URL").fragment().unwrap_or_default().to_owned()
}

fn with_hash(url: &str, edit: impl FnOnce(&mut HashParams)) -> Value {
    let mut url = Url::parse(url).expect("a URL");
    let mut params = HashParams::parse(url.fragment().unwrap_or_default());
    edit(&mut params);
    let hash = params.to_string();
    url.set_fragment((!hash.is_empty()).then_some(hash.trim_start_matches('#')));
    json!(url.as_str())
}

fn parts(params: &HashParams) -> Value {
    let values: serde_json::Map<String, Value> =
        params.iter().map(|(key, value)| (key.to_owned(), json!(value))).collect();
    json!([params.prefix(), values])
}

fn thrown(problem: &BadValue) -> Value {
    let name = match problem {
        BadValue::Base64(_) => "InvalidCharacterError",
        BadValue::Percent(_) => "URIError",
        BadValue::Json(_) => "SyntaxError",
        BadValue::Shape(_) => "TypeError",
    };
    json!({ "throws": name })
}

fn outcome<T: Into<Value>>(result: Result<Option<T>, BadValue>) -> Value {
    match result {
        Ok(Some(value)) => json!({ "output": value.into() }),
        Ok(None) => json!({ "output": {"$undefined": true} }),
        Err(problem) => thrown(&problem),
    }
}

/// The recorded stand-ins for values that JSON lacks.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) if fields.contains_key("$negativeZero") => json!(-0.0),
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !is_undefined(value))
            .map(|(key, value)| (key.clone(), plain(value)))
            .collect(),
        Value::Array(items) => items.iter().map(plain).collect(),
        other => other.clone(),
    }
}

fn answer(function: &str, input: &[Value]) -> Value {
    let first = input[0].as_str().unwrap_or_default();
    let key = input.get(1).and_then(Value::as_str).unwrap_or_default();
    let output = match function {
        "getUrlHashParamsFromHashString" => parts(&HashParams::parse(first)),
        "getUrlHashParams" => parts(&HashParams::parse(&hash_of(first))),
        "getHashParamValue" => match HashParams::parse(&hash_of(first)).get(key) {
            Some(value) => json!(value),
            None => json!({"$undefined": true}),
        },
        "setHashParamValueInHashString" => {
            let mut params = HashParams::parse(first);
            params.set(key, input[2].as_str());
            json!(params.to_string())
        }
        "setHashParamValueInUrl" => with_hash(first, |params| _ = params.set(key, input[2].as_str())),
        "deleteHashParamFromUrl" => with_hash(first, |params| _ = params.set(key, None)),
        "stringToBase64String" => json!(hash_params::encode_text(first)),
        "stringFromBase64String" => return outcome(hash_params::decode_text(first).map(Some)),
        "blobToBase64String" => json!(hash_params::encode_json(&plain(&input[0]))),
        // Missing and empty are none only as parameters.
        "blobFromBase64String" if first.is_empty() => json!({"$undefined": true}),
        "blobFromBase64String" => return outcome(hash_params::decode_json(first).map(Some)),
        "setHashParamValueJsonInHashString" => {
            let mut params = HashParams::parse(first);
            let value = if is_undefined(&input[2]) { Value::Null } else { input[2].clone() };
            params.set_json(key, &value);
            json!(params.to_string())
        }
        "setHashParamValueJsonInUrl" => with_hash(first, |params| _ = params.set_json(key, &input[2])),
        "getHashParamValueJsonFromUrl" => return outcome(HashParams::parse(&hash_of(first)).json(key)),
        "getHashParamValueJsonFromHashString" => return outcome(HashParams::parse(first).json(key)),
        "getHashParamValueBooleanFromUrl" => json!(HashParams::parse(&hash_of(first)).boolean(key)),
        "setHashParamValueBooleanInUrl" => {
            with_hash(first, |params| _ = params.set_boolean(key, input[2] == json!(true)))
        }
        "setHashParamValueBase64EncodedInUrl" => {
            with_hash(first, |params| _ = params.set_base64(key, input[2].as_str().unwrap_or_default()))
        }
        "getHashParamValueBase64DecodedFromUrl" => {
            return outcome(HashParams::parse(&hash_of(first)).base64(key));
        }
        _ => panic!("{function} is neither answered nor named as not ours"),
    };
    json!({ "output": output })
}

#[test]
fn hashes_are_read_and_written_as_by_the_library() {
    let mut differences = Differences::default();
    let mut answered = 0;
    for entry in entries(&load("hash-params.json")["vectors"]) {
        let function = text(entry, "fn");
        if NOT_OURS.iter().any(|(name, _)| *name == function) {
            continue;
        }
        let input = entry["input"].as_array().expect("arguments");
        // Deleting by `null` a key that is not there makes the library throw; our callers have no `null`.
        if entry["throws"] == "TypeError" && input.get(2) == Some(&Value::Null) {
            continue;
        }
        let theirs = match entry.get("throws") {
            Some(name) => json!({ "throws": name }),
            None => json!({ "output": entry["output"] }),
        };
        differences.check(format_args!("{function} {:?}", entry["input"]), &answer(function, input), &theirs);
        answered += 1;
    }
    assert!(answered > 130, "only {answered} entries were answered");
}
