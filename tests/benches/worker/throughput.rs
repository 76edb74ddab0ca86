//! Many short jobs on two processors, beside what the Engine itself does with two at a time.

use std::time::{Duration, Instant};

use dockframe_tests::docker::BUSYBOX;
use serde_json::json;

use crate::Side;
use crate::engine::{Network, api_run, as_the_worker_does, bare};
use crate::support::http::Connection;
use crate::support::socket::Socket;
use crate::support::table::{Aim, row, title};
use crate::support::times::per_second;

const JOBS: usize = 200;
/// Both are measured in so many turns.
const TURNS: usize = 4;

pub(crate) async fn measure(side: &Side) -> anyhow::Result<()> {
    for network in [Network::Nat, Network::None] {
        let (bare, same) = (bare(network), as_the_worker_does(side, network).await?);
        side.settled().await?;
        let [mut least, mut engine, mut ours] = [Duration::ZERO; 3];
        for turn in 0..TURNS {
            least += two_at_a_time(&bare).await?;
            engine += two_at_a_time(&same).await?;
            let begin = Instant::now();
            together(side, network, &format!("turn {turn}"), JOBS / TURNS).await?;
            // As the Engine's own turn, to the last container's end.
            side.settled().await?;
            ours += begin.elapsed();
        }
        title(&format!(
            "{JOBS} short jobs, network {}, two at a time, in {TURNS} turns of each",
            network.name()
        ));
        let [least, engine, ours] = [least, engine, ours].map(|time| per_second(JOBS, time));
        row("the Engine's API, barest container", least, "/s", Aim::None);
        row("the Engine's API, our container", engine, "/s", Aim::None);
        row("ours, --cpus=2", ours, "/s", Aim::None);
        row("ours ÷ the Engine's, our container", ours / engine, "", Aim::AtLeast(0.97));
        row("ours ÷ the Engine's, barest container", ours / least, "", Aim::None);
    }
    Ok(())
}

async fn two_at_a_time(body: &str) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    let half = || async {
        for _ in 0..JOBS / TURNS / 2 {
            api_run(body).await?;
        }
        anyhow::Ok(())
    };
    let (a, b) = tokio::join!(half(), half());
    a.and(b)?;
    Ok(begin.elapsed())
}

/// So many jobs, all submitted at once, until the last is finished. `mark` makes them new.
pub(crate) async fn together(side: &Side, network: Network, mark: &str, jobs: usize) -> anyhow::Result<()> {
    // One that says nothing during the Engine's turn would be closed.
    let mut client = Socket::client(side.relay.address(), side.scenario.queue()).await?;
    let path = format!("/q/{}", side.scenario.queue());
    let mut connection = Connection::open(side.relay.address()).await?;
    let mut open = std::collections::BTreeSet::new();
    for n in 0..jobs {
        let mut job =
            json!({"image": BUSYBOX, "command": "true", "env": {"T": format!("{network:?} {mark} {n}")}});
        network.ask(&mut job);
        let answer = connection.ask("POST", &path, &json!({"definition": job}).to_string()).await?;
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
