//! The store of several relays: a Redis server (7 or newer), or one that speaks as it does.
//!
//! A commit is one script on the keys of one queue; the server's clock decides what time it is. Whatever one relay
//! commits is published by the same script, so that the others hear of it ([`super::news`]).
//!
//! What lies here: records and all else of queues, definitions, results of any size, shared results, log lines. What
//! does not: uploaded files. They stay where `--blobs` says, which all relays of one server must share (a common
//! folder).
//!
//! What stands outside a queue's slot cannot be part of its script. Documents are set before it, offers after it;
//! and before it, too, the index learns in which minute something will be due in the queue. That minute is
//! forgotten only when it is long over and nothing is due: a commit still on its way then is refused, by the time of
//! its decision ([`MOST_LATE_MS`]). So a due entry may be early or idle, never missing.
//!
//! Nothing is acknowledged that the server has not confirmed. A commit without an answer may have been made or not:
//! it fails, and its queue is read again.

mod collect;
mod commit;
mod keys;
mod logs;
mod message;
mod reads;
mod script;
mod server;
mod subscriber;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dockframe_shared::{QueueDigest, Timestamp};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, FromRedisValue, Pipeline, RedisResult, Script, Value, cmd, pipe};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use self::script::{EPOCH, REMOVE, call, send};
use self::subscriber::{Ask, Subscriber};
use super::collect::Collect;
use super::news::{News, Notice, Others};
use super::{Commit, Committed, DocumentKey, DueEntry, Store, StoreError, Stored};
use crate::clock::Clock;
use crate::queue::view::Key;

pub(crate) use self::logs::RedisLogs;

const FORMAT: u32 = 1;
/// A commit is refused when its decision was made so long before, or after, the server's time.
const MOST_LATE_MS: i64 = 5_000;
/// Longer than that: so what was not answered in time is not done later either.
const ANSWER: Duration = Duration::from_secs(7);
const CONNECT: Duration = Duration::from_secs(2);
/// How long whoever opens a queue waits for its news to come.
const SUBSCRIBE: Duration = Duration::from_secs(5);
/// News that wait to be dealt with; where there are more, queues are read again.
const NEWS: usize = 1 << 14;

/// Why the server cannot be used. Each says what to do. No address in it shows a password.
#[derive(Debug, thiserror::Error)]
pub enum OpenRedisError {
    #[error("this is no address of a Redis server: use redis://[USER:PASSWORD@]HOST:PORT[/DATABASE]")]
    Address(#[source] redis::RedisError),
    #[error("this relay cannot speak TLS to Redis yet: use redis://, over a network that is safe")]
    Tls,
    #[error("the Redis server at {server} cannot be used: {cause}")]
    Server { server: String, cause: redis::RedisError },
    #[error("the Redis server at {server} has version {version}, and version 7 is needed: upgrade it")]
    Old { server: String, version: String },
    #[error(
        "the Redis server at {server} holds the format {found}, and this program reads up to {FORMAT}: use a newer dockframe"
    )]
    Newer { server: String, found: String },
}

pub(crate) struct RedisStore {
    connection: ConnectionManager,
    clock: Clock,
    epoch: Mutex<String>,
    /// Who this process is among others.
    process: String,
    asks: mpsc::UnboundedSender<Ask>,
    news: Mutex<Option<mpsc::Receiver<News>>>,
    _subscriber: AbortOnDropHandle<()>,
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStore").field("process", &self.process).finish_non_exhaustive()
    }
}

impl RedisStore {
    /// Connects, and says in the log what the server's configuration may lose.
    pub(crate) async fn open(address: &str) -> Result<Self, OpenRedisError> {
        if address.starts_with("rediss:") {
            return Err(OpenRedisError::Tls);
        }
        let client = Client::open(address).map_err(OpenRedisError::Address)?;
        let server = client.get_connection_info().addr().to_string();
        let of_server = |cause| OpenRedisError::Server { server: server.clone(), cause };
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER))
            .set_min_delay(Duration::from_millis(50))
            .set_max_delay(Duration::from_secs(2))
            .set_number_of_retries(3);
        let connection =
            ConnectionManager::new_with_config(client.clone(), config).await.map_err(of_server)?;
        let found = server::Server::ask(&connection).await.map_err(of_server)?;
        if !found.is_recent() {
            return Err(OpenRedisError::Old { server, version: found.version });
        }
        let epoch = prepare(&connection)
            .await
            .map_err(of_server)?
            .map_err(|found| OpenRedisError::Newer { server: server.clone(), found })?;
        tracing::info!(
            server,
            version = found.version,
            "queues, results and logs are kept in Redis; uploaded files are not: all relays of this server must \
             share the folder of --blobs"
        );
        for loss in found.losses() {
            tracing::info!(server, "{loss}");
        }
        let process = uuid::Uuid::new_v4().simple().to_string();
        let (asks, asked) = mpsc::unbounded_channel();
        let (told, news) = mpsc::channel(NEWS);
        let subscriber = Subscriber { client, process: process.clone(), asks: asked, news: told };
        let store = Self {
            connection,
            clock: Clock::start(),
            epoch: Mutex::new(epoch),
            process,
            asks,
            news: Mutex::new(Some(news)),
            _subscriber: AbortOnDropHandle::new(tokio::spawn(subscriber.run())),
        };
        store.set_clock().await.map_err(of_server)?;
        Ok(store)
    }

    /// The logs that are kept on the same server.
    pub(crate) fn logs(&self) -> RedisLogs {
        RedisLogs::new(self.connection.clone(), self.clock.clone())
    }

    async fn set_clock(&self) -> RedisResult<()> {
        let sent = Instant::now();
        let (seconds, micros): (i64, i64) = self.ask(cmd("TIME")).await?;
        self.clock.learn(Timestamp::from_millis(seconds * 1000 + micros / 1000), sent);
        Ok(())
    }

    async fn ask<T: FromRedisValue>(&self, command: redis::Cmd) -> RedisResult<T> {
        command.query_async(&mut self.connection.clone()).await
    }

    async fn send<T: FromRedisValue>(&self, pipeline: &Pipeline, script: &Script) -> RedisResult<T> {
        send(&self.connection, pipeline, script).await
    }
}

/// Checks the format, and gives the store its epoch. The inner error is a format of a newer program.
async fn prepare(connection: &ConnectionManager) -> RedisResult<Result<String, String>> {
    let set_once = async |key: &str, value: &str| -> RedisResult<String> {
        let mut set = cmd("SET");
        set.arg(key).arg(value).arg("NX").arg("GET");
        let known: Option<String> = set.query_async(&mut connection.clone()).await?;
        Ok(known.unwrap_or_else(|| value.to_owned()))
    };
    let found = set_once(keys::FORMAT, &FORMAT.to_string()).await?;
    if found.parse::<u32>().is_ok_and(|found| found <= FORMAT) {
        let epoch = set_once(keys::EPOCH, &new_epoch()).await?;
        return Ok(Ok(epoch));
    }
    Ok(Err(found))
}

fn new_epoch() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

fn unavailable(error: redis::RedisError) -> StoreError {
    StoreError::Unavailable(Box::new(error))
}

fn odd_answer() -> StoreError {
    StoreError::Corrupt("the server answered a script in a way that is not ours".to_owned())
}

impl Store for RedisStore {
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Committed, StoreError>> {
        self.make(commit).boxed()
    }

    fn read(&self, queue: QueueDigest, key: Key) -> BoxFuture<'_, Result<Option<Stored>, StoreError>> {
        async move {
            let found = self.read_all(queue, &[key]).await.map_err(unavailable)?;
            Ok(found.into_iter().next().and_then(|(_, entry)| entry).map(|(stored, _)| stored))
        }
        .boxed()
    }

    fn live(&self, queue: QueueDigest) -> BoxFuture<'_, Result<Vec<(Key, Stored)>, StoreError>> {
        async move { self.read_live(queue).await.map_err(unavailable) }.boxed()
    }

    fn due(&self, until: Timestamp, limit: usize) -> BoxFuture<'_, Result<Vec<DueEntry>, StoreError>> {
        async move { self.read_due(until, limit).await.map_err(unavailable) }.boxed()
    }

    fn document(&self, key: DocumentKey) -> BoxFuture<'_, Result<Option<Vec<u8>>, StoreError>> {
        async move {
            let mut get = cmd("GET");
            get.arg(keys::document(&key));
            self.ask(get).await.map_err(unavailable)
        }
        .boxed()
    }

    fn remove_document(
        &self,
        key: DocumentKey,
        only: Option<Vec<u8>>,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        async move {
            let key = keys::document(&key);
            let Some(only) = only else {
                let mut remove = cmd("DEL");
                remove.arg(key);
                return self.ask(remove).await.map_err(unavailable);
            };
            let mut pipeline = pipe();
            let mut call = call(&REMOVE, &[key]);
            call.arg(only);
            pipeline.add_command(call);
            let (removed,): (bool,) = self.send(&pipeline, &REMOVE).await.map_err(unavailable)?;
            Ok(removed)
        }
        .boxed()
    }

    fn epoch(&self) -> String {
        self.epoch.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn clock(&self) -> Clock {
        self.clock.clone()
    }

    fn longest_result(&self) -> usize {
        usize::MAX
    }

    fn collect(&self) -> &dyn Collect {
        self
    }

    fn others(&self) -> Option<&dyn Others> {
        Some(self)
    }
}

impl Others for RedisStore {
    fn subscribe(&self, queue: QueueDigest) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let (answer, answered) = oneshot::channel();
            let away = || StoreError::Unavailable("no news of other relays come".into());
            self.asks.send(Ask::Subscribe(queue, answer)).map_err(|_| away())?;
            match tokio::time::timeout(SUBSCRIBE, answered).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(away()),
            }
        }
        .boxed()
    }

    fn unsubscribe(&self, queue: QueueDigest) {
        // Without a subscriber there is nothing to let go of.
        drop(self.asks.send(Ask::Unsubscribe(queue)));
    }

    fn news(&self) -> Option<mpsc::Receiver<News>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn counts(&self, queues: Vec<QueueDigest>) -> BoxFuture<'_, Result<Vec<u64>, StoreError>> {
        async move {
            if queues.is_empty() {
                return Ok(Vec::new());
            }
            let mut pipeline = pipe();
            for queue in queues {
                pipeline.cmd("GET").arg(keys::count(queue));
            }
            let counts: Vec<Option<u64>> =
                pipeline.query_async(&mut self.connection.clone()).await.map_err(unavailable)?;
            Ok(counts.into_iter().map(Option::unwrap_or_default).collect())
        }
        .boxed()
    }

    fn check_epoch(&self, is_lost: bool) -> BoxFuture<'_, Result<bool, StoreError>> {
        async move {
            let known = self.epoch();
            let mut pipeline = pipe();
            // A server that was emptied is one of this format from now on.
            pipeline.cmd("SET").arg(keys::FORMAT).arg(FORMAT).arg("NX").ignore();
            let mut call = call(&EPOCH, &[keys::EPOCH.to_owned()]);
            call.arg(if is_lost { "lost" } else { "" }).arg(&known).arg(new_epoch());
            pipeline.add_command(call);
            let (found,): (String,) = self.send(&pipeline, &EPOCH).await.map_err(unavailable)?;
            let has_changed = found != known;
            *self.epoch.lock().unwrap_or_else(PoisonError::into_inner) = found;
            Ok(has_changed)
        }
        .boxed()
    }

    fn tell(&self, queue: QueueDigest, notice: Notice) -> BoxFuture<'_, ()> {
        async move {
            let mut publish = cmd("PUBLISH");
            publish.arg(keys::channel(queue)).arg(message::notice(&self.process, &notice));
            if let Err(error) = self.ask::<Value>(publish).await {
                tracing::debug!(%error, "other relays could not be told");
            }
        }
        .boxed()
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing {
    use dockframe_shared::QueueDigest;

    use super::{keys, message};

    pub(crate) fn keys(bytes: &[u8]) {
        let queue = QueueDigest::from_bytes([7; 32]);
        if let Some(found) = keys::due_of_member(queue, bytes) {
            let written = keys::due_member(&found.due);
            assert_eq!(keys::due_of_member(queue, written.as_bytes()), Some(found));
        }
        if let Some(key) = keys::key_of_member(bytes) {
            assert_eq!(keys::key_of_member(keys::member(&key).as_bytes()), Some(key));
        }
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Some((queue, at)) = keys::queue_of_minute(text) {
            assert!(keys::minute(queue, at).starts_with(&queue.to_hex()));
        }
        if let Some(queue) = keys::queue_of_channel(text) {
            assert_eq!(keys::queue_of_channel(&keys::channel(queue)), Some(queue));
        }
    }

    pub(crate) fn message(queue: QueueDigest, bytes: &[u8]) {
        use crate::store::news::News;
        if let Ok(Some(News::Notice { process, notice, .. })) = message::read(queue, bytes, "own") {
            let written = message::notice(&process, &notice);
            let read = Some(News::Notice { queue, process, notice });
            assert_eq!(message::read(queue, &written, "own"), Ok(read));
        }
    }
}

#[cfg(test)]
#[path = "../../../tests/api/redis_server.rs"]
pub(super) mod redis_server;
#[cfg(test)]
mod tests;
