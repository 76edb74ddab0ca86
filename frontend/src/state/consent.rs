//! Whether the page around this one may run jobs on the viewer's own computer by itself.
//!
//! Any site may put this page into a frame, with a job and `autostart` in its address. A queue's name is the key to
//! it, but for the queue `local` of the viewer's own computer, whose name everybody knows: its relay answers only
//! pages of that computer, and this is one, whoever is around it. So there the viewer is asked, once for each site.
//! A click on *Run Job* is the viewer's own and needs no more.

use dockframe_shared::metaframe::queue::QueueAddress;

use super::State;

/// The queue that every `dockframe up` serves.
const OWN_QUEUE: &str = "local";
/// What a browser calls the origin of sandboxed pages and files: it can be anybody's, so it is asked about each time.
const OPAQUE: &str = "null";

/// The pages around this one, and which of them the viewer has let run jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Consent {
    /// Origins of the pages around this one, the nearest first; empty while, and where, the browser does not tell.
    around: Vec<String>,
    given: Vec<String>,
    /// The viewer agreed on this visit.
    is_given_now: bool,
}

impl Consent {
    #[must_use]
    pub fn new(around: Vec<String>, given: Vec<String>) -> Self {
        Self { around, given, is_given_now: false }
    }

    /// The host has spoken from this origin. A browser that tells of all pages around has said more.
    pub fn heard_from(&mut self, origin: String) {
        if self.around.is_empty() {
            self.around.push(origin);
        }
    }

    /// Those who are not of `page`, not of this computer, and not agreed to.
    fn strangers(&self, page: &str) -> impl Iterator<Item = &str> {
        let around = self.around.iter().map(String::as_str);
        around.filter(move |origin| {
            let is_own = *origin == page || is_loopback(origin);
            !is_own && !self.given.iter().any(|given| given == origin)
        })
    }

    /// The viewer agrees. Returns what is to be remembered.
    pub fn give(&mut self, page: &str) -> Vec<String> {
        self.is_given_now = true;
        let new: Vec<String> =
            self.strangers(page).filter(|origin| *origin != OPAQUE).map(str::to_owned).collect();
        self.given.extend(new.iter().cloned());
        new
    }
}

/// Whom the viewer is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Site(String),
    /// A page that has no name, or that the browser does not tell of.
    Somebody,
}

impl State {
    /// Whom the viewer has to agree to before something starts by itself; `None`: nobody.
    #[must_use]
    pub fn awaits_consent(&self) -> Option<Asked> {
        let queue = self.address.settings.queue.as_ref()?;
        if !self.handshake.is_embedded()
            || self.consent.is_given_now
            || !is_own_queue(queue, &self.place.origin)
        {
            return None;
        }
        if self.consent.around.is_empty() {
            return Some(Asked::Somebody);
        }
        let stranger = self.consent.strangers(&self.place.origin).next()?;
        Some(if stranger == OPAQUE { Asked::Somebody } else { Asked::Site(stranger.to_owned()) })
    }
}

/// Whether the queue is the one of the viewer's own computer, or of the relay that serves this page: names that need
/// not be known.
fn is_own_queue(queue: &QueueAddress, page: &str) -> bool {
    queue.key().reveal() == OWN_QUEUE && (is_loopback(queue.api_origin()) || queue.api_origin() == page)
}

/// Whether an origin, as browsers write it, is this computer's.
fn is_loopback(origin: &str) -> bool {
    let Some((_, host)) = origin.split_once("://") else { return false };
    if host.starts_with("[::1]") {
        return true;
    }
    let name = host.split(':').next().unwrap_or_default();
    // Browsers write addresses as four numbers: whatever else begins with these digits is a name.
    let is_address =
        name.starts_with("127.") && name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_address || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_computers_own_origins_are_loopback() {
        for own in ["http://127.0.0.1:8000", "http://localhost", "https://a.localhost:1", "http://[::1]:8000"]
        {
            assert!(is_loopback(own), "{own}");
        }
        for foreign in
            ["http://127.evil.example", "http://localhost.evil.example", "null", "", "http://10.0.0.1"]
        {
            assert!(!is_loopback(foreign), "{foreign}");
        }
    }

    #[test]
    fn consent_is_remembered_by_site_and_never_for_nameless_pages() {
        let around =
            || vec!["https://a.example".to_owned(), OPAQUE.to_owned(), "http://localhost:1".to_owned()];
        let mut consent = Consent::new(around(), Vec::new());
        assert_eq!(consent.give("http://localhost:8000"), ["https://a.example"]);
        let again = Consent::new(around(), vec!["https://a.example".to_owned()]);
        assert_eq!(again.strangers("http://localhost:8000").collect::<Vec<_>>(), [OPAQUE]);
    }
}
