//! News as they go over a channel: fields, each as its length, a colon and its bytes.
//!
//! Written by the commit's script and by [`notice`]; read here. First field: what it is; second: which process
//! says it.

use dockframe_shared::{JobId, QueueDigest};

use super::keys::key_of_member;
use crate::store::news::{News, Notice, Value, Written};

/// A message that cannot be read: of a newer program, or not one of ours. Whoever gets it reads the queue again.
#[derive(Debug, PartialEq)]
pub(super) struct Unreadable;

pub(super) fn notice(process: &str, notice: &Notice) -> Vec<u8> {
    match notice {
        Notice::Lines { job, message } => fields(&["lines", process, job.as_str(), message]),
        Notice::Workers(workers) => fields(&["workers", process, workers]),
        Notice::WhoIsThere => fields(&["who", process]),
    }
}

fn fields(fields: &[&str]) -> Vec<u8> {
    fields.iter().flat_map(|field| format!("{}:{field}", field.len()).into_bytes()).collect()
}

fn split(mut message: &[u8]) -> Option<Vec<&[u8]>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let colon = message.iter().position(|byte| *byte == b':')?;
        let length: usize = std::str::from_utf8(&message[..colon]).ok()?.parse().ok()?;
        let (field, rest) = message[colon + 1..].split_at_checked(length)?;
        fields.push(field);
        message = rest;
    }
    Some(fields)
}

/// The news of a message. Own commits are told as ones without writes, own notices as nothing: their process knows.
pub(super) fn read(queue: QueueDigest, message: &[u8], own: &str) -> Result<Option<News>, Unreadable> {
    let fields = split(message).ok_or(Unreadable)?;
    let [what, process, rest @ ..] = fields.as_slice() else { return Err(Unreadable) };
    let is_own = *process == own.as_bytes();
    if *what == b"commit" {
        let (count, writes) = rest.split_first().ok_or(Unreadable)?;
        let writes =
            if is_own { Vec::new() } else { writes.chunks(4).map(written).collect::<Result<_, _>>()? };
        return Ok(Some(News::Commit { queue, count: number(count)?, writes }));
    }
    if is_own {
        return Ok(None);
    }
    let notice = match (*what, rest) {
        (b"lines", [job, message]) => Notice::Lines {
            job: JobId::new(text(job)?).map_err(|_| Unreadable)?,
            message: text(message)?.to_owned(),
        },
        (b"workers", [workers]) => Notice::Workers(text(workers)?.to_owned()),
        (b"who", []) => Notice::WhoIsThere,
        _ => return Err(Unreadable),
    };
    Ok(Some(News::Notice { queue, process: text(process)?.to_owned(), notice }))
}

fn written(fields: &[&[u8]]) -> Result<Written, Unreadable> {
    let [name, revision, state, bytes] = fields else { return Err(Unreadable) };
    let value = match *state {
        b"gone" => Value::Gone,
        b"live" => Value::Is { bytes: bytes.to_vec(), live: true },
        b"kept" => Value::Is { bytes: bytes.to_vec(), live: false },
        b"read" => Value::Read,
        _ => return Err(Unreadable),
    };
    Ok(Written { key: key_of_member(name).ok_or(Unreadable)?, revision: number(revision)?, value })
}

fn text(bytes: &[u8]) -> Result<&str, Unreadable> {
    std::str::from_utf8(bytes).map_err(|_| Unreadable)
}

fn number(bytes: &[u8]) -> Result<u64, Unreadable> {
    text(bytes)?.parse().map_err(|_| Unreadable)
}

#[cfg(test)]
mod tests {
    use dockframe_shared::QueueKey;
    use proptest::prelude::*;

    use super::*;

    fn queue() -> QueueDigest {
        QueueKey::new("q").unwrap().digest()
    }

    #[test]
    fn notices_are_read_as_they_were_written_and_ones_own_are_nothing() {
        let job = JobId::new("a:b").unwrap();
        for told in [
            Notice::Lines { job, message: "12:{}ü".to_owned() },
            Notice::Workers("[]".to_owned()),
            Notice::WhoIsThere,
        ] {
            let bytes = notice("p1", &told);
            assert_eq!(read(queue(), &bytes, "p1"), Ok(None));
            let news = Some(News::Notice { queue: queue(), process: "p1".to_owned(), notice: told });
            assert_eq!(read(queue(), &bytes, "p2"), Ok(news));
        }
    }

    #[test]
    fn what_is_cut_short_or_unknown_is_unreadable() {
        for odd in ["", "3:who", "3:who2:p", "5:shout1:p", "6:commit1:p1:x", "6:commit1:p1:34:jobs", "x"] {
            assert_eq!(read(queue(), odd.as_bytes(), "me"), Err(Unreadable), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_bring_the_reader_down(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(queue(), &bytes, "me");
        }
    }
}
