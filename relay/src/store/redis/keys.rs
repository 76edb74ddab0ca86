//! Names of keys, and of members in them.
//!
//! All that one commit touches has the queue's digest as its hash tag, so that it lies on one slot of a Cluster.
//! Documents, logs and the index of queues with something due stand outside: they are set once, append only, or
//! hints. No key holds the name of a queue.

use dockframe_shared::ids::hex;
use dockframe_shared::{JobId, LeaseId, QueueDigest, Timestamp};
use sha2::{Digest as _, Sha256};

use crate::queue::command::Due;
use crate::queue::view::Key;
use crate::store::names::{due_kind, due_letter, key_of, name_of};
use crate::store::{DocumentKey, DueEntry};

/// Whose turn it is to collect what nobody needs.
pub(super) const COLLECTOR: &str = "dockframe:collector";

/// What is kept of the store as a whole.
pub(super) const FORMAT: &str = "dockframe:format";
pub(super) const EPOCH: &str = "dockframe:epoch";

/// Parts of the index of queues with something due.
pub(super) const BUCKETS: u8 = 16;

const MINUTE: i64 = 60_000;

pub(super) fn queue(queue: QueueDigest, what: &str) -> String {
    format!("dockframe:{{{}}}:{what}", queue.to_hex())
}

pub(super) fn live(digest: QueueDigest) -> String {
    queue(digest, "live")
}

pub(super) fn due(digest: QueueDigest) -> String {
    queue(digest, "due")
}

pub(super) fn count(digest: QueueDigest) -> String {
    queue(digest, "count")
}

pub(super) fn entry(digest: QueueDigest, name: &str) -> String {
    queue(digest, &format!("e:{name}"))
}

const CHANNEL: &str = "dockframe:news:";

pub(super) fn channel(queue: QueueDigest) -> String {
    format!("{CHANNEL}{{{}}}", queue.to_hex())
}

pub(super) fn queue_of_channel(channel: &str) -> Option<QueueDigest> {
    digest_of(channel.strip_prefix(CHANNEL)?.strip_prefix('{')?.strip_suffix('}')?)
}

fn digest_of(text: &str) -> Option<QueueDigest> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(QueueDigest::from_bytes(bytes))
}

/// A key of a queue as a member of its index, and in messages.
pub(super) fn member(key: &Key) -> String {
    let (kind, name) = name_of(key);
    format!("{}{name}", kind as char)
}

pub(super) fn key_of_member(member: &[u8]) -> Option<Key> {
    let (kind, name) = member.split_first()?;
    key_of(*kind, std::str::from_utf8(name).ok()?)
}

pub(super) fn due_member(due: &Due) -> String {
    // The time is part of the name: two looks at one job at two times are two entries.
    format!("{}{}:{}", due_letter(due.what) as char, due.at.as_millis(), due.job)
}

pub(super) fn due_of_member(queue: QueueDigest, member: &[u8]) -> Option<DueEntry> {
    let (kind, rest) = member.split_first()?;
    let (at, job) = std::str::from_utf8(rest).ok()?.split_once(':')?;
    let at = Timestamp::from_millis(at.parse().ok()?);
    Some(DueEntry { queue, due: Due { at, what: due_kind(*kind)?, job: JobId::new(job).ok()? } })
}

pub(super) fn bucket(number: u8) -> String {
    format!("dockframe:due:{number:x}")
}

pub(super) fn bucket_of(queue: QueueDigest) -> String {
    bucket(queue.as_bytes()[0] >> 4)
}

/// A minute in which something is due in a queue: one member of the index.
pub(super) fn minute(queue: QueueDigest, at: Timestamp) -> String {
    format!("{}:{}", queue.to_hex(), at.as_millis() / MINUTE)
}

/// The queue of such a member, and when it may be forgotten if nothing is due any more: a minute after its end. A
/// commit that counts on it reaches the server long before, or is refused ([`super::MOST_LATE_MS`]).
pub(super) fn queue_of_minute(member: &str) -> Option<(QueueDigest, Timestamp)> {
    let (queue, minute) = member.split_once(':')?;
    let minute: i64 = minute.parse().ok()?;
    Some((digest_of(queue)?, Timestamp::from_millis(minute.saturating_add(2).saturating_mul(MINUTE))))
}

/// A run as part of a key: of one length, whatever characters are in it.
pub(super) fn of_run(run: &LeaseId) -> String {
    hex(&Sha256::digest(run.as_str().as_bytes()))
}

pub(super) fn document(key: &DocumentKey) -> String {
    match key {
        DocumentKey::Definition(job) => format!("dockframe:def:{job}"),
        DocumentKey::OwnDefinition(of, job) => queue(*of, &format!("def:{job}")),
        DocumentKey::Result(run) => format!("dockframe:result:{}", of_run(run)),
        DocumentKey::Shared(job) => format!("dockframe:shared:{job}"),
        DocumentKey::Home(job) => format!("dockframe:home:{job}"),
    }
}

/// What a key of ours is, for the garbage collection.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    Entry(QueueDigest, Key),
    Document,
    /// Of the run of this name.
    Log(String),
}

pub(super) fn found(name: &str) -> Option<Found> {
    let name = name.strip_prefix("dockframe:")?;
    if ["def:", "home:", "result:"].iter().any(|kind| name.starts_with(kind)) {
        return Some(Found::Document);
    }
    if let Some(log) = name.strip_prefix("log:{") {
        let (run, rest) = log.split_once('}')?;
        return rest.ends_with(":numbers").then(|| Found::Log(run.to_owned()));
    }
    let (queue, rest) = name.strip_prefix('{')?.split_once('}')?;
    if rest.starts_with(":def:") {
        return Some(Found::Document);
    }
    Some(Found::Entry(digest_of(queue)?, key_of_member(rest.strip_prefix(":e:")?.as_bytes())?))
}

/// The lines of a log, and their numbers.
pub(super) fn log(run: &LeaseId, kind: &str) -> (String, String) {
    log_of(&of_run(run), kind)
}

pub(super) fn log_of(run: &str, kind: &str) -> (String, String) {
    (format!("dockframe:log:{{{run}}}:{kind}"), format!("dockframe:log:{{{run}}}:{kind}:numbers"))
}

#[cfg(test)]
mod tests {
    use dockframe_shared::QueueKey;

    use super::*;
    use crate::queue::command::DueKind;

    #[test]
    fn names_are_read_back_as_they_were() {
        let digest = QueueKey::new("secret").unwrap().digest();
        assert_eq!(queue_of_channel(&channel(digest)), Some(digest));
        let due = Due {
            at: Timestamp::from_millis(119_999),
            what: DueKind::Share,
            job: JobId::new("odd:id with: colons").unwrap(),
        };
        let read = due_of_member(digest, due_member(&due).as_bytes()).unwrap();
        assert_eq!(read, DueEntry { queue: digest, due });
        let name = minute(digest, Timestamp::from_millis(119_999));
        assert_eq!(queue_of_minute(&name), Some((digest, Timestamp::from_millis(180_000))));
        let last = format!("{}:{}", digest.to_hex(), i64::MAX);
        assert_eq!(queue_of_minute(&last), Some((digest, Timestamp::from_millis(i64::MAX))));
        let key = Key::Run(LeaseId::new("lease").unwrap());
        assert_eq!(key_of_member(member(&key).as_bytes()), Some(key));
    }

    #[test]
    fn the_collection_tells_what_a_key_is() {
        let digest = QueueKey::new("secret").unwrap().digest();
        let job = JobId::new("odd:e:j").unwrap();
        let key = Key::Record(job.clone());
        assert_eq!(found(&entry(digest, &member(&key))), Some(Found::Entry(digest, key)));
        for document in [
            DocumentKey::Definition(job.clone()),
            DocumentKey::OwnDefinition(digest, job.clone()),
            DocumentKey::Home(job.clone()),
            DocumentKey::Result(LeaseId::new("run").unwrap()),
        ] {
            assert_eq!(found(&super::document(&document)), Some(Found::Document));
        }
        let run = LeaseId::new("run").unwrap();
        let (lines, numbers) = log(&run, "build");
        assert_eq!(found(&numbers), Some(Found::Log(of_run(&run))));
        for other in
            [lines, super::document(&DocumentKey::Shared(job)), live(digest), bucket(1), EPOCH.to_owned()]
        {
            assert_eq!(found(&other), None, "{other}");
        }
    }
}
