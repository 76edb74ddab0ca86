//! Comparisons that say what was expected and what came.

use std::fmt::Debug;
use std::time::Duration;

use serde_json::Value;

/// How long anything may take that the relay does at once, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(6);
/// The period of the full lists and a little more (`jobs-and-states` 5.1).
pub(crate) const LIST_PERIOD: Duration = Duration::from_secs(14);

/// # Errors
/// They differ.
pub(crate) fn same<T: PartialEq + Debug>(what: &str, came: &T, expected: &T) -> anyhow::Result<()> {
    anyhow::ensure!(came == expected, "{what}: expected {expected:?}; came {came:?}");
    Ok(())
}

/// Like [`same`], for JSON, printed as JSON.
///
/// # Errors
/// They differ.
pub(crate) fn same_json(what: &str, came: &Value, expected: &Value) -> anyhow::Result<()> {
    anyhow::ensure!(came == expected, "{what}: expected {expected}; came {came}");
    Ok(())
}

/// # Errors
/// It does not hold.
pub(crate) fn that(expected: &str, holds: bool, came: &impl Debug) -> anyhow::Result<()> {
    anyhow::ensure!(holds, "expected {expected}; came {came:?}");
    Ok(())
}
