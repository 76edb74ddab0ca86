//! What a finished job gives to the host's pipes (`metaframe` 5.8).
//!
//! Pure: contents that lie elsewhere are named, and the page fetches them. Values that JSON lacks (`undefined`)
//! are spelled out, since hosts see the difference.

use serde_json::{Map, Value};

use super::data_ref::{Content, DataRef, DataRefKind};
use super::queue::QueueAddress;
use super::settings::Settings;
use crate::ids::JobId;
use crate::javascript::{base64, text};
use crate::job::state::FinishReason;

/// The output that tells how the job went.
pub const RESULT_OUTPUT: &str = "job/result.json";

/// One `OutputsUpdate`, as far as it can be made without fetching.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outputs {
    pub ready: Vec<(String, OutputValue)>,
    /// Outputs whose content is to be fetched; each then becomes [`OutputValue::blob`].
    pub fetch: Vec<Fetch>,
}

/// Content of an output that lies elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    pub name: String,
    pub url: String,
}

/// A value for the host.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputValue {
    Plain(Value),
    /// An object all of whose keys are there; the value of some is `undefined`.
    Object(Vec<(&'static str, Option<Value>)>),
}

impl OutputValue {
    /// Bytes in the form that hosts turn into a `Blob`.
    #[must_use]
    pub fn blob(bytes: &[u8]) -> Self {
        Self::Object(vec![
            ("_s", Some(Value::Bool(true))),
            ("_c", Some(Value::from("Blob"))),
            ("value", Some(Value::from(base64::encode(bytes)))),
            ("size", Some(Value::from(bytes.len()))),
            ("fileType", None),
        ])
    }
}

/// The outputs of a finished job, as its address wishes them: `allowsetjob` adds [`RESULT_OUTPUT`], `resolverefs`
/// sends contents in place of references. `result` is the worker's, as it was passed on.
///
/// None for an ending without result: then nothing is sent.
#[must_use]
pub fn outputs(
    reason: FinishReason,
    result: Option<&Value>,
    queue: &QueueAddress,
    id: &JobId,
    settings: &Settings,
) -> Option<Outputs> {
    reason.as_result()?;
    let result = result?.as_object()?;
    let mut outputs = Outputs::default();
    for (name, entry) in result.get("outputs").and_then(Value::as_object).into_iter().flatten() {
        let reference = DataRef::try_from_entry(entry).map(|reference| by_address(reference, queue));
        let value = match reference {
            // What is no reference goes on as it is.
            None => OutputValue::Plain(entry.clone()),
            Some(reference) if settings.resolve_refs => match resolved(&reference) {
                Resolved::Value(value) => value,
                Resolved::At(url) => {
                    outputs.fetch.push(Fetch { name: name.clone(), url });
                    continue;
                }
            },
            Some(reference) if reference.kind == Some(DataRefKind::Url) => {
                OutputValue::Plain(referred(reference))
            }
            Some(_) => OutputValue::Plain(entry.clone()),
        };
        outputs.ready.push((name.clone(), value));
    }
    if settings.allow_set_job {
        outputs.ready.push((RESULT_OUTPUT.to_owned(), summary(result, queue.job(id))));
    }
    Some(outputs)
}

/// A key is an address at the relay.
fn by_address(reference: DataRef, queue: &QueueAddress) -> DataRef {
    match (reference.kind, reference.value.as_str()) {
        (Some(DataRefKind::Key), Some(key)) => {
            DataRef { hash: reference.hash, ..DataRef::url(queue.blob_key(key)) }
        }
        _ => reference,
    }
}

fn referred(reference: DataRef) -> Value {
    // A reference holds nothing that JSON lacks.
    serde_json::to_value(reference).unwrap_or_default()
}

enum Resolved {
    Value(OutputValue),
    At(String),
}

fn resolved(reference: &DataRef) -> Resolved {
    match reference.kind {
        None | Some(DataRefKind::Utf8 | DataRefKind::Json) => {
            Resolved::Value(OutputValue::Plain(reference.value.clone()))
        }
        Some(DataRefKind::Base64 | DataRefKind::Url | DataRefKind::Key) => match reference.content() {
            Ok(Content::Bytes(bytes)) => Resolved::Value(OutputValue::blob(&bytes)),
            Ok(Content::At(url)) => Resolved::At(url.into_owned()),
            // A reference that cannot be read is worth more than nothing.
            Ok(Content::Key(_)) | Err(_) => Resolved::Value(OutputValue::Plain(referred(reference.clone()))),
        },
    }
}

/// How the job went, for downstream frames.
fn summary(result: &Map<String, Value>, url: String) -> OutputValue {
    let lines = |of_stderr: bool| {
        let lines = result.get("logs").and_then(Value::as_array).into_iter().flatten();
        let lines = lines.filter_map(Value::as_array);
        let lines = lines.filter(|line| (line.get(2) == Some(&Value::Bool(true))) == of_stderr);
        Some(lines.map(|line| trimmed(line)).collect())
    };
    let field = |name: &str| result.get(name).filter(|value| !value.is_null()).cloned();
    OutputValue::Object(vec![
        ("stdout", lines(false)),
        ("stderr", lines(true)),
        ("statusCode", field("StatusCode")),
        ("error", field("error")),
        ("duration", field("duration")),
        ("isTimedOut", field("isTimedOut")),
        ("url", Some(Value::from(url))),
    ])
}

/// The line without white space at the end of its text.
fn trimmed(line: &[Value]) -> Value {
    let mut items = line.to_vec();
    if let Some(Value::String(line)) = items.first_mut() {
        line.truncate(text::trim_end(line).len());
    }
    Value::Array(items)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn send(reason: FinishReason, result: &Value, settings: &Settings) -> Option<Outputs> {
        let queue = QueueAddress::resolve("q", "https://page.example").unwrap();
        outputs(reason, Some(result), &queue, &JobId::new("j").unwrap(), settings)
    }

    #[test]
    fn an_ending_without_result_sends_nothing() {
        let settings = Settings::default();
        for reason in [FinishReason::Cancelled, FinishReason::Deleted, FinishReason::JobReplacedByClient] {
            assert_eq!(send(reason, &json!({"outputs": {}}), &settings), None);
        }
        assert_eq!(send(FinishReason::Success, &json!(null), &settings), None);
        assert_eq!(send(FinishReason::Error, &json!({}), &settings), Some(Outputs::default()));
    }

    #[test]
    fn resolved_blobs_hold_the_real_bytes_and_their_number() {
        let settings = Settings { resolve_refs: true, ..Settings::default() };
        let result = json!({"outputs": {
            "inline": {"type": "base64", "value": "aGk="},
            "in-url": {"type": "url", "value": "data:;base64,aGk="},
            "there": {"type": "key", "value": "k"},
            "broken": {"type": "base64", "value": "!"},
            "odd": 7,
        }});
        let outputs = send(FinishReason::Success, &result, &settings).unwrap();
        assert_eq!(
            outputs.ready,
            [
                ("inline".to_owned(), OutputValue::blob(b"hi")),
                ("in-url".to_owned(), OutputValue::blob(b"hi")),
                ("broken".to_owned(), OutputValue::Plain(json!({"value": "!", "type": "base64"}))),
                ("odd".to_owned(), OutputValue::Plain(json!(7))),
            ]
        );
        assert_eq!(outputs.fetch, [Fetch { name: "there".into(), url: "https://page.example/f/k".into() }]);
    }
}
