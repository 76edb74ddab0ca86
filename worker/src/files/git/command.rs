//! The git program, with nothing of its owner's and with an end to everything: time, memory, room.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use cap_std::fs::Dir;
use rustix::process::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use super::GitError;
use super::bounds::{Group, bound, outgrown};
use super::said::{MAX_SAID_BYTES, credential, secrets, sentence};
use crate::files::context::{ContextError, unpack_stream};
use crate::files::fetch::Served;

/// Of an answer that is read.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// Settings of every call.
const SETTINGS: [&str; 17] = [
    // Names of other servers come in redirects, alternates and the like: all of these are followed here, or not at all.
    "http.followRedirects=false",
    "http.proxy=",
    "transfer.bundleURI=false",
    "protocol.version=2",
    "credential.helper=",
    // A server that has fallen silent.
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=60",
    // Nothing runs but what is called.
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "fetch.recurseSubmodules=false",
    "fetch.writeCommitGraph=false",
    // One file instead of thousands, and no large ones in memory.
    "fetch.unpackLimit=1",
    "core.bigFileThreshold=16m",
    "pack.threads=2",
    // Modes as of a working tree.
    "tar.umask=0022",
];

/// Files as they are in the commit: no line ends changed, no keywords filled in, nothing left out.
const ATTRIBUTES: &str = "* -export-ignore -export-subst -ident -text !filter !working-tree-encoding\n";

/// How git is called for one repository.
#[derive(Debug)]
pub(super) struct Git {
    program: &'static str,
    /// Has the repository and an empty home.
    directory: PathBuf,
    settings: Vec<String>,
    /// With the credential. Not among the arguments, which everybody on this machine can see.
    header: Option<String>,
    /// Not to be shown.
    secrets: Vec<String>,
}

impl Git {
    pub(super) async fn new(directory: &Path) -> Result<Self, GitError> {
        tokio::fs::create_dir_all(directory.join("home")).await?;
        Ok(Self {
            program: "git",
            directory: directory.to_owned(),
            settings: SETTINGS.map(str::to_owned).to_vec(),
            header: None,
            secrets: Vec::new(),
        })
    }

    /// Takes over where to go and with which credential. The result is the address for git.
    pub(super) fn goes_to(&mut self, served: &Served) -> String {
        self.settings.extend(served.pin.iter().map(|pin| format!("http.curloptResolve={pin}")));
        if served.ignore_certificates {
            self.settings.push("http.sslVerify=false".to_owned());
        }
        if let Some((plain, encoded)) = credential(&served.url) {
            self.header = Some(format!("Authorization: Basic {encoded}"));
            self.secrets = secrets(&served.url, plain, encoded);
        }
        let mut address = served.url.clone();
        // Both cannot fail: the address has a host.
        let _ = address.set_username("");
        let _ = address.set_password(None);
        address.into()
    }

    fn repository(&self) -> PathBuf {
        self.directory.join("repository")
    }

    /// For the repository, once it is made.
    pub(super) async fn leave_files_alone(&self) -> Result<(), GitError> {
        let place = self.repository().join("info");
        tokio::fs::create_dir_all(&place).await?;
        Ok(tokio::fs::write(place.join("attributes"), ATTRIBUTES).await?)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            // Where the owner keeps other certificates than the system does.
            .envs(std::env::var_os("SSL_CERT_FILE").map(|file| ("GIT_SSL_CAINFO", file)))
            .env("HOME", self.directory.join("home"))
            .env("LC_ALL", "C")
            // Said here, so that no repository is looked for around the directory.
            .env("GIT_DIR", self.repository())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "true")
            .env("GIT_ALLOW_PROTOCOL", "http:https")
            .env("GIT_PROTOCOL_FROM_USER", "0")
            .env("GIT_NO_LAZY_FETCH", "1");
        if let Some(header) = &self.header {
            command
                .env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", "http.extraHeader")
                .env("GIT_CONFIG_VALUE_0", header);
        }
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command
            .args(arguments)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    fn start(&self, arguments: &[&str]) -> Result<(Child, Group), GitError> {
        let child = self.command(arguments).spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => GitError::NoGit,
            _ => GitError::Run(error),
        })?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        bound(group);
        Ok((child, Group::of(group)))
    }

    /// Calls git. The result is the beginning of what it writes.
    pub(super) async fn run(
        &self,
        what: &'static str,
        arguments: &[&str],
        limit: Duration,
    ) -> Result<Vec<u8>, GitError> {
        let (mut child, mut group) = self.start(arguments)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let work = async {
            let (answer, said, status) = tokio::join!(beginning(stdout), end(stderr), child.wait());
            group.is_over();
            self.check(what, status?, &said)?;
            Ok(answer)
        };
        tokio::select! {
            done = timeout(limit, work) => done.unwrap_or(Err(GitError::Slow { what, limit })),
            () = outgrown(&self.directory) => Err(GitError::TooLarge),
        }
    }

    /// Writes the files of a tree of the repository.
    pub(super) async fn archive(&self, tree: &str, into: Dir, limit: Duration) -> Result<(), GitError> {
        let what = "read the repository";
        // By `--worktree-attributes`, of which there are none, git does not list the whole tree in memory first.
        let (mut child, mut group) =
            self.start(&["archive", "--format=tar", "--worktree-attributes", tree])?;
        let stdout = child.stdout.take().ok_or_else(|| std::io::Error::other("no output"))?;
        let stdout = std::fs::File::from(stdout.into_owned_fd()?);
        let stderr = child.stderr.take();
        // It ends when git does, at the latest.
        let unpacking = tokio::task::spawn_blocking(move || unpack_stream(stdout, &into));
        let work = async {
            let (unpacked, said, status) = tokio::join!(unpacking, end(stderr), child.wait());
            group.is_over();
            match unpacked.map_err(std::io::Error::other)? {
                // What is cut off cannot be read either: then git says why.
                Ok(()) | Err(ContextError::Read(_)) if !status.as_ref().is_ok_and(ExitStatus::success) => {
                    self.check(what, status?, &said)
                }
                unpacked => Ok(unpacked?),
            }
        };
        timeout(limit, work).await.unwrap_or(Err(GitError::Slow { what, limit }))
    }

    fn check(&self, what: &'static str, status: ExitStatus, said: &[u8]) -> Result<(), GitError> {
        if status.success() {
            return Ok(());
        }
        let said = match sentence(said, &self.secrets) {
            said if said.is_empty() => status.to_string(),
            said => said,
        };
        Err(GitError::Failed { what, said })
    }
}

/// Reads to the end and keeps the beginning.
async fn beginning(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    let Some(mut from) = from else { return kept };
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let room = MAX_ANSWER_BYTES.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..read.min(room)]);
    }
    kept
}

/// Reads to the end and keeps that.
async fn end(from: Option<ChildStderr>) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = vec![0; 4 << 10];
    let Some(mut from) = from else { return kept };
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..read]);
        kept.drain(..kept.len().saturating_sub(MAX_SAID_BYTES));
    }
    kept
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    fn served(address: &str) -> Served {
        let pin = Some("h:443:1.1.1.1".to_owned());
        Served { url: Url::parse(address).unwrap(), pin, ignore_certificates: false }
    }

    #[tokio::test]
    async fn a_credential_is_no_argument_and_is_not_said() {
        let directory = tempfile::tempdir().unwrap();
        let mut git = Git::new(directory.path()).await.unwrap();
        assert_eq!(git.goes_to(&served("https://me:s%40cret@h/x.git")), "https://h/x.git");
        assert_eq!(git.header.as_deref(), Some("Authorization: Basic bWU6c0BjcmV0"));
        let command = git.command(&["version"]);
        let words: Vec<_> =
            command.as_std().get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        assert!(words.contains(&"http.curloptResolve=h:443:1.1.1.1".to_owned()), "{words:?}");
        assert!(!words.iter().any(|word| word.contains("cret") || word.contains("bWU6")), "{words:?}");
        let said = b"remote: s@cret, s%40cret\x07 and bWU6c0BjcmV0\nhint: x\n\nfatal: no\n";
        assert_eq!(sentence(said, &git.secrets), "remote: ***, ***  and ***; fatal: no");
        git.goes_to(&served("https://t0ken@h/x.git"));
        assert_eq!(sentence(b"t0ken dDBrZW46", &git.secrets), "*** ***");
    }

    #[tokio::test]
    async fn what_takes_too_long_is_ended_with_all_that_it_has_started() {
        let directory = tempfile::tempdir().unwrap();
        let git = Git::new(directory.path()).await.unwrap();
        let ends = Duration::from_millis(300);
        let error = git.run("wait", &["-c", "alias.wait=!sleep 98765 & sleep 98765", "wait"], ends).await;
        assert!(matches!(error, Err(GitError::Slow { .. })), "{error:?}");
        let sleeps = || {
            let found = std::process::Command::new("pgrep").args(["-f", "^sleep 98765"]).output().unwrap();
            found.status.success()
        };
        for _ in 0..100 {
            if !sleeps() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("a process is left");
    }

    #[tokio::test]
    async fn a_machine_without_git_says_what_to_install() {
        let directory = tempfile::tempdir().unwrap();
        let mut git = Git::new(directory.path()).await.unwrap();
        git.program = "git-that-is-not-here";
        let error = git.run("say its version", &["version"], ends_soon()).await.unwrap_err().to_string();
        assert!(error.contains("install git (2.37 or newer)") && error.contains(".tar.gz"), "{error}");
    }

    #[tokio::test]
    async fn nothing_of_the_owner_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let git = Git::new(directory.path()).await.unwrap();
        let listed = git.run("list", &["config", "--list", "--show-scope"], ends_soon()).await.unwrap();
        let listed = String::from_utf8(listed).unwrap();
        assert!(listed.lines().all(|line| line.starts_with("command\t")), "{listed}");
        let refused = git.run("clone", &["ls-remote", "--", "/"], ends_soon()).await.unwrap_err().to_string();
        assert!(refused.contains("transport 'file' not allowed"), "{refused}");
    }

    #[tokio::test]
    async fn git_goes_where_it_is_told_and_follows_nobody_from_there() {
        use tokio::io::AsyncWriteExt as _;
        use tokio::net::TcpListener;

        let listen = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (here, elsewhere) = (listen().await, listen().await);
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let directory = tempfile::tempdir().unwrap();
        let mut git = Git::new(directory.path()).await.unwrap();
        // No name server knows the name.
        let address = git.goes_to(&Served {
            url: Url::parse(&format!("http://pinned.invalid:{}/x.git", port(&here))).unwrap(),
            pin: Some(format!("pinned.invalid:{}:127.0.0.1", port(&here))),
            ignore_certificates: false,
        });
        let answer = format!(
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{}/x.git/info/refs?service=git-upload-pack\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n",
            port(&elsewhere)
        );
        let answering = async {
            let (mut connection, _) = here.accept().await.unwrap();
            let mut request = [0; 4096];
            let read = connection.read(&mut request).await.unwrap();
            connection.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        };
        let arguments = ["ls-remote", "--", &address];
        let (request, outcome) = tokio::join!(answering, git.run("list", &arguments, ends_soon()));
        assert!(request.starts_with("GET /x.git/info/refs"), "{request}");
        assert!(matches!(outcome, Err(GitError::Failed { .. })), "{outcome:?}");
        let other = timeout(Duration::from_millis(50), elsewhere.accept()).await;
        assert!(other.is_err(), "git has followed");
    }

    fn ends_soon() -> Duration {
        Duration::from_secs(30)
    }
}
