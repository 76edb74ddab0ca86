//! What the page's address says: its parameters, and what they mean.

use dockframe_shared::metaframe::hash_params::HashParams;
use dockframe_shared::metaframe::settings::Settings;

/// The address as the page understands it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Address {
    pub params: HashParams,
    pub settings: Settings,
}

impl Address {
    #[must_use]
    pub fn parse(hash: &str, page_origin: &str) -> Self {
        let params = HashParams::parse(hash);
        let settings = Settings::read(&params, page_origin);
        Self { params, settings }
    }

    /// The queue put in by the embedding page, if it counts as there.
    #[must_use]
    pub fn queue_override(&self) -> Option<&str> {
        self.params.get("queueOverride").filter(|queue| !queue.is_empty())
    }

    /// Whether the embedding page decides about the queue (`metaframe` 5.9).
    #[must_use]
    pub fn queue_is_locked(&self) -> bool {
        self.queue_override().is_some() && !self.params.boolean("ignoreQueueOverride")
    }

    /// The text of the effective queue as it stands in the address.
    #[must_use]
    pub fn queue_text(&self) -> &str {
        let forced = self.queue_override().filter(|_| self.queue_is_locked());
        forced.or_else(|| self.params.get("queue")).unwrap_or_default()
    }

    /// Nothing is in it that would make a job: the start page's case.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.params.get("job").is_none_or(str::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedding_pages_queue_locks_the_field_unless_it_is_empty_or_ignored() {
        let read = |hash: &str| {
            let address = Address::parse(hash, "http://h");
            (address.queue_text().to_owned(), address.queue_is_locked())
        };
        assert_eq!(read("#?queue=a&queueOverride=b"), ("b".into(), true));
        assert_eq!(read("#?queue=a&queueOverride="), ("a".into(), false));
        assert_eq!(read("#?queue=a&queueOverride=b&ignoreQueueOverride=true"), ("a".into(), false));
        assert_eq!(read("#?queue="), (String::new(), false));
    }
}
