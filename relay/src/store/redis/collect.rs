//! Garbage collection where several relays share a server: when a document was last named is kept with it, as a time
//! to live so long that it never comes to its end.

use std::time::Duration;

use dockframe_shared::{LeaseId, QueueDigest, Timestamp};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use redis::aio::ConnectionManager;
use redis::{Pipeline, RedisResult, cmd, pipe};

use super::keys::{self, Found};
use super::script::{COLLECT, call};
use super::{RedisStore, unavailable};
use crate::queue::view::Key;
use crate::store::collect::{AnyEntry, Collect, Cursor, Page};
use crate::store::{DocumentKey, StoreError, Stored};

/// Ten years: nothing is ever lost by it.
pub(super) const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Clocks and roundings are off by less.
pub(super) const SLACK_MS: i64 = 2_000;

/// Sets a document unless it is there; either way it is named. First what is there: it cannot be taken away between
/// the two.
pub(super) fn set_named(pipeline: &mut Pipeline, key: &DocumentKey, bytes: &[u8]) {
    let key = keys::document(key);
    pipeline.cmd("EXPIRE").arg(&key).arg(NEVER.as_secs()).ignore();
    pipeline.cmd("SET").arg(&key).arg(bytes).arg("NX").arg("EX").arg(NEVER.as_secs()).ignore();
}

/// Says that the lines of a run will be needed.
pub(super) async fn name_log(connection: &ConnectionManager, run: &LeaseId) -> RedisResult<()> {
    let mut pipeline = pipe();
    for kind in ["build", "run"] {
        let (lines, numbers) = keys::log(run, kind);
        for key in [lines, numbers] {
            pipeline.cmd("EXPIRE").arg(key).arg(NEVER.as_secs()).ignore();
        }
    }
    pipeline.query_async(&mut connection.clone()).await
}

/// Some of all keys of the server, those of this program.
pub(super) async fn scan(
    connection: &ConnectionManager,
    after: Option<Cursor>,
    limit: usize,
) -> RedisResult<(Vec<String>, Option<Cursor>)> {
    let cursor = after.and_then(|after| after.try_into().ok()).map_or(0, u64::from_be_bytes);
    let mut scan = cmd("SCAN");
    scan.arg(cursor).arg("MATCH").arg("dockframe:*").arg("COUNT").arg(limit);
    let (next, names): (u64, Vec<Vec<u8>>) = scan.query_async(&mut connection.clone()).await?;
    let names = names.into_iter().filter_map(|name| String::from_utf8(name).ok()).collect();
    Ok((names, (next != 0).then(|| next.to_be_bytes().to_vec())))
}

impl RedisStore {
    async fn scan(
        &self,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<(Vec<String>, Option<Cursor>), StoreError> {
        scan(&self.connection, after, limit).await.map_err(unavailable)
    }

    async fn entries_of(&self, named: Vec<(QueueDigest, Key)>) -> RedisResult<Vec<AnyEntry>> {
        if named.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = pipe();
        for (queue, key) in &named {
            pipeline.cmd("HMGET").arg(keys::entry(*queue, &keys::member(key))).arg(&["r", "v"]);
        }
        let found: Vec<(Option<u64>, Option<Vec<u8>>)> =
            pipeline.query_async(&mut self.connection.clone()).await?;
        let stored = |(revision, bytes): (Option<u64>, Option<Vec<u8>>)| {
            Some(Stored { revision: revision?, bytes: bytes? })
        };
        let entries = named.into_iter().zip(found);
        Ok(entries.filter_map(|((queue, key), found)| Some((queue, key, stored(found)?))).collect())
    }
}

impl Collect for RedisStore {
    fn take_turn(&self, for_ms: i64) -> BoxFuture<'_, Result<bool, StoreError>> {
        async move {
            let mut set = cmd("SET");
            set.arg(keys::COLLECTOR).arg(&self.process).arg("NX").arg("PX").arg(for_ms);
            let taken: Option<String> = self.ask(set).await.map_err(unavailable)?;
            Ok(taken.is_some())
        }
        .boxed()
    }

    fn begin(&self) {}

    fn end(&self) {}

    fn settle(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        std::future::ready(Ok(())).boxed()
    }

    fn entries(
        &self,
        after: Option<Cursor>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<AnyEntry>, StoreError>> {
        async move {
            let (names, next) = self.scan(after, limit).await?;
            let named = names.iter().filter_map(|name| match keys::found(name) {
                Some(Found::Entry(queue, key @ (Key::Record(_) | Key::Worker(_)))) => Some((queue, key)),
                _ => None,
            });
            let items = self.entries_of(named.collect()).await.map_err(unavailable)?;
            Ok(Page { items, next })
        }
        .boxed()
    }

    fn documents(
        &self,
        after: Option<Cursor>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page<Vec<u8>>, StoreError>> {
        async move {
            let (names, next) = self.scan(after, limit).await?;
            let documents = names.into_iter().filter(|name| keys::found(name) == Some(Found::Document));
            Ok(Page { items: documents.map(String::into_bytes).collect(), next })
        }
        .boxed()
    }

    fn count(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        async move { self.ask(cmd("DBSIZE")).await.map_err(unavailable) }.boxed()
    }

    fn name_of(&self, key: &DocumentKey) -> Vec<u8> {
        keys::document(key).into_bytes()
    }

    fn name(&self, key: DocumentKey) -> BoxFuture<'_, Result<bool, StoreError>> {
        async move {
            let mut expire = cmd("EXPIRE");
            expire.arg(keys::document(&key)).arg(NEVER.as_secs());
            self.ask(expire).await.map_err(unavailable)
        }
        .boxed()
    }

    fn remove_unnamed(
        &self,
        names: Vec<Vec<u8>>,
        since: Timestamp,
    ) -> BoxFuture<'_, Result<u64, StoreError>> {
        async move {
            let lately = self.clock.now().since(since) + SLACK_MS;
            let mut pipeline = pipe();
            for name in &names {
                let Ok(name) = std::str::from_utf8(name) else { continue };
                let mut call = call(&COLLECT, &[name.to_owned()]);
                call.arg(NEVER.as_millis().to_string()).arg(lately);
                pipeline.add_command(call);
            }
            if names.is_empty() {
                return Ok(0);
            }
            let removed: Vec<u64> = self.send(&pipeline, &COLLECT).await.map_err(unavailable)?;
            Ok(removed.into_iter().sum())
        }
        .boxed()
    }
}
