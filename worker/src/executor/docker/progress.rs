//! What a pull tells of itself, summed up for people (`worker` 10.2). Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bollard::models::CreateImageInfo;

/// At most one line of progress in this time.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Why a pull failed.
pub(super) struct PullFailure {
    pub(super) text: String,
    pub(super) is_transient: bool,
    /// The registry's name does not resolve: seldom a matter of seconds.
    pub(super) is_name_fault: bool,
}

impl PullFailure {
    pub(super) fn of(reference: &str, status: Option<u16>, message: &str) -> Self {
        let lower = message.to_lowercase();
        let says = |texts: &[&str]| texts.iter().any(|text| lower.contains(text));
        let is_name_fault = says(&["no such host", "name resolution", "server misbehaving"]);
        // "Access denied" first: registries say it of what does not exist, too, and in the same breath.
        let refusal = if says(&["denied", "unauthorized", "no basic auth credentials"]) {
            Some(
                " (no such image, or a private one: check its name, or log in with 'docker login' on the worker)",
            )
        } else if says(&["no matching manifest"]) {
            Some(" (the image is not made for this worker's kind of processor)")
        } else if says(&["manifest unknown", "repository does not exist", "not found"]) {
            Some(" (check the image's name and tag)")
        } else if says(&["invalid reference"])
            || status.is_some_and(|status| matches!(status, 400..=407 | 409..=428))
        {
            Some("")
        } else {
            None
        };
        let no_network = " (no network? images that are on this machine need none)";
        let hint = refusal.unwrap_or(if is_name_fault { no_network } else { "" });
        Self {
            text: format!("pulling {reference}: {message}{hint}"),
            is_transient: refusal.is_none(),
            is_name_fault,
        }
    }
}

/// Sums up what an Engine tells of a pull, layer by layer.
pub(super) struct Progress<'a> {
    reference: &'a str,
    layers: HashMap<String, Layer>,
    last_line: Option<Instant>,
    started: Instant,
    pub(super) last_status: Option<String>,
}

#[derive(Default)]
struct Layer {
    current: i64,
    total: i64,
    is_done: bool,
}

impl<'a> Progress<'a> {
    pub(super) fn new(reference: &'a str) -> Self {
        Self {
            reference,
            layers: HashMap::new(),
            last_line: None,
            started: Instant::now(),
            last_status: None,
        }
    }

    /// A line, if one is due.
    pub(super) fn note(&mut self, event: &CreateImageInfo, now: Instant) -> Option<String> {
        let status = event.status.as_deref().unwrap_or_default();
        if status.starts_with("Status: ") {
            self.last_status = Some(status.to_owned());
            return None;
        }
        let id = event.id.as_ref()?;
        if status.starts_with("Pulling from") {
            return None;
        }
        let layer = self.layers.entry(id.clone()).or_default();
        match status {
            "Downloading" => {
                if let Some(detail) = &event.progress_detail {
                    layer.current = detail.current.unwrap_or(layer.current);
                    layer.total = detail.total.unwrap_or(layer.total);
                }
            }
            "Download complete" | "Pull complete" | "Already exists" => {
                layer.current = layer.total;
                layer.is_done = status != "Download complete";
            }
            _ => {}
        }
        if self.last_line.is_some_and(|last| now.duration_since(last) < PROGRESS_EVERY) {
            return None;
        }
        self.last_line = Some(now);
        let done = self.layers.values().filter(|layer| layer.is_done).count();
        let current: i64 = self.layers.values().map(|layer| layer.current).sum();
        let total: i64 = self.layers.values().map(|layer| layer.total).sum();
        let mut line = format!("pulling {}: {done}/{} layers", self.reference, self.layers.len());
        if total > 0 {
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            let rate = current as f64 / 1e6 / now.duration_since(self.started).as_secs_f64().max(0.001);
            line.push_str(&format!(", {} %, {rate:.0} MB/s", current * 100 / total));
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::*;

    /// Of the recorded events, those whose text is told as it is. The others are summed up, or mean a failure.
    #[test]
    fn the_final_status_and_failures_are_told_as_recorded() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/tests/vectors/worker-misc.json");
        let all: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let mut told = 0;
        for vector in all["progress"].as_array().unwrap() {
            let recorded = vector["out"].as_str().unwrap();
            if let Some(message) = vector["in"]["error"].as_str() {
                let failure = PullFailure::of("a:1", None, message).text;
                assert!(failure.contains(recorded.trim_start_matches("💥 ")), "{failure}");
                told += 1;
            } else if recorded.starts_with("Status: ") {
                let event: CreateImageInfo = serde_json::from_value(vector["in"].clone()).unwrap();
                let mut progress = Progress::new("a:1");
                progress.note(&event, Instant::now());
                assert_eq!(progress.last_status.as_deref(), Some(recorded));
                told += 1;
            } else if let Ok(event) = serde_json::from_value::<CreateImageInfo>(vector["in"].clone()) {
                // No event is a surprise.
                Progress::new("a:1").note(&event, Instant::now());
            }
        }
        assert!(told >= 3);
    }

    #[test]
    fn progress_is_one_line_a_second() {
        let start = Instant::now();
        let mut progress = Progress::new("a:1");
        let event = |id: &str, status: &str, current, total| CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: Some(ProgressDetail { current: Some(current), total: Some(total) }),
            ..CreateImageInfo::default()
        };
        let first = progress.note(&event("l1", "Downloading", 50, 100), start).unwrap();
        assert!(first.starts_with("pulling a:1: 0/1 layers, 50 %"), "{first}");
        for _ in 0..100 {
            let soon = start + Duration::from_millis(900);
            assert_eq!(progress.note(&event("l1", "Downloading", 60, 100), soon), None);
        }
        let later = start + Duration::from_secs(1);
        let line = progress.note(&event("l1", "Pull complete", 0, 0), later).unwrap();
        assert!(line.starts_with("pulling a:1: 1/1 layers, 100 %"), "{line}");
        let last =
            CreateImageInfo { status: Some("Status: Downloaded".into()), ..CreateImageInfo::default() };
        assert_eq!(progress.note(&last, later), None);
        assert_eq!(progress.last_status.as_deref(), Some("Status: Downloaded"));
    }

    #[test]
    fn refusals_are_told_from_faults_that_pass() {
        let missing = "pull access denied for nope, repository does not exist or may require 'docker login'";
        assert!(PullFailure::of("nope", Some(404), missing).text.ends_with("'docker login' on the worker)"));
        assert!(!PullFailure::of("nope", Some(404), missing).is_transient);
        assert!(
            !PullFailure::of("a:9", Some(404), "manifest for a:9 not found: manifest unknown").is_transient
        );
        let closed = "Get \"http://127.0.0.1:5000/v2/a/manifests/1\": no basic auth credentials";
        assert!(
            !PullFailure::of("a", Some(500), closed).is_transient,
            "an Engine's 500, but no fault that passes"
        );
        assert!(PullFailure::of("a", Some(500), "net/http: TLS handshake timeout").is_transient);
        assert!(PullFailure::of("a", Some(429), "toomanyrequests").is_transient);
        let offline =
            PullFailure::of("a", Some(500), "dial tcp: lookup registry on 127.0.0.1:53: no such host");
        assert!(offline.is_transient && offline.is_name_fault);
    }
}
