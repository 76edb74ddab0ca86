//! Who gets which job: what a job takes of a machine, and which jobs go where now (`jobs-and-states` 8.1, 8.2).

use dockframe_shared::{InstanceId, JobId, Timestamp, WorkerId};

use super::record::Needs;
use super::timing::PASSED_OVER;

/// A connected worker as the matching sees it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Machine {
    pub worker: WorkerId,
    pub instance: InstanceId,
    pub session: u64,
    pub cpus: f64,
    pub gpus: f64,
    /// `None`: no limit.
    pub memory_bytes: Option<u64>,
    pub tags: Vec<String>,
    /// Takes nothing now: it drains, or said that it is full.
    pub closed: bool,
    pub used: Room,
}

/// An amount of a machine.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Room {
    pub cpus: f64,
    pub gpus: f64,
    pub memory_bytes: f64,
}

impl Room {
    pub(crate) fn add(&mut self, other: Self) {
        self.cpus += other.cpus;
        self.gpus += other.gpus;
        self.memory_bytes += other.memory_bytes;
    }
}

/// A waiting job, in the order of work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting<'a> {
    pub job: &'a JobId,
    pub needs: &'a Needs,
    pub since: Timestamp,
}

/// Sums of fractions are compared with this much tolerance.
const EPSILON: f64 = 1e-9;

/// What the job takes of a machine with these totals. A job without wishes takes one slot; a wish for more CPUs than
/// there are takes all; without a wish for memory it counts as its slot's part.
pub(crate) fn demand(needs: &Needs, cpus: f64, memory_bytes: Option<u64>) -> Room {
    #[expect(clippy::cast_precision_loss, reason = "sizes of memory are far below 2^53 bytes")]
    let memory = match (needs.memory_bytes, memory_bytes) {
        (Some(wish), _) => wish as f64,
        (None, Some(total)) => total as f64 / cpus.max(1.0),
        (None, None) => 0.0,
    };
    Room { cpus: needs.cpus.unwrap_or(1.0).min(cpus.max(1.0)), gpus: needs.gpus, memory_bytes: memory }
}

impl Machine {
    /// Why this job can never run here, in words that follow "no worker"; `None`: it can.
    pub(crate) fn lacks(&self, needs: &Needs) -> Option<String> {
        if needs.gpus > self.gpus + EPSILON {
            return Some(format!("has {} GPUs", needs.gpus));
        }
        if let (Some(wish), Some(total)) = (needs.memory_bytes, self.memory_bytes)
            && wish > total
        {
            return Some(format!("has {wish} bytes of memory"));
        }
        let missing = needs.tags.iter().find(|tag| !self.tags.contains(tag));
        missing.map(|tag| format!("has the tag `{tag}`"))
    }

    fn has_room(&self, needs: &Needs) -> bool {
        let want = demand(needs, self.cpus, self.memory_bytes);
        #[expect(clippy::cast_precision_loss, reason = "sizes of memory are far below 2^53 bytes")]
        let memory = self.memory_bytes.map_or(f64::INFINITY, |total| total as f64);
        !self.closed
            && self.used.cpus + want.cpus <= self.cpus + EPSILON
            && self.used.gpus + want.gpus <= self.gpus + EPSILON
            && self.used.memory_bytes + want.memory_bytes <= memory + 1.0
    }

    fn is_full(&self) -> bool {
        self.closed || self.used.cpus + EPSILON >= self.cpus
    }
}

/// A job and the number of the machine that gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub job: JobId,
    pub machine: usize,
}

/// Whether a worker would take a job now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Willing {
    /// It declined it.
    No,
    /// It did not answer lately: others come first.
    Last,
    Yes,
}

/// Which waiting jobs go where now.
///
/// Jobs come in the order of work, each to the fitting machine with the most room left. One that found none for
/// [`PASSED_OVER`] reserves the first machine that could ever take it: later jobs stay away from there until it fits.
pub(crate) fn plan<'a>(
    waiting: impl Iterator<Item = Waiting<'a>>,
    machines: &mut [Machine],
    now: Timestamp,
    willing: impl Fn(&JobId, &Machine) -> Willing,
) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for Waiting { job, needs, since } in waiting {
        if machines.iter().all(Machine::is_full) {
            break;
        }
        let fitting =
            |machine: &Machine| machine.lacks(needs).is_none() && willing(job, machine) != Willing::No;
        let free = |machine: &Machine| machine.cpus - machine.used.cpus;
        let best = machines
            .iter()
            .enumerate()
            .filter(|(_, machine)| machine.has_room(needs) && fitting(machine))
            .max_by(|(_, a), (_, b)| willing(job, a).cmp(&willing(job, b)).then(free(a).total_cmp(&free(b))))
            .map(|(number, _)| number);
        if let Some(machine) = best {
            let chosen = &mut machines[machine];
            chosen.used.add(demand(needs, chosen.cpus, chosen.memory_bytes));
            pairs.push(Pair { job: job.clone(), machine });
        } else if now.since(since) > PASSED_OVER
            && let Some(reserved) = machines.iter_mut().find(|machine| !machine.closed && fitting(machine))
        {
            reserved.closed = true;
        }
    }
    pairs
}

/// Why a waiting job waits, for people; `None` while somebody has room for it and the grant is on its way.
pub(crate) fn wait_reason(
    needs: &Needs,
    machines: &[Machine],
    old_workers: usize,
    declined: impl Fn(&Machine) -> Option<String>,
) -> Option<String> {
    if machines.is_empty() {
        return Some(match old_workers {
            0 => "no worker is connected".to_owned(),
            _ => "waiting for a worker to take it".to_owned(),
        });
    }
    let mut lacks = None;
    let mut refusals = None;
    let mut is_busy = false;
    for machine in machines {
        match (machine.lacks(needs), declined(machine)) {
            (Some(lack), _) => lacks = Some(lack),
            (None, Some(refusal)) => refusals = Some(refusal),
            (None, None) if machine.has_room(needs) => return None,
            (None, None) => is_busy = true,
        }
    }
    if is_busy {
        return Some("all workers are busy".to_owned());
    }
    Some(match (refusals, lacks) {
        (Some(refusal), _) => format!("declined by all fitting workers: {refusal}"),
        (None, Some(lack)) if old_workers == 0 => format!("no connected worker {lack}"),
        (None, _) => "waiting for a worker to take it".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(name: &str, cpus: f64, gpus: f64) -> Machine {
        Machine {
            worker: WorkerId::new(name).unwrap(),
            instance: InstanceId::new("i").unwrap(),
            session: 1,
            cpus,
            gpus,
            memory_bytes: Some(8 << 30),
            tags: vec!["eu".to_owned()],
            closed: false,
            used: Room::default(),
        }
    }

    fn ids(names: &[&str]) -> Vec<JobId> {
        names.iter().map(|name| JobId::new(name).unwrap()).collect()
    }

    fn go(jobs: &[(JobId, Needs)], machines: &mut [Machine], now: i64) -> Vec<Pair> {
        let since = Timestamp::from_millis(0);
        let waiting = jobs.iter().map(|(job, needs)| Waiting { job, needs, since });
        plan(waiting, machines, Timestamp::from_millis(now), |_, _| Willing::Yes)
    }

    #[test]
    fn a_job_without_wishes_takes_one_slot() {
        let jobs: Vec<_> = ids(&["a", "b", "c"]).into_iter().map(|id| (id, Needs::default())).collect();
        let pairs = go(&jobs, &mut [machine("w", 2.0, 0.0)], 0);
        assert_eq!(pairs.iter().map(|pair| pair.job.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn who_did_not_answer_comes_last_and_is_asked_again_where_there_is_nobody_else() {
        let (job, needs) = (JobId::new("a").unwrap(), Needs::default());
        let asked = |machines: &mut [Machine]| {
            let since = Timestamp::from_millis(0);
            let waiting = [Waiting { job: &job, needs: &needs, since }];
            let willing = |_: &JobId, machine: &Machine| match machine.worker.as_str() {
                "slow" => Willing::Last,
                "unwilling" => Willing::No,
                _ => Willing::Yes,
            };
            let pairs = plan(waiting.into_iter(), machines, since, willing);
            pairs.first().map(|pair| machines[pair.machine].worker.as_str().to_owned())
        };
        let [slow, other, unwilling] = ["slow", "other", "unwilling"].map(|name| machine(name, 4.0, 0.0));
        let small = Machine { cpus: 1.0, ..other };
        assert_eq!(asked(&mut [slow.clone(), small, unwilling.clone()]).as_deref(), Some("other"));
        assert_eq!(asked(&mut [slow, unwilling.clone()]).as_deref(), Some("slow"));
        assert_eq!(asked(&mut [unwilling]), None);
    }

    #[test]
    fn a_wish_for_more_cpus_than_there_are_takes_all() {
        let all = Needs { cpus: Some(64.0), ..Needs::default() };
        let jobs: Vec<_> = ids(&["a", "b"]).into_iter().map(|id| (id, all.clone())).collect();
        assert_eq!(go(&jobs, &mut [machine("w", 4.0, 0.0)], 0).len(), 1);
    }

    #[test]
    fn gpus_memory_and_tags_decide_who_can_ever_run_it() {
        let m = machine("w", 4.0, 1.0);
        let needs = |gpus, memory, tag: Option<&str>| Needs {
            gpus,
            memory_bytes: memory,
            tags: tag.map(str::to_owned).into_iter().collect(),
            ..Needs::default()
        };
        assert_eq!(m.lacks(&needs(1.0, Some(8 << 30), Some("eu"))), None);
        assert!(m.lacks(&needs(2.0, None, None)).is_some());
        assert!(m.lacks(&needs(0.0, Some((8 << 30) + 1), None)).is_some());
        assert!(m.lacks(&needs(0.0, None, Some("us"))).is_some());
    }

    #[test]
    fn a_big_job_passed_over_for_a_minute_gets_room_reserved() {
        let big = Needs { cpus: Some(4.0), ..Needs::default() };
        let [first, second] = <[JobId; 2]>::try_from(ids(&["big", "small"])).unwrap();
        let jobs = vec![(first, big), (second, Needs::default())];
        let busy = || {
            let mut busy = machine("w", 4.0, 0.0);
            busy.used.cpus = 1.0;
            [busy]
        };
        assert_eq!(go(&jobs, &mut busy(), 1_000).len(), 1, "the small one goes first while it is early");
        assert_eq!(go(&jobs, &mut busy(), PASSED_OVER + 1), []);
    }
}
