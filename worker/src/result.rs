//! What is told about a run's end: reason, exit code, error and the lines that explain it (`worker` 13). Pure.
//!
//! `Success` means that the program ran to its end, whatever its exit code. Every other ending says in words what
//! failed, which field or file it was, and what to do.

use std::collections::BTreeMap;
use std::time::Duration;

use dockframe_shared::job::result::SkippedOutput;
use dockframe_shared::job::{FinishReason, Finished, JobResult, LogLine};
use dockframe_shared::metaframe::data_ref::DataRef;
use dockframe_shared::{Amount, Timestamp, WorkerId};
use serde_json::{Value, json};

use crate::executor::{EngineError, Exit, Image, ImageError, StartError};

/// The collected outputs of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Outputs {
    pub(crate) files: BTreeMap<String, DataRef>,
    pub(crate) skipped: Vec<SkippedOutput>,
}

/// How a run ended, for the one who submitted it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ending {
    Exited {
        run: Ran,
        exit: Exit,
        outputs: Outputs,
    },
    /// The container ended, but its files could not be brought away.
    OutputsFailed {
        run: Ran,
        exit: Exit,
        error: String,
        outputs: Outputs,
    },
    /// The container ran into its time limit.
    TimedOut {
        run: Ran,
        limit: Duration,
    },
    /// It has written more than a job may.
    DiskLimit {
        run: Ran,
        exit: Exit,
        used: u64,
        limit: u64,
    },
    /// A phase around the run ran into its own.
    PhaseTimedOut {
        phase: &'static str,
        limit: Duration,
    },
    /// The definition itself is at fault.
    BadDefinition {
        error: String,
    },
    InputFailed {
        error: String,
    },
    ImageFailed {
        error: ImageError,
    },
    CreateFailed {
        error: EngineError,
    },
    StartFailed {
        error: StartError,
        hint: Option<String>,
    },
    /// The Engine lost the container while it ran.
    Lost {
        error: EngineError,
    },
}

/// What is known of a container that ran.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Ran {
    pub(crate) container: String,
    pub(crate) duration: Duration,
    /// Its output.
    pub(crate) logs: Vec<LogLine>,
    /// Hard limit, for the line about it.
    pub(crate) memory_bytes: Option<u64>,
}

/// What every result says besides.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) worker: WorkerId,
    pub(crate) image: Image,
    pub(crate) phases: BTreeMap<String, Amount>,
    /// Lines of a failed build, which are part of its result.
    pub(crate) build_logs: Vec<LogLine>,
}

pub(crate) fn finished(ending: Ending, about: About, now: Timestamp) -> Finished {
    let mut result = JobResult {
        image_is_local: about.image.is_local.then_some(true),
        image_digest: about.image.digest,
        platform: about.image.platform,
        worker: Some(about.worker.to_string()),
        worker_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        phases: Some(about.phases),
        ..JobResult::default()
    };
    let mut lines = Vec::new();
    let reason = match ending {
        Ending::Exited { run, exit, outputs } => {
            exit_lines(&mut lines, &run, exit);
            ran(&mut result, run, exit);
            collected(&mut result, outputs);
            FinishReason::Success
        }
        Ending::OutputsFailed { run, exit, error, outputs } => {
            exit_lines(&mut lines, &run, exit);
            ran(&mut result, run, exit);
            collected(&mut result, outputs);
            lines.push("💥 failed to get job outputs".to_owned());
            lines.push(format!("err={error}"));
            result.error = Some(Value::String(error));
            FinishReason::Error
        }
        Ending::TimedOut { run, limit } => {
            lines.push(format!(
                "💥 Container killed with status code 137 (time limit of {} reached)",
                seconds(limit)
            ));
            container_lines(&mut lines, &run);
            lines.push("💥 Timed out".to_owned());
            lines.push("💥 StatusCode: 137".to_owned());
            ran(&mut result, run, Exit { code: 137, ..Exit::default() });
            result.is_timed_out = true;
            FinishReason::TimedOut
        }
        Ending::DiskLimit { run, exit, used, limit } => {
            let text = format!("disk limit exceeded: used {} of {} MiB", used >> 20, limit >> 20);
            lines.push(format!("💥 {text}"));
            container_lines(&mut lines, &run);
            ran(&mut result, run, exit);
            result.error = Some(Value::String(text));
            FinishReason::Error
        }
        Ending::PhaseTimedOut { phase, limit } => {
            let text = format!("{phase} took longer than the limit of {}", seconds(limit));
            lines.push(format!("💥 Timed out: {text}"));
            result.error = Some(Value::String(text));
            result.is_timed_out = true;
            FinishReason::TimedOut
        }
        Ending::BadDefinition { error } | Ending::InputFailed { error } => {
            lines.push(format!("💥 {error}"));
            result.error = Some(Value::String(error));
            FinishReason::Error
        }
        Ending::ImageFailed { error } => {
            image_lines(&mut lines, &error);
            if !matches!(error, ImageError::Pull(_)) {
                result.logs = about.build_logs;
            }
            result.error = Some(Value::String(error.to_string()));
            FinishReason::Error
        }
        Ending::CreateFailed { error } | Ending::Lost { error } => {
            refused_lines(&mut lines, &error);
            result.error = Some(engine_value(&error));
            FinishReason::Error
        }
        Ending::StartFailed { error: StartError { error, exit_code, .. }, hint } => {
            refused_lines(&mut lines, &error);
            if let Some(code) = exit_code {
                lines.push(format!("💥 Container did not start, status code: {code}"));
            }
            lines.extend(last_cause(&error));
            lines.extend(hint);
            result.status_code = exit_code;
            result.error = Some(engine_value(&error));
            FinishReason::Error
        }
    };
    let explained = lines.into_iter().map(|text| LogLine { text, time: now, is_stderr: true });
    result.logs.extend(explained);

    let mut finished = Finished::new(reason, now);
    finished.worker = Some(about.worker.to_string());
    // A struct of texts, numbers and JSON values is always writable.
    finished.result = serde_json::to_value(result).ok();
    finished
}

fn ran(result: &mut JobResult, run: Ran, exit: Exit) {
    result.status_code = Some(exit.code);
    result.duration = Some(millis(run.duration));
    result.logs = run.logs;
    result.oom_killed = exit.oom_killed.then_some(true);
}

fn collected(result: &mut JobResult, outputs: Outputs) {
    result.outputs = outputs.files;
    result.outputs_skipped = (!outputs.skipped.is_empty()).then_some(outputs.skipped);
}

fn exit_lines(lines: &mut Vec<String>, run: &Ran, exit: Exit) {
    match exit.code {
        0 => {}
        137 if exit.oom_killed => {
            lines.push("💥 Container killed with status code 137 (out of memory)".to_owned());
            container_lines(lines, run);
            if let Some(limit) = run.memory_bytes {
                lines.push(format!("🔍 Its memory limit was {} MiB", limit >> 20));
            }
            lines.push("💥 StatusCode: 137".to_owned());
        }
        137 => {
            lines.push(
                "💥 Container killed with status code 137 (killed by a signal or by the Engine)".to_owned(),
            );
            container_lines(lines, run);
            lines.push("💥 StatusCode: 137".to_owned());
        }
        code => {
            lines.push(format!("⚠️ Container exited with status code: {code}"));
            lines.push(format!("💥 StatusCode: {code}"));
        }
    }
}

fn container_lines(lines: &mut Vec<String>, run: &Ran) {
    lines.push(format!("🔍 Container ID: {}", run.container));
    lines.push(format!("⏱️ Job duration: {}", seconds(run.duration)));
}

fn image_lines(lines: &mut Vec<String>, error: &ImageError) {
    match error {
        ImageError::Pull(text) => {
            lines.push(format!("Failure to pull or build the docker image:  {text}"));
            lines.push("💥 Error".to_owned());
        }
        ImageError::Engine(error) => {
            lines.push(format!("Failure to pull or build the docker image:  {error}"));
            lines.push("💥 Error".to_owned());
        }
        ImageError::Build(text) => {
            lines.push(format!("Failure to build the docker image: {text}"));
            lines.push("💥 Error building image".to_owned());
        }
        ImageError::Context(text) => {
            lines.push(text.clone());
            lines.push("💥 Error building image".to_owned());
        }
    }
}

fn refused_lines(lines: &mut Vec<String>, error: &EngineError) {
    lines.push("💥 Job Error".to_owned());
    lines.push(match error {
        EngineError::Refused { status, message } => {
            let word = match status {
                400 => "bad parameter",
                404 => "no such container",
                409 => "conflict",
                _ => "server error",
            };
            format!("Error: (HTTP code {status}) {word} - {message} ")
        }
        EngineError::Unreachable(_) => format!("Error: {error}"),
    });
}

/// The last part of the Engine's chain of messages says what happened; the rest says where.
fn last_cause(error: &EngineError) -> Option<String> {
    let EngineError::Refused { message, .. } = error else { return None };
    let parts: Vec<&str> =
        message.trim_end_matches(": unknown").rsplitn(3, ": ").filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        [reason, subject, _] => Some(format!("🔍 {subject}: {reason}")),
        _ => None,
    }
}

fn engine_value(error: &EngineError) -> Value {
    match error {
        EngineError::Refused { status, message } => {
            json!({"statusCode": status, "json": {"message": message}})
        }
        EngineError::Unreachable(_) => Value::String(error.to_string()),
    }
}

fn seconds(duration: Duration) -> String {
    let rounded = (duration.as_secs_f64() * 10.0).round() / 10.0;
    format!("{rounded}s")
}

pub(crate) fn millis(duration: Duration) -> Amount {
    Amount((duration.as_secs_f64() * 1000.0).round())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About {
            worker: WorkerId::new("w").unwrap(),
            image: Image::default(),
            phases: BTreeMap::new(),
            build_logs: vec![line("Step 1\n")],
        }
    }

    fn line(text: &str) -> LogLine {
        LogLine { text: text.to_owned(), time: Timestamp::from_millis(1), is_stderr: false }
    }

    fn run() -> Ran {
        Ran {
            container: "c1".into(),
            duration: Duration::from_millis(1234),
            logs: vec![line("out\n")],
            memory_bytes: Some(32 << 20),
        }
    }

    fn end(ending: Ending) -> (FinishReason, JobResult, Vec<String>) {
        let finished = finished(ending, about(), Timestamp::from_millis(9));
        let result: JobResult = serde_json::from_value(finished.result.unwrap()).unwrap();
        let lines = result.logs.iter().map(|line| line.text.clone()).collect();
        (finished.reason, result, lines)
    }

    fn refused(status: u16, message: &str) -> EngineError {
        EngineError::Refused { status, message: message.to_owned() }
    }

    #[test]
    fn an_exit_is_success_whatever_its_code() {
        let exited = |code, oom_killed| {
            end(Ending::Exited {
                run: run(),
                exit: Exit { code, oom_killed, ..Exit::default() },
                outputs: Outputs::default(),
            })
        };
        let (reason, result, lines) = exited(0, false);
        assert_eq!((reason, result.status_code, lines.len()), (FinishReason::Success, Some(0), 1));
        assert_eq!(result.duration, Some(Amount(1234.0)));
        let (reason, result, lines) = exited(3, false);
        assert_eq!((reason, result.status_code), (FinishReason::Success, Some(3)));
        assert_eq!(lines, ["out\n", "⚠️ Container exited with status code: 3", "💥 StatusCode: 3"]);
        assert!(result.logs[1].is_stderr);
        let (_, result, lines) = exited(137, true);
        assert_eq!(result.oom_killed, Some(true));
        assert!(lines[1].contains("out of memory") && lines[4].contains("32 MiB"), "{lines:?}");
        let (_, result, lines) = exited(137, false);
        assert_eq!(result.oom_killed, None);
        assert_eq!(
            lines[1..],
            [
                "💥 Container killed with status code 137 (killed by a signal or by the Engine)",
                "🔍 Container ID: c1",
                "⏱️ Job duration: 1.2s",
                "💥 StatusCode: 137",
            ]
        );
    }

    #[test]
    fn over_time_is_timed_out_with_137_and_no_outputs() {
        let (reason, result, lines) = end(Ending::TimedOut { run: run(), limit: Duration::from_secs(2) });
        assert_eq!(
            (reason, result.status_code, result.is_timed_out),
            (FinishReason::TimedOut, Some(137), true)
        );
        assert!(result.outputs.is_empty());
        assert_eq!(lines.last().unwrap(), "💥 StatusCode: 137");
        assert!(lines.contains(&"💥 Timed out".to_owned()));
    }

    #[test]
    fn a_refused_start_carries_the_engines_message_the_code_and_a_hint() {
        let message = "OCI runtime create failed: container_linux.go: starting container process caused: exec: \"ls *.txt\": executable file not found in $PATH: unknown";
        let error =
            StartError { error: refused(400, message), exit_code: Some(127), is_worth_another: false };
        let (reason, result, lines) = end(Ending::StartFailed { error, hint: Some("try sh -c".into()) });
        assert_eq!((reason, result.status_code), (FinishReason::Error, Some(127)));
        assert_eq!(result.error.unwrap()["json"]["message"], message);
        assert!(
            lines.iter().any(|line| line == &format!("Error: (HTTP code 400) bad parameter - {message} "))
        );
        assert!(
            lines.iter().any(|line| line.ends_with("\"ls *.txt\": executable file not found in $PATH")),
            "{lines:?}"
        );
        assert_eq!(lines.last().unwrap(), "try sh -c");
    }

    #[test]
    fn faults_before_the_run_say_what_failed() {
        let (reason, result, lines) = end(Ending::InputFailed { error: "input a: 404".into() });
        assert_eq!((reason, result.error), (FinishReason::Error, Some(Value::String("input a: 404".into()))));
        assert_eq!(lines, ["💥 input a: 404"]);
        let (_, result, lines) = end(Ending::ImageFailed { error: ImageError::Pull("no such image".into()) });
        assert_eq!(lines, ["Failure to pull or build the docker image:  no such image", "💥 Error"]);
        assert_eq!(result.status_code, None);
        let (_, _, lines) = end(Ending::ImageFailed { error: ImageError::Build("step 2".into()) });
        assert_eq!(
            lines,
            ["Step 1\n", "Failure to build the docker image: step 2", "💥 Error building image"]
        );
    }

    #[test]
    fn no_ending_says_undefined_or_an_empty_object() {
        let endings = [
            Ending::PhaseTimedOut { phase: "fetching inputs", limit: Duration::from_secs(60) },
            Ending::BadDefinition { error: "x".into() },
            Ending::CreateFailed { error: refused(409, "name in use") },
            Ending::DiskLimit { run: run(), exit: Exit::default(), used: 3 << 20, limit: 2 << 20 },
            Ending::Lost { error: EngineError::Unreachable("gone".into()) },
            Ending::OutputsFailed {
                run: run(),
                exit: Exit::default(),
                error: "relay down".into(),
                outputs: Outputs::default(),
            },
        ];
        for ending in endings {
            let (_, result, lines) = end(ending);
            assert!(result.error.as_ref().is_some_and(|error| *error != json!({})));
            assert!(!lines.is_empty() && lines.iter().all(|line| !line.contains("undefined")));
        }
    }
}
