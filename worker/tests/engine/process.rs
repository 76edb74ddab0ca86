//! A worker in a process of its own, so that it can be killed for real.

use std::process::{Child, Command, Stdio};

use clap::Parser;
use dockframe_worker::RunArgs;

use super::bench::Bench;

/// Where the process finds its command line.
const LINE: &str = "DOCKFRAME_TEST_WORKER_LINE";

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    run: RunArgs,
}

/// Killed when dropped.
pub(crate) struct Process(Child);

impl Bench {
    /// Starts the worker of this bench as a process.
    pub(crate) fn process(&self, flags: &[&str]) -> Process {
        let mut line = vec![
            "run".to_owned(),
            format!("--api-address={}", self.relay.address),
            format!("--id={}", self.worker_id),
            format!("--data-directory={}", self.data.path().display()),
            "q".to_owned(),
        ];
        line.extend(flags.iter().map(|&flag| flag.to_owned()));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process::the_process_itself", "--ignored", "--nocapture"])
            .env(LINE, serde_json::to_string(&line).unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Process(child)
    }
}

impl Process {
    /// SIGKILL: no line of the worker's runs any more.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// What the process has in memory.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.0.id())).unwrap_or_default();
        statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
    }

    /// SIGTERM, and the end that follows.
    pub(crate) async fn terminate(mut self) -> std::process::ExitStatus {
        let killed = Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        assert!(killed.success());
        let mut ended = None;
        super::bench::eventually("the process ends", || {
            ended = self.0.try_wait().unwrap();
            ended.is_some()
        })
        .await;
        ended.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already is the usual case.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// No test: what [`Bench::process`] starts.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it is the worker that other tests start as a process"]
async fn the_process_itself() {
    let Ok(line) = std::env::var(LINE) else { return };
    let line: Vec<String> = serde_json::from_str(&line).unwrap();
    tracing_subscriber::fmt().with_env_filter("dockframe_worker=debug").with_writer(std::io::stderr).init();
    dockframe_worker::run(Line::parse_from(line).run).await.unwrap();
}
