//! What the host's pipes bring becomes files of the job (`metaframe` 5.5), and large files are set aside to be
//! uploaded (4.1).
//!
//! Each value is staged once, when it arrives. Where large content will be is not known here: it depends on the
//! queue, which may change while the inputs stay ([`super::job_url`]).

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::data_ref::{BadDataRef, Content, DataRef, DataRefKind};
use crate::ids::ContentHash;
use crate::javascript::uri::MalformedPercent;
use crate::javascript::{base64, json, text};

/// Longest content that stays inside the job, in UTF-16 units of its text, its JSON or its base64.
pub const INLINE_MAX: usize = 200;

/// A value as it came from the host, freed of the browser's types.
#[derive(Debug, Clone, PartialEq)]
pub enum PipeValue {
    /// Text, number, boolean, `null`, object or list.
    Json(Value),
    /// The bytes of a typed array, `ArrayBuffer`, `DataView`, `Blob` or `File`.
    Bytes(Vec<u8>),
    /// Something that cannot be a file, such as a `bigint`: what it is, in a word.
    Unusable(&'static str),
}

/// A file of the job, before it is known where large content goes.
#[derive(Debug, Clone, PartialEq)]
pub enum StagedFile {
    Inline(DataRef),
    Large(Blob),
}

/// Content and its name. Cheap to clone; `Debug` does not show the content.
#[derive(Clone, PartialEq, Eq)]
pub struct Blob {
    pub hash: ContentHash,
    pub bytes: Arc<[u8]>,
}

impl Blob {
    #[must_use]
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        Self { hash: ContentHash::of(&bytes), bytes }
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({}, {} bytes)", self.hash, self.bytes.len())
    }
}

/// What is wrong with one input. It is said at that input, and never holds up the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputProblem {
    /// The text is used as it stands.
    #[error("looks like a data URL but cannot be decoded, so the job gets the text as it stands: {0}")]
    KeptAsText(#[from] MalformedPercent),
    #[error("left out of the job: {0}")]
    Bad(#[from] BadDataRef),
    #[error("left out of the job: a {0} cannot be made a file (send a text, JSON or binary data)")]
    Unusable(&'static str),
    #[error("left out of the job: a file needs a name")]
    NoName,
}

/// One value, staged: its file if it gives one, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Staged {
    /// None for `null`, and for what cannot be a file.
    pub file: Option<StagedFile>,
    pub problem: Option<InputProblem>,
}

impl Staged {
    fn of(reference: DataRef) -> Self {
        match stage(reference) {
            Ok(file) => Self { file: Some(file), problem: None },
            Err(problem) => Self { file: None, problem: Some(problem.into()) },
        }
    }
}

impl From<PipeValue> for Staged {
    fn from(value: PipeValue) -> Self {
        match value {
            PipeValue::Bytes(bytes) if base64::encoded_length(bytes.len()) > INLINE_MAX => {
                Self { file: Some(StagedFile::Large(Blob::new(bytes))), problem: None }
            }
            PipeValue::Bytes(bytes) => Self::of(DataRef::of_bytes(&bytes)),
            PipeValue::Unusable(what) => Self { file: None, problem: Some(InputProblem::Unusable(what)) },
            PipeValue::Json(Value::Null) => Self::default(),
            PipeValue::Json(Value::String(text)) => match DataRef::from_data_url(&text) {
                Ok(Some(reference)) => Self::of(reference),
                Ok(None) => Self::of(DataRef::utf8(text)),
                Err(problem) => Self { problem: Some(problem.into()), ..Self::of(DataRef::utf8(text)) },
            },
            PipeValue::Json(number @ Value::Number(_)) => {
                Self::of(DataRef::utf8(json::to_text(&number).unwrap_or_default()))
            }
            PipeValue::Json(Value::Object(object)) => Self::of(match DataRef::from_object(&object) {
                Some(reference) => reference,
                None => DataRef::json(Value::Object(object)),
            }),
            PipeValue::Json(value @ (Value::Bool(_) | Value::Array(_))) => Self::of(DataRef::json(value)),
        }
    }
}

/// The name of the file that a pipe gives: one leading `/` removed.
#[must_use]
pub fn file_name(pipe: &str) -> &str {
    pipe.strip_prefix('/').unwrap_or(pipe)
}

/// Sets content aside that is too long to stay inside the job. Addresses and keys stay, whatever their length.
///
/// # Errors
/// A value that is no content, as far as that shows without fetching; short base64 is not looked into.
pub fn stage(reference: DataRef) -> Result<StagedFile, BadDataRef> {
    let length = match (reference.kind, &reference.value) {
        (Some(DataRefKind::Url | DataRefKind::Key), Value::String(_)) => 0,
        (None | Some(DataRefKind::Utf8 | DataRefKind::Base64), Value::String(value)) => text::length(value),
        (None | Some(DataRefKind::Json), value) => text::length(&json::stringify(value)),
        // A number as a text is short, and a value of the wrong type is an error of its content.
        _ => {
            reference.content()?;
            0
        }
    };
    if length <= INLINE_MAX {
        return Ok(StagedFile::Inline(reference));
    }
    match reference.content()? {
        Content::Bytes(bytes) => Ok(StagedFile::Large(Blob::new(bytes.into_owned()))),
        Content::At(_) | Content::Key(_) => Ok(StagedFile::Inline(reference)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn staged(value: Value) -> Staged {
        Staged::from(PipeValue::Json(value))
    }

    #[test]
    fn two_hundred_units_stay_and_one_more_is_set_aside() {
        for (at, over) in [
            (json!("é".repeat(200)), json!("é".repeat(201))),
            (json!("😀".repeat(100)), json!("😀".repeat(101))),
            (json!(["x".repeat(196)]), json!(["x".repeat(197)])),
            (
                json!(format!("data:;base64,{}", "A".repeat(200))),
                json!(format!("data:;base64,{}", "A".repeat(204))),
            ),
        ] {
            assert!(matches!(staged(at).file, Some(StagedFile::Inline(_))));
            assert!(matches!(staged(over).file, Some(StagedFile::Large(_))));
        }
        let bytes = |length| Staged::from(PipeValue::Bytes(vec![0; length])).file;
        assert!(matches!(bytes(150), Some(StagedFile::Inline(_))));
        assert!(matches!(bytes(151), Some(StagedFile::Large(_))));
        assert!(matches!(
            staged(json!({"type": "url", "value": "https://h/".repeat(99)})).file,
            Some(StagedFile::Inline(_))
        ));
    }

    #[test]
    fn a_bad_input_is_reported_and_left_out_or_kept_as_text() {
        assert_eq!(
            staged(json!("data:,100%")),
            Staged {
                file: Some(StagedFile::Inline(DataRef::utf8("data:,100%"))),
                problem: Some(InputProblem::KeptAsText(MalformedPercent)),
            }
        );
        let long = staged(json!({"type": "base64", "value": "!".repeat(201)}));
        assert!(long.file.is_none() && matches!(long.problem, Some(InputProblem::Bad(_))));
        for value in [json!({"type": "url", "value": 7}), json!({"type": "utf8", "value": ["a"]})] {
            assert!(staged(value).file.is_none());
        }
        assert!(Staged::from(PipeValue::Unusable("bigint")).file.is_none());
    }

    #[test]
    fn null_is_no_file_and_no_problem() {
        assert_eq!(staged(Value::Null), Staged::default());
    }

    #[test]
    fn the_hash_is_that_of_the_content() {
        let text = "x".repeat(201);
        let Some(StagedFile::Large(blob)) = staged(json!(text)).file else { panic!("large") };
        assert_eq!(blob.hash, ContentHash::of(text.as_bytes()));
    }

    proptest! {
        #[test]
        fn every_value_is_staged_without_a_panic(text in "(data:)?\\PC{0,300}", kind in "(utf8|json|base64|url|key|other)", field in "(type|ref|_s)") {
            let _ = staged(json!(text));
            let _ = staged(json!({ field: kind, "value": text }));
        }
    }
}
