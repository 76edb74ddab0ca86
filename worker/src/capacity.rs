//! Who gets what of this machine (`worker` 6.3). Pure accounting: slots, memory and GPUs, checked before an accept.
//!
//! Invariant: what is free never goes below nothing, and releasing a share gives back exactly what was taken.

use crate::metrics::{self, Metric};
use crate::plan::Wishes;

/// What the machine lends, and what is left of it.
#[derive(Debug, Clone)]
pub(crate) struct Capacity {
    slots: f64,
    memory_bytes: Option<u64>,
    free_slots: f64,
    free_memory_bytes: u64,
    /// `true`: free. In the order in which they are given out.
    gpus: Vec<(String, bool)>,
}

/// A part of the machine, held by one job until it is given to [`Capacity::release`].
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub(crate) struct Share {
    pub(crate) slots: f64,
    pub(crate) memory_bytes: u64,
    pub(crate) gpus: Vec<String>,
}

/// Why there is no share for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRoom {
    #[error("no room just now")]
    Now,
    #[error("this worker has fewer GPUs than the job needs")]
    NeverGpus,
    #[error("this worker has less memory than the job needs")]
    NeverMemory,
}

/// Sums of fractions of cpus are not exact.
const EPSILON: f64 = 1e-9;

impl Capacity {
    pub(crate) fn new(slots: u32, memory_bytes: Option<u64>, gpus: Vec<String>) -> Self {
        Self {
            slots: f64::from(slots),
            memory_bytes,
            free_slots: f64::from(slots),
            free_memory_bytes: memory_bytes.unwrap_or(u64::MAX),
            gpus: gpus.into_iter().map(|gpu| (gpu, true)).collect(),
        }
    }

    pub(crate) fn take(&mut self, wishes: &Wishes) -> Result<Share, NoRoom> {
        let wanted_gpus = wishes.gpus as usize;
        if wanted_gpus > self.gpus.len() {
            return Err(NoRoom::NeverGpus);
        }
        let memory_bytes = match (wishes.memory_bytes, self.memory_bytes) {
            (Some(wish), Some(total)) if wish > total => return Err(NoRoom::NeverMemory),
            (Some(wish), _) => wish,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a share for accounting: it needs no exact bytes"
            )]
            (None, Some(total)) => (total as f64 / self.slots) as u64,
            (None, None) => 0,
        };
        // A wish above the total takes all, so that the job runs alone instead of never.
        let slots = wishes.cpus.unwrap_or(1.0).min(self.slots);
        let free_gpus = self.gpus.iter().filter(|(_, free)| *free).count();
        if slots > self.free_slots + EPSILON
            || memory_bytes > self.free_memory_bytes
            || wanted_gpus > free_gpus
        {
            return Err(NoRoom::Now);
        }
        self.free_slots = (self.free_slots - slots).max(0.0);
        self.free_memory_bytes -= memory_bytes;
        let gpus = self
            .gpus
            .iter_mut()
            .filter(|(_, free)| *free)
            .take(wanted_gpus)
            .map(|(gpu, free)| {
                *free = false;
                gpu.clone()
            })
            .collect();
        Ok(Share { slots, memory_bytes, gpus })
    }

    pub(crate) fn release(&mut self, share: &Share) {
        self.free_slots = (self.free_slots + share.slots).min(self.slots);
        self.free_memory_bytes = self
            .free_memory_bytes
            .saturating_add(share.memory_bytes)
            .min(self.memory_bytes.unwrap_or(u64::MAX));
        for (gpu, free) in &mut self.gpus {
            if share.gpus.contains(gpu) {
                *free = true;
            }
        }
    }

    /// No GPU is given out from now on.
    pub(crate) fn lend_no_gpus(&mut self) {
        self.gpus.clear();
    }

    /// For monitoring: what is in use and what is free.
    pub(crate) fn uses(&self) -> [(&'static Metric, f64, f64); 3] {
        #[expect(clippy::cast_precision_loss, reason = "for monitoring: it needs no exact bytes")]
        let bytes = |bytes: u64| bytes as f64;
        let free_gpus = self.gpus.iter().filter(|(_, free)| *free).count();
        let count = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        let memory = self.memory_bytes.map_or((0.0, 0.0), |total| {
            (bytes(total.saturating_sub(self.free_memory_bytes)), bytes(self.free_memory_bytes))
        });
        [
            (&metrics::SLOTS, self.slots - self.free_slots, self.free_slots),
            (&metrics::GPUS, count(self.gpus.len() - free_gpus), count(free_gpus)),
            (&metrics::MEMORY, memory.0, memory.1),
        ]
    }

    /// Takes a share back for a run that is found again after a restart, whether there is room or not.
    pub(crate) fn retake(&mut self, share: &Share) {
        self.free_slots = (self.free_slots - share.slots).max(0.0);
        self.free_memory_bytes = self.free_memory_bytes.saturating_sub(share.memory_bytes);
        for (gpu, free) in &mut self.gpus {
            if share.gpus.contains(gpu) {
                *free = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gpus(list: &[&str]) -> Vec<String> {
        list.iter().map(|&gpu| gpu.to_owned()).collect()
    }

    fn cpus(cpus: f64) -> Wishes {
        Wishes { cpus: Some(cpus), ..Wishes::default() }
    }

    #[test]
    fn as_many_plain_jobs_as_slots() {
        let mut capacity = Capacity::new(2, None, Vec::new());
        let first = capacity.take(&Wishes::default()).unwrap();
        let _second = capacity.take(&Wishes::default()).unwrap();
        assert_eq!(capacity.take(&Wishes::default()), Err(NoRoom::Now));
        capacity.release(&first);
        assert!(capacity.take(&Wishes::default()).is_ok());
    }

    #[test]
    fn a_cpu_wish_above_the_machine_runs_alone() {
        let mut capacity = Capacity::new(4, None, Vec::new());
        let share = capacity.take(&cpus(64.0)).unwrap();
        assert_eq!(share.slots, 4.0);
        assert_eq!(capacity.take(&cpus(0.1)), Err(NoRoom::Now));
        capacity.release(&share);
        assert!(capacity.take(&cpus(0.1)).is_ok());
    }

    #[test]
    fn gpus_are_given_all_or_nothing_in_the_owners_order() {
        let mut capacity = Capacity::new(8, None, gpus(&["3", "1", "2"]));
        let wish = |gpus| Wishes { gpus, ..Wishes::default() };
        let two = capacity.take(&wish(2)).unwrap();
        assert_eq!(two.gpus, ["3", "1"]);
        assert_eq!(capacity.take(&wish(2)), Err(NoRoom::Now));
        assert_eq!(capacity.take(&wish(4)), Err(NoRoom::NeverGpus));
        assert_eq!(capacity.take(&wish(1)).unwrap().gpus, ["2"]);
        capacity.release(&two);
        assert_eq!(capacity.take(&wish(1)).unwrap().gpus, ["3"]);
    }

    #[test]
    fn memory_is_counted_with_a_share_for_jobs_that_name_none() {
        let mut capacity = Capacity::new(4, Some(1000), Vec::new());
        let wish = |bytes| Wishes { memory_bytes: Some(bytes), ..Wishes::default() };
        assert_eq!(capacity.take(&wish(1001)), Err(NoRoom::NeverMemory));
        let big = capacity.take(&wish(800)).unwrap();
        assert_eq!(capacity.take(&Wishes::default()), Err(NoRoom::Now), "250 of 200");
        assert!(capacity.take(&wish(200)).is_ok());
        capacity.release(&big);
        assert_eq!(capacity.take(&Wishes::default()).unwrap().memory_bytes, 250);
    }

    proptest! {
        #[test]
        fn everything_comes_back(
            wishes in prop::collection::vec((0.0_f64..3.0, 0_u32..3, 0_u64..900), 1..40),
        ) {
            let mut capacity = Capacity::new(3, Some(1000), gpus(&["0", "1"]));
            let mut held = Vec::new();
            for (cpus, gpus, bytes) in wishes {
                let wish = Wishes { cpus: (cpus > 0.0).then_some(cpus), gpus, memory_bytes: Some(bytes) };
                match capacity.take(&wish) {
                    Ok(share) => held.push(share),
                    Err(NoRoom::Now) => { if let Some(share) = held.pop() { capacity.release(&share); } }
                    Err(_) => {}
                }
                let slots: f64 = held.iter().map(|share| share.slots).sum();
                prop_assert!(slots <= 3.0 + 1e-6);
                prop_assert!(held.iter().map(|share| share.memory_bytes).sum::<u64>() <= 1000);
                prop_assert!(held.iter().map(|share| share.gpus.len()).sum::<usize>() <= 2);
            }
            for share in &held { capacity.release(share); }
            prop_assert!((capacity.free_slots - 3.0).abs() < 1e-6);
            prop_assert_eq!(capacity.free_memory_bytes, 1000);
            prop_assert!(capacity.gpus.iter().all(|(_, free)| *free));
        }
    }
}
