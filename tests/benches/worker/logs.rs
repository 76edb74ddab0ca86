//! From a container's write to a client's socket. The container prints what it is handed, so one clock measures both.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use dockframe_tests::docker::BUSYBOX;
use serde_json::{Value, json};

use crate::Side;
use crate::support::http::Connection;
use crate::support::socket::Socket;
use crate::support::table::{Aim, row, title};
use crate::support::times::Times;

const LINES: usize = 50;
/// Between two lines: each is the first after a pause.
const PAUSE: Duration = Duration::from_millis(200);
/// No line takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn measure(side: &Side) -> anyhow::Result<()> {
    title(&format!("A line of a log, {LINES} of them, a fifth of a second apart"));
    let script = "mkfifo /outputs/pipe && echo ready && exec cat /outputs/pipe";
    let job = json!({"definition": {"image": BUSYBOX, "command": ["sh", "-c", script]}}).to_string();
    let mut client = Socket::client(side.relay.address(), side.scenario.queue()).await?;
    let mut connection = Connection::open(side.relay.address()).await?;
    let answer = connection.ask("POST", &format!("/q/{}", side.scenario.queue()), &job).await?;
    let answer: Value = serde_json::from_slice(answer)?;
    let id = answer["jobId"].as_str().unwrap_or_default().to_owned();
    client.send(format!(r#"{{"type":"Watch","payload":{{"jobs":{{"{id}":{{"run":0}}}}}}}}"#)).await?;
    hears(&mut client, "ready").await?;
    let pipe = pipe_below(side.worker.data()).context("the job's pipe is not in the worker's directory")?;
    let mut pipe = std::fs::OpenOptions::new().write(true).open(pipe)?;
    let mut times = Times::default();
    for number in 0..LINES {
        tokio::time::sleep(PAUSE).await;
        let line = format!("line number {number} of the job");
        let begin = Instant::now();
        pipe.write_all(format!("{line}\n").as_bytes())?;
        hears(&mut client, &line).await?;
        times.add(begin.elapsed());
    }
    drop(pipe);
    row("write to the client's socket: p50", times.p50(), "ms", Aim::AtMost(25.0));
    row("write to the client's socket: p95", times.p95(), "ms", Aim::None);
    Ok(())
}

async fn hears(client: &mut Socket, text: &str) -> anyhow::Result<()> {
    let heard = async {
        while !client.next().await?.contains(text) {}
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, heard).await.with_context(|| format!("no {text:?} came"))?
}

/// The pipe that the only running job has made in its outputs.
fn pipe_below(directory: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::FileTypeExt as _;
    std::fs::read_dir(directory).ok()?.flatten().find_map(|entry| {
        let kind = entry.file_type().ok()?;
        if kind.is_fifo() { Some(entry.path()) } else { kind.is_dir().then(|| pipe_below(&entry.path()))? }
    })
}
