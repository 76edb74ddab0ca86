//! Trouble is a screen: what happened, why, the one thing to do next, the command to copy, the detail folded.

use dockframe_shared::Timestamp;
use dockframe_shared::job::{Definition, FinishReason, StateName};
use dockframe_shared::metaframe::settings::BadParam;
use serde_json::Value;

use super::Tone;
use super::failure::{FailureKind, failure};
use crate::state::connection::Phase;
use crate::state::consent::Asked;
use crate::state::job_view::{Ending, ResultState};
use crate::state::uploads::Upload;
use crate::state::wanted::WantedError;
use crate::state::{Intent, Short, State};
use crate::text;

/// How long a connection may take before it is called trouble.
const UNREACHABLE_MS: i64 = 5_000;

/// A screen of trouble.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trouble {
    pub tone: Tone,
    pub title: String,
    pub why: String,
    /// What to do, in order.
    pub steps: Vec<String>,
    pub command: Option<String>,
    /// A line below the command.
    pub note: String,
    pub offers: Vec<Offer>,
    /// The technical detail, folded.
    pub detail: String,
}

/// A button of a screen of trouble.
#[derive(Debug, Clone, PartialEq)]
pub enum Offer {
    Do(&'static str, Intent),
    OpenQueue(&'static str),
    OpenJob(&'static str),
    OpenSettings(&'static str),
    /// Asks for this much memory.
    Memory(String),
    NewQueue(&'static str),
}

/// The trouble there is, if any; the first that fits.
#[must_use]
pub fn trouble(state: &State, now: Timestamp) -> Option<Trouble> {
    of_address(state)
        .or_else(|| of_inputs(state))
        .or_else(|| of_consent(state))
        .or_else(|| of_queue(state, now))
        .or_else(|| of_run(state, now))
        .or_else(|| of_ending(state))
        .or_else(|| of_the_rest(state))
}

fn of_address(state: &State) -> Option<Trouble> {
    if let (Short::Failed(why), true) = (&state.short, state.address.is_blank()) {
        return Some(Trouble {
            tone: Tone::Bad,
            title: "This link's job could not be loaded".into(),
            why: format!("The address names a job by its id, and {why}."),
            steps: vec!["Ask for the long link: it holds the whole job.".into()],
            offers: vec![Offer::Do("Try again", Intent::RetryShort)],
            ..Trouble::default()
        });
    }
    match &state.wanted {
        Err(WantedError::Shape(why)) => Some(Trouble {
            tone: Tone::Bad,
            title: "The job cannot be read".into(),
            why: format!("{why}."),
            offers: vec![Offer::OpenJob("Change the job")],
            ..Trouble::default()
        }),
        Err(WantedError::Malformed(malformed)) => Some(unreadable(state, malformed, "")),
        Err(WantedError::NoImage) => Some(Trouble {
            tone: Tone::Warn,
            title: "The job has no image".into(),
            why: "A job needs the name of a Docker image, or a Dockerfile to build one from.".into(),
            offers: vec![Offer::OpenJob("Choose an image")],
            ..Trouble::default()
        }),
        Err(WantedError::NoQueue) => Some(Trouble {
            tone: Tone::Warn,
            title: "No computer is connected yet".into(),
            why: "Jobs run on computers that serve a queue: yours, your lab's, a cluster. A queue's name is its \
                  key: long, secret, shared only with those who may use these computers."
                .into(),
            offers: vec![Offer::NewQueue("Make a new queue"), Offer::OpenQueue("I have a queue")],
            ..Trouble::default()
        }),
        _ => None,
    }
}

fn of_inputs(state: &State) -> Option<Trouble> {
    let wanted = state.current()?;
    match wanted.upload_state(&state.uploads) {
        Some(Upload::Failed(why)) => Some(Trouble {
            tone: Tone::Bad,
            title: "An input could not be uploaded".into(),
            why: "Contents above 200 characters go to the queue server before the job runs. It did not take this \
                  one, so the job waits: it never runs with less than it should have."
                .into(),
            offers: vec![Offer::Do("Try again", Intent::RetryUploads)],
            detail: why.clone(),
            ..Trouble::default()
        }),
        _ => None,
    }
}

/// Something would start by itself, and whoever wants that is not known here.
fn of_consent(state: &State) -> Option<Trouble> {
    let asked = state.awaits_consent().filter(|_| state.address.settings.autostart)?;
    state.current()?;
    if state.job.object().is_some() || state.is_submitting() {
        return None;
    }
    let (who, remembered) = match &asked {
        Asked::Site(origin) => {
            (origin.as_str(), "Asked once for each site, and remembered where the browser lets this page.")
        }
        Asked::Somebody => (
            "the page around this one",
            "It has no name that could be remembered, so this is asked each time.",
        ),
    };
    Some(Trouble {
        tone: Tone::Warn,
        title: format!("Let {who} run jobs on this computer?"),
        why: "It wants its jobs to start by themselves, in containers on your own computer. Agree only if you know \
              it. Run Job runs what is shown here once, and nothing else."
            .into(),
        note: remembered.into(),
        offers: vec![Offer::Do("Let it run jobs", Intent::Consent), Offer::OpenJob("See the job")],
        ..Trouble::default()
    })
}

fn of_queue(state: &State, now: Timestamp) -> Option<Trouble> {
    let wanted = state.current()?;
    let is_over = state.job.result_reason().is_some();
    if let Some(since) = state.connection.lost_since.filter(|since| now.since(*since) >= UNREACHABLE_MS) {
        // A result that is there is worth more than the news of a lost connection; the header has it.
        if !is_over && state.connection.phase != Phase::Off {
            return Some(Trouble {
                tone: Tone::Bad,
                title: "The queue server does not answer".into(),
                why: format!(
                    "This page has tried to reach {} for {}. It goes on trying; what you do meanwhile is kept and \
                     sent when the connection is back.",
                    wanted.queue.api_origin(),
                    text::running_duration(now.since(since)),
                ),
                steps: vec![
                    "Is this computer online?".into(),
                    if wanted.queue.is_local() {
                        "Is the local worker running? Start it with the command below.".into()
                    } else {
                        "Is the queue's address right? See the queue panel.".into()
                    },
                ],
                command: (wanted.queue.is_local()).then(|| "dockframe up".to_owned()),
                offers: vec![Offer::OpenQueue("Open the queue panel")],
                ..Trouble::default()
            });
        }
    }
    let job = state.job.object();
    let waits = job.is_some_and(|job| job.state == StateName::Queued);
    if waits && state.has_no_worker() {
        return Some(Trouble {
            tone: Tone::Warn,
            title: "No computer serves this queue yet".into(),
            why: "Start a worker on any machine with Docker: your laptop, a GPU box, a cluster. The job starts by \
                  itself within a second."
                .into(),
            command: Some(text::worker_command(wanted.queue.api_origin(), wanted.queue.key().reveal())),
            note: "Whoever knows the queue's name can run jobs on your machine. Share it as you would a password."
                .into(),
            ..Trouble::default()
        });
    }
    let reason = job.filter(|_| waits).and_then(|job| job.wait_reason.clone());
    if reason.is_none() && waits && state.job.was_lost {
        return Some(Trouble {
            tone: Tone::Warn,
            title: "The worker that ran this job was lost".into(),
            why: "Its machine was switched off, or lost its connection. The job kept its place and starts over on \
                  the next free worker; nothing needs to be done."
                .into(),
            steps: vec!["If it takes long, look whether another computer serves this queue.".into()],
            offers: vec![Offer::OpenQueue("See the workers")],
            ..Trouble::default()
        });
    }
    let reason = reason?;
    Some(Trouble {
        tone: Tone::Warn,
        title: "No worker takes this job yet".into(),
        why: format!("The queue says: {reason}."),
        steps: vec![
            "Ask for less: fewer GPUs, CPUs or less memory.".into(),
            "Or start a worker that has what the job needs.".into(),
        ],
        command: Some(text::worker_command(wanted.queue.api_origin(), wanted.queue.key().reveal())),
        offers: vec![Offer::OpenQueue("See the workers"), Offer::OpenJob("Change the job")],
        ..Trouble::default()
    })
}

/// Twice the memory that the job asked for, or a round number where it asked for none.
fn more_memory(definition: &Definition) -> String {
    let asked = definition.get("requirements").and_then(|wishes| wishes.get("memory"));
    let text = asked.and_then(Value::as_str).unwrap_or_default();
    let unit = text.find(|c: char| !c.is_ascii_digit()).map_or("", |at| &text[at..]);
    let number = text[..text.len() - unit.len()].parse::<u64>();
    match number {
        Ok(number) if number > 0 => format!("{}{unit}", number.saturating_mul(2)),
        _ => "4G".to_owned(),
    }
}

/// The job ended without a result, and not by this page.
fn of_ending(state: &State) -> Option<Trouble> {
    let Some(Ending::Elsewhere(reason)) = state.job.ending else { return None };
    if state.is_submitting() || state.job.object().is_some_and(|job| job.state != StateName::Finished) {
        return None;
    }
    let (title, why) = match reason {
        Some(FinishReason::JobReplacedByClient) => (
            "A newer job took this one's place",
            "Pages that share a namespace keep one live job, so that the newest inputs win. Another page, or \
             another tab of this one, submitted the newer one.",
        ),
        Some(FinishReason::Cancelled) => {
            ("Somebody else stopped this job", "Everybody who has the queue's name may stop what runs in it.")
        }
        Some(FinishReason::Deleted) => (
            "Somebody else deleted this job's result",
            "Everybody who has the queue's name may delete what is stored in it.",
        ),
        Some(_) | None => (
            "This job ended elsewhere",
            "It was stopped, deleted or replaced by a newer job, from another page of this queue.",
        ),
    };
    Some(Trouble {
        tone: Tone::Idle,
        title: title.into(),
        why: why.into(),
        steps: vec!["It does not start again by itself. Run it if its result is still wanted.".into()],
        offers: vec![Offer::Do("Run Job", Intent::Run)],
        ..Trouble::default()
    })
}

/// What does not keep the job from running, and is to be known all the same.
fn of_the_rest(state: &State) -> Option<Trouble> {
    if let Short::Failed(why) = &state.short {
        return Some(Trouble {
            tone: Tone::Warn,
            title: "The address's own job is shown".into(),
            why: format!("It names another one by its id as well, which could not be loaded: {why}."),
            offers: vec![Offer::Do("Try again", Intent::RetryShort)],
            ..Trouble::default()
        });
    }
    if let Some(problem) = &state.job_input_problem
        && state.address.settings.allow_set_job
    {
        return Some(Trouble {
            tone: Tone::Warn,
            title: "The input “job” cannot be used".into(),
            why: format!("Another metaframe set it, but {problem}. The job stays as it was."),
            ..Trouble::default()
        });
    }
    let bad = state.address.settings.problems.first()?;
    Some(unreadable(state, bad, "The job runs without it."))
}

/// A parameter of the address that cannot be read.
fn unreadable(state: &State, bad: &BadParam, consequence: &str) -> Trouble {
    Trouble {
        tone: if consequence.is_empty() { Tone::Bad } else { Tone::Warn },
        title: if consequence.is_empty() {
            "This link cannot be read".into()
        } else {
            format!("“{}” in this link cannot be read", bad.name)
        },
        why: format!("Its parameter “{}” is not what it should be: {}. {consequence}", bad.name, bad.problem)
            .trim_end()
            .to_owned(),
        steps: vec![
            "If the link was copied by hand, copy it again: all of it.".into(),
            "Or remove the parameter and set it up anew.".into(),
        ],
        offers: vec![Offer::Do("Remove the parameter", Intent::Edit(vec![(bad.name.to_owned(), None)]))],
        detail: state.address.params.get(bad.name).unwrap_or_default().chars().take(2_000).collect(),
        ..Trouble::default()
    }
}

fn of_run(state: &State, now: Timestamp) -> Option<Trouble> {
    if let Some(problem) = &state.job.refused {
        return Some(Trouble {
            tone: Tone::Bad,
            title: problem.title.to_string(),
            why: problem.detail.clone(),
            offers: vec![Offer::Do("Try again", Intent::Run)],
            detail: problem.code.to_string(),
            ..Trouble::default()
        });
    }
    if let ResultState::Loading { since, why: Some(why), .. } = &state.job.result
        && now.since(*since) >= crate::state::RESULT_LATE_MS
    {
        return Some(Trouble {
            tone: Tone::Warn,
            title: "The result cannot be loaded".into(),
            why: "The job is finished, but its result does not come. The page goes on trying.".into(),
            offers: vec![Offer::Do("Run again", Intent::RunAgain)],
            detail: why.clone(),
            ..Trouble::default()
        });
    }
    let finish = state.job.finish()?;
    let failure = failure(finish)?;
    let wanted = state.current()?;
    let image = wanted.definition.text("image").unwrap_or("the image").to_owned();
    let last_line = state.log.last_line();
    let (title, why, steps): (String, String, Vec<String>) = match failure.kind {
        FailureKind::OutOfMemory => (
            "The job needed more memory than it was given".into(),
            last_line.map_or_else(
                || "The system stopped it when it passed its limit.".into(),
                |line| {
                    format!(
                        "The system stopped it when it passed its limit. Its last line before was: {line}"
                    )
                },
            ),
            vec![
                "Ask for more memory.".into(),
                "Or start the worker on a machine that has more.".into(),
            ],
        ),
        FailureKind::TimedOut => (
            "The job took longer than it may".into(),
            "It was stopped at its time limit. What it wrote until then is kept.".into(),
            vec![
                "Give it a longer limit, such as 30m, in the job's settings.".into(),
                "The worker's own limit counts too: start it with --max-job-duration=1h.".into(),
            ],
        ),
        FailureKind::ImageNotFound => (
            format!("There is no image “{image}”"),
            "The registry does not know this name or tag.".into(),
            vec!["Check the spelling of the name and the tag.".into()],
        ),
        FailureKind::PullDenied => (
            format!("The worker may not pull “{image}”"),
            "The registry refused it: the image is private, or does not exist.".into(),
            vec![
                "Check the spelling of the name.".into(),
                "If it is private, run docker login on the worker's machine.".into(),
            ],
        ),
        FailureKind::BuildFailed => (
            "The image could not be built".into(),
            "The build's log says where it stopped.".into(),
            vec!["Mend the Dockerfile or its sources, then run again.".into()],
        ),
        FailureKind::InputFailed => (
            "An input could not be fetched".into(),
            "The worker could not read one of the job's files, so the program was not started.".into(),
            vec!["Check the address of the input, or send it again from upstream.".into()],
        ),
        FailureKind::CommandNotFound => (
            "The container could not be started".into(),
            "The image does not hold this command. Pipes, wildcards and && need a shell: sh -c '…'.".into(),
            vec!["Check the command and the entrypoint.".into()],
        ),
        FailureKind::TooLarge => (
            "The result is larger than the worker may send".into(),
            "Its limits are the worker owner's.".into(),
            vec!["Write less to /outputs, or ask the worker's owner for a higher limit.".into()],
        ),
        FailureKind::NoNetwork => (
            "The worker cannot reach what the job needs".into(),
            "Its machine has no connection to the registry or the server of an input. Images that are on the \
             machine already need none."
                .into(),
            vec!["Check the network of the worker's machine, then run again.".into()],
        ),
        FailureKind::Other => (
            "The job could not be run".into(),
            "The worker says what went wrong.".into(),
            vec!["Run it again; if it fails again, the detail below helps.".into()],
        ),
    };
    let offers = match failure.kind {
        FailureKind::ImageNotFound | FailureKind::PullDenied | FailureKind::CommandNotFound => {
            vec![Offer::OpenJob("Change the job")]
        }
        FailureKind::OutOfMemory => {
            vec![Offer::Memory(more_memory(&wanted.definition)), Offer::OpenSettings("See the settings")]
        }
        FailureKind::TimedOut | FailureKind::BuildFailed => vec![Offer::OpenSettings("See the settings")],
        _ => Vec::new(),
    };
    Some(Trouble {
        tone: Tone::Bad,
        title,
        why,
        steps,
        offers,
        detail: failure.message,
        ..Trouble::default()
    })
}
