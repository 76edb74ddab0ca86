//! Workers that are connected to other relays of the same queue.
//!
//! Each relay tells its own, at every change and every few seconds; a list that was not told again is forgotten. They
//! are told to people, count when it is asked why a job waits and who else could take it, and are granted nothing:
//! that is for the relay that has their socket.

use std::collections::HashMap;

use dockframe_shared::protocol::Registration;
use dockframe_shared::{InstanceId, JobId, Timestamp, WorkerId};
use serde::{Deserialize, Serialize};

/// How often each relay tells its workers.
pub(crate) const TOLD_EVERY_MS: i64 = 5_000;
/// Declined jobs that are told of each worker; those who want to know of more ask its own relay.
pub(crate) const TOLD_DECLINES: usize = 100;
/// A list counts for so long (`jobs-and-states` 5.1).
const COUNTS_MS: i64 = 30_000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Elsewhere {
    pub registration: Registration,
    /// How it takes leases; missing: it is of the old way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leases: Option<TakesLeases>,
    /// When something came from it.
    pub last_frame: Timestamp,
    /// Jobs that it does not want now, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub declined: Vec<(JobId, String)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TakesLeases {
    pub instance: InstanceId,
    pub session: u64,
    pub full: bool,
}

/// The lists of the other relays, by their processes.
#[derive(Debug, Default)]
pub(crate) struct Lists(HashMap<String, (Timestamp, Vec<Elsewhere>)>);

impl Lists {
    /// Whether people are to be told.
    pub(crate) fn put(&mut self, process: String, workers: Vec<Elsewhere>, now: Timestamp) -> bool {
        let shown = |workers: &[Elsewhere]| -> Vec<Registration> {
            let timeless = |one: &Elsewhere| Registration {
                time: Timestamp::default(),
                leases: None,
                instance: None,
                ..one.registration.clone()
            };
            workers.iter().map(timeless).collect()
        };
        let old = self.0.get(&process).map(|(_, workers)| shown(workers)).unwrap_or_default();
        let changed = old != shown(&workers);
        if workers.is_empty() {
            self.0.remove(&process);
        } else {
            self.0.insert(process, (now, workers));
        }
        changed
    }

    /// Forgets lists that are not told any more. Whether there was one.
    pub(crate) fn forget_silent(&mut self, now: Timestamp) -> bool {
        let before = self.0.len();
        self.0.retain(|_, (told, _)| now.since(*told) < COUNTS_MS);
        self.0.len() != before
    }

    pub(crate) fn workers(&self) -> impl Iterator<Item = &Elsewhere> {
        self.0.values().flat_map(|(_, workers)| workers)
    }

    pub(crate) fn by_process(&self) -> impl Iterator<Item = (&str, &[Elsewhere])> {
        self.0.iter().map(|(process, (_, workers))| (process.as_str(), workers.as_slice()))
    }

    /// Why a worker elsewhere does not want the job now, if it said so.
    pub(crate) fn declined(&self, job: &JobId, worker: &WorkerId, instance: &InstanceId) -> Option<&str> {
        let declined = self
            .workers()
            .filter(|other| other.registration.id == *worker)
            .filter(|other| other.leases.as_ref().is_some_and(|leases| leases.instance == *instance))
            .flat_map(|other| &other.declined);
        { declined }.find(|(declined, _)| declined == job).map(|(_, why)| why.as_str())
    }

    /// Whether a worker of the old way has a socket elsewhere.
    pub(crate) fn has_old(&self, worker: &WorkerId) -> bool {
        self.workers().any(|other| other.leases.is_none() && other.registration.id == *worker)
    }

    /// Whether another process than this one stands for the worker, and lives.
    pub(crate) fn is_taken(&self, worker: &WorkerId, instance: &InstanceId, alive_since: Timestamp) -> bool {
        let alive_since = alive_since.plus_millis(-TOLD_EVERY_MS);
        self.workers().any(|other| {
            other.registration.id == *worker
                && other.leases.as_ref().is_some_and(|leases| leases.instance != *instance)
                && other.last_frame > alive_since
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn worker(id: &str, time: i64) -> Elsewhere {
        let registration = json!({"id": id, "cpus": 1, "time": time});
        Elsewhere {
            registration: serde_json::from_value(registration).unwrap(),
            leases: Some(TakesLeases { instance: InstanceId::new("p1").unwrap(), session: 1, full: false }),
            last_frame: Timestamp::from_millis(time),
            declined: vec![(JobId::new("j1").unwrap(), "too big".to_owned())],
        }
    }

    #[test]
    fn a_list_counts_until_it_is_replaced_or_not_told_any_more() {
        let at = Timestamp::from_millis;
        let mut lists = Lists::default();
        assert!(lists.put("a".to_owned(), vec![worker("w1", 1)], at(0)));
        assert!(!lists.put("a".to_owned(), vec![worker("w1", 2)], at(10)), "only the time is another");
        assert!(lists.put("b".to_owned(), vec![worker("w2", 1)], at(20_000)));
        assert!(!lists.forget_silent(at(30_000)));
        assert!(lists.forget_silent(at(30_010)));
        assert_eq!(lists.workers().count(), 1);
        assert!(lists.put("b".to_owned(), Vec::new(), at(30_010)));
        assert_eq!(lists.workers().count(), 0);
    }

    #[test]
    fn what_a_worker_elsewhere_declined_is_known() {
        let mut lists = Lists::default();
        let old = Elsewhere { leases: None, ..worker("old", 1) };
        lists.put("a".to_owned(), vec![worker("w1", 1), old], Timestamp::default());
        let declined = |job: &str, id: &str, instance: &str| {
            let (id, instance) = (WorkerId::new(id).unwrap(), InstanceId::new(instance).unwrap());
            lists.declined(&JobId::new(job).unwrap(), &id, &instance).map(str::to_owned)
        };
        assert_eq!(declined("j1", "w1", "p1").as_deref(), Some("too big"));
        for (job, id, instance) in [("j2", "w1", "p1"), ("j1", "w2", "p1"), ("j1", "w1", "restarted")] {
            assert_eq!(declined(job, id, instance), None);
        }
        assert!(
            lists.has_old(&WorkerId::new("old").unwrap()) && !lists.has_old(&WorkerId::new("w1").unwrap())
        );
    }

    #[test]
    fn an_id_is_taken_by_another_process_that_lives() {
        let at = Timestamp::from_millis;
        let mut lists = Lists::default();
        lists.put("a".to_owned(), vec![worker("w1", 10_000)], at(10_000));
        let id = WorkerId::new("w1").unwrap();
        let instance = |name: &str| InstanceId::new(name).unwrap();
        assert!(lists.is_taken(&id, &instance("p2"), at(12_000)));
        assert!(!lists.is_taken(&id, &instance("p1"), at(12_000)), "it comes back itself");
        assert!(!lists.is_taken(&id, &instance("p2"), at(15_001)), "silent for too long");
    }
}
