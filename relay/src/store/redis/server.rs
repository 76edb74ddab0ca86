//! What the server promises, by its configuration, in words for its operator.

use redis::aio::ConnectionManager;
use redis::{InfoDict, RedisResult, cmd};

/// The oldest server whose commands are used here.
const LEAST: u32 = 7;

/// The configuration that decides what can be lost. `None`: the server does not tell.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Server {
    pub version: String,
    appendonly: Option<String>,
    appendfsync: Option<String>,
    maxmemory: Option<String>,
    eviction: Option<String>,
    replicas: u64,
}

impl Server {
    pub(super) async fn ask(connection: &ConnectionManager) -> RedisResult<Self> {
        let mut connection = connection.clone();
        let info: InfoDict = cmd("INFO").query_async(&mut connection).await?;
        let mut server = Self {
            version: info.get("redis_version").unwrap_or_default(),
            replicas: info.get("connected_slaves").unwrap_or_default(),
            ..Self::default()
        };
        for (name, value) in [
            ("appendonly", &mut server.appendonly),
            ("appendfsync", &mut server.appendfsync),
            ("maxmemory", &mut server.maxmemory),
            ("maxmemory-policy", &mut server.eviction),
        ] {
            // Hosted servers often forbid the question: then nothing is known, and said so.
            let answer: RedisResult<Vec<String>> =
                cmd("CONFIG").arg("GET").arg(name).query_async(&mut connection).await;
            *value = answer.ok().and_then(|answer| answer.into_iter().nth(1));
        }
        Ok(server)
    }

    /// Whether this program can work with it.
    pub(super) fn is_recent(&self) -> bool {
        self.version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_none_or(|v| v >= LEAST)
    }

    /// Which loss of acknowledged changes the configuration admits.
    pub(super) fn losses(&self) -> Vec<String> {
        let mut losses = Vec::new();
        match (self.appendonly.as_deref(), self.appendfsync.as_deref()) {
            (Some("yes"), Some("always")) => {
                losses.push(
                    "a crash of the server loses nothing that was acknowledged (appendonly yes, appendfsync always)"
                        .to_owned(),
                );
            }
            (Some("yes"), Some("everysec")) => losses.push(
                "a crash of the server may lose what was acknowledged within the last second or two (appendfsync \
                 everysec): `appendfsync always` loses nothing"
                    .to_owned(),
            ),
            (Some("yes"), Some(_)) => losses.push(
                "a crash of the server's machine may lose what was acknowledged within the last half minute or so \
                 (appendfsync no): `appendfsync always` loses nothing"
                    .to_owned(),
            ),
            (Some(_), _) => losses.push(
                "a crash of the server loses all that was acknowledged since its last snapshot (appendonly no): \
                 `appendonly yes` with `appendfsync always` loses nothing"
                    .to_owned(),
            ),
            (None, _) => losses.push(
                "what a crash of the server loses is not known: it does not tell its configuration; `appendonly \
                 yes` with `appendfsync always` loses nothing"
                    .to_owned(),
            ),
        }
        let is_bounded = self.maxmemory.as_deref().is_some_and(|bytes| bytes != "0");
        if is_bounded && self.eviction.as_deref() != Some("noeviction") {
            losses.push(
                "when its memory is full the server drops jobs and results: set `maxmemory-policy noeviction`".to_owned(),
            );
        }
        if self.replicas > 0 {
            losses.push(
                "a failover to a replica may lose the last acknowledged changes: they are not waited for"
                    .to_owned(),
            );
        }
        losses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(appendonly: &str, appendfsync: &str) -> Server {
        let some = |text: &str| Some(text.to_owned());
        Server { appendonly: some(appendonly), appendfsync: some(appendfsync), ..Server::default() }
    }

    #[test]
    fn each_configuration_is_told_with_what_it_may_lose() {
        assert!(server("yes", "always").losses()[0].contains("loses nothing that was acknowledged"));
        assert!(server("yes", "everysec").losses()[0].contains("last second"));
        assert!(server("no", "always").losses()[0].contains("since its last snapshot"));
        assert!(Server::default().losses()[0].contains("not known"));
    }

    #[test]
    fn a_server_that_may_drop_keys_or_fail_over_is_told_so() {
        let some = |text: &str| Some(text.to_owned());
        let odd = Server {
            maxmemory: some("100"),
            eviction: some("allkeys-lru"),
            replicas: 1,
            ..Server::default()
        };
        assert_eq!(odd.losses().len(), 3);
        let bounded = Server { maxmemory: some("100"), eviction: some("noeviction"), ..Server::default() };
        assert_eq!(bounded.losses().len(), 1);
    }

    #[test]
    fn old_servers_are_told_from_new_ones() {
        for (version, recent) in [("6.2.14", false), ("7.0.15", true), ("8.0.0", true), ("", true)] {
            assert_eq!(Server { version: version.to_owned(), ..Server::default() }.is_recent(), recent);
        }
    }
}
