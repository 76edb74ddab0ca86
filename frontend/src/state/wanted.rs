//! Address, short address and inputs → the job that the page wants, or why there is none.

use dockframe_shared::JobId;
use dockframe_shared::job::{Control, Definition};
use dockframe_shared::metaframe::inputs::InputProblem;
use dockframe_shared::metaframe::job_url::{NoJob, Source, Upload as Needed, page_job};
use dockframe_shared::metaframe::queue::QueueAddress;
use dockframe_shared::metaframe::settings::BadParam;
use dockframe_shared::protocol::WATCH_PROTOCOL;

use super::uploads::{Upload, Uploads};
use super::{Short, State};

/// A job that can be submitted once its uploads are done.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    pub id: JobId,
    pub definition: Definition,
    /// As the address says now; not part of the id.
    pub control: Control,
    pub debug: bool,
    pub queue: QueueAddress,
    pub uploads: Vec<Needed>,
    /// What is wrong with single inputs.
    pub problems: Vec<(String, InputProblem)>,
}

/// Why there is no job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantedError {
    /// The page has not read its address yet.
    NotYet,
    WaitsForHost,
    /// The short address's definition is on its way.
    WaitsForDefinition,
    Malformed(BadParam),
    /// The job is readable, but not a job.
    Shape(String),
    NoJob,
    NoImage,
    NoQueue,
}

impl Wanted {
    /// Under which a result is kept. The queue's digest stands for its name, which is a secret.
    #[must_use]
    pub fn kept_key(&self) -> String {
        format!("{} {} {}", self.queue.api_origin(), self.queue.key().digest().to_hex(), self.id)
    }

    /// The worst state of its uploads: a failure, else one that is on its way; `None` when all are done.
    #[must_use]
    pub fn upload_state<'a>(&self, uploads: &'a Uploads) -> Option<&'a Upload> {
        let states = || self.uploads.iter().filter_map(|needed| uploads.get(&needed.url));
        let failed = states().find(|state| matches!(state, Upload::Failed(_)));
        failed.or_else(|| states().find(|state| matches!(state, Upload::Sending)))
    }

    #[must_use]
    pub fn is_uploaded(&self, uploads: &Uploads) -> bool {
        self.uploads.iter().all(|needed| uploads.get(&needed.url) == Some(&Upload::Done))
    }

    /// The state of one file's upload, if it needs one.
    #[must_use]
    pub fn upload_of<'a>(&self, file: &str, uploads: &'a Uploads) -> Option<&'a Upload> {
        let needed = self.uploads.iter().find(|needed| needed.name == file)?;
        uploads.get(&needed.url)
    }
}

/// Where the present queue's socket is, with the wish to watch.
#[must_use]
pub fn socket_url(queue: &QueueAddress) -> String {
    format!("{}?protocol={WATCH_PROTOCOL}", queue.websocket())
}

/// Computes the wanted job.
///
/// # Errors
/// Why there is none.
pub fn want(state: &State) -> Result<Wanted, WantedError> {
    let source = match &state.short {
        Short::Loading => return Err(WantedError::WaitsForDefinition),
        Short::Loaded(definition) => Source::Stored(definition),
        Short::None | Short::Failed(_) => Source::Hash,
    };
    let inputs = state.inputs.iter().map(|(name, staged)| (name.as_str(), staged));
    let computed = page_job(&state.address.params, &state.place.origin, source, inputs);
    let settings = computed.settings;
    let job = match computed.job {
        Ok(job) => job,
        Err(NoJob::Missing) => {
            return Err(settings.problem("job").cloned().map_or(WantedError::NoJob, WantedError::Malformed));
        }
        Err(NoJob::NothingToRun) => return Err(WantedError::NoImage),
        Err(NoJob::Unreadable(problem)) => return Err(WantedError::Malformed(problem)),
        Err(shape @ NoJob::Shape(_)) => return Err(WantedError::Shape(shape.to_string())),
        Err(NoJob::NoQueue) => {
            let queue = ["queueOverride", "queue"].into_iter().find_map(|name| settings.problem(name));
            return Err(queue.cloned().map_or(WantedError::NoQueue, WantedError::Malformed));
        }
    };
    let queue = settings.queue.ok_or(WantedError::NoQueue)?;
    Ok(Wanted {
        id: job.id,
        definition: job.definition,
        control: settings.control,
        debug: settings.debug,
        queue,
        uploads: job.uploads,
        problems: computed.problems,
    })
}
