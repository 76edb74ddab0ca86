//! Everything that parts of the worker say to each other.
//!
//! The dispatcher hears [`Event`]s from links and units through one bounded channel, and never waits for anybody:
//! what it sends goes into channels that cannot block (see each one). So no two parts can wait for each other.

use std::time::Duration;

use dockframe_shared::LeaseId;
use dockframe_shared::job::{Definition, LogLine};
use dockframe_shared::protocol::{LeaseFinished, LeaseGrant, LeaseRevoke, LogStep, Phase, WorkerHello};
use tokio::sync::mpsc;

/// Which of the worker's queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct QueueIndex(pub(crate) usize);

/// Names a run: a lease belongs to one queue, and the same job in two queues is two runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RunKey {
    pub(crate) queue: QueueIndex,
    pub(crate) lease: LeaseId,
}

#[derive(Debug)]
pub(crate) enum Event {
    Link { queue: QueueIndex, event: LinkEvent },
    Unit { run: RunKey, event: UnitEvent },
}

/// What happens on the socket of a queue.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// Registered and greeted. What is sent into `frames` goes out in order, on this connection or not at all.
    /// Unbounded, because what goes in is bounded: the spool's lines and one frame for each lease.
    Up {
        hello: WorkerHello,
        frames: mpsc::UnboundedSender<String>,
    },
    Grant(Box<LeaseGrant>),
    Revoke(LeaseRevoke),
    /// A job was deleted that is not held here; its definition is known.
    Deleted(Box<Definition>),
    Finished(LeaseFinished),
    /// The relay has read the first so many frames of this connection.
    Confirmed {
        frames: u64,
    },
    Down,
    /// Another connection after the first one.
    Again,
    /// Another process works under our id.
    IdTaken,
}

/// What a unit tells while it runs.
#[derive(Debug)]
pub(crate) enum UnitEvent {
    /// What the run is is on disk: the lease may be accepted.
    Ready,
    /// It cannot be written to disk; nothing was begun.
    CannotStart {
        why: String,
    },
    Phase(Phase),
    Logs {
        step: LogStep,
        lines: Vec<LogLine>,
    },
    /// The result is on disk; the frame reports it.
    Finished {
        frame: String,
    },
    /// The machine failed under it; its container is gone.
    GivenBack(GiveBack),
    /// Stopped as ordered; its container is gone.
    Stopped,
}

/// A run that somebody else should do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GiveBack {
    pub(crate) why: String,
    pub(crate) cause: Cause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The Engine or the disk: it may pass.
    Machine,
    /// GPUs are lent that the Engine cannot give to a container.
    NoGpus,
}

/// Stop, for a reason of the relay's or of this worker's. Nothing is uploaded or sent by the unit afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StopOrder {
    /// Between asking and killing.
    pub(crate) grace: Duration,
    pub(crate) then: Then,
}

/// What becomes of a stopped run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    CleanUp,
    /// The container goes on, for a process that takes it up again.
    Leave,
    /// Its job was deleted: what was made for it alone goes too.
    Forget,
}
