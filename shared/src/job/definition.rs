//! What runs, and what belongs to one submission of it (`jobs-and-states` 1.1, 1.2).
//!
//! A definition is kept as the JSON it came in: clients compare what they read back with what they sent, unknown
//! fields travel on, and types are judged by the worker, who can tell the user which field is wrong. So
//! [`Definition`] is a JSON object with a few typed views, not a struct.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::{JobId, Namespace};
use crate::lenient::other_is_missing;
use crate::number::Amount;
use crate::time::Timestamp;

/// A job's definition: a JSON object, exactly as submitted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Definition(pub Map<String, Value>);

impl Definition {
    /// The field, if it is there and not `null`.
    #[must_use]
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    /// The field as a text that is not empty: `""` counts as absent (`worker` 5.3).
    #[must_use]
    pub fn text(&self, field: &str) -> Option<&str> {
        self.get(field).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// What the job wants of a machine. Wishes that cannot be read are left out here; the worker reports them.
    #[must_use]
    pub fn requirements(&self) -> Requirements {
        let Some(Value::Object(fields)) = self.get("requirements") else { return Requirements::default() };
        let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
        Requirements {
            cpus: fields.get("cpus").and_then(Value::as_f64).map(Amount),
            gpus: fields.get("gpus").and_then(Value::as_f64).map(Amount),
            memory: text("memory"),
            max_duration: text("maxDuration"),
        }
    }

    /// Tags that a worker must offer; entries that are no texts are left out.
    #[must_use]
    pub fn tags(&self) -> Vec<String> {
        let tags = self.get("tags").and_then(Value::as_array);
        tags.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }
}

impl From<Map<String, Value>> for Definition {
    fn from(fields: Map<String, Value>) -> Self {
        Self(fields)
    }
}

/// What a job wants of the machine that runs it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Requirements {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Amount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Amount>,
    /// A size such as `4G` (`worker` 8.2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// A duration such as `5m` (`worker` 2.6).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<String>,
}

/// One submission as it travels over a socket (`jobs-and-states` 1.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Enqueued {
    pub id: JobId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Definition>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,
    /// Anything but a boolean counts as missing, as over HTTP.
    #[serde(default, deserialize_with = "other_is_missing", skip_serializing_if = "Option::is_none")]
    pub debug: Option<bool>,
}

/// What belongs to one submission and not to the job: never part of the id (`jobs-and-states` 1.2).
///
/// `outputs`, which may hold a secret of the submitter and which nothing reads, is deliberately not kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Control {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callbacks: Option<Callbacks>,
    /// Ceiling for this submission's run, a duration such as `5m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<String>,
    /// −100 to 100; clamped on use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rerun: Option<Rerun>,
    /// Fields that an embedding page put in and that are not known here: sent on, and never read.
    #[serde(skip_deserializing, flatten)]
    pub others: Map<String, Value>,
}

impl Control {
    #[must_use]
    pub fn namespace(&self) -> Namespace {
        self.namespace.clone().unwrap_or_default()
    }

    /// The priority as whole number within its bounds; 0 without one.
    #[must_use]
    pub fn priority(&self) -> i8 {
        #[expect(clippy::cast_possible_truncation, reason = "clamped to the range first; NaN becomes 0")]
        self.priority.map_or(0, |wish| wish.clamp(-100.0, 100.0) as i8)
    }
}

/// The result that a submission wants to see replaced: the one of this time, or whichever stands (`true`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rerun {
    Any,
    Of(Timestamp),
}

impl Serialize for Rerun {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Any => serializer.serialize_bool(true),
            Self::Of(time) => time.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Rerun {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(true) => Ok(Self::Any),
            number @ Value::Number(_) => {
                serde_json::from_value(number).map(Self::Of).map_err(serde::de::Error::custom)
            }
            _ => Err(serde::de::Error::custom("`rerun` must be the time of a result, or true")),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Callbacks {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued: Option<Callback>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished: Option<Callback>,
}

/// Where to tell of an event, and what to send along (`jobs-and-states` 7).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Callback {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_comes_back_as_it_went_in() {
        let text = r#"{"z":1,"image":"a","env":{"2":null,"1":5},"unknown":[{"deep":1e3}]}"#;
        let definition: Definition = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&definition).unwrap(), text.replace("1e3", "1000.0"));
    }

    #[test]
    fn rerun_is_a_time_or_true() {
        let read = |text: &str| serde_json::from_str::<Rerun>(text).ok();
        assert_eq!(read("true"), Some(Rerun::Any));
        assert_eq!(read("7"), Some(Rerun::Of(Timestamp::from_millis(7))));
        assert_eq!(read("false"), None);
        assert_eq!(read("\"7\""), None);
    }

    #[test]
    fn priority_is_clamped() {
        let priority = |wish| Control { priority: Some(wish), ..Control::default() }.priority();
        assert_eq!((priority(1e9), priority(-1e9), priority(f64::NAN)), (100, -100, 0));
    }
}
