//! Which buttons there are: the first rule that fits (`metaframe` 5.9).

use dockframe_shared::job::StateName;

use super::job_view::ResultState;
use super::uploads::Upload;
use super::wanted::WantedError;
use super::{Intent, Short, State};

/// What the job button is.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum JobButton {
    /// There is nothing to run; the page says what is missing.
    #[default]
    None,
    Run,
    /// *Run*, not to be pressed now; the text says why.
    Blocked(&'static str),
    Stop,
    /// The editor holds text that is not saved; *Stop* stands beside it while a job runs.
    SaveAndRun,
    /// *Run again* beside *Delete*.
    RunAgain,
    /// The result is another queue's: *Run here* beside *Delete*.
    RunHere,
}

impl JobButton {
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::None => "",
            Self::Run | Self::Blocked(_) => "Run Job",
            Self::Stop => "Stop Job",
            Self::SaveAndRun => "Save+Run",
            Self::RunAgain => "Run again",
            Self::RunHere => "Run here",
        }
    }

    #[must_use]
    pub fn intent(&self) -> Option<Intent> {
        match self {
            Self::None | Self::Blocked(_) => None,
            Self::Run => Some(Intent::Run),
            Self::Stop => Some(Intent::Stop),
            Self::SaveAndRun => Some(Intent::SaveAndRun),
            Self::RunAgain | Self::RunHere => Some(Intent::RunAgain),
        }
    }
}

/// The button for this state.
#[must_use]
pub fn job_button(state: &State) -> JobButton {
    match &state.wanted {
        Err(WantedError::WaitsForHost) => return JobButton::Blocked("Waiting for the page around this one"),
        Err(_) => return JobButton::None,
        Ok(_) if matches!(state.short, Short::Loading) => return JobButton::None,
        Ok(wanted) => match wanted.upload_state(&state.uploads) {
            Some(Upload::Failed(_)) => return JobButton::Blocked("An input could not be uploaded"),
            Some(Upload::Sending) => return JobButton::Blocked("Uploading inputs"),
            Some(Upload::Done) | None => {}
        },
    }
    if !state.drafts.is_empty() {
        return JobButton::SaveAndRun;
    }
    if let Some(job) = state.job.object() {
        match job.state {
            StateName::Queued | StateName::Running => return JobButton::Stop,
            StateName::Finished if state.job.result_reason().is_some() => {
                return match (&state.job.result, job.shared) {
                    (ResultState::None, _) => JobButton::Run,
                    (_, Some(true)) => JobButton::RunHere,
                    _ => JobButton::RunAgain,
                };
            }
            StateName::Finished | StateName::Removed => {}
        }
    }
    if state.is_submitting() { JobButton::Stop } else { JobButton::Run }
}

/// Whether *Stop* stands beside the job button.
#[must_use]
pub fn can_stop(state: &State) -> bool {
    job_button(state) == JobButton::SaveAndRun && (state.job.is_live() || state.is_submitting())
}
