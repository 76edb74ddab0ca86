//! The decisions themselves, one file for each kind of command.

mod calls;
mod claim;
mod draft;
mod lease;
mod let_go;
mod look;
mod register;
mod submit;

#[cfg(test)]
mod properties;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use dockframe_shared::Timestamp;

use super::command::{Command, Decision, Ids};
use super::view::{Need, View};
use draft::Draft;
pub(crate) use lease::submissions_limit;

/// Decides what `command` does to a queue as `view` shows it.
///
/// # Errors
/// [`Need`]: the view lacks something; load it and ask again.
pub(crate) fn apply<V: View>(
    view: &V,
    command: &Command,
    now: Timestamp,
    ids: &mut dyn Ids,
) -> Result<Decision, Need> {
    let mut draft = Draft::new(view, now, ids);
    let reply = match command {
        Command::Submit(submit) => submit::submit(&mut draft, submit)?,
        Command::LetGo { job, why, who, message } => {
            let_go::let_go(&mut draft, job, *why, who, message.as_deref())?
        }
        Command::Grant { job, worker, instance, session } => {
            lease::grant(&mut draft, job, worker, instance, *session)?
        }
        Command::Accept { lease, worker } => lease::accept(&mut draft, lease, worker)?,
        Command::Decline { lease, worker } => lease::decline(&mut draft, lease, worker)?,
        Command::Finish { lease, worker, ending } => lease::finish(&mut draft, lease, worker, ending)?,
        Command::Register { worker, instance, first, leases } => {
            register::register(&mut draft, worker, instance, *first, leases)?
        }
        Command::Closed { worker, session } => register::closed(&mut draft, worker, *session)?,
        Command::ForgetWorker { worker } => register::forget(&mut draft, worker)?,
        Command::OldWorker { worker, first } => claim::old_worker(&mut draft, worker, *first)?,
        Command::Claim { job, worker, time } => claim::claim(&mut draft, job, worker, *time)?,
        Command::ClaimFinish { job, worker, run, ending } => {
            claim::finish(&mut draft, job, worker, run, ending)?
        }
        Command::ClaimLost { job, worker } => claim::give_back(&mut draft, job, worker)?,
        Command::TakeCalls { job, at_most } => calls::take(&mut draft, job, *at_most)?,
        Command::Called { job, id, outcome } => calls::called(&mut draft, job, id, *outcome)?,
        Command::Look { job, healthy_since, another_free } => {
            look::look(&mut draft, job, *healthy_since, *another_free)?
        }
    };
    Ok(draft.decide(reply))
}
