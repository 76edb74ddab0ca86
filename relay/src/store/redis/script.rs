//! The scripts: each is one atomic step on the server.

use std::sync::LazyLock;

use redis::aio::ConnectionManager;
use redis::{Cmd, FromRedisValue, Pipeline, RedisResult, Script, cmd};

pub(super) static COMMIT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("commit.lua")));
pub(super) static DUE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("due.lua")));
pub(super) static EPOCH: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("epoch.lua")));
pub(super) static REMOVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("remove.lua")));
pub(super) static APPEND: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("append.lua")));
pub(super) static LINES: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lines.lua")));
pub(super) static COLLECT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("collect.lua")));

/// The call of a script by its digest, before its arguments.
pub(super) fn call(script: &Script, keys: &[String]) -> Cmd {
    let mut call = cmd("EVALSHA");
    call.arg(script.get_hash()).arg(keys.len()).arg(keys);
    call
}

/// Sends the commands together; what one of them cannot do fails all. Steps before one that fails are done: each
/// must be harmless alone.
pub(super) async fn send<T: FromRedisValue>(
    connection: &ConnectionManager,
    pipeline: &Pipeline,
    script: &Script,
) -> RedisResult<T> {
    let mut connection = connection.clone();
    match pipeline.query_async(&mut connection).await {
        // A server that started anew, or dropped its scripts, has done nothing with it.
        Err(error) if error.code() == Some("NOSCRIPT") => {
            script.load_async(&mut connection).await?;
            pipeline.query_async(&mut connection).await
        }
        outcome => outcome,
    }
}
