//! What came of a run, as workers send it and pages read it (`jobs-and-states` 1.3, `worker` 13).

use std::collections::BTreeMap;

use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::metaframe::data_ref::DataRef;
use crate::number::Amount;
use crate::time::Timestamp;

/// The result of a run. Readers take missing `isTimedOut` and `outputs` as `false` and empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobResult {
    /// Exit code; absent when the container never ran.
    #[serde(rename = "StatusCode", skip_serializing_if = "Option::is_none")]
    pub status_code: Option<i64>,
    pub logs: Vec<LogLine>,
    /// Milliseconds from just after the container's start to its exit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<Amount>,
    /// A text, or what the Engine said: `{statusCode, json: {message}}`. Absent when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Value>,
    pub is_timed_out: bool,
    /// File name to content. Of those that came, the ones that can be read: other workers know other kinds.
    #[serde(deserialize_with = "readable")]
    pub outputs: BTreeMap<String, DataRef>,
    /// The kernel ended it for want of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_killed: Option<bool>,
    /// Where the whole log is, when it was too long to be inline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs_url: Option<String>,
    /// Milliseconds of each phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phases: Option<BTreeMap<String, Amount>>,
    /// Digest of the image that ran, `sha256:…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// The digest is the image's own id: it was made on the worker's machine, and no registry has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_is_local: Option<bool>,
    /// Such as `linux/amd64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_version: Option<String>,
    /// Files in `/outputs` that are no outputs, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outputs_skipped: Option<Vec<SkippedOutput>>,
}

/// One output that means nothing here costs neither the others nor the result.
fn readable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, DataRef>, D::Error> {
    let all = Option::<BTreeMap<String, Value>>::deserialize(deserializer)?.unwrap_or_default();
    let known = |(name, value)| Some((name, serde_json::from_value(value).ok()?));
    Ok(all.into_iter().filter_map(known).collect())
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedOutput {
    pub name: String,
    pub why: String,
}

/// A piece of output: `[text, time]`, or `[text, time, true]` from stderr. It may hold several lines, or part of
/// one; newlines are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub text: String,
    pub time: Timestamp,
    pub is_stderr: bool,
}

impl Serialize for LogLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut items = serializer.serialize_seq(Some(if self.is_stderr { 3 } else { 2 }))?;
        items.serialize_element(&self.text)?;
        items.serialize_element(&self.time)?;
        if self.is_stderr {
            items.serialize_element(&true)?;
        }
        items.end()
    }
}

impl<'de> Deserialize<'de> for LogLine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;
        impl<'de> Visitor<'de> for Items {
            type Value = LogLine;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a log line: [text, time] or [text, time, isStderr]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<LogLine, A::Error> {
                let text = items.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
                let time = items.next_element()?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
                let is_stderr = items.next_element::<Option<bool>>()?.flatten().unwrap_or(false);
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(LogLine { text, time, is_stderr })
            }
        }
        deserializer.deserialize_seq(Items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_have_two_or_three_items() {
        for text in [r#"["hi\n",7]"#, r#"["hi\n",7,true]"#] {
            let line: LogLine = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&line).unwrap(), text);
        }
        assert_eq!(
            serde_json::from_str::<LogLine>(r#"["x",7,false,"more"]"#).unwrap(),
            LogLine { text: "x".into(), time: Timestamp::from_millis(7), is_stderr: false }
        );
        assert!(serde_json::from_str::<LogLine>(r#"["x"]"#).is_err());
        assert!(serde_json::from_str::<LogLine>("7").is_err());
    }

    #[test]
    fn an_old_workers_error_is_read() {
        let result: JobResult = serde_json::from_str(r#"{"error":"no such input","logs":[]}"#).unwrap();
        assert_eq!((result.is_timed_out, result.outputs.len()), (false, 0));
    }

    #[test]
    fn an_output_of_an_unknown_kind_costs_no_other() {
        let text = r#"{"StatusCode":0,"outputs":{"a":{"type":"torrent","value":"x"},"b":{"type":"utf8","value":"hi"},
                       "c":7}}"#;
        let result: JobResult = serde_json::from_str(text).unwrap();
        assert_eq!(result.status_code, Some(0));
        assert_eq!(result.outputs, BTreeMap::from([("b".to_owned(), DataRef::utf8("hi"))]));
        let none: JobResult = serde_json::from_str(r#"{"outputs":null}"#).unwrap();
        assert!(none.outputs.is_empty());
    }
}
