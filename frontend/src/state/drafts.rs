//! Texts that are being edited: not in the address until they are saved, so that half a word runs nothing
//! (`metaframe` 5.6, *Save+Run*).

use serde_json::{Map, Value};

use dockframe_shared::metaframe::hash_params::encode_json;

use super::job_view::ResultState;
use super::submit::Wish;
use super::{Effect, Moment, State};

impl State {
    /// The editor's text of a file. Equal to what is saved, it is no draft.
    pub(super) fn draft(&mut self, file: String, text: String) {
        if self.saved_file(&file) == Some(text.as_str()) {
            self.drafts.remove(&file);
        } else {
            self.drafts.insert(file, text);
        }
    }

    /// Writes all drafts into the address. Whether that changes it.
    pub(super) fn save_drafts(&mut self, effects: &mut Vec<Effect>) -> bool {
        let mut files: Map<String, Value> = self.files().cloned().unwrap_or_default();
        // A file that was deleted meanwhile stays deleted.
        let kept = std::mem::take(&mut self.drafts).into_iter().filter(|(name, _)| files.contains_key(name));
        let changes: Vec<_> = kept.collect();
        if changes.is_empty() {
            return false;
        }
        files.extend(changes.into_iter().map(|(name, text)| (name, Value::from(text))));
        let encoded = (!files.is_empty()).then(|| encode_json(&Value::Object(files)));
        self.edit(&[("inputs".to_owned(), encoded)], effects)
    }

    /// Saves, and runs what follows: as *Run again* where the same job already has a result, else as *Run*.
    pub(super) fn save_and_run(&mut self, moment: Moment, effects: &mut Vec<Effect>) {
        if self.save_drafts(effects) {
            // The browser tells of the new address, and with it comes the new job.
            self.runs_after_save = true;
        } else {
            self.run_what_there_is(moment, effects);
        }
    }

    /// The address changed; if that was *Save+Run*, its job is run now.
    pub(super) fn run_after_save(&mut self, moment: Moment, effects: &mut Vec<Effect>) {
        if std::mem::take(&mut self.runs_after_save) {
            self.run_what_there_is(moment, effects);
        }
    }

    pub(super) fn run_what_there_is(&mut self, moment: Moment, effects: &mut Vec<Effect>) {
        self.sent = None;
        let rerun = match &self.job.result {
            ResultState::Loaded(finish) => Some(finish.time),
            ResultState::Loading { time, .. } => Some(*time),
            ResultState::None => None,
        };
        self.wish_now(Wish { rerun }, moment, effects);
    }

    /// Drafts that the address has caught up with, or whose file is gone, are none any more.
    pub(super) fn settle_drafts(&mut self) {
        let mut drafts = std::mem::take(&mut self.drafts);
        let files = self.files();
        drafts.retain(|name, text| {
            let saved = files.and_then(|files| files.get(name));
            saved.is_some_and(|saved| saved.as_str() != Some(text.as_str()))
        });
        self.drafts = drafts;
    }
}
