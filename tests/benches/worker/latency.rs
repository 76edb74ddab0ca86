//! One short job after the other, in turn by `docker run`, by the Engine's API, and by us.

use std::time::Instant;

use dockframe_tests::docker::BUSYBOX;
use serde_json::json;

use crate::Side;
use crate::engine::{Network, api_run, docker_run};
use crate::support::socket::Socket;
use crate::support::table::{Aim, row, title};
use crate::support::times::Times;

const ROUNDS: usize = 50;

pub(crate) async fn measure(side: &Side) -> anyhow::Result<()> {
    let mut client = Socket::client(side.relay.address(), side.scenario.queue()).await?;
    for network in [Network::Nat, Network::None] {
        let (mut docker, mut api, mut ours) = (Times::default(), Times::default(), Times::default());
        for round in 0..ROUNDS {
            let begin = Instant::now();
            docker_run(network).await?;
            docker.add(begin.elapsed());
            let begin = Instant::now();
            api_run(network).await?;
            api.add(begin.elapsed());
            let mut job =
                json!({"image": BUSYBOX, "command": "true", "env": {"N": format!("{network:?}{round}")}});
            if network == Network::None {
                job["network"] = json!("none");
            }
            let begin = Instant::now();
            side.run(&mut client, &job).await?;
            ours.add(begin.elapsed());
        }
        title(&format!("A short job, network {}, {ROUNDS} of each in turn", network.name()));
        row("docker run --rm: p50", docker.p50(), "ms", Aim::None);
        row("docker run --rm: p95", docker.p95(), "ms", Aim::None);
        row("the Engine's API (create, start, wait, remove): p50", api.p50(), "ms", Aim::None);
        row("the Engine's API (create, start, wait, remove): p95", api.p95(), "ms", Aim::None);
        row("submission to Finished seen: p50", ours.p50(), "ms", Aim::None);
        row("submission to Finished seen: p95", ours.p95(), "ms", Aim::None);
        row("over the Engine's API: p50", ours.p50() - api.p50(), "ms", Aim::AtMost(15.0));
        row("over the Engine's API: p95", ours.p95() - api.p95(), "ms", Aim::AtMost(40.0));
        row("ours ÷ docker run: p50", ours.p50() / docker.p50(), "", Aim::AtMost(0.9));
    }
    Ok(())
}
