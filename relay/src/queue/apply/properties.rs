//! What no sequence of commands may break (`jobs-and-states` 9).

use std::collections::BTreeMap;

use dockframe_shared::job::{Rerun, ResultReason};
use dockframe_shared::{JobId, LeaseId, Timestamp};
use proptest::prelude::*;

use super::testing::*;
use crate::queue::command::{Command, Effect, Ending};
use crate::queue::record::{EndReason, Outcome, Phase};
use crate::queue::view::{Entry, Key};

const JOBS: [&str; 3] = ["a", "b", "c"];
const NAMESPACES: [&str; 3] = ["_", "n", "m"];
const WORKERS: [&str; 2] = ["w", "v"];
const OLD_WORKERS: [&str; 2] = ["old1", "old2"];

#[derive(Debug, Clone)]
enum Step {
    Submit {
        job: usize,
        namespace: usize,
        rerun: bool,
    },
    LetGo {
        job: usize,
        namespace: usize,
        deleted: bool,
    },
    Register {
        worker: usize,
        names: u8,
        first: bool,
    },
    Closed {
        worker: usize,
    },
    Grant {
        job: usize,
        worker: usize,
    },
    /// The lease counted from the newest ever granted, whether it is current or not.
    Accept {
        lease: usize,
        worker: usize,
    },
    Decline {
        lease: usize,
        worker: usize,
    },
    Finish {
        lease: usize,
        worker: usize,
    },
    Claim {
        job: usize,
        old: usize,
    },
    ClaimFinish {
        job: usize,
        old: usize,
    },
    OldClosed {
        old: usize,
    },
    Pass {
        millis: i64,
        another_free: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let job = 0..JOBS.len();
    let namespace = 0..=NAMESPACES.len();
    let worker = 0..WORKERS.len();
    let old = 0..OLD_WORKERS.len();
    let lease = 0..4_usize;
    prop_oneof![
        4 => (job.clone(), 0..NAMESPACES.len(), prop::bool::weighted(0.2))
            .prop_map(|(job, namespace, rerun)| Step::Submit { job, namespace, rerun }),
        2 => (job.clone(), namespace, prop::bool::weighted(0.3))
            .prop_map(|(job, namespace, deleted)| Step::LetGo { job, namespace, deleted }),
        3 => (worker.clone(), any::<u8>(), any::<bool>())
            .prop_map(|(worker, names, first)| Step::Register { worker, names, first }),
        1 => worker.clone().prop_map(|worker| Step::Closed { worker }),
        5 => (job.clone(), worker.clone()).prop_map(|(job, worker)| Step::Grant { job, worker }),
        4 => (lease.clone(), worker.clone()).prop_map(|(lease, worker)| Step::Accept { lease, worker }),
        1 => (lease.clone(), worker.clone()).prop_map(|(lease, worker)| Step::Decline { lease, worker }),
        3 => (lease, worker).prop_map(|(lease, worker)| Step::Finish { lease, worker }),
        2 => (job.clone(), old.clone()).prop_map(|(job, old)| Step::Claim { job, old }),
        1 => (job, old.clone()).prop_map(|(job, old)| Step::ClaimFinish { job, old }),
        1 => old.prop_map(|old| Step::OldClosed { old }),
        3 => (prop_oneof![Just(500_i64), Just(5_000), Just(31_000), Just(61_000)], any::<bool>())
            .prop_map(|(millis, another_free)| Step::Pass { millis, another_free }),
    ]
}

/// What has been seen so far, to be compared with what is there.
#[derive(Default)]
struct Seen {
    leases: Vec<LeaseId>,
    /// The result that stood, and the step's kind that may end it.
    results: BTreeMap<JobId, Outcome>,
    recorded: BTreeMap<LeaseId, u32>,
}

fn take(queue: &mut Queue, seen: &mut Seen, step: &Step) -> Option<JobId> {
    let now = queue.now;
    let pick = |lease: usize| seen.leases.iter().rev().nth(lease).cloned();
    let mut may_end = None;
    let command = match *step {
        Step::Submit { job, namespace, rerun } => {
            let mut submission = submission(JOBS[job], NAMESPACES[namespace]);
            submission.rerun = rerun.then_some(Rerun::Any);
            Command::Submit(Box::new(submission))
        }
        Step::LetGo { job, namespace, deleted } => {
            let namespace = NAMESPACES.get(namespace).copied().unwrap_or("*");
            let why = if deleted { EndReason::Deleted } else { EndReason::Cancelled };
            may_end = deleted.then(|| id(JOBS[job]));
            queue.let_go(JOBS[job], why, namespace);
            return may_end;
        }
        Step::Register { worker: number, names, first } => {
            let known = seen.leases.iter().rev().take(8).enumerate();
            let leases = known.filter(|(bit, _)| names & (1 << bit) != 0).map(|(_, lease)| lease.clone());
            let (worker, instance) = (worker(WORKERS[number]), instance(WORKERS[number]));
            Command::Register { worker, instance, first, leases: leases.collect() }
        }
        Step::Closed { worker: number } => {
            let session = queue.session(WORKERS[number]);
            Command::Closed { worker: worker(WORKERS[number]), session }
        }
        Step::Grant { job, worker: number } => {
            let session = queue.session(WORKERS[number]);
            let (worker, instance) = (worker(WORKERS[number]), instance(WORKERS[number]));
            Command::Grant { job: id(JOBS[job]), worker, instance, session }
        }
        Step::Accept { lease, worker: number } => {
            let lease = pick(lease)?;
            Command::Accept { lease, worker: worker(WORKERS[number]) }
        }
        Step::Decline { lease, worker: number } => {
            let lease = pick(lease)?;
            Command::Decline { lease, worker: worker(WORKERS[number]) }
        }
        Step::Finish { lease, worker: number } => {
            let lease = pick(lease)?;
            let ending = Ending::Result { reason: ResultReason::Success, time: now };
            Command::Finish { lease, worker: worker(WORKERS[number]), ending }
        }
        Step::Claim { job, old } => {
            queue.tell(&Command::OldWorker { worker: worker(OLD_WORKERS[old]), first: false });
            Command::Claim {
                job: id(JOBS[job]),
                worker: worker(OLD_WORKERS[old]),
                time: Timestamp::default(),
            }
        }
        Step::ClaimFinish { job, old } => {
            let run = queue.of(JOBS[job]).and_then(|record| record.lease()).map(|lease| lease.id.clone());
            let run = run?;
            let ending = Ending::Result { reason: ResultReason::Error, time: now };
            Command::ClaimFinish { job: id(JOBS[job]), worker: worker(OLD_WORKERS[old]), run, ending }
        }
        Step::OldClosed { old } => {
            let session = queue.session(OLD_WORKERS[old]);
            Command::Closed { worker: worker(OLD_WORKERS[old]), session }
        }
        Step::Pass { millis, another_free } => {
            queue.pass_with(millis, another_free);
            return None;
        }
    };
    let decision = queue.tell(&command);
    for effect in decision.effects {
        match effect {
            Effect::Grant { lease, .. } => seen.leases.push(lease),
            Effect::Share(job) => {
                if let Some(run) = queue.of(job.as_str()).and_then(|record| record.outcome()?.run().cloned())
                    && matches!(step, Step::Finish { .. } | Step::ClaimFinish { .. })
                {
                    *seen.recorded.entry(run).or_default() += 1;
                }
            }
            _ => {}
        }
    }
    may_end
}

fn check(queue: &Queue, seen: &mut Seen, may_end: Option<&JobId>) -> Result<(), TestCaseError> {
    let mut slots: BTreeMap<&LeaseId, &JobId> = BTreeMap::new();
    for (key, known) in &queue.entries {
        let (Key::Record(job), Entry::Record(record)) = (key, &known.value) else { continue };
        if let Some(lease) = record.lease() {
            prop_assert!(slots.insert(&lease.id, job).is_none(), "one lease in two slots");
        }
        // Who is not held by anybody does not go on.
        prop_assert!(!record.is_going() || !record.holders.is_empty(), "a live job without namespace");
        // A namespace's slot and the holders of its live jobs say the same.
        for (namespace, holder) in record.holders.iter() {
            if !namespace.is_default() && record.is_going() {
                let slot = queue.entries.get(&Key::Slot(namespace.clone()));
                let Some(Entry::Slot(slot)) = slot.map(|known| &known.value) else {
                    return Err(TestCaseError::fail("a holder without slot"));
                };
                prop_assert_eq!(slot.holders.get(job).map(|place| place.number), Some(holder.number));
            }
        }
        match (seen.results.get(job), record.outcome()) {
            (Some(before), Some(now)) if before == now => {}
            (None, Some(now)) => drop(seen.results.insert(job.clone(), now.clone())),
            // A rerun's result takes the old one's place.
            (Some(_), Some(now)) => drop(seen.results.insert(job.clone(), now.clone())),
            (Some(before), None) => {
                prop_assert_eq!(may_end, Some(job), "a result went without deletion: {:?}", before);
                seen.results.remove(job);
            }
            (None, None) => {}
        }
        if let (Phase::Done(outcome), Some(run)) = (&record.phase, record.outcome().and_then(Outcome::run)) {
            prop_assert!(!outcome.is_shared());
            prop_assert!(seen.recorded.get(run).is_none_or(|times| *times == 1), "recorded twice");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_commands_breaks_the_invariants(steps in prop::collection::vec(step(), 1..60)) {
        let mut queue = Queue::new();
        let mut seen = Seen::default();
        for step in &steps {
            let may_end = take(&mut queue, &mut seen, step);
            check(&queue, &mut seen, may_end.as_ref())?;
        }
        // Left alone, every namespace keeps at most one live job, and that is the newest.
        queue.pass_with(10_000, false);
        for (key, known) in &queue.entries {
            let (Key::Slot(_), Entry::Slot(slot)) = (key, &known.value) else { continue };
            let going = slot.holders.iter().filter(|(job, _)| {
                queue.of(job.as_str()).is_some_and(|record| record.is_going())
            });
            let going: Vec<_> = going.collect();
            prop_assert!(going.len() <= 1, "{going:?}");
            let newest = slot.holders.values().map(|place| place.number).max();
            prop_assert!(going.iter().all(|(_, place)| Some(place.number) == newest));
        }
    }
}
