//! Data URLs and pipe values: `dataref.json`, and `pipe-values.json` where values are pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dockframe_shared::metaframe::data_ref::DataRef;
use dockframe_shared::metaframe::data_url::{self, BadContent, DataUrl, TypedArray};
use dockframe_shared::metaframe::inputs::{PipeValue, Staged, StagedFile};
use serde_json::{Map, Value, json};

use crate::{Differences, entries, is_undefined, load, text};

/// Entries of `dataref.json` that are not answered, by function and, where only one entry is meant, its input.
const NOT_ANSWERED: &[(&str, Option<&str>, &str)] = &[
    (
        "getMimeType",
        Some("data:text/plain,hello"),
        "the recorded reader needs a `;` (`metaframe` 4.2, quirk)",
    ),
    ("getMimeType", Some("data:,x"), "the same quirk"),
    ("getMimeType", Some("data:application/json,{\"a\":1}"), "the same quirk"),
    ("getMimeType", Some("data:nocomma"), "without a comma it is a plain text to us"),
    ("dataUrlToFile", Some("data:text/plain,hello"), "the same quirk in the file's type"),
    ("isDataUrl", Some("data:nocomma"), "without a comma it is a plain text to us"),
    (
        "isDataRef",
        None,
        "tells a third generation apart that pipes do not carry; ours is `DataRef::from_object`",
    ),
    ("dereferenceDataRefs", None, "the page does not decode what arrives (`metaframe` 1.9)"),
    ("deserializeDataRefs", None, "the page does not decode what arrives (`metaframe` 1.9)"),
    ("serializeDataRefs", None, "only top-level values are converted (`metaframe` 1.9)"),
    (
        "dataUrlToText",
        Some("data:text/x-uri;charset=utf-8,https%3A%2F%2Ffiles.example%2Fr"),
        "fetches the address",
    ),
    (
        "dataUrlToText",
        Some("data:text/x-uri;charset=utf-8,https%3A%2F%2Ffiles.example%2Fmissing"),
        "fetches the address",
    ),
];

fn bytes_of(value: &Value) -> Vec<u8> {
    // Of a view the whole buffer is encoded.
    let encoded = value.get("bufferBase64").unwrap_or(&value["$base64"]);
    STANDARD.decode(encoded.as_str().expect("base64")).expect("base64")
}

fn shown(kind: &str, bytes: &[u8]) -> Value {
    json!({"$type": kind, "$base64": STANDARD.encode(bytes)})
}

fn outcome<T: Into<Value>>(content: Result<T, BadContent>) -> Value {
    match content {
        Ok(value) => json!({ "output": value.into() }),
        Err(problem) => json!({ "throws": match problem {
            BadContent::Base64(_) => "InvalidCharacterError",
            BadContent::Percent(_) => "URIError",
            BadContent::Json(_) => "SyntaxError",
            BadContent::NoArray => "Error",
            BadContent::Length { .. } => "RangeError",
        }}),
    }
}

fn answer(function: &str, entry: &Value) -> Value {
    let input = &entry["input"][0];
    let first = input.as_str().unwrap_or_default();
    let Some(url) = DataUrl::parse(first) else { return without_url(function, entry) };
    match function {
        "dataUrlToText" => outcome(url.text()),
        "dataUrlToJson" => outcome(url.json()),
        "dataUrlToBuffer" => outcome(url.bytes().map(|bytes| shown("ArrayBuffer", &bytes))),
        "dataUrlToTypedArray" => outcome(url.typed_array().map(|(array, bytes)| shown(array.name(), &bytes))),
        "dataUrlToUrl" => outcome(url.url().map(|url| url.map_or(Value::Null, |url| json!(url)))),
        "isUrlDataUrl" => json!({ "output": url.is_url() }),
        "isDataUrl" => json!({ "output": true }),
        "getMimeType" => json!({ "output": url.media_type() }),
        "getParameters" => {
            let pairs = url.parameters().filter_map(|parameter| parameter.split_once('='));
            let pairs: Map<String, Value> =
                pairs.map(|(name, value)| (name.to_owned(), json!(value))).collect();
            json!({ "output": pairs })
        }
        // Name and type are in the value that the recording shows; what counts is the content.
        "dataUrlToFile" | "dataUrlToBlob" => match url.bytes() {
            Ok(bytes) => json!({"output": url.media_type(), "outputBytes": STANDARD.encode(bytes)}),
            Err(problem) => outcome::<Value>(Err(problem)),
        },
        // A text that happens to be a data URL.
        _ => without_url(function, entry),
    }
}

/// Functions that write, and those that read a text which is no data URL.
fn without_url(function: &str, entry: &Value) -> Value {
    let input = &entry["input"][0];
    let first = input.as_str().unwrap_or_default();
    let output = match function {
        "textToDataUrl" => json!(data_url::of_text(first)),
        "jsonToDataUrl" => json!(data_url::of_json(input)),
        "bufferToDataUrl" => json!(data_url::of_bytes("", &bytes_of(input))),
        "typedArrayToDataUrl" => {
            let array = TypedArray::named(entry["input"][1].as_str().expect("a name")).expect("an array");
            json!(data_url::of_typed_array(array, &bytes_of(input)))
        }
        "urlToDataUrl" => json!(data_url::of_url(first)),
        // The recording does not show their content, which is `hi`.
        "blobToDataUrl" => json!(data_url::of_bytes(text(input, "mime"), b"hi")),
        "fileToDataUrl" => json!(data_url::of_bytes("", b"hi")),
        "isDataUrl" => json!(false),
        "getMimeType" => json!("application/octet-stream"),
        "getParameters" => json!({}),
        "dataUrlToUrl" => Value::Null,
        "dataUrlToText" | "dataUrlToBuffer" => return json!({"throws": "Error"}),
        _ => panic!("{function} is neither answered nor named as not answered"),
    };
    json!({ "output": output })
}

#[test]
fn data_urls_are_read_and_written_as_by_the_library() {
    let mut differences = Differences::default();
    let mut answered = 0;
    let mut unused = NOT_ANSWERED.to_vec();
    for entry in entries(&load("dataref.json")["vectors"]) {
        let function = text(entry, "fn");
        let is_this = |(name, input, _): &(&str, Option<&str>, &str)| {
            *name == function && input.is_none_or(|input| entry["input"][0] == input)
        };
        unused.retain(|exception| !is_this(exception));
        if NOT_ANSWERED.iter().any(is_this) {
            continue;
        }
        let theirs = match entry.get("throws") {
            Some(name) => json!({ "throws": name }),
            None if entry.get("outputBytes").is_some() || function == "dataUrlToBlob" => {
                json!({"output": entry["output"]["mime"], "outputBytes": entry["outputBytes"]})
            }
            None => json!({ "output": entry["output"] }),
        };
        differences.check(format_args!("{function} {}", entry["input"]), &answer(function, entry), &theirs);
        answered += 1;
    }
    assert!(unused.is_empty(), "exceptions that match nothing: {unused:?}");
    assert!(answered >= 140, "only {answered} entries were answered");
}

/// What the library posts for a value, by our writers. None for what it leaves as it is.
fn serialized(value: &Value) -> Option<String> {
    let kind = value.get("$type")?.as_str()?;
    let media_type = || text(value, "mime");
    Some(match kind {
        "ArrayBuffer" => data_url::of_bytes("", &bytes_of(value)),
        "Blob" => data_url::of_blob(media_type(), &bytes_of(value)),
        "File" => {
            let modified = value["lastModified"].as_i64().expect("a time");
            data_url::of_file(text(value, "name"), media_type(), modified, &bytes_of(value))
        }
        // The library leaves these to the browser.
        "BigInt64Array" | "BigUint64Array" | "DataView" => return None,
        name => data_url::of_typed_array(TypedArray::named(name).expect("an array"), &bytes_of(value)),
    })
}

#[test]
fn pipe_values_are_written_as_by_the_library() {
    let mut differences = Differences::default();
    for entry in entries(&load("pipe-values.json")["vectors"]) {
        let (name, input) = (text(entry, "name"), &entry["input"]);
        if text(entry, "fn") != "serializeInputs" {
            continue;
        }
        if entry.get("throws").is_some() {
            // Large binary values are lost there; ours has no such limit.
            let bytes =
                vec![0; usize::try_from(input["byteLength"].as_u64().expect("a length")).expect("a length")];
            let url = data_url::of_blob("", &bytes);
            assert_eq!(DataUrl::parse(&url).expect("a data URL").bytes(), Ok(bytes), "{name}");
            continue;
        }
        // The recording shows the view, not its buffer.
        if name == "a view: the whole buffer is encoded" {
            continue;
        }
        let ours = serialized(input).map_or_else(|| input.clone(), Value::from);
        differences.check(name, &ours, &entry["output"]);
    }
}

/// The file that a job gets from a value as the host sends it: kind and value.
fn file(value: PipeValue) -> Value {
    match Staged::from(value).file {
        Some(StagedFile::Inline(DataRef { value, kind, .. })) => json!([kind, value]),
        other => panic!("{other:?} is not inline"),
    }
}

/// The library decodes on arrival and the page does not. Both ways must give the same file: that is what the
/// recorded decodings are good for here.
#[test]
fn a_value_gives_the_same_file_whether_the_host_decoded_it_or_not() {
    let mut differences = Differences::default();
    let mut answered = 0;
    for entry in entries(&load("pipe-values.json")["vectors"]) {
        if text(entry, "fn") != "deserializeInputs" || is_undefined(&entry["output"]) {
            continue;
        }
        let output = &entry["output"];
        let decoded = if output.get("$type").is_some() {
            file(PipeValue::Bytes(bytes_of(output)))
        } else {
            file(PipeValue::Json(output.clone()))
        };
        differences.check(text(entry, "name"), &file(PipeValue::Json(entry["input"].clone())), &decoded);
        answered += 1;
    }
    assert!(answered >= 20, "only {answered} entries were answered");
}
