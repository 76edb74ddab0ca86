//! What other relays committed, told or read again.

use super::*;

impl World {
    pub(super) fn refresh(&mut self, relay: usize, queue: usize, then: Option<Box<Doing>>) {
        let Some(open) = self.relays[relay].queues[queue].as_ref() else { return };
        let revision = |job: &JobId| open.cache.record(job).map_or(0, |known| known.revision);
        let known = open.cache.records().map(|(job, _)| (job.clone(), revision(job))).collect();
        let task = self.relays[relay].add(Task::Refresh { queue, known, then });
        self.ask(relay, task, Request::Live(queue));
    }

    pub(super) fn take_live(
        &mut self,
        relay: usize,
        queue: usize,
        live: Vec<(Key, Stored)>,
        known: &BTreeMap<JobId, u64>,
    ) {
        let live: Vec<(Key, u64, Rc<Entry>)> = live
            .into_iter()
            .map(|(key, s)| (key.clone(), s.revision, self.store.decode(&key, &s.bytes)))
            .collect();
        for (key, revision, entry) in &live {
            self.absorb(relay, queue, key, *revision, Some(Entry::clone(entry)), true);
        }
        for (job, revision) in known {
            let key = Key::Record(job.clone());
            if live.iter().any(|(other, ..)| *other == key) {
                continue;
            }
            let Some(open) = self.relays[relay].queues[queue].as_mut() else { return };
            let before = open.cache.record(job).filter(|known| known.revision == *revision);
            if let Some(before) = before.map(|known| known.value.clone()) {
                open.cache.forget(&key);
                let effects = derive::effects(job, Some(&before), None);
                self.perform(relay, queue, effects);
            }
        }
        self.match_jobs(relay, queue);
    }

    pub(in crate::queue::deployment) fn publish(&mut self, from: usize, truths: &[Truth]) {
        let writes = truths.iter().flat_map(|truth| match truth {
            Truth::Changed(changes, _) => changes.as_slice(),
            Truth::Document { .. } => &[],
        });
        let news: Vec<News> = writes
            .map(|change| News {
                queue: change.queue,
                key: change.key.clone(),
                revision: change.revision,
                entry: change.after.clone(),
            })
            .collect();
        if news.is_empty() {
            return;
        }
        let news = Rc::new(news);
        for relay in (0..self.relays.len()).filter(|relay| *relay != from) {
            if self.is_trouble() && self.chance.permille(100) {
                continue;
            }
            let life = self.relays[relay].life;
            let latency = self.latency();
            self.after(latency, Event::News { relay, life, news: Rc::clone(&news) });
        }
    }

    pub(in crate::queue::deployment) fn relay_learns(&mut self, relay: usize, news: &[News]) {
        let now = self.time();
        for News { queue, key, revision, entry } in news {
            let live = is_live(entry.as_deref(), now);
            self.absorb(relay, *queue, key, *revision, entry.as_deref().cloned(), live);
        }
    }
}
