//! Keys of the embedded store as bytes whose order is the order that is wanted.

use std::ops::Bound;

use dockframe_shared::{JobId, QueueDigest, Timestamp};

use crate::queue::command::Due;
use crate::queue::view::Key;
use crate::store::names::{due_kind, due_letter, key_of, name_of};
use crate::store::{DocumentKey, DueEntry, Stored};

const DIGEST: usize = 32;

pub(super) fn entry(queue: QueueDigest, key: &Key) -> Vec<u8> {
    let (kind, name) = name_of(key);
    let mut bytes = Vec::with_capacity(DIGEST + 1 + name.len());
    bytes.extend_from_slice(queue.as_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(name.as_bytes());
    bytes
}

pub(super) fn split_entry(bytes: &[u8]) -> Option<Key> {
    let kind = *bytes.get(DIGEST)?;
    let name = std::str::from_utf8(bytes.get(DIGEST + 1..)?).ok()?;
    key_of(kind, name)
}

pub(super) fn queue_of(bytes: &[u8]) -> Option<QueueDigest> {
    bytes.first_chunk::<DIGEST>().map(|digest| QueueDigest::from_bytes(*digest))
}

/// All keys after this one; without one, all.
pub(super) fn from(after: Option<&[u8]>) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

/// Where a page of entries ended: those that are live come first, then those that have ended.
pub(super) fn cursor(is_ended: bool, key: &[u8]) -> Vec<u8> {
    let mut cursor = vec![u8::from(is_ended)];
    cursor.extend_from_slice(key);
    cursor
}

/// After which key to go on, and whether among those that have ended.
pub(super) fn split_cursor(cursor: Option<&[u8]>) -> (Option<&[u8]>, bool) {
    match cursor.and_then(<[u8]>::split_first) {
        Some((ended, key)) => (Some(key).filter(|key| !key.is_empty()), *ended == 1),
        None => (None, false),
    }
}

/// Whether a document is of the kinds that the garbage collection takes.
pub(super) fn is_collected(bytes: &[u8]) -> bool {
    let kind = bytes.iter().position(|byte| *byte == END_OF_NAME).and_then(|at| bytes.get(at + 1));
    matches!(kind, Some(b'd' | b'o' | b'r' | b'h'))
}

/// From the first to after the last key of a queue.
pub(super) fn range_of(queue: QueueDigest) -> (Vec<u8>, Vec<u8>) {
    let from = queue.as_bytes().to_vec();
    let mut to = from.clone();
    to.push(u8::MAX);
    (from, to)
}

pub(super) fn with_revision(revision: u64, bytes: &[u8]) -> Vec<u8> {
    let mut value = revision.to_be_bytes().to_vec();
    value.extend_from_slice(bytes);
    value
}

pub(super) fn split_revision(value: &[u8]) -> Option<Stored> {
    let (revision, bytes) = value.split_first_chunk::<8>()?;
    Some(Stored { revision: u64::from_be_bytes(*revision), bytes: bytes.to_vec() })
}

/// Times before 1970 do not occur; they would be due at once.
fn time(at: Timestamp) -> [u8; 8] {
    u64::try_from(at.as_millis()).unwrap_or(0).to_be_bytes()
}

pub(super) fn due(queue: QueueDigest, due: &Due) -> Vec<u8> {
    let mut bytes = time(due.at).to_vec();
    bytes.extend_from_slice(queue.as_bytes());
    bytes.push(due_letter(due.what));
    bytes.extend_from_slice(due.job.as_str().as_bytes());
    bytes
}

/// After all that is due at this time.
pub(super) fn due_until(until: Timestamp) -> Vec<u8> {
    time(until.plus_millis(1)).to_vec()
}

pub(super) fn split_due(bytes: &[u8]) -> Option<DueEntry> {
    let (at, rest) = bytes.split_first_chunk::<8>()?;
    let (queue, rest) = rest.split_first_chunk::<DIGEST>()?;
    let (kind, job) = rest.split_first()?;
    let what = due_kind(*kind)?;
    let at = Timestamp::from_millis(i64::try_from(u64::from_be_bytes(*at)).ok()?);
    let job = JobId::new(std::str::from_utf8(job).ok()?).ok()?;
    Some(DueEntry { queue: QueueDigest::from_bytes(*queue), due: Due { at, what, job } })
}

/// No name has it.
const END_OF_NAME: u8 = 0;

/// Documents of one job are neighbours, so that a commit that sets two of them touches one page.
pub(super) fn document(key: &DocumentKey) -> Vec<u8> {
    let (kind, queue, name) = match key {
        DocumentKey::Definition(job) => (b'd', None, job.as_str()),
        DocumentKey::OwnDefinition(queue, job) => (b'o', Some(queue), job.as_str()),
        DocumentKey::Result(run) => (b'r', None, run.as_str()),
        DocumentKey::Shared(job) => (b's', None, job.as_str()),
        DocumentKey::Home(job) => (b'h', None, job.as_str()),
    };
    document_of(kind, queue.map(|queue| &queue.as_bytes()[..]).unwrap_or_default(), name.as_bytes())
}

fn document_of(kind: u8, queue: &[u8], name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 2 + queue.len());
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(&[END_OF_NAME, kind]);
    bytes.extend_from_slice(queue);
    bytes
}

/// The key of a document that had this one in format 1: kind, queue if it belonged to one, name.
pub(super) fn document_of_1(bytes: &[u8]) -> Option<Vec<u8>> {
    let (kind, rest) = bytes.split_first()?;
    let (queue, name) = rest.split_at_checked(if *kind == b'o' { DIGEST } else { 0 })?;
    Some(document_of(*kind, queue, name))
}
