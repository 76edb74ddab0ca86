//! Where a setting's value comes from, and how its text is read: flag, environment, old names, default, in this order.

use std::path::PathBuf;
use std::time::Duration;

use dockframe_shared::QueueKey;
use dockframe_shared::units::{bytes, duration};
use url::Url;

use super::{ConfigError, DEFAULT_ADDRESS, SecretSource};

/// Longest text of a secret.
const MAX_SECRET_BYTES: usize = 64 << 10;

/// An empty value counts as not given.
pub(super) fn given(value: Option<String>) -> Option<String> {
    value.filter(|text| !text.is_empty())
}

/// The environment, and what to tell the owner about it.
pub(super) struct Sources<E> {
    pub(super) env: E,
    pub(super) warnings: Vec<String>,
}

impl<E: Fn(&str) -> Option<String>> Sources<E> {
    /// The flag, else the first of the variables that is set, else the first of the old ones, with a warning.
    pub(super) fn pick(&mut self, flag: Option<String>, names: &[&str], old: &[&str]) -> Option<String> {
        if let Some(value) = given(flag) {
            return Some(value);
        }
        if let Some(value) = names.iter().find_map(|name| given((self.env)(name))) {
            return Some(value);
        }
        let (name, value) = old.iter().find_map(|name| Some((*name, given((self.env)(name))?)))?;
        self.warn_old(name, names.first().copied().unwrap_or("a flag"));
        Some(value)
    }

    pub(super) fn warn_old(&mut self, old: &str, new: &str) {
        self.warnings.push(format!("{old} is an old name, use {new}"));
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        (self.env)(name).as_deref() == Some("true")
    }

    pub(super) fn queues(&mut self, words: Vec<String>) -> Result<Vec<QueueKey>, ConfigError> {
        let mut words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
        if words.is_empty() {
            let old = &["METAPAGE_IO_QUEUE", "METAPAGE_IO_WORKER_QUEUE_ID"];
            words.extend(self.pick(None, &["METAPAGE_IO_WORKER_QUEUE"], old));
        }
        if words.is_empty() {
            return Err(ConfigError::NoQueue);
        }
        let mut queues = Vec::new();
        for word in words {
            let queue = QueueKey::new(word).map_err(ConfigError::Queue)?;
            if !queues.contains(&queue) {
                queues.push(queue);
            }
        }
        Ok(queues)
    }

    pub(super) fn api_address(
        &mut self,
        flag: Option<String>,
        old_flag: Option<String>,
    ) -> Result<String, ConfigError> {
        let flag = match (given(flag), given(old_flag)) {
            (None, Some(old)) => {
                self.warn_old("--api-server-address", "--api-address");
                Some(old)
            }
            (flag, _) => flag,
        };
        let address = self
            .pick(
                flag,
                &["DOCKFRAME_API_ADDRESS", "METAPAGE_IO_WORKER_API_ADDRESS"],
                &["METAPAGE_IO_API_ADDRESS", "API_SERVER_ADDRESS"],
            )
            .unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
        let bad = || ConfigError::Value {
            option: "--api-address",
            value: address.clone(),
            expected: "the relay's address, such as https://relay.example or http://localhost:8000",
        };
        let url = Url::parse(&address).map_err(|_| bad())?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(bad());
        }
        Ok(address.strip_suffix('/').unwrap_or(&address).to_owned())
    }
}

pub(super) fn parse<T>(
    value: Option<String>,
    default: T,
    option: &'static str,
    expected: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<T, ConfigError> {
    match given(value) {
        None => Ok(default),
        Some(value) => read(&value).ok_or(ConfigError::Value { option, value, expected }),
    }
}

pub(super) fn choice<T: Copy>(
    value: Option<String>,
    option: &'static str,
    choices: &[(&'static str, T)],
) -> Result<T, ConfigError> {
    // The first choice is the default; every caller names at least two.
    let default = choices[0].1;
    parse(value, default, option, "one of its values (see --help)", |text| {
        choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value)
    })
}

pub(super) fn time(
    value: Option<String>,
    default: Duration,
    option: &'static str,
) -> Result<Duration, ConfigError> {
    parse(value, default, option, "a time above 0, such as 90s, 20m or 1h30m", |text| {
        duration::parse_limit(text).ok()
    })
}

pub(super) fn size(value: Option<String>, option: &'static str) -> Result<Option<u64>, ConfigError> {
    parse(value, None, option, "a size above 0, such as 512M or 16G", |text| {
        bytes::parse(text).ok().map(Some)
    })
}

/// `None` is the image's own user.
pub(super) fn job_user(value: Option<String>) -> Result<Option<String>, ConfigError> {
    parse(value, Some("0:0".to_owned()), "--job-user", "`image`, or UID:GID in numbers", |text| {
        if text == "image" {
            return Some(None);
        }
        let (uid, gid) = text.split_once(':')?;
        (uid.parse::<u32>().is_ok() && gid.parse::<u32>().is_ok()).then(|| Some(text.to_owned()))
    })
}

/// `NAME=env:VAR` or `NAME=file:/path`. The value is read when the worker starts.
pub(super) fn secrets(
    given: Vec<String>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Vec<(String, SecretSource)>, ConfigError> {
    given
        .into_iter()
        .filter(|text| !text.is_empty())
        .map(|text| {
            let bad = || ConfigError::Value {
                option: "--secret",
                // What follows the name may be a secret by mistake.
                value: text.split('=').next().unwrap_or_default().chars().take(80).collect(),
                expected: "NAME=env:VARIABLE or NAME=file:/path, whose content is there",
            };
            let (name, source) = text.split_once('=').ok_or_else(bad)?;
            let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                && name.bytes().next().is_some_and(|first| !first.is_ascii_digit());
            let value = match source.split_once(':') {
                Some(("env", variable)) => env(variable),
                Some(("file", path)) => std::fs::read_to_string(path)
                    .ok()
                    .map(|text| text.strip_suffix('\n').map(str::to_owned).unwrap_or(text)),
                _ => None,
            };
            let value = value.filter(|value| {
                is_name && !value.is_empty() && value.len() <= MAX_SECRET_BYTES && !value.contains('\0')
            });
            Ok((name.to_owned(), SecretSource(value.ok_or_else(bad)?)))
        })
        .collect()
}

/// An address to listen at; a port alone means this computer.
pub(super) fn listen(
    value: Option<String>,
    option: &'static str,
) -> Result<Option<std::net::SocketAddr>, ConfigError> {
    parse(value, None, option, "an address such as 127.0.0.1:9464", |text| {
        let address = match text.parse::<u16>() {
            Ok(port) => std::net::SocketAddr::from(([127, 0, 0, 1], port)),
            Err(_) => text.parse().ok()?,
        };
        Some(Some(address))
    })
}

/// Where `DOCKER_CERT_PATH` leads, or Docker's own directory.
pub(super) fn certificates(verify: bool, path: Option<String>, home: Option<PathBuf>) -> Option<PathBuf> {
    if !verify {
        return None;
    }
    path.map(PathBuf::from).or(home)
}
