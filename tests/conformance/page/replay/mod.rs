//! Plays the recorded messages of real hosts ([`host`]), of the existing page ([`app`]), its recorded jobs ([`jobs`]) and
//! results ([`results`]) to the page under test.
//!
//! What was received is played, what was sent is compared. Where the specification wants something else than was
//! recorded, the step stands in a list of intended differences with its reason.

pub(super) mod app;
pub(super) mod host;
pub(super) mod jobs;
pub(super) mod results;

use anyhow::Context as _;
use serde_json::Value;

/// A recording, by its file's name. An address of the recorded page becomes `origin`.
///
/// # Errors
/// It is not in the checkout.
fn load(name: &str, origin: &str) -> anyhow::Result<Value> {
    let path = dockframe_tests::checkout("shared/tests/vectors").join(name);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(serde_json::from_str(
        &text.replace("https://app.example", origin).replace("https://container.mtfm.io", origin),
    )?)
}

#[cfg(test)]
mod tests {
    use super::{app, host};

    /// All other recordings are accounted for where they are kept: `shared/tests/vectors/main.rs`.
    #[test]
    fn every_recording_of_pages_is_replayed() {
        let folder = dockframe_tests::checkout("shared/tests/vectors");
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("postmessage-trace-") || name.starts_with("reference-app-"))
            .collect();
        names.sort();
        assert_eq!(names, [&host::FILES[..], &app::FILES[..]].concat());
    }

    #[test]
    fn an_intended_difference_names_a_message_of_its_recording() {
        for difference in host::DIFFERENCES {
            let recording = super::load(difference.file, "https://page.example").unwrap();
            let has =
                recording["trace"].as_array().unwrap().iter().any(|event| event["seq"] == difference.seq);
            assert!(has && difference.reason.ends_with('.'), "{difference:?}");
        }
    }
}
