//! Which images this worker has brought here, and when each was used last (`worker` 22.2, B9).
//!
//! Only these may be removed to make room: what the owner has pulled or built is the owner's. Kept in a small file, so
//! that a restart forgets nothing; a file that cannot be read only means that less can be removed.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::state::write_durably;

/// More than any worker brings; the least recently used are forgotten, not removed.
const MAX_ENTRIES: usize = 5000;

/// Image reference → when it was used last, in Unix milliseconds.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Directory and file name.
    file: PathBuf,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Entries(BTreeMap<String, i64>);

impl Ledger {
    pub(super) fn open(file: PathBuf) -> Self {
        let entries = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
        Self { file, entries: Mutex::new(entries.unwrap_or_default()) }
    }

    /// The image came here for a job.
    pub(super) fn brought(&self, reference: &str, now_ms: i64) -> io::Result<()> {
        self.change(|entries| {
            entries.insert(reference.to_owned(), now_ms);
            while entries.len() > MAX_ENTRIES {
                let oldest = entries.iter().min_by_key(|(_, at)| **at).map(|(name, _)| name.clone());
                let Some(oldest) = oldest else { break };
                entries.remove(&oldest);
            }
        });
        self.save()
    }

    /// A job runs it. Said often: written with the next change.
    pub(super) fn used(&self, reference: &str, now_ms: i64) {
        self.change(|entries| {
            if let Some(at) = entries.get_mut(reference) {
                *at = now_ms;
            }
        });
    }

    pub(super) fn forget(&self, reference: &str) {
        self.change(|entries| {
            entries.remove(reference);
        });
    }

    /// The least recently used first.
    pub(super) fn oldest_first(&self) -> Vec<(String, i64)> {
        let mut all = Vec::new();
        self.change(|entries| all.extend(entries.iter().map(|(name, at)| (name.clone(), *at))));
        all.sort_by_key(|(_, at)| *at);
        all
    }

    pub(super) fn save(&self) -> io::Result<()> {
        let mut text = Vec::new();
        self.change(|entries| text = serde_json::to_vec(entries).unwrap_or_default());
        let directory = self.file.parent().unwrap_or(&self.file);
        write_durably(directory, "images.json", &text)
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, i64>)) {
        match self.entries.lock() {
            Ok(mut entries) => change(&mut entries.0),
            // Nothing that holds this lock can fail half way.
            Err(poisoned) => change(&mut poisoned.into_inner().0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_brought_is_known_after_a_restart_by_its_last_use() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("images.json");
        let ledger = Ledger::open(file.clone());
        ledger.brought("a:1", 1).unwrap();
        ledger.brought("b:1", 2).unwrap();
        ledger.used("a:1", 3);
        ledger.used("the owner's:1", 4);
        ledger.save().unwrap();
        let again = Ledger::open(file);
        assert_eq!(again.oldest_first(), [("b:1".to_owned(), 2), ("a:1".to_owned(), 3)]);
        again.forget("b:1");
        assert_eq!(again.oldest_first().len(), 1);
    }
}
