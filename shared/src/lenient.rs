//! Reading what existing peers send and do not mean.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// `null` means the same as a missing field (`jobs-and-states` 1).
pub(crate) fn null_is_missing<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A field that decides nothing: what is no boolean is as good as missing.
pub(crate) fn other_is_missing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    Ok(Value::deserialize(deserializer)?.as_bool())
}
