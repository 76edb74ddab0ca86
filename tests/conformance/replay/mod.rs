//! Plays the recorded exchanges of the existing relay, on names of their own, and compares what comes.
//!
//! Where the specification wants something else than was recorded, the step stands in a list of intended
//! differences with its reason: [`differences`] for HTTP, in [`socket`] for sockets.

mod differences;
pub(crate) mod http;
pub(crate) mod socket;

use serde_json::Value;

/// What a step with an intended difference must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// What was recorded or what is intended.
    Either,
    /// What is intended.
    Intended,
}

/// Fields that a job object may have beyond the recorded ones (`jobs-and-states` 1.4): old peers ignore them.
const MORE_FIELDS: [&str; 5] = ["waitReason", "attempt", "shared", "place", "revision"];

/// Compares JSON with a recorded one: times are 0 there, `<…>` stands for any text, and job objects may have more.
///
/// # Errors
/// Where they differ.
fn matches(at: &str, came: &Value, recorded: &Value) -> anyhow::Result<()> {
    match (came, recorded) {
        (Value::Object(came), Value::Object(recorded)) => {
            for (name, wanted) in recorded {
                let at = format!("{at}.{name}");
                let Some(value) = came.get(name) else {
                    anyhow::bail!("{at}: expected {wanted}; came nothing")
                };
                let is_time =
                    matches!(name.as_str(), "time" | "queuedTime") && *wanted == 0 && value.is_u64();
                if !is_time {
                    matches(&at, value, wanted)?;
                }
            }
            let more = came
                .keys()
                .find(|name| !recorded.contains_key(*name) && !MORE_FIELDS.contains(&name.as_str()));
            anyhow::ensure!(
                more.is_none(),
                "{at}: expected no {more:?}; came {}",
                Value::Object(came.clone())
            );
            Ok(())
        }
        (Value::Array(came), Value::Array(recorded)) if came.len() == recorded.len() => came
            .iter()
            .zip(recorded)
            .enumerate()
            .try_for_each(|(n, (came, recorded))| matches(&format!("{at}[{n}]"), came, recorded)),
        (Value::String(_), Value::String(recorded))
            if recorded.starts_with('<') && recorded.ends_with('>') =>
        {
            Ok(())
        }
        _ => {
            anyhow::ensure!(came == recorded, "{at}: expected {recorded}; came {came}");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_placeholders_and_known_fields_may_differ() {
        let recorded = json!({ "time": 0, "url": "<signed>", "jobs": [1] });
        assert!(matches("", &json!({ "time": 5, "url": "x", "jobs": [1], "attempt": 1 }), &recorded).is_ok());
        for came in [
            json!({ "time": "5", "url": "x", "jobs": [1] }),
            json!({ "time": 5, "url": "x", "jobs": [2] }),
            json!({ "time": 5, "url": "x", "jobs": [1], "odd": 1 }),
        ] {
            assert!(matches("", &came, &recorded).is_err());
        }
    }
}
