//! What registries want to hear: from Docker's own configuration, its credential helpers, or the worker's
//! environment (`worker` 10.2). Never logged, never in an error.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use bollard::auth::DockerCredentials;
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;

/// Name under which the public hub's credentials are kept.
const HUB: &str = "https://index.docker.io/v1/";
/// A helper that takes longer hangs.
const HELPER_LIMIT: Duration = Duration::from_secs(20);

/// Where credentials come from.
#[derive(Debug, Clone, Default)]
pub(super) struct Credentials {
    /// Directory of Docker's `config.json`.
    pub(super) directory: Option<PathBuf>,
    /// JSON text: host → `{"username", "password"}`.
    pub(super) text: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DockerConfig {
    auths: HashMap<String, Auth>,
    creds_store: Option<String>,
    cred_helpers: HashMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    identitytoken: Option<String>,
}

#[derive(Deserialize)]
struct Plain {
    #[serde(alias = "user", alias = "Username")]
    username: String,
    #[serde(alias = "Secret")]
    password: String,
}

impl Credentials {
    /// For the registry of an image reference, if there are any.
    pub(super) async fn of(&self, reference: &str) -> Option<DockerCredentials> {
        let host = registry(reference);
        let keys: Vec<String> = match host {
            None => vec![HUB.to_owned(), "docker.io".to_owned()],
            Some(host) => vec![host.to_owned(), format!("https://{host}"), format!("http://{host}")],
        };
        if let Some(text) = &self.text {
            let mut given: HashMap<String, Plain> = serde_json::from_str(text).unwrap_or_default();
            if let Some(plain) = keys.iter().find_map(|key| given.remove(key)) {
                return Some(credentials(plain));
            }
        }
        let file = self.directory.as_ref()?.join("config.json");
        let config: DockerConfig = serde_json::from_slice(&tokio::fs::read(file).await.ok()?).ok()?;
        for key in &keys {
            let helper = config.cred_helpers.get(key).or(config.creds_store.as_ref());
            if let Some(helper) = helper
                && let Some(plain) = ask_helper(helper, key).await
            {
                return Some(credentials(plain));
            }
            if let Some(auth) = config.auths.get(key) {
                return decode(auth);
            }
        }
        None
    }
}

/// Host of an image's registry; `None` is the public hub.
pub(super) fn registry(reference: &str) -> Option<&str> {
    let (first, _) = reference.split_once('/')?;
    let is_host = first.contains(['.', ':']) || first == "localhost";
    (is_host && first != "docker.io").then_some(first)
}

fn credentials(plain: Plain) -> DockerCredentials {
    DockerCredentials {
        username: Some(plain.username),
        password: Some(plain.password),
        ..DockerCredentials::default()
    }
}

fn decode(auth: &Auth) -> Option<DockerCredentials> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(auth.auth.as_deref()?).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (username, password) = text.split_once(':')?;
    Some(DockerCredentials {
        username: Some(username.to_owned()),
        password: Some(password.trim_end_matches('\0').to_owned()),
        identitytoken: auth.identitytoken.clone(),
        ..DockerCredentials::default()
    })
}

async fn ask_helper(helper: &str, key: &str) -> Option<Plain> {
    if !helper.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        return None;
    }
    let mut child = tokio::process::Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(key.as_bytes()).await.ok()?;
    let output = tokio::time::timeout(HELPER_LIMIT, child.wait_with_output()).await.ok()?.ok()?;
    serde_json::from_slice(&output.stdout).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_the_part_that_looks_like_a_host() {
        assert_eq!(registry("python:3.12"), None);
        assert_eq!(registry("library/python"), None);
        assert_eq!(registry("docker.io/library/python"), None);
        assert_eq!(registry("registry.example/team/x:1"), Some("registry.example"));
        assert_eq!(registry("localhost/x"), Some("localhost"));
        assert_eq!(registry("127.0.0.1:5000/x@sha256:00"), Some("127.0.0.1:5000"));
    }

    #[tokio::test]
    async fn dockers_own_configuration_and_the_environment_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let auth = base64::engine::general_purpose::STANDARD.encode("me:se:cret");
        let config = format!(r#"{{"auths":{{"registry.example":{{"auth":"{auth}"}}}}}}"#);
        std::fs::write(directory.path().join("config.json"), config).unwrap();
        let from_file = Credentials { directory: Some(directory.path().to_owned()), text: None };
        let found = from_file.of("registry.example/x").await.unwrap();
        assert_eq!((found.username.as_deref(), found.password.as_deref()), (Some("me"), Some("se:cret")));
        assert!(from_file.of("other.example/x").await.is_none());

        let text = r#"{"docker.io":{"user":"u","password":"p"}}"#.to_owned();
        let from_text = Credentials { directory: None, text: Some(text) };
        assert_eq!(from_text.of("python").await.unwrap().username.as_deref(), Some("u"));
    }
}
