//! The part of the page that thinks: plain types, `reduce(state, message) → effects`, no browser, no clock.
//!
//! [`reduce`] is the only door. Everything from outside (the address, the host, the socket, fetches, timers, the
//! user) comes as a [`Message`]; everything the page then does to the outside is an [`Effect`]. What the screen
//! shows is derived from [`State`] by [`crate::view`].
//!
//! Where to look: [`address`] (what the URL says), [`wanted`] (URL and inputs → job), [`connection`] (the socket's
//! life), [`relay`] (what the relay says), [`job_view`] (the current job), [`timing`] (when a submission leaves),
//! [`log`], [`actions`] (which buttons there are),
//! [`consent`] (who may run jobs on the viewer's own computer).

pub mod actions;
pub mod address;
pub mod ansi;
pub mod connection;
pub mod consent;
mod drafts;
pub mod edit;
pub mod handshake;
pub mod job_view;
pub mod log;
mod outputs;
pub use outputs::LATE_MS as RESULT_LATE_MS;
mod reduce;
mod relay;
mod submit;
#[cfg(test)]
mod tests;
pub mod timing;
pub mod uploads;
pub mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use dockframe_shared::job::JobObject;
use dockframe_shared::protocol::{QueueSummary, Registration};
use dockframe_shared::{JobId, Timestamp};
use serde_json::{Map, Value};

use address::Address;
use connection::Connection;
use consent::Consent;
use dockframe_shared::metaframe::inputs::{PipeValue, Staged};
use dockframe_shared::metaframe::outputs::{OutputValue, Outputs};
use handshake::Handshake;
use job_view::JobView;
pub use reduce::reduce;
use submit::{Outgoing, Wish};
use timing::SubmitClock;
use uploads::Uploads;
use wanted::{Wanted, WantedError};

/// Where the page itself is; fixed for its life.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// `https://host[:port]`.
    pub origin: String,
    /// The job named by a short address `/j/<id>`.
    pub short_id: Option<String>,
    /// Random, so that references of two pages never meet.
    pub nonce: String,
}

/// Everything the page knows.
#[derive(Debug)]
pub struct State {
    pub place: Place,
    pub address: Address,
    pub handshake: Handshake,
    pub consent: Consent,
    /// All values the host gave, by pipe name.
    pub inputs: BTreeMap<String, Staged>,
    /// The job of `/j/<id>`, as the page's origin knows it.
    pub short: Short,
    /// The text files of that job, once they are here; `None` also when one of them is no text.
    pub short_files: Option<Map<String, Value>>,
    pub connection: Connection,
    /// Where the present queue is; `None` without one.
    socket_url: Option<String>,
    /// What address and inputs ask for, or why nothing can be.
    pub wanted: Result<Rc<Wanted>, WantedError>,
    pub uploads: Uploads,
    /// What is known about the wanted job.
    pub job: JobView,
    pub log: log::Log,
    pub summary: Option<QueueSummary>,
    pub workers: Option<Vec<Registration>>,
    /// What an old relay listed before there was a job to look for.
    listed_early: BTreeMap<JobId, JobObject>,
    /// The queue's jobs, while the panel is open.
    pub jobs: Option<BTreeMap<JobId, JobObject>>,
    /// The queue panel is open: workers are asked for.
    pub shows_queue: bool,
    clock: SubmitClock,
    wish: Option<Wish>,
    outbox: Vec<Outgoing>,
    /// The job that was last submitted, and the socket: an old relay acknowledges nothing.
    submitted: Option<(u64, JobId)>,
    references: u64,
    /// Jobs that the user stopped: they do not start by themselves.
    stopped: BTreeSet<JobId>,
    /// The result whose outputs went to the host last.
    pub sent: Option<(JobId, Timestamp)>,
    /// The last message's input `job`, for when `allowsetjob` is switched on.
    last_job_input: Option<Map<String, Value>>,
    /// What was wrong with an input `job`.
    pub job_input_problem: Option<String>,
    /// Texts of the editor that are not in the address yet, by file; each differs from what is there.
    pub drafts: BTreeMap<String, String>,
    /// *Save+Run* wrote the address; the job that follows from it is to run.
    runs_after_save: bool,
}

/// A short address's definition.
#[derive(Debug, Clone, PartialEq)]
pub enum Short {
    /// The address is not a short one.
    None,
    Loading,
    Loaded(dockframe_shared::job::Definition),
    /// Unknown there, or not reachable; the text says which.
    Failed(String),
}

/// When a message came, and a random number in 0..1 for whoever needs one.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub now: Timestamp,
    pub random: f64,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Message {
    /// The page starts, or the address changed by whomever. `hash` as the browser shows it.
    HashChanged {
        hash: String,
    },
    /// The host answered.
    HostAnswered {
        /// Where the host's page is from.
        origin: String,
        inputs: BTreeMap<String, PipeValue>,
        stopped: Vec<JobId>,
    },
    /// Changed values; `None` deletes.
    InputsUpdated(Vec<(String, Option<PipeValue>)>),
    ShortLoaded(Result<Option<dockframe_shared::job::Definition>, String>),
    /// The files of the short address's job, by name.
    ShortFilesLoaded(Map<String, Value>),
    SocketOpened {
        socket: u64,
    },
    SocketFrame {
        socket: u64,
        text: String,
    },
    SocketClosed {
        socket: u64,
    },
    Uploaded {
        url: String,
        outcome: Result<(), String>,
    },
    /// `text` is the answer as it came, to be kept.
    ResultLoaded {
        job: JobId,
        time: Timestamp,
        text: String,
        outcome: Result<Box<job_view::Finish>, String>,
    },
    /// A result that was kept from an earlier visit: the answer of `result.json` as it was.
    KeptLoaded {
        job: JobId,
        text: String,
    },
    JobsLoaded(Result<BTreeMap<JobId, JobObject>, String>),
    /// References were replaced by contents, for the result of this time.
    OutputsResolved {
        job: JobId,
        time: Timestamp,
        outputs: Vec<(String, OutputValue)>,
    },
    TimerFired(Timer),
    User(Intent),
}

/// What the user wants.
#[derive(Debug, Clone, PartialEq)]
pub enum Intent {
    Run,
    Stop,
    Delete,
    /// *Run again*, and *Run here* for a result of another queue.
    RunAgain,
    /// The editor's text of a file as it stands now.
    Draft {
        file: String,
        text: String,
    },
    /// Writes the drafts into the address.
    Save,
    /// Writes the drafts into the address and runs the job that follows from it, once.
    SaveAndRun,
    RetryUploads,
    RetryShort,
    /// The pages around this one may run jobs on this computer by themselves.
    Consent,
    /// Parameters of the hash to be set or, with `None`, removed.
    Edit(Vec<(String, Option<String>)>),
    /// Another definition: leaves a short address.
    EditDefinition(dockframe_shared::job::Definition),
    ShowQueue(bool),
    /// Ends another job of the queue: for the own namespace, or for everybody.
    Cancel {
        job: JobId,
        everybody: bool,
    },
}

/// What the page does to the outside.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Replaces the window's hash and tells everybody who listens.
    WriteHash(String),
    /// Another document: the address without its path.
    Navigate(String),
    Connect {
        socket: u64,
        url: String,
    },
    /// Whatever socket there is, is closed.
    Disconnect,
    Send(String),
    Upload {
        url: String,
        bytes: Arc<[u8]>,
    },
    FetchShort {
        id: String,
    },
    /// The contents of these files of a definition are fetched, as texts.
    FetchShortFiles(Map<String, Value>),
    FetchResult {
        job: JobId,
        time: Timestamp,
        url: String,
    },
    FetchJobs {
        url: String,
    },
    /// A kept result is looked for, under this key.
    ReadKept {
        job: JobId,
        key: String,
    },
    /// The last answer of `result.json` is kept; `None` drops what was kept.
    Keep {
        key: String,
        text: Option<String>,
    },
    /// Contents that lie elsewhere are fetched, then `OutputsResolved` comes.
    ResolveOutputs {
        job: JobId,
        time: Timestamp,
        outputs: Outputs,
    },
    /// One `OutputsUpdate` to the host.
    PostOutputs(Vec<(String, OutputValue)>),
    /// `None` stops the timer.
    Set(Timer, Option<i64>),
    /// Remember or forget that the user stopped this job.
    RememberStop(JobId, bool),
    /// The viewer lets these sites run jobs.
    RememberConsent(Vec<String>),
    /// The log was changed.
    LogChanged,
}

/// Each runs at most once at a time; setting it again replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// The host had its time to answer.
    Handshake,
    Submit,
    Attempt,
    Reconnect,
    Ping,
    Pong,
    Stable,
    /// A stop or delete should have been confirmed by now.
    Confirm,
    /// The result is asked for again.
    Result,
    /// A rerun should have shown by now.
    Rerun,
    /// The old way's query is collected.
    Query,
    /// The list of jobs is asked for again.
    Jobs,
}

impl State {
    #[must_use]
    pub fn new(place: Place, is_embedded: bool) -> Self {
        let short = if place.short_id.is_some() { Short::Loading } else { Short::None };
        Self {
            place,
            address: Address::default(),
            handshake: if is_embedded { Handshake::Waiting } else { Handshake::Standalone },
            consent: Consent::default(),
            inputs: BTreeMap::new(),
            short,
            short_files: None,
            connection: Connection::default(),
            socket_url: None,
            wanted: Err(WantedError::NotYet),
            uploads: Uploads::default(),
            job: JobView::default(),
            log: log::Log::default(),
            summary: None,
            workers: None,
            listed_early: BTreeMap::new(),
            jobs: None,
            shows_queue: false,
            clock: SubmitClock::default(),
            wish: None,
            outbox: Vec::new(),
            submitted: None,
            references: 0,
            stopped: BTreeSet::new(),
            sent: None,
            last_job_input: None,
            job_input_problem: None,
            drafts: BTreeMap::new(),
            runs_after_save: false,
        }
    }

    /// The wanted job, if there is one.
    #[must_use]
    pub fn current(&self) -> Option<&Rc<Wanted>> {
        self.wanted.as_ref().ok()
    }

    /// Whether the queue is known to have no worker.
    #[must_use]
    pub fn has_no_worker(&self) -> bool {
        match (&self.summary, &self.workers) {
            (Some(summary), _) if self.connection.watches() => summary.workers == 0,
            (_, Some(workers)) => workers.is_empty(),
            _ => false,
        }
    }

    /// The definition that the editors show: the short address's, else the parameter `job`.
    #[must_use]
    pub fn edited_definition(&self) -> Option<dockframe_shared::job::Definition> {
        match &self.short {
            Short::Loaded(definition) => Some(definition.clone()),
            _ => self.address.settings.job.clone().map(dockframe_shared::job::Definition),
        }
    }

    /// The job's own text files: those of the address, else of the short address's job.
    #[must_use]
    pub fn files(&self) -> Option<&Map<String, Value>> {
        let is_short = matches!(self.short, Short::Loaded(_));
        self.address.settings.files.as_ref().or_else(|| self.short_files.as_ref().filter(|_| is_short))
    }

    /// Their names, in order.
    #[must_use]
    pub fn file_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.files().into_iter().flat_map(Map::keys).cloned().collect();
        crate::view::lists::sort_few(&mut names, |one, other| one < other);
        names
    }

    /// The text of one of the job's files.
    #[must_use]
    pub fn saved_file(&self, name: &str) -> Option<&str> {
        self.files()?.get(name)?.as_str()
    }

    /// Whether this job may start without a click.
    fn starts_by_itself(&self, id: &JobId) -> bool {
        self.address.settings.autostart && !self.stopped.contains(id) && self.awaits_consent().is_none()
    }

    /// Whether a change of the user's waits for the relay to confirm it.
    #[must_use]
    pub fn is_submitting(&self) -> bool {
        self.wish.is_some() || self.outbox.iter().any(Outgoing::is_submission)
    }
}
