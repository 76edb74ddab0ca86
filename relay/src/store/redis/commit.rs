//! A commit: what goes before the script, the script, what goes after it.

use std::collections::BTreeMap;
use std::time::Instant;

use dockframe_shared::Timestamp;
use redis::{Value, cmd, pipe};

use super::script::{COMMIT, call};
use super::{MOST_LATE_MS, RedisStore, collect, keys, odd_answer, unavailable};
use crate::store::{ANY_REVISION, Commit, Committed, DocumentKey, StoreError, Stored};

/// Longer values are not published but read by those who need them.
pub(super) const LONGEST_PUBLISHED: usize = 64 << 10;

impl RedisStore {
    pub(super) async fn make(&self, commit: Commit) -> Result<Committed, StoreError> {
        let mut pipeline = pipe();
        for (key, bytes) in &commit.documents {
            collect::set_named(&mut pipeline, key, bytes);
        }
        let now = self.clock.now();
        let minutes: BTreeMap<String, Timestamp> = commit.due.iter().fold(BTreeMap::new(), |mut all, due| {
            // Never in a minute that is over: it may be forgotten at any moment.
            let first = all.entry(keys::minute(commit.queue, due.at.max(now))).or_insert(due.at);
            *first = due.at.min(*first);
            all
        });
        if !minutes.is_empty() {
            let index = pipeline.cmd("ZADD").arg(keys::bucket_of(commit.queue)).arg("LT");
            for (member, score) in minutes {
                index.arg(score.as_millis()).arg(member);
            }
            index.ignore();
        }
        pipeline.add_command(self.commit_call(&commit));
        let sent = Instant::now();
        let (answer,): (Value,) = self.send(&pipeline, &COMMIT).await.map_err(unavailable)?;
        let Value::Array(answer) = answer else { return Err(odd_answer()) };
        let mut answer = answer.into_iter();
        let (Some(outcome), Some(time)) = (answer.next(), answer.next()) else { return Err(odd_answer()) };
        let time: i64 = redis::from_redis_value(time).map_err(|_| odd_answer())?;
        self.clock.learn(Timestamp::from_millis(time), sent);
        match redis::from_redis_value::<String>(outcome).as_deref() {
            Ok("ok") => {
                self.offer(&commit.offers).await;
                Ok(Committed::Ok)
            }
            // The clock is right by now: decided anew, it is another commit.
            Ok("late") => Ok(Committed::Conflict(Vec::new())),
            Ok("conflict") => {
                let clash = answer.next().ok_or_else(odd_answer)?;
                conflicts(&commit, clash)
            }
            _ => Err(odd_answer()),
        }
    }

    fn commit_call(&self, commit: &Commit) -> redis::Cmd {
        let Commit { queue, writes, due, done, .. } = commit;
        let mut keys = vec![keys::live(*queue), keys::due(*queue), keys::count(*queue)];
        let members: Vec<String> = writes.iter().map(|write| keys::member(&write.key)).collect();
        keys.extend(members.iter().map(|member| keys::entry(*queue, member)));
        let mut call = call(&COMMIT, &keys);
        call.arg(commit.at.as_millis())
            .arg(MOST_LATE_MS)
            .arg(keys::channel(*queue))
            .arg(&self.process)
            .arg(LONGEST_PUBLISHED)
            .arg(writes.len())
            .arg(done.len())
            .arg(due.len());
        for (write, member) in writes.iter().zip(&members) {
            call.arg(member);
            if write.expected == ANY_REVISION {
                call.arg("")
            } else {
                call.arg(write.expected)
            };
            let state = match (&write.bytes, write.live) {
                (None, _) => "gone",
                (Some(_), true) => "live",
                (Some(_), false) => "kept",
            };
            call.arg(write.revision).arg(state).arg(write.bytes.as_deref().unwrap_or_default());
        }
        for done in done {
            call.arg(keys::due_member(done));
        }
        for new in due {
            call.arg(new.at.as_millis()).arg(keys::due_member(new));
        }
        call
    }

    /// The commit is made: what follows from it is not its failure. A due entry repeats it.
    async fn offer(&self, offers: &[(DocumentKey, Vec<u8>)]) {
        for (key, bytes) in offers {
            let mut set = cmd("SET");
            set.arg(keys::document(key)).arg(bytes).arg("NX");
            if let Err(error) = self.ask::<Value>(set).await {
                tracing::warn!(%error, "a result is offered to other queues a little later");
            }
        }
    }
}

/// What is there instead of what was expected: position of the write, revision, value, and so on.
fn conflicts(commit: &Commit, clash: Value) -> Result<Committed, StoreError> {
    let Value::Array(clash) = clash else { return Err(odd_answer()) };
    let mut fresh = Vec::new();
    for one in clash.chunks(3) {
        let (at, revision, bytes): (usize, u64, Vec<u8>) =
            redis::from_redis_value(Value::Array(one.to_vec())).map_err(|_| odd_answer())?;
        let key = commit.writes.get(at).ok_or_else(odd_answer)?.key.clone();
        fresh.push((key, (revision > 0).then_some(Stored { revision, bytes })));
    }
    Ok(Committed::Conflict(fresh))
}
