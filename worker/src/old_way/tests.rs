//! The table of an old relay, and what comes of it.

use std::time::Duration;

use dockframe_shared::Amount;
use dockframe_shared::protocol::StateChange;
use serde_json::json;

use super::*;

fn registration(cpus: f64) -> Registration {
    serde_json::from_value(json!({"id": "w5", "cpus": Amount(cpus), "gpus": 1, "tags": ["eu"]})).unwrap()
}

struct Table {
    old: OldWay,
    me: WorkerId,
    now: Instant,
}

impl Table {
    fn new(cpus: f64) -> Self {
        let mut old = OldWay::new(&registration(cpus));
        old.connected();
        Self { old, me: WorkerId::new("w5").unwrap(), now: Instant::now() }
    }

    fn full(&mut self, jobs: &[(&str, serde_json::Value)]) -> Vec<String> {
        let jobs = jobs
            .iter()
            .map(|(id, job)| (JobId::new(id).unwrap(), serde_json::from_value(job.clone()).unwrap()));
        self.old.list(Jobs::all(jobs.collect()));
        self.look()
    }

    fn update(&mut self, id: &str, job: serde_json::Value) -> Vec<String> {
        let job = serde_json::from_value(job).unwrap();
        self.old.updates(WatchedJobs::new([(JobId::new(id).unwrap(), Some(job))].into()));
        self.look()
    }

    fn define(&mut self, ids: &[&str]) -> Vec<String> {
        let one = |id: &&str| (JobId::new(id).unwrap(), Definition::default());
        self.old.define(ids.iter().map(one).collect());
        self.look()
    }

    fn look(&mut self) -> Vec<String> {
        let effects = self.old.decide(&self.me, false, self.now, Timestamp::from_millis(77), || 7);
        effects.iter().map(describe).collect()
    }

    fn after(&mut self, seconds: u64) -> Vec<String> {
        self.now += Duration::from_secs(seconds);
        self.look()
    }

    /// A claimed job that runs here.
    fn running(cpus: f64) -> Self {
        let mut table = Self::new(cpus);
        table.full(&[("a", queued(1))]);
        table.define(&["a"]);
        table.full(&[("a", running("w5"))]);
        table
    }
}

fn describe(effect: &Effect) -> String {
    match effect {
        Effect::Say(WorkerMessage::RequestJobDefinitions { job_ids }) => {
            format!("ask {}", job_ids.iter().map(JobId::as_str).collect::<Vec<_>>().join(" "))
        }
        Effect::Say(WorkerMessage::StateChange(StateChange { job, change, .. })) => match change {
            Change::Running { time, .. } => format!("running {job} {}", time.as_millis()),
            Change::Finished(finished) => format!("finished {job} {}", finished.reason.as_str()),
            other => format!("{other:?}"),
        },
        Effect::Tell(LinkEvent::Grant(grant)) => format!("grant {}", grant.job_id),
        Effect::Tell(LinkEvent::Revoke(revoke)) => format!("revoke {:?}", revoke.why),
        Effect::Tell(LinkEvent::Finished(finished)) => format!("answered {}", finished.recorded),
        other => format!("{other:?}"),
    }
}

fn queued(time: i64) -> serde_json::Value {
    json!({"queuedTime": time, "state": "Queued", "time": time, "worker": ""})
}

fn running(worker: &str) -> serde_json::Value {
    json!({"queuedTime": 1, "state": "Running", "time": 5, "worker": worker})
}

fn finished(worker: &str, time: i64) -> serde_json::Value {
    json!({"queuedTime": 1, "state": "Finished", "time": time, "worker": worker, "finishedReason": "Success"})
}

#[test]
fn the_oldest_that_fit_are_asked_for_and_claimed_and_no_more_than_there_is_room() {
    let mut table = Table::new(2.0);
    let mut gpus = queued(1);
    gpus["requirements"] = json!({"gpus": 2});
    let mut tag = queued(2);
    tag["tags"] = json!(["us"]);
    let listed =
        [("young", queued(9)), ("old", queued(3)), ("middle", queued(5)), ("gpus", gpus), ("tag", tag)];
    assert_eq!(table.full(&listed), ["ask old middle young"]);
    assert_eq!(table.look(), Vec::<String>::new(), "asked once");
    // One definition delays nobody.
    assert_eq!(table.define(&["young"]), ["running young 77", "grant young"]);
    let begun = table.define(&["middle", "old", "never asked for"]);
    assert_eq!(begun, ["running old 77", "grant old"]);
    let WorkerMessage::StatusResponse(status) = table.old.status(&registration(2.0), Timestamp::default())
    else {
        panic!()
    };
    assert_eq!(status.unclaimable.unwrap().keys().collect::<Vec<_>>(), ["gpus", "tag"]);
}

#[test]
fn a_job_that_is_missing_from_full_lists_is_given_up_after_its_grace_and_not_before() {
    let mut table = Table::running(1.0);
    assert_eq!(
        table.update("other", running("w9")),
        Vec::<String>::new(),
        "absence from an update means nothing"
    );
    table.full(&[]);
    assert_eq!(table.after(5), Vec::<String>::new());
    table.full(&[("a", running("w5"))]);
    assert_eq!(table.after(5), ["running a 77"], "back in time: only the reminder");
    table.full(&[]);
    assert_eq!(table.after(6), ["revoke Superseded"]);
}

#[test]
fn of_two_workers_the_smaller_id_goes_on() {
    let mut table = Table::running(1.0);
    table.full(&[("a", running("w6"))]);
    assert!(!table.after(9).contains(&"revoke Superseded".to_owned()), "we are preferred");
    table.full(&[("a", running("w4"))]);
    assert_eq!(table.after(6), ["revoke Superseded"]);
}

#[test]
fn a_job_that_the_relay_has_queued_again_is_said_to_run_with_its_first_time() {
    let mut table = Table::running(1.0);
    table.now += Duration::from_secs(1);
    assert_eq!(table.full(&[("a", queued(1))]), ["running a 77"]);
    assert_eq!(table.look(), Vec::<String>::new());
}

#[test]
fn among_others_a_run_begins_when_the_claim_is_heard_back() {
    let mut table = Table::new(1.0);
    let workers = [registration(1.0), serde_json::from_value(json!({"id": "w9", "cpus": 1})).unwrap()];
    table.old.workers(&workers, &table.me.clone());
    table.full(&[("a", queued(1)), ("b", queued(2))]);
    table.define(&["a"]);
    table.now += Duration::from_millis(150);
    assert_eq!(table.look(), ["running a 77"]);
    assert_eq!(table.update("a", running("w5")), ["grant a"]);
    let mut late = Table::new(1.0);
    late.old.workers(&workers, &late.me.clone());
    late.full(&[("a", queued(1))]);
    late.define(&["a"]);
    assert_eq!(
        late.full(&[("a", running("w4"))]),
        Vec::<String>::new(),
        "somebody was quicker: nothing is said"
    );
}

#[test]
fn a_result_is_answered_by_the_list_that_shows_it() {
    let mut table = Table::running(1.0);
    let lease = table.old.claims.values().next().unwrap().lease.clone();
    let value = json!({"reason": "Success", "time": 99, "worker": "w5", "result": {}});
    let finish = || {
        WorkerMessage::LeaseFinish(dockframe_shared::protocol::LeaseFinish {
            lease_id: lease.clone(),
            value: value.clone(),
        })
    };
    let (me, now) = (table.me.clone(), table.now);
    let say = |table: &mut Table| -> Vec<String> {
        table.old.translate(finish(), &me, now, Timestamp::default()).iter().map(describe).collect()
    };
    assert_eq!(say(&mut table), ["finished a Success"]);
    assert_eq!(say(&mut table), Vec::<String>::new(), "once on a connection");
    table.old.connected();
    assert_eq!(say(&mut table), ["finished a Success"], "again on the next");
    assert_eq!(table.full(&[("a", finished("w5", 99))])[0], "answered true");
    // Elsewhere: what we made counts for nothing.
    let mut table = Table::running(1.0);
    table.full(&[("a", finished("w4", 50))]);
    assert_eq!(say(&mut table), ["answered false"]);
}
