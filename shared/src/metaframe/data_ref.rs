//! Data references: a file's content, or where it is (`metaframe` 4).

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// First-generation reference: the form inside jobs and results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataRef {
    #[serde(default)]
    pub value: Value,
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<DataRefKind>,
    /// SHA-256 of the content when known, hex; a hint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataRefKind {
    Utf8,
    Json,
    Base64,
    Url,
    Key,
}
