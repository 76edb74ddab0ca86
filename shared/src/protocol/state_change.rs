//! The one message that changes a job's state (`jobs-and-states` 1.3).

use serde::de::Error as _;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::ids::{JobId, WorkerId};
use crate::job::{Enqueued, Finished, StateName};
use crate::lenient::null_is_missing;
use crate::time::Timestamp;

/// `{job, tag, state, value}`: somebody wants `job` to be in another state.
#[derive(Debug, Clone, PartialEq)]
pub struct StateChange {
    pub job: JobId,
    /// Names the sender; decides nothing.
    pub tag: String,
    pub change: Change,
    /// A text of a watching client's choice, answered by `Done` (`relay-protocol` 3.13).
    pub reference: Option<String>,
}

/// The wanted state with what belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Queued { time: Timestamp, enqueued: Box<Enqueued> },
    Running { time: Timestamp, worker: WorkerId },
    Finished(Box<Finished>),
    Removed,
}

impl Change {
    #[must_use]
    pub fn state(&self) -> StateName {
        match self {
            Self::Queued { .. } => StateName::Queued,
            Self::Running { .. } => StateName::Running,
            Self::Finished(_) => StateName::Finished,
            Self::Removed => StateName::Removed,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct QueuedValue {
    #[serde(rename = "type", default)]
    tag: QueuedTag,
    /// Nobody reads it, and some senders leave it out.
    #[serde(default, deserialize_with = "null_is_missing")]
    time: Timestamp,
    enqueued: Box<Enqueued>,
}

#[derive(Serialize, Deserialize, Default)]
enum QueuedTag {
    #[default]
    Queued,
}

#[derive(Serialize, Deserialize)]
struct RunningValue {
    #[serde(rename = "type", default)]
    tag: RunningTag,
    worker: WorkerId,
    time: Timestamp,
}

#[derive(Serialize, Deserialize, Default)]
enum RunningTag {
    #[default]
    Running,
}

impl Serialize for StateChange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("StateChange", 5)?;
        fields.serialize_field("job", &self.job)?;
        fields.serialize_field("tag", &self.tag)?;
        fields.serialize_field("state", &self.change.state())?;
        match &self.change {
            Change::Queued { time, enqueued } => fields.serialize_field(
                "value",
                &QueuedValue { tag: QueuedTag::Queued, time: *time, enqueued: enqueued.clone() },
            )?,
            Change::Running { time, worker } => fields.serialize_field(
                "value",
                &RunningValue { tag: RunningTag::Running, worker: worker.clone(), time: *time },
            )?,
            Change::Finished(value) => fields.serialize_field("value", value)?,
            Change::Removed => {}
        }
        if let Some(reference) = &self.reference {
            fields.serialize_field("ref", reference)?;
        }
        fields.end()
    }
}

impl<'de> Deserialize<'de> for StateChange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Fields {
            job: JobId,
            #[serde(default)]
            tag: Option<Value>,
            state: StateName,
            #[serde(default)]
            value: Option<Box<RawValue>>,
            #[serde(rename = "ref", default)]
            reference: Option<String>,
        }
        fn read<T: serde::de::DeserializeOwned, E: serde::de::Error>(
            value: Option<&RawValue>,
        ) -> Result<T, E> {
            let raw = value.ok_or_else(|| E::missing_field("value"))?;
            serde_json::from_str(raw.get()).map_err(E::custom)
        }

        let fields = Fields::deserialize(deserializer)?;
        let value = fields.value.as_deref();
        let change = match fields.state {
            StateName::Queued => {
                let QueuedValue { time, enqueued, .. } = read(value)?;
                if enqueued.id != fields.job {
                    return Err(D::Error::custom("`job` and `enqueued.id` differ"));
                }
                Change::Queued { time, enqueued }
            }
            StateName::Running => {
                let RunningValue { worker, time, .. } = read(value)?;
                Change::Running { time, worker }
            }
            StateName::Finished => Change::Finished(read(value)?),
            StateName::Removed => Change::Removed,
        };
        // Nobody reads it: whatever it is, the change is the same.
        let tag = fields.tag.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Self { job: fields.job, tag, change, reference: fields.reference })
    }
}
