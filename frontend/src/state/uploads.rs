//! Contents that the job refers to and that must be at the relay before it runs (`metaframe` 4.1, 5.3 step 7).
//!
//! A content is sent once per address (which holds origin and hash) and page. Failures stay until they are tried
//! again.

use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upload {
    Sending,
    Done,
    Failed(String),
}

#[derive(Debug, Default)]
pub struct Uploads {
    by_url: BTreeMap<String, Upload>,
}

impl Uploads {
    #[must_use]
    pub fn get(&self, url: &str) -> Option<&Upload> {
        self.by_url.get(url)
    }

    /// Whether it has to be sent now; from then on it counts as being sent. A failure waits for *Try again*.
    pub fn begin(&mut self, url: &str) -> bool {
        let is_new = !self.by_url.contains_key(url);
        if is_new {
            self.by_url.insert(url.to_owned(), Upload::Sending);
        }
        is_new
    }

    pub fn finish(&mut self, url: String, outcome: Result<(), String>) {
        let upload = match outcome {
            Ok(()) => Upload::Done,
            Err(why) => Upload::Failed(why),
        };
        self.by_url.insert(url, upload);
    }

    /// Forgets failures, so that they are begun anew.
    pub fn forget_failures(&mut self) {
        self.by_url.retain(|_, upload| !matches!(upload, Upload::Failed(_)));
    }
}
