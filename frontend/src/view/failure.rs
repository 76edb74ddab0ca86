//! Why a job failed, in words: what the worker's error means and what to do next.
//!
//! Workers say it in their own texts (`worker` 13); the kinds below are recognised by the Engine's words. What is
//! not recognised is shown as it came.

use dockframe_shared::job::{JobResult, ResultReason};
use serde_json::Value;

use crate::state::job_view::Finish;

/// The kinds of failure that the page can advise on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    OutOfMemory,
    TimedOut,
    ImageNotFound,
    PullDenied,
    BuildFailed,
    InputFailed,
    CommandNotFound,
    TooLarge,
    /// The registry, or whatever was to be fetched, cannot be reached from the worker.
    NoNetwork,
    Other,
}

/// A finished job without a good end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub kind: FailureKind,
    /// What the worker said, in one line.
    pub message: String,
}

/// What went wrong, if the job did not simply run. An exit code other than 0 is no failure here.
#[must_use]
pub fn failure(finish: &Finish) -> Option<Failure> {
    let result = &finish.result;
    if result.oom_killed == Some(true) {
        return Some(Failure {
            kind: FailureKind::OutOfMemory,
            message: own_error(result).unwrap_or_default(),
        });
    }
    match finish.reason {
        ResultReason::Success => None,
        ResultReason::TimedOut => Some(Failure { kind: FailureKind::TimedOut, message: error_text(result) }),
        ResultReason::Error => {
            let message = error_text(result);
            Some(Failure { kind: classify(&message, result), message })
        }
    }
}

/// The error as text: the Engine's message, or the worker's own text, else the last lines of the log.
#[must_use]
pub fn error_text(result: &JobResult) -> String {
    // Old workers say only "Error"; their log says more.
    match own_error(result) {
        Some(text) => text,
        None => {
            let said = |text: &str| {
                let text = text.trim().trim_start_matches('💥').trim();
                !text.is_empty() && text != "Error" && !text.starts_with("StatusCode: undefined")
            };
            let mut lines = result.logs.iter().rev().map(|line| line.text.as_str());
            lines.find(|text| said(text)).map_or_else(String::new, |text| text.trim().to_owned())
        }
    }
}

/// What the result itself says of an error, if it says anything.
fn own_error(result: &JobResult) -> Option<String> {
    let text = match result.error.as_ref()? {
        Value::String(text) => text.as_str(),
        other => other.pointer("/json/message").and_then(Value::as_str)?,
    };
    (!text.trim().is_empty() && text != "Error").then(|| text.to_owned())
}

fn classify(message: &str, result: &JobResult) -> FailureKind {
    let text = message.to_ascii_lowercase();
    let has = |needles: &[&str]| needles.iter().any(|needle| text.contains(needle));
    if has(&["no such host", "no network", "connection refused", "network is unreachable", "i/o timeout"]) {
        FailureKind::NoNetwork
    } else if has(&["too large"]) {
        FailureKind::TooLarge
    } else if has(&["pull access denied", "unauthorized", "denied: ", "authentication required"]) {
        FailureKind::PullDenied
    } else if has(&["manifest unknown", "no such image", "not found: manifest", "repository does not exist"])
        || (has(&["pull", "image"]) && has(&["not found", "404"]))
    {
        FailureKind::ImageNotFound
    } else if has(&["executable file not found", "no such file or directory", "permission denied"]) {
        FailureKind::CommandNotFound
    } else if has(&["build", "dockerfile"]) {
        FailureKind::BuildFailed
    } else if has(&["input "]) && result.status_code.is_none() {
        FailureKind::InputFailed
    } else {
        FailureKind::Other
    }
}

/// The part of a message that a line has room for: of the Engine's chains the last link.
#[must_use]
pub fn brief(message: &str) -> &str {
    match message.rsplit_once(" exec: ") {
        Some((_, cause)) => cause.trim_end_matches(": unknown"),
        None => message,
    }
}

/// An exit code in words, where convention gives it a meaning.
#[must_use]
pub fn exit_meaning(code: i64) -> Option<&'static str> {
    match code {
        125 => Some("the container could not be started"),
        126 => Some("the command could not be executed"),
        127 => Some("the command was not found in the image"),
        130 => Some("interrupted (SIGINT)"),
        134 => Some("aborted (SIGABRT)"),
        137 => Some("killed (SIGKILL)"),
        139 => Some("crashed (segmentation fault)"),
        143 => Some("terminated (SIGTERM)"),
        _ => None,
    }
}

/// What to do about an exit code other than 0.
#[must_use]
pub fn exit_advice(code: i64) -> &'static str {
    match code {
        126 => "Is the file executable, or must it be called by its interpreter: python fit.py?",
        127 => "Is the name spelled right, and does the image hold it? Pipes and && need a shell: sh -c '…'",
        137 => "Often the memory: ask for more in the settings, or look whether somebody stopped it.",
        _ => "The lines above say why. What it wrote to /outputs was kept all the same.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dockframe_shared::Timestamp;

    fn finish(reason: ResultReason, json: &str) -> Finish {
        Finish {
            reason,
            time: Timestamp::from_millis(1),
            worker: None,
            result: serde_json::from_str(json).unwrap(),
            raw: Value::Null,
        }
    }

    fn kind(json: &str) -> Option<FailureKind> {
        failure(&finish(ResultReason::Error, json)).map(|failure| failure.kind)
    }

    #[test]
    fn the_engines_words_are_recognised() {
        assert_eq!(
            kind(r#"{"error":"pull access denied for nope/nope, repository does not exist"}"#),
            Some(FailureKind::PullDenied)
        );
        assert_eq!(
            kind(r#"{"error":{"statusCode":404,"json":{"message":"No such image: x:latest"}}}"#),
            Some(FailureKind::ImageNotFound)
        );
        assert_eq!(
            kind(
                r#"{"error":{"statusCode":400,"json":{"message":"exec: \"nope\": executable file not found in $PATH"}}}"#
            ),
            Some(FailureKind::CommandNotFound)
        );
        assert_eq!(kind(r#"{"error":"input a.csv: 404"}"#), Some(FailureKind::InputFailed));
        assert_eq!(
            kind(r#"{"error":"pulling x: dial tcp: lookup r: no such host"}"#),
            Some(FailureKind::NoNetwork)
        );
        assert_eq!(kind(r#"{"error":"disk full"}"#), Some(FailureKind::Other));
    }

    #[test]
    fn an_old_workers_bare_error_takes_its_text_from_the_log() {
        let old = r#"{"error":"Error","logs":[["Failure to build the docker image",1],["💥 StatusCode: undefined",2],["💥 Error",3]]}"#;
        let found = failure(&finish(ResultReason::Error, old)).unwrap();
        assert_eq!(found.message, "Failure to build the docker image");
        assert_eq!(found.kind, FailureKind::BuildFailed);
    }

    #[test]
    fn of_the_engines_chains_the_last_link_is_said() {
        let chain = "failed to create shim task: runc: unable to start: exec: \"x\": executable file not found in $PATH: unknown";
        assert_eq!(brief(chain), "\"x\": executable file not found in $PATH");
        assert_eq!(brief("disk full"), "disk full");
    }

    #[test]
    fn memory_is_said_whatever_the_reason() {
        let killed = finish(ResultReason::Success, r#"{"StatusCode":137,"oomKilled":true}"#);
        assert_eq!(failure(&killed).map(|failure| failure.kind), Some(FailureKind::OutOfMemory));
        assert_eq!(failure(&finish(ResultReason::Success, r#"{"StatusCode":3}"#)), None);
    }
}
