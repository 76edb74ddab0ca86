//! Where a queue is: the websocket and the API that go with the name or address in the page's hash
//! (`metaframe` 5.2).

use std::fmt;

use percent_encoding::{AsciiSet, utf8_percent_encode};

use crate::ids::{BadName, ContentHash, JobId, QueueKey};
use crate::javascript::uri::{decode_component, encode_component};
use crate::javascript::url::{HttpUrl, PATH};

/// The queue of a worker on the user's own machine, which is relay and worker in one.
const LOCAL: &str = "local";
const LOCAL_ORIGIN: &str = "http://localhost:8000";

/// What would end a path or change its depth, beside what a browser encodes in one. A name goes into the path as
/// it stands, so `%` stays.
const NAME: &AsciiSet = &PATH.add(b'\\').add(b'^');

/// A queue that can be reached. Its name is a secret: `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct QueueAddress {
    /// Scheme, host and port, without a slash at the end.
    origin: String,
    key: QueueKey,
    /// The name as it stands in paths.
    path: String,
}

/// Why a text is no queue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadQueue {
    #[error(transparent)]
    Name(#[from] BadName),
    #[error("the queue's address has no path: write the queue's name after the host")]
    NoName,
    #[error("`.` and `..` cannot be parts of a queue's name: browsers leave them out of addresses")]
    Dots,
}

impl QueueAddress {
    /// Reads the value of the page's `queue` parameter. `page_origin` is `scheme://host[:port]` of the page, which
    /// answers for plain names.
    ///
    /// A value that begins with `http://` or `https://`, as it is or percent-decoded once, and is a URL, is an
    /// address; everything else is a name.
    ///
    /// # Errors
    /// [`BadQueue`]: a name that is empty, too long, or that no path can hold.
    pub fn resolve(value: &str, page_origin: &str) -> Result<Self, BadQueue> {
        if value == LOCAL {
            return Self::new(LOCAL_ORIGIN.to_owned(), LOCAL);
        }
        if let Some(url) = as_url(value) {
            let name = url.path.trim_matches('/');
            if name.is_empty() {
                return Err(BadQueue::NoName);
            }
            return Self::new(url.origin.clone(), name);
        }
        Self::new(page_origin.trim_end_matches('/').to_owned(), value)
    }

    fn new(origin: String, name: &str) -> Result<Self, BadQueue> {
        let key = QueueKey::new(name)?;
        let is_dots =
            |segment: &str| matches!(&*segment.to_ascii_lowercase().replace("%2e", "."), "." | "..");
        if name.split(['/', '\\']).any(is_dots) {
            return Err(BadQueue::Dots);
        }
        Ok(Self { origin, key, path: utf8_percent_encode(name, NAME).to_string() })
    }

    /// The name, as it stands in the page's address.
    #[must_use]
    pub fn key(&self) -> &QueueKey {
        &self.key
    }

    /// Whether it is the user's own machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.origin == LOCAL_ORIGIN && self.path == LOCAL
    }

    /// Where blobs and results are: `scheme://host[:port]`.
    #[must_use]
    pub fn api_origin(&self) -> &str {
        &self.origin
    }

    /// `ws(s)://…/q/<queue>/client`
    #[must_use]
    pub fn websocket(&self) -> String {
        // `http` gives `ws`, `https` gives `wss`.
        let origin = self.origin.replacen("http", "ws", 1);
        format!("{origin}/q/{}/client", self.path)
    }

    /// `<API origin>/f/<sha256>`: where content of that hash is put and got.
    #[must_use]
    pub fn blob(&self, hash: &ContentHash) -> String {
        format!("{}/f/{hash}", self.origin)
    }

    /// `<API origin>/f/<key>`, for keys of other forms.
    #[must_use]
    pub fn blob_key(&self, key: &str) -> String {
        format!("{}/f/{key}", self.origin)
    }

    /// `<API origin>/q/<queue>`: the list of its jobs.
    #[must_use]
    pub fn jobs(&self) -> String {
        format!("{}/q/{}", self.origin, self.path)
    }

    /// `<API origin>/q/<queue>/j/<id>`, without a slash at the end.
    #[must_use]
    pub fn job(&self, id: &JobId) -> String {
        format!("{}/q/{}/j/{}", self.origin, self.path, encode_component(id.as_str()))
    }

    /// `<API origin>/q/<queue>/j/<id>/result.json`
    #[must_use]
    pub fn result(&self, id: &JobId) -> String {
        format!("{}/result.json", self.job(id))
    }
}

impl fmt::Debug for QueueAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueAddress").field("origin", &self.origin).field("key", &self.key).finish()
    }
}

fn as_url(value: &str) -> Option<HttpUrl> {
    HttpUrl::parse(value).or_else(|| HttpUrl::parse(&decode_component(value).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;

    use super::*;

    const PAGE: &str = "https://page.example";

    fn resolve(value: &str) -> QueueAddress {
        QueueAddress::resolve(value, PAGE).unwrap()
    }

    #[test]
    fn every_form_of_queue_has_its_socket_and_its_api() {
        for (value, socket, api) in [
            ("q1", "wss://page.example/q/q1/client", PAGE),
            ("local", "ws://localhost:8000/q/local/client", "http://localhost:8000"),
            ("https://h.example/q9", "wss://h.example/q/q9/client", "https://h.example"),
            ("http://h:81/my/q?x=1", "ws://h:81/q/my/q/client", "http://h:81"),
            ("https%3A%2F%2Fh.example%2Fq9", "wss://h.example/q/q9/client", "https://h.example"),
            ("https://u:p@h.example:443/q", "wss://h.example/q/q/client", "https://h.example"),
            ("httpq", "wss://page.example/q/httpq/client", PAGE),
            ("https://", "wss://page.example/q/https:///client", PAGE),
            ("my%20queue", "wss://page.example/q/my%20queue/client", PAGE),
            ("a%2Fb", "wss://page.example/q/a%2Fb/client", PAGE),
            ("a?b#c d", "wss://page.example/q/a%3Fb%23c%20d/client", PAGE),
        ] {
            let queue = resolve(value);
            assert_eq!((queue.websocket().as_str(), queue.api_origin()), (socket, api), "{value}");
        }
    }

    #[test]
    fn names_that_no_path_can_hold_are_refused() {
        for value in ["", ".", "..", "a/../b", "%2e%2E", "a\\..", "https://h", "https://h/?q", "a\nb"] {
            assert!(QueueAddress::resolve(value, PAGE).is_err(), "{value}");
        }
    }

    #[test]
    fn the_address_of_a_job_has_the_queue_in_it_but_debug_has_not() {
        let queue = resolve("secret");
        let id = JobId::new("a/b").unwrap();
        assert_eq!(queue.result(&id), "https://page.example/q/secret/j/a%2Fb/result.json");
        assert!(!format!("{queue:?}").contains("secret"));
    }

    proptest! {
        #[test]
        fn every_queue_that_resolves_stays_inside_its_path(value in "(https?(://|%3A%2F%2F))?\\PC{0,20}") {
            // The crate that judges here refuses some hosts of other letters.
            let same = |queue: &QueueAddress| queue.origin.is_ascii();
            if let Some(queue) = QueueAddress::resolve(&value, PAGE).ok().filter(same) {
                let url = Url::parse(&queue.websocket()).unwrap();
                prop_assert!(url.path().starts_with("/q/") && url.path().ends_with("/client"), "{}", url);
                prop_assert!(url.query().is_none() && url.fragment().is_none());
            }
        }
    }
}
