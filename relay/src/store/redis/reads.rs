//! What is read: entries, what is live, what is due.

use std::collections::BTreeMap;
use std::time::Instant;

use dockframe_shared::{QueueDigest, Timestamp};
use redis::{RedisResult, cmd, pipe};

use super::script::{DUE, call};
use super::{RedisStore, keys};
use crate::queue::view::Key;
use crate::store::{DueEntry, Stored};

/// Entries read at once.
const PAGE: usize = 500;

/// Revision, value and whether it is live; nothing of an entry that is not there.
type Fields = (Option<u64>, Option<Vec<u8>>, Option<String>);
/// The server's time, and what is due in a queue.
type DueAnswer = (i64, Vec<Vec<u8>>);

impl RedisStore {
    pub(super) async fn read_live(&self, queue: QueueDigest) -> RedisResult<Vec<(Key, Stored)>> {
        let mut found = Vec::new();
        let mut cursor = 0_u64;
        loop {
            let mut scan = cmd("SSCAN");
            scan.arg(keys::live(queue)).arg(cursor).arg("COUNT").arg(PAGE);
            let (next, members): (u64, Vec<Vec<u8>>) = self.ask(scan).await?;
            let named: Vec<Key> = members.iter().filter_map(|member| keys::key_of_member(member)).collect();
            for (key, entry) in self.read_all(queue, &named).await? {
                // What left the list while it was read is not live any more. What came meanwhile is told as news.
                if let Some((stored, true)) = entry {
                    found.push((key, stored));
                }
            }
            if next == 0 {
                // A scan may name a member twice.
                found.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
                found.dedup_by(|(a, _), (b, _)| a == b);
                return Ok(found);
            }
            cursor = next;
        }
    }

    pub(super) async fn read_all(
        &self,
        queue: QueueDigest,
        named: &[Key],
    ) -> RedisResult<Vec<(Key, Option<(Stored, bool)>)>> {
        if named.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = pipe();
        for key in named {
            pipeline.cmd("HMGET").arg(keys::entry(queue, &keys::member(key))).arg(&["r", "v", "l"]);
        }
        let entries: Vec<Fields> = pipeline.query_async(&mut self.connection.clone()).await?;
        let entry = |(revision, bytes, live): Fields| {
            Some((Stored { revision: revision?, bytes: bytes? }, live.as_deref() == Some("1")))
        };
        Ok(named.iter().cloned().zip(entries.into_iter().map(entry)).collect())
    }

    pub(super) async fn read_due(&self, until: Timestamp, limit: usize) -> RedisResult<Vec<DueEntry>> {
        // Where in the index each queue is: bucket, member, and when that is over.
        let mut queues: BTreeMap<QueueDigest, Vec<(u8, String, Timestamp)>> = BTreeMap::new();
        let mut pipeline = pipe();
        for bucket in 0..keys::BUCKETS {
            pipeline.cmd("ZRANGEBYSCORE").arg(keys::bucket(bucket)).arg("-inf").arg(until.as_millis());
        }
        let buckets: Vec<Vec<String>> = pipeline.query_async(&mut self.connection.clone()).await?;
        for (bucket, members) in (0..).zip(buckets) {
            for member in members {
                if let Some((queue, over)) = keys::queue_of_minute(&member) {
                    queues.entry(queue).or_default().push((bucket, member, over));
                }
            }
        }
        let mut found = Vec::new();
        let mut forgotten = pipe();
        let names: Vec<QueueDigest> = queues.keys().copied().collect();
        for some in names.chunks(PAGE) {
            let mut pipeline = pipe();
            for queue in some {
                let mut call = call(&DUE, &[keys::due(*queue)]);
                call.arg(until.as_millis()).arg(limit);
                pipeline.add_command(call);
            }
            let sent = Instant::now();
            let answers: Vec<DueAnswer> = self.send(&pipeline, &DUE).await?;
            for (queue, (now, due)) in some.iter().zip(answers) {
                let now = Timestamp::from_millis(now);
                self.clock.learn(now, sent);
                if due.is_empty() {
                    for (bucket, member, over) in queues.get(queue).into_iter().flatten() {
                        if now >= *over {
                            forgotten.cmd("ZREM").arg(keys::bucket(*bucket)).arg(member).ignore();
                        }
                    }
                }
                found.extend(due.iter().filter_map(|member| keys::due_of_member(*queue, member)));
            }
        }
        if !forgotten.is_empty() {
            let () = forgotten.query_async(&mut self.connection.clone()).await?;
        }
        found.sort_unstable_by(|a, b| (&a.due, a.queue).cmp(&(&b.due, b.queue)));
        found.truncate(limit);
        Ok(found)
    }
}
