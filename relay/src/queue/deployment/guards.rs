//! Guards that a test can take out, to see that the simulation would notice.
//!
//! They exist in test builds alone. Whatever is taken out is so for the current thread.

use std::cell::{Cell, RefCell};

use dockframe_shared::{JobId, LeaseId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// A message counts only for the lease in the slot, from its own worker (`jobs-and-states` 8.3).
    Fence,
    /// Due entries are written before the commit that they belong to.
    DueFirst,
    /// The lease goes with the ending of its job.
    LeaseEnds,
    /// A closed socket counts only if it was its worker's last (`jobs-and-states` 8.7).
    SessionCheck,
    /// A shared result stays the first (`jobs-and-states` 3.8).
    SharedOnce,
    /// A result stays readable while another queue shows it, whatever its own does.
    OthersResults,
    /// A commit counts only if nobody wrote in between.
    CompareAndSet,
    /// A namespace that lets go ends the job for itself alone.
    Holders,
}

thread_local! {
    static OUT: Cell<Option<Guard>> = const { Cell::new(None) };
    /// Leases that outlived their jobs.
    static LEFT: RefCell<Vec<(LeaseId, JobId)>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn stands(guard: Guard) -> bool {
    OUT.get() != Some(guard)
}

pub(super) fn take_out(guard: Option<Guard>) {
    OUT.set(guard);
    LEFT.with_borrow_mut(Vec::clear);
}

pub(crate) fn leave_lease(lease: &LeaseId, job: &JobId) {
    if !stands(Guard::LeaseEnds) {
        LEFT.with_borrow_mut(|left| left.push((lease.clone(), job.clone())));
    }
}

pub(crate) fn left_behind(lease: &LeaseId) -> Option<JobId> {
    LEFT.with_borrow(|left| left.iter().find(|(known, _)| known == lease).map(|(_, job)| job.clone()))
}
