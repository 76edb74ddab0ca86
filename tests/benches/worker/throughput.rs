//! Many short jobs on two processors, beside what the Engine itself does with two at a time.

use std::time::Instant;

use dockframe_tests::docker::BUSYBOX;
use serde_json::json;

use crate::Side;
use crate::engine::{Network, api_run};
use crate::support::http::Connection;
use crate::support::socket::Socket;
use crate::support::table::{Aim, row, title};
use crate::support::times::per_second;

const JOBS: usize = 200;
/// Both are measured in so many turns.
const TURNS: usize = 4;

pub(crate) async fn measure(side: &Side) -> anyhow::Result<()> {
    let (mut engine, mut ours) = (std::time::Duration::ZERO, std::time::Duration::ZERO);
    for turn in 0..TURNS {
        let begin = Instant::now();
        let half = || async {
            for _ in 0..JOBS / TURNS / 2 {
                api_run(Network::Nat).await?;
            }
            anyhow::Ok(())
        };
        let (a, b) = tokio::join!(half(), half());
        a.and(b)?;
        engine += begin.elapsed();
        let begin = Instant::now();
        together(side, turn).await?;
        ours += begin.elapsed();
    }
    title(&format!("{JOBS} short jobs, two at a time, in {TURNS} turns"));
    let (engine, ours) = (per_second(JOBS, engine), per_second(JOBS, ours));
    row("the Engine's API", engine, "/s", Aim::None);
    row("ours, --cpus=2", ours, "/s", Aim::None);
    row("ours ÷ the Engine's", ours / engine, "", Aim::AtLeast(0.97));
    Ok(())
}

async fn together(side: &Side, turn: usize) -> anyhow::Result<()> {
    // One that says nothing during the Engine's turn would be closed.
    let mut client = Socket::client(side.relay.address(), side.scenario.queue()).await?;
    let path = format!("/q/{}", side.scenario.queue());
    let mut connection = Connection::open(side.relay.address()).await?;
    let mut open = std::collections::BTreeSet::new();
    for n in 0..JOBS / TURNS {
        let job =
            json!({"definition": {"image": BUSYBOX, "command": "true", "env": {"T": format!("{turn}-{n}")}}});
        let answer = connection.ask("POST", &path, &job.to_string()).await?;
        let answer: serde_json::Value = serde_json::from_slice(answer)?;
        open.insert(answer["jobId"].as_str().unwrap_or_default().to_owned());
    }
    let jobs: serde_json::Map<_, _> = open.iter().map(|id| (id.clone(), json!({}))).collect();
    client.send(json!({"type": "Watch", "payload": {"jobs": jobs}}).to_string()).await?;
    while !open.is_empty() {
        let frame: serde_json::Value = serde_json::from_str(&client.next().await?).unwrap_or_default();
        if let Some(jobs) = frame["payload"]["state"]["jobs"].as_object() {
            open.retain(|id| jobs.get(id).is_none_or(|job| job["state"] != "Finished"));
        }
    }
    Ok(())
}
