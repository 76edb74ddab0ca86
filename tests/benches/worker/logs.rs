//! From a container's write to a client's socket. The container prints the time, by the same clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dockframe_tests::docker::BUSYBOX;
use serde_json::json;

use crate::Side;
use crate::support::http::Connection;
use crate::support::socket::Socket;
use crate::support::table::{Aim, note, row, title};
use crate::support::times::Times;

const LINES: usize = 50;

pub(crate) async fn measure(side: &Side) -> anyhow::Result<()> {
    title(&format!("A line of a log, {LINES} of them, a fifth of a second apart"));
    let script =
        format!("sleep 1; i=0; while [ $i -lt {LINES} ]; do date +%s%N; usleep 200000; i=$((i+1)); done");
    let job = json!({"definition": {"image": BUSYBOX, "command": format!("sh -c '{script}'")}}).to_string();
    let mut client = Socket::client(side.relay.address(), side.scenario.queue()).await?;
    let mut connection = Connection::open(side.relay.address()).await?;
    let answer = connection.ask("POST", &format!("/q/{}", side.scenario.queue()), &job).await?;
    let answer: serde_json::Value = serde_json::from_slice(answer)?;
    let id = answer["jobId"].as_str().unwrap_or_default().to_owned();
    client.send(format!(r#"{{"type":"Watch","payload":{{"jobs":{{"{id}":{{"run":0}}}}}}}}"#)).await?;
    let mut times = Times::default();
    loop {
        let frame = tokio::time::timeout(Duration::from_secs(60), client.next()).await??;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let frame: serde_json::Value = serde_json::from_str(&frame).unwrap_or_default();
        for line in frame["payload"]["logs"].as_array().into_iter().flatten() {
            let text = line[0].as_str().unwrap_or_default();
            let stamps = text.lines().filter_map(|line| line.parse().ok()).map(Duration::from_nanos);
            stamps.for_each(|written| times.add(now.saturating_sub(written)));
        }
        if frame["payload"]["state"]["jobs"][&id]["state"] == "Finished" {
            break;
        }
    }
    if times.len() < LINES || times.p50() > 60_000.0 {
        note(&format!("{} lines had a time that can be read: this image's date knows no %N", times.len()));
        return Ok(());
    }
    row("write to the client's socket: p50", times.p50(), "ms", Aim::AtMost(25.0));
    row("write to the client's socket: p95", times.p95(), "ms", Aim::None);
    Ok(())
}
