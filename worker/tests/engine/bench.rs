//! What a test needs around a worker: an Engine, an image of its own, a worker with its own place and labels.
//! Everything is gone when the bench is dropped, also when the test failed.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use clap::Parser;
use dockframe_worker::{Config, RunArgs, RunError, Worker};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::relay::{PATIENCE, Relay};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    run: RunArgs,
}

pub(crate) struct Bench {
    pub(crate) relay: Relay,
    pub(crate) image: String,
    pub(crate) worker_id: String,
    pub(crate) data: TempDir,
}

pub(crate) struct Running {
    pub(crate) stop: CancellationToken,
    pub(crate) hurry: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        show_logs();
        ensure_engine();
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let image = format!("dockframe-test-{}:busybox", &unique[..12]);
        import_busybox(&image);
        let data = tempfile::tempdir().unwrap();
        Self { relay: Relay::start().await, image, worker_id: format!("test-worker-{}", &unique[..12]), data }
    }

    /// A worker of the queue `q`, connected.
    pub(crate) async fn worker(&self, flags: &[&str]) -> Running {
        let earlier = self.relay.heard().iter().map(|heard| heard.connection).max().unwrap_or_default();
        let running = self.start(flags).await.unwrap();
        self.relay.connected(earlier + 1).await;
        running
    }

    pub(crate) async fn start(&self, flags: &[&str]) -> Result<Running, dockframe_worker::StartError> {
        self.start_with(flags, |_| {}).await
    }

    /// The words of a worker's command line, for the queue `q` unless they name one.
    pub(crate) fn arguments(&self, flags: &[&str]) -> RunArgs {
        let data = self.data.path().display().to_string();
        let api = format!("--api-address={}", self.relay.address);
        let id = format!("--id={}", self.worker_id);
        let data = format!("--data-directory={data}");
        let mut line = vec!["run", &api, &id, &data];
        line.extend(flags);
        if !flags.iter().any(|flag| !flag.starts_with('-')) {
            line.push("q");
        }
        Line::try_parse_from(line).unwrap().run
    }

    pub(crate) async fn start_with(
        &self,
        flags: &[&str],
        change: impl FnOnce(&mut Config),
    ) -> Result<Running, dockframe_worker::StartError> {
        let mut config = Config::resolve(self.arguments(flags), engine_of_the_tests)?;
        change(&mut config);
        let worker = Worker::start(config).await?;
        let (stop, hurry) = (CancellationToken::new(), worker.hurry());
        let task = tokio::spawn(worker.run(stop.clone()));
        Ok(Running { stop, hurry, task })
    }

    /// All containers of this bench's worker, in any state.
    pub(crate) fn containers(&self) -> Vec<String> {
        let filter = format!("label=container.mtfm.io/worker={}", self.worker_id);
        let output = docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter]);
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    pub(crate) fn inspect(&self, container: &str) -> serde_json::Value {
        let output = docker(&["inspect", container]);
        serde_json::from_slice::<Vec<_>>(&output.stdout).unwrap().remove(0)
    }

    /// Directories of runs.
    pub(crate) fn run_directories(&self) -> Vec<PathBuf> {
        let entries =
            |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        entries(self.data.path().join("remote/j")).flat_map(entries).collect()
    }

    /// Waits until nothing of any run is left.
    pub(crate) async fn clean(&self) {
        eventually("nothing is left", || self.containers().is_empty() && self.run_directories().is_empty())
            .await;
    }
}

impl Running {
    /// The first signal.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("the worker ends").unwrap().unwrap();
    }

    /// As SIGKILL would: every task ends where it is.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let containers = self.containers();
        if !containers.is_empty() {
            let mut arguments = vec!["rm", "--force", "--volumes"];
            arguments.extend(containers.iter().map(String::as_str));
            docker(&arguments);
        }
        docker(&["rmi", "--force", &self.image]);
    }
}

/// Level-triggered, with a limit.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "not so in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn docker(arguments: &[&str]) -> Output {
    Command::new("docker")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the docker program is installed")
}

/// The environment of a worker in these tests: only which Engine it is, as for the `docker` command beside it.
pub(crate) fn engine_of_the_tests(name: &str) -> Option<String> {
    (name == "DOCKER_HOST").then(|| std::env::var(name).ok()).flatten()
}

fn show_logs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing_subscriber::fmt().with_env_filter("dockframe_worker=debug").with_test_writer().init();
    });
}

/// Starts an Engine when none answers, and leaves it running: other tests use it too.
fn ensure_engine() {
    let answers = || docker(&["version", "--format", "{{.Server.Version}}"]).status.success();
    if answers() {
        return;
    }
    let log = std::fs::File::create(std::env::temp_dir().join("dockerd.log")).unwrap();
    // `--fork`: the daemon outlives this test and is nobody's child.
    let started = Command::new("setsid")
        .args(["--fork", "dockerd"])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .status()
        .expect("dockerd is installed");
    assert!(started.success());
    let until = Instant::now() + PATIENCE;
    while !answers() {
        assert!(Instant::now() < until, "dockerd does not start");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// An image of the machine's own static busybox: no registry is needed.
fn import_busybox(image: &str) {
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let list = Command::new("/bin/busybox").arg("--list").output().unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    let mut directory = |path: &str, mode| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(mode);
        header.set_size(0);
        archive.append_data(&mut header, path, std::io::empty()).unwrap();
    };
    directory("bin/", 0o755);
    directory("etc/", 0o755);
    directory("tmp/", 0o1777);
    let mut file = |path: &str, mode, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content).unwrap();
    };
    file("bin/busybox", 0o755, &busybox);
    file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
    for applet in String::from_utf8(list.stdout).unwrap().lines().filter(|applet| *applet != "busybox") {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        archive.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    let archive = archive.into_inner().unwrap();
    let mut import = Command::new("docker")
        .args(["import", "--change", "ENV PATH=/bin", "-", image])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    import.stdin.take().unwrap().write_all(&archive).unwrap();
    assert!(import.wait().unwrap().success(), "docker import");
}
